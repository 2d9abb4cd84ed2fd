//! Refusals: a request that cannot be served is answered with null, nothing is lost by it, and the next one is served
//! as soon as the system gives memory again.

mod common;

use allocator_global::Kmalloc;
use common::{
    assert_child_exits, boundary_sizes, child, layout, mapped_bytes, proc_bytes, Block, KIB, KMALLOC, MIB, PAGE,
};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Barrier;
use std::time::Duration;
use std::{ptr, thread};

suite! {
    tests: [
        sizes_that_nothing_can_hold_are_refused,
        a_refused_realloc_leaves_the_block_as_it_was,
        collections_report_a_refusal,
        refusals_under_a_limit_of_address_space_are_served_after_it,
        refusals_under_a_limit_of_data_are_served_after_it,
        eight_threads_are_refused_and_served_again,
        a_limit_may_move_while_eight_threads_allocate,
        a_panic_after_a_refusal_leaves_the_heap_serving,
        a_vector_that_is_refused_ends_the_process_as_std_says,
        locked_memory_is_served_or_refused,
    ],
    children: [
        one_thread_under_a_limit,
        eight_threads_under_a_limit,
        eight_threads_under_a_moving_limit,
        panics_under_a_limit,
        refused_vector,
        locked,
    ]
}

const LARGEST: usize = isize::MAX as usize;

/// More than any user address space of today's 64-bit machines.
const BEYOND: usize = 1 << 58;

fn sizes_that_nothing_can_hold_are_refused() {
    let mut sizes = vec![BEYOND, BEYOND + 1, 1 << 60, LARGEST / 2, LARGEST / 2 + 1];
    sizes.extend((0..600).map(|n| LARGEST - n));
    sizes.extend((1..600).map(|n| LARGEST - n * PAGE + n % 3 - 1));
    let mut tried = 0;
    for shift in 0..=62 {
        for &size in &sizes {
            // Most alignments do not go with most of these sizes: the type already refuses them.
            let Ok(layout) = Layout::from_size_align(size, 1 << shift) else { continue };
            assert!(Block::try_new(layout).is_none(), "{layout:?} was served");
            assert!(Block::try_zeroed(layout).is_none(), "{layout:?} was served zeroed");
            tried += 1;
        }
        for size in [1, 8, PAGE + 1] {
            let Ok(layout) = Layout::from_size_align(size, 1 << shift) else { continue };
            // Up to the length of the address space such a layout may be served; `Block` checks the alignment.
            if let Some(block) = Block::try_new(layout) {
                assert!(shift < 58, "{layout:?} was served");
                block.free();
            }
        }
    }
    assert!(tried > 10_000, "the grid has shrunk to {tried} layouts");
}

fn a_refused_realloc_leaves_the_block_as_it_was() {
    for size in boundary_sizes(12 * MIB) {
        let mut block = Block::filled(size, 8, 5);
        for refused in [BEYOND, LARGEST / 2, LARGEST - 3 * PAGE, LARGEST - 7] {
            assert!(!block.try_resize(refused), "{size} bytes grew to {refused}");
        }
        block.check_and_free(5);
    }
}

fn collections_report_a_refusal() {
    let mut bytes = vec![1u8; 100];
    assert!(bytes.try_reserve_exact(black_box(LARGEST - 100)).is_err());
    assert!(bytes.try_reserve(black_box(BEYOND)).is_err());
    assert_eq!(bytes, [1; 100]);
    assert!(String::new().try_reserve(black_box(LARGEST)).is_err());
    // Through the functions of std, as every program calls them.
    let layout = layout(black_box(LARGEST - 4 * PAGE), 8);
    // SAFETY: the size is not zero.
    assert!(black_box(unsafe { std::alloc::alloc(layout) }).is_null());
    // SAFETY: the size is not zero.
    assert!(black_box(unsafe { std::alloc::alloc_zeroed(layout) }).is_null());
}

/// A limit of this process that can be lowered and lifted again.
struct Limit {
    address_space: bool,
    hard: libc::rlim_t,
}

