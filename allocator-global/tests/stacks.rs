//! Stacks: how much of it the allocator uses at most, measured, and what it does where there is little.

mod common;

use allocator_global::{HugePages, Kmalloc, Limits};
use common::{assert_child_exits, child, join_raw, layout, spawn_raw, Block, KIB, LONGEST_RUN, MIB, PAGE};
use std::cell::Cell;
use std::fmt::Write as _;
use std::os::raw::c_void;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

suite! {
    tests: [
        every_entry_point_uses_little_stack,
        any_stack_is_enough_for_a_walk,
    ],
    children: [measure, walk_and_retire]
}

/// What any entry point may use; twice that in code that is not optimised, where the environment says so.
fn most() -> usize {
    (4 * KIB) << u32::from(std::env::var_os("KMALLOC_TEST_UNOPTIMISED").is_some())
}

/// What it may use where it calls crossbeam-epoch, which moves bags of 2 KiB by value: only where there is more than
/// that (`lifecycle`).
fn most_in_library() -> usize {
    4 * most()
}

/// The thread whose stack is measured has this much.
const STACK: usize = 256 * KIB;
const PAINT: u64 = 0x5ac3_5ac3_5ac3_5ac3;

/// Bytes of stack below this frame that `call` uses, or a little more. `floor` is where the stack ends.
#[inline(never)]
fn used_by(floor: usize, call: &mut dyn FnMut()) -> usize {
    let here = Cell::new(0u64);
    // The few bytes below this frame that painting itself may need stay as they are.
    let top = (here.as_ptr() as usize - 256) & !7;
    TOP.store(top, Relaxed);
    let mut at = floor;
    while at < top {
        // SAFETY: below every frame in use, and on this thread's stack.
        unsafe { (at as *mut u64).write_volatile(PAINT) };
        at += 8;
    }
    call();
    used(floor)
}

/// Where painting ended.
static TOP: AtomicUsize = AtomicUsize::new(0);

/// Bytes that have been used since the stack was painted.
fn used(floor: usize) -> usize {
    let top = TOP.load(Relaxed);
    let mut at = floor;
    // SAFETY: on a stack that is mapped.
    while at < top && unsafe { (at as *const u64).read_volatile() } == PAINT {
        at += 8;
    }
    top + 256 - at
}

