//! Every operation as a user's binary performs it: through `std::alloc`, without LTO, and with a size and an
//! alignment that the compiler cannot see.
//!
//! | function           | what it does, a round                                                                 |
//! |--------------------|---------------------------------------------------------------------------------------|
//! | `alloc`, `dealloc` | one of these, within what the sheaf holds; a page run or an area where there is none  |
//! | `pair`             | one after the other; `zeroed_pair` with `alloc_zeroed`                                |
//! | `realloc_in_place` | a byte less and back again                                                            |
//! | `refill`, `flush`  | one of a thousand or more in a row, so that all come from slabs, and go there         |
//! | `flush_scattered`  | as `flush`, each of another slab than the one before                                  |
//! | `remote_free`      | as `flush`, of objects that another thread has allocated                              |
//!
//! Each case runs for a smaller and a larger number of rounds, and so does an empty loop of the same shape. The name
//! of the function and the identifier, `s<size>_r<rounds>`, are read by `benches::table`.

#![allow(missing_docs)] // the macros of iai-callgrind generate public items without any

use std::alloc::{realloc, Layout};
use std::hint::black_box;

use allocators::{Allocator, ALLOCATOR};
use iai_callgrind::{library_benchmark, library_benchmark_group, main, Callgrind, LibraryBenchmarkConfig};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

/// Rounds before the count begins, so that sheaves, slabs and pages are there.
const WARM_UP: usize = 50;

/// One case: what is asked for, and how often.
struct Job {
    /// Size of the objects.
    size: usize,
    /// How often the operation is done.
    rounds: usize,
    /// A place for the object of each round.
    objects: Vec<*mut u8>,
}

/// The largest object that comes from a slab.
const MAX_OBJECT: usize = 32 << 10;

/// Takes page runs until one is in another chunk than the first, and keeps them. What a page run costs depends on which
/// pages of its chunk are free, and what the program allocated before `main` is in the first: strings as long as its path.
fn leave_the_first_chunk() {
    const CHUNK: usize = 2 << 20;
    const RUN: Layout = Layout::new::<[u8; MAX_OBJECT + 1]>();
    // SAFETY: the size is not 0.
    let chunk = || unsafe { std::alloc::alloc(RUN) } as usize / CHUNK;
    let first = chunk();
    for _ in 0..CHUNK / RUN.size() {
        if chunk() != first {
            break;
        }
    }
}

impl Job {
    fn new(size: usize, rounds: usize) -> Self {
        let objects = vec![std::ptr::null_mut(); rounds];
        if size > MAX_OBJECT {
            leave_the_first_chunk();
        }
        Self { size, rounds, objects }
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
        let object = black_box(unsafe { std::alloc::alloc(layout) });
        // SAFETY: just allocated, with this layout.
        unsafe { std::alloc::dealloc(object, layout) };
    }
}

#[inline(always)]
fn zeroed_pairs(layout: Layout, rounds: usize) {
    for _ in 0..rounds {
        let layout = opaque(layout);
        // SAFETY: no case has the size 0.
        let object = black_box(unsafe { std::alloc::alloc_zeroed(layout) });
        // SAFETY: just allocated, with this layout.
        unsafe { std::alloc::dealloc(object, layout) };
    }
}

#[inline(always)]
fn fill(layout: Layout, objects: &mut [*mut u8]) {
    for object in objects {
        let layout = opaque(layout);
        // SAFETY: no case has the size 0.
        *object = black_box(unsafe { std::alloc::alloc(layout) });
    }
}

