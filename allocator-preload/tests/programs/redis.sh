#!/usr/bin/env bash
# Redis: its own benchmark, then a database that is always the same, saved, loaded again, rewritten and defragmented.
# The package of the server would start one; the program is in that of the tools, by another name.
# packages: redis-tools
# program: redis-server|redis-check-rdb
set -euo pipefail
ln -s "$(command -v redis-check-rdb)" redis-server
cli=(redis-cli -s socket)
requests=20000
[ "${1:-}" != brief ] || requests=10

./redis-server --port 0 --unixsocket socket --save '' --io-threads 2 --io-threads-do-reads yes --enable-debug-command yes \
    --appenddirname append --logfile log >/dev/null &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for ((i = 0; i < 100; i++)); do
    [ "$("${cli[@]}" PING 2>/dev/null)" != PONG ] || break
    sleep 0.1
done

# Only the names of the tests, and only if each of them came to an end.
redis-benchmark -s socket -t set,get,lpush,hset,zadd -n "$requests" -r 10000 -d 100 -P 4 --csv | cut -d, -f1
redis-benchmark -s socket -t lrange -n $((requests / 10)) -P 4 --csv | cut -d, -f1
"${cli[@]}" FLUSHALL ASYNC

# Numbers in the keys and lengths of all kinds, so that every encoding of a value is there.
"${cli[@]}" EVAL '
    for i = 1, tonumber(ARGV[1]) do
        local x = (i * 16807) % 10007
        redis.call("SET", "string:" .. i, string.rep("v" .. x, x % 60))
        redis.call("HSET", "hash:" .. i % 100, "field" .. x, i)
        redis.call("ZADD", "sorted:" .. i % 50, x, "member" .. i)
        redis.call("RPUSH", "list:" .. i % 30, string.rep("e", x % 200))
        redis.call("SADD", "set:" .. i % 40, i % 3 == 0 and x or "m" .. x)
        redis.call("XADD", "stream:" .. i % 5, i .. "-1", "a", x)
        if i % 7 == 0 then redis.call("DEL", "string:" .. i - 3) end
        if i % 11 == 0 then redis.call("APPEND", "string:" .. i, string.rep("w", 3 * x)) end
    end
    return redis.call("DBSIZE")' 0 "$requests"
first=$("${cli[@]}" DEBUG DIGEST)
echo "$first"
"${cli[@]}" SAVE
"${cli[@]}" DEBUG RELOAD
[ "$("${cli[@]}" DEBUG DIGEST)" = "$first" ] && echo "the same"
"${cli[@]}" INFO keyspace | tr -d '\r'
"${cli[@]}" EVAL 'local s = redis.sha1hex("") for i = 0, 49 do
    s = redis.sha1hex(s .. table.concat(redis.call("ZRANGE", "sorted:" .. i, 0, -1), ",")) end return s' 0
"${cli[@]}" LRANGE list:3 0 5
"${cli[@]}" CONFIG SET appendonly yes
for ((i = 0; i < 100; i++)); do
    "${cli[@]}" INFO persistence | grep 'aof_rewrite_in_progress:1\|aof_rewrite_scheduled:1' >/dev/null || break
    sleep 0.1
done
"${cli[@]}" DEBUG LOADAOF
[ "$("${cli[@]}" DEBUG DIGEST)" = "$first" ] && echo "the same"
"${cli[@]}" MEMORY PURGE
"${cli[@]}" MEMORY USAGE absent
[ "$("${cli[@]}" INFO memory | sed -n 's/^used_memory:\([0-9]*\).*/\1/p')" -gt 100000 ] && echo "memory is counted"
"${cli[@]}" FLUSHALL SYNC
"${cli[@]}" DBSIZE
"${cli[@]}" SHUTDOWN NOSAVE
trap - EXIT
wait "$server"
