//! lifecycle: from a thread's first slow call to its end.
//!
//! # Algorithm
//! The pointer in `tls` is the state. *Fresh*: the first slow call (in C, not the first few frees) attaches a block of the heap
//! and enters it under a pthread key. *Live*: the pointer is the block. The key's destructor runs after all destructors of Rust's
//! thread-locals; it flushes the block and gives it back. *Uncached*: calls after that, by destructors of other keys,
//! are served object by object. *Guest*: the thread is in the heap without a block; a signal handler that it meets there
//! and that allocates ends the process with a line, since it might wait for a lock of its own thread. (A thread with a
//! block says so there.) *Library*: the thread is inside crossbeam-epoch, whose own requests must not come back to it;
//! they go to memory set aside.
//!
//! The main thread mostly never ends in this sense: `exit` runs no key destructors, and nothing needs to be flushed. `pthread_exit`
//! does, and then the process ends when its last thread has, which kswapd must not be for long.
//!
//! # Invariants
//! - Li1: a block belongs to the thread whose pointer names it, and to nobody before and after.
//! - Li2: without a key, or a place under it, a thread stays uncached: a block that no destructor flushes would be
//!   lost.

use crate::tls::State;
use crate::{conf, fork, kswapd, tls, HEAP};
use allocator_core::gate::Barred;
use allocator_core::sheaf::Sheaves;
use allocator_core::sys::{die, quietly};
use allocator_core::thread::Thread;
use allocator_core::tunables::Tunables;
use core::ops::Range;
use core::ptr::{addr_of, null};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// The key, plus one; zero before there is one. Release and Acquire, so that who finds the key may use what the C
/// library wrote when another thread made it.
static KEY: AtomicU32 = AtomicU32::new(0);

