//! fork: a child of a process with many threads has a heap that is whole, whatever the other threads were doing.

mod common;

use allocator_global::Kmalloc;
use common::{
    assert_child_exits, assert_valid, beside, join_raw, on_threads, proc_bytes, spawn_raw, Block, CHUNK, KIB,
    LONGEST_RUN, MIB,
};
use std::os::raw::c_void;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Barrier;
use std::time::Duration;

suite! {
    tests: [
        children_of_a_busy_process_have_a_whole_heap,
        what_the_threads_of_the_parent_cached_is_given_back_in_the_child,
        a_child_that_frees_what_it_inherited_copies_none_of_it,
        a_child_of_any_thread_may_fork_again,
        threads_may_fork_at_once,
        a_child_of_a_thread_with_a_small_stack_walks_and_retires,
        a_vfork_child_may_allocate,
        handlers_of_others_may_allocate_between_ours,
        a_handler_of_others_may_fork,
        a_thread_that_a_handler_starts_in_a_child_is_served_once_the_child_goes_on,
        a_signal_handler_may_fork_and_exit_whatever_it_interrupted,
        a_child_of_a_signal_handler_that_allocates_is_served_or_ends,
    ],
    children: [forking_signal_handler]
}

/// Forks, runs `body` in the child, and asserts that it came to its end. A child that hangs is ended by an alarm.
fn in_child(body: impl FnOnce()) {
    // SAFETY: the child calls what a child of a process with threads may call, and the allocator, which is the test.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: takes no pointer.
        unsafe { libc::alarm(60) };
        let code = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => 0,
            Err(_) => 101,
        };
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and nobody else waits for it.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 0), "status {status:#x}");
}

/// Tells the other threads to stop, also where a test ends by a panic.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Of three caches, a page run, whole chunks.
const SIZES: [usize; 5] = [40, 700, 9 * KIB, 100 * KIB, CHUNK + 1];
/// An area.
const AREA: usize = LONGEST_RUN + MIB;

/// Frees what the parent had, allocates anew, starts a thread that does the same.
fn live_on(inherited: Vec<Block>) {
    for (id, block) in (0..).zip(inherited) {
        block.check_and_free(id);
    }
    on_threads(2, |t| {
        Block::zeroed(AREA, 8).free();
        for (i, size) in SIZES.into_iter().enumerate() {
            let id = (t * 100 + i) as u64;
            let mut block = Block::filled(size, 8, id);
            block.resize(size + size / 2);
            block.check_prefix(id, size);
            block.free();
        }
    });
    Kmalloc::reclaim();
    assert_valid();
}

fn inheritance() -> Vec<Block> {
    (0..).zip(SIZES.into_iter().chain([AREA])).map(|(id, size)| Block::filled(size, 8, id)).collect()
}

fn children_of_a_busy_process_have_a_whole_heap() {
    const FORKS: usize = 40;
    let done = AtomicBool::new(false);
    let busy = |t: usize| {
        let mut held = Vec::new();
        let mut n = t as u64;
        while !done.load(Relaxed) {
            n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let size = match n >> 60 {
                0 => (n >> 30) as usize % (3 * MIB) + 1,
                1..=3 => (n >> 30) as usize % (200 * KIB) + 1,
                _ => (n >> 30) as usize % 500 + 1,
            };
            held.push((size.min(64), n, Block::new(size, 8)));
            if let Some((_, id, block)) = held.last_mut() {
                block.fill_from(*id, block.size() - block.size().min(64));
            }
            if held.len() > 200 {
                held.drain(..100).for_each(|(.., block)| block.free());
            }
            if n >> 40 & 0x3ff == 0 {
                Kmalloc::reclaim();
            }
        }
        held.into_iter().for_each(|(.., block)| block.free());
    };
    beside(8, busy, || {
        let _stops = Stops(&done);
        for _ in 0..FORKS {
            let inherited = inheritance();
            in_child(|| live_on(inherited_in_child(&inherited)));
            inherited.into_iter().for_each(Block::free);
        }
    });
}

