//! Sizes, alignments, realloc and zeroing: every boundary between the ways a request can be served, crossed in both
//! directions under Kmalloc as the global allocator.

mod common;

use allocator_global::Kmalloc;
use common::{
    boundary_sizes, class_sizes, layout, on_threads, Block, CHUNK, GIB, KIB, KMALLOC, LONGEST_RUN, MIB, PAGE,
};
use std::alloc::{GlobalAlloc, Layout};

suite! {
    tests: [
        realloc_keeps_the_content_up_and_down_every_boundary,
        realloc_keeps_the_content_up_and_down_at_every_alignment,
        realloc_keeps_the_content_between_all_kinds_of_block,
        realloc_grows_a_block_while_neighbours_stay_intact,
        alignments_to_one_gibibyte_are_kept,
        no_bytes_are_served_as_one,
        areas_around_four_gibibytes_keep_their_ends,
        every_small_layout_is_served_freed_and_resized,
        alloc_zeroed_is_zero_where_the_same_sizes_were_dirty,
        alloc_zeroed_is_zero_after_reclaim,
        alloc_zeroed_is_zero_where_another_thread_was_dirty,
        blocks_of_all_sizes_do_not_overlap,
    ],
    children: []
}

/// Up through all sizes and down again. After each step the bytes that both sizes share are checked.
fn ladder(align: usize, sizes: &[usize]) {
    let id = align as u64;
    let mut block = Block::filled(sizes[0], align, id);
    for &size in sizes.iter().chain(sizes.iter().rev()) {
        let kept = block.size().min(size);
        block.resize(size);
        block.check_prefix(id, kept);
        block.fill_from(id, kept);
    }
    block.check_and_free(id);
}

fn realloc_keeps_the_content_up_and_down_every_boundary() {
    ladder(1, &boundary_sizes(64 * MIB + 1));
}

fn realloc_keeps_the_content_up_and_down_at_every_alignment() {
    for shift in 1..=12 {
        ladder(1 << shift, &boundary_sizes(MIB));
    }
    for align in [PAGE, 2 * PAGE, 16 * PAGE, 2 * MIB, 4 * MIB] {
        ladder(align, &boundary_sizes(LONGEST_RUN + 1));
    }
}

fn realloc_keeps_the_content_between_all_kinds_of_block() {
    let sizes = [1, 8, 9, 256, 257, KIB, KIB + 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE + 1, MIB, 2 * MIB - 1];
    let longer = [2 * MIB, 2 * MIB + 1, LONGEST_RUN - 1, LONGEST_RUN, LONGEST_RUN + 1, 16 * MIB];
    let all = || sizes.iter().chain(&longer).copied();
    for from in all() {
        for to in all() {
            let id = (from ^ to.rotate_left(32)) as u64;
            let mut block = Block::filled(from, 8, id);
            block.resize(to);
            block.check_prefix(id, from.min(to));
            block.fill_from(id, from.min(to));
            block.check_and_free(id);
        }
    }
}

/// Growth in place claims what lies behind the block: here that is sometimes free and sometimes somebody's.
fn realloc_grows_a_block_while_neighbours_stay_intact() {
    let mut neighbours: Vec<(u64, Block)> =
        (0..48).map(|id| (id, Block::filled((1 + id as usize % 5) * PAGE, 8, id))).collect();
    for round in 0..24 {
        let (id, block) = neighbours.remove(round);
        block.check_and_free(id);
        let at = (round * 7) % neighbours.len();
        let (id, block) = &mut neighbours[at];
        let kept = block.size();
        block.resize(kept + (1 + round % 4) * PAGE);
        block.check_prefix(*id, kept);
        block.fill_from(*id, kept);
        for (id, block) in &neighbours {
            block.check(*id);
        }
    }
    for (id, block) in neighbours {
        block.check_and_free(id);
    }
}

