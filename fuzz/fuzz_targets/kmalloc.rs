//! See `stress::targets::kmalloc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stress::targets::kmalloc(bytes));