/// What is measured: an entry point in some state.
type Case = (&'static str, fn(&mut State));

/// What cases leave to each other.
#[derive(Default)]
struct State {
    blocks: Vec<Block>,
    text: String,
}

impl State {
    fn keep(&mut self, size: usize) {
        self.blocks.extend(Block::try_new(layout(size, 8)));
    }
    fn free_last(&mut self) {
        self.blocks.pop().into_iter().for_each(Block::free);
    }
    fn resize_last(&mut self, size: usize) {
        self.blocks.last_mut().map(|block| block.try_resize(size));
    }
}

const CASES: &[Case] = &[
    ("alloc: the first of a thread", |s| s.keep(48)),
    ("alloc: an object of a class that is new", |s| s.keep(5000)),
    ("alloc_zeroed: an object", |s| s.blocks.extend(Block::try_zeroed(layout(300, 8)))),
    ("realloc: within the class", |s| s.resize_last(290)),
    ("realloc: to another class", |s| s.resize_last(900)),
    ("realloc: to a run", |s| s.resize_last(2 * PAGE)),
    ("realloc: a run in place", |s| s.resize_last(3 * PAGE)),
    ("realloc: to an area", |s| s.resize_last(LONGEST_RUN + MIB)),
    ("realloc: an area", |s| s.resize_last(4 * LONGEST_RUN)),
    ("realloc: an area to an object", |s| s.resize_last(100)),
    ("dealloc: an object", State::free_last),
    ("alloc: a run", |s| s.keep(100 * KIB)),
    ("dealloc: a run", State::free_last),
    ("alloc_zeroed: a run that was used", |s| {
        s.keep(MIB);
        s.free_last();
        s.blocks.extend(Block::try_zeroed(layout(MIB, 8)));
        s.free_last();
    }),
    ("alloc: an area", |s| s.keep(LONGEST_RUN + 1)),
    ("dealloc: an area", State::free_last),
    ("alloc: an aligned area", |s| s.blocks.extend(Block::try_new(layout(100, 64 * MIB)))),
    ("dealloc: an aligned area", State::free_last),
    ("alloc and dealloc: sheaves overflow, slabs come and go", |s| {
        (0..4000).for_each(|_| s.keep(1000));
        (0..4000).for_each(|_| s.free_last());
    }),
    ("a refusal", |_| assert!(Block::try_new(layout(1 << 47, 8)).is_none())),
    ("owns", |s| assert!(Kmalloc::owns(s.blocks[0].as_ptr()))),
    ("stats", |_| _ = Kmalloc::stats()),
    ("slabinfo and buddyinfo", |s| {
        s.text.clear();
        write!(s.text, "{}{}", Kmalloc::slabinfo(), Kmalloc::buddyinfo()).expect("a string takes everything");
    }),
    ("validate", |_| assert_eq!(Kmalloc::validate(), Ok(()))),
    ("audit", |_| assert!(Kmalloc::audit().is_err())),
    ("reclaim", |_| _ = Kmalloc::reclaim()),
    ("fork, in the parent", |_| {
        // SAFETY: the child ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the child is ours.
        unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    }),
    ("alloc: more arenas, and a walk through them", |s| (0..common::BEYOND_AN_ARENA).for_each(|_| s.keep(MIB))),
    ("dealloc: all that lies there", |s| (0..common::BEYOND_AN_ARENA).for_each(|_| s.free_last())),
    ("reclaim: arenas are retired", |_| _ = Kmalloc::reclaim()),
    ("stats: a walk", |_| _ = Kmalloc::stats()),
    ("try_stats", |_| assert!(Kmalloc::try_stats().is_some())),
    ("zoneinfo and vmstat", |s| {
        s.text.clear();
        write!(s.text, "{}{}", Kmalloc::zoneinfo(), Kmalloc::vmstat()).expect("a string takes everything");
    }),
    ("settings", |_| {
        Kmalloc::set_watermarks(None, None).expect("what the use says");
        Kmalloc::set_purge_after(Some(Duration::from_secs(1)));
        Kmalloc::set_huge_pages(HugePages::Auto);
        Kmalloc::set_guard_pages(false);
        Kmalloc::set_sparse_zeros(true);
        Kmalloc::set_cgroup(true);
        Kmalloc::set_background_thread(true);
    }),
    ("callbacks are registered", |_| {
        Kmalloc::on_pressure(Some(|_| ()));
        assert!(Kmalloc::register_shrinker(|_| 0).is_some(), "one of sixteen");
    }),
    ("a limit is set, met, and lifted", |s| {
        s.blocks.reserve(1 << 16);
        let few = Kmalloc::usage() + 4 * MIB;
        Kmalloc::set_limits(Limits { max: few, high: few / 2, min: 0 }).expect("less is in use");
        for size in [100, 5000, 100 * KIB, MIB, LONGEST_RUN + 1] {
            // Where free memory does not go back there may be very many.
            while s.blocks.len() < s.blocks.capacity() {
                let Some(block) = Block::try_new(layout(size, 8)) else { break };
                s.blocks.push(block);
            }
        }
        Kmalloc::set_limits(Limits::default()).expect("no limit");
    }),
];

/// Where the stack of the measured thread ends.
static FLOOR: AtomicUsize = AtomicUsize::new(0);

/// A thread on a stack that is known.
fn on_a_known_stack(body: common::ThreadBody) {
    // SAFETY: a new mapping.
    let memory = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(ptr::null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    FLOOR.store(memory as usize, Relaxed);
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = std::mem::MaybeUninit::uninit();
    // SAFETY: initialises the attributes.
    assert_eq!(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) }, 0);
    // SAFETY: initialised; the mapping is the thread's until it is joined.
    assert_eq!(unsafe { libc::pthread_attr_setstack(attributes.as_mut_ptr(), memory, STACK) }, 0);
    // SAFETY: as above; the body takes nothing.
    assert_eq!(unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), body, ptr::null_mut()) }, 0);
    // SAFETY: the call has written it.
    join_raw(unsafe { thread.assume_init() });
}

/// Prints how much each case uses.
extern "C" fn measure_all(_: *mut c_void) -> *mut c_void {
    let floor = FLOOR.load(Relaxed);
    // Room beforehand, so that nothing else is measured.
    let mut state = State { blocks: Vec::with_capacity(5000), text: String::with_capacity(64 * KIB) };
    let (mut wrong, mut in_library) = (false, false);
    for (name, case) in CASES {
        let used = used_by(floor, &mut || case(&mut state));
        // Once there was a second arena, every look is protected, and what is retired waits to be freed.
        in_library |= Kmalloc::stats().arenas > 1;
        wrong |= used > if in_library { most_in_library() } else { most() };
        println!("{used:>6} bytes  {name}");
    }
    state.blocks.into_iter().for_each(Block::free);
    assert!(!wrong, "too much");
    ptr::null_mut()
}

