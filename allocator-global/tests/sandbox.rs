//! A sandbox: a process that would be killed for a system call that `docs/production.md` does not name.

mod common;

use allocator_global::Kmalloc;
use common::{child_with, join_raw, layout, spawn_raw, Block, AREA, BEYOND_AN_ARENA, KIB, MIB};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::os::raw::{c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::sync::Barrier;
use std::time::Duration;
use std::{env, fs, ptr};

suite! {
    tests: [
        no_call_is_made_that_is_not_documented,
        without_a_thread_fewer_calls_do,
        no_call_is_documented_that_is_not_made,
    ],
    children: [sandboxed]
}

const PAGE: &str = include_str!("../../docs/production.md");

/// Every call that the page may name.
const CALLS: [(&str, i64); 26] = [
    ("clock_gettime", libc::SYS_clock_gettime),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("close", libc::SYS_close),
    ("exit", libc::SYS_exit),
    ("futex", libc::SYS_futex),
    ("getpid", libc::SYS_getpid),
    ("ioctl", libc::SYS_ioctl),
    ("madvise", libc::SYS_madvise),
    ("mincore", libc::SYS_mincore),
    ("mmap", libc::SYS_mmap),
    ("mprotect", libc::SYS_mprotect),
    ("mremap", libc::SYS_mremap),
    ("munmap", libc::SYS_munmap),
    ("openat", libc::SYS_openat),
    ("prctl", libc::SYS_prctl),
    ("prlimit64", libc::SYS_prlimit64),
    ("read", libc::SYS_read),
    ("rseq", libc::SYS_rseq),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    ("sched_getaffinity", libc::SYS_sched_getaffinity),
    ("sched_setscheduler", libc::SYS_sched_setscheduler),
    ("sched_yield", libc::SYS_sched_yield),
    ("set_robust_list", libc::SYS_set_robust_list),
    ("sysinfo", libc::SYS_sysinfo),
    ("write", libc::SYS_write),
];

/// What the program here calls itself: it forks, waits, sleeps and ends.
const OWN: [i64; 3] = [libc::SYS_wait4, libc::SYS_clock_nanosleep, libc::SYS_exit_group];

/// The names of calls between two pieces of the page.
fn named(from: &str, to: &str) -> Vec<&'static str> {
    let (_, after) = PAGE.split_once(from).expect("the page says it so");
    let (text, _) = after.split_once(to).expect("the page says it so");
    let quoted = text.split('`').skip(1).step_by(2);
    let calls: Vec<_> = quoted.filter(|word| !word.starts_with('/')).collect();
    for call in &calls {
        assert!(CALLS.iter().any(|(name, _)| name == call), "docs/production.md: {call}");
    }
    calls
}

fn number(name: &str) -> i64 {
    CALLS.iter().find(|(call, _)| *call == name).expect("a call that is known").1
}

/// All that a sandbox must allow.
fn allowed() -> Vec<&'static str> {
    named("A sandbox must allow", "(or refuse them with an error)")
}

const SOON: &str = "purge_after:50";
const FEWER: &str = "purge_after:50,background_thread:no,sparse_zeros:no,huge_pages:never";

