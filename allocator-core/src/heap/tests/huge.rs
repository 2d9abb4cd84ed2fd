//! Which memory has huge pages.

use super::returns::tick;
use super::*;
use crate::arena::Arena;
use crate::huge::HugePages;

/// Whether the system was told to back the mapping that has this address by no huge page, as far as it says so.
fn has_no_huge_pages(address: *mut u8) -> bool {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return true };
    let mut lines = smaps.lines().skip_while(|line| {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let range = range.map(|(from, to)| [from, to].map(|end| usize::from_str_radix(end, 16)));
        !matches!(range, Some([Ok(from), Ok(to)]) if (from..to).contains(&(address as usize)))
    });
    assert!(lines.next().is_some(), "no mapping has the address");
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
    !gets_huge_pages() || flags.map_or(true, |flags| flags.split_whitespace().any(|flag| flag == "nh"))
}

#[test]
fn huge_pages_are_asked_for_as_the_policy_says() {
    let asked = |policy, size| {
        let Setup { os, heap } = setup(false);
        heap.set_huge_pages(policy);
        let calls = || [Call::AdviseHuge, Call::AdviseSmall].map(|call| os.calls_of(call));
        let before = calls();
        let block = Block::new(heap, None, layout(size, 8), 1).unwrap();
        // SAFETY: no block is used.
        let zeroed = unsafe { heap.alloc_zeroed(None, layout(size, 8)) }.unwrap();
        let huge = heap.stats(None).huge;
        // SAFETY: live, of this layout.
        unsafe { heap.free(None, zeroed, layout(size, 8)) };
        block.free(heap, None);
        let after = calls();
        ([0, 1].map(|call| after[call] - before[call]), huge)
    };
    // Of an arena, and of one of its chunks when it is opened.
    assert_eq!(asked(HugePages::Auto, 100), ([0, 1], 0));
    assert_eq!(asked(HugePages::Always, 100), ([1, 1], if gets_huge_pages() { CHUNK_SIZE } else { 0 }));
    assert_eq!(asked(HugePages::Never, 100), ([0, 1], 0));
    // Of areas: those that will be used as a whole, all of them, or none.
    assert_eq!(asked(HugePages::Auto, 40 << 20).0, [1, 0]);
    assert_eq!(asked(HugePages::Always, 40 << 20).0, [2, 0]);
    assert_eq!(asked(HugePages::Never, 40 << 20).0, [0, 2]);
    for (name, policy) in [("never", HugePages::Never), ("auto", HugePages::Auto), ("always", HugePages::Always)] {
        assert_eq!(HugePages::named(name), Some(policy));
    }
    assert_eq!(HugePages::named("sometimes"), None);
}

#[test]
fn huge_pages_are_asked_for_where_little_of_them_stays_unused_and_once() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let asked = || os.calls_of(Call::AdviseHuge);
    let fill = |bytes: usize| -> Vec<Block> {
        (0..bytes / 1024).map(|_| Block::new(heap, thread, layout(1024, 8), 1).unwrap()).collect()
    };
    if FIRST_ARENA_CHUNKS > HUGE_FROM_CHUNK + 4 && gets_huge_pages() {
        let small = fill((HUGE_FROM_CHUNK as usize - 1) * CHUNK_SIZE);
        assert_eq!(asked(), 0, "a heap that is small");
        let large = fill(HUGE_FROM_CHUNK as usize * CHUNK_SIZE);
        assert!((3..=4).contains(&asked()), "{} times for three chunks and a part", asked());
        let before = asked();
        small.into_iter().chain(large).for_each(|block| block.free(heap, thread));
        fill(HUGE_FROM_CHUNK as usize * CHUNK_SIZE).into_iter().for_each(|block| block.free(heap, thread));
        assert_eq!(asked(), before, "what is resident already");
        Block::new(heap, thread, layout(2 * CHUNK_SIZE, 8), 1).unwrap().free(heap, thread);
        assert_eq!(asked(), before, "as above");
    }
    let before = asked();
    Block::new(heap, thread, layout(VMALLOC_THRESHOLD + 1, 8), 1).unwrap().free(heap, thread);
    assert_eq!(asked(), before + 1, "an area");
    let zeros = layout(VMALLOC_THRESHOLD + 1, 8);
    // SAFETY: the block is the calling thread's.
    let sparse = unsafe { heap.alloc_zeroed(thread, zeros) }.unwrap();
    assert_eq!(asked(), before + 1, "one of zeros, most of which may never be touched");
    // SAFETY: just allocated.
    unsafe { heap.free(thread, sparse, zeros) };
}

#[test]
fn a_long_run_is_backed_by_huge_pages_wherever_it_lies() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let mut run = Block::new(heap, thread, layout(CHUNK_SIZE, 8), 1).unwrap();
    if FIRST_ARENA_CHUNKS > 4 && gets_huge_pages() {
        assert_eq!(os.calls_of(Call::AdviseHuge), 0, "a chunk of a heap that is small");
        assert!(run.resize(heap, thread, 3 * CHUNK_SIZE));
        assert_eq!(os.calls_of(Call::AdviseHuge), 1, "the chunks that have come, at once");
    }
    run.free(heap, thread);
}

