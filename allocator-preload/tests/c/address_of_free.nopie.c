/* A program that is not position-independent and takes the address of `free` frees what is of the C library's own heap: the
   address is one in the program, and leads back to whoever has the function. */
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>

int main(void)
{
    void (*volatile release)(void *) = free;
    void *(*volatile resize)(void *, size_t) = realloc;
    void *library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    CHECK(library != NULL, "%s", dlerror());
    void *(*make)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
    CHECK(make != NULL, "%s", dlerror());
    for (size_t size = 1; size < 1 << 20; size *= 2) {
        release(make(size));
        char *block = make(size);
        CHECK(malloc_usable_size(block) >= size, "%zu bytes", size);
        block = resize(block, 2 * size);
        CHECK(block != NULL, "%zu bytes", size);
        memset(block, 1, 2 * size);
        release(block);
    }
    return 0;
}
