//! Kmalloc: Linux's memory management as a Rust global allocator.
//!
//! ```
//! use allocator_global::Kmalloc;
//!
//! #[global_allocator]
//! static GLOBAL: Kmalloc = Kmalloc::new();
//!
//! let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
//! assert!(Kmalloc::owns(squares.as_ptr()));
//! ```
//!
//! The algorithms are in `allocator-core`; this crate has the one heap of the process, the pointer to the calling
//! thread's sheaves (`tls`), the life cycle of threads (`lifecycle`), and the only `unsafe impl GlobalAlloc`.
//!
//! A request goes to its thread's sheaf: size class by a table, pop or push in an array, no atomic operation, no lock
//! and no call. Everything else is out of line. A refusal is a null pointer. A misuse that can be decided (double
//! free, foreign or interior pointer, another layout) ends the process with one line that names the address. With the
//! feature `checked` it is decided at the call for objects too, which costs a look at their descriptors each time.

#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("Kmalloc is made for Linux with addresses of 64 bits");
#[cfg(all(feature = "override", not(target_env = "gnu")))]
compile_error!("the feature `override` replaces the heap of glibc alone");

/// The examples of README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(feature = "override")]
mod c;
mod conf;
mod fork;
mod kswapd;
mod lifecycle;
mod pressure;
mod signals;
mod tls;

/// For `libkmalloc.so`.
#[cfg(feature = "override")]
#[doc(hidden)]
pub use c::is_ours;

pub use allocator_core::error::ConfigError;
pub use allocator_core::heap::Stats;
pub use allocator_core::huge::HugePages;
pub use allocator_core::page_counter::Limits;
pub use allocator_core::tunables::{Key, KEYS};
pub use pressure::{OnPressure, Pressure, Shrink, Shrinker};

use allocator_core::error::AllocError;
use allocator_core::heap::{Heap, Parts};
use allocator_core::reclaim::{Epoch, Hooks};
use allocator_core::size_class::SizeClass;
use allocator_core::slabinfo::{BuddyInfo, SlabInfo, VmStat, ZoneInfo};
use allocator_core::sys::{as_mapped, Unix};
use allocator_core::tunables::{Tunables, NEVER};
use conf::Setting;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt::{self, Display};
use core::ptr::{null_mut, NonNull};
use core::time::Duration;

/// How crossbeam-epoch is called from inside the allocator that it allocates with.
static EPOCH: Epoch = Epoch::new(Hooks { enter: lifecycle::enter_library, leave: lifecycle::leave_library });

static PARTS: Parts = Parts::new();

/// The heap of this process.
// SAFETY: no other heap has its parts.
static HEAP: Heap = unsafe { Heap::new(&Unix, Some(&EPOCH), &PARTS) };

/// Bytes in a page of the heap, whatever the system's pages are: what [`Stats`] and the reports count in.
pub const PAGE_SIZE: usize = allocator_core::config::PAGE_SIZE;

/// The allocator. All values name the one heap of the process; the first one that allocates, which is the one that is declared as
/// `#[global_allocator]`, also says how it is to be, in so far as `KMALLOC_CONF` does not say otherwise. What makes no sense is told
/// on standard error, once, and left out: so a limit of which the marks are not in order, or below what is in use by then, is none.
/// Until that first allocation nothing of it is in force; what a call sets before takes the place of what was declared, and of what
/// `KMALLOC_CONF` says of the same.
///
/// ```
/// use allocator_global::{HugePages, Kmalloc};
/// use std::time::Duration;
///
/// #[global_allocator]
/// static GLOBAL: Kmalloc =
///     Kmalloc::new().limit(1 << 30).purge_after(Some(Duration::from_millis(200))).huge_pages(HugePages::Never);
///
/// let mut bytes = Vec::<u8>::new();
/// assert!(bytes.try_reserve(2 << 30).is_err());
/// assert_eq!(Kmalloc::current_limits().max, 1 << 30);
/// ```
///
/// Thread-safe; serves every `Layout`, refusing with null what the system refuses. A pair of `alloc` and `dealloc` from
/// the thread's sheaf costs 30 instructions up to 1 KiB and 39 up to 32 KiB; above, it costs five to seven atomic
/// operations and about a thousand instructions, or, up to 256 KiB and if the thread keeps one of that length, two and
/// some 360; above 32 MiB, system calls.
#[derive(Debug, Default, Clone, Copy)]
#[must_use = "it says how the heap is to be where the allocator is declared"]
pub struct Kmalloc(Tunables);

