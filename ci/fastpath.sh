#!/usr/bin/env bash
# Checks the fast path in a user's binary that was built without LTO: what rustc calls to allocate and to free holds
# no locked instruction and no call of __tls_get_addr, and reaches the thread's block through the thread register.
# Slow paths are functions of their own and are not looked at. ci/count.sh checks the same by execution: its
# column `locked` counts the locked instructions of every operation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "$(uname -m)" != x86_64 ]; then
    echo "fastpath: reads x86-64 only; skipped"
    exit 0
fi

disassembly=$(ci/disasm.sh)
for operation in alloc dealloc; do
    # The shim, and Kmalloc's function where it has not been inlined into it.
    code=$(awk -v shim="__rust_${operation}>:" -v function_name="GlobalAlloc>::${operation}>:" '
        /^[0-9a-f]+ <.*>:$/ { show = index($0, shim) || index($0, function_name) }
        show' <<<"$disassembly")
    if [ -z "$code" ]; then
        echo "fastpath: $operation: no such function in the binary" >&2
        exit 1
    fi
    # An `xchg` with memory locks without saying so.
    if found=$(grep -E '\block\b|xchg.*\(|__tls_get_addr' <<<"$code"); then
        printf 'fastpath: %s holds what it must not:\n%s\n' "$operation" "$found" >&2
        exit 1
    fi
    if ! grep -q '%fs:' <<<"$code"; then
        printf 'fastpath: %s does not use the thread register; this is no fast path:\n%s\n' "$operation" "$code" >&2
        exit 1
    fi
    echo "fastpath: $operation: $(grep '^ ' <<<"$code" | grep -vc 'int3\|nop') instructions in the function, none locked, no __tls_get_addr"
done