impl Limit {
    fn new(name: &str) -> Self {
        let mut limit = Self { address_space: name == "address space", hard: 0 };
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let code = match limit.address_space {
            // SAFETY: writes the limit.
            true => unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut now) },
            // SAFETY: writes the limit.
            false => unsafe { libc::getrlimit(libc::RLIMIT_DATA, &mut now) },
        };
        assert_eq!(code, 0);
        limit.hard = now.rlim_max;
        limit
    }

    /// What counts against the limit now.
    fn used(&self) -> usize {
        if self.address_space {
            return mapped_bytes();
        }
        proc_bytes("/proc/self/status", "VmData:")
    }

    /// Neither `lower` nor `lift` allocates.
    fn lower(&self, bytes: usize) {
        self.set(bytes as libc::rlim_t);
    }

    fn lift(&self) {
        self.set(self.hard);
    }

    fn set(&self, soft: libc::rlim_t) {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: self.hard };
        let code = match self.address_space {
            // SAFETY: reads the limit.
            true => unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) },
            // SAFETY: reads the limit.
            false => unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) },
        };
        assert_eq!(code, 0, "setrlimit");
    }
}

/// Far above what the children leave free, so that it is the limit that ends a `fill`.
const CAP: usize = 512 * MIB;

/// Room for every block that `fill` may come by.
fn room(size: usize) -> Vec<Block> {
    Vec::with_capacity(CAP / size)
}

/// Allocates until it is refused. Under a limit nothing here may allocate by itself.
fn fill(blocks: &mut Vec<Block>, size: usize) -> usize {
    while blocks.len() < blocks.capacity() {
        match Block::try_new(layout(size, 8)) {
            None => return blocks.len(),
            Some(mut block) => {
                block.fill(blocks.len() as u64);
                blocks.push(block);
            }
        }
    }
    panic!("the limit was not felt in {CAP} bytes of {size}");
}

fn drain(blocks: &mut Vec<Block>) {
    for (id, block) in (0..).zip(blocks.drain(..)) {
        block.check_and_free(id);
    }
}

const ROOM: usize = 48 * MIB;

/// A child.
fn one_thread_under_a_limit(name: &str) {
    let limit = Limit::new(name);
    let sizes = [12 * MIB, 3 * PAGE, KIB];
    let mut blocks = sizes.map(room);
    let mut keep = Block::filled(100, 8, 77);
    for round in 0..2 {
        limit.lower(limit.used() + ROOM);
        for (size, blocks) in sizes.into_iter().zip(&mut blocks) {
            let first = fill(blocks, size);
            assert!(!keep.try_resize(CAP), "realloc beyond the limit");
            keep.check(77);
            // SAFETY: the size is not zero.
            assert!(black_box(unsafe { std::alloc::alloc(layout(CAP, 8)) }).is_null());
            // SAFETY: the size is not zero.
            assert!(unsafe { KMALLOC.alloc_zeroed(layout(CAP, PAGE)) }.is_null());
            assert!(Vec::<u64>::new().try_reserve(black_box(CAP)).is_err());
            drain(blocks);
            // What came back can be had again, limit or not.
            let second = fill(blocks, size);
            drain(blocks);
            assert!(second >= first - first / 4, "round {round}: {first} blocks of {size}, then {second}");
            // Later sizes find the address space in the form that earlier ones left it in.
            assert!(first != 0 || (round, size) != (0, sizes[0]), "not one block of {size}");
        }
        limit.lift();
        common::assert_valid();
        let mut large = Block::new(CAP, 8);
        large.check_and_resize();
        let mut many = room(2 * MIB);
        many.extend((0..128).map(|id| Block::filled(2 * MIB, 8, id)));
        drain(&mut many);
        large.free();
        Kmalloc::reclaim();
        common::assert_valid();
    }
    keep.check_and_free(77);
}

trait CheckAndResize {
    fn check_and_resize(&mut self);
}

impl CheckAndResize for Block {
    /// Only the ends are touched: the block is as long as the limit was.
    fn check_and_resize(&mut self) {
        let last = self.as_ptr().wrapping_add(self.size() - 1);
        // SAFETY: the first byte of the block.
        unsafe { ptr::write(self.as_ptr(), 1) };
        // SAFETY: the last byte of the block.
        unsafe { ptr::write(last, 2) };
        self.resize(self.size() + PAGE);
        // SAFETY: the first byte of the block, written above.
        assert_eq!(unsafe { ptr::read(self.as_ptr()) }, 1);
    }
}

