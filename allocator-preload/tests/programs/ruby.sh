#!/usr/bin/env bash
# Ruby: hashes, strings, arrays, symbols, big numbers, threads, fibers, processes; without the compacting collector.
# packages: ruby
# program: ruby
set -euo pipefail
cat >program.rb <<'EOF'
require 'digest'
require 'json'
require 'set'
require 'stringio'
require 'zlib'
n = Integer(ARGV[0])
$x = 1
def draw = $x = $x * 16807 % 2147483647
def digest(text) = Digest::SHA256.hexdigest(text)[0, 16]

hash = Hash.new { |h, k| h[k] = [] }
n.times { |i| hash["key#{draw % 3000}"] << i }
hash.delete_if { |k, _| k.end_with?('7') }
puts "hashes #{hash.size} #{digest(hash.sort.inspect)}"

text = +''
n.times { text << "word#{draw % 500} " }
puts "strings #{text.bytesize} #{digest(text.gsub(/word(\d)(\d*)/) { "#{$2}-#{$1}" })} #{text.scan(/(?<=word)(\d)\d\1/).size}"
puts "cut #{digest((0...n / 10).map { |i| text[i * 7, i % 100] }.sort.join("\n"))}"

list = Array.new(n) { draw % 100_000 }
20.times { |k| list.concat(list.shift(n / 20)).rotate!(k).insert(k * 10, *[k] * 50) }
puts "arrays #{list.size} #{list.each_slice(7).sum { |s| s.max - s.min }} #{digest(list.sort.uniq.join(','))}"

puts "json #{digest(JSON.generate(JSON.parse(JSON.generate(hash))))}"
puts "symbols #{(0...n / 10).map { |i| :"symbol#{i}" }.to_set.size}"
puts "numbers #{digest((1..600).inject(:*).to_s)} #{3**5000 % 1_000_007}"
packed = Zlib::Deflate.deflate(text, 9)
puts "zlib #{Zlib::Inflate.inflate(packed) == text}"
Record = Struct.new(:a, :b, :c)
records = Marshal.load(Marshal.dump(Array.new(n / 5) { |i| Record.new(i, "b#{i}", [i] * (i % 8)) }))
puts "records #{records.sum { |r| r.a + r.c.size }}"

queue = Queue.new
consumers = 3.times.map { Thread.new { s = 0; while (t = queue.pop) != :end do s += t.bytesize end; s } }
producers = 3.times.map { |k| Thread.new { (n / 20).times { |i| queue << "message #{k} #{i}" * (i % 10) } } }
producers.each(&:join)
3.times { queue << :end }
puts "threads #{consumers.sum(&:value)}"

fibers = (n / 100).times.map { |k| Fiber.new { s = "fiber #{k}"; 3.times { |i| Fiber.yield s * i } } }
puts "fibers #{fibers.sum { |f| 3.times.sum { f.resume.size } }}"
GC.start
puts IO.popen('-') { |io| io ? io.read : puts("child #{digest(text)}") }
puts "spawn #{IO.popen(['ruby', '-e', 'print (1..1000).map(&:to_s).join.size']).read}"
EOF
ruby --disable-gems program.rb "$([ "${1:-}" = brief ] && echo 200 || echo 100000)"
