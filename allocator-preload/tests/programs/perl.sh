#!/usr/bin/env bash
# Perl: hashes, strings, regular expressions, sorts, closures, evaluated code, references in cycles, and threads, each of which
# copies the interpreter.
# packages: perl
# program: perl
set -euo pipefail
cat >program.pl <<'EOF'
use strict;
use warnings;
use threads;
use threads::shared;
use Digest::SHA qw(sha256_hex);
use List::Util qw(sum reduce shuffle);
use Scalar::Util qw(weaken);
use Storable qw(freeze thaw dclone);
use Encode;
my $n = shift;
my $x = 1;
sub next_number { $x = $x * 16807 % 2147483647 }

my %count;
for (1 .. $n) { $count{ 'key' . next_number() % 5000 } .= chr(97 + $x % 26) }
delete @count{ grep { /7$/ } keys %count };
print 'hashes ', scalar(keys %count), ' ', sha256_hex(join ',', map { "$_=$count{$_}" } sort keys %count), "\n";

my $text = join ' ', map { 'word' . next_number() % 3000 } 1 .. $n;
(my $changed = $text) =~ s/word(\d)(\d*)/$2-$1/g;
my @found = $text =~ /\b(\w+1)\s+(\w+2)\b/g;
my %seen;
$seen{$1}++ while $text =~ /(?<=word)(\d+)(?=\s)/g;
print 'strings ', length $changed, ' ', scalar(@found), ' ', scalar(keys %seen), ' ', sha256_hex($changed), "\n";

my @sorted = sort { $a->{number} <=> $b->{number} or $a->{name} cmp $b->{name} }
    map { { number => next_number() % 1000, name => "n$_", list => [ 1 .. $_ % 10 ] } } 1 .. $n / 4;
print 'sort ', sha256_hex(join ',', map { "$_->{number}$_->{name}@{$_->{list}}" } @sorted), "\n";

my $copy = thaw(freeze(dclone(\@sorted)));
print 'storable ', sum(map { $_->{number} } @$copy), "\n";

my @closures = map { my $i = $_; sub { $i += shift } } 1 .. $n / 10;
print 'closures ', sum(map { $_->(2) } @closures), "\n";
print 'eval ', sum(map { eval "sub { my \$y = $_; \$y * 2 }->()" } 1 .. $n / 50), "\n";

for (1 .. $n / 10) {
    my $node = { children => [ map { { value => $_ } } 1 .. 5 ] };
    $_->{parent} = $node, weaken $_->{parent} for @{ $node->{children} };
}
my $wide = decode('UTF-8', "\xc3\xa4\xe2\x82\xac" x 5000);
print 'unicode ', length $wide, ' ', sha256_hex(encode('UTF-16LE', uc $wide)), "\n";
print 'pack ', sha256_hex(pack('(NnCa7)*', map { ($_, $_ % 60000, $_ % 200, "t$_") } 1 .. $n / 10)), "\n";

my $total : shared = 0;
my @threads = map {
    my $seed = $_;
    threads->create(sub {
        my %own = map { ($_ * $seed => "v$_" x ($_ % 20)) } 1 .. $n / 20;
        { lock $total; $total += length join '', values %own; }
        return scalar keys %own;
    })
} 1 .. 4;
print 'threads ', sum(map { $_->join } @threads), " $total\n";

my $child = open(my $pipe, '-|') // die;
if (!$child) { print "child ", sha256_hex($text), "\n"; exit }
print <$pipe>;
close $pipe or die;
EOF
perl program.pl "$([ "${1:-}" = brief ] && echo 100 || echo 100000)"
