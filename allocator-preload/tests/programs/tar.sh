#!/usr/bin/env bash
# tar: archives of a generated tree in each format, listed, extended, compared and taken apart; with a gzip as its child.
# packages: tar
# program: tar
set -euo pipefail
directories=60
[ "${1:-}" != brief ] || directories=2
for ((i = 0; i < directories; i++)); do
    mkdir -p "tree/$((i % 7))/directory-with-a-long-name-$i"
    for ((j = 0; j < 20; j++)); do
        printf '%*s\n' $((i * j * 13 % 5000)) "$i $j" >"tree/$((i % 7))/directory-with-a-long-name-$i/file-$j"
    done
    ln -s "file-$((i % 20))" "tree/$((i % 7))/directory-with-a-long-name-$i/link"
done
mkdir -p "tree/$(printf 'x%.0s' {1..120})/$(printf 'y%.0s' {1..200})"
truncate -s 5M tree/sparse
printf end >>tree/sparse
options=(--sort=name --mtime=@1000000000 --owner=0 --group=0 --numeric-owner)
for format in gnu posix; do
    # What else a header of a header has, the name of a sparse file among it, would be of this process or of now.
    case $format in
    gnu) more=(--sparse) ;;
    posix) more=(--pax-option=exthdr.name=%d/%f,exthdr.mtime=1000000000,delete=atime,delete=ctime) ;;
    esac
    tar "${options[@]}" "${more[@]}" --format=$format -cf $format.tar tree
    sha256sum $format.tar
    mkdir $format
    tar -xf $format.tar -C $format
    diff -r --no-dereference tree $format/tree
    tar -tvf $format.tar --full-time --numeric-owner | sha256sum
done
tar -rf gnu.tar --transform='s/tree/another/' tree/0
tar --delete -f gnu.tar tree/1
tar -tf gnu.tar --wildcards '*-1*' --exclude='*/file-?' | sha256sum
tar -czf packed.tar.gz --sort=name tree
tar -xOzf packed.tar.gz | sha256sum
