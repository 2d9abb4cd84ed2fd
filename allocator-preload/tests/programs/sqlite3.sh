#!/usr/bin/env bash
# SQLite: tables with indices, updates, deletes, joins, text search, JSON, transactions rolled back, vacuum, a check of all.
# packages: sqlite3
# program: sqlite3
set -euo pipefail
if [ "${1:-}" = brief ]; then
    sqlite3 data.db 'CREATE TABLE t (a PRIMARY KEY, b); INSERT INTO t VALUES (1, 2); SELECT sum(a + b) FROM t; VACUUM'
    exit
fi
sqlite3 data.db <<'EOF'
PRAGMA threads = 2;
CREATE TABLE item (id INTEGER PRIMARY KEY, number INT, name TEXT, payload BLOB);
CREATE TABLE part (item INT REFERENCES item, position INT, weight REAL, PRIMARY KEY (item, position)) WITHOUT ROWID;
BEGIN;
WITH RECURSIVE n(i, x) AS (SELECT 1, 12345 UNION ALL SELECT i + 1, (x * 16807) % 2147483647 FROM n WHERE i < 60000)
    INSERT INTO item SELECT i, x % 10007, printf('name %d of %d', x % 977, i), zeroblob(x % 200) FROM n;
INSERT INTO part SELECT id, number % 7, number / 3.0 FROM item;
INSERT INTO part SELECT id, 7 + number % 5, number / 5.0 FROM item WHERE id % 2;
COMMIT;
CREATE INDEX by_number ON item (number);
CREATE UNIQUE INDEX by_name ON item (name);
CREATE INDEX by_expression ON item (number % 100, length(payload)) WHERE number > 100;
SELECT 'rows', count(*), sum(number), sum(length(payload)), count(DISTINCT name) FROM item;
SELECT 'join', count(*), round(sum(weight), 3) FROM item JOIN part ON item.id = part.item WHERE number BETWEEN 100 AND 5000;
UPDATE item SET number = (number * 31) % 10007, payload = zeroblob(length(payload) * 3) WHERE id % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
DELETE FROM part WHERE item NOT IN (SELECT id FROM item);
SELECT 'changed', count(*), sum(number), sum(length(payload)) FROM item;
BEGIN;
DELETE FROM item;
INSERT INTO item (number, name) VALUES (1, 'one');
SELECT 'within', count(*) FROM item;
ROLLBACK;
SELECT 'group', number % 10, count(*), group_concat(substr(name, 1, 8)) FROM (SELECT * FROM item ORDER BY id LIMIT 200) GROUP BY 2;
SELECT 'window', sum(r * k) FROM (SELECT row_number() OVER (PARTITION BY number % 50 ORDER BY name) r,
    lag(number, 1, 0) OVER (ORDER BY id) k FROM item);
SELECT 'sorted', substr(group_concat(name), 1, 100) FROM (SELECT name FROM item ORDER BY payload, name DESC);
CREATE VIRTUAL TABLE words USING fts5(text);
INSERT INTO words SELECT name || ' ' || number FROM item;
SELECT 'search', count(*) FROM words WHERE words MATCH 'name AND 42*';
INSERT INTO words (words) VALUES ('optimize');
INSERT INTO words (words) VALUES ('integrity-check');
SELECT 'json', sum(json_extract(j, '$.a[1]')), sum(json_array_length(j, '$.a'))
    FROM (SELECT json_object('id', id, 'a', json_array(number, id, name)) j FROM item);
CREATE TABLE copy AS SELECT * FROM item ORDER BY name;
DROP TABLE copy;
VACUUM;
PRAGMA integrity_check;
PRAGMA foreign_key_check;
ANALYZE;
SELECT 'pages', page_count FROM pragma_page_count;
EOF
sqlite3 data.db .dump | sha256sum
sqlite3 data.db .dump | sqlite3 again.db
sqlite3 again.db 'PRAGMA integrity_check; SELECT sum(number) FROM item'