fn refusals_under_a_limit_of_address_space_are_served_after_it() {
    assert_child_exits("one_thread_under_a_limit", "address space", 0);
}

fn refusals_under_a_limit_of_data_are_served_after_it() {
    assert_child_exits("one_thread_under_a_limit", "data", 0);
}

/// A child: everybody allocates until nobody gets anything, frees it all, and is served again after the limit.
fn eight_threads_under_a_limit(name: &str) {
    const THREADS: usize = 8;
    const ROUNDS: usize = 4;
    let limit = Limit::new(name);
    let step = Barrier::new(THREADS + 1);
    let sizes = [KIB, 3 * PAGE, 10 * KIB, MIB, 12 * MIB, 500 * KIB, PAGE, 4 * KIB];
    thread::scope(|scope| {
        let threads: Vec<_> = sizes
            .into_iter()
            .map(|size| {
                let step = &step;
                scope.spawn(move || {
                    let mut blocks = room(size);
                    step.wait(); // started, which takes memory of the thread's own
                    for _ in 0..ROUNDS {
                        step.wait(); // lowered
                        fill(&mut blocks, size);
                        step.wait();
                        drain(&mut blocks);
                        step.wait(); // lifted
                        step.wait();
                        blocks.extend((0..(16 * MIB / size).max(1)).map(|id| Block::filled(size, 8, id as u64)));
                        step.wait();
                        drain(&mut blocks);
                        step.wait(); // checked
                        step.wait();
                    }
                })
            })
            .collect();
        step.wait();
        for _ in 0..ROUNDS {
            limit.lower(limit.used() + ROOM);
            step.wait();
            step.wait(); // all are refused at once, then free
            step.wait();
            limit.lift();
            step.wait(); // now more is served than the limit had room for
            step.wait();
            step.wait();
            common::assert_valid();
            step.wait();
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
    });
    Kmalloc::reclaim();
    common::assert_valid();
}

fn eight_threads_are_refused_and_served_again() {
    assert_child_exits("eight_threads_under_a_limit", "address space", 0);
    assert_child_exits("eight_threads_under_a_limit", "data", 0);
}

/// Allocates, resizes and frees at random until it is told to stop. Returns how often it was served and refused.
fn churn(seed: u64, stop: &AtomicBool, blocks: &mut Vec<(Block, u64)>) -> (usize, usize) {
    let (mut state, mut served, mut refused) = (seed, 0, 0);
    let mut below = |n: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % n
    };
    while !stop.load(Relaxed) {
        let most = if below(40) == 0 { 48 * MIB } else { [KIB, KIB, 32 * KIB, 20 * PAGE, MIB][below(5)] };
        let size = 1 + below(most);
        match below(4) {
            0 | 1 if blocks.len() < blocks.capacity() => match Block::try_new(layout(size, 8 << below(4))) {
                Some(mut block) => {
                    block.fill(served as u64);
                    blocks.push((block, served as u64));
                    served += 1;
                }
                None => refused += 1,
            },
            2 if !blocks.is_empty() => {
                let at = below(blocks.len());
                let (block, id) = &mut blocks[at];
                let before = block.size();
                if block.try_resize(size) {
                    block.check_prefix(*id, before.min(size));
                    block.fill(*id);
                    served += 1;
                } else {
                    block.check(*id);
                    refused += 1;
                }
            }
            _ if !blocks.is_empty() => {
                let (block, id) = blocks.swap_remove(below(blocks.len()));
                block.check_and_free(id);
            }
            _ => {}
        }
    }
    blocks.drain(..).for_each(|(block, id)| block.check_and_free(id));
    (served, refused)
}

