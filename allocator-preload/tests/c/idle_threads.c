/* Threads that never call the heap leave nothing behind: at their end the C library frees what it
 * has allocated for those before them. Source: nptl's cache of stacks. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { THREADS = 100, ROUNDS = 120 };

static pthread_barrier_t all;
static atomic_int alone;

static void *idle(void *argument)
{
    (void)argument;
    pthread_barrier_wait(&all);
    return NULL;
}

/* Threads of this process. */
static int tasks(void)
{
    int count = 0;
    FILE *status = fopen("/proc/self/status", "r");
    char line[200];
    CHECK(status != NULL, "/proc/self/status");
    while (fgets(line, sizeof line, status) != NULL) sscanf(line, "Threads: %d", &count);
    fclose(status);
    return count;
}

static void *idle_until_all_others_are_gone(void *argument)
{
    pthread_barrier_wait(&all);
    while (!atomic_load(&alone)) usleep(1000);
    return argument;
}

static void start(void *(*body)(void *), size_t stack)
{
    pthread_t thread;
    pthread_attr_t detached;
    CHECK(pthread_attr_init(&detached) == 0, "pthread_attr_init");
    CHECK(pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED) == 0, "detached");
    CHECK(pthread_attr_setstacksize(&detached, stack) == 0, "stack size");
    CHECK(pthread_create(&thread, &detached, body, NULL) == 0, "pthread_create");
    pthread_attr_destroy(&detached);
}

/* The last one, with a long stack: the C library keeps 40 MiB of them, so it frees all that the others had at its end. */
static void round_of_threads(size_t stack, size_t last)
{
    pthread_barrier_init(&all, NULL, THREADS + 1);
    atomic_store(&alone, 0);
    for (int i = 0; i < THREADS; i++) start(idle, stack);
    start(idle_until_all_others_are_gone, last);
    while (tasks() > 2) usleep(1000); /* the main thread and the last one */
    atomic_store(&alone, 1);
    while (tasks() > 1) usleep(1000);
}

int main(void)
{
    size_t before = 0;
    time_limit(60);
    for (int round = 0; round < ROUNDS; round++) {
        round_of_threads(8 * MIB, 8 * MIB);
        round_of_threads(256 * KIB, 64 * MIB);
        if (round == 4) before = resident();
    }
    size_t now = resident();
    CHECK(now < before + MIB, "%zu KiB resident, %zu after five rounds", now / KIB, before / KIB);
    return 0;
}
