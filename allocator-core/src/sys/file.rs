//! file: a file of the system, open for as long as it is looked at.
//!
//! By the numbers of the system calls, whatever the C library's functions are: a thread may be cancelled in those, and a program
//! may have put others before them, which allocate.

use core::ffi::CStr;
use libc::{c_int, syscall};

/// A file that is closed in the end. Its calls change `errno`.
pub(super) struct File(c_int);

impl File {
    /// Opens one to be read.
    pub(super) fn open(path: &CStr) -> Option<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: a path that ends.
        let file = unsafe { syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) } as c_int;
        (file >= 0).then_some(Self(file))
    }

    /// Reads its begin: how many bytes that is.
    pub(super) fn read(&self, into: &mut [u8]) -> Option<usize> {
        // SAFETY: there is room for so many bytes.
        let len = unsafe { syscall(libc::SYS_read, self.0, into.as_mut_ptr(), into.len()) };
        usize::try_from(len).ok()
    }

    /// Asks it for something else: what the answer is, if none was refused.
    ///
    /// # Safety
    /// `with` is what the request is about, and so is what it leads to.
    pub(super) unsafe fn ask<T>(&self, request: u32, with: &mut T) -> Option<usize> {
        // SAFETY: by contract.
        let answer =
            unsafe { syscall(libc::SYS_ioctl, self.0, libc::c_ulong::from(request), core::ptr::from_mut(with)) };
        usize::try_from(answer).ok()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody uses it any more.
        unsafe { syscall(libc::SYS_close, self.0) };
    }
}
