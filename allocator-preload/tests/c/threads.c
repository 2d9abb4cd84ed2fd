/* Eight threads allocate, reallocate and free, and hand blocks to each other.
 * Source: C17 7.22.3 (paragraph 2, data races), POSIX thread safety. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { THREADS = 8, SLOTS = 512 };

/* The head of a block; the pattern follows. */
struct block {
    size_t size;
    unsigned seed;
};

static _Atomic(struct block *) ring[SLOTS];
static atomic_size_t next_slot;
static atomic_int stop;

static size_t random_size(uint64_t *random)
{
    uint64_t r = next_random(random);
    size_t n = r >> 32;
    switch (r % 64) {
    case 0: return n % (300 * KIB);
    case 1: return r % 8192 < 64 ? n % (4 * MIB) : n % (64 * KIB);
    case 2: case 3: case 4: case 5: return n % 8192;
    default: return n % 512;
    }
}

static struct block *make(uint64_t *random)
{
    size_t n = random_size(random);
    struct block *b;
    switch (next_random(random) % 4) {
    case 0: b = calloc(1, sizeof *b + n); break;
    case 1: b = aligned_alloc(64, sizeof *b + n); break;
    default: b = malloc(sizeof *b + n); break;
    }
    CHECK(b != NULL, "size %zu", n);
    b->size = n;
    b->seed = next_random(random) % 1000;
    fill(b + 1, n, b->seed);
    return b;
}

static void check(const struct block *b)
{
    CHECK(holds(b + 1, b->size, b->seed), "block of %zu bytes", b->size);
}

static void *work(void *argument)
{
    uint64_t random = 1234567 + (uintptr_t)argument * 99991;
    while (!atomic_load(&stop)) {
        struct block *b = make(&random);
        /* The block that was in the ring is from another thread, as a rule. */
        b = atomic_exchange(&ring[atomic_fetch_add(&next_slot, 1) % SLOTS], b);
        if (b == NULL) continue;
        check(b);
        if (next_random(&random) % 4 == 0) {
            size_t n = random_size(&random), old = b->size;
            b = realloc(b, sizeof *b + n);
            CHECK(b != NULL, "realloc to %zu", n);
            b->size = n < old ? n : old;
            check(b);
            b->size = n;
            fill(b + 1, n, b->seed);
            b = atomic_exchange(&ring[next_random(&random) % SLOTS], b);
            if (b == NULL) continue;
            check(b);
        }
        free(b);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    struct timespec second = { 0, 900000000 };
    time_limit(30);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "pthread_create");
    nanosleep(&second, NULL);
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "pthread_join");
    for (int i = 0; i < SLOTS; i++) {
        if (!ring[i]) continue;
        check(ring[i]);
        free(ring[i]);
    }
    return 0;
}