/// Class of bug: huge pages for what is thin or short-lived, so that it is resident as a whole, and stays so.
#[test]
fn a_chunk_is_made_huge_when_it_is_full_of_what_lives_long_and_not_before() {
    let Setup { os, heap } = setup(false);
    if FIRST_ARENA_CHUNKS <= HUGE_FROM_CHUNK || !gets_huge_pages() {
        return; // nothing lies so low
    }
    let thread = heap.attach();
    let asked = || os.calls_of(Call::AdviseHuge);
    let objects =
        |n: usize| -> Vec<Block> { (0..n).map(|_| Block::new(heap, thread, layout(1024, 8), 1).unwrap()).collect() };
    let thin = objects(100);
    tick(heap, thread);
    tick(heap, thread);
    assert_eq!(asked(), 0, "a chunk of which a part was never touched");
    let full = objects(3 * CHUNK_SIZE / 1024);
    tick(heap, thread);
    assert_eq!(asked(), 0, "nobody knows yet how long it will live");
    tick(heap, thread);
    let huge = heap.stats(thread).huge / CHUNK_SIZE;
    assert!((2..=3).contains(&huge) && asked() == huge as u64, "{huge} chunks, asked {} times", asked());
    tick(heap, thread);
    assert_eq!(asked(), huge as u64, "once for each");
    // One in a hundred survives; the memory between them goes.
    let (kept, gone): (Vec<_>, Vec<_>) = full.into_iter().enumerate().partition(|(i, _)| i % 100 == 0);
    gone.into_iter().for_each(|(_, block)| block.free(heap, thread));
    // SAFETY: our own block.
    unsafe { heap.reclaim(thread) };
    for _ in 0..4 {
        tick(heap, thread);
        assert!(heap.stats(thread).huge <= CHUNK_SIZE, "what has holes is none, and stays none");
    }
    kept.into_iter().for_each(|(_, block)| block.free(heap, thread));
    thin.into_iter().for_each(|block| block.free(heap, thread));
    heap.validate(thread).unwrap();
}

/// Whether chunks of a heap have small pages at first and huge ones later.
fn begins_with_small_pages() -> bool {
    FIRST_ARENA_CHUNKS > SMALL_CHUNKS && gets_huge_pages()
}

/// A heap with blocks that may have room.
fn roomy() -> Setup {
    let setup = setup(false);
    setup.heap.parts.zone.huge.note_room();
    setup
}

/// So many blocks, of each of which so many bytes are written.
fn written(
    heap: &Heap,
    layout: Layout,
    blocks: usize,
    bytes: usize,
) -> impl Iterator<Item = (NonNull<u8>, Layout)> + '_ {
    (0..blocks).map(move |_| {
        // SAFETY: no block of a thread is meant.
        let ptr = unsafe { heap.alloc(None, layout) }.unwrap();
        // SAFETY: just allocated, and as long or longer.
        unsafe { ptr.as_ptr().write_bytes(1, bytes) };
        (ptr, layout)
    })
}

/// The same, of blocks of two pages each.
fn fill(heap: &Heap, blocks: usize, bytes: usize) -> impl Iterator<Item = (NonNull<u8>, Layout)> + '_ {
    written(heap, layout(2 * PAGE_SIZE, 8), blocks, bytes)
}

type Blocks = Vec<(NonNull<u8>, Layout)>;

/// One of so many blocks, from the first on, and the others.
fn one_in(n: usize, all: impl Iterator<Item = (NonNull<u8>, Layout)>) -> (Blocks, Blocks) {
    let mut places = (0..n).cycle();
    all.partition(|_| places.next() == Some(0))
}

const TWO_PAGES_IN_A_CHUNK: usize = CHUNK_SIZE / PAGE_SIZE / 2;

