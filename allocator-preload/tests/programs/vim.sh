#!/usr/bin/env bash
# Vim without a terminal: texts changed, sorted, undone; its own language with lists, dictionaries and closures.
# packages: vim
# program: vim.*
set -euo pipefail
n=20000
[ "${1:-}" != brief ] || n=10
cat >script.vim <<'EOF'
set nocompatible undolevels=1000 viminfo= encoding=utf-8
let n = str2nr($N)
let x = 1
let lines = []
let table = {}
for i in range(n)
  let x = x * 16807 % 2147483647
  call add(lines, 'line ' . x . ' ' . i)
  let table[x % 500] = get(table, x % 500, '') . i
endfor
call setline(1, lines)
write! first
%s/\(\d\)\(\d*\)/\2<\1>/g
sort /line/ n
g/7>/m0
g/99/normal Ax
write! second
call cursor(1, 1)
normal qaddp2jqm
execute 'normal ' . min([n / 3, 1000]) . '@a'
write! third
undo
undo
redo
1,10join
v/1/d
write! fourth
let result = map(sort(keys(table), 'N'), 'v:val . " " . strlen(table[v:val])')
call map(result, {i, v -> v . ' ' . i})
call writefile(result + [json_encode(json_decode(json_encode(table)))[0:9]], 'fifth')
call writefile([string(eval(string(filter(copy(lines), 'v:val =~# "1\\+.*2$"'))))], 'sixth')
new
put =repeat(['text of a buffer'], 500)
setlocal fileformat=dos fileencoding=utf-16le
%!sort
write! seventh
syntax on
setfiletype c
qall!
EOF
N=$n vim -u NONE -i NONE -n -N -es -S script.vim
sha256sum first second third fourth fifth sixth seventh
