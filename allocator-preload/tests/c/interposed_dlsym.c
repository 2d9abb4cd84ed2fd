/* A program may define dlsym itself and use malloc in it; an allocator that asked this dlsym
 * for its functions could call itself for ever. Source: ELF symbol search, dlsym(3). */
#include "check.h"
#include "every_size.h"
#include <dlfcn.h>

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
    int (*their_abs)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "abs");
    CHECK(their_abs != NULL && their_abs(-5) == 5, "dlsym");
    CHECK(calls >= 1, "the program's own function was not called");
    CHECK(dlsym(RTLD_DEFAULT, "there_is_no_such_function") == NULL, "dlsym");

    every_size(aligned);
    return 0;
}
