/* A library that allocates in its constructor and frees in its destructor. */
#include <stdlib.h>
#include <string.h>

static void *blocks[50];
static __thread char *of_thread;

__attribute__((constructor)) static void begin(void)
{
    for (int i = 0; i < 50; i++) {
        blocks[i] = malloc(10 + 100 * i);
        if (!blocks[i]) abort();
        memset(blocks[i], i, 10 + 100 * i);
    }
}

__attribute__((destructor)) static void end(void)
{
    for (int i = 0; i < 50; i++) {
        if (*(char *)blocks[i] != i) abort();
        free(blocks[i]);
    }
    free(of_thread);
}

/* A block that the caller frees, after the library is gone. */
void *take(size_t n);
void *take(size_t n)
{
    if (!of_thread) of_thread = calloc(1, 1000);
    return malloc(n);
}
