//! Blocks that one thread allocates and another one frees.

mod common;

use allocator_core::sys::{Os, Unix};
use allocator_global::Kmalloc;
use common::{on_threads, resident_bytes, Block, KIB, MIB, PAGE};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Arc, Barrier, Mutex};
use std::thread;

suite! {
    tests: [
        a_consumer_that_only_frees_keeps_memory_bounded,
        one_producer_feeds_many_consumers,
        one_thread_frees_what_sixteen_parked_ones_allocated,
        survivors_of_ended_threads_are_freed_by_others,
        blocks_pass_around_a_ring,
        two_threads_share_a_slab_at_its_edges,
        who_frees_a_neighbour_first_gets_another_line,
    ],
    children: []
}

/// Sizes of every kind, mostly small; the same for the same number.
fn mixed_size(n: u64) -> usize {
    let bits = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    match bits % 1000 {
        0 => LARGE,
        1..=9 => PAGE + bits as usize % (6 * PAGE),
        10..=99 => 1 + bits as usize % (16 * KIB),
        _ => 1 + bits as usize % KIB,
    }
}
const LARGE: usize = 33 * MIB;

/// The figures, and what is resident, without free pages: how many of them there are depends on the scheduler.
fn settled() -> (allocator_global::Stats, usize) {
    Kmalloc::reclaim();
    (Kmalloc::stats(), resident_bytes())
}

/// Asserts that the program holds as much as before, and the allocator no more than `slack` in addition.
fn assert_as_before(before: &allocator_global::Stats, resident: usize, slack: usize) {
    let (after, now) = settled();
    assert_eq!(
        (after.threads, after.slab_objects, after.slab_bytes, after.runs, after.areas),
        (before.threads, before.slab_objects, before.slab_bytes, before.runs, before.areas)
    );
    // Arenas become writable in steps of 16 MiB, and which thread needs the next step is up to the scheduler.
    assert!(after.committed <= before.committed + slack.max(48 * MIB), "{before:?}\n{after:?}");
    let drift = now.saturating_sub(resident);
    assert!(drift <= slack, "{drift} bytes more are resident");
}

/// `producers` threads send `each` blocks to one thread that checks and frees them; at most 512 are on their way.
fn produce_and_consume(producers: usize, each: u64) {
    let (sender, receiver) = mpsc::sync_channel::<(u64, Block)>(512);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..producers as u64)
            .map(|producer| {
                let sender = sender.clone();
                scope.spawn(move || {
                    for n in 0..each {
                        let id = producer << 32 | n;
                        sender.send((id, Block::filled(mixed_size(id), 8, id))).expect("the consumer is there");
                    }
                })
            })
            .collect();
        drop(sender);
        let consumer = scope.spawn(move || {
            let mut count = 0;
            for (id, block) in receiver {
                block.check_and_free(id);
                count += 1;
            }
            count
        });
        threads.into_iter().for_each(|thread| thread.join().expect("a producer panicked"));
        assert_eq!(consumer.join().expect("the consumer panicked"), producers as u64 * each);
    });
}

fn a_consumer_that_only_frees_keeps_memory_bounded() {
    for producers in [1, 3] {
        produce_and_consume(producers, 10_000);
        let (before, resident) = settled();
        for _ in 0..3 {
            produce_and_consume(producers, 10_000);
        }
        // Hundreds of megabytes have gone through. What is on its way at once depends on the scheduler, hence the
        // slack.
        assert_as_before(&before, resident, 32 * MIB);
    }
}

fn one_producer_feeds_many_consumers() {
    let round = || {
        let freed = AtomicUsize::new(0);
        thread::scope(|scope| {
            let mut senders = Vec::new();
            let mut threads = Vec::new();
            for _ in 0..3 {
                let (sender, receiver) = mpsc::sync_channel::<(u64, Block)>(64);
                senders.push(sender);
                let freed = &freed;
                threads.push(scope.spawn(move || {
                    for (id, mut block) in receiver {
                        let size = block.size();
                        block.resize(size + size / 2 + 1); // what the consumer allocates dies with it as well
                        block.check_prefix(id, size);
                        block.free();
                        freed.fetch_add(1, Relaxed);
                    }
                }));
            }
            for id in 0..20_000 {
                let to = &senders[id as usize % senders.len()];
                to.send((id, Block::filled(mixed_size(id), 16, id))).expect("the consumer is there");
            }
            drop(senders);
            threads.into_iter().for_each(|thread| thread.join().expect("a consumer panicked"));
        });
        assert_eq!(freed.into_inner(), 20_000);
    };
    round();
    let (before, resident) = settled();
    round();
    round();
    assert_as_before(&before, resident, 32 * MIB);
}

/// The threads that allocated stay alive and idle, so nothing may wait for them.
fn one_thread_frees_what_sixteen_parked_ones_allocated() {
    const THREADS: usize = 16;
    const EACH: usize = 20_000;
    let round = || {
        let blocks = Arc::new(Mutex::new(Vec::new()));
        let (allocated, freed) = (Arc::new(Barrier::new(THREADS + 1)), Arc::new(Barrier::new(THREADS + 1)));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (blocks, allocated, freed) = (blocks.clone(), allocated.clone(), freed.clone());
                thread::spawn(move || {
                    let id = |n| (thread * EACH + n) as u64;
                    let own: Vec<_> = (0..EACH).map(|n| (id(n), Block::filled(1 + n % 600, 8, id(n)))).collect();
                    blocks.lock().expect("no panic").extend(own);
                    allocated.wait();
                    freed.wait();
                })
            })
            .collect();
        allocated.wait();
        let full = Kmalloc::stats();
        for (id, block) in blocks.lock().expect("no panic").drain(..) {
            block.check_and_free(id);
        }
        let empty = Kmalloc::stats();
        freed.wait();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
        (full, empty)
    };
    round();
    let (before, resident) = settled();
    for _ in 0..3 {
        let (full, empty) = round();
        assert!(full.slab_objects >= before.slab_objects + THREADS * EACH, "{full:?}");
        // While all the others are still parked, their slabs are back in the buddy but for what sheaves hold.
        assert!(empty.slab_objects < before.slab_objects + THREADS * 100, "{empty:?}");
        assert!(empty.slab_pages < full.slab_pages / 2, "{full:?}\n{empty:?}");
    }
    assert_as_before(&before, resident, 16 * MIB);
}

