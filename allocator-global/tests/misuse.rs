//! Misuse: what is decided ends the process with one line that names the address. Each case runs in a child process,
//! which prints the address that it is about to misuse.

mod common;

use allocator_global::Kmalloc;
use common::{assert_child_exits, child, layout, on_threads, Block, AREA, CHUNK, KIB, KMALLOC, LONGEST_RUN, MIB, PAGE};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;

suite! {
    tests: [
        a_page_run_freed_twice_aborts,
        an_area_freed_twice_aborts,
        a_run_freed_twice_aborts_after_reclaim,
        a_small_object_freed_twice_aborts_at_the_flush,
        a_small_object_freed_by_two_threads_aborts_at_the_flush,
        a_foreign_pointer_aborts,
        a_pointer_into_the_middle_aborts,
        a_layout_of_another_length_aborts,
        a_freed_run_that_is_resized_aborts,
        a_foreign_pointer_that_is_resized_is_not_read,
        a_process_without_standard_error_aborts_all_the_same,
        a_correct_program_prints_nothing,
    ],
    children: [
        double_free,
        double_free_after_reclaim,
        double_free_small,
        double_free_by_two_threads,
        foreign,
        middle_of_a_run,
        middle_of_an_area,
        middle_of_an_object,
        other_length,
        resize_freed,
        resize_nothing,
        double_free_unheard,
        correct,
    ]
}

/// Runs the case and expects SIGABRT and one line about the address that the child printed.
fn assert_aborts(name: &str, argument: impl ToString) {
    let argument = argument.to_string();
    let output = child(name, &argument);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let context = format!("{name}({argument}): {}\nstdout: {stdout}\nstderr: {stderr}", output.status);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{context}");
    assert!(stderr.starts_with("kmalloc: "), "{context}");
    assert!(stderr.ends_with('\n') && stderr.lines().count() == 1, "{context}");
    let address = stdout.trim();
    assert!(address.starts_with("0x") && address.len() > 4, "the child says which address: {context}");
    let mut words = stderr.split(|c: char| !c.is_ascii_alphanumeric());
    assert!(words.any(|word| word == address), "{context}");
}

/// Says which address is going to be misused, before it is: printing allocates.
fn announce(ptr: *const u8) {
    println!("{ptr:p}");
}

fn free(ptr: *mut u8, layout: Layout) {
    // SAFETY: none. That the allocator finds the mistake, instead of going on with a broken heap, is what is tested.
    unsafe { KMALLOC.dealloc(black_box(ptr), layout) }
}

fn size(argument: &str) -> usize {
    argument.parse().expect("a size")
}

/// Frees enough objects of the size to send whatever lies in the thread's sheaf home.
fn flush(size: usize) {
    let blocks: Vec<Block> = (0..(8 * MIB / size).clamp(64, 20_000)).map(|_| Block::new(size, 8)).collect();
    blocks.into_iter().for_each(Block::free);
}

fn double_free(argument: &str) {
    let mut block = Block::new(size(argument), 8);
    block.fill(1);
    let neighbour = Block::new(block.size(), 8);
    let (ptr, layout) = (block.as_ptr(), block.layout());
    announce(ptr);
    block.free();
    free(ptr, layout);
    neighbour.free();
}

fn a_page_run_freed_twice_aborts() {
    for size in [PAGE + 1, 64 * KIB, 96 * KIB, MIB, CHUNK, LONGEST_RUN] {
        assert_aborts("double_free", size);
    }
}

fn an_area_freed_twice_aborts() {
    for size in [LONGEST_RUN + 1, AREA] {
        assert_aborts("double_free", size);
    }
}

/// The memory may be with the system again, and the address nobody's.
fn double_free_after_reclaim(argument: &str) {
    let mut blocks: Vec<Block> =
        (0..(64 * MIB / size(argument)).clamp(2, 64)).map(|_| Block::filled(size(argument), 8, 1)).collect();
    let last = blocks.pop().expect("the list is not empty");
    let (ptr, layout) = (last.as_ptr(), last.layout());
    announce(ptr);
    last.free();
    blocks.drain(..).for_each(Block::free);
    drop(blocks);
    Kmalloc::reclaim();
    free(ptr, layout);
}

