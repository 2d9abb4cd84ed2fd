//! Memory: how much of it is held beside what the program has. Each case is a process of its own, so that its peak is
//! its own.

mod common;

use allocator_global::Kmalloc;
use common::{assert_child_exits, on_threads, proc_bytes, resident_bytes, Block, KIB, MIB, PAGE};
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::{Barrier, Mutex};

suite! {
    tests: [
        a_reclaimer_keeps_the_peak_near_what_is_live,
        a_ring_costs_no_more_than_what_is_live_twice_and_what_threads_keep,
        a_ring_of_two_costs_what_is_on_its_way,
        two_sizes_in_turn_do_not_fragment,
        a_sawtooth_does_not_creep,
        a_vector_that_grows_to_a_gibibyte_needs_no_more,
        where_huge_pages_are_switched_off_nothing_counts_as_if_there_were_some,
    ],
    children: [reclaimer, ring, stream, two_sizes, sawtooth, vector, without_huge_pages]
}

/// The most that was resident of this process so far.
fn peak_bytes() -> usize {
    proc_bytes("/proc/self/status", "VmHWM:")
}

/// Sizes from a few bytes to a few pages, mostly small; the same for the same number.
fn size(n: usize) -> usize {
    let bits = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    match bits % 100 {
        0 => 1 + bits as usize % (100 * KIB),
        1..=9 => 1 + bits as usize % (8 * KIB),
        _ => 1 + bits as usize % KIB,
    }
}

/// A child: sixteen threads allocate 64 MiB together and park; one other frees all of it; four times.
fn reclaimer(_: &str) {
    const THREADS: usize = 16;
    const EACH: usize = 4 * MIB;
    let (full, empty) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let blocks = Mutex::new(Vec::with_capacity(1 << 18));
    let before = resident_bytes();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (full, empty, blocks) = (&full, &empty, &blocks);
            scope.spawn(move || {
                for round in 0..4 {
                    let (mut own, mut bytes, mut n) = (Vec::new(), 0, (round * THREADS + thread) << 20);
                    while bytes < EACH {
                        own.push(Block::filled(size(n), 8, 1));
                        bytes += size(n);
                        n += 1;
                    }
                    blocks.lock().expect("no panic").append(&mut own);
                    drop(own);
                    full.wait();
                    empty.wait();
                }
            });
        }
        for _ in 0..4 {
            full.wait();
            blocks.lock().expect("no panic").drain(..).for_each(|block| block.check_and_free(1));
            empty.wait();
        }
    });
    let (live, peak) = (THREADS * EACH, peak_bytes() - before);
    // With 16 bytes beside each block for the list, which is the program's own.
    assert!(peak <= live * 13 / 10 + 32 * MIB, "{peak} bytes at the most for {live} live ones");
}

fn a_reclaimer_keeps_the_peak_near_what_is_live() {
    assert_child_exits("reclaimer", "", 0);
}

/// A child: each of 64 threads in turn allocates what the next one frees (Hoard's blow-up).
fn ring(_: &str) {
    const THREADS: usize = 64;
    const LIVE: usize = 16 * MIB;
    let allocate = || {
        let (mut blocks, mut bytes, mut n) = (Vec::new(), 0, 0);
        while bytes < LIVE {
            blocks.push(Block::filled(size(n), 8, 1));
            bytes += size(n);
            n += 1;
        }
        blocks
    };
    let before = resident_bytes();
    let (turn, blocks) = (Barrier::new(THREADS), Mutex::new(Vec::new()));
    on_threads(THREADS, |thread| {
        for now in 0..2 * THREADS {
            turn.wait();
            if now % THREADS == thread {
                blocks.lock().expect("no panic").drain(..).for_each(Block::free);
                *blocks.lock().expect("no panic") = allocate();
            }
        }
    });
    let peak = peak_bytes() - before;
    blocks.into_inner().expect("no panic").into_iter().for_each(Block::free);
    // A thread that has used objects of all sizes keeps some of each, idle as it may be: less than a MiB.
    assert!(peak <= 2 * LIVE + THREADS * MIB, "{peak} bytes at the most for {LIVE} live ones");
}

fn a_ring_costs_no_more_than_what_is_live_twice_and_what_threads_keep() {
    assert_child_exits("ring", "", 0);
}

