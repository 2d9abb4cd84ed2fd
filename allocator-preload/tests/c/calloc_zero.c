/* calloc gives zeros, also where the memory was used and dirtied before.
 * Source: C17 7.22.3.2 paragraph 2. */
#include "check.h"
#include <malloc.h>

static void dirty(size_t n, size_t blocks)
{
    static void *p[64];
    for (size_t i = 0; i < blocks; i++) {
        p[i] = malloc(n);
        CHECK(p[i] != NULL, "malloc(%zu)", n);
        memset(p[i], 0xa5, malloc_usable_size(p[i]));
    }
    for (size_t i = 0; i < blocks; i++) free(p[i]);
}

static void zero(size_t n, size_t blocks)
{
    static void *p[64];
    for (size_t i = 0; i < blocks; i++) {
        p[i] = i % 2 ? calloc(1, n) : calloc(n, 1);
        CHECK(p[i] != NULL, "calloc of %zu", n);
        CHECK(all_zero(p[i], n), "calloc of %zu, block %zu", n, i);
        memset(p[i], 0x5a, n);
    }
    for (size_t i = 0; i < blocks; i++) free(p[i]);
}

int main(void)
{
    for (size_t n = 1; n <= 2048; n += 1 + n / 16) {
        dirty(n, 64);
        zero(n, 64);
    }
    for (size_t n = 4 * KIB; n <= MIB; n += n / 4) {
        dirty(n, 8);
        zero(n, 8);
        zero(n - n / 8, 8); /* another size over the same memory */
    }
    static const size_t large[] = { 2 * MIB, 4 * MIB - 1, 9 * MIB, 33 * MIB, 80 * MIB };
    for (size_t i = 0; i < COUNT(large); i++) {
        dirty(large[i], 1);
        zero(large[i], 1);
        zero(large[i] / 2 + 1, 1);
    }
    /* Dirty tails that realloc cut off. */
    static const size_t cut[] = { 256, 8 * KIB, 100 * KIB, 3 * MIB };
    for (size_t i = 0; i < COUNT(cut); i++) {
        char *p = malloc(cut[i]);
        CHECK(p != NULL, "malloc(%zu)", cut[i]);
        memset(p, 0xff, cut[i]);
        p = realloc(p, cut[i] / 4);
        CHECK(p != NULL, "realloc to %zu", cut[i] / 4);
        zero(cut[i] / 2, 4);
        zero(cut[i] / 4, 4);
        free(p);
    }
    return 0;
}
