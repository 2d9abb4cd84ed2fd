#!/usr/bin/env bash
# ImageMagick: images drawn, transformed with threads, written in several formats and read again.
# packages: imagemagick
# program: convert.*
set -euo pipefail
size=400
[ "${1:-}" != brief ] || size=20
export MAGICK_THREAD_LIMIT=2
convert -size ${size}x$size gradient:red-blue \( -size ${size}x$size radial-gradient:yellow-black \) -compose screen -composite \
    -fill white -stroke black -draw "circle $((size / 2)),$((size / 2)) $((size / 3)),$((size / 3)) line 0,0 $size,$((size / 2))" \
    -depth 8 first.png
operations=(
    '-swirl 90' '-blur 0x4' '-resize 150% -unsharp 0x1' '-distort Arc 60' '-colorspace Lab -equalize' '-rotate 17 -trim'
    '-colors 32' '-edge 2' '-morphology Dilate Disk:3' '-fft -delete 1' '-liquid-rescale 70%x100%' '-median 3' '-write mpr:a +delete mpr:a -flip'
)
[ "${1:-}" != brief ] || operations=('-blur 0x4')
for operation in "${operations[@]}"; do
    # shellcheck disable=SC2086 # several words
    echo "$operation $(convert first.png $operation -depth 8 -format '%wx%h %#' info:)"
done
for format in ppm gif tiff bmp miff jpg; do
    convert first.png -define jpeg:dct-method=islow out.$format
    echo "$format $(identify -format '%m %wx%h %#' out.$format)"
done
convert -delay 5 first.png \( +clone -flop \) \( +clone -negate \) -layers optimize animated.gif
identify -format '%s %wx%h %#\n' animated.gif
compare -metric AE first.png out.ppm null: 2>&1
echo
montage -label '' first.png first.png first.png -tile 2x2 -geometry 100x100+2+2 -depth 8 sheet.ppm
identify -format '%wx%h %#\n' sheet.ppm
