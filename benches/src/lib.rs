//! Instruction counts of the allocator's operations, measured by callgrind through iai-callgrind.
//!
//! `instructions`, a bench of the package `allocators`, runs every case for two numbers of rounds; the difference, less
//! that of an empty loop of the same shape, is what the operations cost. So neither the start of the process, nor the
//! warm-up, nor the caller's loop is counted. [`table`] works that out and compares it with `instructions.csv`.

#![forbid(unsafe_code)]

pub mod rss;
pub mod table;
