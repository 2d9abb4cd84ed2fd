#!/usr/bin/env bash
# Breaks the code in one place at a time; some model must fail each time. Called by: ci/loom.sh --mutants [PART-OF-A-NAME]
#
# A mutant is an ordering made weaker at one call, or a re-check left out (allocator-core/src/sync/atomic.rs does it, by
# an environment variable). Each model has noted, without a mutant, which places it reaches and how long it takes. For
# each mutant whose name has the part, the models that reach its place are run, the quickest first, until one fails.
#
# A mutant that no model catches must have a line in docs/loom.md with the reason why it is harmless, and one that has
# a line must not be caught. A place that ci/orderings.awk finds in the source and no model reaches is an error.
# Last, for each other model, a mutant that it catches is looked for, whatever else catches it: a model that catches none
# must have a line in docs/loom.md with the bug, planted by hand, that it was seen to fail with.
# MUTANT_SECONDS (20) bounds the run of one model with one mutant.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
part=${1:-}
: "${binary:?is set by ci/loom.sh}" "${work:?is set by ci/loom.sh}"
LOOM_MAX_DURATION=${MUTANT_SECONDS:-20}
mkdir "$work/results"

# Places in the source that the models are compiled from, and their names.
mapfile -t sources < <(tr ' ' '\n' <"${binary%/*}/$(basename "$binary").d" | grep '\.rs$' | sort -u | grep -v '/sync/atomic\.rs$')
LC_ALL=C awk -f ci/orderings.awk "${sources[@]}" >"$work/names"

cat "$work"/times/* | sort -n | cut -f2 >"$work/models"
# A mutant in no place must change nothing, or every mutant would be caught.
quickest=$(head -n 1 "$work/models")
if ! KMALLOC_MUTANT="nowhere.rs:1:1 Relaxed" "$binary" --exact "$quickest" >/dev/null 2>&1; then
    echo "mutants: $quickest fails with a mutant that is in no place" >&2
    exit 1
fi

# From places to mutants: a line is what the environment is told, a tab, and the name.
cat "$work"/sites/* | sort -u >"$work/reached"
if grep -v -x -F -f <(cut -f1 "$work/names") "$work/reached" >&2; then
    echo "mutants: these places were reached, but ci/orderings.awk does not see them" >&2
    exit 1
fi
while IFS=$'\t' read -r place name; do
    if ! grep -q -x -F -- "$place" "$work/reached"; then
        printf 'NOT REACHED  %s (%s)\n' "$name" "$place"
        continue
    fi
    case $place in
    recheck*) printf '%s\t%s\t%s\n' "$place" "$name" "$place" ;;
    *" AcqRel")
        printf '%s Acquire\t%s: AcqRel as Acquire\t%s\n' "${place% *}" "$name" "$place"
        printf '%s Release\t%s: AcqRel as Release\t%s\n' "${place% *}" "$name" "$place"
        ;;
    *" SeqCst") printf '%s AcqRel\t%s: SeqCst as AcqRel\t%s\n' "${place% *}" "$name" "$place" ;;
    *) printf '%s Relaxed\t%s: %s as Relaxed\t%s\n' "${place% *}" "$name" "${place##* }" "$place" ;;
    esac
done <"$work/names" >"$work/all"
grep '^NOT REACHED' "$work/all" | sort || true
grep -v '^NOT REACHED' "$work/all" | grep -F -- "$part" >"$work/mutants" || true
unreached=$(grep -c '^NOT REACHED' "$work/all" || true)

# Whether model $1 fails with mutant $2, its output in $3. A run that has no end, or is ended from outside, is neither
# a failure nor a success, and stops all of it.
fails() {
    local code=0
    KMALLOC_MUTANT=$2 timeout $((LOOM_MAX_DURATION + 60)) "$binary" --exact "$1" --test-threads 1 >"$3" 2>&1 || code=$?
    case $code in
    0) return 1 ;;
    101 | 134) return 0 ;; # a panic, or the abort that one ended in
    *)
        echo "mutants: $1 ended with code $code under $2" >&2
        exit 255
        ;;
    esac
}
export -f fails

# Runs the models against mutant number $1.
mutant() {
    local line told name place model log="$work/log.$1"
    line=$(sed -n "$1p" "$work/mutants")
    IFS=$'\t' read -r told name place <<<"$line"
    while read -r model; do
        grep -q -x -F -- "$place" "$work/sites/$model" || continue
        if fails "$model" "$told" "$log"; then
            printf 'caught    %s  (by %s)\n' "$name" "$model"
            printf 'caught\t%s\n' "$name" >"$work/results/$1"
            return
        fi
    done <"$work/models"
    printf 'SURVIVED  %s\n' "$name"
    printf 'survived\t%s\n' "$name" >"$work/results/$1"
}
export -f mutant
export LOOM_MAX_DURATION
total=$(wc -l <"$work/mutants")
if [ "$total" = 0 ]; then
    echo "mutants: none of that name" >&2
    exit 1
fi
# shellcheck disable=SC2016 # for the inner shell
seq "$total" | xargs -P "$(nproc)" -I{} bash -c 'mutant "$1"' _ {}

# Of the models that docs/loom.md does not list, whether model $1 catches any mutant of a place that it reaches; a weaker ordering
# is mostly caught at once. Those that it lists may catch one, where there is time enough.
useful() {
    local told name place most=$LOOM_MAX_DURATION
    if grep -q -x -F -- "${1##*::}" "$work/by-hand"; then return; fi
    for LOOM_MAX_DURATION in 1 "$most"; do
        while IFS=$'\t' read -r told name place; do
            grep -q -x -F -- "$place" "$work/sites/$1" || continue
            if fails "$1" "$told" "$work/log.$1"; then return; fi
        done < <(grep -v '^recheck' "$work/mutants"; grep '^recheck' "$work/mutants")
    done
    printf 'catches none  %s\n' "$1" | tee -a "$work/useless"
}
export -f useful
sed -n '/^| model | bug |/,/^$/s/^| `\([^`]*\)` |.*/\1/p' docs/loom.md >"$work/by-hand"
touch "$work/useless"
if [ -z "$part" ]; then
    # shellcheck disable=SC2016 # for the inner shell
    xargs -P "$(nproc)" -I{} bash -c 'useful "$1"' _ {} <"$work/models"
