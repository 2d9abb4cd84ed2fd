//! Idle: what goes back to the system while nobody calls, and the thread that does it. Each case is a process of its own.

mod common;

use allocator_global::Kmalloc;
use common::{assert_child_exits, beside, on_threads, resident_bytes, Block, MIB};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Barrier;
use std::time::Duration;

suite! {
    tests: [
        memory_of_a_burst_goes_back_while_its_threads_are_parked,
        a_small_process_has_no_thread_of_ours,
        the_thread_is_gone_when_it_is_switched_off,
        no_signal_is_handled_on_the_thread,
        a_child_of_a_fork_has_a_thread_when_it_needs_one,
        without_a_thread_the_work_is_done_by_those_who_free,
        a_large_block_is_set_aside_for_a_moment,
        a_program_may_do_without_the_thread_and_have_it_back,
        what_a_vector_gives_up_goes_back,
        watermarks_that_are_set_wake_the_thread,
    ],
    children: [burst, small, switched_off, signals, forked, alone, large, without, vector, marks]
}

/// Long enough for any machine; what is waited for takes a second or two.
const PATIENCE: usize = 600;

/// Waits until it holds, with no call of the allocator but for the few bytes of a path and a line.
fn comes_true(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: {} MiB are resident", resident_bytes() / MIB);
}

/// The names of the threads of this process.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc/self/task");
    // One that ends meanwhile has no name any more.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(|task| Some(name(task.ok()?)?.trim().to_owned())).collect()
}

/// The main thread is the only one that these children start. (Where `prctl` is refused, ours has no name of its own.)
fn has_kswapd() -> bool {
    threads().len() > 1
}

/// Allocates so many bytes in blocks of 1,000, keeps the first one in a hundred, and frees the others.
fn scatter(bytes: usize) -> Vec<Block> {
    let (mut all, mut kept) = (Vec::with_capacity(bytes / 1000), Vec::with_capacity(bytes / 100_000 + 1));
    (0..bytes / 1000).for_each(|i| all.push(Block::filled(1000, 8, i as u64)));
    for (i, block) in all.into_iter().enumerate() {
        if i % 100 == 0 {
            kept.push(block);
        } else {
            block.free();
        }
    }
    kept
}

/// Class of bug: memory that is returned at the next call only, which an idle process never makes.
fn memory_of_a_burst_goes_back_while_its_threads_are_parked() {
    assert_child_exits("burst", "", 0);
}

fn burst(_: &str) {
    const THREADS: usize = 4;
    let before = resident_bytes();
    let (done, over) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let work = |_| {
        let kept = scatter(64 * MIB);
        done.wait();
        over.wait();
        for (i, block) in kept.into_iter().enumerate() {
            block.check(i as u64 * 100);
            block.free();
        }
    };
    beside(THREADS, work, || {
        done.wait();
        // 2.6 MiB are alive, in objects of 1,024 bytes with a page of the system each.
        comes_true("the burst stays resident", || resident_bytes() < before + 24 * MIB);
        assert!(threads().iter().any(|name| name == "kmalloc-kswapd"));
        over.wait();
    });
    Kmalloc::validate().expect("a heap that is sound");
}

fn a_small_process_has_no_thread_of_ours() {
    assert_child_exits("small", "", 0);
}

fn small(_: &str) {
    for _ in 0..100 {
        (0..10).map(|_| Block::filled(MIB, 8, 1)).collect::<Vec<_>>().into_iter().for_each(Block::free);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(threads().len(), 1);
}

/// More than a small process has, once.
fn grow() {
    (0..80).map(|_| Block::filled(MIB, 8, 1)).collect::<Vec<_>>().into_iter().for_each(Block::free);
}

fn the_thread_is_gone_when_it_is_switched_off() {
    assert_child_exits("switched_off", "", 0);
}

fn switched_off(_: &str) {
    for _ in 0..10 {
        Kmalloc::set_purge_after(Some(Duration::from_millis(20)));
        grow();
        comes_true("there is no thread", has_kswapd);
        assert_eq!(Kmalloc::stats().threads, 1, "it is none of the program's");
        Kmalloc::set_purge_after(None);
        comes_true("the thread stays", || !has_kswapd());
        grow();
        assert!(!has_kswapd(), "it is switched off");
    }
    let resident = resident_bytes();
    std::thread::sleep(Duration::from_millis(200));
    assert!(resident_bytes() + MIB > resident, "nothing goes back any more");
    Kmalloc::validate().expect("a heap that is sound");
}

/// Class of bug: a handler of the program on a thread that it does not know.
fn no_signal_is_handled_on_the_thread() {
    assert_child_exits("signals", "", 0);
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: libc::c_int) {
    HANDLED.fetch_add(1, Relaxed);
}

fn signals(_: &str) {
    grow();
    comes_true("there is no thread", has_kswapd);
    // SAFETY: a handler that is safe anywhere.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: there is room for the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1) };
    // The only thread of the program does not take it, so ours would have to.
    // SAFETY: initialised.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: has no precondition.
    let this = unsafe { libc::getpid() };
    // SAFETY: a signal to this process.
    unsafe { libc::kill(this, libc::SIGUSR1) };
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(HANDLED.load(Relaxed), 0);
    // SAFETY: initialised.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut()) };
    assert_eq!(HANDLED.load(Relaxed), 1, "it was pending");
}

fn a_child_of_a_fork_has_a_thread_when_it_needs_one() {
    assert_child_exits("forked", "", 0);
}

fn forked(_: &str) {
    Kmalloc::set_purge_after(Some(Duration::from_millis(20)));
    grow();
    comes_true("there is no thread", has_kswapd);
    for _ in 0..20 {
        // SAFETY: the child uses nothing but the allocator and files.
        match unsafe { libc::fork() } {
            0 => {
                let none = !has_kswapd();
                grow();
                comes_true("the child has no thread", has_kswapd);
                comes_true("the child's memory stays", || resident_bytes() < 64 * MIB);
                let sound = Kmalloc::validate().is_ok();
                // SAFETY: ends the child.
                unsafe { libc::_exit(if none && sound { 0 } else { 1 }) };
            }
            child => {
                let mut status = 0;
                // SAFETY: a child of ours, and a place for its status.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child");
            }
        }
    }
    assert!(has_kswapd());
}

/// Class of bug: all depends on a thread that cannot be had.
fn without_a_thread_the_work_is_done_by_those_who_free() {
    assert_child_exits("alone", "", 0);
}

fn alone(_: &str) {
    Kmalloc::set_purge_after(Some(Duration::from_millis(20)));
    // The C library has room for the stack of no further thread.
    let before = resident_bytes();
    let blocks: Vec<_> = (0..240).map(|_| Block::filled(MIB, 8, 1)).collect();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the answer.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) }, 0);
    let none = libc::rlimit { rlim_cur: 1 << 20, ..limit };
    // SAFETY: a valid limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &none) }, 0);
    blocks.into_iter().for_each(Block::free);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    assert!(!has_kswapd());
    comes_true("nobody does the work", || {
        (0..200).for_each(|_| Block::new(40_000, 8).free());
        resident_bytes() < before + 16 * MIB
    });
    assert!(!has_kswapd());
    Kmalloc::validate().expect("a heap that is sound");
    on_threads(2, |_| Block::new(1000, 8).free());
}

