//! What grows: in place, by moving pages, or by a copy.

use super::*;

#[test]
fn a_run_grows_into_its_neighbour_and_gives_its_tail_back() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let mut run = Block::new(heap, thread, layout(2 * PAGE_SIZE, 8), 7).unwrap();
    let at = run.ptr;
    for pages in [3, 10, 30, 64, 40, 5, 2, 60] {
        assert!(run.resize(heap, thread, pages * PAGE_SIZE - 1));
        assert_eq!(run.ptr, at, "{pages} pages");
        heap.validate(thread).unwrap();
    }
    let next = Block::new(heap, thread, layout(4 * PAGE_SIZE, 8), 8).unwrap();
    assert_eq!(next.ptr.as_ptr() as usize, at.as_ptr() as usize + 60 * PAGE_SIZE);
    assert!(run.resize(heap, thread, 61 * PAGE_SIZE));
    assert_ne!(run.ptr, at, "the pages behind it are taken");
    run.free(heap, thread);
    next.free(heap, thread);
}

/// Makes a block longer. How many bytes were copied for it.
fn grow(os: &FaultyOs<Unix>, heap: &'static Heap, thread: Option<&Thread>, block: &mut Block, size: usize) -> usize {
    let (was, had, moved) = (block.ptr, block.layout.size(), os.calls_of(Call::Relocate));
    assert!(block.resize(heap, thread, size));
    if block.ptr != was && os.calls_of(Call::Relocate) == moved {
        had
    } else {
        0
    }
}

#[test]
fn a_vector_that_grows_for_ever_copies_a_bounded_number_of_bytes_and_leaves_no_memory_behind() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let mut vector = Block::new(heap, thread, layout(8, 8), 3).unwrap();
    let (mut size, mut copied) = (8, 0);
    while size < 8 * VMALLOC_THRESHOLD {
        copied += grow(os, heap, thread, &mut vector, 2 * size);
        size *= 2;
    }
    assert!((MAX_OBJECT..=3 * VMALLOC_THRESHOLD).contains(&copied), "{copied} bytes copied");
    let stats = heap.stats(thread);
    assert!(stats.free_dirty_pages * PAGE_SIZE < VMALLOC_THRESHOLD, "{stats:?}");
    vector.free(heap, thread);
}

/// Class of bug: buffers that grow by little, side by side, are copied each time.
#[test]
fn buffers_that_grow_by_a_page_in_turn_are_copied_a_few_times() {
    let Setup { os, heap } = setup(false);
    let (begin, long) = (2 * PAGE_SIZE, 3 * CHUNK_SIZE / 2);
    let mut buffers: Vec<_> = (0..8).map(|mark| Block::new(heap, None, layout(begin, 8), mark).unwrap()).collect();
    let mut copied = 0;
    for size in (begin..long).step_by(PAGE_SIZE) {
        for buffer in &mut buffers {
            copied += grow(os, heap, None, buffer, size + PAGE_SIZE);
        }
    }
    assert!((1..=5 * 8 * long).contains(&copied), "{copied} bytes copied");
    assert!(heap.stats(None).free_dirty_pages * PAGE_SIZE <= 8 * long);
    buffers.into_iter().for_each(|buffer| buffer.free(heap, None));
    end(heap);
}

/// Class of bug: room for what may grow again, where nothing does.
#[test]
fn buffers_that_grow_once_leave_a_quarter_free_between_them_at_most() {
    if FIRST_ARENA_CHUNKS < 12 {
        return; // nothing lies beside a long one
    }
    for pages in [8, 32, 64] {
        let Setup { heap, .. } = setup(false);
        let size = pages * PAGE_SIZE;
        let mut buffers: Vec<_> = (0..32).map(|mark| Block::new(heap, None, layout(size, 8), mark).unwrap()).collect();
        buffers.iter_mut().for_each(|buffer| assert!(buffer.resize(heap, None, size + 1)));
        let places = buffers.iter().map(|buffer| buffer.ptr.as_ptr() as usize);
        let span = places.clone().max().unwrap() - places.min().unwrap();
        let each = (pages + 1) + (pages + 1usize).div_ceil(4);
        assert!(span <= 32 * each * PAGE_SIZE + size, "{span} bytes for buffers of {pages} pages");
        buffers.into_iter().for_each(|buffer| buffer.free(heap, None));
        end(heap);
    }
}

#[test]
fn areas_grow_by_moving_pages_not_bytes() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let mut area = Block::new(heap, thread, layout(2 * VMALLOC_THRESHOLD, 8), 3).unwrap();
    // Something behind it, so that it must move at times.
    let _wall = os.map(PAGE_SIZE);
    for factor in 3..9 {
        assert!(area.resize(heap, thread, factor * VMALLOC_THRESHOLD + factor));
    }
    let calls = os.calls_of(Call::Resize) + os.calls_of(Call::Relocate);
    assert!(calls > 0 && os.calls_of(Call::Map) < 10, "no second area was mapped to copy into");
    assert!(area.resize(heap, thread, VMALLOC_THRESHOLD + 1));
    let stats = heap.stats(thread);
    assert!(stats.area_bytes < VMALLOC_THRESHOLD * 5 / 4, "{stats:?}");
    area.free(heap, thread);
    assert_eq!(heap.stats(thread).areas, 0);
}

/// Class of bug: a vector that is copied each time it doubles (half of all bytes ever written).
#[test]
fn a_block_that_doubles_up_to_a_gibibyte_is_copied_little() {
    let Setup { os, heap } = setup(false);
    let (mut ptr, mut size, mut copied) = (NonNull::<u8>::dangling(), 0, 0);
    for to in (3..=30).map(|shift| 1usize << shift) {
        let moves = || os.calls_of(Call::Relocate) + os.calls_of(Call::Resize);
        let (before, calls) = (ptr, moves());
        ptr = if size == 0 {
            // SAFETY: no block is used.
            unsafe { heap.alloc(None, layout(to, 8)) }.unwrap()
        } else {
            // SAFETY: live, of this size.
            unsafe { heap.realloc(None, ptr, layout(size, 8), to) }.unwrap()
        };
        if size > 0 && ptr != before && moves() == calls {
            copied += size;
        }
        size = to;
    }
    assert!(copied <= 3 * VMALLOC_THRESHOLD, "{copied} bytes were copied");
    assert!(heap.counter().usage() <= (1 << 30) + (1 << 30) / 20, "{} bytes count", heap.counter().usage());
    // SAFETY: live, of this size.
    unsafe { heap.free(None, ptr, layout(size, 8)) };
    heap.validate(None).unwrap();
}
