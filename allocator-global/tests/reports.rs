//! The figures and the reports: exact at rest, in the kernel's format, and made without allocating.

mod common;

use allocator_global::{Kmalloc, Stats};
use common::{class_sizes, on_threads, Block, AREA, KIB, LONGEST_RUN, MIB, PAGE};
use std::alloc::{GlobalAlloc, Layout};
use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Kmalloc, and a count of the calls that reach it: figures alone would miss a pair of calls.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to Kmalloc as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { common::KMALLOC.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { common::KMALLOC.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { common::KMALLOC.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { common::KMALLOC.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

fn main() -> std::process::ExitCode {
    // Two looks at the figures are compared, and the calls that lie between: kswapd would be one more who calls.
    Kmalloc::set_purge_after(None);
    common::run(
        &[
            ("slabinfo_is_in_the_format_of_the_kernel", slabinfo_is_in_the_format_of_the_kernel),
            ("slabinfo_agrees_with_the_figures", slabinfo_agrees_with_the_figures),
            ("slabinfo_shows_what_is_allocated", slabinfo_shows_what_is_allocated),
            ("buddyinfo_is_in_the_format_of_the_kernel", buddyinfo_is_in_the_format_of_the_kernel),
            ("zoneinfo_and_vmstat_have_the_fields_of_the_kernel", zoneinfo_and_vmstat_have_the_fields_of_the_kernel),
            ("reports_are_made_without_allocating", reports_are_made_without_allocating),
            ("reports_can_be_read_while_threads_allocate", reports_can_be_read_while_threads_allocate),
            ("a_writer_that_is_full_ends_the_report", a_writer_that_is_full_ends_the_report),
            ("figures_follow_each_kind_of_block", figures_follow_each_kind_of_block),
            ("figures_count_the_threads", figures_count_the_threads),
            ("reclaim_gives_back_what_nobody_uses", reclaim_gives_back_what_nobody_uses),
            ("owns_tells_our_memory_from_that_of_others", owns_tells_our_memory_from_that_of_others),
        ],
        &[],
    )
}

/// A writer with a place of its own; it refuses what does not fit.
struct Fixed<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Fixed<N> {
    fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("the report is text")
    }
}

impl<const N: usize> Write for Fixed<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Lets crossbeam-epoch free what it has put off: it does so once in 128 walks over the arenas, whoever makes them, and
/// needs three of these times.
fn let_the_library_finish() {
    for _ in 0..4 * 128 {
        let _ = Kmalloc::stats();
    }
}

/// Writes a report between two looks at the figures, which must not differ.
fn write_without_allocating(report: impl Display) -> (Stats, Fixed<{ 64 << 10 }>) {
    let mut out = Fixed::new();
    let_the_library_finish();
    let (before, calls) = (Kmalloc::stats(), CALLS.load(Relaxed));
    let written = write!(out, "{report}");
    let (after, calls) = (Kmalloc::stats(), CALLS.load(Relaxed) - calls);
    assert_eq!(written, Ok(()));
    assert_eq!(calls, 0, "the report called the global allocator");
    assert_eq!(before, after, "the report changed the figures");
    (before, out)
}

/// A line of slabinfo, with the kernel's names.
struct SlabLine {
    name: String,
    active_objs: usize,
    num_objs: usize,
    objsize: usize,
    objperslab: usize,
    pagesperslab: usize,
    active_slabs: usize,
    num_slabs: usize,
}

const SLAB_TITLE: &str = "slabinfo - version: 2.1";
const SLAB_COLUMNS: &str = "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
                            : tunables <limit> <batchcount> <sharedfactor> \
                            : slabdata <active_slabs> <num_slabs> <sharedavail>";

/// Reads slabinfo as strictly as the kernel writes it: `%-17s %6lu %6lu %6u %4u %4d : tunables %4u %4u %4u : slabdata
/// %6lu %6lu %6lu`.
fn parse_slabinfo(text: &str) -> Vec<SlabLine> {
    assert!(text.ends_with('\n'), "the last line is whole");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(SLAB_TITLE));
    assert_eq!(lines.next(), Some(SLAB_COLUMNS));
    lines.map(parse_slab_line).collect()
}

fn parse_slab_line(line: &str) -> SlabLine {
    let parts: Vec<&str> = line.split(" : ").collect();
    let [objects, tunables, slabdata] = parts[..] else { panic!("three parts: {line:?}") };
    let (name, counts) = objects.split_once(' ').expect("a name and counts");
    let numbers = |text: &str| -> Vec<usize> {
        text.split_whitespace().map(|word| word.parse().unwrap_or_else(|_| panic!("a number: {word:?}"))).collect()
    };
    let counts = numbers(counts);
    let tunables = numbers(tunables.strip_prefix("tunables ").expect("tunables"));
    let slabs = numbers(slabdata.strip_prefix("slabdata ").expect("slabdata"));
    let [active_objs, num_objs, objsize, objperslab, pagesperslab] = counts[..] else { panic!("five: {line:?}") };
    let [limit, batchcount, shared] = tunables[..] else { panic!("three: {line:?}") };
    let [active_slabs, num_slabs, available] = slabs[..] else { panic!("three: {line:?}") };
    let again = format!(
        "{name:<17} {active_objs:>6} {num_objs:>6} {objsize:>6} {objperslab:>4} {pagesperslab:>4} \
         : tunables {limit:>4} {batchcount:>4} {shared:>4} : slabdata {active_slabs:>6} {num_slabs:>6} {available:>6}"
    );
    assert_eq!(line, again, "widths as the kernel's");
    let name = name.to_owned();
    SlabLine { name, active_objs, num_objs, objsize, objperslab, pagesperslab, active_slabs, num_slabs }
}

fn assert_consistent(line: &SlabLine) {
    let SlabLine { name, .. } = line;
    assert!(line.active_objs <= line.num_objs, "{name}: {} of {} active", line.active_objs, line.num_objs);
    assert!(line.active_slabs <= line.num_slabs, "{name}: {} of {} active", line.active_slabs, line.num_slabs);
    assert_eq!(line.num_objs, line.num_slabs * line.objperslab, "{name}");
}

/// Some objects of every class are in use, so that no column is trivially zero.
fn with_objects_of_every_class(look: impl FnOnce()) {
    let blocks: Vec<Block> =
        class_sizes().into_iter().flat_map(|size| [Block::new(size, 8), Block::new(size, 1)]).collect();
    look();
    blocks.into_iter().for_each(Block::free);
}

fn slabinfo_is_in_the_format_of_the_kernel() {
    with_objects_of_every_class(|| {
        let (_, out) = write_without_allocating(Kmalloc::slabinfo());
        let lines = parse_slabinfo(out.text());
        let sizes: Vec<usize> = lines.iter().map(|line| line.objsize).collect();
        assert_eq!(sizes, class_sizes(), "one line for each class, in order");
        for (n, line) in lines.iter().enumerate() {
            assert_consistent(line);
            assert!(lines[..n].iter().all(|other| other.name != line.name), "{} is there twice", line.name);
            assert!(line.objperslab > 0 && line.pagesperslab > 0, "{}", line.name);
            assert!(line.objsize * line.objperslab <= line.pagesperslab * PAGE, "{}: a slab overflows", line.name);
            assert!(line.active_objs >= 2 && line.active_slabs >= 1, "{}: two objects are in use", line.name);
        }
    });
}

fn slabinfo_agrees_with_the_figures() {
    with_objects_of_every_class(|| {
        let (stats, out) = write_without_allocating(Kmalloc::slabinfo());
        let lines = parse_slabinfo(out.text());
        let active: usize = lines.iter().map(|line| line.active_objs).sum();
        let pages: usize = lines.iter().map(|line| line.num_slabs * line.pagesperslab).sum();
        // Whether objects in a thread's sheaves are active is a matter of definition, as it is in the kernel.
        assert!(active >= stats.slab_objects, "{active} active, {stats:?}");
        assert!(active <= stats.slab_objects + stats.cached_objects, "{active} active, {stats:?}");
        assert_eq!(pages, stats.slab_pages);
    });
}

fn line_of(size: usize) -> SlabLine {
    let (_, out) = write_without_allocating(Kmalloc::slabinfo());
    parse_slabinfo(out.text()).into_iter().find(|line| line.objsize == size).expect("a line of this class")
}

fn slabinfo_shows_what_is_allocated() {
    for (size, class) in [(7, 8), (41, 48), (1000, KIB), (1025, 1280), (20_000, 20 * KIB), (PAGE, PAGE)] {
        // More than one slab holds, whatever it holds.
        let count = 1000 + 3 * line_of(class).objperslab;
        let blocks: Vec<Block> = (0..count).map(|_| Block::new(size, 1)).collect();
        let full = line_of(class);
        assert!(full.active_objs >= count, "{}: {} active", full.name, full.active_objs);
        assert!(full.active_slabs * full.objperslab >= count, "{}: {} active", full.name, full.active_slabs);
        blocks.into_iter().for_each(Block::free);
        Kmalloc::reclaim();
        let empty = line_of(class);
        // What other parts of the program hold of this class is not ours to say; as much as ours it is not.
        assert!(empty.active_objs < full.active_objs - count + 100, "{}: {} active", empty.name, empty.active_objs);
        assert!(empty.num_slabs < full.num_slabs, "{}: {} slabs", empty.name, empty.num_slabs);
    }
}

/// The counts of each line, lowest order first. The kernel writes `Node %d, zone %8s ` and `%6lu ` for each order.
fn parse_buddyinfo(text: &str) -> Vec<Vec<usize>> {
    assert!(text.ends_with('\n'), "the last line is whole");
    let (text, huge) = text.trim_end().rsplit_once('\n').expect("two lines at least");
    let huge = huge.strip_prefix("Node 0, huge pages ").expect("how much is backed by huge pages");
    let (backed, chunks) = huge.strip_suffix(" chunks").and_then(|of| of.split_once(" of ")).expect("numbers");
    assert!(backed.parse::<usize>().expect("a number") <= chunks.parse().expect("a number"), "{huge}");
    let lines = text.lines().map(|line| {
        let counts = line.strip_prefix("Node 0, zone   Normal ").unwrap_or_else(|| panic!("Node and zone: {line:?}"));
        let numbers = counts.split_whitespace().map(|word| word.parse().expect("a number"));
        let numbers: Vec<usize> = numbers.collect();
        let again: String = numbers.iter().map(|count| format!("{count:>6} ")).collect();
        assert_eq!(counts, again, "widths as the kernel's");
        numbers
    });
    let lines: Vec<Vec<usize>> = lines.collect();
    assert!(!lines.is_empty(), "there is an arena");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "as many orders in each line");
    lines
}

fn buddyinfo_is_in_the_format_of_the_kernel() {
    let blocks: Vec<Block> = (1..40).map(|n| Block::new(n * 3 * PAGE, 8)).collect();
    for _ in 0..2 {
        let (stats, out) = write_without_allocating(Kmalloc::buddyinfo());
        let report = Kmalloc::buddyinfo();
        let elsewhere =
            std::thread::scope(|s| s.spawn(|| report.to_string()).join().expect("it can be written anywhere"));
        assert!(!parse_buddyinfo(&elsewhere).is_empty());
        let lines = parse_buddyinfo(out.text());
        assert!(lines[0].len() >= 7, "one count for each order: from a page to a chunk at least");
        let pages: usize = lines.iter().flat_map(|line| line.iter().enumerate()).map(|(order, n)| n << order).sum();
        assert_eq!(pages, stats.free_pages, "{lines:?}");
    }
    blocks.into_iter().for_each(Block::free);
    let (stats, out) = write_without_allocating(Kmalloc::buddyinfo());
    let lines = parse_buddyinfo(out.text());
    let pages: usize = lines.iter().flat_map(|line| line.iter().enumerate()).map(|(order, n)| n << order).sum();
    assert_eq!(pages, stats.free_pages, "{lines:?}");
}

/// The number behind each name.
fn numbers(text: &str) -> impl Fn(&str) -> usize + '_ {
    move |name| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no line of {name} in:\n{text}"));
        line.trim().parse().unwrap_or_else(|_| panic!("{name} is no number in:\n{text}"))
    }
}

