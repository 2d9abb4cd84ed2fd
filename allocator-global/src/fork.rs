//! fork: a child in which the heap works.
//!
//! # Algorithm
//! Three handlers, registered when the program or the plugin is loaded, so that no thread can be in the heap when there
//! are none; or at the first allocation of a thread, should that be earlier, or should the C library refuse. Before a
//! fork the gate of the heap is closed and everybody inside is waited for; parent and child open it again. Handlers of
//! others may allocate: of theirs, those registered before ours run between ours, on the thread that the gate lets pass.
//! While one of ours runs no signal is delivered: its handler could fork and find the gate half closed.
//!
//! What that cannot help: a handler registered before ours that waits for a thread which waits before the gate.
//! `vfork`, `posix_spawn` and a bare `clone` run no handlers; the first two need none.

use crate::{kswapd, lifecycle, signals, HEAP};
use core::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};

/// True once the handlers are registered, or about to be.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Run before `main`, or by `dlopen`.
#[cfg(target_os = "linux")]
#[used]
#[link_section = ".init_array"]
static AT_LOADING: extern "C" fn() = register;

/// Registers the handlers. A refusal leaves it to the next thread.
pub(crate) extern "C" fn register() {
    if REGISTERED.load(Relaxed) || REGISTERED.swap(true, AcqRel) {
        return;
    }
    kswapd::own();
    // SAFETY: the handlers stay as long as this code does.
    let refused = || unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } != 0;
    // What is interpreted does not fork.
    if !cfg!(miri) && refused() {
        REGISTERED.store(false, Relaxed);
    }
}

/// With every signal blocked, unless the system refuses.
fn without_signals(call: impl Fn()) {
    if signals::blocked(&call).is_none() {
        call();
    }
}

unsafe extern "C" fn prepare() {
    without_signals(|| {
        // In a signal handler the child will be able to `exec`.
        let interrupts = lifecycle::interrupts();
        if !interrupts {
            streams::lock();
        }
        HEAP.before_fork(lifecycle::block(), interrupts);
    });
}

unsafe extern "C" fn parent() {
    without_signals(|| {
        // SAFETY: `prepare` ran before, by this thread.
        unsafe { HEAP.after_fork_in_parent() };
        if !lifecycle::interrupts() {
            streams::unlock();
        }
    });
}

unsafe extern "C" fn child() {
    without_signals(|| {
        // SAFETY: `prepare` ran before, by this thread; none of the others that used the heap then is in the child.
        unsafe { HEAP.after_fork_in_child(lifecycle::block(), lifecycle::interrupts()) };
        streams::reset();
        kswapd::own();
        kswapd::forked();
    });
}

/// The list of the C library's streams has a lock, which `fork` takes after these handlers. Whoever has it may wait for a stream, and
/// whoever has that for memory: so, where C's memory comes from here, it is taken before the gate is closed.
#[cfg(feature = "override")]
mod streams {
    use crate::HEAP;
    use core::sync::atomic::{
        compiler_fence, AtomicU32, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    };

    extern "C" {
        fn _IO_list_lock();
        fn _IO_list_unlock();
        fn _IO_list_resetlock();
    }

    /// The thread that has it by [`lock`], if one does, and how often: a handler that runs before ours may fork itself.
    static OWNER: AtomicUsize = AtomicUsize::new(0);
    static DEPTH: AtomicU32 = AtomicU32::new(0);

    pub(super) fn lock() {
        // SAFETY: has no precondition; the lock may be taken again by who has it.
        unsafe { _IO_list_lock() };
        DEPTH.store(DEPTH.load(Relaxed) + 1, Relaxed);
        // In this order, for a signal handler that forks.
        compiler_fence(SeqCst);
        OWNER.store(HEAP.os().current(), Relaxed);
    }

    /// Whether the calling thread has it. (Who forks in a signal handler may not.)
    fn is_mine() -> bool {
        OWNER.load(Relaxed) == HEAP.os().current()
    }

    pub(super) fn unlock() {
        if is_mine() {
            let depth = DEPTH.load(Relaxed) - 1;
            DEPTH.store(depth, Relaxed);
            if depth == 0 {
                OWNER.store(0, Relaxed);
            }
            // SAFETY: taken by `lock`.
            unsafe { _IO_list_unlock() };
        }
    }

    pub(super) fn reset() {
        if is_mine() {
            DEPTH.store(0, Relaxed);
            OWNER.store(0, Relaxed);
            // SAFETY: the thread that had it is the only one.
            unsafe { _IO_list_resetlock() };
        }
    }
}

#[cfg(not(feature = "override"))]
mod streams {
    pub(super) fn lock() {}
    pub(super) fn unlock() {}
    pub(super) fn reset() {}
}