impl Kmalloc {
    /// A handle on the heap of this process. Costs nothing.
    pub const fn new() -> Self {
        Kmalloc(Tunables::new())
    }

    /// No more than so many bytes are to be resident, but for what the heap needs itself, with the marks that [`Limits::of`] makes;
    /// zero: any number. See [`Kmalloc::set_limits`].
    pub const fn limit(mut self, bytes: usize) -> Self {
        (self.0.limit, self.0.soft_limit, self.0.reserve) = (Some(bytes), None, None);
        self
    }

    /// As [`Kmalloc::limit`], with marks of its own.
    pub const fn limits(mut self, limits: Limits) -> Self {
        (self.0.limit, self.0.soft_limit, self.0.reserve) = (Some(limits.max), Some(limits.high), Some(limits.min));
        self
    }

    /// How much free memory stays resident: see [`Kmalloc::set_watermarks`].
    pub const fn watermarks(mut self, low: usize, high: usize) -> Self {
        (self.0.low, self.0.high) = (Some(low), Some(high));
        self
    }

    /// How long free memory stays resident: see [`Kmalloc::set_purge_after`].
    pub const fn purge_after(mut self, time: Option<Duration>) -> Self {
        self.0.purge_after = Some(millis(time));
        self
    }

    /// What is backed by huge pages: see [`Kmalloc::set_huge_pages`].
    pub const fn huge_pages(mut self, policy: HugePages) -> Self {
        self.0.huge_pages = Some(policy);
        self
    }

    /// Whether a page without access lies behind every block of more than 32 MiB: see [`Kmalloc::set_guard_pages`].
    pub const fn guard_pages(mut self, guards: bool) -> Self {
        self.0.guard_pages = Some(guards);
        self
    }

    /// Whether long blocks of zeros are cleared only where they were written: see [`Kmalloc::set_sparse_zeros`].
    pub const fn sparse_zeros(mut self, asks: bool) -> Self {
        self.0.sparse_zeros = Some(asks);
        self
    }

    /// Whether the control group is looked at: see [`Kmalloc::set_cgroup`].
    pub const fn cgroup(mut self, looks: bool) -> Self {
        self.0.cgroup = Some(looks);
        self
    }

    /// Whether a thread gives free memory back: see [`Kmalloc::set_background_thread`].
    pub const fn background_thread(mut self, thread: bool) -> Self {
        self.0.background_thread = Some(thread);
        self
    }

    /// From now on, no more than `limits.max` bytes are resident of what the program has or had from this heap. Beyond
    /// `limits.high`, free memory goes back at once and, if that is not enough, the program's callbacks are called
    /// ([`Kmalloc::on_pressure`], [`Kmalloc::register_shrinker`]); beyond `limits.max`, requests are refused, those of more than 32 KiB from `limits.min`
    /// bytes below it on. Zero: no such limit, but for a `high` of zero beside a limit, which is that limit; [`Limits::of`] makes the usual ones.
    ///
    /// What the heap needs itself is not counted: half a percent of what is resident, two where objects are of 32 bytes at most, twice
    /// that with the feature `checked`, and up to 96 KiB for each thread.
    ///
    /// # Errors
    /// Nothing changes if more is in use, or if the marks are not in order or the reserve is more than half of `limits.max`. Costs a
    /// walk over all arenas, and if what is free and resident is too much, another one for each 64 MiB that goes back, each with a wait
    /// for a piece of a tick; in between others may fork. May start or wake the thread, and where more stays than `limits.high`,
    /// callbacks are called at once, unless one of them sets the limits.
    pub fn set_limits(limits: Limits) -> Result<(), ConfigError> {
        // SAFETY: the block is the calling thread's.
        lifecycle::with(|thread| unsafe { HEAP.set_limits(thread, limits) })?;
        conf::set(Setting::Limits);
        kswapd::attend();
        pressure::tell_if_alarmed();
        Ok(())
    }

