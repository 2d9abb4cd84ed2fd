/* A program may define open and openat itself and use malloc in them; an allocator that called
 * these could call itself for ever. Source: ELF symbol search, ld.so(8). */
#include "check.h"
#include "every_size.h"
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
    int fd = open("/dev/null", O_RDWR);
    CHECK(fd >= 0 && calls >= 1, "open: %d, %d calls", fd, calls);
    close(fd);
    errno = 0;
    fd = open("/does/not/exist", O_RDONLY);
    CHECK(fd == -1 && errno == ENOENT, "open: %d, errno %d", fd, errno);

    every_size(zeroed);
    return 0;
}
