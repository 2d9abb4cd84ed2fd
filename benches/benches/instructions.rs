//! Every operation as a user's binary performs it: through `std::alloc`, without LTO, and with a size and an
//! alignment that the compiler cannot see.
//!
//! Each case runs for a smaller and a larger number of rounds, and so does an empty loop of the same shape. The name
//! of the function and the identifier, `s<size>_r<rounds>`, are read by `benches::table`.

#![allow(missing_docs)] // the macros of iai-callgrind generate public items without any

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};
use std::hint::black_box;

use allocator_global::Kmalloc;
use iai_callgrind::{library_benchmark, library_benchmark_group, main, Callgrind, LibraryBenchmarkConfig};

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

/// Objects of a batch: more than any sheaf holds, so that both refill and flush are part of it.
const BATCH: usize = 1000;

/// Rounds before the count begins, so that sheaves, slabs and pages are there.
const WARM_UP: usize = 50;

/// One case: what is asked for, and how often.
struct Job {
    /// Size of the objects.
    size: usize,
    /// How often the operation is done.
    rounds: usize,
    /// Where a batch keeps its objects.
    batch: Vec<*mut u8>,
    /// The object that a `realloc` case works on; null elsewhere.
    object: *mut u8,
}

impl Job {
    fn new(size: usize, rounds: usize) -> Self {
        Job { size, rounds, batch: vec![std::ptr::null_mut(); BATCH], object: std::ptr::null_mut() }
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.size, 8).unwrap()
    }
}

