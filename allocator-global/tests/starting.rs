//! A program under a limit of address space or data, or with one processor, that is there before it starts: limits go
//! from the least at which any program starts to one that nobody feels. Its `main` is C's, so that nothing allocates in
//! it but what is written here: Rust's own runtime answers some refusals at the start of a program by ending it.
#![no_main]

mod common;

use common::{KIB, KMALLOC, MIB};
use std::alloc::{GlobalAlloc, Layout};
use std::os::raw::{c_char, c_int, c_void};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Output, Stdio};
use std::{env, ptr};

#[global_allocator]
static GLOBAL: allocator_global::Kmalloc = allocator_global::Kmalloc::new();

/// Set for the program that runs under a limit.
const PROGRAM: &std::ffi::CStr = c"KMALLOC_TEST_STARTING";

#[no_mangle]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    // SAFETY: the name ends with a zero byte, and no other thread changes the environment.
    if !unsafe { libc::getenv(PROGRAM.as_ptr()) }.is_null() {
        return program();
    }
    let tests: [(&str, fn()); 3] = [
        ("a_program_lives_under_every_limit_of_address_space", || every_limit(libc::RLIMIT_AS)),
        ("a_program_lives_under_every_limit_of_data", || every_limit(libc::RLIMIT_DATA)),
        ("one_processor_is_enough", one_processor_is_enough),
    ];
    c_int::from(common::run(&tests, &[]) != ExitCode::SUCCESS)
}

/// What went well and what did not, as the exit code of the program: 0, or one of these.
const SPOILED: c_int = 40;
const NOT_ZERO: c_int = 41;
const INVALID: c_int = 42;

/// What the program writes: that it began, and at the end whether it was ever refused.
fn say(what: &[u8]) {
    // SAFETY: the bytes are live.
    unsafe { libc::write(1, what.as_ptr().cast(), what.len()) };
}

/// Sizes of every layer, smallest first, so that a small limit is felt by some only.
const SIZES: [usize; 12] =
    [8, 100, 3000, 30 * KIB, 40 * KIB, 300 * KIB, MIB, 2 * MIB, 5 * MIB, 9 * MIB, 20 * MIB, 48 * MIB];

/// Every size is allocated, zeroed, resized, verified and freed, under whatever limit there is. Nothing here panics,
/// and nothing needs the standard library's memory.
fn program() -> c_int {
    say(b"began ");
    let mut refused = false;
    for round in 0..3 {
        let mut blocks = [(ptr::null_mut::<u8>(), 0); SIZES.len()];
        for (block, size) in blocks.iter_mut().zip(SIZES) {
            let layout = layout(size);
            // SAFETY: the size is not zero.
            let ptr = unsafe { KMALLOC.alloc_zeroed(layout) };
            if ptr.is_null() {
                refused = true;
                continue;
            }
            for offset in [0, size / 2, size - 1] {
                // SAFETY: a byte of the block, which is zeroed.
                if unsafe { *ptr.wrapping_add(offset) } != 0 {
                    return NOT_ZERO;
                }
            }
            // SAFETY: the first byte of the block.
            unsafe { *ptr = size as u8 ^ 0x5a };
            // SAFETY: the new size is not zero.
            let grown = unsafe { KMALLOC.realloc(ptr, layout, size + size / 4 + 1) };
            *block = if grown.is_null() { (ptr, size) } else { (grown, size + size / 4 + 1) };
            refused |= grown.is_null();
            // SAFETY: the first byte of the block.
            if unsafe { *block.0 } != size as u8 ^ 0x5a {
                return SPOILED;
            }
        }
        refused |= !in_threads(if round == 2 { 8 } else { 1 });
        for (&(ptr, size), was) in blocks.iter().zip(SIZES) {
            if !ptr.is_null() {
                // SAFETY: the first byte of the block.
                if unsafe { *ptr } != was as u8 ^ 0x5a {
                    return SPOILED;
                }
                // SAFETY: allocated with this size, and not used again.
                unsafe { KMALLOC.dealloc(ptr, layout(size)) };
            }
        }
        allocator_global::Kmalloc::reclaim();
        if allocator_global::Kmalloc::validate().is_err() {
            return INVALID;
        }
    }
    refused |= Vec::<u8>::new().try_reserve(100_000).is_err();
    say(if refused { b"refused" } else { b"served" });
    0
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap_or(Layout::new::<u64>())
}