/// The blocks again: in the child they are its own, while the parent keeps its copy.
fn inherited_in_child(parents: &[Block]) -> Vec<Block> {
    // SAFETY: a block is plain data; each process frees its own.
    parents.iter().map(|block| unsafe { ptr::read(block) }).collect()
}

fn what_the_threads_of_the_parent_cached_is_given_back_in_the_child() {
    const THREADS: usize = 6;
    let (cached, end) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let caches = |_| {
        let blocks: Vec<_> = (0..500).map(|n| Block::new(n % 300 + 1, 8)).collect();
        blocks.into_iter().for_each(Block::free);
        cached.wait();
        end.wait();
    };
    beside(THREADS, caches, || {
        cached.wait();
        in_child(|| {
            assert!(Kmalloc::stats().cached_objects > THREADS * 50);
            assert!(Kmalloc::stats().threads > THREADS);
            Kmalloc::reclaim();
            let stats = Kmalloc::stats();
            // The reports that were just made left a few in this thread's sheaves.
            assert!(stats.threads == 1 && stats.cached_objects < 50, "{stats:?}");
            live_on(Vec::new());
        });
        end.wait();
    });
}

/// Bytes of this process' memory that no other shares any more.
fn copied_bytes() -> usize {
    proc_bytes("/proc/self/smaps_rollup", "Private_Dirty:")
}

/// Class of bug: links between free blocks, or a word in front of each, are written when a child frees, and the system
/// copies each page of what parent and child have shared.
fn a_child_that_frees_what_it_inherited_copies_none_of_it() {
    // The sanitizer writes an eighth of it.
    const MOST: usize = if cfg!(feature = "asan") { 16 * MIB } else { 4 * MIB };
    // What the parent gives back meanwhile is the child's alone, and what the child gives back was perhaps copied before.
    Kmalloc::set_purge_after(None);
    for size in [64, 1500, 40 * KIB] {
        let blocks: Vec<_> = (0..64 * MIB / size).map(|id| Block::filled(size, 8, id as u64)).collect();
        in_child(|| {
            let before = copied_bytes();
            for block in &blocks {
                // SAFETY: a block is plain data; each process frees its own.
                unsafe { ptr::read(block) }.free();
            }
            let copied = copied_bytes().saturating_sub(before);
            assert!(copied <= MOST, "{copied} bytes of blocks of {size}");
            assert_valid();
        });
        blocks.into_iter().for_each(Block::free);
    }
    Kmalloc::set_purge_after(Some(Duration::from_secs(1)));
}

fn a_child_of_any_thread_may_fork_again() {
    on_threads(1, |_| {
        let inherited = inheritance();
        in_child(|| {
            in_child(|| in_child(|| live_on(inherited_in_child(&inherited))));
            live_on(inherited_in_child(&inherited));
        });
        inherited.into_iter().for_each(Block::free);
    });
}

fn threads_may_fork_at_once() {
    on_threads(4, |_| {
        for _ in 0..8 {
            let inherited = inheritance();
            in_child(|| live_on(inherited_in_child(&inherited)));
            inherited.into_iter().for_each(Block::free);
        }
    });
}

/// Blocks that the handlers below have allocated and freed.
static HANDLED: AtomicUsize = AtomicUsize::new(0);
/// True where they must not: in a process that forks from a signal handler.
static QUIET: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn handler() {
    for size in SIZES.into_iter().filter(|_| !QUIET.load(Relaxed)) {
        Block::filled(size, 8, 1).check_and_free(1);
        HANDLED.fetch_add(1, Relaxed);
    }
}

fn register_handlers() {
    // SAFETY: the handlers are plain functions of this program.
    assert_eq!(unsafe { libc::pthread_atfork(Some(handler), Some(handler), Some(handler)) }, 0);
}

/// Before `main`, and so before the allocator's own handlers: these run between ours.
extern "C" fn early() {
    register_handlers();
    register_forking_handler();
    register_starting_handler();
}

#[used]
#[link_section = ".init_array.00101"]
static EARLY: extern "C" fn() = early;