/// A child: one thread allocates, another frees, one block for one, with at most 1000 on their way.
fn stream(_: &str) {
    const BLOCKS: usize = 1_000_000;
    let free_all = |receiver: Receiver<Block>| {
        (0..).zip(receiver).for_each(|(id, block): (u64, Block)| block.check_and_free(id));
    };
    let before = resident_bytes();
    let (sender, receiver) = sync_channel(1000);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (0..BLOCKS).for_each(|n| sender.send(Block::filled(size(n), 8, n as u64)).expect("a receiver"))
        });
        scope.spawn(move || free_all(receiver));
    });
    let peak = peak_bytes() - before;
    // 1000 blocks, two threads' stacks, slabs of each class that are partly used; more than a GiB goes through.
    assert!(peak <= 16 * MIB, "{peak} bytes at the most");
}

fn a_ring_of_two_costs_what_is_on_its_way() {
    assert_child_exits("stream", "", 0);
}

/// A child: blocks of 128 KiB and of 512 bytes in turn, of which every other one is freed at once.
fn two_sizes(_: &str) {
    const LIVE: usize = 64 * MIB;
    let before = resident_bytes();
    let (mut blocks, mut bytes) = (std::collections::VecDeque::new(), 0);
    for n in 0..300_000 {
        let size = if n % 2 == 0 { 512 } else { 128 * KIB };
        // Touched whole, as a program does.
        let block = Block::filled(size, 8, 1);
        if n % 4 < 2 {
            bytes += size;
            blocks.push_back(block);
        } else {
            block.free();
        }
        while bytes > LIVE {
            let oldest: Block = blocks.pop_front().expect("something is live");
            bytes -= oldest.size();
            oldest.free();
        }
    }
    let now = resident_bytes() - before;
    blocks.into_iter().for_each(Block::free);
    assert!(now <= LIVE * 5 / 4, "{now} bytes are resident for {LIVE} live ones");
}

fn two_sizes_in_turn_do_not_fragment() {
    assert_child_exits("two_sizes", "", 0);
}

/// A child: up to 32 MiB and down to nothing, in other sizes each time.
fn sawtooth(_: &str) {
    let tooth = |first: usize| {
        let (mut blocks, mut bytes, mut n) = (Vec::with_capacity(100_000), 0, first << 20);
        while bytes < 32 * MIB {
            blocks.push(Block::filled(size(n) + first % 7 * 100, 8, 1));
            bytes += blocks[blocks.len() - 1].size();
            n += 1;
        }
        // Not in the order in which they came.
        while !blocks.is_empty() {
            blocks.swap_remove(n % blocks.len()).free();
            n = n.wrapping_mul(31).wrapping_add(7);
        }
    };
    (0..120).for_each(tooth);
    let before = peak_bytes();
    (120..240).for_each(tooth);
    let crept = peak_bytes().saturating_sub(before); // the kernel counts by the batch
    assert!(crept <= 4 * MIB, "{crept} bytes more at the most than in the first of the teeth");
}

fn a_sawtooth_does_not_creep() {
    assert_child_exits("sawtooth", "", 0);
}

/// A child: a vector that grows by doubling; every byte is written.
fn vector(_: &str) {
    const END: usize = 1 << 30;
    let before = peak_bytes();
    let mut bytes: Vec<u8> = Vec::with_capacity(64);
    while bytes.len() < END {
        bytes.reserve_exact(bytes.len().max(64));
        bytes.resize(bytes.capacity().min(END), 7);
    }
    let peak = peak_bytes() - before;
    assert!(peak <= END + END / 20, "{} MiB at the peak", peak / MIB);
    let full = resident_bytes();
    bytes.truncate(END / 4);
    bytes.shrink_to_fit();
    let given = full.saturating_sub(resident_bytes());
    assert!(given >= END / 4 * 3 - MIB, "{} MiB went back of {}", given / MIB, END / 4 * 3 / MIB);
    assert!(bytes.iter().all(|byte| *byte == 7));
}

fn a_vector_that_grows_to_a_gibibyte_needs_no_more() {
    assert_child_exits("vector", "", 0);
}

/// A child: it may have no huge pages, and fills more chunks than have small ones anyway.
fn without_huge_pages(_: &str) {
    // A system that refuses this has no advice taken either.
    // SAFETY: a switch of this process.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let blocks: Vec<_> = (0..20 * MIB / (64 * KIB)).map(|_| Block::filled(64 * KIB, 8, 1)).collect();
    let stats = Kmalloc::stats();
    let in_use = stats.run_bytes + stats.slab_pages * PAGE;
    assert!(stats.charged - in_use < MIB, "{} bytes count, of which {in_use} are in use", stats.charged);
    assert_eq!(stats.huge, 0);
    blocks.into_iter().for_each(|block| block.check_and_free(1));
}

/// Class of bug: advice that the system takes and does not follow, so that limits and figures see 2 MiB for each page.
fn where_huge_pages_are_switched_off_nothing_counts_as_if_there_were_some() {
    assert_child_exits("without_huge_pages", "", 0);
}
