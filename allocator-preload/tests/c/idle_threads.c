/* Threads that never call the heap leave nothing behind: at their end the C library frees what it
 * has allocated for those before them. Source: nptl's cache of stacks. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { THREADS = 100, ROUNDS = 40 };

static pthread_barrier_t all;
static atomic_int ended;

static void *idle(void *argument)
{
    (void)argument;
    pthread_barrier_wait(&all);
    atomic_fetch_add(&ended, 1);
    return NULL;
}

static void round_of_threads(void)
{
    pthread_attr_t detached;
    CHECK(pthread_attr_init(&detached) == 0, "pthread_attr_init");
    CHECK(pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED) == 0, "detached");
    CHECK(pthread_attr_setstacksize(&detached, 8 * MIB) == 0, "stack size");
    pthread_barrier_init(&all, NULL, THREADS);
    atomic_store(&ended, 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, &detached, idle, NULL) == 0, "pthread_create");
    }
    while (atomic_load(&ended) < THREADS) usleep(1000);
    usleep(20000); /* until all of them are gone */
    pthread_attr_destroy(&detached);
}

/* One with a long stack ends behind many with short ones: the C library keeps no more than 40 MiB of them, so it frees
 * all of theirs at its end. */
static void last_of_many(void)
{
    pthread_t threads[THREADS + 1];
    pthread_barrier_init(&all, NULL, THREADS + 1);
    for (int i = 0; i <= THREADS; i++) {
        pthread_attr_t attributes;
        CHECK(pthread_attr_init(&attributes) == 0, "pthread_attr_init");
        CHECK(pthread_attr_setstacksize(&attributes, i < THREADS ? 256 * KIB : 64 * MIB) == 0, "stack size");
        CHECK(pthread_create(&threads[i], &attributes, idle, NULL) == 0, "pthread_create");
        pthread_attr_destroy(&attributes);
    }
    for (int i = 0; i <= THREADS; i++) pthread_join(threads[i], NULL);
}

int main(void)
{
    size_t before = 0;
    time_limit(60);
    for (int round = 0; round < ROUNDS; round++) {
        round_of_threads();
        last_of_many();
        if (round == 4) before = resident();
    }
    size_t now = resident();
    CHECK(now < before + MIB, "%zu KiB resident, %zu after five rounds", now / KIB, before / KIB);
    return 0;
}
