/* A second copy of the library in a preloaded process, opened by dlopen: it frees its own
 * blocks and those of the preload. Source: dlopen(3), RTLD_LOCAL; the library's own promise. */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sys/stat.h>

static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB };
static void *(*copy_malloc)(size_t);
static void (*copy_free)(void *);

/* Is the malloc of this process the one of that file? */
static int preloaded(const char *library)
{
    Dl_info info;
    struct stat a, b;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (!address || !dladdr(address, &info) || !info.dli_fname) return 0;
    if (stat(library, &a) != 0 || stat(info.dli_fname, &b) != 0) return 0;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static void *filled(void *p, size_t n)
{
    CHECK(p != NULL, "size %zu", n);
    fill(p, n < MIB ? n : MIB, 1);
    return p;
}

static void *work(void *argument)
{
    (void)argument;
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            size_t n = sizes[i], part = n < MIB ? n : MIB;
            if (round > 5 && n > MIB) continue;
            void *own = filled(malloc(n), n), *other = filled(copy_malloc(n), n);
            void *given = filled(malloc(n), n);
            copy_free(given);
            void *again = filled(malloc(n), n);
            CHECK(holds(own, part, 1), "the preload's block of %zu bytes", n);
            CHECK(holds(other, part, 1), "the copy's block of %zu bytes", n);
            copy_free(other);
            CHECK(holds(own, part, 1) && holds(again, part, 1), "the preload's blocks of %zu", n);
            copy_free(own);
            free(again);
        }
        copy_free(NULL);
    }
    return NULL;
}

int main(void)
{
    const char *library = getenv("KMALLOC_LIB");
    char name[] = "/tmp/two_copies.XXXXXX";
    pthread_t threads[3];
    if (!library || !preloaded(library)) return 0;
    time_limit(30);

    int fd = mkstemp(name);
    CHECK(fd >= 0, "mkstemp");
    close(fd);
    copy_file(library, name);
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    unlink(name);
    CHECK(handle != NULL, "%s", dlerror());
    copy_malloc = (void *(*)(size_t))dlsym(handle, "malloc");
    copy_free = (void (*)(void *))dlsym(handle, "free");
    CHECK(copy_malloc && copy_free, "%s", dlerror());
    CHECK(copy_malloc != (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc"), "no second copy");

    work(NULL);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0, "pthread_create");
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    return 0;
}
