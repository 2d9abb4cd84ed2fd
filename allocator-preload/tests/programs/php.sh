#!/usr/bin/env bash
# PHP: arrays, strings, expressions, objects, generators, and extensions, which it opens with RTLD_DEEPBIND and which free what it
# has allocated; with its own allocator, and with malloc instead of it. The brief run is without extensions, for they are bound to
# the C library first.
# packages: php-cli php-xml php-intl php-sqlite3 php-zip php-mbstring
# program: php
# bindings: brief
set -euo pipefail
cat >program.php <<'EOF'
<?php
declare(strict_types=1);
$n = (int) $argv[1];
$x = 1;
function draw(): int { global $x; return $x = $x * 16807 % 2147483647; }
function digest(string $text): string { return substr(hash('sha256', $text), 0, 16); }

$table = [];
for ($i = 0; $i < $n; $i++) { $table['key' . draw() % 3000][] = $i; }
foreach (array_keys($table) as $k) { if (str_ends_with($k, '7')) { unset($table[$k]); } }
ksort($table);
echo 'arrays ', count($table), ' ', digest(json_encode($table)), "\n";
echo 'copies ', digest(serialize(unserialize(serialize(json_decode(json_encode($table), true))))), "\n";

$text = '';
for ($i = 0; $i < $n; $i++) { $text .= 'word' . draw() % 500 . ' '; }
$changed = preg_replace_callback('/word(\d)(\d*)/', fn($m) => "$m[2]-$m[1]", $text);
echo 'strings ', strlen($text), ' ', digest($changed), ' ', preg_match_all('/(?<=word)(\d)\d\1/', $text), "\n";
echo 'words ', digest(implode(',', array_unique(explode(' ', strtoupper($text))))), ' ', levenshtein('kitten', 'sitting'), "\n";

class Node { public ?Node $other = null; public function __construct(public int $number, public string $name) {} }
$list = [];
for ($i = 0; $i < $n / 4; $i++) {
    $list[] = $node = new Node(draw() % 1000, "n$i");
    $node->other = new Node($i, 'cycle');
    $node->other->other = $node;
}
usort($list, fn($a, $b) => [$a->number, $a->name] <=> [$b->number, $b->name]);
echo 'objects ', digest(implode(',', array_map(fn($o) => $o->name, $list))), "\n";
$list = [];
echo 'cycles ', gc_collect_cycles() > 0 ? 'collected' : 'none', "\n";

function numbers(int $n) { for ($i = 0; $i < $n; $i++) { yield $i => str_repeat('g', $i % 50); } }
$sum = 0;
foreach (numbers($n) as $k => $v) { $sum += $k % 7 + strlen($v); }
echo "generators $sum\n";

$heap = new SplPriorityQueue();
foreach (range(1, intdiv($n, 5)) as $i) { $heap->insert("v$i", draw()); }
$fixed = new SplFixedArray(1000);
foreach (range(0, 999) as $i) { $fixed[$i] = $heap->isEmpty() ? '' : $heap->extract(); }
echo 'heaps ', digest(implode(',', $fixed->toArray())), "\n";
$fiber = new Fiber(function (int $a): int { while ($a < 100) { $a += Fiber::suspend(str_repeat('f', $a)); } return $a; });
for ($fiber->start(1); !$fiber->isTerminated(); $fiber->resume(9));
echo 'fibers ', $fiber->getReturn(), "\n";
echo 'evaluated ', array_sum(array_map(fn($i) => eval("return (function () { return $i * 2; })();"), range(1, 300))), "\n";
$large = array_map(fn($i) => str_repeat(chr($i), 1 << $i % 21), range(1, 60));
echo 'large ', digest(implode('', array_map('md5', $large))), "\n";
if (!extension_loaded('dom')) { exit; }

$document = new DOMDocument();
$root = $document->appendChild($document->createElement('root'));
for ($i = 0; $i < $n / 20; $i++) { $root->appendChild($document->createElement('item', "text $i"))->setAttribute('k', (string) ($i % 17)); }
$document->loadXML($document->saveXML());
$found = (new DOMXPath($document))->query('//item[@k="3"]');
echo 'xml ', strlen($document->saveXML()), ' ', $found->length, ' ', simplexml_import_dom($document)->item[5], "\n";
$words = array_map(fn($i) => 'wörter' . draw() % 5000, range(1, intdiv($n, 10)));
collator_sort(new Collator('de_DE'), $words);
echo 'collated ', digest(implode(',', $words)), ' ', (new NumberFormatter('en_US', NumberFormatter::SPELLOUT))->format(1234567), "\n";
echo 'normal ', digest(Normalizer::normalize(mb_strtoupper(implode('', $words)), Normalizer::FORM_D)), "\n";
$database = new PDO('sqlite::memory:');
$database->exec('CREATE TABLE t (k INTEGER, v TEXT)');
$database->beginTransaction();
$insert = $database->prepare('INSERT INTO t VALUES (?, ?)');
foreach ($words as $i => $word) { $insert->execute([$i % 100, $word]); }
$database->commit();
echo 'rows ', digest(json_encode($database->query('SELECT k, count(*), min(v) FROM t GROUP BY k ORDER BY k')->fetchAll())), "\n";
$zip = new ZipArchive();
$zip->open('archive.zip', ZipArchive::CREATE);
foreach (range(1, 50) as $i) { $zip->addFromString("file$i", str_repeat($words[$i], $i * 100)); }
$zip->close();
$zip->open('archive.zip');
echo 'zip ', $zip->numFiles, ' ', digest($zip->getFromName('file49')), "\n";
EOF
if [ "${1:-}" = brief ]; then
    php -n program.php 100
    exit
fi
php program.php 200000
USE_ZEND_ALLOC=0 php program.php 200000
