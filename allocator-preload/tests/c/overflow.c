/* calloc and reallocarray refuse a product beyond size_t (or beyond what can exist):
 * NULL, ENOMEM, the old block as it was. Source: C17 7.22.3.2, glibc manual, malloc(3). */
#include "check.h"

static const struct { size_t count, size; } bad[] = {
    { SIZE_MAX, SIZE_MAX },
    { SIZE_MAX, 2 },
    { 2, SIZE_MAX },
    { SIZE_MAX, 1 },
    { 1, SIZE_MAX },
    { SIZE_MAX, 16 },
    { 16, SIZE_MAX },
    { SIZE_MAX / 2 + 1, 2 },         /* the product is 2^64 */
    { 2, SIZE_MAX / 2 + 1 },
    { SIZE_MAX / 2 + 2, 2 },         /* 2^64 + 2 */
    { SIZE_MAX / 16 + 2, 16 },       /* 2^64 + 16 */
    { (size_t)1 << 32, (size_t)1 << 32 },
    { ((size_t)1 << 32) + 1, (size_t)1 << 32 },
    { SIZE_MAX / 3 + 1, 3 },
    { SIZE_MAX / 2 + 1, 1 },         /* PTRDIFF_MAX + 1 */
    { (size_t)1 << 31, (size_t)1 << 32 },
};

int main(void)
{
    static const size_t old_sizes[] = { 1, 24, 100, 5000, 40000, MIB };
    for (size_t i = 0; i < COUNT(bad); i++) {
        volatile size_t count = bad[i].count, size = bad[i].size;
        errno = 0;
        void *p = hide(calloc(count, size));
        CHECK(p == NULL, "calloc(%#zx, %#zx) = %p", count, size, p);
        CHECK(errno == ENOMEM, "calloc(%#zx, %#zx): errno %d", count, size, errno);

        errno = 0;
        p = hide(reallocarray(NULL, count, size));
        CHECK(p == NULL, "reallocarray(NULL, %#zx, %#zx) = %p", count, size, p);
        CHECK(errno == ENOMEM, "reallocarray(NULL, %#zx, %#zx): errno %d", count, size, errno);

        for (size_t k = 0; k < COUNT(old_sizes); k++) {
            size_t n = old_sizes[k];
            void *old = malloc(n);
            CHECK(old != NULL, "malloc(%zu)", n);
            fill(old, n, k);
            errno = 0;
            p = reallocarray(hide(old), count, size);
            CHECK(p == NULL, "reallocarray(old, %#zx, %#zx) = %p", count, size, p);
            CHECK(errno == ENOMEM, "reallocarray(old, %#zx, %#zx): errno %d", count, size, errno);
            void *other = malloc(n); /* would take the place of a block freed by mistake */
            CHECK(other != NULL, "malloc(%zu)", n);
            memset(other, 0xee, n);
            CHECK(holds(old, n, k), "old block of %zu bytes", n);
            free(other);
            free(old);
        }
    }
    return 0;
}
