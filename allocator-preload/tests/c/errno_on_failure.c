/* An impossible request gives NULL and ENOMEM and leaves the old block alone;
 * posix_memalign returns ENOMEM and leaves *memptr alone. Source: POSIX, malloc(3). */
#include "check.h"
#include <malloc.h>

static const size_t huge[] = {
    (size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 4096, SIZE_MAX - 4096, SIZE_MAX - 64,
    SIZE_MAX - 15, SIZE_MAX - 8, SIZE_MAX - 1, SIZE_MAX,
    (size_t)PTRDIFF_MAX, /* allowed by the type, but there is no such address space */
    (size_t)1 << 62, (size_t)1 << 56, (size_t)1 << 50, (size_t)1 << 48,
};

#define FAILS(call) \
    do { \
        errno = 0; \
        void *result = hide(call); \
        int error = errno; \
        CHECK(result == NULL, "%s, size %#zx: %p", #call, n, result); \
        CHECK(error == ENOMEM, "%s, size %#zx: errno %d", #call, n, error); \
    } while (0)

int main(void)
{
    static const size_t old_sizes[] = { 1, 24, 5000, 100000, MIB, 40 * MIB };
    void *old[COUNT(old_sizes)];
    for (size_t k = 0; k < COUNT(old_sizes); k++) {
        old[k] = malloc(old_sizes[k]);
        CHECK(old[k] != NULL, "malloc(%zu)", old_sizes[k]);
        fill(old[k], old_sizes[k], k);
    }
    for (size_t i = 0; i < COUNT(huge); i++) {
        volatile size_t n = huge[i];
        FAILS(malloc(n));
        FAILS(calloc(1, n));
        FAILS(calloc(n, 1));
        FAILS(realloc(NULL, n));
        FAILS(aligned_alloc(16, n));
        FAILS(aligned_alloc(64, n));
        FAILS(aligned_alloc(MIB, n));
        FAILS(memalign(64, n));
        FAILS(memalign(4096, n));
        FAILS(memalign(4 * MIB, n));
        for (size_t k = 0; k < COUNT(old); k++) {
            FAILS(realloc(old[k], n));
            FAILS(reallocarray(old[k], 1, n));
        }
        for (size_t alignment = 8; alignment <= 4 * MIB; alignment *= 8) {
            char mark;
            void *p = &mark;
            int result = posix_memalign(&p, alignment, n);
            CHECK(result == ENOMEM, "posix_memalign(%zu, %#zx) = %d", alignment, n, result);
            CHECK(p == &mark, "posix_memalign(%zu, %#zx) changed *memptr", alignment, n);
        }
    }
    for (size_t k = 0; k < COUNT(old); k++) {
        CHECK(holds(old[k], old_sizes[k], k), "old block of %zu bytes", old_sizes[k]);
        free(old[k]);
    }
    /* The allocator goes on. */
    void *p = malloc(1000);
    CHECK(p != NULL, "malloc(1000)");
    free(p);
    return 0;
}
