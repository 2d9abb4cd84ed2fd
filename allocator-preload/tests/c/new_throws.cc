// operator new that fails: the new_handler is called until it gives up, then bad_alloc (or
// null for nothrow); over-aligned types are aligned. Source: C++17 [new.delete], [alloc.errors].
#include "check.h"
#include <dlfcn.h>
#include <execinfo.h>
#include <memory>
#include <new>
#include <sys/resource.h>
#include <vector>

static volatile size_t impossible[] = {size_t(PTRDIFF_MAX) + 1, SIZE_MAX, SIZE_MAX - 10000,
                                       size_t(1) << 60};
static volatile size_t huge = size_t(PTRDIFF_MAX) + 1;

template <class Function> static bool throws_bad_alloc(Function function)
{
    try {
        hide(function());
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

static void check_throw()
{
    const std::align_val_t aligned{64};
    for (volatile size_t &size : impossible) {
        size_t n = size;
        CHECK(throws_bad_alloc([=] { return ::operator new(n); }), "new(%#zx)", n);
        CHECK(throws_bad_alloc([=] { return ::operator new[](n); }), "new[](%#zx)", n);
        void *p = hide(::operator new(n, std::nothrow));
        CHECK(p == nullptr, "new(%#zx, nothrow) = %p", n, p);
        p = hide(::operator new[](n, std::nothrow));
        CHECK(p == nullptr, "new[](%#zx, nothrow) = %p", n, p);

        // libstdc++ 12 rounds the size up to the alignment without looking for overflow: it must not see this one.
        CHECK(throws_bad_alloc([=] { return ::operator new(n, aligned); }), "new(%#zx, 64)", n);
        CHECK(throws_bad_alloc([=] { return ::operator new[](n, aligned); }), "new[](%#zx, 64)",
              n);
        p = hide(::operator new(n, aligned, std::nothrow));
        CHECK(p == nullptr, "new(%#zx, 64, nothrow) = %p", n, p);
        p = hide(::operator new[](n, aligned, std::nothrow));
        CHECK(p == nullptr, "new[](%#zx, 64, nothrow) = %p", n, p);
    }
}

// An object in a frame that the exception passes through.
static int destroyed;
struct Guard {
    void *block = ::operator new(100);
    ~Guard()
    {
        ::operator delete(block);
        destroyed++;
    }
};

__attribute__((noinline)) static void *frame_between(size_t n)
{
    Guard guard;
    return hide(::operator new(n));
}

static void check_unwinding()
{
    for (int i = 0; i < 100; i++) {
        bool thrown = throws_bad_alloc([] { return frame_between(huge); });
        CHECK(thrown, "no exception");
        CHECK(destroyed == i + 1, "destroyed %d of %d", destroyed, i + 1);
    }
    std::vector<char> vector;
    CHECK(throws_bad_alloc([&] { return vector.reserve(huge / 2), vector.data(); }), "vector");
}

// The new_handler.
static int calls;
static void *reserve;

struct OwnException : std::bad_alloc {};

static void handler_that_gives_up()
{
    ::operator delete(::operator new(1000)); // it may use the allocator
    if (++calls == 3) std::set_new_handler(nullptr);
}

// Only the C++ library stands between who asked and the handler: no frame of the heap's, which an exception might not pass.
static void handler_that_looks()
{
    void *frames[16];
    int n = backtrace(frames, COUNT(frames));
    calls++;
    std::set_new_handler(nullptr);
    CHECK(n > 3, "%d frames", n);
    Dl_info handler = {}, asker = {}, cxx = {};
    dladdr(frames[0], &handler);
    int at = 1;
    for (; at < n && dladdr(frames[at], &asker) && asker.dli_fbase != handler.dli_fbase; at++) {
        dladdr(frames[at], &cxx);
        CHECK(strstr(cxx.dli_fname, "libstdc++"), "frame %d is of %s", at, cxx.dli_fname);
    }
    CHECK(at > 1 && at < n, "%d frames of the C++ library among %d", at - 1, n);
}

static void handler_that_throws()
{
    calls++;
    throw OwnException();
}

static void handler_that_frees()
{
    calls++;
    if (!reserve) std::set_new_handler(nullptr);
    ::operator delete(reserve);
    reserve = nullptr;
}

static void check_handler()
{
    calls = 0;
    std::set_new_handler(handler_that_gives_up);
    CHECK(throws_bad_alloc([] { return ::operator new(huge); }), "no exception");
    CHECK(calls == 3, "%d calls of the new_handler", calls);

    calls = 0;
    std::set_new_handler(handler_that_gives_up);
    CHECK(hide(::operator new(huge, std::nothrow)) == nullptr, "nothrow");
    CHECK(calls == 3, "%d calls of the new_handler, nothrow", calls);

    calls = 0;
    std::set_new_handler(handler_that_gives_up);
    CHECK(throws_bad_alloc([] { return ::operator new(huge, std::align_val_t(64)); }),
          "no exception, aligned");
    CHECK(calls == 3, "%d calls of the new_handler, aligned", calls);

    void *(*const all[])() = {
        [] { return ::operator new(huge); },
        [] { return ::operator new[](huge); },
        [] { return ::operator new(huge, std::nothrow); },
        [] { return ::operator new[](huge, std::nothrow); },
        [] { return ::operator new(huge, std::align_val_t(64)); },
        [] { return ::operator new[](huge, std::align_val_t(64)); },
        [] { return ::operator new(huge, std::align_val_t(64), std::nothrow); },
        [] { return ::operator new[](huge, std::align_val_t(64), std::nothrow); },
    };
    calls = 0;
    for (auto function : all) {
        std::set_new_handler(handler_that_looks);
        throws_bad_alloc(function);
    }
    CHECK(calls == COUNT(all), "%d calls of the new_handler", calls);

    calls = 0;
    std::set_new_handler(handler_that_throws);
    bool own = false;
    try {
        hide(::operator new(huge));
    } catch (const OwnException &) {
        own = true;
    }
    CHECK(own && calls == 1, "own exception %d, %d calls", own, calls);
    CHECK(hide(::operator new[](huge, std::nothrow)) == nullptr, "nothrow, handler throws");
    CHECK(calls == 2, "%d calls", calls);

    // malloc knows no new_handler.
    CHECK(hide(malloc(huge)) == nullptr && calls == 2, "malloc called the new_handler");
    std::set_new_handler(nullptr);
}

// Two blocks that do not fit together: the handler gives up the first one.
static void check_handler_frees()
{
    const size_t size = 600 * MIB;
    struct rlimit old, limit;
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%lu", &pages) != 1) return;
    fclose(file);
    CHECK(getrlimit(RLIMIT_AS, &old) == 0, "getrlimit");
    limit = old;
    limit.rlim_cur = pages * sysconf(_SC_PAGESIZE) + size + size / 2;
    if (limit.rlim_cur > limit.rlim_max || setrlimit(RLIMIT_AS, &limit) != 0) return;

    calls = 0;
    reserve = ::operator new(size);
    std::set_new_handler(handler_that_frees);
    void *p = hide(::operator new(size, std::nothrow));
    setrlimit(RLIMIT_AS, &old);
    std::set_new_handler(nullptr);
    CHECK(p != nullptr, "the new_handler freed enough, %d calls", calls);
    CHECK(calls == 1, "%d calls of the new_handler", calls);
    ::operator delete(p);
}

template <size_t N> struct alignas(N) Aligned {
    char data[N + 1];
};

template <size_t N> static void check_aligned()
{
    for (int i = 0; i < 100; i++) {
        Aligned<N> *one = new Aligned<N>;
        Aligned<N> *some = new Aligned<N>[3];
        Aligned<N> *quiet = new (std::nothrow) Aligned<N>;
        auto shared = std::make_shared<Aligned<N>>();
        std::vector<Aligned<N>> vector(5);
        CHECK(is_aligned(one, N), "new alignas(%zu): %p", N, (void *)one);
        CHECK(is_aligned(some, N), "new[] alignas(%zu): %p", N, (void *)some);
        CHECK(is_aligned(quiet, N), "new nothrow alignas(%zu): %p", N, (void *)quiet);
        CHECK(is_aligned(shared.get(), N), "make_shared alignas(%zu)", N);
        CHECK(is_aligned(vector.data(), N), "vector alignas(%zu)", N);
        memset(some, 1, 3 * sizeof *some);
        delete one;
        delete[] some;
        delete quiet;
    }
}

int main()
{
    check_throw();
    check_unwinding();
    check_handler();
    check_aligned<64>();
    check_aligned<4096>();
    check_handler_frees();
    return 0;
}
