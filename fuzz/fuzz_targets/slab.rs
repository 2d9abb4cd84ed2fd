//! See `stress::targets::slab`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stress::targets::slab(bytes));
