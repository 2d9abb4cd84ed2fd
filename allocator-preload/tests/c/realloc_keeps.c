/* realloc keeps the contents up to the smaller size; realloc(NULL, n) is malloc(n).
 * Source: C17 7.22.3.5. */
#include "check.h"

/* One step of a chain: the block holds `from` bytes of the pattern, make it `to`. */
static void *step(void *p, size_t from, size_t to, unsigned seed)
{
    p = realloc(p, to);
    CHECK(p != NULL, "realloc from %zu to %zu", from, to);
    CHECK(is_aligned(p, 16), "realloc from %zu to %zu: %p", from, to, p);
    CHECK(holds(p, from < to ? from : to, seed), "realloc from %zu to %zu", from, to);
    fill(p, to, seed);
    return p;
}

int main(void)
{
    size_t n, next;
    void *p = NULL;

    /* Up by doubling and down by halves, to 80 MiB. */
    n = 0;
    for (next = 16; next <= 80 * MIB; next = next < 64 * MIB ? next * 2 : next + 16 * MIB) {
        p = step(p, n, next, 1);
        n = next;
    }
    for (; n > 16; n = next) {
        next = n / 2;
        p = step(p, n, next, 1);
    }
    free(p);

    /* Up by small steps, three blocks in turn, so that they are in each other's way. */
    void *three[3] = { NULL, NULL, NULL };
    for (n = 0; n < 3 * MIB; n = next) {
        next = n + 1 + n / 8;
        for (unsigned i = 0; i < 3; i++) three[i] = step(three[i], n, next, i);
    }
    for (; n > 0; n = next) {
        next = n - 1 - n / 8;
        if (next == 0) break;
        for (unsigned i = 0; i < 3; i++) three[i] = step(three[i], n, next, i);
    }
    for (unsigned i = 0; i < 3; i++) free(three[i]);

    /* From each size to each other. */
    static const size_t sizes[] = { 1, 16, 24, 100, 1000, 1025, 4096, 5000, 40000, 130000,
                                    300000, MIB, 3 * MIB, 20 * MIB };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (size_t k = 0; k < COUNT(sizes); k++) {
            p = malloc(sizes[i]);
            CHECK(p != NULL, "malloc(%zu)", sizes[i]);
            fill(p, sizes[i], 7);
            free(step(p, sizes[i], sizes[k], 7));
        }
    }

    /* Many small blocks with random sizes. */
    static void *many[500];
    static size_t have[500];
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 50000; i++) {
        size_t which = next_random(&random) % COUNT(many);
        size_t want = 1 + next_random(&random) % (i % 50 ? 600 : 20000);
        many[which] = step(many[which], have[which], want, which);
        have[which] = want;
    }
    for (size_t i = 0; i < COUNT(many); i++) {
        CHECK(holds(many[i], have[i], i), "block of %zu bytes", have[i]);
        free(many[i]);
    }

    /* A block with a large alignment may lose it, not its contents. */
    for (size_t alignment = 32; alignment <= MIB; alignment *= 4) {
        p = aligned_alloc(alignment, 3000);
        CHECK(p != NULL, "aligned_alloc(%zu, 3000)", alignment);
        fill(p, 3000, 9);
        p = step(p, 3000, 100000, 9);
        p = step(p, 100000, 50, 9);
        free(p);
    }
    return 0;
}
