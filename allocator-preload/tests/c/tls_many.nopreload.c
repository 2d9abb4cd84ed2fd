/* The library can be loaded by dlopen into a program that has 60 libraries with thread-local
 * data already, and its functions work there. Source: dlopen(3); ELF TLS (dynamic models). */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>

enum { LIBRARIES = 60, THREADS = 8 };

static int (*add_up[LIBRARIES])(int);
static void *(*their_malloc)(size_t);
static void *(*their_calloc)(size_t, size_t);
static void *(*their_realloc)(void *, size_t);
static void (*their_free)(void *);

static void *use_libraries(void *argument)
{
    (void)argument;
    for (int i = 0; i < LIBRARIES; i++) {
        CHECK(add_up[i](1) == 256, "library %d, first call in the thread", i);
        CHECK(add_up[i](2) == 768, "library %d, second call in the thread", i);
    }
    return NULL;
}

static void *use_allocator(void *argument)
{
    static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB };
    for (int round = 0; round < 20; round++) {
        void *p[COUNT(sizes)];
        for (size_t i = 0; i < COUNT(sizes); i++) {
            p[i] = round % 2 ? their_malloc(sizes[i]) : their_calloc(1, sizes[i]);
            CHECK(p[i] != NULL, "size %zu", sizes[i]);
            fill(p[i], sizes[i] < MIB ? sizes[i] : MIB, i);
        }
        for (size_t i = 0; i < COUNT(sizes); i++) {
            size_t n = sizes[i] < MIB ? sizes[i] : MIB;
            p[i] = their_realloc(p[i], sizes[i] + 100);
            CHECK(p[i] && holds(p[i], n, i), "realloc of %zu bytes", sizes[i]);
            their_free(p[i]);
        }
    }
    their_free(NULL);
    (void)argument;
    return NULL;
}

static void in_threads(void *(*function)(void *))
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, function, NULL) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

int main(void)
{
    const char *library = getenv("KMALLOC_LIB");
    char directory[] = "/tmp/tls_many.XXXXXX", name[sizeof directory + 32];
    if (!library) return 0;
    time_limit(30);

    CHECK(mkdtemp(directory) != NULL, "mkdtemp");
    for (int i = 0; i < LIBRARIES; i++) {
        snprintf(name, sizeof name, "%s/lib%d.so", directory, i);
        copy_file(beside("tls_many.nopreload.lib.so"), name);
        void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        unlink(name);
        if (i == LIBRARIES - 1) rmdir(directory);
        CHECK(handle != NULL, "%s", dlerror());
        add_up[i] = (int (*)(int))dlsym(handle, "add_up");
        CHECK(add_up[i] != NULL, "%s", dlerror());
    }
    in_threads(use_libraries);

    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    CHECK(handle != NULL, "%s", dlerror());
    their_malloc = (void *(*)(size_t))dlsym(handle, "malloc");
    their_calloc = (void *(*)(size_t, size_t))dlsym(handle, "calloc");
    their_realloc = (void *(*)(void *, size_t))dlsym(handle, "realloc");
    their_free = (void (*)(void *))dlsym(handle, "free");
    CHECK(their_malloc && their_calloc && their_realloc && their_free, "%s", dlerror());
    CHECK(their_malloc != malloc, "malloc is the library's: is it preloaded?");
    use_allocator(NULL);
    in_threads(use_allocator);

    free(malloc(1000)); /* and the program's own malloc */
    return 0;
}
