// A library of C++ in a program that has none.
#include <cstddef>
#include <new>

extern "C" int plugin_refused(std::size_t size)
{
    int refused = 0;
    try {
        ::operator delete(::operator new(size));
    } catch (const std::bad_alloc &) {
        refused += 1;
    }
    void *block = ::operator new(size, std::nothrow);
    refused += block == nullptr;
    ::operator delete(block);
    return refused;
}
