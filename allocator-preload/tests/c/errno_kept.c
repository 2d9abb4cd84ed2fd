/* free does not change errno, whatever the size of the block.
 * Source: POSIX.1-2024 free, glibc 2.33 and later, free(3). */
#include "check.h"

static void release(void *p, size_t n)
{
    for (int value = 0; value <= 4321; value += 4321) {
        if (value) p = malloc(n);
        CHECK(p != NULL, "malloc(%zu)", n);
        memset(p, 1, n);
        errno = value;
        free(p);
        CHECK(errno == value, "free of %zu bytes: errno %d", n, errno);
    }
}

int main(void)
{
    errno = 4321;
    free(NULL);
    CHECK(errno == 4321, "free(NULL): errno %d", errno);

    for (size_t n = 1; n <= 64 * MIB; n *= 2) {
        void *p = NULL;
        release(malloc(n), n);
        release(calloc(1, n), n);
        release(aligned_alloc(4096, n), n);
        CHECK(posix_memalign(&p, MIB, n) == 0, "posix_memalign(%zu)", n);
        release(p, n);
    }
    /* So many that memory goes back to the system in between. */
    static void *many[2000];
    static const size_t sizes[] = { 16, 100, 1000, 5000, 40000 };
    for (size_t s = 0; s < COUNT(sizes); s++) {
        for (size_t i = 0; i < COUNT(many); i++) many[i] = malloc(sizes[s]);
        errno = 1234;
        for (size_t i = 0; i < COUNT(many); i++) {
            free(many[i]);
            CHECK(errno == 1234, "free of block %zu of %zu bytes: errno %d", i, sizes[s], errno);
        }
    }
    return 0;
}
