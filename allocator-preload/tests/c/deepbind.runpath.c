/* A library that is opened with RTLD_DEEPBIND has the program's heap: it frees what the program has allocated, and what the C
 * library's functions return to it. Its constructor has run with the C library's heap. Who calls dlopen is who finds a library by
 * its name. Source: dlopen(3), RTLD_DEEPBIND and DT_RUNPATH; PHP's extensions. */
#include "check.h"
#include "deepbind.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 40 * MIB };

/* As long as what the program gets so: the C library's blocks are of other lengths. */
static void same(void *theirs, void *ours, const char *name)
{
    CHECK(theirs && ours && malloc_usable_size(theirs) == malloc_usable_size(ours), "%s is of another heap: %zu and %zu bytes", name,
          malloc_usable_size(theirs), malloc_usable_size(ours));
    free(theirs);
    free(ours);
}

static void *aligned(size_t alignment, size_t n)
{
    void *p;
    return posix_memalign(&p, alignment, n) == 0 ? p : NULL;
}

static void all_of_one_heap(const struct deepbind *lib)
{
    for (size_t n = 1; n < MIB; n = n * 5 + 1) {
        same(lib->get(n), malloc(n), "malloc");
        same(lib->get_zeros(n), calloc(1, n), "calloc");
        same(lib->aligned(4096, n), aligned(4096, n), "posix_memalign");
        same(lib->memalign(64, n), memalign(64, n), "memalign");
        same(lib->aligned_alloc(64, 64 * n), aligned_alloc(64, 64 * n), "aligned_alloc");
        same(lib->resize(NULL, n), realloc(NULL, n), "realloc");
        same(lib->resize_array(NULL, n), reallocarray(NULL, n, 1), "reallocarray");
    }
}

/* What was read-only before is so again. */
static void stays_read_only(const struct deepbind *lib)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(void *volatile *)lib->read_only = NULL;
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
}

static void all_of(const struct deepbind *lib)
{
    void (*const releases[])(void *) = { lib->release, lib->release_by_data, lib->release_by_address, free };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t n = sizes[i];
        for (size_t r = 0; r < COUNT(releases); r++) {
            releases[r](malloc(n));
            releases[r](memalign(256, n));
            releases[r](lib->get(n));
            releases[r](lib->get_zeros(n));
            releases[r](lib->aligned(4096, n));
            releases[r](lib->memalign(64, n));
            releases[r](lib->aligned_alloc(64, 64 * n));
            char *p = malloc(n);
            CHECK(lib->usable(p) == malloc_usable_size(p), "size %zu", n);
            fill(p, n, 3);
            p = lib->resize(p, n + 100);
            CHECK(p && holds(p, n, 3), "size %zu", n);
            p = lib->resize_array(p, 2 * n + 100);
            CHECK(p && holds(p, n, 3), "size %zu", n);
            releases[r](realloc(p, n));
        }
    }
    for (size_t r = 0; r < COUNT(releases); r++) {
        releases[r](lib->copy("a text"));
        releases[r](lib->line("a line\n"));
    }
}

static void *work(void *lib)
{
    for (int i = 0; i < 20; i++) all_of(lib);
    return NULL;
}

/* Opens it in several threads at once; each uses it as soon as it has it. */
static void *open_at_once(void *file)
{
    void *handle = dlopen(file, RTLD_NOW | RTLD_DEEPBIND);
    CHECK(handle != NULL, "%s", dlerror());
    struct deepbind *lib = dlsym(handle, "deepbind_functions");
    lib->release(malloc(100));
    lib->release(lib->copy("a text"));
    free(lib->get(100));
    return handle;
}

static void open_in_turn(const char *file)
{
    pthread_t threads[4];
    void *handle;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&threads[i], NULL, open_at_once, (void *)file) == 0, "pthread_create");
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], &handle);
            dlclose(handle);
        }
    }
}

