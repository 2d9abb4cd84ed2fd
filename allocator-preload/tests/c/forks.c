/* A child forked while other threads allocate can allocate, free and exit; so can programs
 * started by exec and posix_spawn. Source: POSIX fork; glibc (malloc works after fork). */
#include "check.h"
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { THREADS = 5, FORKS = 200, TOGETHER = 10, BLOCKS = 40 };

static atomic_int stop;
static _Atomic(void *) ring[64];
static void *from_parent[BLOCKS];

static size_t size_of(int i)
{
    return i % 10 == 9 ? 300 * KIB : 16 + 150 * (size_t)i;
}

static void *work(void *argument)
{
    uint64_t random = 777 + (uintptr_t)argument * 1001;
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 1500; i++) {
            uint64_t r = next_random(&random);
            size_t n = r % 50 == 0 ? 200 * KIB : r % 3000;
            void *p = malloc(n);
            CHECK(p != NULL, "malloc(%zu)", n);
            memset(p, 1, n < 3000 ? n : 3000);
            free(atomic_exchange(&ring[(r >> 32) % COUNT(ring)], p));
        }
        usleep(200); /* leaves the processors to the children */
    }
    return NULL;
}

static void *thread_of_child(void *argument)
{
    void *p = malloc(1000);
    CHECK(p != NULL, "malloc in a thread of the child");
    free(argument);
    return p;
}

/* Ends the child with status 0. */
static void child(int number)
{
    void *p[BLOCKS];
    time_limit(10);
    for (int i = 0; i < BLOCKS; i++) {
        p[i] = malloc(size_of(i));
        CHECK(p[i] != NULL, "malloc(%zu) in the child", size_of(i));
        fill(p[i], size_of(i), i);
        CHECK(holds(from_parent[i], size_of(i), i), "block of the parent");
        if (i % 2) {
            free(from_parent[i]);
        } else {
            from_parent[i] = realloc(from_parent[i], 2 * size_of(i));
            CHECK(from_parent[i] && holds(from_parent[i], size_of(i), i), "realloc in the child");
        }
    }
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(holds(p[i], size_of(i), i), "block of the child");
        free(p[i]);
    }
    for (size_t i = 0; i < COUNT(ring); i++) free(atomic_exchange(&ring[i], NULL));
    p[0] = calloc(1, 40 * MIB);
    CHECK(p[0] != NULL, "calloc in the child");
    free(p[0]);
    if (number % 4 == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, thread_of_child, malloc(100)) == 0, "pthread_create");
        CHECK(pthread_join(thread, &p[0]) == 0, "pthread_join");
        free(p[0]);
    }
    if (number % 16 == 0) { /* a child of its own */
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            free(malloc(1000));
            _exit(0);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "child of the child");
    }
    if (number % 2) exit(0);
    else _exit(0);
}

static void wait_for(pid_t pid, const char *what)
{
    int status;
    CHECK(pid > 0, "%s: %s", what, strerror(errno));
    CHECK(waitpid(pid, &status, 0) == pid, "%s: waitpid", what);
    CHECK(status == 0, "%s: status %#x", what, status);
}

int main(void)
{
    static char *arguments[] = { "true", NULL };
    extern char **environ;
    pthread_t threads[THREADS];
    pid_t pid[TOGETHER];

    time_limit(30);
    for (int i = 0; i < BLOCKS; i++) {
        from_parent[i] = malloc(size_of(i));
        CHECK(from_parent[i] != NULL, "malloc");
        fill(from_parent[i], size_of(i), i);
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "pthread_create");

    for (int done = 0; done < FORKS; done += TOGETHER) {
        for (int i = 0; i < TOGETHER; i++) {
            pid[i] = fork();
            if (pid[i] == 0) child(done + i);
        }
        for (int i = 0; i < TOGETHER; i++) wait_for(pid[i], "fork");
    }
    for (int i = 0; i < 5; i++) {
        pid[0] = fork();
        if (pid[0] == 0) {
            execv("/bin/true", arguments);
            _exit(127);
        }
        wait_for(pid[0], "exec");
        int error = posix_spawn(&pid[0], "/bin/true", NULL, NULL, arguments, environ);
        CHECK(error == 0, "posix_spawn: %d", error);
        wait_for(pid[0], "posix_spawn");
        pid[0] = vfork();
        if (pid[0] == 0) {
            execv("/bin/true", arguments);
            _exit(127);
        }
        wait_for(pid[0], "vfork");
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(holds(from_parent[i], size_of(i), i), "block of the parent, in the parent");
        free(from_parent[i]);
    }
    return 0;
}
