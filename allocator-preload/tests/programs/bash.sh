#!/usr/bin/env bash
# Bash itself: arrays, strings, patterns, functions that call themselves, subshells, pipes and jobs.
# packages: bash
# program: bash
set -euo pipefail
digest() { sha256sum | cut -c1-16; }

fibonacci() {
    if (($1 < 2)); then echo "$1"; else echo $(($(fibonacci $(($1 - 1))) + $(fibonacci $(($1 - 2))))); fi
}

# Strings that grow, and are cut and replaced.
strings() {
    local text='' i
    for ((i = 0; i < 3000; i++)); do text+="word$((i * 7919 % 1000)) "; done
    echo "strings ${#text} $(digest <<<"${text//word1/another-}") $(digest <<<"${text^^}")"
}

arrays() {
    local -A table=()
    local -a list=()
    local i key
    for ((i = 0; i < 20000; i++)); do
        key=k$((i * 48271 % 4999))
        table[$key]=${table[$key]:-}.
        list+=("$key")
    done
    for ((i = 0; i < 20000; i += 3)); do unset "list[i]"; done
    echo "arrays ${#table[@]} ${#list[@]} $(digest <<<"${list[*]}")"
    for key in "${!table[@]}"; do echo "$key ${#table[$key]}"; done | sort | digest
}

jobs_and_pipes() {
    local i
    for ((i = 0; i < 20; i++)); do (printf '%0*d\n' $((i * 1000 + 1)) "$i" | wc -c >"job$i") & done
    wait
    sort -n job* | digest
    mapfile -t lines < <(seq 30000)
    echo "lines ${#lines[@]} $(printf '%s\n' "${lines[@]}" | digest)"
}

fibonacci "$([ "${1:-}" = brief ] && echo 5 || echo 11)"
if [ "${1:-}" != brief ]; then
    strings
    arrays
    jobs_and_pipes
fi
