/* Libraries that allocate as they come and free as they go, while threads use malloc, load
 * and unload 1000 times. Source: dlopen(3), dlclose(3) (constructors, destructors). */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, CYCLES = 1000, SIZE = 500 };

static atomic_int stop;
static _Atomic(void *) given; /* a block from the library */

static void *work(void *argument)
{
    uint64_t random = 31 + (uintptr_t)argument * 7919;
    void *p[32] = { NULL };
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 500; i++) {
            uint64_t r = next_random(&random);
            void **place = &p[r % COUNT(p)];
            size_t n = (r >> 32) % 2000;
            free(*place);
            *place = malloc(n);
            CHECK(*place != NULL, "malloc(%zu)", n);
            memset(*place, 1, n);
        }
        void *block = atomic_exchange(&given, NULL);
        if (block) CHECK(holds(block, SIZE, 3), "block of a library that is gone");
        free(block);
        usleep(50);
    }
    for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
    return NULL;
}

int main(void)
{
    const char *path = beside("dlopen_cycles.lib.so");
    pthread_t threads[THREADS];
    time_limit(30);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "pthread_create");
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        CHECK(handle != NULL, "cycle %d: %s", cycle, dlerror());
        void *(*take)(size_t) = (void *(*)(size_t))dlsym(handle, "take");
        CHECK(take != NULL, "%s", dlerror());
        void *p = take(SIZE);
        CHECK(p != NULL, "cycle %d", cycle);
        fill(p, SIZE, 3);
        CHECK(dlclose(handle) == 0, "cycle %d: %s", cycle, dlerror());
        CHECK(holds(p, SIZE, 3), "cycle %d", cycle);
        free(atomic_exchange(&given, p));
    }
    CHECK(dlopen(path, RTLD_NOW | RTLD_NOLOAD) == NULL, "the library is still there");
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    free(given);
    return 0;
}
