#!/usr/bin/env bash
# libkmalloc.so: its names, its thread-local storage, and what C and C++ programs are promised: ci/preload.sh [TEST...]
#
# - Every name of the heap that the C library and the C++ library export is exported, and `dlopen`, and nothing else.
# - Its thread-local storage is initial-exec and small, so that it can be loaded at any time; it needs the C library alone.
# - SQLite, compiled into a Rust program, has its memory from the program's heap (allocator-preload/examples/sqlite.rs).
# - A C and a C++ program have it linked in (libkmalloc.a).
# - Each program in allocator-preload/tests/c is compiled and run, with the library before it; those that are called
#   *.nopreload.c are run without, and find it in KMALLOC_LIB. A program says what was not as promised.
# - All of them run again where every free is checked (feature `checked`), and what throws in a build that unwinds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ci/tools.sh g++ objdump >/dev/null
target=$(realpath "${CARGO_TARGET_DIR:-target}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shopt -s nullglob
failed=0
fail() {
    echo "preload: $*" >&2
    failed=1
}

cargo build --quiet --release -p allocator-preload
library=$target/release/libkmalloc.so

# Names in the dynamic symbol table of a library, without versions.
names() { nm -D --defined-only "$1" | awk '{ sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u; }
heap='^(__libc_)?(malloc|calloc|realloc|reallocarray|free|cfree|memalign|valloc|pvalloc|mallinfo2?|mallopt)$'
heap+='|^(aligned_alloc|posix_memalign|malloc_(usable_size|trim|stats|info)|free_sized|free_aligned_sized)$|^_Z(n[wa]|d[la])'
libraries() { ldconfig -p | awk -v name="$1" '$1 == name { print $NF; exit }'; }
for theirs in libc.so.6 libstdc++.so.6; do
    names "$(libraries $theirs)" | grep -E "$heap"
done | LC_ALL=C sort -u >"$work/theirs"
# C23 has two more, which a C library may not have yet.
printf 'free_sized\nfree_aligned_sized\n' >>"$work/theirs"
echo dlopen >>"$work/theirs" # src/deepbind.rs
LC_ALL=C sort -u -o "$work/theirs" "$work/theirs"
names "$library" >"$work/ours"
if ! diff "$work/theirs" "$work/ours"; then fail "other names than those of the C and the C++ library"; fi
echo "-- $(wc -l <"$work/ours") names, those of the C and the C++ library"

tls=$(($(readelf -lW "$library" | awk '$1 == "TLS" { print $6 }')))
flags=$(readelf -dW "$library")
if [ "${tls:-0}" -gt 128 ]; then fail "$tls bytes of thread-local storage"; fi
if ! grep -q STATIC_TLS <<<"$flags"; then fail "no initial-exec thread-local storage"; fi
for flag in NODELETE INITFIRST; do
    if ! grep -q "$flag" <<<"$flags"; then fail "not linked with $flag"; fi
done
# `__tls_get_addr` may allocate, so nothing may come to it.
nm -D --undefined-only "$library" >"$work/undefined"
readelf -rW "$library" >>"$work/undefined"
if grep '__tls_get_addr\|DTPMOD\|TLSDESC' "$work/undefined" >&2; then
    fail "thread-local storage of a kind that is allocated"
fi
if [ "$(readelf -dW "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')" != libc.so.6 ]; then fail "it needs more than the C library"; fi
echo "-- $tls bytes of thread-local storage, initial-exec"

# compile SOURCE OUT [ARCHIVE]
compile() {
    local source=$1 out=$2 base=(-g -O1 -Wall -Wextra -fno-builtin)
    case $source in
    *.nopie.c) base+=(-no-pie -fno-pic) ;;
    *.now.lib.c) base+=(-Wl,-z,now) ;;
    *.noplt.lib.c) base+=(-fno-plt) ;;
    *_own_needs.lib.c) base+=("-L$work" -Wl,--no-as-needed -l:deepbind_own.lib.so '-Wl,-rpath,$ORIGIN') ;;
    *_needs.lib.c) base+=("-L$work" -Wl,--no-as-needed -l:deepbind_needed.lib.so '-Wl,-rpath,$ORIGIN') ;;
    */new_of_others.cc) base+=("-L$work" -Wl,--no-as-needed -l:new_of_library.lib.so '-Wl,-rpath,$ORIGIN') ;;
    *.runpath.c) base+=('-Wl,--enable-new-dtags,-rpath,$ORIGIN') ;;
    esac
    case $source in
    *.lib.cc) g++ "${base[@]}" -std=c++17 -fPIC -shared -o "$out.so" "$source" ;;
    *.lib.c) gcc "${base[@]}" -fPIC -shared -o "$out.so" "$source" ;;
    *.cc) g++ "${base[@]}" -std=c++17 -o "$out" "$source" "${@:3}" -pthread -ldl ;;
    *) gcc "${base[@]}" -std=gnu17 -o "$out" "$source" "${@:3}" -pthread -ldl ;;
    esac
}

