//! See `stress::targets::buddy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stress::targets::buddy(bytes));
