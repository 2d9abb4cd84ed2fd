#!/usr/bin/env bash
# bc: numbers of thousands of digits, by recursion and by series.
# packages: bc
# program: bc
set -euo pipefail
if [ "${1:-}" = brief ]; then
    echo '2 ^ 1000' | bc
    exit
fi
bc -l <<'EOF'
define f(n) { if (n < 2) return 1; return n * f(n - 1); }
define b(n) { auto i, a[], j; a[0] = 1; for (i = 1; i <= n; i++) for (j = i; j > 0; j--) a[j] += a[j - 1]; return a[n / 2]; }
f(800)
scale = 0
b(150)
2 ^ 20000 % (3 ^ 2000)
scale = 800
4 * a(1)
e(1)
sqrt(2)
ibase = 16
obase = 2
FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF
EOF
