/* The C library's own users of malloc work: strings, streams, directories, patterns, locale,
 * sorting, printf, threads, dlopen. Source: POSIX and the glibc manual for each. */
#include "check.h"
#include <dirent.h>
#include <dlfcn.h>
#include <glob.h>
#include <locale.h>
#include <pthread.h>
#include <regex.h>
#include <search.h>
#include <wchar.h>

static void strings(void)
{
    char *p = strdup("some text");
    CHECK(p && strcmp(p, "some text") == 0, "strdup");
    free(p);
    p = strndup("some text", 4);
    CHECK(p && strcmp(p, "some") == 0, "strndup");
    free(p);
    CHECK(asprintf(&p, "%d %s %5.2f", 7, "words", 3.14159) == 13, "asprintf");
    CHECK(strcmp(p, "7 words  3.14") == 0, "asprintf: %s", p);
    free(p);
    wchar_t *w = wcsdup(L"wide");
    CHECK(w && wcscmp(w, L"wide") == 0, "wcsdup");
    free(w);
    CHECK(setenv("A_NEW_VARIABLE", "its value", 1) == 0, "setenv");
    CHECK(strcmp(getenv("A_NEW_VARIABLE"), "its value") == 0, "getenv");
    CHECK(unsetenv("A_NEW_VARIABLE") == 0, "unsetenv");
}

static void streams(void)
{
    char *text = NULL, *line = NULL;
    size_t length = 0, room = 0, lines = 0, characters = 0;
    FILE *file = open_memstream(&text, &length);
    CHECK(file != NULL, "open_memstream");
    for (int i = 0; i < 300; i++) CHECK(fprintf(file, "%0*d\n", i + 1, i % 10) == i + 2, "fprintf");
    CHECK(fclose(file) == 0 && length == strlen(text), "open_memstream: %zu", length);

    file = tmpfile();
    CHECK(file != NULL, "tmpfile");
    CHECK(fwrite(text, 1, length, file) == length, "fwrite");
    rewind(file);
    for (ssize_t n; (n = getline(&line, &room, file)) > 0; lines++) characters += n;
    CHECK(lines == 300 && characters == length, "getline: %zu lines", lines);
    fclose(file);
    free(line);
    free(text);

    char *word = NULL;
    CHECK(sscanf("one two", "%ms", &word) == 1 && strcmp(word, "one") == 0, "sscanf %%ms");
    free(word);
}

static void directories(void)
{
    struct dirent **names = NULL;
    int n = scandir("/proc/self", &names, NULL, alphasort), found = 0;
    CHECK(n > 10, "scandir: %d", n);
    for (int i = 0; i < n; i++) {
        found += strcmp(names[i]->d_name, "status") == 0;
        free(names[i]);
    }
    free(names);
    CHECK(found == 1, "scandir");

    char *p = realpath("/proc/self/../self/./exe", NULL);
    CHECK(p && p[0] == '/' && !strstr(p, ".."), "realpath");
    free(p);
    p = getcwd(NULL, 0);
    CHECK(p && p[0], "getcwd");
    free(p);

    glob_t found_paths;
    CHECK(glob("/proc/self/{status,maps}", GLOB_BRACE, NULL, &found_paths) == 0, "glob");
    CHECK(found_paths.gl_pathc == 2, "glob: %zu", found_paths.gl_pathc);
    CHECK(glob("/proc/self/s*", GLOB_APPEND, NULL, &found_paths) == 0, "glob");
    CHECK(found_paths.gl_pathc > 4, "glob: %zu", found_paths.gl_pathc);
    globfree(&found_paths);
}

static void patterns(void)
{
    regex_t regex;
    regmatch_t match[3];
    CHECK(regcomp(&regex, "([a-z]+)[0-9]{2,40}(x|y|z)*", REG_EXTENDED) == 0, "regcomp");
    CHECK(regexec(&regex, "-- abc123xyz --", 3, match, 0) == 0, "regexec");
    CHECK(match[1].rm_so == 3 && match[1].rm_eo == 6 && match[0].rm_eo == 12, "regexec");
    CHECK(regexec(&regex, "nothing", 3, match, 0) == REG_NOMATCH, "regexec");
    regfree(&regex);
}