/// Before the first sign that blocks may have room; and after it, with chunks that had huge pages before.
#[test]
fn a_heap_has_huge_pages_from_a_lower_chunk_on_as_long_as_no_block_has_room() {
    if !begins_with_small_pages() {
        return;
    }
    let grow = |from: usize, to: usize| {
        move |heap: &'static Heap| {
            let mut block = Block::new(heap, None, layout(from, 8), 1).unwrap();
            assert!(block.resize(heap, None, to));
            block.free(heap, None);
        }
    };
    let zeros = |pages: u32| {
        move |heap: &'static Heap| Block::zeroed(heap, None, layout(pages as usize * PAGE_SIZE, 8)).free(heap, None)
    };
    let signs: [(&dyn Fn(&'static Heap), bool); 8] = [
        (&grow(MAX_OBJECT / 2, MAX_OBJECT), false),
        (&grow(2 * MAX_OBJECT, MAX_OBJECT + 1), false),
        (&zeros(ROOMY_PAGES - 1), false),
        (&grow(MAX_OBJECT, MAX_OBJECT + 1), true),
        (&grow(2 * MAX_OBJECT, 4 * MAX_OBJECT), true),
        (&zeros(ROOMY_PAGES), true),
        (&grow(VMALLOC_THRESHOLD + 1, VMALLOC_THRESHOLD + CHUNK_SIZE), true),
        (&zeros(VMALLOC_THRESHOLD as u32 / PAGE_SIZE as u32 + 1), true),
    ];
    // None before the sign, an odd and an even number, and more than there are chunks between the two bounds.
    for ((sign, is_one), early) in signs.into_iter().flat_map(|sign| [0, 1, 3, 6].map(|early| (sign, early))) {
        let Setup { heap, .. } = setup(false);
        let huge = || heap.stats(None).huge / CHUNK_SIZE;
        let half = || Block::new(heap, None, layout(CHUNK_SIZE / 2, 8), 1).unwrap();
        let room = half();
        let some = (HUGE_FROM_CHUNK as usize + early) * TWO_PAGES_IN_A_CHUNK - TWO_PAGES_IN_A_CHUNK / 2;
        let mut all: Vec<_> = fill(heap, some, 2 * PAGE_SIZE).collect();
        room.free(heap, None);
        sign(heap);
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
        let room = half();
        if is_one {
            // And one to a whole pair, before which those below are asked.
            let more = (SMALL_CHUNKS - HUGE_FROM_CHUNK) as usize + early % 2;
            all.extend(fill(heap, more * TWO_PAGES_IN_A_CHUNK, 2 * PAGE_SIZE));
        }
        assert_eq!(huge(), early);
        all.extend(fill(heap, 1, 2 * PAGE_SIZE));
        assert_eq!(huge(), early + 1);
        room.free(heap, None);
        free_all(heap, all);
        end(heap);
    }
}

/// Class of bug: a program that is sparse from the beginning, and gives no sign.
#[test]
fn the_first_chunks_are_asked_before_others_have_huge_pages_so_early() {
    if !begins_with_small_pages() {
        return;
    }
    let some = HUGE_FROM_CHUNK as usize * TWO_PAGES_IN_A_CHUNK;
    for (written_of_each, early) in [(2 * PAGE_SIZE, 1), (PAGE_SIZE / 4 * 5, 0)] {
        let Setup { os, heap } = setup(false);
        let mut all: Vec<_> = fill(heap, some, written_of_each).collect();
        let asked = || os.calls_of(Call::Resident);
        let huge = || heap.stats(None).huge / CHUNK_SIZE;
        assert_eq!((huge(), asked()), (0, 0));
        all.extend(fill(heap, TWO_PAGES_IN_A_CHUNK, 2 * PAGE_SIZE));
        assert_eq!((huge(), asked()), (early, HUGE_FROM_CHUNK.into()), "those below, once");
        if early == 0 {
            let others = (SMALL_CHUNKS - HUGE_FROM_CHUNK - 1) as usize;
            all.extend(fill(heap, others * TWO_PAGES_IN_A_CHUNK, 2 * PAGE_SIZE));
            assert_eq!((huge(), asked()), (0, HUGE_FROM_CHUNK.into()), "as after a sign");
        }
        all.extend(fill(heap, 1, 2 * PAGE_SIZE));
        assert_eq!(huge(), early + 1, "of all that is below three quarters are");
        let small = if early == 0 { SMALL_CHUNKS } else { HUGE_FROM_CHUNK };
        assert_eq!(asked(), (HUGE_FROM_CHUNK + small).into(), "each of the fifth to the eighth asks");
        free_all(heap, all);
        end(heap);
    }
    // A long block that nobody has written yet does not tell.
    let Setup { heap, .. } = setup(false);
    let mut all: Vec<_> = written(heap, layout(HUGE_FROM_CHUNK as usize * CHUNK_SIZE, 8), 1, 0).collect();
    all.extend(fill(heap, 1, 2 * PAGE_SIZE));
    assert_eq!(heap.stats(None).huge / CHUNK_SIZE, HUGE_FROM_CHUNK as usize + 1);
    free_all(heap, all);
    end(heap);
}

/// Class of bug: a program is dense for as long as it has small pages, and has nothing but buffers from then on (C++, which
/// grows no block).
#[test]
fn blocks_of_another_kind_than_all_that_lies_in_small_pages_are_a_sign() {
    if !begins_with_small_pages() {
        return;
    }
    for dense in [HUGE_FROM_CHUNK, HUGE_FROM_CHUNK + 1, HUGE_FROM_CHUNK + 2, 2 * SMALL_CHUNKS, 3 * SMALL_CHUNKS] {
        let Setup { heap, .. } = setup(false);
        let mut all: Vec<_> = written(heap, layout(1024, 8), dense as usize * (CHUNK_SIZE / 1024), 1024).collect();
        let huge = || heap.stats(None).huge / CHUNK_SIZE;
        let before = huge();
        let slack = (before + HUGE_FROM_CHUNK as usize).abs_diff(dense as usize);
        assert!(slack <= 1, "all but the first chunks have huge pages: {before} of {dense}");
        // Up to the next look, which is before each second chunk.
        all.extend(fill(heap, SMALL_CHUNKS as usize * TWO_PAGES_IN_A_CHUNK, 1));
        assert!(huge() <= before + 2, "{before} of {dense}, then {}", huge());
        free_all(heap, all);
        end(heap);
    }
}

/// Class of bug: blocks that are longer than what is written into them are resident as a whole, by huge pages (Redis).
#[test]
fn new_chunks_of_a_sparse_heap_have_small_pages_until_one_of_them_is_dense() {
    if !begins_with_small_pages() {
        return;
    }
    for silent in [false, true] {
        let Setup { os, heap } = roomy();
        let mut all = Vec::new();
        let mut grow = |chunks: u32, bytes: usize| {
            all.extend(fill(heap, chunks as usize * TWO_PAGES_IN_A_CHUNK, bytes));
            heap.stats(None).huge / CHUNK_SIZE
        };
        let ticks = || {
            tick(heap, None);
            tick(heap, None);
            heap.stats(None).huge / CHUNK_SIZE
        };
        os.plan(if silent { Plan::Kind(Call::Resident) } else { Plan::Never });
        assert_eq!(grow(SMALL_CHUNKS, PAGE_SIZE), 0);
        let asked = || os.calls_of(Call::Resident);
        assert_eq!(asked(), 0, "nobody needs to know yet");
        let at_once = grow(1, 1);
        assert_eq!(asked(), SMALL_CHUNKS as u64, "each of them once");
        let later = ticks();
        if silent {
            assert_eq!((at_once, later), (1, 9), "a system that does not say so is no reason");
            assert_eq!(grow(4, 1), 13);
        } else {
            assert_eq!((at_once, later), (0, 0), "those below are looked at, and are sparse");
            assert_eq!(grow(4, 2 * PAGE_SIZE), 0);
            assert_eq!(ticks(), 4, "those that are dense ripen, the others never do");
            ticks();
            assert_eq!(grow(1, 1), 5, "and whoever comes next is thought to be like them");
            assert_eq!(grow(1, 1), 5, "until the next look at all that is below");
        }
        free_all(heap, all);
        end(heap);
    }
}

/// Of a heap that has begun dense, a tick tells when it is not any more, as long as it has small pages.
#[test]
fn a_tick_tells_that_a_heap_is_sparse_before_it_has_huge_pages() {
    if !begins_with_small_pages() {
        return;
    }
    let Setup { heap, .. } = roomy();
    let mut all: Vec<_> = fill(heap, 6 * TWO_PAGES_IN_A_CHUNK, 2 * PAGE_SIZE).collect();
    all.extend(fill(heap, 2 * TWO_PAGES_IN_A_CHUNK, PAGE_SIZE));
    tick(heap, None);
    tick(heap, None);
    let ripe = heap.stats(None).huge;
    all.extend(fill(heap, TWO_PAGES_IN_A_CHUNK, 1));
    assert_eq!((ripe, heap.stats(None).huge), (6 * CHUNK_SIZE, 6 * CHUNK_SIZE), "the last that filled up are sparse");
    free_all(heap, all);
    end(heap);
}

/// Class of bug: a vector that has room for what will come makes a dense heap a sparse one.
#[test]
fn a_long_run_that_is_not_written_yet_does_not_make_a_heap_sparse() {
    if !begins_with_small_pages() {
        return;
    }
    // Less than three quarters of all below are resident; of what is no part of the runs more, less, or too little to tell.
    for (runs, bytes, more) in [(2, PAGE_SIZE / 4 * 7, 1), (2, PAGE_SIZE / 4 * 5, 0), (5, PAGE_SIZE, 1)] {
        let Setup { heap, .. } = roomy();
        let run = layout(CHUNK_SIZE / 2 * 3, 8);
        let mut all: Vec<_> = written(heap, run, runs, 0).collect();
        let huge = || heap.stats(None).huge / CHUNK_SIZE;
        let theirs = huge();
        assert_eq!(theirs, runs.min(4), "the chunks that are theirs as a whole, but for a witness: the third");
        let others = SMALL_CHUNKS as usize * CHUNK_SIZE - runs * run.size();
        all.extend(fill(heap, others / PAGE_SIZE / 2, bytes));
        assert_eq!(huge(), theirs);
        all.extend(fill(heap, 1, bytes));
        assert_eq!(huge(), theirs + more);
        free_all(heap, all);
        end(heap);
    }
    // Each of them fills a chunk, which has small pages all the same.
    let Setup { heap, .. } = roomy();
    let mut all: Vec<_> = written(heap, layout(CHUNK_SIZE, 8), SMALL_CHUNKS as usize, 0).collect();
    assert_eq!(heap.stats(None).huge, 0);
    all.extend(fill(heap, 1, 1));
    assert_eq!(heap.stats(None).huge, CHUNK_SIZE);
    free_all(heap, all);
    end(heap);
}

/// Class of bug: buffers for the worst case, into which little is written, are resident as a whole (2 GiB for 1,000 of 4 MiB).
#[test]
fn long_runs_of_which_little_is_written_have_small_pages_before_long() {
    if !begins_with_small_pages() {
        return;
    }
    // At first, and behind small objects.
    for (pages, below) in
        [64, 65, 70, 80, 96, 100, 128, 129, 512].into_iter().flat_map(|pages| [(pages, 0), (pages, 12 * CHUNK_SIZE)])
    {
        let Setup { heap, .. } = setup(false);
        let mut all: Vec<_> = written(heap, layout(1024, 8), below / 1024, 1024).collect();
        let at_first = heap.stats(None).huge / CHUNK_SIZE;
        let huge = || heap.stats(None).huge / CHUNK_SIZE - at_first;
        let buffer = layout(PAGE_SIZE * pages, 8);
        all.extend(written(heap, buffer, 24, 1));
        let before = huge();
        assert!(before <= 16, "{before} chunks of runs of {pages} pages behind {below} bytes");
        // Until they are written as a whole.
        all.extend(written(heap, buffer, 512 / pages + 12, buffer.size()));
        assert!(huge() > before, "{before} chunks of runs of {pages} pages behind {below} bytes");
        free_all(heap, all);
        end(heap);
    }
    // What is written has them, however much there is; what was freed since, and has gone back, tells nothing.
    let Setup { heap, .. } = setup(false);
    let huge = || heap.stats(None).huge / CHUNK_SIZE;
    let long = layout(2 * CHUNK_SIZE, 8);
    let all: Vec<_> = written(heap, long, 12, long.size()).collect();
    assert_eq!(huge(), 24);
    free_all(heap, all);
    for _ in 0..10 {
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
        let all: Vec<_> = written(heap, long, 1, long.size()).collect();
        assert_eq!(huge(), 24, "one that is opened again and again");
        free_all(heap, all);
    }
    // Two at a time are written when both are there; of each a chunk is opened by itself.
    let Setup { heap, .. } = setup(false);
    let long = layout(4 * CHUNK_SIZE + CHUNK_SIZE / 2, 8);
    let mut all = Vec::new();
    for _ in 0..5 {
        let pair: Vec<_> = written(heap, long, 2, 0).collect();
        for (ptr, layout) in &pair {
            // SAFETY: live, and so long.
            unsafe { ptr.as_ptr().write_bytes(1, layout.size()) };
        }
        all.extend(pair);
    }
    assert!(
        !heap.parts.zone.huge.runs.is_sparse() && heap.stats(None).huge >= 40 * CHUNK_SIZE,
        "{}",
        heap.stats(None).huge
    );
    free_all(heap, all);
    end(heap);
}

/// Class of bug: buffers of which little is written take the huge pages from what is written as a whole.
#[test]
fn long_runs_of_which_little_is_written_do_not_make_a_heap_sparse() {
    if !begins_with_small_pages() {
        return;
    }
    let Setup { heap, .. } = setup(false);
    let all: Vec<_> = written(heap, layout(2 * CHUNK_SIZE, 8), 15, 1).collect();
    for _ in 0..3 {
        tick(heap, None);
    }
    let huge = &heap.parts.zone.huge;
    assert!(huge.runs.is_sparse() && !huge.places.is_sparse());
    free_all(heap, all);
    end(heap);
}

/// Class of bug: each small block that is aligned to a chunk has all of it.
#[test]
fn chunks_that_are_opened_for_where_they_begin_have_small_pages() {
    if !begins_with_small_pages() {
        return;
    }
    for (size, align, huge) in [(1, CHUNK_SIZE, 0), (1, CHUNK_SIZE / 8, 0), (CHUNK_SIZE, CHUNK_SIZE, 15)] {
        let Setup { heap, .. } = setup(false);
        let all: Vec<_> = written(heap, layout(size, align), 20 * CHUNK_SIZE / align, size).collect();
        assert_eq!(heap.stats(None).huge / CHUNK_SIZE, huge, "{size} bytes at {align}, a witness among them");
        free_all(heap, all);
        end(heap);
    }
}

/// As above, of areas.
#[test]
fn areas_of_which_little_is_written_have_small_pages_before_long() {
    if !gets_huge_pages() {
        return;
    }
    let Setup { os, heap } = setup(false);
    let asked = || os.calls_of(Call::AdviseHuge);
    let long = layout(VMALLOC_THRESHOLD + 1, 8);
    let mut all: Vec<_> = written(heap, long, 6, 1).collect();
    assert_eq!(asked(), 2, "the third finds that the first is sparse");
    all.extend(written(heap, long, 2, long.size()));
    assert_eq!(asked(), 2);
    all.extend(written(heap, long, 1, long.size()));
    assert_eq!(asked(), 3, "the last but one is dense");
    all.extend(written(heap, long, 3, 1));
    assert_eq!(asked(), 5);
    free_all(heap, all);
    // Nothing is known of what was freed.
    free_all(heap, written(heap, long, 1, long.size()).collect());
    assert_eq!(asked(), 6);
    heap.validate(None).unwrap();
}

/// Class of bug: where the system makes huge pages unasked, a program that touches one page has 2 MiB.
#[test]
fn the_system_gives_no_huge_page_that_nobody_asked_for() {
    let Setup { os, heap } = setup(false);
    let small = Block::new(heap, None, layout(48, 8), 1).unwrap();
    let chunk = NonNull::new((small.ptr.as_ptr() as usize & !(CHUNK_SIZE - 1)) as *mut u8).unwrap();
    assert!(Unix.resident(chunk, CHUNK_SIZE).map_or(true, |bytes| bytes <= 4 * PAGE_SIZE.max(os.page_size())));
    assert!(has_no_huge_pages(chunk.as_ptr()));
    small.free(heap, None);
    // So it is with what went back of a chunk that had some, since the system makes huge pages of what has gaps.
    if !gets_huge_pages() {
        return;
    }
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Always);
    let half = || Block::new(heap, None, layout(CHUNK_SIZE / 2, 8), 1).unwrap();
    let (kept, gone) = (half(), half());
    let chunk = kept.ptr.as_ptr();
    assert!(!has_no_huge_pages(chunk));
    gone.free(heap, None);
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    assert!(has_no_huge_pages(chunk));
    kept.free(heap, None);
    heap.validate(None).unwrap();
}

