/* A thread may ask for its own attributes before it has allocated anything: the C library allocates for the answer, with a
   lock of the thread's held (pthread_getattr_np(3)). And one that is deep in its stack may allocate. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *ask(void *unused)
{
    pthread_attr_t attributes;
    void *stack;
    size_t size;
    CHECK(pthread_getattr_np(pthread_self(), &attributes) == 0, "attributes of the thread itself");
    CHECK(pthread_attr_getstack(&attributes, &stack, &size) == 0 && size >= 32768, "a stack of %zu bytes", size);
    pthread_attr_destroy(&attributes);
    return unused;
}

static int deep(int frames)
{
    volatile char frame[1024];
    char *block = malloc(70000 + 1000 * (size_t)frames);
    CHECK(block != NULL, "memory %d frames deep", frames);
    memset((void *)frame, frames, sizeof frame);
    memset(block, frames, 70000);
    int below = frames > 0 ? deep(frames - 1) : 0;
    free(block);
    return below + frame[frames % 1024];
}

static void *dive(void *unused)
{
    ask(NULL);
    deep(40);
    return unused;
}

int main(void)
{
    for (int i = 0; i < 50; i++) {
        pthread_attr_t small;
        pthread_t one, other;
        pthread_attr_init(&small);
        CHECK(pthread_attr_setstacksize(&small, 64 << 10) == 0, "a stack of 64 KiB");
        CHECK(pthread_create(&one, NULL, ask, NULL) == 0, "a thread");
        CHECK(pthread_create(&other, &small, dive, NULL) == 0, "a thread with a small stack");
        pthread_attr_destroy(&small);
        pthread_join(one, NULL);
        pthread_join(other, NULL);
    }
    return 0;
}
