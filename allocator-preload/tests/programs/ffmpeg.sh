#!/usr/bin/env bash
# FFmpeg: pictures and sound are made, filtered, coded by several threads and decoded again.
# packages: ffmpeg
# program: ffmpeg
# bindings: brief
set -euo pipefail
seconds=3
[ "${1:-}" != brief ] || seconds=0.2
ffmpeg() { command ffmpeg -hide_banner -nostdin -loglevel error -y "$@"; }
exact=(-flags:v +bitexact -flags:a +bitexact -fflags +bitexact)
ffmpeg -f lavfi -i testsrc2=size=640x360:rate=25 -f lavfi -i 'sine=frequency=440:sample_rate=44100' -t $seconds \
    -c:v mpeg4 -threads 4 -q:v 5 -c:a flac "${exact[@]}" a.mkv
ffmpeg -i a.mkv -f md5 -
ffmpeg -i a.mkv -vf 'scale=320:180,hue=h=30,boxblur=2,split[a][b];[b]hflip[c];[a][c]hstack' -c:v ffv1 -level 3 -slices 4 -threads 4 \
    -c:a pcm_s16le "${exact[@]}" b.mkv
ffmpeg -i b.mkv -f framemd5 - | tail -n 3
ffmpeg -i a.mkv -an -c:v libx264 -preset veryfast -threads 4 "${exact[@]}" c.mp4
ffmpeg -i c.mp4 -f md5 -
ffmpeg -i a.mkv -vf fps=5 -c:v png "p%03d.png"
ls p*.png | wc -l
ffprobe -loglevel error -show_entries stream=codec_name,width,height -of csv b.mkv
ffmpeg -i absent.mkv -f null - 2>&1 | tail -n 1 || true
