#!/usr/bin/env bash
# GDB: a program with its symbols is read, stopped, looked at and followed, by commands and by Python inside the debugger. What
# is debugged runs without the library.
# packages: gdb gcc libc6-dev
# program: gdb
# bindings: brief
set -euo pipefail
cat >program.c <<'EOF'
#include <stdio.h>
#include <stdlib.h>
struct node { int k; struct node *next; char name[16]; };
static struct node *make(int n) {
    struct node *list = NULL;
    for (int i = 0; i < n; i++) {
        struct node *a = malloc(sizeof *a);
        a->k = i * 7919 % 1009;
        a->next = list;
        snprintf(a->name, sizeof a->name, "n%d", i);
        list = a;
    }
    return list;
}
int sum(struct node *l) { return l ? l->k + sum(l->next) : 0; }
int main(void) { struct node *l = make(50); printf("%d\n", sum(l)); return 3; }
EOF
gcc -g3 -O0 -o program program.c
cat >commands <<'EOF'
set pagination off
set confirm off
set width 0
set startup-with-shell off
set style enabled off
unset environment LD_PRELOAD
unset environment LD_DEBUG
unset environment LD_DEBUG_OUTPUT
unset environment LD_BIND_NOW
set print frame-arguments none
info line make
break sum if l == 0
run
bt 3
up 5
print l->k
print l->next->name
ptype struct node
python
import gdb
l, n, k = gdb.parse_and_eval("l"), 0, 0
while l != 0:
    n, k, l = n + 1, k + int(l["k"]), l["next"]
print("list", n, k)
print("frames", sum(1 for _ in iter(lambda f=[gdb.newest_frame()]: f.__setitem__(0, f[0].older()) or f[0], None)))
table = {}
for s in gdb.lookup_global_symbol("main").symtab.static_block():
    table[s.name] = str(s.type)
print(sorted(table.items()))
for i in range(2000):
    gdb.execute("print %d * 7 %% 13" % i, to_string=True)
print("values", int(gdb.parse_and_eval("$")))
end
delete
continue
EOF
gdb -nx -batch -x commands ./program </dev/null 2>&1 | sed 's/process [0-9]*/process/' | grep -v '^warning\|debuginfod\|^Using host\|\[Thread'
