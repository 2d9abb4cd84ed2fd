/* A fork comes through while other threads read lines and flush all streams (POSIX fork, fflush, getline): streams allocate with
   their locks held, and a flush of all of them waits for those. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>

static volatile int over;

static void *flush(void *unused)
{
    while (!over) fflush(NULL);
    return unused;
}

static void *lines(void *stream)
{
    while (!over) {
        char *line = NULL;
        size_t size = 0;
        rewind(stream);
        while (getline(&line, &size, stream) > 0) continue;
        free(line);
        void *blocks[200];
        for (int i = 0; i < 200; i++) blocks[i] = malloc(48);
        for (int i = 0; i < 200; i++) free(blocks[i]);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[4];
    FILE *stream = tmpfile();
    CHECK(stream != NULL, "a file");
    for (int i = 0; i < 50; i++) fprintf(stream, "%0*d\n", i * 40 + 1, i);
    time_limit(50);
    pthread_create(&threads[0], NULL, flush, NULL);
    for (int i = 1; i < 4; i++) pthread_create(&threads[i], NULL, lines, stream);
    for (int i = 0; i < 150; i++) {
        pid_t child = fork();
        CHECK(child >= 0, "a child");
        if (child == 0) {
            char text[64];
            snprintf(text, sizeof text, "%d", i);
            free(malloc(1000));
            FILE *own = fopen("/dev/null", "w");
            if (own == NULL || fputs(text, own) < 0 || fclose(own) != 0) _exit(1);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
    }
    over = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    return 0;
}
