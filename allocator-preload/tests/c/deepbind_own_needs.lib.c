/* A library for RTLD_DEEPBIND that needs another one which has a heap. */
#include <stdlib.h>

void *own_get(void);
void *own_get(void)
{
    return malloc(10);
}

void own_release(void *p);
void own_release(void *p)
{
    free(p);
}
