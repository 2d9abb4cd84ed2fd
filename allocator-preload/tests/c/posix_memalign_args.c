/* posix_memalign: EINVAL and *memptr as it was unless the alignment is a power of two
 * times sizeof(void *); else an aligned block. Source: POSIX posix_memalign. */
#include "check.h"

int main(void)
{
    static const size_t bad[] = {
        0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 17, 24, 40, 48, 100, 1000, 4097, 12288,
        SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2, (SIZE_MAX / 2 + 1) + 8,
    };
    static const size_t sizes[] = { 0, 1, 7, 24, 100, 1000, 4096, 5000, 100000, MIB };

    for (size_t i = 0; i < COUNT(bad); i++) {
        for (size_t s = 0; s < COUNT(sizes); s++) {
            char mark;
            void *p = &mark;
            int result = posix_memalign(&p, bad[i], sizes[s]);
            CHECK(result == EINVAL, "alignment %zu, size %zu: %d", bad[i], sizes[s], result);
            CHECK(p == &mark, "alignment %zu, size %zu: *memptr changed", bad[i], sizes[s]);
        }
    }
    for (size_t alignment = 8; alignment <= 4 * MIB; alignment *= 2) {
        void *p[COUNT(sizes)];
        for (size_t s = 0; s < COUNT(sizes); s++) {
            int result = posix_memalign(&p[s], alignment, sizes[s]);
            CHECK(result == 0, "alignment %zu, size %zu: %d", alignment, sizes[s], result);
            CHECK(p[s] != NULL && is_aligned(p[s], alignment), "alignment %zu, size %zu: %p",
                  alignment, sizes[s], p[s]);
            fill(p[s], sizes[s], s);
        }
        for (size_t s = 0; s < COUNT(sizes); s++) {
            CHECK(holds(p[s], sizes[s], s), "alignment %zu, size %zu", alignment, sizes[s]);
            free(p[s]);
        }
    }
    return 0;
}