fn a_run_freed_twice_aborts_after_reclaim() {
    for size in [64 * KIB, MIB, CHUNK, AREA] {
        assert_aborts("double_free_after_reclaim", size);
    }
}

fn double_free_small(argument: &str) {
    let size = size(argument);
    let mut blocks: Vec<Block> = (0..(8 * MIB / size).clamp(64, 20_000)).map(|_| Block::new(size, 8)).collect();
    let twice = blocks.swap_remove(blocks.len() / 2);
    let (ptr, layout) = (twice.as_ptr(), twice.layout());
    announce(ptr);
    twice.free();
    free(ptr, layout);
    blocks.drain(..).for_each(Block::free);
}

fn a_small_object_freed_twice_aborts_at_the_flush() {
    for size in [8, 48, 250, KIB, 5000, PAGE] {
        assert_aborts("double_free_small", size);
    }
}

/// The first thread's free is home when it has ended; the second one's comes home when that one ends.
fn double_free_by_two_threads(argument: &str) {
    let size = size(argument);
    let blocks: Vec<Block> = (0..64).map(|_| Block::new(size, 8)).collect();
    let (address, layout) = (blocks[31].address(), blocks[31].layout());
    announce(address as *const u8);
    for _ in 0..2 {
        on_threads(1, |_| free(address as *mut u8, layout));
    }
    blocks.into_iter().take(31).for_each(Block::free);
}

fn a_small_object_freed_by_two_threads_aborts_at_the_flush() {
    // Sizes that starting and ending a thread has no use for, so that nobody is given the object in between.
    for size in [900, 3000, 20_000] {
        assert_aborts("double_free_by_two_threads", size);
    }
}

fn foreign(argument: &str) {
    let (place, length) = argument.split_once(' ').expect("a place and a length");
    let layout = layout(size(length), 8);
    let mut on_stack = [0u64; 16];
    static STATIC: [u64; 16] = [0; 16];
    let ptr = match place {
        "stack" => on_stack.as_mut_ptr().cast(),
        "static" => STATIC.as_ptr().cast_mut().cast(),
        // SAFETY: any size may be asked for.
        "small-C-block" => unsafe { libc::malloc(100) }.cast(),
        // SAFETY: any size may be asked for. glibc maps one of this length by itself.
        "large-C-block" => unsafe { libc::malloc(4 * MIB) }.cast(),
        "nowhere" => (1usize << 40) as *mut u8,
        _ => unreachable!("{place}"),
    };
    announce(ptr);
    free(ptr, layout);
    flush(layout.size());
}

fn a_foreign_pointer_aborts() {
    for place in ["stack", "static", "small-C-block", "large-C-block", "nowhere"] {
        for size in [64, 4 * KIB, 64 * KIB, MIB, AREA] {
            assert_aborts("foreign", format!("{place} {size}"));
        }
    }
}

fn middle_of_a_run(argument: &str) {
    let run = Block::filled(8 * PAGE, 8, 1);
    let (offset, length) = argument.split_once(' ').expect("an offset and a length");
    let ptr = run.as_ptr().wrapping_add(size(offset));
    announce(ptr);
    free(ptr, layout(size(length), 8));
    flush(size(length));
}

fn middle_of_an_area(argument: &str) {
    let area = Block::new(AREA, 8);
    let ptr = area.as_ptr().wrapping_add(size(argument));
    announce(ptr);
    free(ptr, area.layout());
}

fn middle_of_an_object(argument: &str) {
    let object = Block::new(size(argument), 8);
    let ptr = object.as_ptr().wrapping_add(8);
    announce(ptr);
    free(ptr, object.layout());
    flush(object.size());
}

fn a_pointer_into_the_middle_aborts() {
    for offset in [8, 4 * KIB, PAGE, 4 * PAGE, 7 * PAGE] {
        assert_aborts("middle_of_a_run", format!("{offset} {}", 8 * PAGE));
        assert_aborts("middle_of_a_run", format!("{offset} {}", 2 * PAGE));
        assert_aborts("middle_of_a_run", format!("{offset} 64"));
    }
    for offset in [8, PAGE, 2 * MIB, 8 * MIB] {
        assert_aborts("middle_of_an_area", offset);
    }
    for size in [16, 48, 640, 4 * KIB, PAGE] {
        assert_aborts("middle_of_an_object", size);
    }
}