fn zoneinfo_and_vmstat_have_the_fields_of_the_kernel() {
    let run = Block::filled(50 * PAGE, 8, 1);
    let (stats, out) = write_without_allocating(Kmalloc::zoneinfo());
    assert!(out.text().starts_with("Node 0, zone   Normal\n"), "{}", out.text());
    let zone = numbers(out.text());
    assert_eq!(zone("pages free"), stats.free_pages);
    assert_eq!((zone("spanned"), zone("present")), (stats.reserved / PAGE, stats.committed / PAGE));
    assert!(zone("min") <= zone("low") && zone("low") <= zone("high") && zone("high") > 0);
    assert_eq!(zone("nr_free_resident"), stats.free_dirty_pages);

    let (stats, out) = write_without_allocating(Kmalloc::vmstat());
    let before = numbers(out.text());
    assert_eq!((before("nr_free_pages"), before("nr_run_pages")), (stats.free_pages, stats.run_bytes / PAGE));
    assert_eq!(before("nr_slab_pages"), stats.slab_pages);
    assert_eq!(before("nr_charged"), stats.charged / PAGE);
    assert_eq!(before("nr_anon_transparent_hugepages"), stats.huge / (64 * PAGE));
    run.check_and_free(1);
    let bytes = Kmalloc::reclaim();
    assert!(bytes >= 50 * PAGE);
    let (_, out) = write_without_allocating(Kmalloc::vmstat());
    let after = numbers(out.text());
    assert_eq!(after("pgsteal_direct") - before("pgsteal_direct"), bytes / PAGE);
    assert_eq!(after("pgsteal_kswapd"), before("pgsteal_kswapd"));
    assert_eq!(after("nr_free_resident"), 0);
}

