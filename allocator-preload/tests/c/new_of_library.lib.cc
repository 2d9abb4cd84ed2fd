// A library that has a plain operator new and delete of its own, with a header, for a program that has another heap's: they are
// never called.
#include <cstdlib>
#include <new>

extern int library_news;
int library_news;

static const size_t HEADER = 64;

void *operator new(size_t n)
{
    library_news++;
    for (;;) {
        if (void *p = malloc(HEADER + n)) return static_cast<char *>(p) + HEADER;
        if (auto handler = std::get_new_handler())
            handler();
        else
            throw std::bad_alloc();
    }
}

void operator delete(void *p) noexcept
{
    if (p) free(static_cast<char *>(p) - HEADER);
}

void operator delete(void *p, size_t) noexcept
{
    operator delete(p);
}
