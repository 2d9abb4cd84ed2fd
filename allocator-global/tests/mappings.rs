//! Mappings are few, and the heap serves on when a process may have no more of them.

mod common;

use allocator_core::config::{CHUNK_SIZE, FIRST_ARENA_CHUNKS};
use allocator_global::Kmalloc;
use common::{assert_child_exits, layout, Block, GIB, KIB, MIB, PAGE};
use std::{fs, ptr};

suite! {
    tests: [mappings_stay_few, a_process_that_may_map_no_more_is_served],
    children: [a_gibibyte_in_few_mappings, nearly_no_mapping_left]
}

/// Mappings of this process.
fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("/proc/self/maps").lines().count()
}

/// A child. Nothing is written into the blocks, so that a gibibyte costs address space only.
fn a_gibibyte_in_few_mappings(_: &str) {
    let mut blocks: Vec<Block> = Vec::with_capacity(200_000);
    let before = mappings();
    let check = |blocks: &[Block], when: &str| {
        let live: usize = blocks.iter().map(Block::size).sum();
        let ours = mappings().saturating_sub(before);
        assert!(ours <= 64 + live / (2 * MIB), "{ours} mappings for {} MiB {when}", live / MIB);
    };
    let sizes = [36 * MIB, 3 * PAGE, 30 * KIB, MIB, PAGE + 1, 33 * MIB, 5 * MIB, 2 * MIB, 700 * KIB, 44 * MIB];
    let mut live = 0;
    for (round, size) in sizes.iter().copied().cycle().enumerate() {
        blocks.push(Block::new(size, [8, 4096, 2 * MIB][round % 3].min(size.next_power_of_two())));
        live += size;
        if round % 16 == 0 {
            check(&blocks, "on the way up");
        }
        if live >= GIB {
            break;
        }
    }
    check(&blocks, "at the top");
    for round in 0..3 {
        for block in &mut blocks {
            let size = block.size();
            block.resize(if round % 2 == 0 { size + size / 8 } else { size - size / 8 });
        }
        check(&blocks, "resized");
    }
    while blocks.len() > 8 {
        let mut left = Vec::with_capacity(blocks.len());
        for (i, block) in blocks.drain(..).enumerate() {
            if i % 3 == 0 {
                block.free();
            } else {
                left.push(block);
            }
        }
        blocks = left;
        check(&blocks, "on the way down");
        Kmalloc::reclaim();
        check(&blocks, "reclaimed");
    }
    blocks.into_iter().for_each(Block::free);
    common::assert_valid();
}

fn mappings_stay_few() {
    assert_child_exits("a_gibibyte_in_few_mappings", "", 0);
}

/// Pages whose access alternates, each a mapping of its own, until the system has no more of them.
struct Filler {
    start: *mut u8,
    /// Pages that can be read, every other one.
    readable: usize,
}

const SYSTEM_PAGE: usize = 4096;

impl Filler {
    fn new() -> Self {
        let most: usize = fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .expect("vm.max_map_count");
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let len = (most + 2) * SYSTEM_PAGE;
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let mut this = Self { start: start.cast(), readable: 0 };
        while this.protect(this.readable, libc::PROT_READ) {
            this.readable += 1;
        }
        assert!(this.readable < most / 2, "there was no end to it");
        this
    }

    /// Changes the access of a page. `mprotect` of one page in the middle makes two mappings more, or less.
    fn protect(&self, which: usize, access: libc::c_int) -> bool {
        let page = self.start.wrapping_add((2 * which + 1) * SYSTEM_PAGE);
        // SAFETY: one page of the mapping, which nobody uses.
        unsafe { libc::mprotect(page.cast(), SYSTEM_PAGE, access) == 0 }
    }

    /// Gives back `mappings`, an even number.
    fn spare(&mut self, mappings: usize) {
        for _ in 0..mappings / 2 {
            self.readable -= 1;
            assert!(self.protect(self.readable, libc::PROT_NONE));
        }
    }
}

/// Blocks that are live, with room for more: nothing but the blocks themselves is allocated.
fn serve(blocks: &mut Vec<Block>, size: usize, count: usize) -> usize {
    let before = blocks.len();
    for _ in 0..count {
        match Block::try_new(layout(size, 8)) {
            Some(mut block) => {
                block.fill(blocks.len() as u64);
                blocks.push(block);
            }
            None => break,
        }
    }
    blocks.len() - before
}

/// A child.
fn nearly_no_mapping_left(spare: &str) {
    let spare: usize = spare.parse().expect("a number");
    let (mut blocks, mut areas) = (Vec::with_capacity(40_000), Vec::with_capacity(30));
    let mut filler = Filler::new();
    filler.spare(spare);
    for _ in 0..2 {
        // What the first arena, which is there since the program began, has room for needs no mapping.
        let objects = serve(&mut blocks, 200, 20_000);
        let runs = serve(&mut blocks, 100 * KIB, 200);
        if FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE >= 64 * MIB {
            assert_eq!((objects, runs), (20_000, 200), "with {spare} mappings left");
        }
        // Areas lie side by side and are one mapping to the system; to unmap one between two others needs another. A
        // system that must refuse that is not the end of it: the area is kept.
        let served = serve(&mut areas, 33 * MIB, 30);
        assert!(served == 30 || spare < 100, "{served} areas with {spare} mappings left");
        let (odd, even): (Vec<_>, Vec<_>) = (0..).zip(areas.drain(..)).partition(|(id, _)| id % 2 == 1);
        odd.into_iter().for_each(|(id, block)| block.check_and_free(id));
        let kept = Kmalloc::stats().kept;
        assert!(served < 30 || kept > 0 || spare > 8, "{spare} mappings left are not felt");
        even.into_iter().for_each(|(id, block)| block.check_and_free(id));
        let _ = serve(&mut blocks, MIB, 80);
        for (id, block) in blocks.iter_mut().enumerate() {
            let size = block.size();
            if id % 5 == 0 && block.try_resize(size + size / 2) {
                block.check_prefix(id as u64, size);
                block.fill(id as u64);
            }
        }
        for (id, block) in (0..).zip(blocks.drain(..)) {
            block.check_and_free(id);
        }
        Kmalloc::reclaim();
    }
    filler.spare(200);
    common::assert_valid();
    assert_eq!(serve(&mut blocks, 33 * MIB, 10), 10, "mappings are there again");
    for (id, block) in (0..).zip(blocks.drain(..)) {
        block.check_and_free(id);
    }
    Kmalloc::reclaim();
    common::assert_valid();
    assert_eq!(Kmalloc::stats().kept, 0, "what could not be unmapped was offered again");
}

fn a_process_that_may_map_no_more_is_served() {
    for spare in ["0", "8", "200"] {
        assert_child_exits("nearly_no_mapping_left", spare, 0);
    }
}