/// A program in a sandbox: how it ended, and what it said.
fn run(allowed: &[&str], settings: &str) -> (Option<i32>, Option<i32>, String) {
    let output = child_with("sandboxed", &allowed.join(" "), &[("KMALLOC_CONF", settings)]);
    (output.status.code(), output.status.signal(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn no_call_is_made_that_is_not_documented() {
    assert_eq!(run(&allowed(), SOON), (Some(0), None, String::new()));
}

fn without_a_thread_fewer_calls_do() {
    let spared = [named("to start and end a thread (", ")"), named("those of a thread,", ". No other")].concat();
    let mut allowed = allowed();
    allowed.retain(|call| !spared.contains(call));
    // The program here forks, and a thread of its own ends.
    allowed.extend(["clone", "set_robust_list", "exit"]);
    assert_eq!(run(&allowed, FEWER), (Some(0), None, String::new()));
}

fn no_call_is_documented_that_is_not_made() {
    let all = allowed();
    let unmade = |call: &&&str| {
        let others: Vec<_> = all.iter().copied().filter(|other| other != *call).collect();
        let (_, signal, said) = run(&others, SOON);
        // With the signal blocked there is no line.
        signal != Some(libc::SIGSYS) && !said.starts_with(&format!("{call} is not allowed\n"))
    };
    // There is nothing to warn of, who waits gives way to another by chance, few C libraries ask the kernel for the time, and
    // older ones start threads in another way.
    let mut uncertain = vec!["write", "sched_yield", "clock_gettime", "clone3", "rseq"];
    let huge_pages = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if !huge_pages.is_ok_and(|choice| !choice.contains("[never]")) {
        uncertain.push("mincore"); // nobody is asked whether a chunk is worth one
    }
    let certain = all.iter().filter(|call| !uncertain.contains(call));
    let unmade: Vec<_> = certain.filter(unmade).collect();
    assert!(unmade.is_empty(), "docs/production.md names calls that nobody makes: {unmade:?}");
}

/// A child of ours, in a sandbox from here on that allows these calls.
fn sandboxed(allowed: &str) {
    static ARRIVED: Barrier = Barrier::new(2);
    static ALLOWED: Barrier = Barrier::new(2);
    extern "C" fn beside(_: *mut c_void) -> *mut c_void {
        ARRIVED.wait();
        ALLOWED.wait();
        everything();
        ptr::null_mut()
    }
    let calls = allowed.split(' ').map(number).chain(OWN).map(|call| (call, Vec::new())).collect();
    let arch = env::consts::ARCH.try_into().expect("an architecture with a filter");
    let filter = SeccompFilter::new(calls, SeccompAction::Trap, SeccompAction::Allow, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a filter");
    let thread = spawn_raw(None, beside, ptr::null_mut());
    ARRIVED.wait();
    tell_what_is_trapped();
    seccompiler::apply_filter_all_threads(&program).expect("a sandbox");
    ALLOWED.wait();
    everything();
    forked();
    join_raw(thread);
    goes_back();
    Kmalloc::set_background_thread(false);
    Kmalloc::reclaim();
    common::assert_valid();
    // SAFETY: ends the process, and nothing of the language's own runs in it before.
    unsafe { libc::_exit(0) };
}

/// Blocks of every kind come, grow, shrink and go; and one cannot be had.
fn everything() {
    assert!(Block::try_new(layout(1 << 55, 8)).is_none());
    let kinds = [8, 100, 3000, 30 * KIB, 40 * KIB, 300 * KIB, MIB, 5 * MIB, 12 * MIB, 20 * MIB, AREA];
    for round in 0..3 {
        let mut blocks = Vec::new();
        for (id, size) in kinds.into_iter().enumerate() {
            let zeros = Block::zeroed(size, 8);
            zeros.check_zero();
            zeros.free();
            let mut block = Block::filled(size, [8, 4096][round % 2], id as u64);
            block.resize(size + size / 2);
            block.check_prefix(id as u64, size);
            block.resize(size - size / 4);
            blocks.push(block);
        }
        blocks.into_iter().for_each(Block::free);
    }
    let mut many: Vec<_> = (0..BEYOND_AN_ARENA).map(|id| Block::filled(MIB, 8, id as u64)).collect();
    many.extend((0..40_000).map(|id| Block::filled(1000, 8, id)));
    let (stay, go): (Vec<_>, Vec<_>) = many.into_iter().enumerate().partition(|(index, _)| index % 100 == 0);
    go.into_iter().for_each(|(_, block)| block.free());
    stay.into_iter().for_each(|(_, block)| block.free());
}

/// A child of a fork, in which everything comes and goes as well.
fn forked() {
    // SAFETY: the child calls nothing but the allocator and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        everything();
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the status is live.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child of a fork");
}

/// Waits until free memory has gone back.
fn goes_back() {
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(10));
        Block::new(100 * KIB, 8).free(); // whoever frees does it where there is no thread
    }
}

/// A call that is trapped ends the process, with a line that says which.
fn tell_what_is_trapped() {
    extern "C" fn tell(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: of a SIGSYS: behind the three numbers that all have, and the address, is the call's.
        let call = unsafe { info.cast::<c_int>().wrapping_add(6).read() };
        let name = CALLS.iter().find(|(_, number)| *number == i64::from(call)).map_or("another call", |(name, _)| name);
        // In one piece, since two threads may come here at once.
        let mut line = [0; 64];
        let mut len = 0;
        for byte in name.bytes().chain(*b" is not allowed\n").take(line.len()) {
            line[len] = byte;
            len += 1;
        }
        // SAFETY: the bytes are live.
        unsafe { libc::write(2, line.as_ptr().cast(), len) };
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) };
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = tell;
    // SAFETY: zeros are an action: the default one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler calls what a handler may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, ptr::null_mut()) }, 0);
}