/// A child.
fn measure(what: &str) {
    match what {
        "all" => on_a_known_stack(measure_all),
        "thread end" => {
            extern "C" fn allocates_and_ends(_: *mut c_void) -> *mut c_void {
                let blocks: Vec<Block> = (1..200).map(|n| Block::new(n * 20, 8)).collect();
                blocks.into_iter().for_each(Block::free);
                used_by(FLOOR.load(Relaxed), &mut || ()); // paints
                ptr::null_mut()
            }
            on_a_known_stack(allocates_and_ends);
            let used = used(FLOOR.load(Relaxed));
            println!("{used:>6} bytes  the end of a thread, below its own frames");
            assert!(used <= most());
        }
        "misuse" => {
            extern "C" fn frees_twice(_: *mut c_void) -> *mut c_void {
                let run = Block::new(3 * PAGE, 8);
                let (ptr, layout) = (run.as_ptr(), run.layout());
                run.free();
                used_by(FLOOR.load(Relaxed), &mut || {
                    // SAFETY: none. It is found, and ends the process.
                    unsafe { std::alloc::GlobalAlloc::dealloc(&common::KMALLOC, ptr, layout) }
                });
                ptr::null_mut()
            }
            static LIMIT: AtomicUsize = AtomicUsize::new(0);
            LIMIT.store(most(), Relaxed); // asking allocates
            extern "C" fn on_abort(_: i32) {
                let used = used(FLOOR.load(Relaxed));
                let mut line = allocator_core::sys::Line::new();
                let _ = writeln!(line, "{used:>6} bytes  a misuse that is found, until the abort");
                // SAFETY: writes what is in the line.
                unsafe { libc::write(1, line.as_bytes().as_ptr().cast(), line.as_bytes().len()) };
                // SAFETY: ends the process.
                unsafe { libc::_exit(i32::from(used > LIMIT.load(Relaxed))) };
            }
            extern "C" fn with_a_stack_for_the_handler(_: *mut c_void) -> *mut c_void {
                let alternate = vec![0u8; 64 * KIB].leak();
                let stack =
                    libc::stack_t { ss_sp: alternate.as_mut_ptr().cast(), ss_flags: 0, ss_size: alternate.len() };
                // SAFETY: memory that stays.
                assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
                frees_twice(ptr::null_mut())
            }
            // SAFETY: zeros are an action without flags.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_abort as *const () as usize;
            action.sa_flags = libc::SA_ONSTACK;
            // SAFETY: the handler is a function of this program.
            assert_eq!(unsafe { libc::sigaction(libc::SIGABRT, &action, ptr::null_mut()) }, 0);
            on_a_known_stack(with_a_stack_for_the_handler);
            panic!("nobody has found it");
        }
        _ => unreachable!("{what}"),
    }
}

fn every_entry_point_uses_little_stack() {
    for what in ["all", "thread end", "misuse"] {
        let output = child("measure", what);
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), output.status.signal()), (Some(0), None));
    }
}

extern "C" fn walk(_: *mut c_void) -> *mut c_void {
    Block::try_new(layout(MIB, 8)).into_iter().for_each(Block::free);
    Kmalloc::reclaim();
    ptr::null_mut()
}

/// A child: threads with stacks of all lengths walk the arenas and retire them, which is crossbeam-epoch's business.
fn walk_and_retire(_: &str) {
    for stack in (16..=128).step_by(4) {
        let full: Vec<Block> = (0..common::BEYOND_AN_ARENA).map(|_| Block::new(MIB, 8)).collect();
        assert!(Kmalloc::stats().arenas > 1, "a walk must be protected");
        join_raw(spawn_raw(Some(stack * KIB), walk, ptr::null_mut()));
        full.into_iter().for_each(Block::free);
        join_raw(spawn_raw(Some(stack * KIB), walk, ptr::null_mut()));
    }
    common::assert_valid();
}

fn any_stack_is_enough_for_a_walk() {
    assert_child_exits("walk_and_retire", "", 0);
}