fi

# Survivors against the table of mutants in docs/loom.md: rows that begin with a name in backticks.
sed -n '/^| mutant /,/^$/s/^| `\([^`]*\)` |.*/\1/p' docs/loom.md | grep -F -- "$part" | sort >"$work/listed" || true
cat "$work"/results/* | sed -n 's/^survived\t//p' | sort >"$work/survived"
cat "$work"/results/* | sed -n 's/^caught\t//p' | sort >"$work/caught"
failed=0
if comm -23 "$work/survived" "$work/listed" | grep .; then
    echo "mutants: these survived, and docs/loom.md does not say why they are harmless" >&2
    failed=1
fi
if comm -23 "$work/listed" "$work/survived" | grep .; then
    echo "mutants: docs/loom.md says that these are harmless, but they were caught or are no mutants" >&2
    failed=1
fi
if [ -z "$part" ]; then
    if [ "$unreached" != 0 ]; then
        echo "mutants: a place that no model reaches may have any ordering" >&2
        failed=1
    fi
    if [ -s "$work/useless" ]; then
        echo "mutants: these models catch no mutant, and docs/loom.md does not say with which bug they were seen to fail" >&2
        failed=1
    fi
    if grep -v -x -F -f <(sed 's/.*:://' "$work/models") "$work/by-hand" >&2; then
        echo "mutants: docs/loom.md lists these, and there are no such models" >&2
        failed=1
    fi
fi
if [ $(($(wc -l <"$work/caught") + $(wc -l <"$work/survived"))) != "$total" ]; then
    echo "mutants: some have no result" >&2
    failed=1
fi
printf 'mutants: %d caught / %d; %d survived, %d of them listed as harmless; %d places not reached by any model\n' \
    "$(wc -l <"$work/caught")" "$total" "$(wc -l <"$work/survived")" \
    "$(comm -12 "$work/survived" "$work/listed" | wc -l)" "$unreached"
exit "$failed"
