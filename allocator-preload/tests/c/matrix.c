/* Whatever allocated a block, every releasing function takes it, contents intact.
 * Source: C17 7.22.3, POSIX for the functions that say "can be passed to free()". */
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>

static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB };

/* The text that the blocks hold: text_of(n) has n - 1 characters and the final zero. */
static char text[40 * MIB + 2];

static const char *text_of(size_t n)
{
    static size_t cut;
    text[cut] = 'a' + cut % 23;
    cut = n - 1;
    text[cut] = 0;
    return text;
}

/* Of the largest blocks only the two ends count, else the test takes long. */
static size_t end_of(size_t n)
{
    return n > MIB ? 100000 : n;
}

/* The allocating functions: a block with text_of(*n). */
static void *with_text(void *p, size_t n)
{
    size_t end = end_of(n);
    CHECK(p != NULL, "size %zu", n);
    memcpy(p, text_of(n), end);
    memcpy((char *)p + n - end, text + n - end, end);
    return p;
}
static void *by_malloc(size_t *n) { return with_text(malloc(*n), *n); }
static void *by_calloc(size_t *n) { return with_text(calloc(*n, 1), *n); }
static void *by_realloc(size_t *n) { return with_text(realloc(NULL, *n), *n); }
static void *by_reallocarray(size_t *n) { return with_text(reallocarray(NULL, 1, *n), *n); }
static void *by_aligned_alloc(size_t *n) { return with_text(aligned_alloc(64, *n), *n); }
static void *by_memalign(size_t *n) { return with_text(memalign(8192, *n), *n); }
static void *by_posix_memalign(size_t *n)
{
    void *p = NULL;
    CHECK(posix_memalign(&p, 256 * KIB, *n) == 0, "size %zu", *n);
    return with_text(p, *n);
}
static void *by_valloc(size_t *n) { return with_text(valloc(*n), *n); }
static void *by_pvalloc(size_t *n) { return with_text(pvalloc(*n), *n); }
static void *by_strdup(size_t *n) { return strdup(text_of(*n)); }
static void *by_strndup(size_t *n)
{
    text_of(sizes[COUNT(sizes) - 1] + 1); /* longer, so that the n counts */
    return strndup(text, *n - 1);
}
static void *by_getline(size_t *n)
{
    char *line = NULL;
    size_t room = 0;
    text_of(*n + 1);
    text[*n - 1] = '\n'; /* in the place of the final zero */
    FILE *file = fmemopen(text, *n, "r");
    CHECK(file != NULL, "fmemopen");
    CHECK(getline(&line, &room, file) == (ssize_t)*n, "getline of %zu", *n);
    CHECK(room > *n, "getline of %zu: room %zu", *n, room);
    fclose(file);
    text[*n - 1] = 'a' + (*n - 1) % 23;
    line[*n - 1] = 0;
    return line;
}
static void *by_asprintf(size_t *n)
{
    char *p = NULL;
    CHECK(asprintf(&p, "%s", text_of(*n)) == (int)*n - 1, "asprintf of %zu", *n);
    return p;
}
static void *by_realpath(size_t *n)
{
    char *p = realpath("/proc/self/exe", NULL);
    CHECK(p != NULL && p[0] == '/', "realpath");
    *n = strlen(p) + 1; /* the only size there is */
    return with_text(p, *n);
}
static void *by_open_memstream(size_t *n)
{
    char *p = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&p, &length);
    CHECK(file != NULL, "open_memstream");
    for (size_t done = 0, part; done < *n - 1; done += part) {
        part = *n - 1 - done < MIB ? *n - 1 - done : MIB;
        CHECK(fwrite(text_of(*n) + done, 1, part, file) == part, "fwrite");
    }
    CHECK(fclose(file) == 0 && length == *n - 1, "open_memstream: %zu of %zu", length, *n);
    return p;
}

/* The releasing functions. */
typedef void free_fn(void *);
static free_fn *cfree_there;

static void check_text(const char *p, size_t n, const char *when)
{
    size_t end = end_of(n);
    CHECK(p != NULL, "%s: size %zu", when, n);
    CHECK(memcmp(p, text, end) == 0, "%s: contents, size %zu", when, n);
    CHECK(memcmp(p + n - end, text + n - end, end) == 0, "%s: contents, size %zu", when, n);
}
static void to_free(void *p, size_t n)
{
    (void)n;
    free(p);
}
static void to_realloc_zero(void *p, size_t n)
{
    volatile size_t zero = 0;
    p = hide(realloc(p, zero));
    CHECK(p == NULL, "realloc(p, 0), size %zu", n);
}
static void to_cfree(void *p, size_t n)
{
    (void)n;
    if (cfree_there) cfree_there(p);
    else free(p);
}
static void to_realloc(void *p, size_t n)
{
    p = realloc(p, n + n / 2 + 1);
    check_text(p, n, "after realloc");
    free(p);
}
static void to_reallocarray(void *p, size_t n)
{
    p = reallocarray(p, n, 2);
    check_text(p, n, "after reallocarray");
    free(p);
}

#define ENTRY(f) { #f, f }
static const struct { const char *name; void *(*get)(size_t *); } getters[] = {
    ENTRY(by_malloc), ENTRY(by_calloc), ENTRY(by_realloc), ENTRY(by_reallocarray),
    ENTRY(by_aligned_alloc), ENTRY(by_memalign), ENTRY(by_posix_memalign), ENTRY(by_valloc),
    ENTRY(by_pvalloc), ENTRY(by_strdup), ENTRY(by_strndup), ENTRY(by_getline),
    ENTRY(by_asprintf), ENTRY(by_realpath), ENTRY(by_open_memstream),
};
static const struct { const char *name; void (*release)(void *, size_t); } releasers[] = {
    ENTRY(to_free), ENTRY(to_realloc_zero), ENTRY(to_cfree), ENTRY(to_realloc),
    ENTRY(to_reallocarray),
};

int main(void)
{
    cfree_there = (free_fn *)dlsym(RTLD_DEFAULT, "cfree");
    for (size_t i = 0; i < sizeof text; i++) text[i] = 'a' + i % 23;
    for (size_t s = 0; s < COUNT(sizes); s++) {
        for (size_t g = 0; g < COUNT(getters); g++) {
            for (size_t r = 0; r < COUNT(releasers); r++) {
                char name[100];
                size_t n = sizes[s];
                snprintf(name, sizeof name, "%s %s", getters[g].name, releasers[r].name);
                char *p = getters[g].get(&n);
                text_of(n);
                check_text(p, n, name);
                CHECK(malloc_usable_size(p) >= n, "%s: size %zu", name, n);
                releasers[r].release(p, n);
            }
        }
    }
    return 0;
}
