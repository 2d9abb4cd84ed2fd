//! `minimal-kernel COMMAND...`: runs a command that is refused what an allocator may ask a kernel for and can do
//! without: `madvise`, `mincore`, `mremap`, `membarrier`, `prctl`, `sched_getaffinity`, `sched_yield`, and `mprotect` but for what
//! loading a program and starting a thread need. A seccomp filter does it, so children and threads are refused the
//! same.
//!
//! What is left of `mprotect`: taking access away (guard pages, what the loader has relocated), and giving it to ranges
//! that are neither a multiple of 2 MiB long nor longer than 8 MiB, since the C library does that to the stack of each
//! thread. Arenas grow by whole chunks of 2 MiB, and areas are longer; the default stacks are made to be neither.

use seccompiler::{
    apply_filter, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const MIB: u64 = 1 << 20;
/// The default stack of a thread of Rust's, and of the C library's.
const STACKS: [u64; 2] = [2 * MIB + 4096, 4 * MIB + 4096];

/// Arguments of `mprotect`.
const LENGTH: u8 = 1;
const ACCESS: u8 = 2;

fn refuse(calls: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<(), Box<dyn Error>> {
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}

fn install() -> Result<(), Box<dyn Error>> {
    let any = |calls: &[i64]| calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let write = libc::PROT_WRITE as u64;
    let gives_access = SeccompCondition::new(ACCESS, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(write), write)?;
    let chunks = SeccompCmpOp::MaskedEq(2 * MIB - 1);
    let chunks = SeccompCondition::new(LENGTH, SeccompCmpArgLen::Qword, chunks, 0)?;
    let long = SeccompCondition::new(LENGTH, SeccompCmpArgLen::Qword, SeccompCmpOp::Gt, 8 * MIB)?;
    let mut memory = any(&[libc::SYS_madvise, libc::SYS_mincore, libc::SYS_mremap]);
    memory.insert(
        libc::SYS_mprotect,
        vec![SeccompRule::new(vec![gives_access.clone(), chunks])?, SeccompRule::new(vec![gives_access, long])?],
    );
    refuse(memory, libc::ENOMEM)?;
    let others = [libc::SYS_membarrier, libc::SYS_prctl, libc::SYS_sched_getaffinity, libc::SYS_sched_yield];
    refuse(any(&others), libc::EPERM)
}

/// That the filter refuses what it should, and lets pass what it must.
fn check() -> Result<(), Box<dyn Error>> {
    const LEN: usize = 16 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping where the kernel likes.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_NONE, flags, -1, 0) };
    if map == libc::MAP_FAILED {
        return Err("no memory to try the filter on".into());
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let answers = [
        // SAFETY: inside the mapping, as all that follow.
        unsafe { libc::mprotect(map, 2 << 20, access) } == 0,
        // SAFETY: as above.
        unsafe { libc::mprotect(map, (8 << 20) + 4096, access) } == 0,
        // SAFETY: as above.
        unsafe { libc::madvise(map, LEN, libc::MADV_DONTNEED) } == 0,
        // SAFETY: as above.
        unsafe { libc::mremap(map, LEN, LEN / 2, 0) } != libc::MAP_FAILED,
        // SAFETY: asks only.
        unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) } >= 0,
        // SAFETY: asks only.
        unsafe { libc::prctl(libc::PR_GET_DUMPABLE) } >= 0,
        // SAFETY: takes no pointer.
        unsafe { libc::sched_yield() } == 0,
        // SAFETY: the answer goes where there is room for it.
        unsafe { libc::mincore(map, 4096, [0u8; 1].as_mut_ptr()) } == 0,
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, 128, [0u64; 16].as_mut_ptr()) } >= 0,
        // SAFETY: as above.
        unsafe { libc::mprotect(map, STACKS[0] as usize, access) } != 0,
        // SAFETY: as above.
        unsafe { libc::mprotect(map, 2 << 20, libc::PROT_READ) } != 0,
        // SAFETY: nobody uses it.
        unsafe { libc::munmap(map, LEN) } != 0,
    ];
    if answers.contains(&true) {
        return Err(format!("the filter does something else than it should: {answers:?}").into());
    }
    Ok(())
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or("usage: minimal-kernel COMMAND...")?;
    let [rust, c] = STACKS;
    // SAFETY: reads the limit.
    if unsafe { libc::setrlimit(libc::RLIMIT_STACK, &libc::rlimit { rlim_cur: c, rlim_max: c }) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    install()?;
    check()?;
    Err(Command::new(program).args(arguments).env("RUST_MIN_STACK", rust.to_string()).exec().into())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("minimal-kernel: {why}");
            ExitCode::FAILURE
        }
    }
}