static void use(void *handle, const char *name)
{
    CHECK(handle != NULL, "%s", dlerror());
    CHECK(dlerror() == NULL, "an error after a success");
    struct deepbind *lib = dlsym(handle, "deepbind_functions");
    CHECK(lib != NULL, "%s", dlerror());

    CHECK(strcmp(lib->first, "first") == 0 && strcmp(lib->first_freed_here, "second") == 0, "%s", name);
    free(lib->first);
    lib->release(lib->first_freed_here);

    pthread_t threads[3];
    all_of_one_heap(lib);
    stays_read_only(lib);
    all_of(lib);
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, work, lib) == 0, "pthread_create");
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static struct deepbind *open_and_use(const char *name, int flags)
{
    void *handle = dlopen(beside(name), flags | RTLD_LOCAL | RTLD_DEEPBIND);
    use(handle, name);
    /* Again, when there is nothing to do. */
    CHECK(dlopen(beside(name), flags | RTLD_DEEPBIND) == handle, "%s", dlerror());
    struct deepbind *lib = dlsym(handle, "deepbind_functions");
    all_of(lib);
    return lib;
}

/* Of a file with the same name as one that is needed, opened by its path before: it is another library. */
static void open_namesake(const char *name)
{
    static const char DIRECTORY[] = "deepbind_namesake";
    char copy[4096], block[4096];
    snprintf(copy, sizeof copy, "%s", beside(DIRECTORY));
    CHECK(mkdir(copy, 0700) == 0 || errno == EEXIST, "errno %d", errno);
    strcat(strcat(copy, "/"), name);
    int from = open(beside(name), O_RDONLY), to = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    CHECK(from >= 0 && to >= 0, "errno %d", errno);
    for (ssize_t n; (n = read(from, block, sizeof block)) > 0;) CHECK(write(to, block, n) == n, "errno %d", errno);
    close(from);
    close(to);
    CHECK(dlopen(copy, RTLD_NOW) != NULL, "%s", dlerror());
}

int main(void)
{
    time_limit(60);
    open_namesake("deepbind_needed.lib.so");
    /* A heap that a library brings with it is left to it, whatever is opened later. */
    void *own = dlopen(beside("deepbind_own_needs.lib.so"), RTLD_LAZY | RTLD_DEEPBIND);
    CHECK(own != NULL, "%s", dlerror());
    void *(*own_get)(void) = (void *(*)(void))dlsym(own, "own_get");
    void (*own_release)(void *) = (void (*)(void *))dlsym(own, "own_release");
    int *calls = dlsym(own, "own_calls");
    CHECK(own_get && own_release && calls, "%s", dlerror());

    open_in_turn(strdup(beside("deepbind.lib.so")));
    struct deepbind *lib = open_and_use("deepbind.lib.so", RTLD_LAZY);
    open_and_use("deepbind_now.now.lib.so", RTLD_NOW);
    open_and_use("deepbind_needs.lib.so", RTLD_LAZY);
    use(lib->open_other(beside("deepbind_nested.noplt.lib.so")), "opened by a library");

    own_release(own_get());
    CHECK(*calls == 2, "%d of two calls", *calls);

    /* By a name: the place is the program's to say (it is linked with the path of itself). */
    CHECK(dlopen("dlopen_cycles.lib.so", RTLD_NOW) != NULL, "%s", dlerror());
    CHECK(dlopen("tls_many.nopreload.lib.so", RTLD_NOW | RTLD_DEEPBIND) != NULL, "%s", dlerror());
    CHECK(dlopen("$ORIGIN/tls_many.nopreload.lib.so", RTLD_NOW | RTLD_DEEPBIND) != NULL, "%s", dlerror());
    CHECK(dlopen("there_is_no_such_library.so", RTLD_NOW) == NULL && dlerror() != NULL, "no error");
    CHECK(dlopen(beside("none.so"), RTLD_NOW | RTLD_DEEPBIND) == NULL && dlerror() != NULL, "no error");
    void *program = dlopen(NULL, RTLD_NOW);
    CHECK(program != NULL && dlsym(program, "malloc") == dlsym(RTLD_DEFAULT, "malloc"), "the program itself");
    return 0;
}
