#!/usr/bin/env bash
# Real programs under the library that stands in for malloc, against the same programs without it: ci/programs.sh LIBRARY [NAME...];
# ci/programs.sh --install [NAME...] only installs what they need.
#
# Each script of allocator-preload/tests/programs runs a program and prints what is the same every time. It runs without the
# library and with it, one after the other at the same place, and what it prints and its exit code must not differ. It runs
# a third time for the dynamic linker to say what it bound: no function of malloc's family, and no operator new or delete, may
# be left to the C or the C++ library. Libkmalloc also tells at the end of each process that it was there (KMALLOC_STATS); the
# program must be among them. Another library (LIBRARY may be any) is not asked for that, and what it lacks is told and is no
# failure.
#
# In a script, `# packages:` names the Debian packages it needs, `# program:` is an expression for the name of the process that
# the test is of, and `# bindings: brief` means that the third run is the least that loads the program, because the linker would
# have too much to say, or says it where the program sees it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts=$PWD/allocator-preload/tests/programs

if [ $# -lt 1 ] || [ "$1" != --install ] && [ ! -f "$1" ]; then
    echo "usage: ci/programs.sh LIBRARY|--install [NAME...]" >&2
    exit 2
fi
given=$1
shift
names=("$@")
[ $# != 0 ] || names=($(cd "$scripts" && ls -- *.sh | sed 's/\.sh$//'))

if [ ${#names[@]} = 0 ]; then
    echo "programs: none" >&2
    exit 1
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
library=$scratch/${given##*/} # of its own, since the original may be built anew meanwhile
[ "$given" = --install ] || cp "$given" "$library"

is_ours() { [[ $(basename "$library") == libkmalloc* ]]; }

# $1: a field of the header; $2: the program.
header() { sed -n "s/^# $1: //p" "$scripts/$2.sh"; }

# Packages may be patterns, which mean the same to dpkg and to apt.
install_packages() {
    local package missing=()
    for package in $(for name in "${names[@]}"; do header packages "$name"; done | tr ' ' '\n' | sort -u); do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -x installed >/dev/null || missing+=("$package")
    done
    [ ${#missing[@]} != 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "programs: install: ${missing[*]}" >&2
        exit 1
    fi
    echo "programs: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}" >/dev/null
}

# Runs a program in a directory that is new and always at the same place, with nothing in the environment but what is given.
# $1: the program; $2: what to call the results; $3: an argument, or nothing; the rest: variables.
run() {
    local name=$1 result=$scratch/$2 argument=$3 status=0
    shift 3
    rm -rf "$scratch/run"
    mkdir -p "$scratch"/run/{work,home,tmp}
    (
        cd "$scratch/run/work"
        ulimit -c 0
        exec timeout -k 5 60 env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC HOME="$scratch/run/home" \
            TMPDIR="$scratch/run/tmp" "$@" bash "$scripts/$name.sh" $argument
    ) </dev/null >"$result.stdout" 2>"$result.stderr" || status=$?
    echo "$status" >"$result.status"
}

# What differs between the two runs.
differences() {
    local part
    [ "$(cat "$scratch/plain.status")" = 0 ] || {
        echo "without the library: exit code $(cat "$scratch/plain.status")"
        tail -n 5 "$scratch/plain.stderr"
    }
    for part in status stdout stderr; do
        diff -a -u --label "$part without the library" --label "$part with the library" "$scratch"/{plain,preloaded}.$part || true
    done
}

# $1: the program. Counts the processes that reported; the program itself has to be one of them.
reports() {
    local processes
    processes=$(grep -acE '^kmalloc: pid [0-9]+ \(.*\): ' "$scratch/statistics") || true
    echo "${processes:-0}" >"$scratch/processes"
    if [ "${processes:-0}" = 0 ]; then
        echo "no process reported"
    elif ! grep -aqE "^kmalloc: pid [0-9]+ \(($(header program "$1"))\): " "$scratch/statistics"; then
        echo "no process of the program reported, but: $(sed -E 's/.* \((.*)\):.*/\1/' "$scratch/statistics" | sort -u | head -n 20 | tr '\n' ' ')"
    fi
}

family='malloc|calloc|realloc|reallocarray|free|cfree|aligned_alloc|memalign|posix_memalign|valloc|pvalloc|malloc_usable_size'
family+='|mallinfo2?|malloc_trim|malloc_stats|malloc_info|mallopt|free_sized|free_aligned_sized|_Zn[aw]m\w*|_Zd[al]Pv\w*'

# Every binding of the family, each once: symbol, where it is used, where it is.
bindings() {
    { cat "$scratch"/bindings/* 2>/dev/null || true; } |
        sed -nE "s/^ *[0-9]+:\tbinding file (.*) \[-?[0-9]+\] to (.*) \[-?[0-9]+\]: [a-z]+ symbol .($family)'.*/\3 \1 \2/p" | sort -u
}

# Those that are left to the C or the C++ library. (A program may have a function of its own, or be where the address of the
# library's function is said to be.)
strangers() {
    awk -v library="$library" -v status="$(cat "$scratch/bound.status")" '
        $NF == library { own++; next }
        $NF ~ /\/(libc|libstdc\+\+|libc\+\+|ld-linux[^\/]*)\.so/ { print $1 " of " $2 " is bound to " $3 }
        END { if (!own) print "nothing is bound to the library" }
        END { if (status != 0) print "the run that shows bindings: exit code " status }'
}

failed=0
# $1: the program.
check() {
    local name=$1 settings=() variable problems notes='' begin middle end
    while read -r variable; do settings+=("$variable=${!variable}"); done < <(compgen -e | grep '^KMALLOC_' | grep -vx KMALLOC_STATS || true)
    begin=$EPOCHREALTIME
    run "$name" plain ''
    middle=$EPOCHREALTIME
    : >"$scratch/statistics"
    run "$name" preloaded '' LD_PRELOAD="$library" KMALLOC_STATS="$scratch/statistics" "${settings[@]}"
    end=$EPOCHREALTIME
    rm -rf "$scratch/bindings"
    mkdir "$scratch/bindings"
    run "$name" bound "$(header bindings "$name")" LD_PRELOAD="$library" LD_DEBUG=bindings LD_DEBUG_OUTPUT="$scratch/bindings/of" \
        LD_BIND_NOW=1 "${settings[@]}"
    problems=$(differences)
    if is_ours; then
        problems=$(echo "$problems" && reports "$name" && bindings | strangers)
        problems=${problems#$'\n'}
        notes="; $(cat "$scratch/processes") processes reported"
    fi
    notes=$(awk -v a="$begin" -v b="$middle" -v c="$end" 'BEGIN { printf "%.1f s, with the library %.1f s", b - a, c - b }')$notes
    if [ -z "$problems" ]; then
        echo "ok $name: $notes"
        is_ours || bindings | strangers | sed 's/^/    /'
    else
        echo "FAILED $name: $notes"
        head -n 20 <<<"$problems" | sed 's/^/    /'
        failed=1
    fi
}

{ # In one piece, so that whoever changes this file meanwhile does not change the run.
    install_packages
    [ "$given" != --install ] || exit 0
    for name in "${names[@]}"; do check "$name"; done
    exit $failed
}
