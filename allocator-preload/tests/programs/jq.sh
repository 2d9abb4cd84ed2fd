#!/usr/bin/env bash
# jq: large values generated, grouped, sorted, searched, changed, and written and read again.
# packages: jq
# program: jq
set -euo pipefail
n=20000
[ "${1:-}" != brief ] || n=10
jq -n --argjson n "$n" '[foreach range($n) as $i (1; . * 16807 % 2147483647;
    {id: $i, number: (. % 1000), name: "n\(. % 777)", list: [range(. % 5)], deep: {a: {b: .}}})]' >data
sha256sum data
jq -c 'group_by(.number) | map({key: (.[0].number | tostring), value: (map(.id) | add)}) | from_entries' data | sha256sum
jq -c 'sort_by(.name, -.id) | .[] | [.id, .name, (.list | length)]' data | sha256sum
jq 'map(.name |= sub("n(?<d>[0-9])"; "\(.d)-n") | select(.name | test("[13579]$")))' data | sha256sum
jq -r '.[] | [.id, .name, .number] | @csv' data | sha256sum
jq -c '[paths(type == "number")] | length' data
jq -c 'walk(if type == "number" then . % 7 else . end) | unique_by(.name) | length' data
jq -c --stream 'select(length == 2)' data | sha256sum
jq -n 'reduce range(3000) as $i (""; . + "\($i),") | split(",") | length'
jq -n '[limit(200; [0, 1] | recurse([.[1], add]) | .[0])] | map(tostring | length) | add'
jq . <<<'{"broken": ' 2>error || echo "refused"