/// Class of bug: an allocator that keeps what it has set aside until it is asked for something again.
fn a_large_block_is_set_aside_for_a_moment() {
    assert_child_exits("large", "", 0);
}

fn large(_: &str) {
    let block = || Block::filled(80 * MIB, 8, 1);
    let before = resident_bytes();
    block().free(); // now there is a thread
    block().free();
    let aside = Kmalloc::stats().aside_bytes;
    assert!((80 * MIB..=81 * MIB).contains(&aside), "{aside} bytes are set aside");
    comes_true("a large block goes back", || resident_bytes() < before + 20 * MIB && Kmalloc::stats().aside_bytes == 0);
}

/// Class of bug: a thread in a process that was promised to have one (`unshare` and `setns` refuse it then).
fn a_program_may_do_without_the_thread_and_have_it_back() {
    assert_child_exits("without", "", 0);
}

fn without(_: &str) {
    Kmalloc::set_background_thread(false);
    Kmalloc::set_background_thread(true);
    scatter(MIB).into_iter().for_each(Block::free);
    assert!(!has_kswapd(), "one in a small heap");
    Kmalloc::set_background_thread(false);
    Kmalloc::start_background_thread();
    let before = resident_bytes();
    scatter(10 * MIB).into_iter().for_each(Block::free);
    assert!(resident_bytes() > before + 8 * MIB);
    comes_true("memory of a small heap goes back without a thread", || {
        scatter(MIB / 10).into_iter().for_each(Block::free);
        resident_bytes() < before + 4 * MIB
    });
    let kept = scatter(64 * MIB);
    assert!(!has_kswapd());
    // The work is done by those who free, then.
    comes_true("memory goes back without a thread", || {
        scatter(MIB).into_iter().for_each(Block::free);
        resident_bytes() < 40 * MIB
    });
    assert!(!has_kswapd());
    Kmalloc::set_background_thread(true);
    scatter(64 * MIB).into_iter().for_each(Block::free);
    comes_true("there is a thread again", has_kswapd);
    Kmalloc::set_background_thread(false);
    comes_true("the thread is gone", || !has_kswapd());
    Kmalloc::set_background_thread(true);
    comes_true("there is one without a call of the allocator", has_kswapd);
    kept.into_iter().for_each(Block::free);
}

/// Class of bug: only a free tells the thread that there is something to do, and a vector that shrinks frees nothing.
fn what_a_vector_gives_up_goes_back() {
    assert_child_exits("vector", "", 0);
}

fn vector(_: &str) {
    let before = resident_bytes();
    let mut bytes = vec![1u8; 30 * MIB];
    bytes.truncate(MIB);
    bytes.shrink_to_fit();
    comes_true("what was given up stays", || resident_bytes() < before + 16 * MIB);
    assert!(bytes.iter().all(|byte| *byte == 1));
}

fn watermarks_that_are_set_wake_the_thread() {
    assert_child_exits("marks", "", 0);
}

fn marks(_: &str) {
    Kmalloc::set_cgroup(false); // of which half of what is left may stay
    Kmalloc::set_purge_after(Some(Duration::from_secs(2)));
    Kmalloc::set_watermarks(Some(100 * MIB), Some(200 * MIB)).expect("in order");
    let before = resident_bytes();
    grow();
    comes_true("there is no thread", has_kswapd);
    // Two ticks find nothing to do, and then it sleeps for a minute.
    std::thread::sleep(Duration::from_millis(4000));
    assert!(resident_bytes() > before + 70 * MIB, "all of it may stay");
    Kmalloc::set_watermarks(Some(0), Some(0)).expect("in order");
    comes_true("it stays", || resident_bytes() < before + 16 * MIB);
}
