/* What the test programs share: a check that needs no malloc, a time limit,
 * byte patterns. Included first, because it asks for the GNU interfaces. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* CHECK(condition, format, ...): one line to stderr and exit status 1. */
#define CHECK(cond, ...) \
    do { \
        if (!(cond)) check_failed(__FILE__, __LINE__, #cond, __VA_ARGS__); \
    } while (0)

__attribute__((noreturn, cold, noinline, unused, format(printf, 4, 5)))
static void check_failed(const char *file, int line, const char *cond, const char *format, ...)
{
    char text[512];
    const char *slash = strrchr(file, '/');
    int n = snprintf(text, sizeof text - 1, "%s:%d: %s: ", slash ? slash + 1 : file, line, cond);
    if (n < (int)sizeof text - 1) {
        va_list args;
        va_start(args, format);
        n += vsnprintf(text + n, sizeof text - 1 - n, format, args);
        va_end(args);
    }
    if (n > (int)sizeof text - 2) n = sizeof text - 2;
    text[n++] = '\n';
    if (write(2, text, n) < 0) _exit(1);
    _exit(1);
}

__attribute__((unused))
static void time_limit_over(int signal_number)
{
    static const char text[] = "time limit over: the program hangs\n";
    (void)signal_number;
    if (write(2, text, sizeof text - 1) < 0) _exit(1);
    _exit(1);
}

/* Ends a program that hangs. Not inherited by forked children. */
static inline void time_limit(unsigned seconds)
{
    signal(SIGALRM, time_limit_over);
    alarm(seconds);
}

/* The same pointer, about which the compiler can assume nothing. */
static inline void *hide(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static inline int is_aligned(const void *p, size_t alignment)
{
    return (uintptr_t)hide((void *)p) % alignment == 0; /* not what an attribute says */
}

typedef uint64_t loose64 __attribute__((may_alias, aligned(1)));

static inline uint64_t pattern(size_t word, unsigned seed)
{
    return (word + 1 + (uint64_t)seed * 1000003u) * 0x9e3779b97f4a7c15u;
}

/* Writes n bytes of the pattern; every byte depends on its index and the seed. */
static inline void fill(void *p, size_t n, unsigned seed)
{
    unsigned char *b = (unsigned char *)p;
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) *(loose64 *)(b + i) = pattern(i / 8, seed);
    for (; i < n; i++) b[i] = (unsigned char)(pattern(i / 8, seed) >> (8 * (i % 8)));
}

/* Are the first n bytes those that fill() with this seed wrote? */
static inline int holds(const void *p, size_t n, unsigned seed)
{
    const unsigned char *b = (const unsigned char *)p;
    size_t i;
    for (i = 0; i + 8 <= n; i += 8)
        if (*(const loose64 *)(b + i) != pattern(i / 8, seed)) return 0;
    for (; i < n; i++)
        if (b[i] != (unsigned char)(pattern(i / 8, seed) >> (8 * (i % 8)))) return 0;
    return 1;
}

static inline int all_zero(const void *p, size_t n)
{
    const unsigned char *b = (const unsigned char *)p;
    size_t i;
    for (i = 0; i + 8 <= n; i += 8)
        if (*(const loose64 *)(b + i) != 0) return 0;
    for (; i < n; i++)
        if (b[i] != 0) return 0;
    return 1;
}

/* A small random number generator; the state must not be 0. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Resident memory of this process in bytes, 0 if unknown; without malloc. */
__attribute__((unused))
static size_t resident(void)
{
    char text[128];
    unsigned long size = 0, pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    if (sscanf(text, "%lu %lu", &size, &pages) != 2) return 0;
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* The path of a file in the directory of this program. */
__attribute__((unused))
static const char *beside(const char *name)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 256);
    CHECK(n > 0, "readlink");
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, name);
    return path;
}

/* Copies a file, without malloc. */
__attribute__((unused))
static void copy_file(const char *from, const char *to)
{
    char part[16384];
    ssize_t n;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    CHECK(in >= 0, "open %s: errno %d", from, errno);
    CHECK(out >= 0, "open %s: errno %d", to, errno);
    while ((n = read(in, part, sizeof part)) > 0) CHECK(write(out, part, n) == n, "write %s", to);
    CHECK(n == 0, "read %s", from);
    close(in);
    close(out);
}

#endif
