/* Out of address space (RLIMIT_AS): NULL and ENOMEM, no crash; small blocks go on after a
 * large one failed, and everything goes on after frees. Source: setrlimit(2), malloc(3). */
#include "check.h"
#include <pthread.h>
#include <sys/resource.h>

enum { SMALL = 1000 };
static void *large[1000];
static void *small[SMALL];

static void limit_to(size_t more)
{
    struct rlimit limit;
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%lu", &pages) == 1, "statm");
    fclose(file);
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0, "getrlimit");
    limit.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + more;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit");
}

static void small_ones(const char *when)
{
    for (int i = 0; i < SMALL; i++) {
        small[i] = malloc(16 + i % 300);
        CHECK(small[i] != NULL, "%s: small block %d", when, i);
        fill(small[i], 16 + i % 300, i);
    }
    for (int i = 0; i < SMALL; i++) {
        CHECK(holds(small[i], 16 + i % 300, i), "%s: small block %d", when, i);
        free(small[i]);
    }
}

/* As many blocks as there are; the answer is how many. */
static size_t exhaust(size_t n)
{
    for (size_t i = 0; i < COUNT(large); i++) {
        errno = 0;
        large[i] = malloc(n);
        if (large[i] == NULL) {
            CHECK(errno == ENOMEM, "malloc(%zu): errno %d", n, errno);
            return i;
        }
        fill(large[i], 4096, i);
    }
    CHECK(0, "more blocks of %zu bytes than the limit allows", n);
}

static void *in_thread(void *argument)
{
    small_ones("in a thread");
    return argument;
}

int main(void)
{
    pthread_t thread;
    volatile size_t too_much = 1024 * MIB;
    time_limit(30);
    small_ones("before");
    limit_to(256 * MIB);

    void *old = malloc(1000);
    CHECK(old != NULL, "malloc(1000)");
    fill(old, 1000, 1);
    for (int i = 0; i < 20; i++) {
        errno = 0;
        void *p = hide(malloc(too_much));
        CHECK(p == NULL && errno == ENOMEM, "malloc of 1 GiB: %p, errno %d", p, errno);
        errno = 0;
        p = hide(calloc(1, too_much));
        CHECK(p == NULL && errno == ENOMEM, "calloc of 1 GiB: %p, errno %d", p, errno);
        errno = 0;
        p = hide(realloc(old, too_much));
        CHECK(p == NULL && errno == ENOMEM, "realloc to 1 GiB: %p, errno %d", p, errno);
        CHECK(holds(old, 1000, 1), "the old block");
        CHECK(posix_memalign(&p, 4096, too_much) == ENOMEM, "posix_memalign of 1 GiB");
        small_ones("after a large one failed");
    }
    CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0, "pthread_create");
    pthread_join(thread, NULL);

    size_t first = 0;
    for (int round = 0; round < 5; round++) {
        size_t got = exhaust(MIB);
        if (round == 0) first = got;
        CHECK(got >= 50, "round %d: only %zu blocks of 1 MiB in 256 MiB", round, got);
        CHECK(got >= first / 2, "round %d: %zu blocks of 1 MiB, at first %zu", round, got, first);
        for (size_t i = 0; i < got; i++) {
            CHECK(holds(large[i], 4096, i), "large block %zu", i);
            free(large[i]);
        }
        small_ones("after frees");
    }
    void *p = malloc(8 * MIB); /* another size in the same space */
    CHECK(p != NULL, "8 MiB after frees");
    free(p);

    /* Small blocks to the end of the space, and again. */
    for (int round = 0; round < 2; round++) {
        void **list = NULL;
        size_t count = 0;
        for (;;) {
            errno = 0;
            void **block = malloc(10000);
            if (block == NULL) break;
            *block = list;
            list = block;
            count++;
        }
        CHECK(errno == ENOMEM, "malloc(10000): errno %d", errno);
        CHECK(count > 5000, "only %zu blocks of 10000 bytes in 256 MiB", count);
        while (list) {
            void **next = *list;
            free(list);
            list = next;
        }
        small_ones("after many small ones");
    }
    free(old);
    return 0;
}