/// Class of bug: what a thread owned is lost, or found twice, when it ends while others free into it.
fn survivors_of_ended_threads_are_freed_by_others() {
    const LEFT_BY_EACH: u64 = 60;
    let round = |lives: usize| {
        let survivors = Mutex::new(Vec::<(u64, Block)>::new());
        on_threads(4, |spawner| {
            for life in 0..lives {
                let survivors = &survivors;
                let one_life = move || {
                    let first = ((spawner * lives + life) as u64) << 16;
                    let ids = first..first + LEFT_BY_EACH;
                    let mut own: Vec<_> =
                        ids.map(|id| (id, Block::filled(mixed_size(id).min(PAGE * 4), 8, id))).collect();
                    let mut others = {
                        let mut survivors = survivors.lock().expect("no panic");
                        let keep = survivors.len() / 2;
                        let taken = survivors.split_off(keep);
                        survivors.append(&mut own);
                        taken
                    };
                    for (id, block) in others.drain(..) {
                        block.check_and_free(id);
                    }
                };
                thread::scope(|scope| scope.spawn(one_life).join().expect("a thread panicked"));
            }
        });
        for (id, block) in survivors.into_inner().expect("no panic") {
            block.check_and_free(id);
        }
    };
    round(100);
    let (before, resident) = settled();
    round(400);
    assert_as_before(&before, resident, 32 * MIB);
}

/// Every block is resized by one thread, checked by the next, and freed by whoever has it last.
fn blocks_pass_around_a_ring() {
    const THREADS: usize = 12;
    const HOPS: usize = 4000;
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS)
        .map(|_| mpsc::channel::<(u64, Block)>())
        .map(|(sender, receiver)| (Some(sender), receiver))
        .unzip();
    senders.rotate_left(1); // thread `n` sends to thread `n + 1`
    let ends: Vec<_> = senders.into_iter().zip(receivers).collect();
    let ends: Vec<_> = ends.into_iter().map(|end| Mutex::new(Some(end))).collect();
    let left = on_threads(THREADS, |thread| {
        let (sender, receiver) = ends[thread].lock().expect("no panic").take().expect("taken once");
        let sender = sender.expect("one for each");
        for n in 0..4u64 {
            let id = (thread as u64) << 8 | n;
            sender.send((id, Block::filled(mixed_size(id), 8, id))).expect("the next one is there");
        }
        for hop in 0..HOPS {
            let (id, mut block) = receiver.recv().expect("the one before is there");
            block.check(id);
            if hop % 3 == 0 {
                let kept = block.size();
                block.resize(mixed_size(id + hop as u64));
                block.check_prefix(id, kept.min(block.size()));
                block.fill_from(id, kept.min(block.size()));
            }
            assert!(sender.send((id, block)).is_ok(), "the next one keeps its end");
        }
        receiver
    });
    let mut count = 0;
    for (id, block) in left.into_iter().flatten() {
        block.check_and_free(id);
        count += 1;
    }
    assert_eq!(count, THREADS * 4);
}

/// A slab goes from full to partial and back with each step of two threads that take turns.
fn two_threads_share_a_slab_at_its_edges() {
    for size in [8 * KIB, 16 * KIB, PAGE] {
        let crowd: Vec<Block> = (0..200).map(|id| Block::filled(size, 8, id)).collect();
        on_threads(2, |thread| {
            for n in 0..3000u64 {
                let id = n << 1 | thread as u64;
                let pair = [Block::filled(size, 8, id), Block::filled(size - 1, 8, !id)];
                let [first, second] = pair;
                first.check_and_free(id);
                if n % 16 == 0 {
                    thread::yield_now();
                }
                second.check_and_free(!id);
            }
        });
        for (id, block) in (0..).zip(crowd) {
            block.check_and_free(id);
        }
    }
}

/// Two threads free a block each that lies beside one of this thread, and allocate such a block. If there is more than one
/// shard, one of them has another than this thread, and must not be given what it has freed.
fn who_frees_a_neighbour_first_gets_another_line() {
    if Unix.cpus() == 1 {
        return;
    }
    let line = |block: &Block| block.address() / 64;
    let blocks: Vec<Block> = (0..100).map(|_| Block::new(8, 8)).collect();
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = (0..).zip(blocks).partition(|(i, _)| i % 2 == 0);
    let given = Mutex::new([theirs.pop(), theirs.pop()]);
    let both = Barrier::new(2);
    let apart = on_threads(2, |index| {
        both.wait();
        let (_, neighbour) = given.lock().unwrap()[index].take().expect("a block for each");
        let freed = line(&neighbour);
        neighbour.free();
        let got = Block::new(8, 8);
        both.wait();
        let apart = line(&got) != freed;
        got.free();
        apart
    });
    assert!(apart.contains(&true), "{apart:?}");
    ours.drain(..).chain(theirs).for_each(|(_, block)| block.free());
}
