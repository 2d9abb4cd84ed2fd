//! flate2: buffers are compressed and decompressed, by a new encoder and into a new vector each time.

use super::words::Words;
use crate::{timed, Done, Scale};
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use flate2::Compression;
use std::hint::black_box;
use std::io::{Read, Write};

/// Buffers at full scale.
const BUFFERS: usize = 60;
/// Powers of two that their sizes lie between.
const SMALLEST: usize = 10;
const LARGEST: usize = 20;

/// Compresses parts of a text and gets them back.
pub(crate) fn flate2(scale: Scale) -> Done {
    let buffers = scale.of(BUFFERS);
    let mut words = Words::new(350, 12);
    let text = words.text(1 << LARGEST).into_bytes();
    let mut random = words.random;
    timed(buffers, || {
        for _ in 0..buffers {
            let size = random.log_uniform(SMALLEST, LARGEST);
            let begin = random.below(text.len() - size);
            let part = &text[begin..begin + size];

            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(part).expect("room for it");
            let packed = encoder.finish().expect("room for it");
            let mut unpacked = Vec::new();
            ZlibDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).expect("what was packed");
            assert!(unpacked == part && packed.len() < size);
            black_box((packed, unpacked));
        }
    })
}
