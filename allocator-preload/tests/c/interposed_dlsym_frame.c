/* A program's own dlsym may do something after the call: then the C library takes the program for who asks, and what comes next
 * after it is the library that is preloaded. And it may open a library itself. Source: dlsym(3), RTLD_NEXT. */
#include "check.h"
#include <dlfcn.h>

typedef void *dlsym_fn(void *, const char *);
static int calls, depth;

void *dlsym(void *handle, const char *name)
{
    static dlsym_fn *real;
    time_limit(10); /* here, for it may hang before main */
    CHECK(depth++ < 50, "the allocator calls the program's dlsym for ever");
    if (!real) {
        void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        CHECK(libc != NULL, "dlopen in the wrapper");
        dlsym_fn *found = (dlsym_fn *)dlvsym(libc, "dlsym", "GLIBC_2.34");
        if (!found) found = (dlsym_fn *)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5"); /* on x86-64 */
        CHECK(found != NULL, "dlvsym");
        real = found;
    }
    void *volatile found = real(handle, name);
    calls++;
    depth--;
    return found;
}

int main(void)
{
    time_limit(10);
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    CHECK(libc != NULL, "%s", dlerror());
    void *(*their_malloc)(size_t) = (void *(*)(size_t))dlsym(libc, "malloc");
    CHECK(their_malloc != NULL, "%s", dlerror());
    free(their_malloc(100));
    void *p = realloc(their_malloc(100), 40000);
    CHECK(p != NULL, "realloc");
    free(p);
    CHECK(dlopen("libm.so.6", RTLD_NOW) != NULL, "%s", dlerror());
    CHECK(dlopen(beside("deepbind.lib.so"), RTLD_NOW | RTLD_DEEPBIND) != NULL, "%s", dlerror());
    CHECK(calls > 0, "the program's own function was not called");
    return 0;
}
