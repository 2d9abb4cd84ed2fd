#!/usr/bin/env bash
# PostgreSQL: a process for each of eight clients and those of the server itself; inserts, changes, sorts, joins, JSON, text search
# and indexes, functions in its own language, a dump that is loaded again. The server wants a user who is not root.
# packages: postgresql
# program: postgres
set -euo pipefail
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as=()
if [ "$(id -u)" = 0 ]; then
    chmod 755 .. ../..
    mkdir data && chown postgres data
    # What says who was there and what was bound.
    [ -z "${KMALLOC_STATS:-}" ] || chmod 666 "$KMALLOC_STATS"
    [ -z "${LD_DEBUG_OUTPUT:-}" ] || chmod 777 "$(dirname "$LD_DEBUG_OUTPUT")"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
"${as[@]}" $bin/initdb -D data -U root --no-sync --locale=C --encoding=UTF8 >/dev/null
cat >>data/postgresql.conf <<EOF
listen_addresses = ''
unix_socket_directories = '$PWD/data'
fsync = off
max_parallel_workers_per_gather = 2
EOF
"${as[@]}" $bin/postgres -D data >data/log 2>&1 &
server=$!
trap 'kill -QUIT "$server" 2>/dev/null && wait "$server" || true' EXIT
client=($bin/psql -h "$PWD/data" -U root -X -q -A -t -v ON_ERROR_STOP=1)
for ((i = 0; i < 200; i++)); do
    ! "${client[@]}" postgres -c 'SELECT 1' >/dev/null 2>&1 || break
    kill -0 "$server" || { cat data/log >&2 && exit 1; }
    sleep 0.05
done
rows=20000 turns=10
[ "${1:-}" != brief ] || rows=10 turns=1
"${client[@]}" postgres -c 'CREATE DATABASE work'
"${client[@]}" work <<'EOF'
CREATE TABLE item (client int, k int, name text, body text, data jsonb, PRIMARY KEY (client, k));
CREATE INDEX ON item (name);
CREATE INDEX ON item USING gin (data);
CREATE FUNCTION digest(n int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE s text := ''; h bigint := 0;
BEGIN
    FOR i IN 1..n LOOP
        s := s || chr(97 + i % 26);
        h := (h * 31 + length(s) + ascii(right(s, 1))) % 1000000007;
        BEGIN
            IF i % 50 = 0 THEN RAISE EXCEPTION 'fifty'; END IF;
        EXCEPTION WHEN raise_exception THEN h := h + 1;
        END;
    END LOOP;
    RETURN h;
END $$;
EOF
# $1: the client.
serve() {
    cat <<EOF
INSERT INTO item SELECT $1, k, 'name' || k * 16807 % 997, repeat('text' || k % 31 || ' ', k % 40),
    jsonb_build_object('k', k, 'list', jsonb_build_array(k % 7, 'v' || k % 11, NULL)) FROM generate_series(1, $rows / 8) AS k;
EOF
    for ((i = 0; i < turns; i++)); do
        cat <<EOF
UPDATE item SET body = body || 'more', name = 'n' || k % 50 + $i WHERE client = $1 AND k % 20 = $((i % 20));
DELETE FROM item WHERE client = $1 AND k % 101 = $i;
SELECT length(string_agg(name, ',' ORDER BY k)) > 0 FROM item WHERE client = $1;
SELECT digest(300 + $i);
EOF
    done
}
clients=()
for ((c = 1; c <= 8; c++)); do
    serve $c | "${client[@]}" work >answers.$c &
    clients+=($!)
done
for c in "${clients[@]}"; do wait "$c"; done
cat answers.*
cat >last.sql <<'EOF'
SELECT count(*), sum(k), sum(length(body)), md5(string_agg(name || body, '' ORDER BY client, k)) FROM item;
SELECT name, count(*) AS n, max(length(body)) FROM item GROUP BY name ORDER BY n DESC, name LIMIT 10;
SELECT count(*), sum(a.k - b.k) FROM item a JOIN item b ON a.name = b.name AND a.client = b.client + 1;
SELECT count(*), md5(string_agg(data::text, '' ORDER BY client, k)) FROM item WHERE data @> '{"list": ["v3"]}';
SELECT count(*) FROM item WHERE to_tsvector('simple', body) @@ to_tsquery('simple', 'text3 & more');
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5000) SELECT sum(n) FROM r;
SELECT md5(string_agg(x, ',')) FROM (SELECT regexp_replace(name, '(\d)(\d)', '\2-\1', 'g') AS x FROM item ORDER BY client, k LIMIT 5000) AS t;
SELECT length(xmlelement(name a, xmlagg(xmlelement(name b, name) ORDER BY client, k))::text) FROM item WHERE k < 100;
EOF
"${client[@]}" work -f last.sql | tee first
"${client[@]}" work -c 'VACUUM FULL ANALYZE item' -c 'REINDEX TABLE item'
$bin/pg_dump -h "$PWD/data" -U root work >dump.sql
"${client[@]}" postgres -c 'CREATE DATABASE again'
"${client[@]}" again -f dump.sql >/dev/null
"${client[@]}" again -f last.sql | cmp - first && echo "the same"
"${client[@]}" work -c 'SELECT 1 / 0' 2>&1 || true
kill -INT "$server"
trap - EXIT
wait "$server"