    /// The limits. Costs three loads.
    pub fn current_limits() -> Limits {
        HEAP.counter().limits()
    }

    /// Calls this function when memory is short; `None`: calls nothing any more. It may run on any thread that allocates, in the
    /// middle of that or of [`Kmalloc::set_limits`], on several at once, and on kswapd's, which has 256 KiB of stack and handles no
    /// signals; where there is no such thread, refused or not wanted, on one that frees as well, or that calls [`Kmalloc::set_watermarks`],
    /// [`Kmalloc::set_purge_after`] or [`Kmalloc::set_background_thread`]. It must not wait for a lock that somebody may hold while
    /// doing any of that (`try_lock` is for that), and a panic ends the process. It may allocate and free; no thread is sent
    /// into it from within it. Costs a store.
    pub fn on_pressure(callback: Option<OnPressure>) {
        pressure::on_pressure(callback);
    }

    /// Calls this function when memory is short, until those that are registered have freed what is missing: it is told how
    /// many bytes are wanted (zero: nobody knows), and says how many it has freed. As for [`Kmalloc::on_pressure`]. `None`: there are
    /// sixteen already. The same function may be there more than once; it has no context, so what it frees must be reachable from a
    /// `static`. Costs a look at sixteen places.
    #[must_use = "nothing else can unregister it, and it may be refused"]
    pub fn register_shrinker(shrink: Shrink) -> Option<Shrinker> {
        pressure::register(shrink)
    }

    /// From now on, `low` bytes of free memory stay resident, and the others go back when there are more than `high`. `None`: as
    /// much as the use of the heap says; if one of them is said, the other one is twice `low`, or half of `high` at most. Neither is
    /// more than half of what is left below a limit, or the control group's, and nothing stays while memory is short.
    ///
    /// # Errors
    /// Nothing changes if `low` is above `high`. Costs two stores, and may start or wake the thread, or do its work where there is none.
    pub fn set_watermarks(low: Option<usize>, high: Option<usize>) -> Result<(), ConfigError> {
        HEAP.set_watermarks(low, high)?;
        conf::set(Setting::Watermarks);
        kswapd::attend();
        Ok(())
    }

    /// From now on, new memory is backed like that. Costs a store.
    pub fn set_huge_pages(policy: HugePages) {
        conf::set(Setting::HugePages);
        HEAP.set_huge_pages(policy);
    }

    /// From now on, a page without access lies behind every new block of more than 32 MiB, so that running over its end (in whole
    /// pages) ends the process. Where the system refuses the page the block has none. Costs a store; later, three system calls for each such
    /// block and each change of its size, or four where the system knows no guards.
    pub fn set_guard_pages(guards: bool) {
        conf::set(Setting::GuardPages);
        HEAP.set_guard_pages(guards);
    }

    /// From now on, a block of 64 KiB and more that is to read as zeros, in memory that was used before, is cleared only where
    /// the system says that something was written (by `ioctl` of `/proc/thread-self/pagemap`, which is opened for the call), or as a
    /// whole. For a process whose sandbox ends it for opening a file. Costs a store.
    pub fn set_sparse_zeros(asks: bool) {
        conf::set(Setting::SparseZeros);
        HEAP.set_sparse_zeros(asks);
    }

    /// From now on, kswapd looks whether the control group is short of memory, or does not: then free memory goes back at once,
    /// and callbacks are called. Costs a store.
    pub fn set_cgroup(looks: bool) {
        conf::set(Setting::Cgroup);
        HEAP.set_cgroup(looks);
    }

