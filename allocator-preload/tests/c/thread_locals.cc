// Destructors of thread_local objects may allocate and free, also after other thread_local
// objects are gone. Source: C++17 [basic.stc.thread], [basic.start.term].
#include "check.h"
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static std::atomic<int> destroyed;

// Allocates and frees at its end. The blocks it got from the thread are freed here, too.
struct Local {
    std::vector<std::string> strings;
    std::map<int, std::unique_ptr<char[]>> map;
    void *raw = nullptr;

    void use(int n)
    {
        for (int i = 0; i < n; i++) {
            strings.push_back(std::string(20 + 10 * i, 'x'));
            map[i] = std::make_unique<char[]>(100 + i);
        }
        raw = realloc(raw, 300);
        CHECK(raw != nullptr, "realloc");
        fill(raw, 300, 5);
    }
    ~Local()
    {
        CHECK(holds(raw, 300, 5), "the block of a thread_local object");
        for (const std::string &s : strings)
            CHECK(s.find_first_not_of('x') == std::string::npos, "a string");
        std::vector<std::string> more(50, std::string(100, 'y'));
        std::string large(300 * KIB, 'z');
        strings.insert(strings.end(), more.begin(), more.end());
        raw = realloc(raw, 100000);
        CHECK(raw != nullptr && holds(raw, 300, 5), "realloc");
        free(raw);
        destroyed++;
    }
};

static thread_local Local first;
static thread_local Local second;

// Its destructor creates another thread_local object, which is destroyed after it.
struct Chained {
    int depth = 0;
    ~Chained()
    {
        static thread_local Local in_destructor;
        in_destructor.use(3);
        destroyed++;
    }
};
static thread_local Chained chained;

static void work(int n)
{
    first.use(1 + n % 40);
    second.use(10);
    chained.depth++;
}

int main()
{
    time_limit(30);
    const int rounds = 40, together = 8;
    for (int round = 0; round < rounds; round++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < together; i++) threads.emplace_back(work, round + i);
        for (std::thread &t : threads) t.join();
    }
    CHECK(destroyed == 4 * rounds * together, "%d destructor calls", destroyed.load());
    work(1); // and those of the main thread, at exit
    return 0;
}
