// A refused operator new asks the program's handler, and what it gets then is a block of the same heap, also where a library
// between has an operator new of its own. Source: C++17 [new.delete.single]; the order of symbols in the ELF gABI.
#include "check.h"
#include <new>

extern int library_news;

static char *ballast;

static void give_back()
{
    std::set_new_handler(nullptr);
    free(ballast);
    ballast = nullptr;
}

int main(int, char **arguments)
{
    if (!getenv("KMALLOC_CONF")) {
        setenv("KMALLOC_CONF", "limit:64M", 1);
        execv("/proc/self/exe", arguments);
        CHECK(0, "exec: errno %d", errno);
    }
    static const size_t sizes[] = {20 * MIB, 40 * MIB, 100};
    for (size_t size : sizes) {
        ballast = static_cast<char *>(malloc(50 * MIB));
        CHECK(ballast, "below the limit");
        std::set_new_handler(give_back);
        void *p = hide(::operator new(size));
        CHECK((ballast == nullptr) == (size > 14 * MIB), "%zu bytes", size);
        CHECK(reinterpret_cast<uintptr_t>(p) % 16 == 0, "%p", p);
        memset(p, 1, size);
        ::operator delete(p);
        free(ballast);
    }
    CHECK(library_news == 0, "%d blocks are the library's", library_news);
    return 0;
}