    /// From now on, a thread of the heap's own gives free memory back, from 32 MiB on (see [`Kmalloc::set_purge_after`]), or none does: then those who free do it, once in a while, and
    /// a process that goes idle keeps what it has. The thread that there is ends soon, after a tick that it may be in the middle of:
    /// who must not have one at all (`unshare`, a sandbox without `clone`) says so in the builder. A thread that the system has refused once
    /// is not asked for again until this is called, or [`Kmalloc::set_purge_after`], or the process forks. Costs a lock, a walk over the
    /// arenas, and a system call, and may start the thread.
    pub fn set_background_thread(thread: bool) {
        conf::set(Setting::BackgroundThread);
        kswapd::allow(thread);
        kswapd::attend();
    }

    /// Starts that thread now, if there may be one and free memory does not stay for ever, whatever the heap has or will have: for whoever has a moment when a thread can be started, and
    /// does not free as Rust does. With the feature `override` a child of a fork has none, and those who free do its work. Costs
    /// starting a thread.
    pub fn start_background_thread() {
        kswapd::start_now();
    }

    /// Flushes the calling thread's sheaves, gives empty slabs back to the buddy, and resident free pages and empty
    /// arenas back to the system. Returns the bytes given back. What other threads hold in their sheaves stays there.
    /// Costs a walk over all arenas and a system call for each run of free pages, in pieces between which others may fork. What others free
    /// meanwhile may stay.
    pub fn reclaim() -> usize {
        // SAFETY: the block is the calling thread's.
        lifecycle::with(|thread| unsafe { HEAP.reclaim(thread) })
    }

    /// How long free memory stays resident before it goes back to the system by itself; half of that at least. `None`: for
    /// ever, and the thread for it ends soon. In whole milliseconds, one at least. One second unless somebody says something else. A process that never had 32 MiB made
    /// writable (by 16 at a time), or a quarter of its soft limit, has no thread either, and keeps them, unless it never has one
    /// ([`Kmalloc::set_background_thread`]). Costs a lock, a wait for a piece of a tick, and a walk over the arenas, and may start the thread.
    pub fn set_purge_after(time: Option<Duration>) {
        conf::set(Setting::PurgeAfter);
        let millis = Some(millis(time)).filter(|millis| *millis != NEVER);
        lifecycle::with(|thread| HEAP.set_purge_after(thread, millis));
        kswapd::begin();
        kswapd::attend();
    }

    /// True for a pointer into this heap's memory, free or not: the way to see that a binary really uses it. Two or three loads.
    /// A pointer into the middle of a block is known if an arena has it: of one above 32 MiB, of one that outgrew an arena, and of
    /// one that is aligned to more than 2 MiB only the start is.
    pub fn owns<T: ?Sized>(ptr: *const T) -> bool {
        HEAP.owns(ptr.cast::<u8>() as usize)
    }

    /// Bytes that count towards a limit ([`Kmalloc::set_limits`]), at this moment: pages that may be resident, and long blocks. Costs
    /// a load, and may be called from anywhere.
    pub fn usage() -> usize {
        HEAP.counter().usage()
    }

    /// Figures of the heap, exact while no other thread is in the allocator. Costs a walk over the memmap; waits for a tick of kswapd,
    /// and holds off forks meanwhile. In a signal handler that has interrupted the allocator it ends the process, as the reports do.
    pub fn stats() -> Stats {
        lifecycle::with(|thread| HEAP.stats(thread))
    }

    /// As [`Kmalloc::stats`], and waits as long. `None`: the calling thread is in the heap already (this is a signal handler), or nobody
    /// may enter it any more.
    pub fn try_stats() -> Option<Stats> {
        if lifecycle::interrupts() {
            return None;
        }
        lifecycle::with_own(|thread| HEAP.try_stats(thread))
    }

    /// The caches in the text format of `/proc/slabinfo`, version 2.1; pages are of [`PAGE_SIZE`]. Writing it allocates nothing, and
    /// costs what [`Kmalloc::stats`] costs, as the other reports do.
    pub fn slabinfo() -> impl Display {
        Report(|f| SlabInfo(&HEAP, lifecycle::block()).fmt(f))
    }