fn handlers_of_others_may_allocate_between_ours() {
    register_handlers();
    beside_busy_threads(|| {
        for _ in 0..20 {
            let before = HANDLED.load(Relaxed);
            in_child(|| {
                assert!(HANDLED.load(Relaxed) >= before + 4 * SIZES.len(), "two handlers before, two in the child");
                live_on(Vec::new());
            });
            assert!(HANDLED.load(Relaxed) >= before + 4 * SIZES.len());
        }
    });
    let raw = spawn_raw(None, forks_in_a_raw_thread, ptr::null_mut());
    join_raw(raw);
}

/// Runs `body` while four other threads allocate and free.
fn beside_busy_threads(body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let busy = |_| {
        while !stop.load(Relaxed) {
            handler_like();
        }
    };
    beside(4, busy, || {
        let _stops = Stops(&stop);
        body();
    });
}

fn handler_like() {
    SIZES.into_iter().for_each(|size| Block::filled(size, 8, 2).check_and_free(2));
}

/// A thread that forks before it has allocated anything.
extern "C" fn forks_in_a_raw_thread(nothing: *mut c_void) -> *mut c_void {
    in_child(|| live_on(Vec::new()));
    nothing
}

/// In a child the thread that forked has the number of the process, as the main thread has: it is no sign of a long
/// stack.
fn a_child_of_a_thread_with_a_small_stack_walks_and_retires() {
    extern "C" fn forks(nothing: *mut c_void) -> *mut c_void {
        // SAFETY: as in `in_child`, whose frames are too long for this stack.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: takes no pointer.
            unsafe { libc::alarm(60) };
            // Behind all arenas that are full, and so behind a walk.
            let block = Block::try_new(common::layout(MIB, 8));
            let served = block.is_some();
            block.into_iter().for_each(Block::free);
            Kmalloc::reclaim();
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(!served)) };
        }
        let mut status = -1;
        // SAFETY: the child is ours, and nobody else waits for it.
        unsafe { libc::waitpid(child, &mut status, 0) };
        if status == 0 {
            nothing
        } else {
            ptr::null_mut()
        }
    }
    let full: Vec<Block> = (0..common::BEYOND_AN_ARENA).map(|_| Block::new(MIB, 8)).collect();
    assert!(Kmalloc::stats().arenas > 1, "a walk must be protected");
    for stack in (16..=64).step_by(4) {
        let mut well = 0u8;
        let thread = spawn_raw(Some(stack * KIB), forks, ptr::addr_of_mut!(well).cast());
        assert!(!join_raw(thread).is_null(), "the child of a thread with {stack} KiB of stack");
    }
    full.into_iter().for_each(Block::free);
    Kmalloc::reclaim();
}

/// It runs in the memory, and on the thread block, of its parent, which waits.
fn a_vfork_child_may_allocate() {
    extern "C" fn lives(_: *mut c_void) -> i32 {
        for size in SIZES {
            let Some(block) = Block::try_new(common::layout(size, 8)) else { return 1 };
            block.free();
        }
        Kmalloc::reclaim();
        // A thread of the child would keep it from ending, and its parent's memory would be its own.
        Kmalloc::set_purge_after(Some(Duration::from_secs(1)));
        0
    }
    const STACK: usize = 64 * KIB;
    // More than one arena, so that it comes to where the length of the stack matters.
    let full: Vec<Block> = (0..common::BEYOND_AN_ARENA).map(|_| Block::new(MIB, 8)).collect();
    on_threads(2, |_| {
        for _ in 0..50 {
            let mut stack: Vec<u128> = vec![0; STACK / 16];
            let top = stack.as_mut_ptr_range().end.cast();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            // SAFETY: the stack is the child's until this call comes back.
            let child = unsafe { libc::clone(lives, top, flags, ptr::null_mut()) };
            assert!(child > 0, "clone");
            let mut status = 0;
            // SAFETY: the child is ours, and nobody else waits for it.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
        // Goes where the child has been.
        let _ = Kmalloc::stats();
    });
    full.into_iter().for_each(Block::free);
    Kmalloc::reclaim();
}

/// True while the handler below is to fork itself.
static FORKS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn forking_handler() {
    if FORKS.swap(false, Relaxed) {
        handler_like();
        in_child(|| live_on(Vec::new()));
        handler_like();
    }
}

/// Registered before ours, and so run, before a fork, when ours have closed the gate.
fn register_forking_handler() {
    // SAFETY: the handler is a plain function of this program.
    assert_eq!(unsafe { libc::pthread_atfork(Some(forking_handler), None, None) }, 0);
}

fn a_handler_of_others_may_fork() {
    beside_busy_threads(|| {
        for _ in 0..20 {
            FORKS.store(true, Relaxed);
            in_child(|| live_on(Vec::new()));
            assert!(!FORKS.load(Relaxed), "the handler has run");
        }
    });
}

/// True while the handler below is to start a thread.
static STARTS: AtomicBool = AtomicBool::new(false);
/// The thread that it has started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn starting_handler() {
    extern "C" fn begins(nothing: *mut c_void) -> *mut c_void {
        handler_like();
        nothing
    }
    if STARTS.swap(false, Relaxed) {
        STARTED.store(spawn_raw(None, begins, ptr::null_mut()) as usize, Relaxed);
    }
}

