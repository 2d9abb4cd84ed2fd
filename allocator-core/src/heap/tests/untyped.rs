//! Blocks that are given back without a layout.

use super::*;

fn class_of(heap: &Heap, ptr: NonNull<u8>) -> Option<SizeClass> {
    // SAFETY: blocks of this heap, or places in them, that the test has; or what is none of it, and stays.
    unsafe { heap.class_of(ptr) }
}

fn layout_of(heap: &Heap, ptr: NonNull<u8>) -> Result<Layout, Misuse> {
    // SAFETY: as above.
    unsafe { heap.layout_of(ptr) }
}

/// Class of bug: a block that is freed to another place than it came from, or whose usable bytes are not all its own.
#[test]
fn a_block_goes_back_by_what_the_heap_knows_of_it() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    for size in [0, 1, 8, 9, 100, 1024, 1025, 32 << 10, 32769, CHUNK_SIZE, CHUNK_SIZE + 1, VMALLOC_THRESHOLD + 1] {
        for align in [1, 16, 4096, 32 << 10, 64 << 10, CHUNK_SIZE, 4 * CHUNK_SIZE] {
            let block = Block::new(heap, thread, layout(size, align), 3).unwrap();
            let known = layout_of(heap, block.ptr).unwrap();
            assert!(known.size() >= size, "{size}, {align}: {known:?}");
            assert_eq!(class_of(heap, block.ptr), SizeClass::of(layout(size.max(1), align)), "{size}, {align}");
            // A sanitizer is told of what was asked for.
            let usable = if poison::ON { size } else { known.size() };
            // SAFETY: live, and so long.
            unsafe { block.ptr.as_ptr().write_bytes(3, usable) };
            // SAFETY: live, and given up here.
            unsafe { heap.free(thread, block.ptr, known) };
        }
    }
    // SAFETY: our own block.
    unsafe { heap.reclaim(thread) };
    heap.audit(thread).unwrap();
    assert_eq!(heap.try_stats(thread), Some(heap.stats(thread)));
}

#[test]
fn what_is_none_of_ours_is_foreign_and_what_is_no_start_is_told() {
    let Setup { heap, .. } = setup(false);
    let on_the_stack = NonNull::from(&0u64).cast();
    assert_eq!((layout_of(heap, on_the_stack), class_of(heap, on_the_stack)), (Err(Misuse::Foreign), None));
    let run = Block::new(heap, None, layout(3 * PAGE_SIZE, 8), 1).unwrap();
    // SAFETY: inside the block.
    let [inside, off] = [PAGE_SIZE, 16].map(|bytes| unsafe { run.ptr.add(bytes) });
    assert_eq!([inside, off].map(|ptr| layout_of(heap, ptr)), [Err(Misuse::NotAStart); 2]);
    run.free(heap, None);
    let area = Block::new(heap, None, layout(VMALLOC_THRESHOLD + 1, 8), 1).unwrap();
    // In its first page, and in the next one, which may be another chunk's.
    // SAFETY: inside the block.
    let [inside, off] = [4096, 16].map(|bytes| unsafe { area.ptr.add(bytes) });
    assert_eq!([inside, off].map(|ptr| layout_of(heap, ptr)), [Err(Misuse::Foreign); 2]);
    area.free(heap, None);
}
