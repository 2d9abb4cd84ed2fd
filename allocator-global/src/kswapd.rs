//! kswapd: the thread that gives free memory back to the system (`allocator_core::kswapd` says when).
//!
//! # Algorithm
//! A slow call of `dealloc` starts the thread when the heap says so, outside of the heap and of
//! crossbeam-epoch. It blocks every signal, so that no handler of the program runs on it; its stack is
//! small, and its name is `kmalloc-kswapd`. It ends when the heap does not want it any more, or no thread of the program has a block: a
//! process ends when all of its threads have, and should somebody free, there is another one. A child of a fork has none until its heap
//! wants one.
//!
//! Where the system refuses a thread, whoever gives pages back does the work once in a while. So it is where the program
//! wants none, and then in a small heap, too, since nothing has to be started for it.

use crate::{lifecycle, pressure, signals, HEAP};
use allocator_core::kswapd::Attend;
use allocator_core::sys::quietly;
use allocator_core::thread::Thread;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

/// Bytes of its stack: crossbeam-epoch's needs, and what the C library puts there. A page or two of it are touched.
const STACK: usize = 256 << 10;

/// The process that this memory belongs to. A child of `vfork` uses its parent's, and a thread that it started would be
/// its own.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Whether there may be a thread at all.
static ALLOWED: AtomicBool = AtomicBool::new(true);

/// From now on there is such a thread where it is needed, or is none.
pub(crate) fn allow(thread: bool) {
    if ALLOWED.swap(thread, Relaxed) != thread {
        lifecycle::with(|thread| HEAP.dismiss_kswapd(thread));
    }
    begin();
}

/// The work begins now, however small the heap is, if there is to be no thread, since those who free do it then, or if the thread was
/// started by name.
pub(crate) fn begin() {
    if !ALLOWED.load(Relaxed) || STARTED.load(Relaxed) {
        HEAP.kswapd().grown(HEAP.os(), usize::MAX, HEAP.counter().limits());
    }
}

/// It was started by [`start_now`].
static STARTED: AtomicBool = AtomicBool::new(false);

/// It was, and nobody else would: C does not.
static ONLY_HERE: AtomicBool = AtomicBool::new(false);

/// This is a child, in which nobody calls [`start_now`].
pub(crate) fn forked() {
    if ONLY_HERE.load(Relaxed) {
        ALLOWED.store(false, Relaxed);
        begin();
    }
}

/// Starts the thread, if it is allowed.
pub(crate) fn start_now() {
    if ALLOWED.load(Relaxed) {
        STARTED.store(true, Relaxed);
        ONLY_HERE.store(cfg!(feature = "override"), Relaxed);
        HEAP.kswapd().grown(HEAP.os(), usize::MAX, HEAP.counter().limits());
        attend();
    }
}

/// This memory is the calling process's own.
pub(crate) fn own() {
    // SAFETY: has no precondition.
    OWNER.store(unsafe { libc::getpid() }, Relaxed);
}

/// To be called outside of the heap, by whoever is about to give memory back: a tick comes much later anyway, and nothing
/// has to be kept over the call. Leaves `errno` as it was.
#[inline(always)]
pub(crate) fn attend() {
    attend_and(true);
}

/// As [`attend`], where no thread may be started: in a call of C, since the C library may have locks that starting one needs, and
/// where one ends.
#[inline(always)]
pub(crate) fn attend_without_start() {
    attend_and(false);
}

/// The one of the two that `starts` says.
#[inline(always)]
pub(crate) fn attend_and(starts: bool) {
    if HEAP.kswapd().needs_attention() {
        attend_now(starts);
    }
}

#[cold]
#[inline(never)]
fn attend_now(starts: bool) {
    quietly(|| attend_to_it(starts));
}

fn attend_to_it(starts: bool) {
    // Left to a call that may start one; meanwhile nobody is to think that ticks will come.
    if !starts && ALLOWED.load(Relaxed) && !ONLY_HERE.load(Relaxed) && HEAP.kswapd().is_dormant() {
        return;
    }
    let number = match HEAP.kswapd().attend(HEAP.os()) {
        Attend::Nothing => return,
        // Where no call starts one, it has ended and will not come back.
        Attend::Start(number) if !ALLOWED.load(Relaxed) || ONLY_HERE.load(Relaxed) && !starts => Some(number),
        Attend::Start(number) => {
            // Else a callback of the program's frees, perhaps inside a call of C; or a destructor in a thread that has ended.
            let starts = starts && !lifecycle::block().is_some_and(Thread::is_relieving) && !lifecycle::has_ended();
            // SAFETY: has no precondition.
            if !starts || OWNER.load(Relaxed) != unsafe { libc::getpid() } {
                HEAP.kswapd().not_here(number);
                return;
            }
            (!start(number)).then_some(number)
        }
        Attend::Tick(number) => {
            // No block for it: a thread of C that only frees may have ended for who would take it back.
            // SAFETY: the block is the calling thread's.
            lifecycle::with_own(|thread| unsafe { HEAP.tick(thread) });
            pressure::tell();
            Some(number)
        }
    };
    if let Some(number) = number {
        lifecycle::with_own(|thread| HEAP.without_kswapd(thread, number));
    }
}

