//! Times the first allocation of a process under Kmalloc and prints it in nanoseconds, for `ci/hello.sh`. Its `main` is
//! C's, so that nothing has allocated before.
#![no_main]

use allocator_global::Kmalloc;
use std::alloc::{alloc, Layout};
use std::hint::black_box;
use std::os::raw::{c_char, c_int};
use std::time::Instant;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

#[no_mangle]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    let layout = black_box(Layout::new::<[u64; 6]>());
    let _ = Instant::now(); // the clock's own first time
    let before = Instant::now();
    // SAFETY: more than no bytes.
    let block = unsafe { alloc(layout) };
    let time = before.elapsed();
    if black_box(block).is_null() {
        return 1;
    }
    println!("{}", time.as_nanos());
    0
}