fn alignments_to_one_gibibyte_are_kept() {
    let mapped = Kmalloc::stats().area_bytes;
    for shift in 0..=30 {
        let align = 1usize << shift;
        let mut sizes = vec![1, 8, align - 1, align, align + 1];
        sizes.retain(|&size| size != 0);
        sizes.dedup();
        let mut blocks = Vec::new();
        for size in sizes {
            // What is too long to be written in a test is touched at its two ends.
            let mut block = Block::zeroed(size, align);
            if size <= 4 * MIB {
                block.check_zero();
                block.fill(shift);
            } else {
                for offset in [0, size / 2, size - 1] {
                    let byte = block.as_ptr().wrapping_add(offset);
                    // SAFETY: the offset lies inside the block, which came zeroed.
                    assert_eq!(unsafe { byte.read() }, 0);
                    // SAFETY: the same byte, and the block is ours.
                    unsafe { byte.write(1) };
                }
            }
            if align >= 256 * MIB {
                block.free(); // one at a time: together they would need more address space than some machines commit
            } else {
                blocks.push(block);
            }
        }
        for block in blocks {
            if block.size() <= 4 * MIB {
                block.check(shift);
            }
            block.free();
        }
        if align <= GIB / 16 {
            let mut block = Block::filled(8, align, 1);
            for size in [align, align + 1, 2 * align + 1, align, 8] {
                block.resize(size.max(8));
                block.check_prefix(1, 8);
            }
            block.check_and_free(1);
        }
        if align > CHUNK {
            let block = Block::new(align, align);
            let cost = Kmalloc::stats().area_bytes - mapped;
            assert!(cost <= align + CHUNK, "{cost} bytes are mapped for {align} aligned ones");
            block.free();
        }
        assert_eq!(Kmalloc::stats().area_bytes, mapped, "areas were freed");
    }
}

/// The type allows a size of zero, though std never asks for it.
fn no_bytes_are_served_as_one() {
    for shift in 0..=22 {
        let (nothing, some) = (Layout::from_size_align(0, 1 << shift), Layout::from_size_align(100, 1 << shift));
        let (nothing, some) = (nothing.expect("a layout"), some.expect("a layout"));
        // SAFETY: more than the contract asks for: the allocator promises to serve no bytes as one.
        let pair = [unsafe { KMALLOC.alloc(nothing) }, unsafe { KMALLOC.alloc_zeroed(nothing) }];
        assert!(pair.iter().all(|ptr| !ptr.is_null() && *ptr as usize % nothing.align() == 0));
        assert_ne!(pair[0], pair[1], "one byte each");
        // SAFETY: as above; live, and of this layout.
        let grown = unsafe { KMALLOC.realloc(pair[0], nothing, 100) };
        // SAFETY: just made that long.
        unsafe { grown.write_bytes(1, 100) };
        // SAFETY: as above.
        let shrunk = unsafe { KMALLOC.realloc(grown, some, 0) };
        assert!(!grown.is_null() && !shrunk.is_null() && shrunk as usize % nothing.align() == 0);
        for ptr in [shrunk, pair[1]] {
            // SAFETY: live, and of this layout.
            unsafe { KMALLOC.dealloc(ptr, nothing) };
        }
    }
}

/// Class of bug: a length in 32 bits, or in bytes where pages are meant.
fn areas_around_four_gibibytes_keep_their_ends() {
    const FOUR: usize = 4 * GIB;
    let touch = |block: &Block, mark: u8| {
        for offset in [0, block.size() / 2, block.size() - 1] {
            // SAFETY: inside the block, which is ours.
            unsafe { block.as_ptr().wrapping_add(offset).write(mark) };
        }
    };
    let mut served = 0;
    for size in [FOUR - 1, FOUR, FOUR + 1, 2 * FOUR] {
        let Some(mut block) = Block::try_new(layout(size, 8)) else {
            println!("{size} bytes are refused on this machine");
            continue;
        };
        served += 1;
        touch(&block, 1);
        for to in [FOUR + 9, FOUR - PAGE, 100 * MIB, FOUR + GIB] {
            if block.try_resize(to) {
                // SAFETY: inside the block, and written above.
                assert_eq!(unsafe { block.as_ptr().read() }, 1);
                touch(&block, 1);
            }
        }
        block.free();
    }
    assert!(served > 0, "this machine has too little memory for this test");
}

