/* An IFUNC resolver of the program may change the size of what it has (it runs before thread-local storage is set up). */
#include "check.h"

static char *kept;

static int answer(void)
{
    return 42;
}

static int (*resolve(void))(void)
{
    for (size_t size = 10; size < 300000; size *= 3) {
        char *block = realloc(kept, size);
        if (block == NULL) _exit(2);
        memset(block, 7, size);
        kept = block;
    }
    return answer;
}

int resolved(void) __attribute__((ifunc("resolve")));

int main(void)
{
    CHECK(resolved() == 42 && kept != NULL && kept[1000] == 7, "the resolver ran");
    kept = realloc(kept, 20);
    CHECK(kept != NULL && kept[19] == 7, "its block is as it was");
    free(kept);
    return 0;
}
