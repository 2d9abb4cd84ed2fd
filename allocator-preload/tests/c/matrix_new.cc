// Every operator new gives aligned, writable memory that each matching operator delete
// takes back. Source: C++17 [new.delete.single], [new.delete.array].
#include "check.h"
#include <new>

using std::align_val_t;
using std::nothrow;

struct New {
    const char *name;
    bool array, aligned;
    void *(*get)(size_t, align_val_t);
};
struct Delete {
    const char *name;
    bool array, aligned;
    void (*release)(void *, size_t, align_val_t);
};

static const New news[] = {
    {"new", false, false, [](size_t n, align_val_t) { return ::operator new(n); }},
    {"new nothrow", false, false,
     [](size_t n, align_val_t) { return ::operator new(n, nothrow); }},
    {"new aligned", false, true, [](size_t n, align_val_t a) { return ::operator new(n, a); }},
    {"new aligned nothrow", false, true,
     [](size_t n, align_val_t a) { return ::operator new(n, a, nothrow); }},
    {"new[]", true, false, [](size_t n, align_val_t) { return ::operator new[](n); }},
    {"new[] nothrow", true, false,
     [](size_t n, align_val_t) { return ::operator new[](n, nothrow); }},
    {"new[] aligned", true, true,
     [](size_t n, align_val_t a) { return ::operator new[](n, a); }},
    {"new[] aligned nothrow", true, true,
     [](size_t n, align_val_t a) { return ::operator new[](n, a, nothrow); }},
};

static const Delete deletes[] = {
    {"delete", false, false, [](void *p, size_t, align_val_t) { ::operator delete(p); }},
    {"delete sized", false, false,
     [](void *p, size_t n, align_val_t) { ::operator delete(p, n); }},
    {"delete nothrow", false, false,
     [](void *p, size_t, align_val_t) { ::operator delete(p, nothrow); }},
    {"delete aligned", false, true,
     [](void *p, size_t, align_val_t a) { ::operator delete(p, a); }},
    {"delete sized aligned", false, true,
     [](void *p, size_t n, align_val_t a) { ::operator delete(p, n, a); }},
    {"delete aligned nothrow", false, true,
     [](void *p, size_t, align_val_t a) { ::operator delete(p, a, nothrow); }},
    {"delete[]", true, false, [](void *p, size_t, align_val_t) { ::operator delete[](p); }},
    {"delete[] sized", true, false,
     [](void *p, size_t n, align_val_t) { ::operator delete[](p, n); }},
    {"delete[] nothrow", true, false,
     [](void *p, size_t, align_val_t) { ::operator delete[](p, nothrow); }},
    {"delete[] aligned", true, true,
     [](void *p, size_t, align_val_t a) { ::operator delete[](p, a); }},
    {"delete[] sized aligned", true, true,
     [](void *p, size_t n, align_val_t a) { ::operator delete[](p, n, a); }},
    {"delete[] aligned nothrow", true, true,
     [](void *p, size_t, align_val_t a) { ::operator delete[](p, a, nothrow); }},
};

static const size_t sizes[] = {0, 1, 8, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB};

// Of the largest blocks only the two ends are written, else the test takes long.
static void write_ends(void *p, size_t n, unsigned seed)
{
    size_t part = n < MIB ? n : MIB;
    fill(p, part, seed);
    if (n > 2 * MIB) fill((char *)p + n - part, part, seed);
}

static bool ends_hold(void *p, size_t n, unsigned seed)
{
    size_t part = n < MIB ? n : MIB;
    return holds(p, part, seed) && (n <= 2 * MIB || holds((char *)p + n - part, part, seed));
}

static void pair(const New &n, const Delete &d, size_t alignment)
{
    for (size_t size : sizes) {
        if (size > MIB && alignment > __STDCPP_DEFAULT_NEW_ALIGNMENT__) continue; // slow
        void *p[3];
        unsigned seed = 0;
        for (void *&block : p) {
            block = hide(n.get(size, align_val_t(alignment)));
            CHECK(block != nullptr, "%s(%zu, %zu)", n.name, size, alignment);
            CHECK(is_aligned(block, alignment), "%s(%zu, %zu) = %p", n.name, size, alignment,
                  block);
            write_ends(block, size, seed++);
        }
        CHECK(p[0] != p[1] && p[1] != p[2] && p[0] != p[2], "%s(%zu): the same block twice",
              n.name, size);
        seed = 0;
        for (void *block : p) {
            CHECK(ends_hold(block, size, seed++), "%s(%zu, %zu)", n.name, size, alignment);
            d.release(block, size, align_val_t(alignment));
        }
    }
}

int main()
{
    for (const Delete &d : deletes) {
        d.release(nullptr, 100, align_val_t(64));
        for (const New &n : news) {
            if (n.array != d.array || n.aligned != d.aligned) continue;
            if (!n.aligned) pair(n, d, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
            else
                for (size_t alignment = 8; alignment <= MIB; alignment *= 2)
                    pair(n, d, alignment);
        }
    }
    return 0;
}
