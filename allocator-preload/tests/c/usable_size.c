/* malloc_usable_size: 0 for NULL, else at least the size asked for, and every byte of it
 * can be written without harm to another block. Source: malloc_usable_size(3). */
#include "check.h"
#include <malloc.h>

static void *blocks[6000];
static size_t usable[6000];
static size_t count;

static void add(void *p, size_t n)
{
    CHECK(p != NULL, "size %zu", n);
    CHECK(count < COUNT(blocks), "too many");
    size_t u = malloc_usable_size(p);
    CHECK(u >= n, "size %zu: usable %zu", n, u);
    CHECK(malloc_usable_size(p) == u, "size %zu: a second answer", n);
    fill(p, u, count);
    blocks[count] = p;
    usable[count++] = u;
}

static void check_all(const char *when)
{
    for (size_t i = 0; i < count; i++) {
        CHECK(malloc_usable_size(blocks[i]) == usable[i], "%s: block %zu", when, i);
        CHECK(holds(blocks[i], usable[i], i), "%s: block %zu, %zu bytes", when, i, usable[i]);
    }
}

int main(void)
{
    CHECK(malloc_usable_size(NULL) == 0, "NULL: %zu", malloc_usable_size(NULL));

    for (size_t n = 0; n <= 1024; n++) {
        add(malloc(n), n);
        add(malloc(n), n);
        add(calloc(1, n), n);
    }
    for (size_t n = 1025; n < 20 * MIB; n += n / 5) {
        add(malloc(n), n);
        add(calloc(n, 1), n);
        add(realloc(malloc(n / 2), n), n);
    }
    for (size_t alignment = 8; alignment <= MIB; alignment *= 2) {
        static const size_t sizes[] = { 0, 1, 24, 100, 1000, 5000, 40000 };
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *p = NULL;
            add(memalign(alignment, sizes[i]), sizes[i]);
            CHECK(posix_memalign(&p, alignment, sizes[i]) == 0, "alignment %zu", alignment);
            add(p, sizes[i]);
        }
    }
    check_all("all there");

    /* realloc keeps all usable bytes, not only the ones asked for. */
    for (size_t i = 0; i < count; i += 3) {
        size_t n = usable[i] + 1 + usable[i] / 2;
        void *p = realloc(blocks[i], n);
        CHECK(p != NULL, "realloc to %zu", n);
        CHECK(malloc_usable_size(p) >= n, "realloc to %zu", n);
        CHECK(holds(p, usable[i], i), "realloc from %zu to %zu", usable[i], n);
        blocks[i] = p;
        usable[i] = malloc_usable_size(p);
        fill(p, usable[i], i);
    }
    check_all("after realloc");

    /* Freeing every other one does no harm either. */
    for (size_t i = 1; i < count; i += 2) free(blocks[i]);
    for (size_t i = 0; i < count; i += 2) {
        CHECK(holds(blocks[i], usable[i], i), "after free: block %zu", i);
        free(blocks[i]);
    }
    return 0;
}
