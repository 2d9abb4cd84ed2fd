#!/usr/bin/env bash
# Bison, and the m4 that it starts: parsers of a language with many rules, by three methods.
# packages: bison
# program: bison
set -euo pipefail

# $1: the number of statements that the language has.
grammar() {
    awk -v n="$1" 'BEGIN {
        print "%define parse.error verbose\n%token NUMBER NAME"
        for (i = 0; i < n; i++) print "%token T" i
        print "%left \"+\" \"-\"\n%left \"*\" \"/\"\n%start list\n%%"
        print "list: %empty | list statement \";\" ;\nstatement: expression"
        for (i = 0; i < n; i++) print "  | T" i " NAME \"=\" expression block" i % 20
        print "  ;\nexpression: NUMBER | NAME | expression \"+\" expression | expression \"-\" expression"
        print "  | expression \"*\" expression | expression \"/\" expression | \"(\" expression \")\" ;"
        for (i = 0; i < 20; i++) print "block" i ": %empty | \"{\" list \"}\" T" i % n " | block" (i + 1) % 20 " \"#\" NUMBER ;"
        print "%%"
    }'
}

# $1: the method; $2: the number of statements.
parser() {
    grammar "$2" >grammar.y
    bison -Wno-all -Dlr.type="$1" --report=states,itemsets,lookaheads,solved --report-file="$1.report" -o "$1.c" grammar.y
    sha256sum "$1.c" "$1.report"
}

if [ "${1:-}" = brief ]; then
    parser lalr 2
    exit
fi
parser lalr 200
parser ielr 100
parser canonical-lr 3
