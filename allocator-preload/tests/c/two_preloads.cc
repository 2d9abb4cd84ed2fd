/* Two copies of the library that are both loaded before the program: neither takes the other
 * for the C library's heap or for the C++ library. Source: ld.so(8), LD_PRELOAD. */
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <new>
#include <string>
#include <unistd.h>

static const size_t sizes[] = { 1, 100, 5000, 40000, MIB };

static void preload_both(const char *library, char **argv)
{
    char name[] = "/tmp/two_preloads.XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0, "mkstemp");
    close(fd);
    copy_file(library, name);
    setenv("LD_PRELOAD", (std::string(library) + " " + name).c_str(), 1);
    setenv("TWO_PRELOADS", name, 1);
    execv("/proc/self/exe", argv);
    CHECK(0, "execv");
}

int main(int, char **argv)
{
    const char *library = getenv("KMALLOC_LIB"), *copy = getenv("TWO_PRELOADS");
    if (!library || !getenv("LD_PRELOAD")) return 0;
    time_limit(30);
    if (!copy) preload_both(library, argv);
    unlink(copy);

    /* The C library's own blocks. */
    void *handle = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    CHECK(handle != NULL, "%s", dlerror());
    void *(*their_malloc)(size_t) = (void *(*)(size_t))dlsym(handle, "malloc");
    CHECK(their_malloc != NULL, "%s", dlerror());
    for (size_t n : sizes) {
        void *p = their_malloc(n);
        CHECK(p != NULL, "size %zu", n);
        fill(p, n, 1);
        CHECK(malloc_usable_size(p) >= n, "size %zu", n);
        free(p);
        p = their_malloc(n);
        fill(p, n, 2);
        p = realloc(p, 2 * n);
        CHECK(p && holds(p, n, 2), "larger, size %zu", n);
        free(p);
    }

    /* What is refused is told by the C++ library. */
    volatile size_t too_much = SIZE_MAX / 4;
    int thrown = 0;
    try {
        free(operator new(too_much));
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    try {
        operator delete[](operator new[](too_much, std::align_val_t(64)), std::align_val_t(64));
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    CHECK(thrown == 2, "%d of two refusals were thrown", thrown);
    CHECK(operator new(too_much, std::nothrow) == NULL, "nothrow");
    return 0;
}