fn other_length(argument: &str) {
    let (true_size, said) = argument.split_once(' ').expect("two sizes");
    let block = Block::new(size(true_size), 8);
    announce(block.as_ptr());
    free(block.as_ptr(), layout(size(said), 8));
    flush(size(said).min(64 * KIB));
}

fn a_layout_of_another_length_aborts() {
    let cases = [
        // A run that is said to be longer or shorter, an object, an area.
        (64 * KIB, 128 * KIB),
        (128 * KIB, 64 * KIB),
        (64 * KIB, MIB),
        (MIB, 64 * KIB),
        (64 * KIB, 48),
        (64 * KIB, PAGE),
        (MIB, AREA),
        // An area that is said to be a run, an object, another area.
        (AREA, MIB),
        (AREA, 48),
        (AREA, 2 * AREA),
        // An object that is said to be a run, an area, one of another class.
        (48, 64 * KIB),
        (PAGE, 64 * KIB),
        (KIB, AREA),
        (64, 640),
    ];
    for (true_size, said) in cases {
        assert_aborts("other_length", format!("{true_size} {said}"));
    }
}

fn resize_freed(argument: &str) {
    let (from, to) = argument.split_once(' ').expect("two sizes");
    let block = Block::filled(size(from), 8, 1);
    let (ptr, layout) = (block.as_ptr(), block.layout());
    announce(ptr);
    block.free();
    // SAFETY: none, as in `free`.
    black_box(unsafe { KMALLOC.realloc(black_box(ptr), layout, size(to)) });
}

fn a_freed_run_that_is_resized_aborts() {
    for (from, to) in
        [(64 * KIB, 128 * KIB), (MIB, 64 * KIB), (MIB, 2 * MIB), (MIB, 100), (AREA, 2 * AREA), (AREA, MIB), (AREA, 100)]
    {
        assert_aborts("resize_freed", format!("{from} {to}"));
    }
}

fn resize_nothing(argument: &str) {
    let (from, to) = argument.split_once(' ').expect("two sizes");
    let ptr = (1usize << 40) as *mut u8;
    announce(ptr);
    // SAFETY: none, as in `free`.
    black_box(unsafe { KMALLOC.realloc(black_box(ptr), layout(size(from), 8), size(to)) });
}

fn a_foreign_pointer_that_is_resized_is_not_read() {
    for (from, to) in [(KIB, MIB), (PAGE, AREA), (MIB, 100), (MIB, 2 * MIB), (AREA, 100), (AREA, MIB)] {
        assert_aborts("resize_nothing", format!("{from} {to}"));
    }
}

/// A child: all that the cases above do, done right.
fn correct(_: &str) {
    for size in [8, 48, 1000, PAGE, 64 * KIB, MIB, CHUNK, LONGEST_RUN, AREA] {
        let mut blocks: Vec<Block> = (0..4).map(|id| Block::filled(size, 8, id)).collect();
        blocks[0].resize(2 * size);
        blocks[0].check_prefix(0, size);
        blocks[0].fill(0);
        for (id, block) in (0..).zip(blocks) {
            block.check_and_free(id);
        }
    }
    flush(48);
    let blocks: Vec<Block> = (0..64).map(|_| Block::new(900, 8)).collect();
    on_threads(1, |_| ());
    blocks.into_iter().for_each(Block::free);
    Kmalloc::reclaim();
    common::assert_valid();
}

/// A child.
fn double_free_unheard(argument: &str) {
    // SAFETY: nobody writes there any more.
    unsafe { libc::close(2) };
    double_free(argument);
}

fn a_process_without_standard_error_aborts_all_the_same() {
    let output = child("double_free_unheard", &(3 * PAGE).to_string());
    assert_eq!((output.status.signal(), output.stderr.len()), (Some(libc::SIGABRT), 0));
}

fn a_correct_program_prints_nothing() {
    assert_child_exits("correct", "", 0);
}