/// The arena that has a chunk, for as long as the chunk is in use.
fn arena_of(map: &ChunkMap) -> &Arena {
    // SAFETY: an arena of the zone, which lives as long as a block in it.
    unsafe { &*map.arena().cast::<Arena>() }
}

/// Descriptors are touched one by one, and those of a long arena are as long as huge pages.
#[test]
fn descriptors_have_no_huge_pages() {
    if FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE < VMALLOC_THRESHOLD {
        return; // no arena is so long
    }
    let Setup { heap, .. } = setup(false);
    let (zone, long) = (&heap.parts.zone, layout(VMALLOC_THRESHOLD, 8));
    let mut runs = Vec::new();
    loop {
        // SAFETY: no block of a thread is meant.
        let run = unsafe { heap.alloc(None, long) }.unwrap();
        runs.push((run, long));
        let map = zone.map_of(run.as_ptr());
        let arena = arena_of(map);
        if arena.own_bytes() >= 2 * CHUNK_SIZE {
            assert!(has_no_huge_pages(core::ptr::from_ref(arena).cast_mut().cast()));
            break;
        }
    }
    free_all(heap, runs);
    end(heap);
}

#[test]
fn nothing_is_asked_where_there_are_no_huge_pages() {
    let Setup { os, heap } = setup(false);
    os.deny_huge_pages();
    let all: Vec<_> = fill(heap, 2 * SMALL_CHUNKS as usize * TWO_PAGES_IN_A_CHUNK, 1).collect();
    // A run, where arenas are long enough; an area is told of none.
    let long = (FIRST_ARENA_CHUNKS > 3).then(|| Block::new(heap, None, layout(3 * CHUNK_SIZE, 8), 1).unwrap());
    assert_eq!((os.calls_of(Call::Resident), os.calls_of(Call::AdviseHuge)), (0, 0));
    free_all(heap, all);
    long.into_iter().for_each(|long| long.free(heap, None));
    end(heap);
}

