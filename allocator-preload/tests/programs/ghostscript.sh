#!/usr/bin/env bash
# Ghostscript and Poppler: PostScript that is run becomes PDF, the PDF pictures and text again.
# packages: ghostscript poppler-utils
# program: gs|pdfto.*
set -euo pipefail
n=40
[ "${1:-}" != brief ] || n=1
cat >a.ps <<'EOF'
%!PS
/page { /k exch def
    /Times-Roman findfont 11 scalefont setfont
    /d 200 dict def 0 1 199 { dup 31 mul k add 101 mod d 3 1 roll put } for
    0 1 59 { /i exch def 50 750 i 12 mul sub moveto
        (line ) show i 10 string cvs show ( of page ) show k 10 string cvs show ( has ) show d i get 10 string cvs show } for
    0 1 80 { /i exch def gsave 300 400 translate i 4.5 mul rotate i 80 div 0.5 k 40 div setrgbcolor
        0 0 moveto 50 i add 20 100 k sub 90 200 i curveto stroke grestore } for
    showpage } def
EOF
for ((i = 0; i < n; i++)); do echo "$i page"; done >>a.ps
gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=pdfwrite -sOutputFile=a.pdf a.ps
pdfinfo a.pdf | grep '^Pages\|^Page size'
pdftotext -layout a.pdf - | md5sum
gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=ppmraw -r50 -dNumRenderingThreads=3 -dBandHeight=100 -sOutputFile=g%d.ppm a.pdf
cat g*.ppm | md5sum
pdftoppm -r 40 a.pdf p
cat p*.ppm | md5sum
echo '(never ended' | gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=nullpage - 2>&1 | head -n 1 || true