/// A layout of which the compiler knows nothing: both of its words come out of `black_box`.
#[inline(always)]
fn opaque(layout: Layout) -> Layout {
    let (size, align) = (black_box(layout.size()), black_box(layout.align()));
    // SAFETY: the values are those of a layout.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

// What the cases have in common is written once and inlined, so that the warm-up runs the same code.

#[inline(always)]
fn pairs(layout: Layout, rounds: usize) {
    for _ in 0..rounds {
        let layout = opaque(layout);
        // SAFETY: no case has the size 0.
        let object = black_box(unsafe { alloc(layout) });
        // SAFETY: just allocated, with this layout.
        unsafe { dealloc(object, layout) };
    }
}

#[inline(always)]
fn zeroed_pairs(layout: Layout, rounds: usize) {
    for _ in 0..rounds {
        let layout = opaque(layout);
        // SAFETY: no case has the size 0.
        let object = black_box(unsafe { alloc_zeroed(layout) });
        // SAFETY: just allocated, with this layout.
        unsafe { dealloc(object, layout) };
    }
}

#[inline(always)]
fn batches(layout: Layout, rounds: usize, batch: &mut [*mut u8]) {
    for _ in 0..rounds {
        for slot in batch.iter_mut() {
            let layout = opaque(layout);
            // SAFETY: no case has the size 0.
            *slot = black_box(unsafe { alloc(layout) });
        }
        for slot in batch.iter_mut() {
            let layout = opaque(layout);
            // SAFETY: allocated by the loop above, with this layout.
            unsafe { dealloc(*slot, layout) };
        }
    }
}

/// One byte less and back again: never a reason to move.
#[inline(always)]
fn reallocs(layout: Layout, rounds: usize, mut object: *mut u8) -> *mut u8 {
    let smaller = Layout::from_size_align(layout.size() - 1, layout.align()).unwrap();
    for _ in 0..rounds {
        let (large, small) = (opaque(layout), opaque(smaller));
        // SAFETY: `object` has the layout `large` at the start of every round, and the new size is not 0.
        object = black_box(unsafe { realloc(object, large, small.size()) });
        // SAFETY: and now the layout `small`.
        object = black_box(unsafe { realloc(object, small, large.size()) });
    }
    object
}

fn warm_pairs(size: usize, rounds: usize) -> Job {
    let job = Job::new(size, rounds);
    pairs(job.layout(), WARM_UP);
    job
}

fn warm_zeroed(size: usize, rounds: usize) -> Job {
    let job = Job::new(size, rounds);
    zeroed_pairs(job.layout(), WARM_UP);
    job
}

fn warm_batches(size: usize, rounds: usize) -> Job {
    let mut job = Job::new(size, rounds);
    batches(job.layout(), WARM_UP, &mut job.batch);
    job
}

fn warm_reallocs(size: usize, rounds: usize) -> Job {
    let mut job = Job::new(size, rounds);
    // SAFETY: no case has the size 0.
    job.object = unsafe { alloc(job.layout()) };
    let moved = reallocs(job.layout(), WARM_UP, job.object);
    assert_eq!(moved, job.object, "a size within the same class, run or area must not move the object");
    job
}

// The cases. Rows of one operation differ in size; two rows of one size differ in rounds.

#[library_benchmark]
#[bench::s0_r1000(Job::new(0, 1000))]
#[bench::s0_r2000(Job::new(0, 2000))]
fn empty_pair(job: Job) -> Job {
    let layout = job.layout();
    for _ in 0..job.rounds {
        let layout = opaque(layout);
        black_box(layout.align() as *mut u8);
    }
    job
}

#[library_benchmark]
#[bench::s0_r1000(Job::new(0, 1000))]
#[bench::s0_r2000(Job::new(0, 2000))]
fn empty_realloc(job: Job) -> Job {
    let layout = job.layout();
    for _ in 0..job.rounds {
        let (large, small) = (opaque(layout), opaque(layout));
        black_box(large.align() as *mut u8);
        black_box(small.align() as *mut u8);
    }
    job
}

#[library_benchmark]
#[bench::s0_r10(Job::new(0, 10))]
#[bench::s0_r20(Job::new(0, 20))]
fn empty_batch(mut job: Job) -> Job {
    let layout = job.layout();
    for _ in 0..job.rounds {
        for slot in job.batch.iter_mut() {
            let layout = opaque(layout);
            *slot = black_box(layout.align() as *mut u8);
        }
        for slot in job.batch.iter_mut() {
            black_box(opaque(layout));
            black_box(*slot);
        }
    }
    job
}

#[library_benchmark(setup = warm_pairs)]
#[bench::s8_r1000(8, 1000)]
#[bench::s8_r2000(8, 2000)]
#[bench::s48_r1000(48, 1000)]
#[bench::s48_r2000(48, 2000)]
#[bench::s256_r1000(256, 1000)]
#[bench::s256_r2000(256, 2000)]
#[bench::s1024_r1000(1024, 1000)]
#[bench::s1024_r2000(1024, 2000)]
#[bench::s8192_r1000(8192, 1000)]
#[bench::s8192_r2000(8192, 2000)]
#[bench::s40000_r1000(40_000, 1000)]
#[bench::s40000_r2000(40_000, 2000)]
#[bench::s1048576_r1000(1 << 20, 1000)]
#[bench::s1048576_r2000(1 << 20, 2000)]
#[bench::s41943040_r1000(40 << 20, 1000)]
#[bench::s41943040_r2000(40 << 20, 2000)]
fn pair(job: Job) -> Job {
    pairs(job.layout(), job.rounds);
    job
}

#[library_benchmark(setup = warm_zeroed)]
#[bench::s48_r1000(48, 1000)]
#[bench::s48_r2000(48, 2000)]
#[bench::s1024_r1000(1024, 1000)]
#[bench::s1024_r2000(1024, 2000)]
#[bench::s40000_r1000(40_000, 1000)]
#[bench::s40000_r2000(40_000, 2000)]
fn zeroed_pair(job: Job) -> Job {
    zeroed_pairs(job.layout(), job.rounds);
    job
}

#[library_benchmark(setup = warm_reallocs)]
#[bench::s48_r1000(48, 1000)]
#[bench::s48_r2000(48, 2000)]
#[bench::s40000_r1000(40_000, 1000)]
#[bench::s40000_r2000(40_000, 2000)]
#[bench::s41943040_r1000(40 << 20, 1000)]
#[bench::s41943040_r2000(40 << 20, 2000)]
fn realloc_in_place(job: Job) -> Job {
    assert_eq!(reallocs(job.layout(), job.rounds, job.object), job.object);
    job
}

#[library_benchmark(setup = warm_batches)]
#[bench::s16_r10(16, 10)]
#[bench::s16_r20(16, 20)]
#[bench::s48_r10(48, 10)]
#[bench::s48_r20(48, 20)]
#[bench::s512_r10(512, 10)]
#[bench::s512_r20(512, 20)]
#[bench::s40000_r10(40_000, 10)]
#[bench::s40000_r20(40_000, 20)]
fn batch(mut job: Job) -> Job {
    batches(job.layout(), job.rounds, &mut job.batch);
    job
}

library_benchmark_group!(
    name = operations;
    benchmarks = empty_pair, empty_realloc, empty_batch, pair, zeroed_pair, realloc_in_place, batch
);

main!(
    // `--collect-bus` counts the locked instructions: the fast path has none.
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no", "--collect-bus=yes"]));
    library_benchmark_groups = operations
);