# run LIBRARY TEST: runs it as its name says.
run() {
    local preload=$1
    if [[ $2 = *.nopreload ]]; then preload=; fi
    KMALLOC_LIB=$1 LD_PRELOAD=$preload timeout -k 5 60 "$work/$2" >"$work/$2.out" 2>&1
}

if [[ $(KMALLOC_CONF=help LD_PRELOAD=$library /bin/true 2>&1) != *limit* ]]; then fail "KMALLOC_CONF is not read"; fi
for setting in no:1 yes:2; do
    found=$(KMALLOC_CONF=background_thread:${setting%:*} LD_PRELOAD=$library perl -e 'opendir(my $d, "/proc/self/task"); print scalar(grep { !/^\./ } readdir($d))')
    if [ "$found" != "${setting#*:}" ]; then fail "background_thread:${setting%:*}, and $found threads"; fi
done

# A Rust program with C code in it.
cargo clippy --quiet --release -p allocator-preload --lib --examples -- -D warnings
cargo build --quiet --release -p allocator-preload --example sqlite
"$target/release/examples/sqlite" || fail "SQLite in a Rust program does not use its heap"

# Programs that have it linked in.
for source in matrix.c new_throws.cc; do
    compile "allocator-preload/tests/c/$source" "$work/linked" "${library%.so}.a"
    if ! KMALLOC_STATS=$work/linked.stats timeout 60 "$work/linked" >"$work/linked.out" 2>&1; then
        head -n 20 "$work/linked.out"
        fail "$source, with the library linked in"
    fi
    if ! grep -q '(linked)' "$work/linked.stats"; then fail "$source has not the library's heap"; fi
    rm "$work/linked.stats"
done
echo "-- libkmalloc.a in programs of C and C++"

tests=()
for source in allocator-preload/tests/c/*.c allocator-preload/tests/c/*.cc; do
    name=$(basename "$source") name=${name%.c} name=${name%.cc}
    # Libraries are for several of them.
    if [ $# -gt 0 ] && [[ $name != *.lib && " $* " != *" ${name%%.*} "* ]]; then continue; fi
    compile "$source" "$work/$name"
    if [[ $name != *.lib ]]; then tests+=("$name"); fi
done
for name in "$@"; do
    if [[ " ${tests[*]%%.*} " != *" $name "* ]]; then fail "no test $name"; fi
done
all() {
    local name code
    if [ ${#tests[@]} = 0 ]; then fail "no tests $2"; fi
    for name in "${tests[@]}"; do
        code=0
        run "$1" "$name" || code=$?
        # The dynamic linker only warns.
        if grep -qs 'cannot be preloaded' "$work/$name.out"; then code="none, for it ran without the library"; fi
        if [ "$code" != 0 ]; then
            head -n 20 "$work/$name.out"
            fail "$name $2: exit code $code"
        fi
    done
    echo "-- ${#tests[@]} promises $2"
}
all "$library" "as users have it"
cargo build --quiet --release -p allocator-preload --features allocator-global/checked --target-dir "$target/checked"
all "$target/checked/release/libkmalloc.so" "with every free checked"
cargo build --quiet --profile unwind -p allocator-preload
tests=()
for name in new_throws plugin_throws; do
    if [ $# = 0 ] || [ -e "$work/$name" ]; then tests+=("$name"); fi
done
[ ${#tests[@]} = 0 ] || all "$target/unwind/libkmalloc.so" "of exceptions, in a build that unwinds"
exit "$failed"