/// Starts the thread. False if the system refuses.
fn start(number: u32) -> bool {
    // A program may have more thread-local storage, which the C library takes from the stack; a sandbox may refuse what
    // sets a policy. The thread begins with the signals blocked that are blocked here.
    // Where the program is interpreted there are no signals to block.
    !cfg!(miri) && signals::blocked(|| create(number, true) || create(number, false)).unwrap_or(false)
}

/// `modest`: with a small stack, and not with the policy of the thread that happens to free.
fn create(number: u32, modest: bool) -> bool {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: there is room for them.
    if unsafe { libc::pthread_attr_init(attributes) } != 0 {
        return false;
    }
    // SAFETY: initialised. Nobody waits for its end.
    unsafe { libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED) };
    // SAFETY: initialised.
    let small = || unsafe { libc::pthread_attr_setstacksize(attributes, STACK) } == 0;
    // SAFETY: initialised.
    let usual = || unsafe { libc::pthread_attr_setinheritsched(attributes, libc::PTHREAD_EXPLICIT_SCHED) } == 0;
    let fits = !modest || small() && usual();
    let mut thread = MaybeUninit::uninit();
    let number = number as usize as *mut libc::c_void;
    // SAFETY: the body takes any number.
    let started = fits && unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes, body, number) } == 0;
    // SAFETY: initialised, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes) };
    started
}

extern "C" fn body(number: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: has no precondition.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the calling thread exists, and the name is short enough.
    unsafe { libc::pthread_setname_np(this, c"kmalloc-kswapd".as_ptr()) };
    lifecycle::attach_service();
    let number = number as usize as u32;
    match lifecycle::block() {
        // SAFETY: the block is the calling thread's.
        thread @ Some(_) => unsafe { HEAP.run_kswapd(thread, number, &pressure::tell) },
        // It could not do all of the work, for want of memory for a block: those who free do it.
        None => lifecycle::with_own(|thread| HEAP.without_kswapd(thread, number)),
    }
    if lifecycle::with_own(|thread| HEAP.is_deserted(thread)) && is_last() {
        // The C library calls the program's handlers here, which somebody may want to stop.
        signals::unblock();
    }
    null_mut()
}

/// Whether every other thread has ended, those that never used the heap, too.
fn is_last() -> bool {
    let mut stat = [0; 512];
    let len = HEAP.os().read(c"/proc/self/stat", &mut stat);
    len.and_then(|len| stat.get(..len)).is_some_and(is_of_last)
}

/// Whether that is what `/proc/self/stat` says in the last thread of a process: the first one is a zombie, and there is one more.
/// (The name of the program, in brackets, may have anything in it; then field 3 is the state, and field 20 the number of threads.)
fn is_of_last(stat: &[u8]) -> bool {
    let name_ends = stat.iter().rposition(|byte| *byte == b')');
    let Some(fields) = name_ends.and_then(|at| stat.get(at + 2..)) else { return false };
    let mut fields = fields.split(|byte| *byte == b' ');
    fields.next() == Some(b"Z") && fields.nth(20 - 4) == Some(b"2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thread_is_told_by_what_the_system_says_of_the_process() {
        let stat = |name: &str, state: char, threads: u32| {
            format!("71 ({name}) {state} 1 71 71 0 -1 4194572 148 0 0 0 0 0 0 0 20 0 {threads} 0 8913 0 0 18446744073709551615")
        };
        for name in ["program", "a) Z 1 71 71 0 -1 4194572 148 0 0 0 0 0 0 0 20 0 2 (b", ""] {
            assert!(is_of_last(stat(name, 'Z', 2).as_bytes()));
            assert!(!is_of_last(stat(name, 'S', 2).as_bytes()), "the first thread lives");
            assert!(!is_of_last(stat(name, 'Z', 22).as_bytes()) && !is_of_last(stat(name, 'Z', 3).as_bytes()));
        }
        assert!(!is_of_last(b"") && !is_of_last(b")") && !is_of_last(b"71 (program) Z 1 71"));
        assert!(!is_last(), "this one is not");
    }
}