/// As [`with`], for an allocation: the first one of the process takes the choices of whoever declared the allocator (C has none).
#[inline(always)]
pub(crate) fn with_conf<R>(tunables: Option<&Tunables>, call: impl FnOnce(Option<&'static Thread>) -> R) -> R {
    match block() {
        None => {
            if let Some(tunables) = tunables {
                conf::read_once(tunables);
            }
            with(call)
        }
        thread => call(thread),
    }
}

/// Calls into the heap with the calling thread's block, attached if need be, or without one.
#[inline(always)]
pub(crate) fn with<R>(call: impl FnOnce(Option<&'static Thread>) -> R) -> R {
    on(current(), call)
}

/// As [`with`], with this block or none.
#[inline(always)]
fn on<R>(block: Option<&'static Thread>, call: impl FnOnce(Option<&'static Thread>) -> R) -> R {
    match block {
        None => as_guest(|| call(None)),
        thread => call(thread),
    }
}

/// As [`with`], for a free of C: a new thread gets no block for the first few.
#[cfg(feature = "override")]
pub(crate) fn with_for_free<R>(call: impl FnOnce(Option<&'static Thread>) -> R) -> R {
    match tls::frees() {
        Some(frees) if tls::set_frees(frees + 1) => as_guest(|| call(None)),
        _ => with(call),
    }
}

/// As [`with`], and no block is attached.
pub(crate) fn with_own<R>(call: impl FnOnce(Option<&'static Thread>) -> R) -> R {
    on(block(), call)
}

/// A call into the heap in which the thread's block is not used.
fn as_guest<R>(call: impl FnOnce() -> R) -> R {
    let was = become_guest();
    let result = call();
    tls::set(was);
    result
}

/// From now on the thread is in the heap. Returns what its pointer was.
fn become_guest() -> *const Sheaves {
    if interrupts() {
        interrupted();
    }
    let was = tls::get();
    tls::set(State::Guest.sheaves());
    was
}

/// The calling thread's block, attached if need be. `None`: serve it uncached. Before the first allocation nobody gets a
/// block, so that whoever has one need not ask whether there were choices.
fn current() -> Option<&'static Thread> {
    match block() {
        None if tls::frees().is_some() && conf::is_read() => attach(|| HEAP.attach()),
        block => block,
    }
}

/// The calling thread's block, if it has one and is not inside crossbeam-epoch.
pub(crate) fn block() -> Option<&'static Thread> {
    let sheaves = tls::get();
    // SAFETY: the pointer is a block, which begins with its sheaves and stays mapped for ever.
    tls::is_block(sheaves).then(|| unsafe { &*sheaves.cast::<Thread>() })
}

/// The calling thread is one of the heap's own from now on.
pub(crate) fn attach_service() {
    if attach(|| HEAP.attach_service()).is_none() {
        tls::set(State::Uncached.sheaves());
    }
}

#[cold]
fn attach(block: impl FnOnce() -> Option<&'static Thread>) -> Option<&'static Thread> {
    fork::register();
    let key = key()?;
    // What was called so far may have allocated, where the C library's heap is ours.
    if let Some(block) = self::block() {
        return Some(block);
    }
    #[cfg(feature = "override")]
    crate::c::keep();
    // From a guest to the owner of a block, and nothing in between: if a signal handler forked there, the block would be two threads'.
    let was = become_guest();
    let block = block();
    // Before the next call: it may allocate, where the C library's heap is ours.
    tls::set(block.map_or(was, |thread| addr_of!(*thread).cast()));
    let thread = block?;
    // SAFETY: the key exists; the block outlives the thread.
    if unsafe { libc::pthread_setspecific(key, addr_of!(*thread).cast()) } != 0 {
        // SAFETY: this thread's block.
        unsafe { give_back(thread) };
        return None;
    }
    Some(thread)
}

/// The thread has no block from now on.
///
/// # Safety
/// It is the calling thread's block.
unsafe fn give_back(thread: &Thread) {
    tls::set(State::Guest.sheaves());
    // SAFETY: by contract, and the pointer names it no more.
    unsafe { HEAP.detach(thread) };
    tls::set(State::Uncached.sheaves());
}

fn key() -> Option<libc::pthread_key_t> {
    match KEY.load(Acquire) {
        0 => {
            let mut key = 0;
            // SAFETY: `key` is where the answer goes.
            if unsafe { libc::pthread_key_create(&mut key, Some(on_exit)) } != 0 {
                return None;
            }
            match KEY.compare_exchange(0, key + 1, AcqRel, Acquire) {
                Ok(_) => Some(key),
                Err(theirs) => {
                    // SAFETY: made above, and nobody used it.
                    unsafe { libc::pthread_key_delete(key) };
                    Some(theirs - 1)
                }
            }
        }
        key => Some(key - 1),
    }
}

/// The thread ends.
unsafe extern "C" fn on_exit(block: *mut libc::c_void) {
    // SAFETY: the value under the key is the thread's block (Li1), which stays mapped for ever.
    let thread = unsafe { &*block.cast::<Thread>() };
    // SAFETY: as above.
    unsafe { give_back(thread) };
    // If it was the last one, ours must not keep the process alive: should it sleep, it wakes up, and notices.
    kswapd::attend_without_start();
}

/// True if the block of the calling thread was taken back: it starts no other thread any more. (Where there is no key, threads have no
/// blocks from the beginning.)
pub(crate) fn has_ended() -> bool {
    State::Uncached.is_current() && KEY.load(Relaxed) != 0
}

/// True if the calling thread is inside crossbeam-epoch.
pub(crate) fn in_library() -> bool {
    State::Library.is_current()
}

/// True if the calling thread is in the heap without a block, or in crossbeam-epoch: unless that has called, this is a signal handler.
pub(crate) fn interrupts() -> bool {
    State::Guest.is_current() || State::Library.is_current()
}

/// The end of the process: its signal handler has called what it had interrupted.
#[cold]
pub(crate) fn interrupted() -> ! {
    die(format_args!("{}", Barred::Interrupted.what()))
}

/// A call for crossbeam-epoch's memory, while the thread is inside it.
pub(crate) fn for_library<R>(call: impl FnOnce() -> R) -> R {
    tls::set(State::Guest.sheaves());
    let result = call();
    tls::set(State::Library.sheaves());
    result
}

/// Bytes of stack that a call into crossbeam-epoch may need: it moves bags of 2 KiB by value, and code that is not
/// optimised moves them more than once (42 KiB were measured, 6 where it is).
const LIBRARY_STACK: usize = if cfg!(debug_assertions) { 64 << 10 } else { 24 << 10 };

/// From now on requests of this thread are crossbeam-epoch's own. `None`: there is no memory to set aside, or not
/// enough stack; or they would come from C, since the program has another global allocator.
pub(crate) fn enter_library() -> Option<usize> {
    let was = tls::get();
    let here = addr_of!(was) as usize;
    let fits = match block() {
        Some(thread) => has_stack(thread, here),
        None => find_stack(here).is_some_and(|(floor, end)| fits_in(floor..end, here)),
    };
    if !fits || !conf::is_read() || !HEAP.enter_library() {
        return None;
    }
    tls::set(State::Library.sheaves());
    Some(was as usize)
}

/// True if there is enough of the thread's own stack below `here`, which is on it. Where it lies is asked once per
/// thread.
fn has_stack(thread: &Thread, here: usize) -> bool {
    let [floor, end] = thread.stack();
    let fits = || fits_in(floor.load(Relaxed)..end.load(Relaxed), here);
    // Under C, no more of it is known than was asked for so far.
    if end.load(Relaxed) == 0 || cfg!(feature = "override") && !fits() {
        let (from, to) = find_stack(here).unwrap_or((1, 1));
        floor.store(from, Relaxed);
        end.store(to, Relaxed);
    }
    fits()
}

/// Neither on a signal stack nor on that of a coroutine, whose ends are not known.
fn fits_in(stack: Range<usize>, here: usize) -> bool {
    stack.contains(&here.saturating_sub(LIBRARY_STACK)) && stack.contains(&here)
}

/// More than any stack of the main thread is taken to have. The kernel maps nothing else that near below it.
const MAIN_STACK: usize = 64 << 20;

/// With `errno` as it was: neither the vector nor `/proc` need have what the C library looks for.
#[cold]
fn find_stack(here: usize) -> Option<(usize, usize)> {
    quietly(|| known_stack(here))
}

fn known_stack(here: usize) -> Option<(usize, usize)> {
    // The kernel puts the program's name at the upper end of the main thread's stack, above its arguments. (The number of the
    // process is no sign of the main thread: in a child of a fork it is the number of whichever thread forked.)
    // SAFETY: has no precondition.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize;
    let end = HEAP.os().whole_pages(name);
    if end.checked_sub(here).is_some_and(|depth| depth < MAIN_STACK) {
        return Some((end.saturating_sub(main_stack()), end));
    }
    threads_stack(here)
}

/// How long the main thread's stack may become. By its number: a program may have put something before the C library's function.
fn main_stack() -> usize {
    let (this, none) = (0, null::<libc::rlimit64>());
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the answer goes where there is room for it.
    let asked = unsafe { libc::syscall(libc::SYS_prlimit64, this, libc::RLIMIT_STACK, none, &mut limit) };
    if asked == 0 {
        usize::try_from(limit.rlim_cur).unwrap_or(MAIN_STACK).min(MAIN_STACK)
    } else {
        0
    }
}

/// Who is deeper in its stack has none, as far as is known.
#[cfg(feature = "override")]
const LOOKED_AT: usize = 1 << 20;

/// The C library has a lock for its answer, and may allocate while somebody has it. So it is not asked: it puts what
/// `pthread_self` names at the upper end of a stack, and whether there is enough below, the kernel says.
#[cfg(feature = "override")]
fn threads_stack(here: usize) -> Option<(usize, usize)> {
    // SAFETY: has no precondition.
    let end = unsafe { libc::pthread_self() } as usize;
    let floor = here.checked_sub(LIBRARY_STACK)?;
    let near = end.checked_sub(here).is_some_and(|depth| depth < LOOKED_AT);
    // A stack that is not the thread's own has that one's guard page before it, or was allocated here.
    if !near || HEAP.owns(here) {
        return None;
    }
    let page = HEAP.os().page_size();
    let mut at = floor & !(page - 1);
    while at < end && is_readable(at) {
        at += page;
    }
    (at >= end).then_some((floor, end))
}

/// The kernel reads a set of signals before it finds that what is to be done with it makes no sense.
#[cfg(feature = "override")]
fn is_readable(address: usize) -> bool {
    let nonsense: libc::c_int = -1;
    // SAFETY: the address is the kernel's to look at, and nothing is changed.
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, nonsense, address, 0usize, 8usize) };
    // SAFETY: has no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own variable.
    answer != -1 || unsafe { *errno != libc::EFAULT }
}

#[cfg(not(feature = "override"))]
fn threads_stack(_: usize) -> Option<(usize, usize)> {
    use core::{mem::MaybeUninit, ptr::null_mut};
    // SAFETY: has no precondition.
    let this = unsafe { libc::pthread_self() };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the calling thread exists; the answer goes where there is room for it.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut floor, mut size) = (null_mut(), 0);
    // SAFETY: initialised by the call above.
    let found = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut floor, &mut size) };
    // SAFETY: as above, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (found == 0).then_some((floor as usize, floor as usize + size))
}

/// The opposite of [`enter_library`].
///
/// # Safety
/// It gave this to the calling thread, and nobody has said the opposite yet.
pub(crate) unsafe fn leave_library(was: usize) {
    tls::set(was as *const Sheaves);
    // SAFETY: by contract.
    unsafe { HEAP.leave_library() };
}
