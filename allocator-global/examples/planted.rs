//! Faults on purpose: what `ci/san.sh` must see reported by the sanitizers, or their silence about all else would mean
//! nothing.

use allocator_global::Kmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

/// An object, a run and an area; none of them fills what it gets.
const SIZES: [usize; 3] = [40, 100_000, 9_000_000];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Reads a block after it was freed. What was an area is back with the system, so the end is a fault in any build.
#[inline(never)]
fn use_after_free(size: usize) {
    // SAFETY: the size is not zero.
    let ptr = black_box(unsafe { GLOBAL.alloc(layout(size)) });
    // SAFETY: just allocated.
    unsafe { ptr.write(1) };
    // SAFETY: as above.
    unsafe { GLOBAL.dealloc(ptr, layout(size)) };
    // SAFETY: none.
    println!("read {}", unsafe { ptr.read_volatile() });
}

/// Writes one byte behind what was asked for.
#[inline(never)]
fn overflow(size: usize) {
    // SAFETY: the size is not zero.
    let ptr = black_box(unsafe { GLOBAL.alloc(layout(size)) });
    // SAFETY: none.
    unsafe { ptr.wrapping_add(size).write_volatile(1) };
    println!("written");
}

/// Reads what was cut off when a block was made shorter in its place.
#[inline(never)]
fn use_after_shrinking(size: usize) {
    // SAFETY: the size is not zero.
    let ptr = black_box(unsafe { GLOBAL.alloc(layout(size)) });
    // SAFETY: live, and the new size is not zero.
    let ptr = black_box(unsafe { GLOBAL.realloc(ptr, layout(size), size - 7) });
    // SAFETY: none.
    println!("read {}", unsafe { ptr.wrapping_add(size - 1).read_volatile() });
}

static READY: AtomicUsize = AtomicUsize::new(0);
static mut SHARED: usize = 0;

#[inline(never)]
fn race() {
    READY.fetch_add(1, Relaxed);
    while READY.load(Relaxed) < 2 {
        std::thread::yield_now();
    }
    for _ in 0..100_000 {
        // SAFETY: none.
        unsafe { SHARED += 1 };
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (fault, which) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let size = which.parse::<usize>().ok().and_then(|n| SIZES.get(n)).copied();
    match (&*fault, size) {
        ("use-after-free", Some(size)) => use_after_free(size),
        ("overflow", Some(size)) => overflow(size),
        ("use-after-shrinking", Some(size)) => use_after_shrinking(size),
        ("race", None) => {
            let other = std::thread::spawn(race);
            race();
            other.join().expect("it only counts");
        }
        _ => {
            eprintln!("usage: planted use-after-free|overflow|use-after-shrinking 0|1|2, or planted race");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