/// Registered before ours, and so run in a child while nobody else may come in.
fn register_starting_handler() {
    // SAFETY: the handler is a plain function of this program.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(starting_handler)) }, 0);
}

/// Class of bug: that thread is counted among those of the parent, and its child has no heap.
fn a_thread_that_a_handler_starts_in_a_child_is_served_once_the_child_goes_on() {
    beside_busy_threads(|| {
        for _ in 0..50 {
            STARTS.store(true, Relaxed);
            in_child(|| {
                join_raw(STARTED.load(Relaxed) as libc::pthread_t);
                in_child(handler_like);
            });
            STARTS.store(false, Relaxed);
        }
    });
}

/// A child: a timer interrupts a program of one thread wherever it is, and forks.
fn forking_signal_handler(what: &str) {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static ALLOCATES: AtomicBool = AtomicBool::new(false);
    extern "C" fn on_timer(_: i32) {
        // SAFETY: what a handler may call; the child ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            if ALLOCATES.load(Relaxed) {
                // SAFETY: what it may say before it aborts is the subject of another test.
                unsafe { libc::close(2) };
                Block::try_new(common::layout(64 * KIB, 8)).into_iter().for_each(Block::free);
            }
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: as above.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        let ended = ALLOCATES.load(Relaxed) && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT;
        if waited != child || !(status == 0 || ended) {
            // SAFETY: as above.
            unsafe { libc::_exit(7) };
        }
        HANDLED.fetch_add(1, Relaxed);
        wind_up();
    }
    /// Once more, a moment from now: a timer that repeats would leave the program no time where forks are slow.
    fn wind_up() {
        let moment = libc::timeval { tv_sec: 0, tv_usec: 200 + HANDLED.load(Relaxed) as i64 % 100 };
        let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: moment };
        // SAFETY: reads the interval.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
    }
    // SAFETY: the handler is a function of this program.
    unsafe { libc::signal(libc::SIGALRM, on_timer as *const () as libc::sighandler_t) };
    ALLOCATES.store(what == "allocates", Relaxed);
    QUIET.store(true, Relaxed);
    wind_up(); // in place of the alarm of this child; the loop below has an end of its own
    let started = std::time::Instant::now();
    let mut rounds = 0;
    while HANDLED.load(Relaxed) < 1000 {
        // Objects, runs, areas; and, without a block, what a thread that ends does.
        handler_like();
        rounds += 1;
        assert!(started.elapsed().as_secs() < 120, "{} forks in {rounds} rounds", HANDLED.load(Relaxed));
    }
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_IGN) };
    assert_valid();
}

fn a_signal_handler_may_fork_and_exit_whatever_it_interrupted() {
    assert_child_exits("forking_signal_handler", "exits", 0);
}

/// It is served, or it aborts: it neither hangs nor gets what somebody has.
fn a_child_of_a_signal_handler_that_allocates_is_served_or_ends() {
    assert_child_exits("forking_signal_handler", "allocates", 0);
}
