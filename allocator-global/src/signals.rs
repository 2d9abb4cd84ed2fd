//! signals: calls during which no handler of the program runs on this thread.

use core::mem::MaybeUninit;
use core::ptr::null_mut;

/// Calls with every signal blocked. `None`, and nothing is called, if the system refuses.
pub(crate) fn blocked<R>(call: impl FnOnce() -> R) -> Option<R> {
    let all = all();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first set is whole, and there is room for the other.
    if unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) } != 0 {
        return None;
    }
    let result = call();
    // SAFETY: initialised by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    Some(result)
}

/// Lets every signal come from now on.
pub(crate) fn unblock() {
    // SAFETY: the set is whole.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, all().as_ptr(), null_mut()) };
}

fn all() -> MaybeUninit<libc::sigset_t> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: there is room for the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    all
}
