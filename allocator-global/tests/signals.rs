//! Signals: a handler that allocates, or looks at the heap, is not promised to be served, but it is promised not to hang.

mod common;

use allocator_global::Kmalloc;
use common::{child, layout, Block, CHUNK, KIB, KMALLOC, PAGE};
use std::alloc::GlobalAlloc;
use std::fmt::Write;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

suite! {
    tests: [
        a_handler_that_allocates_is_served_or_ends_with_a_line,
        a_handler_of_a_fault_in_the_program_is_served,
        a_handler_of_the_abort_that_allocates_does_not_start_it_again,
    ],
    children: [allocating_handler, faulting, allocating_abort_handler]
}

fn on_signal(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: the handler is a function of this program.
    assert_ne!(unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) }, libc::SIG_ERR);
}

/// The slow path, always; what the thread has in its sheaves is not touched.
fn allocate_a_run() -> bool {
    let block = Block::try_new(layout(2 * PAGE, 8));
    let served = block.is_some();
    block.into_iter().for_each(Block::free);
    served
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn allocates_and_winds_up(_: i32) {
    allocate_a_run();
    note_and_wind_up();
}

extern "C" fn reports_and_winds_up(_: i32) {
    struct Nowhere;
    impl std::fmt::Write for Nowhere {
        fn write_str(&mut self, _: &str) -> std::fmt::Result {
            Ok(())
        }
    }
    write!(Nowhere, "{}", Kmalloc::zoneinfo()).expect("nothing can fail");
    note_and_wind_up();
}

/// Says that a handler was served, one byte for each.
fn note_and_wind_up() {
    HANDLED.fetch_add(1, Relaxed);
    // SAFETY: one byte that is there.
    unsafe { libc::write(1, c".".as_ptr().cast(), 1) };
    wind_up();
}

/// Whether the calling thread is one that the signal may interrupt.
fn set_mask(how: i32) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: there is room for a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: an initialised set.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1) };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut()) }, 0);
}

/// Not that of `alarm`, which ends a child that hangs.
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());

fn make_timer(signal: i32) {
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: zeros are an event.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, signal);
    // SAFETY: reads the event, and there is room for the timer.
    assert_eq!(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) }, 0);
    TIMER.store(timer, Relaxed);
}

/// The next signal a moment from now.
fn wind_up() {
    let moment = libc::timespec { tv_sec: 0, tv_nsec: 20_000 + HANDLED.load(Relaxed) as i64 % 40 * 1000 };
    let time = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: moment };
    // SAFETY: a timer of this process; reads the time.
    unsafe { libc::timer_settime(TIMER.load(Relaxed), 0, &time, ptr::null_mut()) };
}

/// A child: a timer interrupts whatever it is doing, and the handler allocates, or looks at the heap.
fn allocating_handler(what: &str) {
    extern "C" fn allocates_and_ends(nothing: *mut libc::c_void) -> *mut libc::c_void {
        set_mask(libc::SIG_UNBLOCK);
        // Attached, used once, detached; and what a thread does that has ended.
        Block::new(100, 8).free();
        nothing
    }
    make_timer(libc::SIGUSR1);
    on_signal(libc::SIGUSR1, if what == "reports" { reports_and_winds_up } else { allocates_and_winds_up });
    if let "threads" | "reports" = what {
        set_mask(libc::SIG_BLOCK); // it is for the others
    }
    wind_up();
    let started = Instant::now();
    while HANDLED.load(Relaxed) < 20_000 && started.elapsed() < Duration::from_secs(20) {
        match what {
            "runs" => [2 * PAGE, CHUNK, 9 * CHUNK].into_iter().for_each(|size| Block::new(size, 8).free()),
            "objects" => {
                let blocks: Vec<Block> = (0..200).map(|n| Block::new(5 * KIB + n, 8)).collect();
                blocks.into_iter().for_each(Block::free);
            }
            "threads" | "reports" => _ = common::join_raw(common::spawn_raw(None, allocates_and_ends, ptr::null_mut())),
            _ => unreachable!("{what}"),
        }
    }
    assert!(HANDLED.load(Relaxed) > 0, "no signal came");
}

fn a_handler_that_allocates_is_served_or_ends_with_a_line() {
    let mut served = 0;
    for what in ["runs", "objects", "threads", "reports"] {
        let output = child("allocating_handler", what);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let line = "kmalloc: a signal handler called the allocator that it had interrupted\n";
        let answer = (output.status.code(), output.status.signal(), &*stderr);
        assert!(answer == (Some(0), None, "") || answer == (None, Some(libc::SIGABRT), line), "{what}: {answer:?}");
        served += output.stdout.len();
    }
    assert!(served > 0, "each of them ended at once");
}

/// A child: a fault outside the allocator, and a handler that does what crash handlers do.
fn faulting(_: &str) {
    extern "C" fn on_fault(_: i32) {
        let text = format!("{:?}", (0..1000).collect::<Vec<_>>());
        // SAFETY: ends the process.
        unsafe { libc::_exit(if text.len() > 1000 && allocate_a_run() { 5 } else { 6 }) };
    }
    on_signal(libc::SIGSEGV, on_fault);
    let blocks: Vec<Block> = (1..100).map(|n| Block::new(n * 300, 8)).collect();
    // SAFETY: none. The fault is what the handler is for.
    unsafe { (16 as *mut u8).write_volatile(1) };
    blocks.into_iter().for_each(Block::free);
}

fn a_handler_of_a_fault_in_the_program_is_served() {
    common::assert_child_exits("faulting", "", 5);
}

/// A child: a misuse that is found inside the allocator, and a handler of the abort that goes there again.
fn allocating_abort_handler(_: &str) {
    extern "C" fn on_abort(_: i32) {
        allocate_a_run();
    }
    on_signal(libc::SIGABRT, on_abort);
    let block = Block::new(3 * PAGE, 8);
    let (ptr, layout) = (block.as_ptr(), block.layout());
    block.free();
    // SAFETY: none. That it is found is what is tested.
    unsafe { KMALLOC.dealloc(ptr, layout) };
}

fn a_handler_of_the_abort_that_allocates_does_not_start_it_again() {
    let output = child("allocating_abort_handler", "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.status.signal()), (None, Some(libc::SIGABRT)), "{stderr}");
    assert!(stderr.starts_with("kmalloc: double free") && (1..=2).contains(&stderr.lines().count()), "{stderr}");
}
