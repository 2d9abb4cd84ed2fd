#!/usr/bin/env bash
# Lines of allocator-core that its tests, some of the crates around it and a replay of the fuzzers' seeds run through,
# of the default build and of the feature `checked` together.
#
# Fails below 95 %, and for a line that is never run in a function that docs/coverage.md does not list with the reason, or one that
# it lists and that is not there.
# On stable; needs llvm-cov and llvm-profdata of the LLVM that rustc has (LLVM_BIN names their directory).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
least=95
list=docs/coverage.md

major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
bin=${LLVM_BIN:-/usr/lib/llvm-$major/bin}
if ! [ -x "$bin/llvm-cov" ]; then ci/tools.sh llvm; fi

mkdir -p "${CARGO_TARGET_DIR:-target}/coverage"
directory=$(realpath "${CARGO_TARGET_DIR:-target}/coverage")
rm -rf "$directory/profiles"
mkdir "$directory/profiles"

# Only crates of the workspace are built like this. With counters in the mapped file, a process that aborts counts too.
wrapper=$directory/rustc
if ! [ -x "$wrapper" ]; then
    printf '#!/bin/sh\nexec "$@" -C instrument-coverage -C llvm-args=-runtime-counter-relocation\n' >"$wrapper"
    chmod +x "$wrapper"
fi
export RUSTC_WORKSPACE_WRAPPER=$wrapper
export CARGO_TARGET_DIR=$directory
# A file for each process: of one that several have, whoever starts overwrites what the others count meanwhile.
export LLVM_PROFILE_FILE="$directory/profiles/%p-%m%c.profraw"

# Left out is what takes minutes with counters and reaches nothing that the seeds do not.
runs=(
    "-p allocator-core -p allocator-global --features allocator-core/checked --lib --test misuse --test fork -- --skip every_reachable_state"
    "-p allocator-global -p stress --test replay --test reports --test misuse --test fork --test signals"
)
: >"$directory/objects"
for run in "${runs[@]}"; do
    read -ra arguments <<<"${run%% -- *}"
    read -ra filter <<<"$(sed -n 's/.* -- /-- /p' <<<"$run")"
    cargo test "${arguments[@]}" --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' >>"$directory/objects"
    cargo test --quiet "${arguments[@]}" "${filter[@]}" >"$directory/tests.log" 2>&1 || { cat "$directory/tests.log"; exit 1; }
done

"$bin/llvm-profdata" merge --sparse -o "$directory/merged" "$directory"/profiles/*.profraw
mapfile -t objects < <(sed 's/^/-object=/' "$directory/objects")
"$bin/llvm-cov" export --format=lcov --instr-profile="$directory/merged" "${objects[@]}" >"$directory/lcov" \
    2>"$directory/llvm-cov.log" || { cat "$directory/llvm-cov.log"; exit 1; }

# A line belongs to the function that begins last before it. Modules of tests, at the foot of a file, do not count.
awk -v least="$least" -v list="$list" '
BEGIN {
    while ((getline line < list) > 0)
        if (split(line, cell, /[|`]/) >= 6 && cell[3] ~ /\.rs$/) reason[cell[3] " " cell[6]] = cell[8]
}
/^SF:/ {
    file = substr($0, 4); wanted = file ~ /allocator-core\/src\// && file !~ /\/(loom_)?tests(\.rs$|\/)|\/model\.rs$/
    if (!wanted) next
    name = file; sub(/.*allocator-core\/src\//, "", name)
    delete text; delete inside; number = 0; end = 0; fn = "-"
    while ((getline line < file) > 0) {
        number++
        if (line ~ /^#\[cfg\((all\()?test/) end = number
        else if (end == number - 1 && end && line !~ /^mod /) end = 0
        if (end && number > end) break
        if (match(line, /^ *((pub(\([a-z]+\))?|const|unsafe|extern "C") )*fn [a-z_0-9]+/)) {
            fn = substr(line, RSTART, RLENGTH); sub(/.*fn /, "", fn)
            there[name " " fn]
        }
        inside[number] = fn; text[number] = line
    }
    close(file)
}
/^DA:/ && wanted {
    split(substr($0, 4), da, ",")
    if (!(da[1] in inside)) next
    total[name]++; lines++
    if (da[2] > 0) { hit[name]++; hits++; next }
    key = name " " inside[da[1]]
    missed[key]++
    show[key] = show[key] sprintf("    %s:%d: %s\n", name, da[1], text[da[1]])
}
END {
    if (lines == 0) { print "coverage: nothing was counted"; exit 1 }
    for (name in total) printf "%6.1f %%  %4d of %4d  %s\n", 100 * hit[name] / total[name], hit[name], total[name], name | "sort -k6"
    close("sort -k6")
    for (key in reason) if (!(key in missed)) whole = whole sprintf("\n    %s", key)
    printf "coverage: in %s, and run as a whole this time:%s\n", list, whole
    for (key in missed) unrun += missed[key]
    printf "coverage: %.2f %% of %d lines of allocator-core, %d are never run\n", 100 * hits / lines, lines, unrun
    if (100 * hits < least * lines) { print "coverage: less than " least " %"; bad = 1 }
    for (key in missed) if (!(key in reason)) {
        printf "coverage: never run, and not in %s: %s\n%s", list, key, show[key]; bad = 1
    }
    for (key in reason) if (!(key in there)) { printf "coverage: in %s, and there is no such function: %s\n", list, key; bad = 1 }
    exit bad
}' "$directory/lcov"
