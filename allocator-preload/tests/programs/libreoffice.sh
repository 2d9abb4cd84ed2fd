#!/usr/bin/env bash
# LibreOffice: a table of numbers and a text are read, computed, laid out, and written in other formats.
# packages: libreoffice-calc-nogui libreoffice-writer-nogui poppler-utils fonts-dejavu-core
# program: soffice.bin
# bindings: brief
set -euo pipefail
rows=3000
[ "${1:-}" != brief ] || rows=10
for ((i = 1; i <= rows; i++)); do echo "$i,$((i * 7919 % 1009)),name$((i % 37)),=A$i*B$i,=SUM(B\$1:B$i)"; done >a.csv
{ echo '<html><body><h1>Title</h1>'; for ((i = 1; i <= rows / 10; i++)); do echo "<p>Paragraph <b>$i</b> has words $((i * i % 97)).</p>"; done
    echo '</body></html>'; } >b.html
office() { soffice "-env:UserInstallation=file://$PWD/profile" --headless --norestore "$@" >/dev/null 2>&1; }
office --convert-to ods a.csv
office --convert-to csv:'Text - txt - csv (StarCalc)':44,34,76 --outdir out a.ods
md5sum <out/a.csv
office --convert-to pdf:writer_web_pdf_Export b.html
pdftotext b.pdf - | md5sum
