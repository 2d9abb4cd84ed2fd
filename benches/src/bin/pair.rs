//! The smallest user of Kmalloc: allocates and frees one object of a size that the compiler cannot see. Its
//! disassembly is what `ci/disasm.sh` shows and `ci/fastpath.sh` checks.

use std::alloc::{alloc, dealloc, Layout};
use std::hint::black_box;

use allocator_global::Kmalloc;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

fn main() {
    let layout = Layout::from_size_align(black_box(48), black_box(8)).unwrap();
    // SAFETY: the size is not 0.
    let object = black_box(unsafe { alloc(layout) });
    assert!(!object.is_null());
    // SAFETY: just allocated, with this layout.
    unsafe { dealloc(object, layout) };
}