/// Class of bug: a program is sparse when it is larger than the first arena, where nobody asks any more.
#[test]
fn chunks_of_later_arenas_are_asked_too() {
    if !begins_with_small_pages() {
        return;
    }
    let first_arena = FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE;
    for (grows, written_of_each) in [(true, 1), (true, 2 * PAGE_SIZE), (false, 1), (false, 2 * PAGE_SIZE)] {
        let Setup { heap, .. } = if grows { roomy() } else { setup(false) };
        let below = written(heap, layout(VMALLOC_THRESHOLD, 8), first_arena / VMALLOC_THRESHOLD, 0).collect::<Vec<_>>();
        let theirs = heap.stats(None).huge;
        let huge = || (heap.stats(None).huge - theirs) / CHUNK_SIZE;
        assert_eq!((heap.stats(None).arenas, huge()), (1, 0));
        // The chunk that shows that nothing would be told of runs has huge pages, and the two behind it have small ones.
        let (early, small) = if grows { (0, 1) } else { (1, 2) };
        let mut all: Vec<_> = fill(heap, (early + small) * TWO_PAGES_IN_A_CHUNK, written_of_each).collect();
        assert_eq!((heap.stats(None).arenas, huge()), (2, early));
        all.extend(fill(heap, 20 * TWO_PAGES_IN_A_CHUNK, written_of_each));
        let dense = written_of_each > 1;
        assert_eq!(huge(), early + if dense { 20 } else { 0 });
        free_all(heap, all);
        free_all(heap, below);
        end(heap);
    }
}

