/* A program may define mmap, munmap and madvise itself and use malloc in them; an allocator
 * that called these would call itself for ever. Source: ELF symbol search, ld.so(8). */
#include "check.h"
#include "every_size.h"
#include <sys/mman.h>
#include <sys/syscall.h>

static __thread int depth;
static int calls;

/* What a wrapper that keeps records does: it allocates before the real call. */
static void enter(void)
{
    if (calls++ == 0) time_limit(10); /* here, for it may hang before main */
    depth++;
    CHECK(depth <= 50, "the allocator calls the program's mmap, munmap or madvise");
    char *p = malloc(100);
    CHECK(p != NULL, "malloc in the wrapper");
    memset(p, 1, 100);
    free(p);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    enter();
    void *p = (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    depth--;
    return p;
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return mmap(address, length, protection, flags, fd, offset);
}

int munmap(void *address, size_t length)
{
    enter();
    int result = syscall(SYS_munmap, address, length);
    depth--;
    return result;
}

int madvise(void *address, size_t length, int advice)
{
    enter();
    int result = syscall(SYS_madvise, address, length, advice);
    depth--;
    return result;
}

int main(void)
{
    every_size(zeroed);
    calls = 0;
    void *p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED, "mmap");
    CHECK(munmap(p, MIB) == 0, "munmap");
    CHECK(calls >= 2, "the program's own functions were not called");
    return 0;
}