fn reports_are_made_without_allocating() {
    for _ in 0..3 {
        for report in
            [&Kmalloc::slabinfo() as &dyn Display, &Kmalloc::buddyinfo(), &Kmalloc::zoneinfo(), &Kmalloc::vmstat()]
        {
            let (_, out) = write_without_allocating(report);
            assert!(out.len > 0, "the report is empty");
        }
    }
    let before = CALLS.load(Relaxed);
    let _ = (Kmalloc::stats(), Kmalloc::validate());
    assert_eq!(CALLS.load(Relaxed), before, "stats or validate called the global allocator");
}

fn reports_can_be_read_while_threads_allocate() {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    on_threads(4, |thread| {
        if thread == 0 {
            let _ends = Ends(&done); // also if something is wrong
            for _ in 0..200 {
                let (mut slabs, mut buddies) = (Fixed::<{ 64 << 10 }>::new(), Fixed::<{ 64 << 10 }>::new());
                write!(slabs, "{}", Kmalloc::slabinfo()).expect("the report fits");
                write!(buddies, "{}", Kmalloc::buddyinfo()).expect("the report fits");
                assert_eq!(parse_slabinfo(slabs.text()).len(), class_sizes().len());
                parse_buddyinfo(buddies.text());
                // Off by what others are doing, but no figure has gone below zero.
                let stats = Kmalloc::stats();
                let Stats { committed, reserved, slab_objects, slab_bytes, cached_objects, slab_pages, .. } = stats;
                let Stats { runs, run_bytes, areas, area_bytes, free_pages, free_dirty_pages, threads, own, .. } =
                    stats;
                let figures =
                    [slab_objects, slab_bytes, cached_objects, slab_pages, runs, run_bytes, areas, area_bytes];
                assert!(figures.into_iter().chain([threads, own]).all(|figure| figure < 1 << 40), "{stats:?}");
                assert!(committed <= reserved && free_dirty_pages <= free_pages, "{stats:?}");
                assert!(free_pages * PAGE <= committed, "{stats:?}");
            }
        }
        while !done.load(Relaxed) {
            let blocks: Vec<Block> = (1..100).map(|n| Block::filled(n * n * 20, 8, n as u64)).collect();
            for (id, block) in (1..).zip(blocks) {
                block.check_and_free(id);
            }
        }
    });
}