/// A child: the limit goes up and down, even below what is in use, at any moment of eight threads.
fn eight_threads_under_a_moving_limit(name: &str) {
    const THREADS: usize = 8;
    let limit = Limit::new(name);
    let (stop, started) = (AtomicBool::new(false), Barrier::new(THREADS + 1));
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|seed| {
                let (stop, started, served, refused) = (&stop, &started, &served, &refused);
                scope.spawn(move || {
                    let mut blocks = Vec::with_capacity(24);
                    started.wait();
                    let (s, r) = churn(seed, stop, &mut blocks);
                    served.fetch_add(s, Relaxed);
                    refused.fetch_add(r, Relaxed);
                })
            })
            .collect();
        started.wait();
        for round in 0..200 {
            let used = limit.used();
            // Below what is in use, at it, and above it.
            limit.lower([used / 2, used, used + MIB, used + 20 * MIB][round % 4]);
            thread::sleep(Duration::from_millis(4));
            limit.lift();
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
    });
    let (served, refused) = (served.into_inner(), refused.into_inner());
    assert!(served > 1000 && refused > 0, "{served} served, {refused} refused");
    common::assert_valid();
    Kmalloc::reclaim();
    common::assert_valid();
}

fn a_limit_may_move_while_eight_threads_allocate() {
    assert_child_exits("eight_threads_under_a_moving_limit", "address space", 0);
    assert_child_exits("eight_threads_under_a_moving_limit", "data", 0);
}

/// A child: what an allocation error hook that unwinds would do, at every refusal.
fn panics_under_a_limit(_: &str) {
    let limit = Limit::new("address space");
    std::panic::set_hook(Box::new(|_| ())); // the usual one has a lot to say
    let mut panics = 0;
    for round in 0..20 {
        let before = limit.used();
        for size in [KIB, 40 * KIB, MIB, 12 * MIB] {
            let mut blocks = room(size);
            limit.lower(before + (round + 2) * MIB);
            let full = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loop {
                match Block::try_new(layout(size, 8)) {
                    Some(block) => blocks.push(block),
                    None => {
                        limit.lift(); // to unwind takes memory as well
                        std::panic::resume_unwind(Box::new(()));
                    }
                }
            }));
            panics += usize::from(full.is_err());
            blocks.into_iter().for_each(Block::free);
            common::assert_valid();
        }
    }
    assert_eq!(panics, 80);
}

fn a_panic_after_a_refusal_leaves_the_heap_serving() {
    assert_child_exits("panics_under_a_limit", "", 0);
}

/// A child: what most programs do with a refusal, which is nothing.
fn refused_vector(_: &str) {
    black_box(vec![1u8; black_box(BEYOND)]);
}

fn a_vector_that_is_refused_ends_the_process_as_std_says() {
    let output = child("refused_vector", "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("memory allocation of {BEYOND} bytes failed")), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

/// A child: every page that it maps from now on is locked, as far as a limit allows, and cannot be discarded.
fn locked(_: &str) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max.min(16 << 20);
    // SAFETY: reads the limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
    // Whoever may lock all memory does not feel the limit.
    // SAFETY: this child has one thread.
    if unsafe { libc::getuid() } == 0 {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setuid(65534) }, 0);
    }
    // SAFETY: takes no pointer.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        // SAFETY: as above. The program alone may be more than the limit.
        assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
    }
    let (mut served, mut refused) = (0, 0);
    for round in 0..3u8 {
        let mut blocks = Vec::with_capacity(64);
        for size in [100, 5 * KIB, 2 * PAGE, 20 * PAGE, MIB, 3 * MIB, 9 * MIB, 40 * MIB] {
            match Block::try_zeroed(layout(size, 8)) {
                Some(mut block) => {
                    block.check_zero();
                    block.fill(u64::from(round));
                    blocks.push(block);
                    served += 1;
                }
                None => refused += 1,
            }
        }
        blocks.into_iter().for_each(|block| block.check_and_free(u64::from(round)));
        Kmalloc::reclaim(); // refused, page by page: what is locked is not discarded
        common::assert_valid();
        // Whether there can be another thread is the system's to say.
        let _ = thread::Builder::new().stack_size(64 * KIB).spawn(|| Block::new(100, 8).free()).map(|t| t.join());
    }
    assert!(served >= 6 && refused > 0, "{served} served, {refused} refused");
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::munlockall() }, 0);
    for size in [100, 2 * PAGE, MIB, 9 * MIB, 40 * MIB] {
        let block = Block::zeroed(size, 8);
        block.check_zero();
        block.free();
    }
    Kmalloc::reclaim();
    common::assert_valid();
}

fn locked_memory_is_served_or_refused() {
    assert_child_exits("locked", "", 0);
}
