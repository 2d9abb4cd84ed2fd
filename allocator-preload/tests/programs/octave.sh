#!/usr/bin/env bash
# Octave: cells, strings, structures, maps, handles, sorted and sparse matrices, and what is saved and loaded again.
# packages: octave
# program: octave-cli
# bindings: brief
set -euo pipefail
cat >program.m <<'END'
n = str2double(argv(){1});
function d = digest(text)
    d = mod(sum(double(text) .* mod(1:numel(text), 9973)), 1000003);
end
c = cell(1, n);
for i = 1:n, c{i} = sprintf('%d-%d', mod(i, 89), mod(i * 7, 1000)); end
u = unique(c);
printf('cells %d %d\n', numel(u), digest(strjoin(u, ',')));
printf('changed %d\n', digest(strjoin(cellfun(@(x) [x 'a'], u, 'UniformOutput', false), '')));
printf('replaced %d\n', digest(regexprep(strjoin(c, ' '), '(\d)-(\d)', '$2+$1')));
s = struct();
for i = 1:n / 10, s.(sprintf('f%d', i)) = mod((1:10) * i, 13); end
printf('fields %d\n', sum(cellfun(@(f) sum(s.(f)), fieldnames(s))));
m = containers.Map('KeyType', 'char', 'ValueType', 'any');
for i = 1:min(300, numel(u)), m(u{i}) = i * ones(1, mod(i, 20)); end
printf('map %d %d\n', m.Count, sum(cellfun(@sum, values(m))));
a = reshape(mod((1:250 * 250) * 16807, 1009), 250, 250);
for i = 1:10, b = a * a'; end
[q, k] = sort(b(:));
printf('matrices %d %d\n', sum(q(1:7:end)), mod(sum(k .* mod((1:numel(k))', 31)), 1000003));
p = sparse(mod((1:n) * 31, 499) + 1, mod((1:n) * 17, 503) + 1, 1:n);
printf('sparse %d %d\n', nnz(p), full(sum(sum(p * p'))));
f = arrayfun(@(i) @(x) x + i, 1:n / 20, 'UniformOutput', false);
printf('handles %d\n', sum(cellfun(@(g) g(1), f)));
t = '';
for i = 1:n / 10, t = [t sprintf('%d,', i)]; end
printf('grown %d %d\n', numel(t), sum(eval(['[' t ']'])));
save('-binary', 'state.bin', 'c', 's', 'b', 'p');
w = load('state.bin');
assert(isequal(w.c, c) && isequal(w.s, s) && isequal(w.b, b) && isequal(w.p, p));
z = 0;
for i = 1:200, z = z + sum(zeros(1, 2 ^ mod(i, 18)) + i); end
printf('vectors %d\n', z);
try, error('as it should'); catch e, disp(e.message); end
END
n=40000
[ "${1:-}" != brief ] || n=200
octave-cli --norc --no-history program.m "$n"