    /// The free blocks in the text format of `/proc/buddyinfo`, by orders of [`PAGE_SIZE`], and a line of how many chunks are backed by
    /// huge pages. Writing it allocates nothing.
    pub fn buddyinfo() -> impl Display {
        Report(|f| BuddyInfo(&HEAP, lifecycle::block()).fmt(f))
    }

    /// The zone in the text format of `/proc/zoneinfo`, in pages of [`PAGE_SIZE`], with the watermarks of what may stay resident.
    /// Writing it allocates nothing.
    pub fn zoneinfo() -> impl Display {
        Report(|f| ZoneInfo(&HEAP, lifecycle::block()).fmt(f))
    }

    /// Counters in the text format of `/proc/vmstat`: what pages (of [`PAGE_SIZE`]) are used for, what went back to the system, and why.
    /// Writing it allocates nothing.
    pub fn vmstat() -> impl Display {
        Report(|f| VmStat(&HEAP, lifecycle::block()).fmt(f))
    }

    /// Checks every invariant of every layer. Call it while no other thread allocates or frees. Costs a walk over all that there is.
    ///
    /// # Errors
    /// The first invariant that does not hold, by its name in the source.
    pub fn validate() -> Result<(), &'static str> {
        lifecycle::with(|thread| HEAP.validate(thread))
    }

    /// Proves that nothing is handed out and nothing lost: every object, run and area back, every buddy whole. Call
    /// [`Kmalloc::reclaim`] first, as the only thread that still has a thread block. Costs as much as [`Kmalloc::validate`].
    ///
    /// # Errors
    /// What is left, or the first invariant that does not hold.
    pub fn audit() -> Result<(), &'static str> {
        lifecycle::with(|thread| HEAP.audit(thread))
    }
}

/// So many milliseconds, as a setting has them.
const fn millis(time: Option<Duration>) -> u32 {
    match time {
        None => NEVER,
        Some(time) if time.as_millis() >= NEVER as u128 => NEVER - 1,
        Some(time) => time.as_millis() as u32,
    }
}

/// A report that is made when it is written: the block is looked up then, which may be on another thread.
struct Report(fn(&mut fmt::Formatter<'_>) -> fmt::Result);

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lifecycle::with(|_| ()); // without a block, the heap would not know whom a signal handler interrupts
        (self.0)(f)
    }
}

/// What a slow call returns; the program is told, if memory is short.
#[inline(always)]
fn served(ptr: NonNull<u8>) -> *mut u8 {
    pressure::tell_if_alarmed();
    ptr.as_ptr()
}

/// How often the program is asked for memory before a request is refused, as long as it gives some.
const RECLAIM_TRIES: u32 = 16;

/// Memory by `attempt`, which was refused before, or null: the program is asked for some.
fn at_last(size: usize, why: AllocError, attempt: impl Fn() -> Result<NonNull<u8>, AllocError>) -> *mut u8 {
    let rounds = if why == AllocError::OutOfMemory { RECLAIM_TRIES } else { 0 };
    for round in 0..rounds {
        if !pressure::relieve(size, round) {
            break;
        }
        if let Ok(ptr) = attempt() {
            return ptr.as_ptr();
        }
    }
    null_mut()
}

