//! Fuzz targets as functions: each reads bytes, plays them, and panics where the allocator differs from its model.
//!
//! `fuzz/` gives them to the fuzzer, and a test replays on a stable toolchain what the fuzzer has found worth keeping.

mod buddy;
mod size_class;

use crate::ops::{run_bytes, Profile};

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the binary in `fuzz/`, and of its directory of seeds.
    pub name: &'static str,
    /// Plays an input.
    pub play: fn(&[u8]),
}

/// Every target, lowest layer first.
pub const TARGETS: [Target; 5] = [
    Target { name: "size_class", play: size_class },
    Target { name: "buddy", play: buddy },
    Target { name: "slab", play: slab },
    Target { name: "vmalloc", play: vmalloc },
    Target { name: "kmalloc", play: kmalloc },
];

/// Size classes and routes against a search through all of them.
pub fn size_class(bytes: &[u8]) {
    size_class::play(bytes);
}

/// The page heap of one arena against a plain model.
pub fn buddy(bytes: &[u8]) {
    buddy::play(bytes);
}

/// Objects: slabs, caches, sheaves of several threads, with refused calls.
pub fn slab(bytes: &[u8]) {
    play(&[Profile::Objects], bytes, false);
}

/// Areas and how they grow and shrink, with refused calls.
pub fn vmalloc(bytes: &[u8]) {
    play(&[Profile::Areas], bytes, false);
}

/// All layers together, with refused calls, or as the heap of the process with real threads.
pub fn kmalloc(bytes: &[u8]) {
    play(&[Profile::Everything, Profile::Edges, Profile::Runs, Profile::Program], bytes, true);
}

fn play(profiles: &[Profile], bytes: &[u8], in_process: bool) {
    if let Err(violation) = run_bytes(profiles, bytes, in_process) {
        panic!("{violation}");
    }
}
