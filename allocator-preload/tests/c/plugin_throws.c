/* A library of C++ that a program of C opens gets an exception, or null, for what is refused (C++17 [new.delete.single]): the C++
   library is in nobody's sight but its. */
#include "check.h"
#include <dlfcn.h>

int main(void)
{
    void *library = dlopen(beside("plugin_throws.lib.so"), RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    int (*refused)(size_t) = (int (*)(size_t))dlsym(library, "plugin_refused");
    CHECK(refused != NULL, "%s", dlerror());
    CHECK(refused(PTRDIFF_MAX) == 2, "an exception and null");
    CHECK(refused(1000) == 0, "memory");
    return 0;
}