// SAFETY: memory comes from a heap that hands out each byte once until it is freed, aligned as the layout says; nothing
// unwinds; a refusal is null. That layouts match is the caller's part of the contract.
unsafe impl GlobalAlloc for Kmalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: the sheaves are the calling thread's.
            if let Some(object) = unsafe { tls::sheaves().of(class).pop() } {
                // SAFETY: just popped.
                unsafe { HEAP.hand_out(object, class, layout.size()) };
                return object.as_ptr();
            }
        }
        // SAFETY: of a layout.
        unsafe { alloc_slow(layout.size(), layout.align(), Some(&self.0)) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by contract it was allocated here, so it is not null.
        let ptr = unsafe { NonNull::new_unchecked(as_mapped(ptr)) };
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: the sheaves are the calling thread's; the object is of this class by contract.
            if unsafe { tls::sheaves().of(class).push(ptr) } {
                // SAFETY: by contract.
                unsafe { HEAP.take_back(ptr, class) };
                return;
            }
        }
        // SAFETY: by contract.
        unsafe { dealloc_slow(ptr, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: the sheaves are the calling thread's.
            if let Some(object) = unsafe { tls::sheaves().of(class).pop() } {
                // SAFETY: just popped.
                unsafe { HEAP.hand_out(object, class, layout.size()) };
                // SAFETY: an object of a class that holds this many bytes.
                unsafe { object.as_ptr().write_bytes(0, layout.size()) };
                return object.as_ptr();
            }
        }
        // SAFETY: of a layout.
        unsafe { zeroed_slow(layout.size(), layout.align(), Some(&self.0)) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by contract the new layout is valid.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: by contract it was allocated here, so it is not null.
        let ptr = unsafe { NonNull::new_unchecked(as_mapped(ptr)) };
        if let Some(class) = SizeClass::of(layout).filter(|class| SizeClass::of(new) == Some(*class)) {
            // SAFETY: by contract.
            unsafe { HEAP.check(ptr, class, new_size) };
            return ptr.as_ptr();
        }
        // SAFETY: by contract.
        unsafe { realloc_slow::<true>(ptr, layout.size(), layout.align(), new_size) }
    }
}

// The slow paths take the words of a layout one by one, as rustc's shim has them, and not a `Layout`, which is passed the
// other way round. So they are reached by a jump and cost the fast path nothing: no register is saved for them.

/// # Safety
/// `size` and `align` are those of a layout.
#[cold]
#[inline(never)]
unsafe fn alloc_slow(size: usize, align: usize, tunables: Option<&Tunables>) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    if lifecycle::in_library() {
        if tunables.is_none() {
            lifecycle::interrupted(); // a call of C, which the library does not make
        }
        return lifecycle::for_library(|| HEAP.alloc_for_library(layout)).map_or(null_mut(), NonNull::as_ptr);
    }
    // SAFETY: the block is the calling thread's.
    match lifecycle::with_conf(tunables, |thread| unsafe { HEAP.alloc(thread, layout) }) {
        Ok(ptr) => served(ptr),
        Err(why) => alloc_at_last(layout, why),
    }
}

/// # Safety
/// As for `alloc_slow`.
#[cold]
#[inline(never)]
unsafe fn zeroed_slow(size: usize, align: usize, tunables: Option<&Tunables>) -> *mut u8 {
    if lifecycle::in_library() {
        // SAFETY: by contract.
        let ptr = unsafe { alloc_slow(size, align, tunables) };
        if !ptr.is_null() {
            // SAFETY: just allocated, `size` bytes.
            unsafe { ptr.write_bytes(0, size) };
        }
        return ptr;
    }
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: the block is the calling thread's.
    match lifecycle::with_conf(tunables, |thread| unsafe { HEAP.alloc_zeroed(thread, layout) }) {
        Ok(ptr) => served(ptr),
        Err(why) => alloc_zeroed_at_last(layout, why),
    }
}

/// # Safety
/// As for `GlobalAlloc::dealloc`.
#[cold]
#[inline(never)]
unsafe fn dealloc_slow(ptr: NonNull<u8>, size: usize, align: usize) {
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    if lifecycle::in_library() {
        if HEAP.owns(ptr.as_ptr() as usize) {
            lifecycle::interrupted(); // no memory of the library's
        }
        // SAFETY: the library frees what it allocated, and does both between `enter_library` and `leave_library`.
        lifecycle::for_library(|| unsafe { HEAP.free_for_library(ptr) });
    } else {
        kswapd::attend();
        // SAFETY: the block is the calling thread's; the rest by contract.
        lifecycle::with(|thread| unsafe { HEAP.free(thread, ptr, layout) });
    }
}

