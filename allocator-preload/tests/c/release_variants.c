/* free(NULL) does nothing; free_sized, free_aligned_sized (C23) and cfree (old glibc) free
 * like free; the last three only where they exist. Source: C17 7.22.3.3, C23, cfree(3). */
#include "check.h"
#include <dlfcn.h>

typedef void free_sized_fn(void *, size_t);
typedef void free_aligned_sized_fn(void *, size_t, size_t);
typedef void free_fn(void *);

static const size_t sizes[] = { 0, 1, 24, 100, 1000, 5000, 40000, MIB, 20 * MIB };

static void *filled(void *p, size_t n)
{
    CHECK(p != NULL, "size %zu", n);
    memset(p, 0x11, n);
    return p;
}

int main(void)
{
    free_sized_fn *sized = (free_sized_fn *)dlsym(RTLD_DEFAULT, "free_sized");
    free_aligned_sized_fn *aligned =
        (free_aligned_sized_fn *)dlsym(RTLD_DEFAULT, "free_aligned_sized");
    free_fn *cfree = (free_fn *)dlsym(RTLD_DEFAULT, "cfree");

    for (int i = 0; i < 1000; i++) free(NULL);
    if (sized) sized(NULL, 0);
    if (sized) sized(NULL, 10);
    if (aligned) aligned(NULL, 64, 0);
    if (aligned) aligned(NULL, 64, 10);
    if (cfree) cfree(NULL);

    /* So often that memory not freed would show. */
    size_t before = resident();
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            size_t n = sizes[i];
            if (sized) {
                sized(filled(malloc(n), n), n);
                sized(filled(calloc(1, n), n), n);
                sized(filled(realloc(malloc(1), n + 1), n), n + 1);
            }
            if (aligned)
                for (size_t alignment = 16; alignment <= 64 * KIB; alignment *= 4)
                    aligned(filled(aligned_alloc(alignment, n), n), alignment, n);
            if (cfree) cfree(filled(malloc(n), n));
            free(filled(malloc(n), n));
        }
    }
    size_t after = resident();
    CHECK(after < before + 200 * MIB, "from %zu to %zu resident bytes", before, after);
    return 0;
}
