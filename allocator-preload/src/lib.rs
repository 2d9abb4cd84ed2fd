//! libkmalloc.so: the heap of any program.
//!
//! ```sh
//! LD_PRELOAD=target/release/libkmalloc.so any-program
//! ```
//!
//! All names and what they do are in `allocator-global` (feature `override`); here is what only a library has that is loaded before a
//! program: its beginning, its end, and what it does about libraries that look elsewhere first (`deepbind`).
//!
//! The beginning is a constructor that runs before all others. It is the first to allocate as a Rust program does, so from then on
//! `KMALLOC_CONF` holds and threads have blocks; what was asked for before (by resolvers) was served without one. No thread is started for
//! it unless `KMALLOC_CONF` says so (`background_thread:yes`): a program that has one thread may rely on that. What is free goes back sooner
//! than elsewhere, since only those who free can do it.
//!
//! The end: with `KMALLOC_STATS=FILE`, every process appends one line to the file when it exits; `-` is standard error.

#![no_std]

extern crate alloc;

/// Where a panic unwinds, somebody must know how.
#[cfg(panic = "unwind")]
extern crate std;

#[cfg(all(target_env = "gnu", target_endian = "little", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod deepbind;
#[cfg(not(panic = "unwind"))]
mod panic;

use allocator_core::sys::{warn, Line, Os, Unix};
use allocator_global::Kmalloc;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt::Write;
use core::str;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use libc::c_long;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new().background_thread(false).purge_after(Some(Duration::from_millis(25)));

#[used]
#[link_section = ".init_array"]
static BEGIN: extern "C" fn(libc::c_int, *mut *mut libc::c_char, *mut *mut libc::c_char) = begin;

#[used]
#[link_section = ".fini_array"]
static END: extern "C" fn() = end;

/// The dynamic linker passes this to a constructor. It runs before the C library's own, which sets `environ`.
extern "C" fn begin(_: libc::c_int, _: *mut *mut libc::c_char, variables: *mut *mut libc::c_char) {
    extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    let place = core::ptr::addr_of_mut!(environ);
    // SAFETY: nothing else of the program runs yet.
    if unsafe { place.read() }.is_null() {
        // SAFETY: as above; it is what the C library will set it to.
        unsafe { place.write(variables) };
    }
    let layout = Layout::new::<u8>();
    // SAFETY: not of size zero.
    let first = core::hint::black_box(unsafe { alloc::alloc::alloc(layout) });
    // By a tiny limit even that is refused, which is no reason to end.
    if !first.is_null() {
        // SAFETY: just allocated.
        unsafe { alloc::alloc::dealloc(first, layout) };
    }
    keep_path();
    Kmalloc::start_background_thread();
}

/// Where [`end`] reports to, and its length. A program may overwrite its environment, so it is kept from the beginning.
struct Path(UnsafeCell<[u8; 512]>, AtomicUsize);
// SAFETY: written by the constructor, before there is a second thread, and read by the destructor.
unsafe impl Sync for Path {}
static PATH: Path = Path(UnsafeCell::new([0; 512]), AtomicUsize::new(0));

fn keep_path() {
    // SAFETY: has no precondition.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // SAFETY: a name that ends, and nothing else of the program runs yet.
    let path = unsafe { libc::getenv(c"KMALLOC_STATS".as_ptr()) };
    if secure || path.is_null() {
        return;
    }
    // SAFETY: a variable that is there is text that ends.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    // SAFETY: nobody else is here.
    let place = unsafe { &mut *PATH.0.get() };
    if let Some(place) = place.get_mut(..path.len()) {
        place.copy_from_slice(path);
        PATH.1.store(path.len(), Relaxed);
    } else {
        warn(format_args!("KMALLOC_STATS: a path of {} bytes is too long", path.len() - 1));
    }
}

extern "C" fn end() {
    // SAFETY: written by the constructor alone.
    let path = unsafe { &*PATH.0.get() };
    let path = path.get(..PATH.1.load(Relaxed)).and_then(|path| CStr::from_bytes_with_nul(path).ok());
    if let Some(path) = path {
        report(path);
    }
}

/// Appends a line to this file.
fn report(path: &CStr) {
    // None for a process that exits from within a signal handler that met the heap.
    let Some(stats) = Kmalloc::try_stats() else { return };
    let mut name = [0u8; 16];
    // The process's, and not that of whichever thread exits.
    let len = Unix.read(c"/proc/self/comm", &mut name).unwrap_or(0).saturating_sub(1);
    // It may be anything, and a line is to stay one.
    name.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b'?');
    let name = name.get(..len).and_then(|name| str::from_utf8(name).ok()).unwrap_or("?");
    // SAFETY: has no precondition.
    let pid = unsafe { libc::getpid() };
    let mut line = Line::new();
    // Cannot fail: a line swallows what does not fit.
    let _ = writeln!(
        line,
        "kmalloc: pid {pid} ({name}): {} objects of {} bytes, {} runs of {}, {} areas of {}, {} of {} bytes committed",
        stats.slab_objects,
        stats.slab_bytes,
        stats.runs,
        stats.run_bytes,
        stats.areas,
        stats.area_bytes,
        stats.committed,
        stats.reserved,
    );
    let to_standard_error = path == c"-";
    // Not to wait for the reader of a pipe, nor to become the owner of a terminal.
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // By their numbers: a thread that is cancelled would end in a call of the C library's, and the process without its handlers.
    let (here, access) = (c_long::from(libc::AT_FDCWD), 0o644 as c_long);
    // SAFETY: a path that ends.
    let open = || unsafe { libc::syscall(libc::SYS_openat, here, path.as_ptr(), c_long::from(flags), access) };
    let file = if to_standard_error { 2 } else { open() };
    if file < 0 {
        return;
    }
    // SAFETY: bytes that are there. A refusal costs the line.
    unsafe { libc::syscall(libc::SYS_write, file, line.as_bytes().as_ptr(), line.as_bytes().len()) };
    if !to_standard_error {
        // SAFETY: opened above.
        unsafe { libc::syscall(libc::SYS_close, file) };
    }
}
