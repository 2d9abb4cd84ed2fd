#!/usr/bin/env bash
# MariaDB: a server whose threads serve eight clients at once, which insert, change, join and group; every client of it is a
# process, too. What the tables hold in the end is the same whoever was first.
# packages: mariadb-server-core mariadb-client
# program: mariadbd
set -euo pipefail
mariadb-install-db --no-defaults --force --datadir="$PWD/data" --auth-root-authentication-method=normal --skip-test-db >installed 2>&1 ||
    { cat installed >&2 && exit 1; }
mariadbd --no-defaults --user="$(id -un)" --datadir="$PWD/data" --socket="$PWD/socket" --skip-networking --innodb-buffer-pool-size=32M \
    --innodb-flush-log-at-trx-commit=0 --innodb-flush-method=nosync --transaction-isolation=READ-COMMITTED --log-error="$PWD/log" \
    --pid-file="$PWD/pid" >/dev/null 2>&1 &
server=$!
trap 'kill -KILL "$server" 2>/dev/null && wait "$server" || true' EXIT
client=(mariadb --no-defaults --socket="$PWD/socket" --user=root --batch --skip-column-names)
for ((i = 0; i < 1000; i++)); do
    ! "${client[@]}" -e 'SELECT 1' >/dev/null 2>&1 || break
    kill -0 "$server" || { cat log >&2 && exit 1; }
    sleep 0.02
done
rows=4000 turns=25
[ "${1:-}" != brief ] || rows=10 turns=1
"${client[@]}" -e "CREATE DATABASE work; USE work;
    CREATE TABLE item (k INT, client INT, name VARCHAR(100), body TEXT, PRIMARY KEY (client, k), KEY (name)) ENGINE=InnoDB;
    CREATE TABLE log (client INT, k INT, text VARCHAR(200)) ENGINE=Aria;"

# $1: the client.
serve() {
    for ((i = 0; i < rows; i += 100)); do
        printf "INSERT INTO item VALUES (%d, -$1, '', '')" $i
        for ((k = i; k < i + 100 && k < rows; k++)); do
            printf ', (%d, %d, "name%d", REPEAT("text%d ", %d))' $k "$1" $((k * 16807 % 997)) $((k % 31)) $((k % 40))
        done
        echo ';'
    done
    for ((i = 0; i < turns; i++)); do
        echo "UPDATE item SET body = CONCAT(body, 'more'), name = CONCAT('n', k % 50 + $i) WHERE client = $1 AND k % 20 = $((i % 20));"
        echo "SELECT COUNT(*), SUM(LENGTH(names)) INTO @a, @b FROM (SELECT GROUP_CONCAT(name ORDER BY k) AS names"
        echo "    FROM item WHERE client = $1 GROUP BY k % 37) AS t;"
        echo "INSERT INTO log SELECT $1, a.k, LEFT(CONCAT(a.name, b.body), 200) FROM item a JOIN item b ON b.client = a.client AND b.k = a.k + $i"
        echo "    WHERE a.client = $1 AND a.k % 50 = $i;"
        echo "DELETE FROM item WHERE client = $1 AND k % 101 = $i;"
        echo "SET @j = (SELECT JSON_LENGTH(JSON_ARRAYAGG(JSON_OBJECT('k', k, 'name', name))) FROM item WHERE client = $1 AND k < 500);"
    done
}
clients=()
for ((c = 1; c <= 8; c++)); do
    serve $c | "${client[@]}" work &
    clients+=($!)
done
for c in "${clients[@]}"; do wait "$c"; done
"${client[@]}" work -e "SELECT COUNT(*), SUM(k), SUM(LENGTH(body)), SUM(CRC32(CONCAT(name, body))) FROM item;
    SELECT client, COUNT(*), SUM(CRC32(text)) FROM log GROUP BY client ORDER BY client;
    SELECT name, COUNT(*) AS n, MAX(LENGTH(body)) FROM item GROUP BY name ORDER BY n DESC, name LIMIT 10;
    WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 900) SELECT SUM(n) FROM r;
    ALTER TABLE item ADD KEY (body(20)), ADD COLUMN half INT AS (k / 2) STORED; CHECK TABLE item, log;
    SELECT SUM(half) FROM item;"
mariadb-admin --no-defaults --socket="$PWD/socket" --user=root shutdown
trap - EXIT
wait "$server"
