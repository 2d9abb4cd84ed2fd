/* Memory of the C library's own heap, which somebody has who asks it for its functions by its name, can be freed,
 * reallocated, measured. Source: dlsym(3). */
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>

static void *(*their_malloc)(size_t);
static void *(*their_memalign)(size_t, size_t);
static void (*their_free)(void *);

static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB };

/* How much of a block is written; all of the largest would take long. */
static size_t part(size_t n)
{
    return n < MIB ? n : MIB;
}

static void *get(size_t n, int kind)
{
    void *p = kind == 0 ? their_malloc(n) : their_memalign(kind == 1 ? 64 : 64 * KIB, n);
    CHECK(p != NULL, "size %zu, kind %d", n, kind);
    fill(p, part(n), kind);
    return p;
}

static void *work(void *argument)
{
    volatile size_t zero = 0;
    (void)argument;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            size_t n = sizes[i];
            for (int kind = 0; kind < 3; kind++) {
                void *between = malloc(n); /* the program's own */
                CHECK(between != NULL, "malloc(%zu)", n);
                fill(between, part(n), 9);

                void *p = get(n, kind);
                CHECK(malloc_usable_size(p) >= n, "size %zu, kind %d: %zu", n, kind,
                      malloc_usable_size(p));
                free(p);

                p = realloc(get(n, kind), 2 * n);
                CHECK(p && holds(p, part(n), kind), "larger, size %zu, kind %d", n, kind);
                CHECK(malloc_usable_size(p) >= 2 * n, "larger, size %zu, kind %d", n, kind);
                memset((char *)p + n, 1, part(n));
                free(p);

                p = realloc(get(n, kind), n / 2 + 1);
                CHECK(p && holds(p, part(n / 2), kind), "smaller, size %zu, kind %d", n, kind);
                free(p);

                p = hide(realloc(get(n, kind), zero));
                CHECK(p == NULL, "realloc to 0, size %zu, kind %d", n, kind);

                their_free(get(n, kind));
                CHECK(holds(between, part(n), 9), "the program's block of %zu bytes", n);
                free(between);
            }
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[3];
    time_limit(30);
    void *handle = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    CHECK(handle != NULL, "%s", dlerror());
    their_malloc = (void *(*)(size_t))dlsym(handle, "malloc");
    their_memalign = (void *(*)(size_t, size_t))dlsym(handle, "memalign");
    their_free = (void (*)(void *))dlsym(handle, "free");
    CHECK(their_malloc && their_memalign && their_free, "%s", dlerror());

    work(NULL);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0, "pthread_create");
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);

    /* Many at once. */
    static void *many[1000];
    for (int i = 0; i < 1000; i++) many[i] = get(i, 0);
    for (int i = 0; i < 1000; i++) {
        CHECK(holds(many[i], i, 0), "block of %d bytes", i);
        free(many[i]);
    }
    return 0;
}
