/* A library for RTLD_DEEPBIND that has a heap of its own. */
#include <stddef.h>

static char block[100];
int own_calls;

void *malloc(size_t n) { return own_calls++, n < sizeof block ? block : NULL; }
void free(void *p) { own_calls += p == block; }

void *own_get(void);
void *own_get(void) { return malloc(10); }
void own_release(void *p);
void own_release(void *p) { free(p); }
