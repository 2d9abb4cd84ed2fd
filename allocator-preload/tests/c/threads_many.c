/* 2000 threads start and end; the blocks of each are freed by a later one, and the memory
 * serves again. Source: C17 7.22.3 (lifetime until deallocation, by whatever thread). */
#include "check.h"
#include <pthread.h>

enum { ROUNDS = 250, TOGETHER = 8, BLOCKS = 60 };

static void *blocks[TOGETHER][BLOCKS];

static size_t size_of(int i)
{
    return i < BLOCKS - 2 ? 16 + 40 * (size_t)i : 100 * KIB;
}

/* Frees what the neighbour left in the last round, leaves blocks of its own. */
static void *work(void *argument)
{
    void **place = argument;
    for (int i = 0; i < BLOCKS; i++) {
        size_t n = size_of(i);
        if (place[i]) CHECK(holds(place[i], n, i), "block of %zu bytes", n);
        free(place[i]);
        place[i] = malloc(n);
        CHECK(place[i] != NULL, "malloc(%zu)", n);
        fill(place[i], n, i);
        void *own = malloc(n); /* freed by the thread itself */
        CHECK(own != NULL, "malloc(%zu)", n);
        memset(own, 1, n);
        free(own);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[TOGETHER];
    size_t before = resident();
    time_limit(30);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < TOGETHER; i++)
            CHECK(pthread_create(&threads[i], NULL, work, blocks[(i + round) % TOGETHER]) == 0,
                  "pthread_create, round %d", round);
        for (int i = 0; i < TOGETHER; i++) pthread_join(threads[i], NULL);
    }
    /* About 550 MB went through; at any time less than 3 MB were in use. */
    size_t after = resident();
    CHECK(after < before + 200 * MIB, "from %zu to %zu resident bytes", before, after);
    for (int i = 0; i < TOGETHER * BLOCKS; i++) free(blocks[i / BLOCKS][i % BLOCKS]);
    return 0;
}
