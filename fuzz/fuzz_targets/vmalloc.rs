//! See `stress::targets::vmalloc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stress::targets::vmalloc(bytes));