/// Class of bug: the class is chosen from size and alignment, and chosen differently when the block is freed.
fn every_small_layout_is_served_freed_and_resized() {
    let mut sizes: Vec<usize> = (1..=KIB).collect();
    sizes.extend(class_sizes().into_iter().flat_map(|size| [size - 1, size, size + 1]).filter(|&size| size > KIB));
    sizes.extend([2 * PAGE - 8, 2 * PAGE]);
    for shift in 0..=16 {
        let align = 1 << shift;
        for &size in &sizes {
            let id = (size + align) as u64;
            let block = Block::filled(size, align, id);
            let zeroed = Block::zeroed(size, align);
            let mut resized = Block::filled(size, align, !id);
            zeroed.check_zero();
            resized.resize(size + size / 3 + 1);
            resized.check_prefix(!id, size);
            block.check_and_free(id);
            zeroed.free();
            resized.free();
        }
    }
}

/// How many blocks of one size to have at once, so that small ones leave more than the first slab dirty.
fn crowd(size: usize) -> usize {
    match size {
        _ if size <= KIB => 96,
        _ if size <= PAGE => 16,
        _ if size <= 2 * MIB => 2,
        _ => 1,
    }
}

fn dirty(sizes: &[usize]) {
    let blocks: Vec<Block> =
        sizes.iter().flat_map(|&size| (0..crowd(size)).map(move |_| Block::filled(size, 8, !0))).collect();
    blocks.into_iter().for_each(Block::free);
}

fn expect_zero(sizes: &[usize]) {
    let mut blocks = Vec::new();
    for &size in sizes {
        for _ in 0..crowd(size) {
            let mut block = Block::zeroed(size, 8);
            block.check_zero();
            block.fill(!1); // the next one must be zero beside it
            blocks.push(block);
        }
    }
    blocks.into_iter().for_each(Block::free);
}

fn alloc_zeroed_is_zero_where_the_same_sizes_were_dirty() {
    for size in boundary_sizes(64 * MIB + 1) {
        dirty(&[size]);
        expect_zero(&[size]);
    }
    let sizes = boundary_sizes(2 * MIB + 1);
    let backwards: Vec<usize> = sizes.iter().rev().copied().collect();
    for asks in [true, false, true] {
        allocator_global::Kmalloc::set_sparse_zeros(asks);
        dirty(&sizes);
        expect_zero(&backwards);
    }
}

fn alloc_zeroed_is_zero_after_reclaim() {
    let sizes = boundary_sizes(LONGEST_RUN);
    let backwards: Vec<usize> = sizes.iter().rev().copied().collect();
    dirty(&sizes);
    allocator_global::Kmalloc::reclaim();
    common::assert_valid();
    expect_zero(&backwards);
    // Now with survivors, so that chunks are given back in part.
    let mut blocks: Vec<Block> = (0..512).map(|n| Block::filled((1 + n % 3) * PAGE, 8, n as u64)).collect();
    let mut survivors = Vec::new();
    for n in (0..512u64).rev() {
        let block = blocks.pop().expect("one block per number");
        match n % 4 {
            0 => survivors.push((n, block)),
            _ => block.check_and_free(n),
        }
    }
    allocator_global::Kmalloc::reclaim();
    expect_zero(&sizes);
    for (n, block) in survivors {
        block.check_and_free(n);
    }
    allocator_global::Kmalloc::reclaim();
}

fn alloc_zeroed_is_zero_where_another_thread_was_dirty() {
    let sizes = boundary_sizes(MIB);
    for _ in 0..2 {
        on_threads(3, |_| dirty(&sizes));
        on_threads(3, |_| expect_zero(&sizes));
    }
}

fn blocks_of_all_sizes_do_not_overlap() {
    let mut blocks: Vec<Block> = boundary_sizes(LONGEST_RUN + 1).into_iter().map(|size| Block::new(size, 1)).collect();
    blocks.extend(boundary_sizes(PAGE).into_iter().map(|size| Block::zeroed(size, 64)));
    blocks.sort_unstable_by_key(Block::address);
    for pair in blocks.windows(2) {
        assert!(
            pair[0].address() + pair[0].size() <= pair[1].address(),
            "{:?}, {:?}",
            pair[0].layout(),
            pair[1].layout()
        );
    }
    blocks.into_iter().for_each(Block::free);
}
