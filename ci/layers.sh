#!/usr/bin/env bash
# Checks that the core is layered as the table in its lib.rs says: ci/layers.sh [SOURCE-DIRECTORY]
#
# The table is the lines of lib.rs of the form
#     //! | 1 | `chunk` | what it is |
# where the digit is the layer. A module may use modules of a lower digit, and those above it in its own. Every
# module has a line, and every line a module. What is compiled for tests only is not looked at.
# It also checks that no module but `sync` names atomics, `UnsafeCell` or loom.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source_directory=${1:-allocator-core/src}

cd "$source_directory"
find . -name '*.rs' | sed 's|^\./||' | LC_ALL=C sort | LC_ALL=C awk '
function fail(where, what) { print "layers: " where ": " what | "cat 1>&2"; failed = 1 }

# The module that a file belongs to: the first part of its path.
function module_of(file) { sub(/\/.*/, "", file); sub(/\.rs$/, "", file); return file }

# The code of a file in one string, without comments, string contents and test modules; sets `code` and `table`.
function read_file(file,    line, pending, skipping, depth, opened, n) {
    code = ""; pending = ""; skipping = 0
    while ((getline line < file) > 0) {
        if (file == "lib.rs" && line ~ /^\/\/! *\| *[0-9] *\| *\[?`/) {
            n = split(line, cell, /[|`]/)
            digit = cell[2]; gsub(/ /, "", digit)
            if (cell[4] in layer) fail(file, "`" cell[4] "` has two lines in the table")
            layer[cell[4]] = digit; rank[cell[4]] = ++rows; row[rows] = cell[4]
            if (rows > 1 && digit < layer[row[rows - 1]])
                fail(file, "the table is not sorted: `" cell[4] "` comes after a higher layer")
        }
        gsub(/\\"/, "", line)
        gsub(/\047["{}]\047/, "", line) # character literals
        gsub(/"[^"]*"/, "\"\"", line)
        sub(/\/\/.*/, "", line)
        # `#[cfg(test)]`, `#[cfg(all(test, ...))]`, `#[cfg(all(kmalloc_loom, test))]`: the item that follows is skipped.
        if (!skipping && line ~ /^[ \t]*#\[cfg\((test|all\([^)]*[ (,]*test[ ,)])/ && line !~ /not\(test\)/) {
            skipping = 1; depth = 0; opened = 0
            sub(/^[ \t]*#\[cfg\([^\]]*\)\]/, "", line)
        }
        if (skipping) {
            if (line ~ /^[ \t]*(#\[.*\])?[ \t]*$/ && !opened) continue
            n = gsub(/\{/, "{", line); depth += n; if (n > 0) opened = 1
            depth -= gsub(/\}/, "}", line)
            if ((opened && depth <= 0) || (!opened && line ~ /;/)) skipping = 0
            continue
        }
        code = code line "\n"
    }
    close(file)
}

# Notes that `user` uses the module `used`.
function uses(user, used, file) {
    if (used in macro) return
    if (!(used in layer)) { fail(file, "`crate::" used "` is no module of the table"); return }
    if (used == user) return
    edges++
    if (layer[used] > layer[user] || (layer[used] == layer[user] && rank[used] > rank[user]))
        fail(file, "`" user "` (" layer[user] ") uses `" used "` (" layer[used] "), which is not below it")
}

# Names after `crate::{`, at the depth of that brace, up to its end.
function uses_group(user, text, file,    i, c, depth, word) {
    depth = 0; word = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (depth == 0 && c ~ /[A-Za-z0-9_]/) { word = word c; continue }
        if (word != "" && word != "as") { uses(user, word, file) }
        word = ""
        if (c == "{") depth++
        else if (c == "}") { if (depth-- == 0) return }
        else if (depth == 0 && c == ":") {
            # the rest of this path, up to a comma or the end of the group
            for (; i <= length(text); i++) {
                c = substr(text, i, 1)
                if (c == "{") depth++
                else if (c == "}") { if (depth == 0) return; depth-- }
                else if (c == "," && depth == 0) break
            }
        }
    }
}

function check(file,    user, rest, word) {
    read_file(file)
    user = module_of(file)
    if (user == "lib") return
    if (user == "tests" || user == "loom_tests" || file ~ /\/(loom_)?tests(\.rs$|\/)/) return
    if (!(user in layer)) { fail(file, "no line in the table of lib.rs"); return }
    seen[user] = 1
    if (code ~ (file ~ /\// ? "super::super::" : "(^|[^A-Za-z0-9_])super::"))
        fail(file, "names a module by `super::`; write `crate::`, so that it can be read here")
    if (user != "sync") {
        if (code ~ /(core|std)::sync([^A-Za-z0-9_]|$)/ || code ~ /(core|std)::\{[^;]*[^A-Za-z0-9_]sync(::|[,} ])/ ||
            code ~ /(core|std)::\{sync/)
            fail(file, "names core::sync or std::sync; only `sync` does")
        if (code ~ /(core|std)::cell::([^;]*[^A-Za-z0-9_])?UnsafeCell/ ||
            code ~ /(core|std)::\{[^;]*cell::([^;]*[^A-Za-z0-9_])?UnsafeCell/)
            fail(file, "names core::cell::UnsafeCell; only `sync` does")
        if (code ~ /(^|[^A-Za-z0-9_])loom::/)
            fail(file, "names loom; only `sync` does")
    }
    rest = code
    while (match(rest, /(^|[^A-Za-z0-9_$])crate::/)) {
        rest = substr(rest, RSTART + RLENGTH)
        if (substr(rest, 1, 1) == "{") uses_group(user, substr(rest, 2), file)
        else if (match(rest, /^[A-Za-z0-9_]+/)) {
            word = substr(rest, 1, RLENGTH)
            if (substr(rest, RLENGTH + 1, 1) != "!") uses(user, word, file)
        }
    }
}

{ files[++count] = $0 }

END {
    # First the table and the macros, then the rest.
    for (i = 1; i <= count; i++) {
        if (files[i] == "lib.rs") read_file("lib.rs")
        while ((getline line < files[i]) > 0)
            if (match(line, /macro_rules! [A-Za-z0-9_]+/)) macro[substr(line, RSTART + 13, RLENGTH - 13)] = 1
        close(files[i])
    }
    if (rows == 0) { fail("lib.rs", "no table of layers: lines such as //! | 1 | `chunk` | ... |"); exit 1 }
    for (i = 1; i <= count; i++) if (files[i] != "lib.rs") check(files[i])
    for (i = 1; i <= rows; i++) if (!(row[i] in seen)) fail("lib.rs", "`" row[i] "` is in the table, but there is no such file")
    if (failed) exit 1
    print "layers: " rows " modules, " edges " uses, all of them downwards"
}
'
