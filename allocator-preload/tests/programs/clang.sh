#!/usr/bin/env bash
# Clang: a program of templates and expressions compiled without and with optimisation, to code and by its analyser; what it makes
# is the same each time, and runs.
# packages: clang binutils
# program: clang.*
set -euo pipefail
kinds=10
[ "${1:-}" != brief ] || kinds=1
{
    printf '#include <%s>\n' algorithm cstdio functional map regex sstream string vector
    for ((i = 0; i < kinds; i++)); do
        cat <<END
struct Kind$i {
    std::map<std::string, std::vector<int>> lists;
    int add(const std::string &text) {
        if (std::regex_match(text, std::regex("a{$i}b*"))) lists[text].push_back($i);
        std::vector<int> numbers($((i + 3)), $i);
        std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return a % $((i + 7)) > b % $((i + 7)); });
        std::function<int(int)> last = [this, numbers](int x) { return x + numbers[$i % numbers.size()] + (int)lists.size(); };
        std::ostringstream stream;
        stream << last($i);
        return std::stoi(stream.str());
    }
};
int call$i() { Kind$i kind; return kind.add(std::string($i, 'a') + "bb"); }
END
    done
    echo 'int main() { int sum = 0;'
    for ((i = 0; i < kinds; i++)); do echo "sum += call$i();"; done
    echo 'std::printf("%d\n", sum); }'
} >program.cc
clang++ -std=c++17 -O0 -emit-llvm -S -o - program.cc | sha256sum
clang++ -std=c++17 -O1 -o program program.cc
sha256sum <program
./program
clang++ -std=c++17 --analyze -Xanalyzer -analyzer-output=text -o analysis program.cc
[ "$kinds" = 1 ] || clang++ -std=c++17 -O2 -g -S -o - program.cc | sha256sum
