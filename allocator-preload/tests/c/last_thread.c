/* A process ends when all threads that it has started have, whatever the heap's own thread waits for; its
 * handlers run. Source: POSIX pthread_exit. */
#include "check.h"
#include <pthread.h>
#include <signal.h>

static int ended;

static void at_end(void)
{
    sigset_t blocked;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0, "pthread_sigmask");
    CHECK(!sigismember(&blocked, SIGTERM), "nobody could stop the handlers");
    free(malloc(100));
    ended = 1;
}

/* Behind the handlers, in the same thread. */
__attribute__((destructor))
static void behind(void)
{
    CHECK(ended, "the handlers did not run");
}

static void *work(void *argument)
{
    void *blocks[200];
    (void)argument;
    for (size_t i = 0; i < COUNT(blocks); i++) {
        blocks[i] = malloc(MIB);
        CHECK(blocks[i] != NULL, "malloc");
        memset(blocks[i], 1, MIB);
    }
    usleep(100000); /* the main thread has ended */
    for (size_t i = 0; i < COUNT(blocks); i++) free(blocks[i]);
    return NULL;
}

int main(int n, char **arguments)
{
    pthread_t thread;
    (void)n;
    if (getenv("KMALLOC_CONF") == NULL) {
        setenv("KMALLOC_CONF", "background_thread:yes,purge_after:600000", 1);
        execv("/proc/self/exe", arguments);
        CHECK(0, "exec: errno %d", errno);
    }
    time_limit(20);
    atexit(at_end);
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0, "pthread_create");
    pthread_detach(thread);
    free(malloc(100));
    pthread_exit(NULL);
}
