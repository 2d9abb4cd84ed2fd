#!/usr/bin/env bash
# m4: macros that call themselves, long arguments, diversions, patterns.
# packages: m4
# program: m4
set -euo pipefail
n=20000
[ "${1:-}" != brief ] || n=10
cat >macros.m4 <<'EOF'
divert(-1)
define(`forloop', `pushdef(`$1', `$2')_forloop($@)popdef(`$1')')
define(`_forloop', `$4`'ifelse($1, `$3', `', `define(`$1', incr($1))$0($@)')')
define(`fib', `ifelse(eval($1 < 2), 1, $1, `eval(fib(decr($1)) + fib(eval($1 - 2)))')')
define(`reverse', `ifelse(`$#', 0, , `$#', 1, ``$1'', `reverse(shift($@)), `$1'')')
divert`'dnl
fib(17)
forloop(`i', 1, N, `define(`name'i, `value 'i)divert(eval(1 + i % 5))name`'i eval(i * i) format(`%08x', i)
')dnl
divert(0)dnl
len(forloop(`i', 1, N, `some text and i '))
patsubst(forloop(`i', 1, 500, `word`'i '), `word\([0-9]\)\([0-9]*\)', `\2-\1')
reverse(1forloop(`i', 2, 200, `,i'))
translit(`a lower line', `a-z', `A-Z') index(`abcdef', `de') regexp(`abc123', `[0-9]+')
undivert
EOF
m4 -D N="$n" macros.m4 | sha256sum
m4 -D N=3 macros.m4 | sed -n 1,3p
