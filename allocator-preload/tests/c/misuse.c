/* What is freed twice, or from its middle, ends the process with a line that says so (the C library's own heap does the same:
   mallopt(3), M_CHECK_ACTION). */
#include "check.h"
#include <sys/wait.h>

/* Runs `what` in a child; the text it leaves. */
static void dies(void (*what)(char *), size_t size, const char *name)
{
    char text[512];
    int ends[2], status;
    ssize_t n, length = 0;
    CHECK(pipe(ends) == 0, "a pipe");
    pid_t child = fork();
    CHECK(child >= 0, "a child");
    if (child == 0) {
        dup2(ends[1], 2);
        what(malloc(size));
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], text + length, sizeof text - 1 - length)) > 0) length += n;
    text[length] = 0;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child, "the child's end");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %x", name, status);
    CHECK(strchr(text, '\n') != NULL, "%s: no line", name);
    if (getenv("LD_PRELOAD") != NULL) CHECK(strstr(text, "kmalloc: ") == text, "%s: %s", name, text);
}

static void twice(char *block)
{
    free(block);
    free(block);
}

static void middle(char *block)
{
    free(block + 4096);
}

int main(void)
{
    dies(twice, 100000, "freed twice");
    dies(middle, 100000, "freed from the middle");
    return 0;
}
