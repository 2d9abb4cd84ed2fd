//! errno: neither an allocation nor a free may change it, whatever is called on the way.

/// Runs `call` and puts `errno` back.
pub(crate) fn kept<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: has no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own variable.
    let saved = unsafe { *errno };
    let result = call();
    // SAFETY: as above.
    unsafe { *errno = saved };
    result
}
