//! The end of a process that misused its memory: one line on standard error, without allocating, then abort.
//!
//! A handler of the abort may come back here, for instance because it allocates in the thread that died within the
//! allocator. Then there is no second handler: the process ends at once.

use core::fmt::{self, Write};

/// A line of text in place; what does not fit is dropped.
pub struct Line {
    bytes: [u8; Line::MAX],
    len: usize,
}

impl Line {
    const MAX: usize = 240;

    /// An empty line.
    pub const fn new() -> Self {
        Self { bytes: [0; Self::MAX], len: 0 }
    }

    /// Ends it, in place of its last byte if there is no room.
    fn end(&mut self) {
        self.len = self.len.min(Self::MAX - 1);
        self.bytes[self.len] = b'\n';
        self.len += 1;
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let n = s.len().min(Self::MAX - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// The thread that dies.
#[cfg(not(kmalloc_loom))]
static DYING: crate::sync::atomic::AtomicUsize = crate::sync::atomic::AtomicUsize::new(0);

/// True if the calling thread dies for the second time.
fn again() -> bool {
    #[cfg(not(kmalloc_loom))]
    {
        use super::Unix;
        use crate::sync::{atomic::Ordering::Relaxed, Park};
        DYING.swap(Unix.current(), Relaxed) == Unix.current()
    }
    #[cfg(kmalloc_loom)]
    false
}

/// Writes `kmalloc: ` and the message as one line to file descriptor 2, without allocating.
#[cold]
pub fn warn(message: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // Cannot fail: `Line` swallows what does not fit, but keeps room for the end.
    let _ = write!(line, "kmalloc: {message}");
    line.end();
    let bytes = line.as_bytes();
    // By its number: a function that a program has put before `write` may allocate, and come back here.
    // SAFETY: the bytes are initialised and live; a failing write changes nothing about what follows.
    unsafe { libc::syscall(libc::SYS_write, 2, bytes.as_ptr(), bytes.len()) };
}

/// Writes `kmalloc: ` and the message as one line to file descriptor 2 and aborts.
#[cold]
pub fn die(message: fmt::Arguments<'_>) -> ! {
    warn(message);
    if again() {
        // SAFETY: the default action needs no handler.
        unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    }
    // SAFETY: has no precondition.
    unsafe { libc::abort() }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_line_drops_what_does_not_fit() {
        let mut line = Line::new();
        for _ in 0..100 {
            write!(line, "0123456789").unwrap();
        }
        assert_eq!(line.as_bytes().len(), Line::MAX);
        assert!(line.as_bytes().starts_with(b"0123456789"));
        line.end();
        assert!(line.as_bytes().len() == Line::MAX && line.as_bytes().ends_with(b"\n"));
    }
}
