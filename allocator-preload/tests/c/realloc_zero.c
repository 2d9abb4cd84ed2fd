/* realloc(p, 0) frees the block and returns NULL; realloc(NULL, 0) is malloc(0).
 * Source: glibc manual "Changing the Size of a Block", realloc(3) (C17: either way). */
#include "check.h"

int main(void)
{
    static const size_t sizes[] = { 1, 24, 1000, 5000, 100000, MIB, 40 * MIB };
    volatile size_t zero = 0;

    for (size_t i = 0; i < COUNT(sizes); i++) {
        void *p = malloc(sizes[i]);
        CHECK(p != NULL, "malloc(%zu)", sizes[i]);
        p = hide(realloc(p, zero));
        CHECK(p == NULL, "realloc of %zu bytes to 0: %p", sizes[i], p);
        p = hide(reallocarray(malloc(sizes[i]), zero, 8));
        CHECK(p == NULL, "reallocarray of %zu bytes to 0 elements: %p", sizes[i], p);
        p = hide(reallocarray(malloc(sizes[i]), 8, zero));
        CHECK(p == NULL, "reallocarray of %zu bytes to elements of 0: %p", sizes[i], p);
    }
    void *p = hide(realloc(NULL, zero));
    CHECK(p != NULL, "realloc(NULL, 0)");
    p = hide(realloc(p, zero));
    CHECK(p == NULL, "realloc(realloc(NULL, 0), 0) = %p", p);

    /* Were the blocks not freed, these would be 600 MiB each. */
    static const size_t again[] = { 600, 60000, 6 * MIB };
    for (size_t i = 0; i < COUNT(again); i++) {
        size_t before = resident();
        for (size_t k = 0; k < 600 * MIB / again[i]; k++) {
            p = malloc(again[i]);
            CHECK(p != NULL, "malloc(%zu)", again[i]);
            memset(p, 1, again[i]);
            p = hide(realloc(p, zero));
            CHECK(p == NULL, "realloc of %zu bytes to 0: %p", again[i], p);
        }
        size_t after = resident();
        CHECK(after < before + 200 * MIB, "blocks of %zu: from %zu to %zu resident bytes",
              again[i], before, after);
    }
    return 0;
}
