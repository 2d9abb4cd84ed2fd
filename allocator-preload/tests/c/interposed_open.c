/* A program may define open and openat itself and use malloc in them; an allocator that called
 * these could call itself for ever. Source: ELF symbol search, ld.so(8). */
#include "check.h"
#include <sys/syscall.h>

static __thread int depth;
static int calls;

static int open_really(int directory, const char *path, int flags, mode_t mode)
{
    if (calls++ == 0) time_limit(10); /* here, for it may hang before main */
    depth++;
    CHECK(depth <= 50, "the allocator calls the program's open");
    char *copy = malloc(strlen(path) + 1); /* a wrapper that looks at the name */
    CHECK(copy != NULL, "malloc in the wrapper");
    strcpy(copy, path);
    int fd = syscall(SYS_openat, directory, copy, flags, mode);
    int error = errno;
    free(copy);
    errno = error;
    depth--;
    return fd;
}

static mode_t mode_of(int flags, va_list *arguments)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(*arguments, mode_t) : 0;
}

#define WITH_MODE(mode, flags) \
    va_list arguments; \
    va_start(arguments, flags); \
    mode_t mode = mode_of(flags, &arguments); \
    va_end(arguments)

int open(const char *path, int flags, ...)
{
    WITH_MODE(mode, flags);
    return open_really(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    WITH_MODE(mode, flags);
    return open_really(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    WITH_MODE(mode, flags);
    return open_really(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    WITH_MODE(mode, flags);
    return open_really(directory, path, flags, mode);
}

int main(void)
{
    static const size_t sizes[] = { 1, 24, 100, 1000, 5000, 40000, MIB, 5 * MIB, 80 * MIB };
    int fd = open("/dev/null", O_RDWR);
    CHECK(fd >= 0 && calls >= 1, "open: %d, %d calls", fd, calls);
    close(fd);
    errno = 0;
    fd = open("/does/not/exist", O_RDONLY);
    CHECK(fd == -1 && errno == ENOENT, "open: %d, errno %d", fd, errno);

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *p[100];
            size_t many = sizes[i] < 100000 ? COUNT(p) : 1, n = sizes[i];
            for (size_t k = 0; k < many; k++) {
                p[k] = k % 2 ? malloc(n) : calloc(1, n);
                CHECK(p[k] != NULL, "size %zu", n);
                fill(p[k], n < MIB ? n : MIB, k);
            }
            for (size_t k = 0; k < many; k++) {
                p[k] = realloc(p[k], n + n / 2);
                CHECK(p[k] && holds(p[k], n < MIB ? n : MIB, k), "realloc of %zu", n);
                free(p[k]);
            }
        }
    }
    return 0;
}
