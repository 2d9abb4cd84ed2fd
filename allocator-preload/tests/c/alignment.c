/* Blocks of every size are aligned for any fundamental type: 16 bytes on x86_64.
 * Source: C17 7.22.3 with max_align_t; glibc manual, "Aligned Memory Blocks". */
#include "check.h"

static void one_size(size_t n)
{
    void *p[5];
    p[0] = malloc(n);
    p[1] = calloc(1, n);
    p[2] = realloc(NULL, n);
    p[3] = realloc(malloc(n / 2 + 1), n ? n : 1);
    p[4] = reallocarray(malloc(1), n ? n : 1, 1);
    for (size_t i = 0; i < COUNT(p); i++) {
        CHECK(p[i] != NULL, "size %zu, function %zu", n, i);
        CHECK(is_aligned(p[i], 16), "size %zu, function %zu, block %p", n, i, p[i]);
        CHECK(is_aligned(p[i], _Alignof(max_align_t)), "size %zu, block %p", n, p[i]);
    }
    for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
}

int main(void)
{
    /* A block that stays between the others moves them about. */
    void *kept[4097];
    for (size_t n = 0; n <= 4096; n++) {
        one_size(n);
        kept[n] = malloc(n);
        CHECK(kept[n] != NULL && is_aligned(kept[n], 16), "malloc(%zu) = %p", n, kept[n]);
    }
    for (size_t n = 1; n <= 64 * MIB; n *= 2) {
        one_size(n - 1);
        one_size(n);
        one_size(n + 1);
    }
    for (size_t n = 0; n <= 4096; n++) free(kept[n]);
    return 0;
}
