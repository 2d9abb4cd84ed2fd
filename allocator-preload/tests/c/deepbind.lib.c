/* A library for RTLD_DEEPBIND: its malloc is then the C library's, not the preloaded one. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>

void *lib_malloc(size_t n);
void *lib_malloc(size_t n)
{
    return malloc(n);
}

void *lib_memalign(size_t alignment, size_t n);
void *lib_memalign(size_t alignment, size_t n)
{
    return memalign(alignment, n);
}

void lib_free(void *p);
void lib_free(void *p)
{
    free(p);
}