/// Class of bug: a chunk that was a huge page for one block is one for all that come after it.
#[test]
fn a_chunk_of_which_all_went_back_is_asked_for_anew() {
    if !begins_with_small_pages() {
        return;
    }
    let Setup { heap, .. } = setup(false);
    let huge = || heap.stats(None).huge / CHUNK_SIZE;
    let long = layout(2 * CHUNK_SIZE, 8);
    let again = |zeros: bool| {
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
        if zeros {
            Block::zeroed(heap, None, long)
        } else {
            Block::new(heap, None, long, 1).unwrap()
        }
    };
    let first = again(false);
    let at = first.ptr;
    assert_eq!(huge(), 2);
    first.free(heap, None);
    let zeros = again(true);
    assert_eq!((zeros.ptr, huge()), (at, 0), "of which little may be written");
    zeros.free(heap, None);
    let second = again(false);
    assert_eq!((second.ptr, huge()), (at, 2));
    second.free(heap, None);
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    let all: Vec<_> = fill(heap, 1, 1).collect();
    assert_eq!((all[0].0, huge()), (at, 1), "what lies low has small pages");
    free_all(heap, all);
    end(heap);
}

/// Class of bug: a program has small objects first, in chunks that have huge pages, and then buffers that nobody could ask about.
#[test]
fn buffers_that_come_after_small_objects_are_asked_about() {
    if !begins_with_small_pages() {
        return;
    }
    for size in [MAX_OBJECT / 2, 2 * PAGE_SIZE] {
        let Setup { heap, .. } = setup(false);
        let huge = || heap.stats(None).huge / CHUNK_SIZE;
        let below = SMALL_CHUNKS as usize * CHUNK_SIZE;
        let mut all: Vec<_> = written(heap, layout(1024, 8), below / 1024, 1024).collect();
        let dense = huge();
        assert!(dense > 0);
        all.extend(written(heap, layout(size, 8), 20 * CHUNK_SIZE / size, 1));
        assert!(huge() <= dense + 2, "{dense} chunks, then {}", huge());
        free_all(heap, all);
        end(heap);
    }
}

