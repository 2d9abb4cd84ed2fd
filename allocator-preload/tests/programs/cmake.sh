#!/usr/bin/env bash
# CMake: its language with lists, strings, expressions, JSON and files; and a project without a compiler, configured and built.
# packages: cmake make
# program: cmake
set -euo pipefail
n=1500
[ "${1:-}" != brief ] || n=5
cat >script.cmake <<'EOF'
set(x 1)
set(list)
foreach(i RANGE 1 ${N})
  math(EXPR x "${x} * 16807 % 2147483647")
  math(EXPR k "${x} % 300")
  list(APPEND list "item${k}")
  string(APPEND text_${k} "${i},")
endforeach()
list(REMOVE_DUPLICATES list)
list(SORT list COMPARE NATURAL)
list(TRANSFORM list TOUPPER)
list(LENGTH list length)
string(SHA256 digest "${list}")
message(STATUS "lists ${length} ${digest}")
string(REGEX REPLACE "ITEM([0-9])([0-9]*)" "\\2-\\1" changed "${list}")
string(REPLACE ";" "," joined "${list}")
string(REGEX MATCHALL "[0-9]1," found "${joined},")
string(SHA256 digest "${changed}")
list(LENGTH found length)
message(STATUS "strings ${length} ${digest}")
set(json "{}")
foreach(k RANGE 0 60)
  string(JSON json SET "${json}" "k${k}" "[\"${text_${k}}\", ${k}]")
endforeach()
string(JSON length LENGTH "${json}")
message(STATUS "json ${length}")
function(fib n out)
  if(n LESS 2)
    set(${out} ${n} PARENT_SCOPE)
  else()
    math(EXPR a "${n} - 1")
    math(EXPR b "${n} - 2")
    fib(${a} left)
    fib(${b} right)
    math(EXPR sum "${left} + ${right}")
    set(${out} ${sum} PARENT_SCOPE)
  endif()
endfunction()
fib(14 result)
message(STATUS "fib ${result}")
foreach(i RANGE 1 50)
  file(WRITE files/${i} "${list}")
endforeach()
file(GLOB_RECURSE all files/*)
list(LENGTH all length)
message(STATUS "files ${length}")
EOF
cmake -DN="$n" -P script.cmake
mkdir project
cat >project/CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.16)
project(generated LANGUAGES NONE)
foreach(i RANGE 1 ${N})
  add_custom_command(OUTPUT ${i}.out COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_SOURCE_DIR}/CMakeLists.txt ${i}.out)
  list(APPEND outputs ${i}.out)
endforeach()
add_custom_target(copies ALL DEPENDS ${outputs})
configure_file(CMakeLists.txt copy @ONLY)
EOF
parts=60
[ "${1:-}" != brief ] || parts=2
cmake -DN=$parts -S project -B build >/dev/null
cmake --build build -j 2 >/dev/null
cat build/*.out | sha256sum
cmp project/CMakeLists.txt build/copy
cmake -E tar cf archive.tar --mtime=2001-01-01 build/*.out
cmake -E tar tf archive.tar | wc -l
