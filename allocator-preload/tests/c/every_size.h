/* What a program does under whose functions the allocator must not come back to itself: blocks of every kind, which grow. */
#ifndef EVERY_SIZE_H
#define EVERY_SIZE_H

#include "check.h"
#include <malloc.h>

static inline void *zeroed(size_t n)
{
    return calloc(1, n);
}

static inline void *aligned(size_t n)
{
    return aligned_alloc(64, n);
}

/* Every second block comes from `other`. */
static inline void every_size(void *(*other)(size_t))
{
    static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 5 * MIB, 80 * MIB };
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *p[100];
            size_t many = sizes[i] < 100000 ? COUNT(p) : 1, n = sizes[i];
            for (size_t k = 0; k < many; k++) {
                p[k] = k % 2 ? malloc(n) : other(n);
                CHECK(p[k] != NULL, "size %zu", n);
                CHECK(malloc_usable_size(p[k]) >= n, "size %zu", n);
                fill(p[k], n < MIB ? n : MIB, k);
            }
            for (size_t k = 0; k < many; k++) {
                p[k] = realloc(p[k], n + n / 2);
                CHECK(p[k] && holds(p[k], n < MIB ? n : MIB, k), "realloc of %zu", n);
                free(p[k]);
            }
        }
    }
}

#endif
