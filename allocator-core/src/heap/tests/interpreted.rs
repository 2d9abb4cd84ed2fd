//! Loads of every layer that are short enough for an interpreter (`ci/miri.sh`): it watches that each access is one that the
//! language allows, whichever the optimiser makes of it, and that what two threads do is ordered.

use super::*;
use std::sync::mpsc;

/// Miri does a million steps a minute.
const OPS: usize = if cfg!(miri) { 40 } else { 20_000 };

// SAFETY: a block is whose it is given to.
unsafe impl Send for Block {}

/// An end that an interpreter comes to: to look at all pages and descriptors takes it a minute.
fn end_of_all(heap: &Heap) {
    if cfg!(miri) {
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
    } else {
        end(heap);
        heap.audit(None).unwrap();
    }
}

#[test]
fn a_block_of_each_layer_is_written_grows_shrinks_and_goes() {
    let Setup { heap, .. } = setup(true);
    let own = heap.attach();
    let objects = [24, 30, 100, 700, 5000, 20_000, 90, 1];
    let runs = [MAX_OBJECT + 1, 3 * PAGE_SIZE, 5 * PAGE_SIZE, CHUNK_SIZE + 1, 2 * PAGE_SIZE, 8];
    let areas = [VMALLOC_THRESHOLD + 1, VMALLOC_THRESHOLD + CHUNK_SIZE, VMALLOC_THRESHOLD + 1, 100];
    for (lengths, align) in [(&objects[..], 8), (&objects, 256), (&runs, 8), (&runs, 2 * PAGE_SIZE), (&areas, 8)] {
        let mut block = Block::new(heap, own, layout(lengths[0], align), 1).unwrap();
        let neighbour = Block::new(heap, own, layout(lengths[0].min(3 * PAGE_SIZE), align), 2).unwrap();
        for size in &lengths[1..] {
            assert!(block.resize(heap, own, *size));
        }
        block.free(heap, own);
        // Where something else has been.
        let zeros = Block::zeroed(heap, own, layout(lengths[0], align));
        zeros.check(lengths[0]);
        neighbour.free(heap, own);
        zeros.free(heap, own);
    }
    // SAFETY: our own block.
    unsafe { heap.tick(own) };
    // SAFETY: our own block, not used again.
    unsafe { heap.detach(own.unwrap()) };
    end_of_all(heap);
}

#[test]
fn slabs_fill_and_empty_in_any_order() {
    let Setup { heap, .. } = setup(false);
    let own = heap.attach();
    for (size, n) in [(16, if cfg!(miri) { 40 } else { 4000 }), (3000, 40), (MAX_OBJECT, 9)] {
        let mut blocks: Vec<_> =
            (0..n).map(|mark| Block::new(heap, own, layout(size, 8), mark as u8).unwrap()).collect();
        for at in (0..n).rev() {
            blocks.swap_remove(at * 7 % blocks.len()).free(heap, own);
        }
    }
    // SAFETY: our own block, not used again.
    unsafe { heap.detach(own.unwrap()) };
    end_of_all(heap);
}

/// What one of the threads does: blocks of all kinds, of which every other one is the next thread's.
fn allocate_and_hand_on(heap: &'static Heap, n: u64, inbox: &mpsc::Receiver<Block>, next: &mpsc::Sender<Block>) {
    let mut drawn = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(n + 1);
    let mut draw = |below: usize| {
        drawn ^= drawn << 13;
        drawn ^= drawn >> 7;
        drawn ^= drawn << 17;
        (drawn >> 32) as usize % below
    };
    for _ in 0..2 {
        let own = heap.attach();
        let mut blocks = Vec::new();
        for _ in 0..OPS {
            let size = [16, 16, 16, 500, 5000, MAX_OBJECT + 1, 3 * PAGE_SIZE][draw(7)];
            match draw(8) {
                0..=3 => blocks.extend(Block::new(heap, own, layout(size, 8), draw(256) as u8)),
                4 => blocks.push(Block::zeroed(heap, own, layout(size, 8))),
                5 if !blocks.is_empty() => _ = next.send(blocks.swap_remove(draw(blocks.len()))),
                6 if !blocks.is_empty() => {
                    let at = draw(blocks.len());
                    assert!(blocks[at].resize(heap, own, size));
                }
                _ if !blocks.is_empty() => blocks.swap_remove(draw(blocks.len())).free(heap, own),
                _ => {}
            }
            inbox.try_iter().for_each(|block| block.free(heap, own));
        }
        for block in blocks {
            next.send(block).expect("the next thread's inbox lives as long as all of them");
        }
        // SAFETY: our own block, not used again.
        unsafe { heap.detach(own.unwrap()) };
    }
}

#[test]
fn threads_hand_blocks_on_while_memory_goes_back_beside_them() {
    const THREADS: usize = 3;
    let Setup { heap, .. } = setup(true);
    let (nexts, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    std::thread::scope(|scope| {
        let threads: Vec<_> = inboxes
            .into_iter()
            .enumerate()
            .map(|(n, inbox)| {
                let next = nexts[(n + 1) % THREADS].clone();
                scope.spawn(move || {
                    allocate_and_hand_on(heap, n as u64, &inbox, &next);
                    inbox
                })
            })
            .collect();
        for _ in 0..3 {
            // SAFETY: no block of a thread is meant.
            unsafe { heap.tick(None) };
            // SAFETY: as above.
            unsafe { heap.reclaim(None) };
        }
        let inboxes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        inboxes.iter().flat_map(mpsc::Receiver::try_iter).for_each(|block| block.free(heap, None));
    });
    end_of_all(heap);
}

#[test]
fn a_child_goes_on_with_what_its_parents_threads_had() {
    let Setup { heap, .. } = setup(true);
    let own = heap.attach();
    // The thread ends, as it does in a child, without a word.
    let left = std::thread::spawn(move || {
        let theirs = heap.attach();
        let kept = Block::new(heap, theirs, layout(48, 8), 5).unwrap();
        Block::new(heap, theirs, layout(48, 8), 6).unwrap().free(heap, theirs);
        Block::new(heap, theirs, layout(3 * PAGE_SIZE, 8), 7).unwrap().free(heap, theirs);
        kept
    });
    let left = left.join().unwrap();
    become_a_child(heap, own);
    Block::new(heap, own, layout(48, 8), 8).unwrap().free(heap, own);
    left.free(heap, own);
    // SAFETY: our own block, not used again.
    unsafe { heap.detach(own.unwrap()) };
    end_of_all(heap);
}
