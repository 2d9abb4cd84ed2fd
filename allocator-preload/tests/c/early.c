/* malloc works in every stage of a program's life, and a block from one stage can be freed
 * in any later one. Source: ELF gABI (.preinit_array), C17 7.22.4.4 (exit), GNU IFUNC. */
#include "check.h"

enum stage { IFUNC, PREINIT, CONSTRUCTOR, MAIN, ATEXIT, DESTRUCTOR, STAGES };
static const size_t sizes[] = { 10, 300, 5000, 100000, 2000000 };

static void *blocks[STAGES][STAGES][COUNT(sizes)]; /* from, to */
static int reached;

/* Frees what the earlier stages left for this one, leaves blocks for the later ones. */
static void enter(enum stage now)
{
    reached++;
    CHECK(reached == (int)now + 1, "stage %d is number %d", now, reached);
    for (int from = 0; from < (int)now; from++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *p = blocks[from][now][i];
            CHECK(holds(p, sizes[i], i), "%zu bytes from stage %d in stage %d", sizes[i], from,
                  now);
            if (i % 2) {
                p = realloc(p, 2 * sizes[i]);
                CHECK(p && holds(p, sizes[i], i), "realloc from stage %d in %d", from, now);
            }
            free(p);
        }
    }
    for (int to = now + 1; to < STAGES; to++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *p = (now + to) % 2 ? malloc(sizes[i]) : calloc(1, sizes[i]);
            CHECK(p != NULL, "%zu bytes in stage %d", sizes[i], now);
            fill(p, sizes[i], i);
            blocks[now][to][i] = p;
        }
    }
    for (size_t i = 0; i < COUNT(sizes); i++) free(malloc(sizes[i]));
}

static int answer(void)
{
    return 42;
}
/* The dynamic linker calls this while it relocates the program. */
static int (*resolve(void))(void)
{
    enter(IFUNC);
    return answer;
}
int by_ifunc(void) __attribute__((ifunc("resolve")));

static void preinit(void)
{
    enter(PREINIT);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(void) = preinit;

__attribute__((constructor(101))) static void constructor(void)
{
    enter(CONSTRUCTOR);
}
__attribute__((destructor(101))) static void destructor(void)
{
    enter(DESTRUCTOR);
    CHECK(reached == STAGES, "%d stages", reached);
}
static void at_exit(void)
{
    enter(ATEXIT);
}

int main(void)
{
    enter(MAIN);
    CHECK(by_ifunc() == 42, "IFUNC");
    CHECK(atexit(at_exit) == 0, "atexit");
    return 0;
}
