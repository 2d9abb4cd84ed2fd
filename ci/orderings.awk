# Lists where Rust source asks for more than Relaxed, and each re-check: awk -f ci/orderings.awk FILE...
#
# A line is the place as `sync::atomic` notes it under loom, a tab, and a name that does not change when lines move:
#     allocator-core/src/chunk.rs:300:40 Release      chunk::give_back fetch_or
#     recheck the lock is free by now                 recheck the lock is free by now
# What is compiled for tests only is left out, and what orders the compiler alone. An ordering that is no argument of a call is an error.

function fail(what) { print "orderings: " what | "cat 1>&2"; failed = 1 }

# The source of a file with comments, strings and test items turned into blanks, so that columns stay; sets `code`.
function read_file(file,    line, skipping, depth, opened, n, left, quoted, inside, name, wants) {
    code = ""; skipping = 0; inside = 0
    while ((getline line < file) > 0) {
        gsub(/\\"/, "  ", line)
        if (!skipping && line ~ /^[ \t]*#\[cfg\((test|all\([^)]*[ (,]*test[ ,)])/ && line !~ /not\(test\)/) {
            skipping = 1; depth = 0; opened = 0
            sub(/^[ \t]*#\[cfg\([^\]]*\)\]/, "", line)
        }
        left = line
        sub(/\/\/.*/, "", left)
        # A name may stand on the line after `recheck(`.
        if (!skipping && left ~ /recheck\(/ && left !~ /fn recheck/) wants = 1
        if (!skipping && wants && match(left, /"[^"]*"/)) {
            name = substr(left, RSTART + 1, RLENGTH - 2); wants = 0
            print "recheck " name "\trecheck " name
        }
        line = ""
        while (match(left, /"[^"]*"/)) {
            quoted = substr(left, RSTART, RLENGTH); gsub(/./, " ", quoted)
            line = line substr(left, 1, RSTART - 1) quoted
            left = substr(left, RSTART + RLENGTH)
        }
        line = line left
        gsub(/\047["{}()]\047/, "   ", line)
        if (skipping) {
            if (line ~ /^[ \t]*(#\[.*\])?[ \t]*$/ && !opened) { code = code "\n"; continue }
            n = gsub(/\{/, "{", line); depth += n; if (n > 0) opened = 1
            depth -= gsub(/\}/, "}", line)
            if ((opened && depth <= 0) || (!opened && line ~ /;/)) skipping = 0
            line = ""
        }
        if (line ~ /^[ \t]*(pub |pub\([a-z]*\) )?use /) inside = 1
        if (inside) { if (line ~ /;/) inside = 0; line = "" }
        code = code line "\n"
    }
    close(file)
}

# The ordering `word` at offset `at`: the call that it is an argument of.
function site(file, word, at,    i, c, depth, commas, start, before, lines, n, column, call, name, role) {
    depth = 0; commas = 0
    for (i = at - 1; i > 0; i--) {
        c = substr(code, i, 1)
        if (c ~ /[)\]}]/) depth++
        else if (c ~ /[(\[{]/) { if (depth == 0) break; depth-- }
        else if (c == "," && depth == 0) commas++
        else if (c == ";" && depth == 0) { i = 0 }
    }
    before = substr(code, 1, at)
    n = gsub(/\n/, "\n", before) + 1
    if (i <= 0 || c != "(" || !match(substr(code, 1, i - 1), /[A-Za-z0-9_]+$/)) {
        fail(file ":" n ": " word " is no argument of a call")
        return
    }
    start = RSTART; call = substr(code, RSTART, RLENGTH)
    if (call == "compiler_fence") return # of no concern to another thread
    before = substr(code, 1, start - 1)
    n = split(before, lines, "\n"); column = length(lines[n]) + 1
    name = "?"
    for (i = n; i > 0; i--) if (match(lines[i], /fn [a-z0-9_]+/)) { name = substr(lines[i], RSTART + 3, RLENGTH - 3); break }
    role = call ~ /^compare_exchange/ && commas == 3 ? " failure" : ""
    name = module "::" name " " call role
    if (used[name]++) name = name " #" used[name]
    print file ":" n ":" column role " " word "\t" name
}

BEGIN {
    for (f = 1; f < ARGC; f++) {
        file = ARGV[f]
        if (file ~ /(^|\/)(loom_)?tests(\.rs$|\/)/) continue
        module = file; sub(/^.*\/src\//, "", module); sub(/(\/mod)?\.rs$/, "", module); gsub(/\//, "::", module)
        read_file(file)
        rest = code; offset = 0
        while (match(rest, /[^A-Za-z0-9_](Acquire|Release|AcqRel|SeqCst)[^A-Za-z0-9_]/)) {
            word = substr(rest, RSTART + 1, RLENGTH - 2)
            at = RSTART + 1; next_at = RSTART + RLENGTH - 1
            site(file, word, offset + at)
            offset += next_at - 1
            rest = substr(rest, next_at)
        }
    }
    if (failed) exit 1
}
