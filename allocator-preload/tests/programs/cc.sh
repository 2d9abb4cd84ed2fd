#!/usr/bin/env bash
# gcc and g++: a generated C file, C++ full of templates, and the C and C++ tests of the library; compiled, not run, but for a
# program that is optimised when it is linked.
# packages: gcc g++ libc6-dev
# program: cc1
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/c
options=(-O2 -c -w -pthread)

# $1: the number of functions.
generated_c() {
    awk -v n="$1" 'BEGIN {
        print "#include <stdio.h>\n#include <string.h>\nstruct s { int a[8]; double d; const char *t; };"
        for (i = 0; i < n; i++) {
            printf "int f%d(struct s *s, int n) { int r = %d;\n  for (int i = 0; i < n; i++) { s->a[i & 7] += i * %d; r ^= s->a[(i + 3) & 7];", i, i, i * 7 + 1
            printf " switch (r %% 9) { case 0: r += (int)s->d; break; case 3: s->d *= 1.5; break; case 5: s->t = \"text %d\"; break; default: r--; } }\n", i
            if (i > 1) printf "  return r + f%d(s, n / 2) + (n > 3 ? f%d(s, n - 3 > 5 ? 5 : n - 3) : 0); }\n", i - 1, int(i / 2)
            else print "  return r; }"
        }
        printf "int main(void) { struct s s; memset(&s, 0, sizeof s); printf(\"%%d\\n\", f%d(&s, 40)); return 0; }\n", n - 1
    }'
}

generated_cc() {
    cat <<'EOF'
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>
template <int N> struct number { static constexpr long value = number<N - 1>::value + number<N - 2>::value % 7; };
template <> struct number<1> { static constexpr long value = 1; };
template <> struct number<0> { static constexpr long value = 1; };
using value = std::variant<int, double, std::string, std::vector<std::string>, std::map<std::string, int>>;
std::unordered_map<std::string, std::function<value(const value &)>> table;
int main() {
    table["a"] = [](const value &v) { return std::visit([](auto &&x) -> value { return x; }, v); };
    std::vector<std::unique_ptr<std::map<int, std::string>>> list;
    for (int i = 0; i < 10; i++) list.push_back(std::make_unique<std::map<int, std::string>>());
    std::sort(list.begin(), list.end(), [](auto &a, auto &b) { return a->size() < b->size(); });
    std::cout << number<500>::value << std::regex_replace("abc", std::regex("b+"), "x") << list.size() << "\n";
}
EOF
}

# $1: the compiler; $2: the file.
compile() {
    "$1" "${options[@]}" -frandom-seed=1 -o object.o "$2"
    echo "$(basename "$2") $(sha256sum <object.o)"
}

if [ "${1:-}" = brief ]; then
    generated_c 2 >small.c
    compile gcc small.c
    cp small.c small.cc
    compile g++ small.cc
    exit
fi
generated_c 300 >generated.c
compile gcc generated.c
generated_cc >generated.cc
compile g++ generated.cc
shopt -s nullglob
files=("$tests"/*.c "$tests"/*.cc)
for file in "${files[@]:0:12}"; do
    case $file in
    *.c) compile gcc "$file" ;;
    *) compile g++ "$file" ;;
    esac
done
generated_c 60 >small.c
gcc -O2 -flto=2 -o program small.c
./program
