#!/usr/bin/env bash
# Tcl: lists, dictionaries, strings, expressions, procedures, interpreters within, and compression.
# packages: tcl
# program: tclsh.*
set -euo pipefail
cat >program.tcl <<'EOF'
set n [lindex $argv 0]
set x 1
proc draw {} { global x; set x [expr {$x * 16807 % 2147483647}] }
proc digest {text} { format %08x [zlib crc32 [encoding convertto utf-8 $text]] }

set d [dict create]
for {set i 0} {$i < $n} {incr i} { dict append d key[expr {[draw] % 3000}] $i, }
set out {}
foreach k [lsort [dict keys $d]] { lappend out $k [string length [dict get $d $k]] }
puts "dict [dict size $d] [digest $out]"

set list {}
for {set i 0} {$i < $n} {incr i} { lappend list [list [expr {[draw] % 1000}] name$i] }
set sorted [lsort -index 0 -integer [lsort -index 1 $list]]
puts "lists [llength $sorted] [digest $sorted] [digest [lreverse [lrange $sorted 10 end-10]]]"
puts "search [llength [lsearch -all -inline -glob $list *77*]]"

set text [string repeat "some text \u00e4\u20ac " [expr {$n / 10}]]
puts "strings [string length $text] [digest [string toupper $text]] [digest [string map {text TEXT e 3} $text]]"
puts "regexp [regsub -all {name(\d)(\d*)} $sorted {\2-\1} changed] [digest $changed] [llength [regexp -all -inline {\y\d7\y} $changed]]"

array set a {}
for {set i 0} {$i < $n} {incr i} { set a([expr {$i % 5000}]) [string repeat v [expr {$i % 50}]] }
for {set i 0} {$i < 5000} {incr i 3} { unset -nocomplain a($i) }
puts "array [array size a]"

set f 1
for {set i 1} {$i < 400} {incr i} { set f [expr {$f * $i}] }
puts "numbers [digest $f]"

for {set k 0} {$k < 20} {incr k} {
    interp create i$k
    lappend results [i$k eval {
        proc fib n { expr {$n < 2 ? $n : [fib [expr {$n - 1}]] + [fib [expr {$n - 2}]]} }
        namespace eval space { variable v [lrepeat 1000 text] }
        expr {[fib 12] + [llength $space::v]}
    }]
    if {$k % 2} { interp delete i$k }
}
puts "interpreters $results"
proc counter {} { for {set i 0} {$i < 5} {incr i} { yield $i } ; return end }
for {set k 0} {$k < 500} {incr k} { coroutine c$k counter ; c$k }
puts "coroutines [c7] [llength [info commands c*]]"
puts "zlib [expr {[zlib decompress [zlib compress [encoding convertto utf-8 $text] 9]] eq [encoding convertto utf-8 $text]}]"
puts "exec [exec echo child | cat]"
EOF
tclsh program.tcl "$([ "${1:-}" = brief ] && echo 100 || echo 60000)"
