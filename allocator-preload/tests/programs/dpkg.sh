#!/usr/bin/env bash
# dpkg-deb: packages built of a generated tree, with each compression, and taken apart.
# packages: dpkg
# program: dpkg-deb
set -euo pipefail
files=400
[ "${1:-}" != brief ] || files=3
mkdir -p tree/DEBIAN tree/usr/share/generated
printf '%s\n' 'Package: generated' 'Version: 1.0' 'Architecture: all' 'Maintainer: Nobody <nobody@example.org>' \
    'Description: generated' >tree/DEBIAN/control
for ((i = 0; i < files; i++)); do seq "$i" $((i * 7)) >"tree/usr/share/generated/$i"; done
find tree -exec touch -h -d @1000000000 {} +
chmod -R u=rwX,go=rX tree
export SOURCE_DATE_EPOCH=1000000000
for kind in none gzip xz; do
    dpkg-deb --root-owner-group -Z$kind -b tree $kind.deb
    sha256sum $kind.deb
    dpkg-deb -c $kind.deb | sha256sum
    dpkg-deb -R $kind.deb $kind
    diff -r tree $kind
done
dpkg-deb -f xz.deb
for ((i = 0; i < 20; i++)); do ! dpkg --compare-versions "1.$i~a" gt "1.$i" || echo "wrong: $i"; done
