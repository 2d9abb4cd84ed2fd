//! See `stress::targets::size_class`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stress::targets::size_class(bytes));
