// A program that has its own plain operator new and delete has them called by every form that it
// does not replace; those for other alignments are a pair of their own.
// Source: C++17 [new.delete.single], [new.delete.array], [replacement.functions].
#include "check.h"
#include <algorithm>
#include <dlfcn.h>
#include <new>
#include <vector>

// What this is about.
#pragma GCC diagnostic ignored "-Wsized-deallocation"

using std::align_val_t;
using std::nothrow;

// What is handed out lies behind a header, so that no other heap can take it back.
static const size_t HEADER = 64;
static int made, gone;

void *operator new(size_t n)
{
    char *p = static_cast<char *>(malloc(HEADER + n));
    if (!p) throw std::bad_alloc();
    made++;
    return p + HEADER;
}

void operator delete(void *p) noexcept
{
    if (!p) return;
    gone++;
    free(static_cast<char *>(p) - HEADER);
}

struct New {
    const char *name;
    void *(*get)(size_t);
};
struct Delete {
    const char *name;
    void (*release)(void *, size_t);
};

static const New news[] = {
    {"new", [](size_t n) { return ::operator new(n); }},
    {"new nothrow", [](size_t n) { return ::operator new(n, nothrow); }},
    {"new[]", [](size_t n) { return ::operator new[](n); }},
    {"new[] nothrow", [](size_t n) { return ::operator new[](n, nothrow); }},
};
static const Delete deletes[] = {
    {"delete", [](void *p, size_t) { ::operator delete(p); }},
    {"delete sized", [](void *p, size_t n) { ::operator delete(p, n); }},
    {"delete nothrow", [](void *p, size_t) { ::operator delete(p, nothrow); }},
    {"delete[]", [](void *p, size_t) { ::operator delete[](p); }},
    {"delete[] sized", [](void *p, size_t n) { ::operator delete[](p, n); }},
    {"delete[] nothrow", [](void *p, size_t) { ::operator delete[](p, nothrow); }},
};

static const align_val_t LINE = align_val_t(64);
static const New aligned_news[] = {
    {"new aligned", [](size_t n) { return ::operator new(n, LINE); }},
    {"new aligned nothrow", [](size_t n) { return ::operator new(n, LINE, nothrow); }},
    {"new[] aligned", [](size_t n) { return ::operator new[](n, LINE); }},
    {"new[] aligned nothrow", [](size_t n) { return ::operator new[](n, LINE, nothrow); }},
};
static const Delete aligned_deletes[] = {
    {"delete aligned", [](void *p, size_t) { ::operator delete(p, LINE); }},
    {"delete sized aligned", [](void *p, size_t n) { ::operator delete(p, n, LINE); }},
    {"delete aligned nothrow", [](void *p, size_t) { ::operator delete(p, LINE, nothrow); }},
    {"delete[] aligned", [](void *p, size_t) { ::operator delete[](p, LINE); }},
    {"delete[] sized aligned", [](void *p, size_t n) { ::operator delete[](p, n, LINE); }},
    {"delete[] aligned nothrow", [](void *p, size_t) { ::operator delete[](p, LINE, nothrow); }},
};

// Each block of one form goes back by each other form; `each` is how often the program's own are called.
static void pairs(const New *a, size_t n, const Delete *d, size_t m, int each)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
            for (size_t size : {size_t(1), size_t(40), size_t(5000), size_t(100000)}) {
                int made_before = made, gone_before = gone;
                void *p = a[i].get(size);
                CHECK(p, "%s of %zu bytes", a[i].name, size);
                memset(p, 0x5a, size);
                CHECK(made == made_before + each, "%s of %zu bytes passes the program's by", a[i].name, size);
                d[j].release(p, size);
                CHECK(gone == gone_before + each, "%s, then %s", a[i].name, d[j].name);
            }
    for (size_t j = 0; j < m; j++) d[j].release(nullptr, 0);
}

struct Thing {
    char bytes[24];
    ~Thing() { bytes[0]++; }
};

// The first call of a form that is made of another one: what the dynamic linker had to say is still there.
static void said_before()
{
    CHECK(dlopen("/there/is/no/such/library.so", RTLD_NOW) == nullptr, "dlopen");
    const char *said = dlerror();
    char before[200], *many[100];
    size_t n = strlen(said) + 1;
    CHECK(n < sizeof before, "%s", said);
    memcpy(before, said, n);
    char *own = static_cast<char *>(::operator new[](n));
    for (char *&block : many) block = static_cast<char *>(memset(malloc(n), 'x', n));
    CHECK(memcmp(said, before, n) == 0, "%s, and now %.*s", before, int(n), said);
    for (char *block : many) free(block);
    ::operator delete[](own);
}

int main()
{
    said_before();
    pairs(news, COUNT(news), deletes, COUNT(deletes), 1);
    pairs(aligned_news, COUNT(aligned_news), aligned_deletes, COUNT(aligned_deletes), 0);

    int made_before = made, gone_before = gone;
    for (int i = 0; i < 1000; i++) {
        Thing *one = new Thing(), *many = new Thing[7];
        __asm__ volatile("" : : "r"(one), "r"(many) : "memory");
        delete one;
        delete[] many;
    }
    CHECK(made - made_before == 2000 && gone - gone_before == 2000, "%d and %d", made - made_before, gone - gone_before);

    // The library asks for its buffer by a form that does not throw, and gives it back by the plain one.
    std::vector<int> numbers(100000);
    for (size_t i = 0; i < numbers.size(); i++) numbers[i] = int(i * 7919 % 10007);
    std::stable_sort(numbers.begin(), numbers.end());
    CHECK(std::is_sorted(numbers.begin(), numbers.end()), "not sorted");
    return 0;
}