static void locales(void)
{
    setlocale(LC_ALL, "C.UTF-8"); /* may not exist */
    locale_t locale = newlocale(LC_ALL_MASK, "C", NULL);
    CHECK(locale != NULL, "newlocale");
    locale_t copy = duplocale(locale);
    CHECK(copy != NULL, "duplocale");
    freelocale(copy);
    freelocale(locale);
    CHECK(setlocale(LC_ALL, "C") != NULL, "setlocale");
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void leave(void *number)
{
    (void)number; /* part of the array */
}

static void sorting(void)
{
    size_t n = MIB / sizeof(uint64_t);
    uint64_t *numbers = malloc(MIB), random = 2463534242, sum = 0;
    CHECK(numbers != NULL, "malloc");
    for (size_t i = 0; i < n; i++) sum += numbers[i] = next_random(&random);
    qsort(numbers, n, sizeof *numbers, compare);
    for (size_t i = 0; i < n; i++) {
        sum -= numbers[i];
        CHECK(i == 0 || numbers[i - 1] <= numbers[i], "qsort, element %zu", i);
    }
    CHECK(sum == 0, "qsort: other elements");

    void *root = NULL;
    for (size_t i = 0; i < 1000; i++) CHECK(tsearch(&numbers[i], &root, compare), "tsearch");
    CHECK(tfind(&numbers[500], &root, compare) != NULL, "tfind");
    tdestroy(root, leave);
    free(numbers);
}

static void printing(void)
{
    FILE *null = fopen("/dev/null", "w");
    CHECK(null != NULL, "fopen");
    CHECK(fprintf(null, "%*d", 10000000, 5) == 10000000, "printf of a huge width");
    CHECK(fprintf(null, "%.*d", 1000000, 5) == 1000000, "printf of a huge precision");
    CHECK(fprintf(null, "%.*f", 100000, 0.1) == 100002, "printf of many digits");
    CHECK(fprintf(null, "%2$s %1$d", 1, "positions") == 11, "printf with positions");
    fclose(null);
}

static void *thread(void *argument)
{
    char *p = strdup(argument);
    CHECK(p != NULL, "strdup");
    return p;
}

static void threads(void)
{
    for (int i = 0; i < 20; i++) {
        pthread_t id;
        pthread_attr_t attributes;
        void *result = NULL;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, (size_t)(i % 4 + 1) * 128 * KIB);
        CHECK(pthread_create(&id, &attributes, thread, "text") == 0, "pthread_create");
        CHECK(pthread_join(id, &result) == 0, "pthread_join");
        CHECK(result && strcmp(result, "text") == 0, "the thread's result");
        pthread_attr_destroy(&attributes);
        free(result);
    }
}

static void libraries(void)
{
    for (int i = 0; i < 20; i++) {
        void *handle = dlopen("libm.so.6", RTLD_NOW);
        CHECK(handle != NULL, "%s", dlerror());
        double (*cosine)(double) = (double (*)(double))dlsym(handle, "cos");
        CHECK(cosine && cosine(0.0) == 1.0, "cos");
        CHECK(dlopen("/there/is/no/such.so", RTLD_NOW) == NULL, "dlopen");
        char *error = dlerror(); /* allocated by the dynamic linker */
        CHECK(error && strstr(error, "such.so"), "dlerror");
        CHECK(dlclose(handle) == 0, "dlclose");
    }
}

int main(void)
{
    time_limit(30);
    for (int round = 0; round < 2; round++) {
        strings();
        streams();
        directories();
        patterns();
        locales();
        sorting();
        printing();
        threads();
        libraries();
    }
    return 0;
}
