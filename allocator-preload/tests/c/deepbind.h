/* What a library for deepbind.runpath.c has. */
#ifndef DEEPBIND_H
#define DEEPBIND_H

#include <stddef.h>

struct deepbind {
    void (*release)(void *);
    void (*release_by_data)(void *);
    void (*release_by_address)(void *);
    void *(*get)(size_t);
    void *(*get_zeros)(size_t);
    void *(*aligned)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*resize)(void *, size_t);
    void *(*resize_array)(void *, size_t);
    size_t (*usable)(void *);
    char *(*copy)(const char *);
    char *(*line)(const char *);
    void *(*open_other)(const char *);
    /* In data that nobody may write to. */
    void *read_only;
    /* Allocated by the library's constructor. */
    char *first, *first_freed_here;
};

extern struct deepbind deepbind_functions;

#endif