#[inline(always)]
fn drain(layout: Layout, objects: &[*mut u8]) {
    for object in objects {
        let layout = opaque(layout);
        // SAFETY: allocated by `fill` with this layout.
        unsafe { std::alloc::dealloc(*object, layout) };
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

/// Objects have been there and are gone again: some in the sheaf, those beyond it in slabs.
fn gone(size: usize, rounds: usize) -> Job {
    let mut job = there(size, rounds);
    drain(job.layout(), &job.objects);
    job.objects.fill(std::ptr::null_mut());
    job
}

/// Objects are there. For a few rounds, the sheaf has room for them.
fn there(size: usize, rounds: usize) -> Job {
    let mut job = Job::new(size, rounds);
    for _ in 0..WARM_UP {
        fill(job.layout(), &mut job.objects);
        drain(job.layout(), &job.objects);
    }
    fill(job.layout(), &mut job.objects);
    job
}

/// Objects are there, and go in another order than they came.
fn scattered(size: usize, rounds: usize) -> Job {
    /// More objects than a slab of 48 bytes has. A prime, so that each is met once.
    const STRIDE: usize = 1499;
    let Job { objects, .. } = there(size, rounds);
    Job { size, rounds, objects: (0..rounds).map(|i| objects[i * STRIDE % rounds]).collect() }
}

/// Another thread has allocated the objects. This one has freed some before.
fn from_elsewhere(size: usize, rounds: usize) -> Job {
    gone(size, rounds);
    let objects = std::thread::spawn(move || there(size, rounds).objects.into_iter().map(|p| p as usize).collect());
    let objects: Vec<usize> = objects.join().unwrap();
    Job { size, rounds, objects: objects.into_iter().map(|address| address as *mut u8).collect() }
}

fn warm_reallocs(size: usize, rounds: usize) -> Job {
    let mut job = Job::new(size, rounds);
    // SAFETY: no case has the size 0.
    job.objects[0] = unsafe { std::alloc::alloc(job.layout()) };
    let moved = reallocs(job.layout(), WARM_UP, job.objects[0]);
    let kmalloc = cfg!(feature = "kmalloc");
    assert!(!kmalloc || moved == job.objects[0], "within the same class, run or area an object does not move");
    job.objects[0] = moved;
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
#[bench::s0_r1000(Job::new(0, 1000))]
#[bench::s0_r2000(Job::new(0, 2000))]
fn empty_fill(mut job: Job) -> Job {
    let layout = job.layout();
    for object in job.objects.iter_mut() {
        let layout = opaque(layout);
        *object = black_box(layout.align() as *mut u8);
    }
    job
}

#[library_benchmark]
#[bench::s0_r1000(Job::new(0, 1000))]
#[bench::s0_r2000(Job::new(0, 2000))]
fn empty_drain(job: Job) -> Job {
    let layout = job.layout();
    for _ in &job.objects {
        let _ = opaque(layout);
    }
    job
}

#[library_benchmark(setup = gone)]
#[bench::s8_r1(8, 1)]
#[bench::s8_r3(8, 3)]
#[bench::s48_r1(48, 1)]
#[bench::s48_r3(48, 3)]
#[bench::s256_r1(256, 1)]
#[bench::s256_r3(256, 3)]
#[bench::s1024_r1(1024, 1)]
#[bench::s1024_r3(1024, 3)]
#[bench::s8192_r1(8192, 1)]
#[bench::s8192_r3(8192, 3)]
#[bench::s40000_r1(40000, 1)]
#[bench::s40000_r3(40000, 3)]
#[bench::s1048576_r1(1048576, 1)]
#[bench::s1048576_r3(1048576, 3)]
fn alloc(mut job: Job) -> Job {
    fill(job.layout(), &mut job.objects);
    job
}

#[library_benchmark(setup = there)]
#[bench::s8_r1(8, 1)]
#[bench::s8_r3(8, 3)]
#[bench::s48_r1(48, 1)]
#[bench::s48_r3(48, 3)]
#[bench::s256_r1(256, 1)]
#[bench::s256_r3(256, 3)]
#[bench::s1024_r1(1024, 1)]
#[bench::s1024_r3(1024, 3)]
#[bench::s8192_r1(8192, 1)]
#[bench::s8192_r3(8192, 3)]
#[bench::s40000_r1(40000, 1)]
#[bench::s40000_r3(40000, 3)]
#[bench::s1048576_r1(1048576, 1)]
#[bench::s1048576_r3(1048576, 3)]
fn dealloc(job: Job) -> Job {
    drain(job.layout(), &job.objects);
    job
}

#[library_benchmark(setup = warm_pairs)]
#[bench::s8_r100(8, 100)]
#[bench::s8_r200(8, 200)]
#[bench::s48_r100(48, 100)]
#[bench::s48_r200(48, 200)]
#[bench::s256_r100(256, 100)]
#[bench::s256_r200(256, 200)]
#[bench::s1024_r100(1024, 100)]
#[bench::s1024_r200(1024, 200)]
#[bench::s8192_r100(8192, 100)]
#[bench::s8192_r200(8192, 200)]
#[bench::s32768_r100(32768, 100)]
#[bench::s32768_r200(32768, 200)]
#[bench::s40000_r10(40000, 10)]
#[bench::s40000_r20(40000, 20)]
#[bench::s1048576_r10(1048576, 10)]
#[bench::s1048576_r20(1048576, 20)]
#[bench::s41943040_r10(41943040, 10)]
#[bench::s41943040_r20(41943040, 20)]
fn pair(job: Job) -> Job {
    pairs(job.layout(), job.rounds);
    job
}

#[library_benchmark(setup = warm_zeroed)]
#[bench::s8_r100(8, 100)]
#[bench::s8_r200(8, 200)]
#[bench::s48_r100(48, 100)]
#[bench::s48_r200(48, 200)]
#[bench::s256_r100(256, 100)]
#[bench::s256_r200(256, 200)]
#[bench::s1024_r100(1024, 100)]
#[bench::s1024_r200(1024, 200)]
#[bench::s8192_r100(8192, 100)]
#[bench::s8192_r200(8192, 200)]
#[bench::s40000_r10(40000, 10)]
#[bench::s40000_r20(40000, 20)]
#[bench::s1048576_r10(1048576, 10)]
#[bench::s1048576_r20(1048576, 20)]
fn zeroed_pair(job: Job) -> Job {
    zeroed_pairs(job.layout(), job.rounds);
    job
}

#[library_benchmark(setup = warm_reallocs)]
#[bench::s8_r100(8, 100)]
#[bench::s8_r200(8, 200)]
#[bench::s48_r100(48, 100)]
#[bench::s48_r200(48, 200)]
#[bench::s256_r100(256, 100)]
#[bench::s256_r200(256, 200)]
#[bench::s1024_r100(1024, 100)]
#[bench::s1024_r200(1024, 200)]
#[bench::s8192_r100(8192, 100)]
#[bench::s8192_r200(8192, 200)]
#[bench::s40000_r10(40000, 10)]
#[bench::s40000_r20(40000, 20)]
#[bench::s1048576_r10(1048576, 10)]
#[bench::s1048576_r20(1048576, 20)]
#[bench::s41943040_r10(41943040, 10)]
#[bench::s41943040_r20(41943040, 20)]
fn realloc_in_place(mut job: Job) -> Job {
    job.objects[0] = reallocs(job.layout(), job.rounds, job.objects[0]);
    job
}

#[library_benchmark(setup = gone)]
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
#[bench::s40000_r100(40000, 100)]
#[bench::s40000_r200(40000, 200)]
fn refill(mut job: Job) -> Job {
    fill(job.layout(), &mut job.objects);
    job
}

#[library_benchmark(setup = there)]
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
#[bench::s40000_r100(40000, 100)]
#[bench::s40000_r200(40000, 200)]
fn flush(job: Job) -> Job {
    drain(job.layout(), &job.objects);
    job
}

#[library_benchmark(setup = scattered)]
#[bench::s48_r4000(48, 4000)]
#[bench::s48_r8000(48, 8000)]
#[bench::s256_r4000(256, 4000)]
#[bench::s256_r8000(256, 8000)]
fn flush_scattered(job: Job) -> Job {
    drain(job.layout(), &job.objects);
    job
}

#[library_benchmark(setup = from_elsewhere)]
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
#[bench::s40000_r100(40000, 100)]
#[bench::s40000_r200(40000, 200)]
fn remote_free(job: Job) -> Job {
    drain(job.layout(), &job.objects);
    job
}

library_benchmark_group!(
    name = operations;
    benchmarks =
        empty_pair,
        empty_realloc,
        empty_fill,
        empty_drain,
        alloc,
        dealloc,
        pair,
        zeroed_pair,
        realloc_in_place,
        refill,
        flush,
        flush_scattered,
        remote_free
);

main!(
    // The simulations of caches and branches count loads, stores and branches; `--collect-bus` counts the locked
    // instructions, of which the fast path has none.
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=yes", "--branch-sim=yes", "--collect-bus=yes"]));
    library_benchmark_groups = operations
);
