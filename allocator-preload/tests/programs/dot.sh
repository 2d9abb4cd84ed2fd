#!/usr/bin/env bash
# Graphviz: graphs that are laid out by each of its programs.
# packages: graphviz
# program: dot
set -euo pipefail
nodes=150
[ "${1:-}" != brief ] || nodes=3
awk -v n="$nodes" 'BEGIN {
    print "digraph g {"
    for (i = 1; i < n; i++) {
        print "n" i " [label=\"node " i "\\nof " n "\", shape=" (i % 3 ? "box" : "ellipse") "];"
        print "n" int(i / 2) " -> n" i " [label=\"" i * 7 % 13 "\"];"
        if (i % 5 == 0) print "n" i " -> n" i * 31 % n ";"
    }
    for (i = 0; i < 10; i++) print "subgraph cluster" i " { label=\"cluster " i "\"; n" i * 3 "; n" i * 3 + 1 "; }"
    print "}"
}' >graph
for program in dot neato sfdp circo twopi; do
    for format in plain svg; do
        $program -Gstart=1 -T$format -o "$program.$format" graph
        sha256sum "$program.$format"
    done
done 2>messages
gvpr 'BEG_G { int n = 0; } N { n++; } END_G { printf("%d nodes\n", n); }' graph
tred graph | gc -n -e
