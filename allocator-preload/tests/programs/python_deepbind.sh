#!/usr/bin/env bash
# Python's extensions, opened with RTLD_DEEPBIND as some programs ask it to: SQLite, OpenSSL, readline and compressors free what they are
# given from the program's heap. The brief run opens them as usual, for else they are bound to the C library first.
# packages: python3
# program: python3
# bindings: brief
set -euo pipefail
cat >program.py <<'EOF'
import os, sys
if len(sys.argv) == 1: sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
import bz2, ctypes, curses, _decimal, hashlib, json, lzma, readline, sqlite3, ssl, uuid, zlib

database = sqlite3.connect(":memory:")
database.execute("create table t (a, b)")
database.executemany("insert into t values (?, ?)", [(i, f"text {i * 7919 % 1000}") for i in range(50000)])
print("rows", database.execute("select sum(a), count(distinct b), max(b) from t where b like '%1%'").fetchone())
data = b"".join(b"%d " % (i * i % 1009) for i in range(100000))
print("packed", *(len(pack(data)) for pack in (bz2.compress, lzma.compress, zlib.compress)), lzma.decompress(lzma.compress(data)) == data)
print("hashed", hashlib.new("sha256", data).hexdigest()[:16], ssl.create_default_context().verify_mode.name)
for i in range(1000): readline.add_history(f"line {i}")
print("history", readline.get_current_history_length(), readline.get_history_item(500))
readline.clear_history()
print("decimal", _decimal.Decimal(2).sqrt(_decimal.Context(prec=60)), json.loads(json.dumps([1.5, "a" * 10])))
EOF
if [ "${1:-}" = brief ]; then
    python3 program.py plain
    exit
fi
PYTHONMALLOC=malloc python3 program.py
python3 program.py
