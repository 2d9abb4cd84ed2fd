#!/usr/bin/env bash
# What the two allocator crates refer to, in the objects that a user links, and what of them is inlined into the user's
# own (examples/inlined.rs): nothing of std that allocates, locks or prints. Every symbol that they do not define
# themselves must be in ci/symbols.allow, which says why it may be there; a line of that file that nothing needs any more
# is an error too. And the heap takes no space in the binary: what is large is zeros. Both as the heap of a Rust program and as
# that of its C (feature `override`), which has lines of its own there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ci/tools.sh objdump

unset RUSTFLAGS
export CARGO_PROFILE_UNWIND_LTO=false
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
grep -v '^#\|^$' ci/symbols.allow | cut -f1 >"$scratch/lines"

symbols() { nm "$1" "${libraries[@]}" 2>/dev/null | awk '$1 ~ /^[Uwv]$/ || NF == 3 { print $NF }' | LC_ALL=C sort -u; }

# $1: the features.
look() {
    # By the messages of cargo, so that no library of an earlier build is looked at.
    cargo build --quiet --profile unwind -p allocator-global --features "$1" --lib --example inlined --message-format json |
        sed -n '/"name":"\(allocator_core\|allocator_global\|inlined\)"/s/.*"filenames":\["\([^"]*\.rlib\)".*/\1/p' \
            >"$scratch/libraries"
    if [ "$(wc -l <"$scratch/libraries")" != 3 ]; then
        echo "symbols: cargo did not say where the libraries are" >&2
        exit 1
    fi
    mapfile -t libraries <"$scratch/libraries"
    symbols --defined-only >"$scratch/defined"
    symbols --undefined-only | LC_ALL=C comm -23 - "$scratch/defined" | c++filt |
        sed -E 's/\[[0-9a-f]{8,}\]//g; s/::h[0-9a-f]{16}$//; s/^__rustc:://' | LC_ALL=C sort -u >"$scratch/found"
    if [ "$(wc -l <"$scratch/found")" -lt 20 ] || ! grep -q -x inlined_realloc "$scratch/defined"; then
        echo "symbols: hardly any symbol was found, or no user's; this is not what it should look at" >&2
        exit 1
    fi
    { if [ "$1" = override ]; then sed 's/^override: //' "$scratch/lines"; else grep -v '^override: ' "$scratch/lines"; fi; } >"$scratch/allowed"
    if grep -v -x -E -f "$scratch/allowed" "$scratch/found"; then
        echo "symbols: the allocator refers to these, and ci/symbols.allow does not say why it may${1:+ (feature $1)}" >&2
        failed=1
    fi
    nm --size-sort --print-size "${libraries[@]}" 2>/dev/null >"$scratch/sizes"
    if awk '$3 ~ /^[dD]$/ && "x" $2 >= "x0000000000001000"' "$scratch/sizes" | grep .; then
        echo "symbols: these have bytes that are not zero, and are written into every binary${1:+ (feature $1)}" >&2
        failed=1
    fi
    cat "$scratch/found" >>"$scratch/all"
}
look ''
look override

LC_ALL=C sort -u "$scratch/all" >"$scratch/needed"
while read -r pattern; do
    if ! grep -q -x -E -- "$pattern" "$scratch/needed"; then
        echo "symbols: nothing needs this line of ci/symbols.allow any more: $pattern" >&2
        failed=1
    fi
done < <(sed 's/^override: //' "$scratch/lines")
echo "symbols: $(wc -l <"$scratch/needed") outside the two crates, of which std and alloc have $(grep -c -E '^<?(std|alloc)::|__rust_(alloc|realloc)' "$scratch/needed" || true)"
exit "$failed"
