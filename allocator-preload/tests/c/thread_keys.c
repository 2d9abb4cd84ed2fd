/* Destructors of pthread keys may allocate and free, in every round that the thread's end
 * has. Source: POSIX pthread_key_create (PTHREAD_DESTRUCTOR_ITERATIONS). */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 300, TOGETHER = 10, KEYS = 20, ROUNDS = 3, SIZE = 200 };

static pthread_key_t keys[KEYS];
static atomic_int destroyed;

struct value {
    int key, round;
    char *text;
};

static void set(int key, int round)
{
    struct value *v = malloc(sizeof *v);
    CHECK(v != NULL, "malloc");
    v->key = key;
    v->round = round;
    v->text = malloc(SIZE + key * 100);
    CHECK(v->text != NULL, "malloc");
    fill(v->text, SIZE + key * 100, key);
    CHECK(pthread_setspecific(keys[key], v) == 0, "pthread_setspecific");
}

/* Frees its value; in the first rounds it sets a new one, so that it is called again. */
static void destroy(void *argument)
{
    struct value *v = argument;
    CHECK(holds(v->text, SIZE + v->key * 100, v->key), "key %d, round %d", v->key, v->round);
    void *large = calloc(1, v->round == 1 ? 200 * KIB : 2000);
    CHECK(large != NULL && all_zero(large, 2000), "calloc");
    v->text = realloc(v->text, 5000);
    CHECK(v->text != NULL && holds(v->text, SIZE + v->key * 100, v->key), "realloc");
    if (v->round < ROUNDS) set(v->key, v->round + 1);
    free(large);
    free(v->text);
    free(v);
    atomic_fetch_add(&destroyed, 1);
}

static void *work(void *argument)
{
    (void)argument;
    for (int i = 0; i < KEYS; i++) set(i, 1);
    return NULL;
}

/* A thread whose first use of the allocator is in the destructor. */
static pthread_key_t late_key;
static atomic_int late;
static void destroy_late(void *argument)
{
    void *p = malloc((uintptr_t)argument);
    CHECK(p != NULL, "malloc");
    memset(p, 1, (uintptr_t)argument);
    free(p);
    atomic_fetch_add(&late, 1);
}
static void *work_late(void *argument)
{
    CHECK(pthread_setspecific(late_key, argument) == 0, "pthread_setspecific");
    return NULL;
}

int main(void)
{
    pthread_t threads[TOGETHER];
    time_limit(30);
    CHECK(pthread_key_create(&late_key, destroy_late) == 0, "pthread_key_create");
    for (int i = 0; i < KEYS; i++)
        CHECK(pthread_key_create(&keys[i], destroy) == 0, "pthread_key_create");
    for (int done = 0; done < THREADS; done += TOGETHER) {
        for (int i = 0; i < TOGETHER; i++)
            CHECK(pthread_create(&threads[i], NULL, i % 5 ? work : work_late, (void *)1000) == 0,
                  "pthread_create");
        for (int i = 0; i < TOGETHER; i++) pthread_join(threads[i], NULL);
    }
    CHECK(destroyed == THREADS / 5 * 4 * KEYS * ROUNDS, "%d destructor calls", destroyed);
    CHECK(late == THREADS / 5, "%d late destructor calls", late);
    return 0;
}
