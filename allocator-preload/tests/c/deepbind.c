/* Memory from a library opened with RTLD_DEEPBIND (it comes from the C library's malloc, also
 * under a preload) can be freed, reallocated, measured. Source: dlopen(3), RTLD_DEEPBIND. */
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>

static void *(*lib_malloc)(size_t);
static void *(*lib_memalign)(size_t, size_t);
static void (*lib_free)(void *);

static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB };

/* How much of a block is written; all of the largest would take long. */
static size_t part(size_t n)
{
    return n < MIB ? n : MIB;
}

static void *get(size_t n, int kind)
{
    void *p = kind == 0 ? lib_malloc(n) : lib_memalign(kind == 1 ? 64 : 64 * KIB, n);
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

                lib_free(get(n, kind));
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
    void *handle = dlopen(beside("deepbind.lib.so"), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    CHECK(handle != NULL, "%s", dlerror());
    lib_malloc = (void *(*)(size_t))dlsym(handle, "lib_malloc");
    lib_memalign = (void *(*)(size_t, size_t))dlsym(handle, "lib_memalign");
    lib_free = (void (*)(void *))dlsym(handle, "lib_free");
    CHECK(lib_malloc && lib_memalign && lib_free, "%s", dlerror());

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