fn a_writer_that_is_full_ends_the_report() {
    let mut small = Fixed::<100>::new();
    assert_eq!(write!(small, "{}", Kmalloc::slabinfo()), Err(fmt::Error));
    let mut none = Fixed::<0>::new();
    assert_eq!(write!(none, "{}", Kmalloc::buddyinfo()), Err(fmt::Error));
}

fn figures_follow_each_kind_of_block() {
    // The list is there before the first look, so that only the blocks make the difference.
    let mut blocks = Vec::with_capacity(1000);
    let before = Kmalloc::stats();
    blocks.extend((0..1000).map(|_| Block::new(48, 8)));
    let objects = Kmalloc::stats();
    assert_eq!(objects.slab_objects, before.slab_objects + 1000);
    assert_eq!(objects.slab_bytes, before.slab_bytes + 1000 * 48);
    blocks.drain(..).for_each(Block::free);
    let after = Kmalloc::stats();
    assert_eq!((after.slab_objects, after.slab_bytes), (before.slab_objects, before.slab_bytes));

    blocks.extend((0..10).map(|_| Block::new(2 * PAGE, 8)));
    let runs = Kmalloc::stats();
    assert_eq!((runs.runs, runs.run_bytes), (before.runs + 10, before.run_bytes + 20 * PAGE));
    blocks.drain(..).for_each(Block::free);
    let after = Kmalloc::stats();
    assert_eq!((after.runs, after.run_bytes), (before.runs, before.run_bytes));

    blocks.extend((0..3).map(|_| Block::new(AREA, 8)));
    let areas = Kmalloc::stats();
    assert_eq!(areas.areas, before.areas + 3);
    assert!(areas.area_bytes >= before.area_bytes + 3 * AREA, "{areas:?}");
    blocks[0].resize(2 * AREA);
    let grown = Kmalloc::stats();
    assert_eq!(grown.areas, before.areas + 3);
    assert!(grown.area_bytes >= before.area_bytes + 4 * AREA, "{grown:?}");
    blocks[0].resize(100);
    let moved = Kmalloc::stats();
    assert_eq!((moved.areas, moved.slab_objects), (before.areas + 2, before.slab_objects + 1));
    blocks.drain(..).for_each(Block::free);
    let after = Kmalloc::stats();
    assert_eq!((after.areas, after.area_bytes), (before.areas, before.area_bytes));
    assert_eq!((after.slab_objects, after.slab_bytes), (before.slab_objects, before.slab_bytes));
    assert!(after.committed <= after.reserved && after.free_pages * PAGE <= after.committed, "{after:?}");
    assert!(after.arenas > 0 && after.slab_pages > 0, "{after:?}");
}

