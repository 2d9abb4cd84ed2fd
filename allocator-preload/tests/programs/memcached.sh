#!/usr/bin/env bash
# memcached: four threads and eight clients, which set, get and delete values of all lengths.
# packages: memcached python3-minimal
# program: memcached
set -euo pipefail
n=20000
[ "${1:-}" != brief ] || n=50
memcached -s "$PWD/socket" -t 4 -m 64 -u "$(id -un)" -o modern &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for ((i = 0; i < 100; i++)); do [ ! -S socket ] || break; sleep 0.1; done
python3 -I - "$n" <<'EOF'
import socket, sys, threading
n = int(sys.argv[1])
results = [None] * 8
def client(number):
    s = socket.socket(socket.AF_UNIX)
    s.connect("socket")
    f = s.makefile("rwb")
    x, wrong, found = number + 1, 0, 0
    for i in range(n // 8):
        x = x * 16807 % 2147483647
        key, value = b"k%d-%d" % (number, x % 500), b"v%d " % x * (x % 200)
        f.write(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
        f.flush()
        wrong += f.readline() != b"STORED\r\n"
        f.write(b"get %s\r\n" % key)
        f.flush()
        line = f.readline()
        if line.startswith(b"VALUE"):
            found += f.read(int(line.split()[3]) + 2)[:-2] == value
            f.readline()
        if i % 5 == 0:
            f.write(b"delete %s\r\n" % key)
            f.flush()
            wrong += f.readline() != b"DELETED\r\n"
    results[number] = (wrong, found)
threads = [threading.Thread(target=client, args=(k,)) for k in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(results)
EOF
kill "$server"
trap - EXIT
wait "$server" || true
