#!/usr/bin/env bash
# The assembler, the linker and what reads and rewrites their output.
# packages: binutils
# program: as
set -euo pipefail
digest() { sha256sum | cut -c1-16; }
functions=1500
[ "${1:-}" != brief ] || functions=2

# $1: the number of functions, each of which calls the one before.
assembly() {
    awk -v n="$1" 'BEGIN {
        print ".text\n.globl _start\n_start:\n\tcall f" n - 1 "\n\tmov $60, %eax\n\txor %edi, %edi\n\tsyscall"
        for (i = 0; i < n; i++) {
            printf ".section .text.f%d,\"ax\"\n.globl f%d\n.type f%d, @function\nf%d:\n", i, i, i, i
            for (j = 0; j < 8; j++) printf "\tadd $%d, %%rax\n.Ll%d_%d:\tcmp %%rax, %%rbx\n\tjne .Ll%d_%d\n", i * j, i, j, i, j
            if (i > 0) printf "\tcall f%d\n", i - 1
            printf "\tlea text%d(%%rip), %%rcx\n\tret\n.size f%d, .-f%d\n", i, i, i
            printf ".section .rodata.str1.1,\"aMS\",@progbits,1\ntext%d:\t.string \"text number %d\"\n", i, i % 977
        }
    }'
}

assembly "$functions" >program.s
as -o program.o program.s
ld -o program --gc-sections --sort-section=name program.o
ld -r -o again.o program.o
for file in program.o program again.o; do
    echo "$file $(digest <"$file") $(objdump -dr "$file" | digest) $(readelf -aW "$file" | digest)"
done
ar Drcs library.a program.o again.o
nm library.a | digest
strip -o stripped program
objcopy --only-keep-debug program debug
objcopy -O binary -j .text program text
sha256sum stripped debug text
strings -a program | sort | digest