/// Some objects of each of so many threads at once. False if there is no thread to be had.
fn in_threads(count: usize) -> bool {
    extern "C" fn objects(_: *mut c_void) -> *mut c_void {
        for size in 1..2000 {
            // SAFETY: the size is not zero.
            let ptr = unsafe { KMALLOC.alloc(layout(size)) };
            if !ptr.is_null() {
                // SAFETY: just allocated.
                unsafe { ptr.write_bytes(1, size) };
                // SAFETY: as above, and not used again.
                unsafe { KMALLOC.dealloc(ptr, layout(size)) };
            }
        }
        ptr::null_mut()
    }
    // SAFETY: zeros are a number, or a null pointer.
    let mut threads: [libc::pthread_t; 8] = unsafe { std::mem::zeroed() };
    let mut started = 0;
    for thread in &mut threads[..count] {
        // SAFETY: default attributes; the body takes no argument.
        if unsafe { libc::pthread_create(thread, ptr::null(), objects, ptr::null_mut()) } != 0 {
            break;
        }
        started += 1;
    }
    for thread in &threads[..started] {
        // SAFETY: just started, joined once.
        unsafe { libc::pthread_join(*thread, ptr::null_mut()) };
    }
    started == count
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Runs a command under a limit.
fn under(resource: Resource, limit: usize, command: &mut Command) -> Output {
    let limit = libc::rlimit { rlim_cur: limit as libc::rlim_t, rlim_max: limit as libc::rlim_t };
    let lower = move || {
        // SAFETY: reads the limit.
        match unsafe { libc::setrlimit(resource, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: `setrlimit` may be called between fork and exec.
    unsafe { command.pre_exec(lower) };
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(why) => panic!("{command:?}: {why}"),
    }
}

/// The least limit, to a page, at which `/bin/true` ends well.
fn least(resource: Resource) -> usize {
    let (mut fails, mut works) = (0, 64 * MIB);
    while works - fails > 4 * KIB {
        let middle = (fails + works) / 2;
        if under(resource, middle, &mut Command::new("/bin/true")).status.success() {
            works = middle;
        } else {
            fails = middle;
        }
    }
    works
}

fn every_limit(resource: Resource) {
    let this = env::current_exe().expect("the test's own path");
    let name = PROGRAM.to_str().expect("a name");
    let least = least(resource);
    let mut steps: Vec<usize> = (least..least + 16 * MIB).step_by(128 * KIB).collect();
    steps.extend((least + 16 * MIB..256 * MIB).step_by(2 * MIB));
    // The C library's own heap may reserve 128 MiB for each of eight threads that happen to need it at once.
    steps.extend([256 * MIB, 512 * MIB, 2048 * MIB]);
    let (mut began_at, mut refusals, mut served_from) = (None, 0, None);
    for limit in steps {
        let Output { status, stdout, stderr } = under(resource, limit, Command::new(&this).env(name, "1"));
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if stdout.is_empty() {
            // Kernel or loader had no room for the program; it needs more libraries than `/bin/true`.
            assert_eq!(began_at, None, "{} KiB: it began with less", limit / KIB);
            continue;
        }
        began_at = began_at.or(Some(limit));
        assert_eq!((status.code(), &*stderr), (Some(0), ""), "{} KiB: {status}, {stdout}", limit / KIB);
        match &*stdout {
            "began refused" => {
                refusals += 1;
                served_from = None;
            }
            // Threads that run at once need less or more together, so a lower limit may have been enough at times.
            "began served" => served_from = served_from.or(Some(limit)),
            other => panic!("{} KiB: {other:?}", limit / KIB),
        }
    }
    let kib = |limit: Option<usize>| limit.expect("it began, and was served, with 2 GiB") / KIB;
    println!(
        "/bin/true starts at {} KiB, the program at {}; {refusals} limits refuse it something; served from {}",
        least / KIB,
        kib(began_at),
        kib(served_from)
    );
    assert!(refusals > 20, "the limit was hardly felt");
}

/// The program above, eight threads of it included, where only one processor may be used.
fn one_processor_is_enough() {
    let this = env::current_exe().expect("the test's own path");
    let mut command = Command::new(&this);
    let bind = || {
        // SAFETY: all zeros is a valid set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: writes the set.
        unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
        // SAFETY: reads the set.
        let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).unwrap_or(0);
        // SAFETY: as above.
        let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: writes the set.
        unsafe { libc::CPU_SET(first, &mut one) };
        // SAFETY: reads the set.
        match unsafe { libc::sched_setaffinity(0, size_of_val(&one), &one) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: nothing in it allocates.
    unsafe { command.pre_exec(bind) };
    let output = command.env(PROGRAM.to_str().expect("a name"), "1").output().expect("the program starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), &*stdout), (Some(0), "began served"));
}