/// From class to class, as a vector does that grows, by way of the sheaves alone. `None`: it does not go that way.
///
/// # Safety
/// As for `GlobalAlloc::realloc`.
#[inline]
unsafe fn realloc_by_sheaves(ptr: NonNull<u8>, layout: Layout, new: Layout) -> Option<NonNull<u8>> {
    let (from, to) = (SizeClass::of(layout)?, SizeClass::of(new)?);
    // SAFETY: null, where C calls before thread-local storage is set up, or sheaves that stay mapped.
    let sheaves = unsafe { tls::get().as_ref() }?;
    // SAFETY: the sheaves are the calling thread's.
    let object = unsafe { sheaves.of(to).pop() }?;
    // SAFETY: by contract.
    unsafe { HEAP.check_object(ptr, from) };
    // SAFETY: just popped.
    unsafe { HEAP.hand_out(object, to, new.size()) };
    // SAFETY: both are at least so long; one is the program's, the other was free.
    unsafe { object.as_ptr().copy_from_nonoverlapping(ptr.as_ptr(), layout.size().min(new.size())) };
    // SAFETY: as above; the program gives it up.
    if unsafe { sheaves.of(from).push(ptr) } {
        // SAFETY: by contract.
        unsafe { HEAP.take_back(ptr, from) };
    } else {
        // Not by `dealloc`: C may have called, and nothing may be started then.
        // SAFETY: the block is the calling thread's; the rest by contract.
        lifecycle::with(|thread| unsafe { HEAP.free(thread, ptr, layout) });
    }
    Some(object)
}

/// `STARTS`: the thread of the heap may be started.
///
/// # Safety
/// As for `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
unsafe fn realloc_slow<const STARTS: bool>(ptr: NonNull<u8>, size: usize, align: usize, new_size: usize) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: by contract.
    let new = unsafe { Layout::from_size_align_unchecked(new_size, align) };
    // SAFETY: by contract.
    if let Some(object) = unsafe { realloc_by_sheaves(ptr, layout, new) } {
        return object.as_ptr();
    }
    if lifecycle::in_library() {
        lifecycle::interrupted(); // crossbeam-epoch never does
    }
    // SAFETY: the block is the calling thread's; the rest by contract.
    match lifecycle::with(|thread| unsafe { HEAP.realloc(thread, ptr, layout, new_size) }) {
        Ok(ptr) => {
            // Whoever shrinks gives memory back, and so does whoever moves.
            kswapd::attend_and(STARTS);
            served(ptr)
        }
        // SAFETY: by contract; the block is as it was.
        Err(why) => unsafe { realloc_at_last(ptr, layout, new_size, why) },
    }
}

#[cold]
#[inline(never)]
fn alloc_at_last(layout: Layout, why: AllocError) -> *mut u8 {
    // SAFETY: the block is the calling thread's.
    at_last(layout.size(), why, || lifecycle::with(|thread| unsafe { HEAP.alloc(thread, layout) }))
}

#[cold]
#[inline(never)]
fn alloc_zeroed_at_last(layout: Layout, why: AllocError) -> *mut u8 {
    // SAFETY: the block is the calling thread's.
    at_last(layout.size(), why, || lifecycle::with(|thread| unsafe { HEAP.alloc_zeroed(thread, layout) }))
}

/// # Safety
/// As for `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
unsafe fn realloc_at_last(ptr: NonNull<u8>, layout: Layout, new_size: usize, why: AllocError) -> *mut u8 {
    // SAFETY: the block is the calling thread's; the rest by contract.
    let attempt = || lifecycle::with(|thread| unsafe { HEAP.realloc(thread, ptr, layout, new_size) });
    // Where it lies it may take less than a copy, and what is free has gone back to the system.
    let again = if why == AllocError::OutOfMemory { attempt() } else { Err(why) };
    again.map_or_else(|_| at_last(new_size, why, attempt), NonNull::as_ptr)
}
