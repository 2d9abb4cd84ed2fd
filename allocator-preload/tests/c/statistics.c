/* mallinfo2, mallinfo, mallopt, malloc_trim, malloc_stats and malloc_info answer in the
 * form their manual pages promise. Source: glibc manual "Statistics of malloc", man 3. */
#include "check.h"
#include <malloc.h>

enum { BLOCKS = 1000, SIZE = 1000 };
static void *blocks[BLOCKS];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static size_t used_by_mallinfo(void)
{
    struct mallinfo info = mallinfo();
    return (unsigned)info.uordblks;
}
#pragma GCC diagnostic pop

static void check_mallinfo(void)
{
    size_t usable = 0;
    free(malloc(SIZE)); /* the allocator is set up */
    size_t before = mallinfo2().uordblks, before_old = used_by_mallinfo();
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(SIZE);
        CHECK(blocks[i] != NULL, "malloc(%d)", SIZE);
        usable += malloc_usable_size(blocks[i]);
    }
    struct mallinfo2 info = mallinfo2();
    size_t grown = info.uordblks - before, grown_old = used_by_mallinfo() - before_old;
    size_t most = usable + usable / 4 + 64 * KIB;
    CHECK(grown >= (size_t)BLOCKS * SIZE && grown <= most,
          "mallinfo2().uordblks grew by %zu for %zu usable bytes", grown, usable);
    CHECK(grown_old >= (size_t)BLOCKS * SIZE && grown_old <= most,
          "mallinfo().uordblks grew by %zu for %zu usable bytes", grown_old, usable);
    CHECK(info.arena + info.hblkhd >= info.uordblks, "arena %zu, hblkhd %zu, uordblks %zu",
          info.arena, info.hblkhd, info.uordblks);

    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    size_t left = mallinfo2().uordblks - before;
    CHECK(left < grown / 2 || left > SIZE_MAX / 2, "%zu of %zu bytes left after free", left, grown);
}

static void check_mallopt(void)
{
    static const int options[][2] = {
        { M_MMAP_THRESHOLD, 1 << 20 }, { M_TRIM_THRESHOLD, 1 << 20 }, { M_TOP_PAD, 1 << 16 },
        { M_MMAP_MAX, 1000 }, { M_ARENA_MAX, 2 }, { M_ARENA_TEST, 2 }, { M_CHECK_ACTION, 3 },
        { M_PERTURB, 0 }, { M_MXFAST, 64 }, { M_MXFAST, 1 << 30 }, { 12345, 1 }, { -12345, 1 },
    };
    for (size_t i = 0; i < COUNT(options); i++) {
        int result = mallopt(options[i][0], options[i][1]);
        CHECK(result == 0 || result == 1, "mallopt(%d, %d) = %d", options[i][0], options[i][1],
              result);
        free(malloc(SIZE));
    }
}

static void check_trim(void)
{
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = malloc(SIZE);
            fill(blocks[i], SIZE, i);
        }
        for (int i = 0; i < BLOCKS; i++)
            if (i % 3) free(blocks[i]);
        int result = malloc_trim(round * 10000);
        CHECK(result == 0 || result == 1, "malloc_trim = %d", result);
        for (int i = 0; i < BLOCKS; i += 3) {
            CHECK(holds(blocks[i], SIZE, i), "a block was trimmed");
            free(blocks[i]);
        }
    }
}

static void check_stats(void)
{
    fflush(stderr);
    int kept = dup(2), null = open("/dev/null", O_WRONLY);
    CHECK(kept >= 0 && null >= 0 && dup2(null, 2) == 2, "dup");
    malloc_stats();
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    close(null);
}

static void check_info(void)
{
    static const char begin[] = "<malloc", end[] = "</malloc>\n";
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    CHECK(file != NULL, "open_memstream");
    int result = malloc_info(0, file);
    CHECK(result == 0, "malloc_info = %d", result);
    CHECK(fclose(file) == 0, "fclose");
    CHECK(length >= strlen(begin) + strlen(end), "malloc_info wrote %zu bytes", length);
    CHECK(strncmp(text, begin, strlen(begin)) == 0, "malloc_info begins %.20s", text);
    CHECK(strcmp(text + length - strlen(end), end) == 0, "malloc_info ends %s", text + length - 20);
    free(text);

    /* The page says -1 and errno, glibc returns the number itself. */
    file = open_memstream(&text, &length);
    CHECK(file != NULL, "open_memstream");
    errno = 0;
    result = malloc_info(1, file);
    CHECK(result == EINVAL || (result == -1 && errno == EINVAL), "malloc_info(1) = %d, errno %d",
          result, errno);
    CHECK(fclose(file) == 0, "fclose");
    CHECK(length == 0, "malloc_info(1) wrote %zu bytes", length);
    free(text);
}

int main(void)
{
    check_mallinfo();
    check_stats();
    check_info();
    check_trim();
    check_mallopt();
    return 0;
}