fn figures_count_the_threads() {
    let before = Kmalloc::stats().threads;
    assert!(before >= 1, "this thread has allocated");
    let inside = on_threads(1, |_| {
        Block::new(100, 8).free();
        Kmalloc::stats().threads
    });
    assert_eq!(inside, [before + 1]);
    assert_eq!(Kmalloc::stats().threads, before);
}

fn reclaim_gives_back_what_nobody_uses() {
    Kmalloc::reclaim();
    let resident = common::resident_bytes();
    let blocks: Vec<Block> = (0..100).map(|id| Block::filled(MIB, 8, id)).collect();
    let full = common::resident_bytes();
    assert!(full >= resident + 100 * MIB);
    for (id, block) in (0..).zip(blocks) {
        block.check_and_free(id);
    }
    let mut held = common::resident_bytes();
    let bytes = Kmalloc::reclaim();
    let left = common::resident_bytes();
    assert!(left <= resident + 4 * MIB, "{resident} bytes were resident before, {left} are after");
    // What was not given back by `free` already was given back now, and said so.
    held = held.saturating_sub(left);
    assert!(bytes + 4 * MIB >= held, "{bytes} bytes are said to be given back, {held} were");
}

fn owns_tells_our_memory_from_that_of_others() {
    for size in [1, 100, PAGE, 3 * PAGE, MIB, AREA] {
        let block = Block::filled(size, 8, 1);
        // Of a mapping of its own only the start is known.
        let offsets = if size > LONGEST_RUN { &[0][..] } else { &[0, size / 2, size - 1] };
        for &offset in offsets {
            assert!(Kmalloc::owns(block.as_ptr().wrapping_add(offset)), "offset {offset} of {size} bytes");
        }
        block.check_and_free(1);
    }
    let boxed: Box<[u64]> = vec![1, 2, 3].into_boxed_slice();
    assert!(Kmalloc::owns(&*boxed));
    let on_stack = 0u64;
    static STATIC: u64 = 0;
    assert!(!Kmalloc::owns(&on_stack));
    assert!(!Kmalloc::owns(&STATIC));
    assert!(!Kmalloc::owns("a literal"));
    assert!(!Kmalloc::owns(std::ptr::null::<u8>()));
    assert!(!Kmalloc::owns(usize::MAX as *const u8));
    // SAFETY: any size may be asked for.
    let foreign = unsafe { libc::malloc(100) };
    assert!(!Kmalloc::owns(foreign));
    // SAFETY: it came from malloc.
    unsafe { libc::free(foreign) };
}
