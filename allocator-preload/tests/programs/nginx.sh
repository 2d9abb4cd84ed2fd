#!/usr/bin/env bash
# nginx: two workers that serve files, compressed ones, and each other through a proxy with a cache, are told to begin anew, and end.
# packages: nginx-light curl
# program: nginx
set -euo pipefail
mkdir html cache
n=300
[ "${1:-}" != brief ] || n=5
for ((i = 0; i < 20; i++)); do yes "line $i of this file" | head -n $((i * i * 10)) >html/$i.txt || true; done
cat >conf <<EOF
worker_processes 2;
pid $PWD/pid;
error_log $PWD/error.log;
user $(id -un) $(id -gn);
events { worker_connections 256; }
http {
    access_log $PWD/access.log;
    client_body_temp_path $PWD/body; proxy_temp_path $PWD/proxy; fastcgi_temp_path $PWD/fastcgi;
    uwsgi_temp_path $PWD/uwsgi; scgi_temp_path $PWD/scgi;
    gzip on; gzip_types text/plain; gzip_min_length 100;
    proxy_cache_path $PWD/cache keys_zone=c:1m;
    server { listen unix:$PWD/files; root $PWD/html; default_type text/plain; etag off; add_header X-Name "\$uri \$arg_k"; }
    server { listen unix:$PWD/front; proxy_cache c; proxy_cache_valid 1h; location / { proxy_pass http://unix:$PWD/files:; } }
}
EOF
nginx -e "$PWD/error.log" -p "$PWD" -c "$PWD/conf"
for ((i = 0; i < 100; i++)); do [ ! -S front ] || [ ! -s pid ] || break; sleep 0.1; done
server=$(cat pid)
trap 'kill "$server" 2>/dev/null || true' EXIT
ask() {
    for ((i = 0; i < n; i++)); do
        printf 'url = "http://host/%d.txt?k=%d"\noutput = "out.%s.%d"\n' $((i * 7 % 21)) "$i" "$1" "$i"
    done >urls.$1
    curl -s --unix-socket "$1" ${2:-} -K urls.$1
    for ((i = 0; i < n; i++)); do cat "out.$1.$i"; done | md5sum
}
ask files
ask front --compressed
kill -HUP "$server"
sleep 0.5
ask front
curl -s --unix-socket front --head 'http://host/3.txt?k=9' | tr -d '\r' | grep '^X-Name\|^HTTP'
kill -QUIT "$server"
for ((i = 0; i < 100; i++)); do kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
kill -0 "$server" 2>/dev/null && echo "it goes on" || echo "ended"
trap - EXIT
wc -l <access.log
grep -c 'emerg\|alert\|crit' error.log || true