/// Class of bug: a program that is dense when it begins is taken for dense for good (Redis).
#[test]
fn a_heap_that_becomes_sparse_has_small_pages_from_the_next_look_on() {
    if !begins_with_small_pages() {
        return;
    }
    let Setup { heap, .. } = roomy();
    let small = SMALL_CHUNKS as usize * TWO_PAGES_IN_A_CHUNK;
    let mut all: Vec<_> = fill(heap, small, 2 * PAGE_SIZE).collect();
    let huge = || heap.stats(None).huge / CHUNK_SIZE;
    all.extend(fill(heap, TWO_PAGES_IN_A_CHUNK, 1));
    assert_eq!(huge(), 1);
    // Of each of those chunks something goes back, and others have it who write less.
    let gone: Vec<_> = all.iter().copied().step_by(2).take(small / 2).collect();
    free_all(heap, gone);
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    for (i, block) in fill(heap, small / 2, 1).enumerate() {
        all[2 * i] = block;
    }
    assert_eq!(huge(), 1);
    all.extend(fill(heap, TWO_PAGES_IN_A_CHUNK, 1));
    assert_eq!(huge(), 2, "not each chunk is worth a look");
    all.extend(fill(heap, 2 * TWO_PAGES_IN_A_CHUNK, 1));
    assert_eq!(huge(), 2);
    free_all(heap, all);
    end(heap);
}

/// Class of bug: a program that frees before its heap is asked is taken for dense for good (Redis, again).
#[test]
fn a_heap_whose_slabs_have_holes_is_sparse() {
    if !begins_with_small_pages() {
        return;
    }
    let Setup { heap, .. } = roomy();
    let n = SMALL_CHUNKS as usize * CHUNK_SIZE / 1024;
    let (mut alive, mut gone) = (Vec::new(), Vec::new());
    for (i, block) in written(heap, layout(1024, 8), n, 1024).enumerate() {
        if i % 32 < 8 { &mut alive } else { &mut gone }.push(block);
    }
    free_all(heap, gone);
    for _ in 0..3 {
        tick(heap, None);
    }
    alive.extend(fill(heap, 2 * TWO_PAGES_IN_A_CHUNK, 2 * PAGE_SIZE));
    assert_eq!(heap.stats(None).huge, 0, "three quarters of what is below is not resident");
    free_all(heap, alive);
    end(heap);
}

/// Class of bug: pages in which no object can lie are faulted in, or make a chunk that is written as a whole a sparse one.
#[test]
fn the_rest_of_a_slab_behind_its_last_object_is_not_touched_and_not_missed() {
    if !begins_with_small_pages() {
        return;
    }
    let (size, slab, used) = (28 << 10, 64 << 10, 56 << 10);
    for populate in [true, false] {
        let Setup { os, heap } = roomy();
        os.plan(if populate { Plan::Never } else { Plan::Kind(Call::Populate) });
        // All of one and six pages of seven of the other in each slab: more than seven eighths of both, less of the slab.
        let all: Vec<_> = written(heap, layout(size, 8), 3 * CHUNK_SIZE / slab * 2, 24 << 10).collect();
        for (object, _) in all.iter().step_by(2) {
            // SAFETY: its last byte, as below.
            let last = unsafe { object.add(size - 1) };
            // SAFETY: our own block.
            unsafe { last.write(1) };
        }
        for (object, _) in &all {
            let start = object.as_ptr().map_addr(|address| address / slab * slab);
            assert_eq!(Unix.resident(NonNull::new(start.wrapping_add(used)).unwrap(), slab - used), Some(0));
        }
        tick(heap, None);
        tick(heap, None);
        assert!(heap.stats(None).huge > 0, "thirteen of fourteen pages that objects can lie in are resident");
        free_all(heap, all);
        end(heap);
    }
}

/// Class of bug: a free object in each slab costs every huge page of the heap.
#[test]
fn half_of_a_slab_is_not_worth_a_huge_page() {
    if FIRST_ARENA_CHUNKS < 16 || !gets_huge_pages() {
        return;
    }
    // Slabs of two objects and of four, of which one stays.
    for (size, objects) in [(16 << 10, 2), (24 << 10, 4)] {
        let Setup { heap, .. } = setup(false);
        heap.set_huge_pages(HugePages::Always);
        let (kept, gone) = one_in(objects, written(heap, layout(size, 8), 4 * CHUNK_SIZE / size, size));
        free_all(heap, gone);
        let before = heap.stats(None).huge;
        for _ in 0..4 {
            tick(heap, None);
        }
        let broken = (before - heap.stats(None).huge) / CHUNK_SIZE;
        // The last one is not full, and what is free of it may go back.
        assert!(if objects == 2 { broken <= 1 } else { broken >= 3 }, "{size}: {broken} of {}", before / CHUNK_SIZE);
        free_all(heap, kept);
        end(heap);
    }
}

