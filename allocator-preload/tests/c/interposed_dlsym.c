/* A program may define dlsym itself and use malloc in it; an allocator that asked this dlsym
 * for its functions could call itself for ever. Source: ELF symbol search, dlsym(3). */
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>

typedef void *dlsym_fn(void *, const char *);
static __thread int depth;
static int calls;
static dlsym_fn *real_dlsym;

static void enter(void)
{
    if (calls++ == 0) time_limit(10); /* here, for it may hang before main */
    depth++;
    CHECK(depth <= 50, "the allocator calls the program's dlsym");
    char *p = calloc(1, 100);
    CHECK(p != NULL, "calloc in the wrapper");
    p = realloc(p, 200);
    CHECK(p != NULL, "realloc in the wrapper");
    free(p);
    if (!real_dlsym) {
        real_dlsym = (dlsym_fn *)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
        if (!real_dlsym) real_dlsym = (dlsym_fn *)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
        CHECK(real_dlsym != NULL, "dlvsym");
    }
    depth--;
}

/* A jump at the end, not a call, so that RTLD_NEXT is still seen from the caller. */
__attribute__((optimize("O2")))
void *dlsym(void *handle, const char *name)
{
    enter();
    return real_dlsym(handle, name);
}

int main(void)
{
    static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 5 * MIB, 80 * MIB };
    int (*their_abs)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "abs");
    CHECK(their_abs != NULL && their_abs(-5) == 5, "dlsym");
    CHECK(calls >= 1, "the program's own function was not called");
    CHECK(dlsym(RTLD_DEFAULT, "there_is_no_such_function") == NULL, "dlsym");

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *p[100];
            size_t many = sizes[i] < 100000 ? COUNT(p) : 1, n = sizes[i];
            for (size_t k = 0; k < many; k++) {
                p[k] = k % 2 ? malloc(n) : aligned_alloc(64, n);
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
    return 0;
}
