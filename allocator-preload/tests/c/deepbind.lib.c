/* A library for RTLD_DEEPBIND: the linker finds all that it has of the heap in the C library, not in what is preloaded. */
#define _GNU_SOURCE
#include "deepbind.h"
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *line(const char *text)
{
    FILE *file = fmemopen((void *)text, strlen(text), "r");
    char *got = NULL;
    size_t n = 0;
    if (!file || getline(&got, &n, file) < 0) abort();
    fclose(file);
    return got;
}

static void *aligned(size_t alignment, size_t n)
{
    void *p;
    return posix_memalign(&p, alignment, n) == 0 ? p : NULL;
}

/* An address in data that is read-only once it is relocated; one that is called by the linker's table; one that code loads. */
static void nothing(void *p) { (void)p; }
static void (*const in_data[])(void *) = { free, nothing };
static volatile int which;

static void release(void *p) { free(p); }
static void release_by_data(void *p) { in_data[which](p); }
static void release_by_address(void *p)
{
    void (*volatile by_address)(void *) = free;
    by_address(p);
}
static void *get(size_t n) { return malloc(n); }
static void *get_zeros(size_t n) { return calloc(1, n); }
static void *resize(void *p, size_t n) { return realloc(p, n); }
static void *resize_array(void *p, size_t n) { return reallocarray(p, n, 1); }
static size_t usable(void *p) { return malloc_usable_size(p); }
static char *copy(const char *text) { return strdup(text); }
static void *open_other(const char *file) { return dlopen(file, RTLD_LAZY | RTLD_DEEPBIND); }

struct deepbind deepbind_functions = {
    release, release_by_data, release_by_address, get, get_zeros, aligned, memalign, aligned_alloc,
    resize, resize_array, usable, copy, line, open_other, (void *)in_data, NULL, NULL,
};

__attribute__((constructor))
static void begin(void)
{
    deepbind_functions.first = strcpy(malloc(100), "first");
    deepbind_functions.first_freed_here = strcpy(malloc(40000), "second");
}
