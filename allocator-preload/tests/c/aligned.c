/* aligned_alloc, memalign, valloc and pvalloc align; pvalloc rounds up to whole pages;
 * memalign rounds an odd alignment up. Source: C17 7.22.3.1, posix_memalign(3), glibc. */
#include "check.h"
#include <malloc.h>

static const size_t sizes[] = { 1, 8, 24, 100, 1000, 4096, 5000, 40000, MIB, 5 * MIB };
static void *kept[4096];
static size_t kept_size[4096];
static size_t count;

/* Checks a block, fills it and keeps it until all are there. */
static void keep(void *p, size_t n, size_t alignment, const char *name)
{
    CHECK(p != NULL, "%s: size %zu, alignment %zu", name, n, alignment);
    CHECK(is_aligned(p, alignment), "%s: size %zu, alignment %zu: %p", name, n, alignment, p);
    CHECK(is_aligned(p, 16), "%s: size %zu, alignment %zu: %p", name, n, alignment, p);
    CHECK(malloc_usable_size(p) >= n, "%s: size %zu, alignment %zu", name, n, alignment);
    CHECK(count < COUNT(kept), "too many");
    fill(p, n, count);
    kept[count] = p;
    kept_size[count++] = n;
}

static void release_all(void)
{
    for (size_t i = 0; i < count; i++) {
        CHECK(holds(kept[i], kept_size[i], i), "block of %zu bytes damaged", kept_size[i]);
        free(kept[i]);
    }
    count = 0;
}

int main(void)
{
    size_t page = sysconf(_SC_PAGESIZE);
    for (size_t s = 0; s < COUNT(sizes); s++) {
        volatile size_t n = sizes[s];
        for (size_t alignment = 1; alignment <= 4 * MIB; alignment *= 2) {
            keep(aligned_alloc(alignment, n), n, alignment, "aligned_alloc");
            keep(memalign(alignment, n), n, alignment, "memalign");
        }
        keep(valloc(n), n, page, "valloc");
        keep(pvalloc(n), (n + page - 1) / page * page, page, "pvalloc");
        release_all();

        static const size_t odd[][2] = { /* alignment asked for, alignment given */
            { 3, 4 }, { 12, 16 }, { 17, 32 }, { 24, 32 }, { 48, 64 }, { 100, 128 },
            { 1000, 1024 }, { 4097, 8192 }, { 100000, 131072 },
        };
        for (size_t i = 0; i < COUNT(odd); i++) {
            volatile size_t alignment = odd[i][0];
            keep(memalign(alignment, n), n, odd[i][1], "memalign, odd");

            /* Undefined in C11, since then: fails, or a block as aligned as can be meant. */
            errno = 0;
            void *p = hide(aligned_alloc(alignment, n));
            if (p == NULL) {
                CHECK(errno == EINVAL, "aligned_alloc(%zu, %zu): errno %d", alignment, n, errno);
            } else {
                CHECK(is_aligned(p, alignment) || is_aligned(p, odd[i][1]),
                      "aligned_alloc(%zu, %zu) = %p", alignment, n, p);
                keep(p, n, 1, "aligned_alloc, odd");
            }
        }
        volatile size_t none = 0;
        errno = 0;
        void *p = hide(aligned_alloc(none, n));
        if (p == NULL) CHECK(errno == EINVAL, "aligned_alloc(0, %zu): errno %d", n, errno);
        else keep(p, n, 1, "aligned_alloc, 0");
        release_all();
    }
    return 0;
}