/// Class of bug: a gap in a chunk that has huge pages is filled by the system some time.
#[test]
fn a_run_that_is_discarded_takes_the_huge_pages_of_both_chunks_that_it_has_a_part_of() {
    let Setup { heap, .. } = setup(false);
    if FIRST_ARENA_CHUNKS < 4 || !gets_huge_pages() {
        return;
    }
    heap.set_huge_pages(HugePages::Always);
    let before = Block::new(heap, None, layout(50 * PAGE_SIZE, 8), 1).unwrap();
    let mut run = Block::new(heap, None, layout(CHUNK_SIZE + 20 * PAGE_SIZE, 8), 1).unwrap();
    let huge = || heap.stats(None).huge / CHUNK_SIZE;
    assert_eq!(huge(), 3);
    assert!(run.resize(heap, None, VMALLOC_THRESHOLD + 1));
    assert_eq!(huge(), 1, "the one in the middle, of which nothing is resident");
    run.free(heap, None);
    before.free(heap, None);
    heap.validate(None).unwrap();
}

#[test]
fn a_chunk_for_which_the_system_refuses_huge_pages_is_asked_for_once() {
    let Setup { os, heap } = setup(false);
    if FIRST_ARENA_CHUNKS <= HUGE_FROM_CHUNK {
        return; // nothing lies so low
    }
    let full: Vec<Block> =
        (0..CHUNK_SIZE / 1024 + 64).map(|_| Block::new(heap, None, layout(1024, 8), 1).unwrap()).collect();
    os.plan(Plan::Kind(Call::AdviseHuge));
    (0..3).for_each(|_| _ = tick(heap, None));
    let asked = os.calls_of(Call::AdviseHuge);
    assert!(asked > 0 && heap.stats(None).huge == 0);
    (0..3).for_each(|_| _ = tick(heap, None));
    assert_eq!(os.calls_of(Call::AdviseHuge), asked);
    full.into_iter().for_each(|block| block.free(heap, None));
    heap.kswapd().dismiss(os);
}

/// Class of bug: of a long heap most chunks keep their huge pages, since each that has none any more is thought to split a
/// mapping; so the system fills the gaps in them.
#[test]
fn a_long_row_of_chunks_of_which_a_part_went_back_has_no_huge_pages_any_more() {
    const GIBIBYTES: usize = 6;
    let long = VMALLOC_THRESHOLD <= FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE;
    if !long || !gets_huge_pages() {
        return;
    }
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Always);
    let half = layout(CHUNK_SIZE / 2, 8);
    // Nothing is written, so nothing is resident.
    let (kept, gone) = one_in(2, written(heap, half, GIBIBYTES << 10, 0));
    assert!(heap.stats(None).huge >= GIBIBYTES << 30 && heap.stats(None).reserved < 12 * (GIBIBYTES << 30) / 10);
    free_all(heap, gone);
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    assert_eq!(heap.stats(None).huge, 0);
    free_all(heap, kept);
    end(heap);
}

#[test]
fn borders_between_huge_pages_and_others_are_counted_and_bounded() {
    if FIRST_ARENA_CHUNKS < 20 || !gets_huge_pages() {
        return;
    }
    let Setup { heap, .. } = setup(false);
    let huge = || heap.stats(None).huge / CHUNK_SIZE;
    let half = || Block::new(heap, None, layout(CHUNK_SIZE / 2, 8), 1).unwrap();
    heap.set_huge_pages(HugePages::Always);
    // One after the other, across a step of those that are committed together.
    let mut all: Vec<[Block; 2]> = (0..20).map(|_| [half(), half()]).collect();
    let arena = arena_of(heap.parts.zone.map_of(all[0][0].ptr.as_ptr()));
    let borders = || {
        let (known, are) = arena.set_borders(0);
        arena.set_borders(known);
        assert_eq!(known, are);
        known
    };
    assert_eq!((huge(), borders()), (20, 1));
    let mut halve = |chunk: usize| {
        let [kept, gone] = all.remove(chunk);
        gone.free(heap, None);
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
        kept
    };
    let mut kept = vec![halve(5)];
    assert_eq!((huge(), borders()), (19, 3), "between two that are huge");
    kept.push(halve(5));
    assert_eq!((huge(), borders()), (18, 3), "beside the first");
    kept.push(halve(0));
    assert_eq!((huge(), borders()), (17, 4), "the first of the arena");
    // As many as there may be: none that would be more, until a tick has counted them.
    arena.set_borders(1024);
    kept.push(halve(10));
    assert_eq!(huge(), 17);
    kept.push(halve(4));
    assert_eq!(huge(), 16, "no more than before");
    tick(heap, None);
    kept.push(halve(10));
    assert_eq!((huge(), borders()), (15, 6));
    kept.into_iter().chain(all.into_iter().flatten()).for_each(|block| block.free(heap, None));
    heap.validate(None).unwrap();
}
