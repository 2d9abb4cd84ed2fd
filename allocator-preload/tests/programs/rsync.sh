#!/usr/bin/env bash
# rsync: a tree copied, changed, and brought up to date by differences; with links, deletions and filters.
# packages: rsync
# program: rsync
set -euo pipefail
directories=60
[ "${1:-}" != brief ] || directories=2
for ((i = 0; i < directories; i++)); do
    mkdir -p "from/$((i % 7))/$i"
    for ((j = 0; j < 20; j++)); do seq "$i" $((i * j)) >"from/$((i % 7))/$i/file$j"; done
    ln -s file1 "from/$((i % 7))/$i/link"
    ln "from/$((i % 7))/$i/file2" "from/$((i % 7))/$i/hard"
done
seq 300000 >from/big
find from -exec touch -h -d @1000000000 {} +
rsync -aH from/ to/
diff -r --no-dereference from to
seq -f '%g changed' 1 5 >>from/big
sed -i '1000,2000d' from/big
rm -rf from/1
find from -name 'file3' -exec touch -d @1100000000 {} +
find from -type d -exec touch -d @1000000000 {} +
rsync -aHn --delete --itemize-changes from/ to/ | sort | sha256sum
rsync -aH --no-whole-file --delete --inplace --block-size=700 from/ to/
diff -r --no-dereference from to
rsync -a --checksum --include='*/' --include='file1*' --exclude='*' --prune-empty-dirs from/ part/
find part -type f | wc -l
rsync -az --compress-choice=zlib --no-whole-file --backup --suffix=.old --max-size=100K from/ to/
rsync -a --link-dest="$PWD/to" from/ linked/
find linked -type f -links +1 | wc -l
rsync -r --list-only --no-times part/ 2>/dev/null | wc -l
