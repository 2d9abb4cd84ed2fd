/* A request for no bytes gives a block of its own: not null, unique, freeable.
 * Source: C17 7.22.3 (one of two choices), glibc manual "Basic Allocation", malloc(3). */
#include "check.h"

static void *get(int kind)
{
    volatile size_t zero = 0, most = SIZE_MAX;
    void *p = NULL;
    switch (kind) {
    case 0: return malloc(zero);
    case 1: return calloc(zero, 1);
    case 2: return calloc(1, zero);
    case 3: return calloc(zero, zero);
    case 4: return calloc(zero, most);
    case 5: return calloc(most, zero);
    case 6: return realloc(NULL, zero);
    case 7: return reallocarray(NULL, zero, 8);
    case 8: return posix_memalign(&p, 8, zero) ? NULL : p;
    case 9: return posix_memalign(&p, 4096, zero) ? NULL : p;
    case 10: return aligned_alloc(16, zero);
    default: return aligned_alloc(4096, zero);
    }
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    enum { KINDS = 12, EACH = 100 };
    static void *p[KINDS * EACH];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < KINDS * EACH; i++) {
            p[i] = hide(get(i % KINDS));
            CHECK(p[i] != NULL, "kind %d", i % KINDS);
        }
        qsort(p, COUNT(p), sizeof p[0], by_address);
        for (size_t i = 1; i < COUNT(p); i++)
            CHECK((uintptr_t)p[i] != (uintptr_t)p[i - 1], "block %p given twice", p[i]);
        for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
    }
    /* Such a block can grow. */
    for (int kind = 0; kind < KINDS; kind++) {
        char *q = realloc(get(kind), 1000);
        CHECK(q != NULL, "kind %d", kind);
        fill(q, 1000, kind);
        CHECK(holds(q, 1000, kind), "kind %d", kind);
        free(q);
    }
    return 0;
}
