//! The calls of the C library that [`Unix`](super::Unix) makes, by their numbers: where the C library's own heap is ours, a
//! program may have put functions before them that allocate (profilers do), and would come back into a heap that is busy.

use libc::{c_char, c_int, c_long, c_uchar, c_ulong, c_void, off_t, size_t, syscall};

/// An argument as long as a register: the kernel may look at all of it, and who passes an `int` may leave anything in the upper half.
fn word(int: c_int) -> c_long {
    c_long::from(int)
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn mmap(
    at: *mut c_void,
    len: size_t,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: by contract. A refusal is -1, which is `MAP_FAILED`.
    unsafe { syscall(libc::SYS_mmap, at, len, word(access), word(flags), word(file), offset) as *mut c_void }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn munmap(at: *mut c_void, len: size_t) -> c_int {
    // SAFETY: by contract.
    unsafe { syscall(libc::SYS_munmap, at, len) as c_int }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn mprotect(at: *mut c_void, len: size_t, access: c_int) -> c_int {
    // SAFETY: by contract.
    unsafe { syscall(libc::SYS_mprotect, at, len, word(access)) as c_int }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int {
    // SAFETY: by contract.
    unsafe { syscall(libc::SYS_madvise, at, len, word(advice)) as c_int }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn mincore(at: *mut c_void, len: size_t, into: *mut c_uchar) -> c_int {
    // SAFETY: by contract.
    unsafe { syscall(libc::SYS_mincore, at, len, into) as c_int }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn mremap(at: *mut c_void, len: size_t, new_len: size_t, flags: c_int) -> *mut c_void {
    // SAFETY: by contract. A refusal is -1, which is `MAP_FAILED`.
    unsafe { syscall(libc::SYS_mremap, at, len, new_len, word(flags)) as *mut c_void }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn prctl(what: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: *const c_char) -> c_int {
    // SAFETY: by contract.
    unsafe { syscall(libc::SYS_prctl, word(what), a, b, c, d) as c_int }
}

/// # Safety
/// As for the function of this name in the C library.
pub(super) unsafe fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> c_int {
    // SAFETY: by contract.
    unsafe { syscall(libc::SYS_clock_gettime, word(clock), into) as c_int }
}

/// # Safety
/// None: it is like the others.
pub(super) unsafe fn sched_yield() -> c_int {
    // SAFETY: has no precondition.
    unsafe { syscall(libc::SYS_sched_yield) as c_int }
}
