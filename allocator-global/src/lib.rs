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

mod fork;
mod kswapd;
mod lifecycle;
mod tls;

pub use allocator_core::heap::Stats;

use allocator_core::heap::{Heap, Parts};
use allocator_core::reclaim::{Epoch, Hooks};
use allocator_core::size_class::SizeClass;
use allocator_core::slabinfo::{BuddyInfo, SlabInfo, VmStat, ZoneInfo};
use allocator_core::sys::Unix;
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

/// The allocator. Zero-sized: all values name the one heap of the process.
///
/// Thread-safe; serves every `Layout`, refusing with null what the system refuses. A pair of `alloc` and `dealloc` from
/// the thread's sheaf costs 29 instructions up to 1 KiB and 38 up to 32 KiB; above, it costs five to seven atomic
/// operations and about a thousand instructions; above 32 MiB, system calls.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kmalloc(());

impl Kmalloc {
    /// A handle on the heap of this process. Costs nothing.
    pub const fn new() -> Self {
        Kmalloc(())
    }

    /// Flushes the calling thread's sheaves, gives empty slabs back to the buddy, and resident free pages and empty
    /// arenas back to the system. Returns the bytes given back. What other threads hold in their sheaves stays there.
    /// Costs a walk over all arenas and a system call for each run of free pages.
    pub fn reclaim() -> usize {
        // SAFETY: the block is the calling thread's.
        lifecycle::with(|thread| unsafe { HEAP.reclaim(thread) })
    }

    /// How long free memory stays resident before it goes back to the system by itself; half of that at least. `None`: for
    /// ever, and there is no thread for it. One second unless somebody says something else. A process that never had 32
    /// MiB has no thread either, and keeps them. Costs a lock.
    pub fn set_purge_after(time: Option<Duration>) {
        let millis = time.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        lifecycle::with(|thread| HEAP.set_purge_after(thread, millis));
        kswapd::attend();
    }

    /// True for a pointer that came from this heap: the way to see that a binary really uses it. Two or three loads.
    /// A pointer into the middle is known up to 32 MiB; of a larger block only the start is.
    pub fn owns<T: ?Sized>(ptr: *const T) -> bool {
        HEAP.owns(ptr.cast::<u8>() as usize)
    }

    /// Figures of the heap, exact while no other thread is in the allocator. Costs a walk over the memmap.
    pub fn stats() -> Stats {
        lifecycle::with(|thread| HEAP.stats(thread))
    }

    /// The caches in the text format of `/proc/slabinfo`, version 2.1. Writing it allocates nothing.
    pub fn slabinfo() -> impl Display {
        Report(|f| SlabInfo(&HEAP, lifecycle::block()).fmt(f))
    }

    /// The free blocks in the text format of `/proc/buddyinfo`. Writing it allocates nothing.
    pub fn buddyinfo() -> impl Display {
        Report(|f| BuddyInfo(&HEAP, lifecycle::block()).fmt(f))
    }

    /// The zone in the text format of `/proc/zoneinfo`, with the watermarks of what may stay resident. Writing it allocates
    /// nothing.
    pub fn zoneinfo() -> impl Display {
        Report(|f| ZoneInfo(&HEAP, lifecycle::block()).fmt(f))
    }

    /// Counters in the text format of `/proc/vmstat`: what pages are used for, what went back to the system, and why.
    /// Writing it allocates nothing.
    pub fn vmstat() -> impl Display {
        Report(|f| VmStat(&HEAP, lifecycle::block()).fmt(f))
    }

    /// Checks every invariant of every layer. Call it while no other thread allocates or frees.
    pub fn validate() -> Result<(), &'static str> {
        lifecycle::with(|thread| HEAP.validate(thread))
    }

    /// Proves that nothing is handed out and nothing lost: every object, run and area back, every buddy whole. Call
    /// [`Kmalloc::reclaim`] first, as the only thread that still has a thread block.
    pub fn audit() -> Result<(), &'static str> {
        lifecycle::with(|thread| HEAP.audit(thread))
    }
}

/// A report that is made when it is written: the block is looked up then, which may be on another thread.
struct Report(fn(&mut fmt::Formatter<'_>) -> fmt::Result);

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

fn or_null<E>(result: Result<NonNull<u8>, E>) -> *mut u8 {
    result.map_or(null_mut(), NonNull::as_ptr)
}

// SAFETY: memory comes from a heap that hands out each byte once until it is freed, aligned as the layout says; nothing
// unwinds; a refusal is null. That layouts match is the caller's part of the contract.
unsafe impl GlobalAlloc for Kmalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: the sheaves are the calling thread's.
            if let Some(object) = unsafe { tls::sheaves().of(class).pop() } {
                HEAP.hand_out(object, class, layout.size());
                return object.as_ptr();
            }
        }
        // SAFETY: of a layout.
        unsafe { alloc_slow(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by contract it was allocated here, so it is not null.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: the sheaves are the calling thread's; the object is of this class by contract.
            if unsafe { tls::sheaves().of(class).push(ptr) } {
                HEAP.take_back(ptr, class);
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
                HEAP.hand_out(object, class, layout.size());
                // SAFETY: an object of a class that holds this many bytes.
                unsafe { object.as_ptr().write_bytes(0, layout.size()) };
                return object.as_ptr();
            }
        }
        // SAFETY: of a layout.
        unsafe { zeroed_slow(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by contract the new layout is valid.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: by contract it was allocated here, so it is not null.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        if let Some(class) = SizeClass::of(layout).filter(|class| SizeClass::of(new) == Some(*class)) {
            HEAP.check(ptr, class, new_size);
            return ptr.as_ptr();
        }
        // SAFETY: by contract.
        unsafe { realloc_slow(ptr, layout.size(), layout.align(), new_size) }
    }
}

// The slow paths take the words of a layout one by one, as rustc's shim has them, and not a `Layout`, which is passed the
// other way round. So they are reached by a jump and cost the fast path nothing: no register is saved for them.

/// # Safety
/// `size` and `align` are those of a layout.
#[cold]
#[inline(never)]
unsafe fn alloc_slow(size: usize, align: usize) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    if lifecycle::in_library() {
        return HEAP.library_alloc(layout).map_or(null_mut(), NonNull::as_ptr);
    }
    // SAFETY: the block is the calling thread's.
    or_null(lifecycle::with(|thread| unsafe { HEAP.alloc(thread, layout) }))
}

/// # Safety
/// As for `alloc_slow`.
#[cold]
#[inline(never)]
unsafe fn zeroed_slow(size: usize, align: usize) -> *mut u8 {
    if lifecycle::in_library() {
        // SAFETY: by contract.
        let ptr = unsafe { alloc_slow(size, align) };
        if !ptr.is_null() {
            // SAFETY: just allocated, `size` bytes.
            unsafe { ptr.write_bytes(0, size) };
        }
        return ptr;
    }
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: the block is the calling thread's.
    or_null(lifecycle::with(|thread| unsafe { HEAP.alloc_zeroed(thread, layout) }))
}

/// # Safety
/// As for `GlobalAlloc::dealloc`.
#[cold]
#[inline(never)]
unsafe fn dealloc_slow(ptr: NonNull<u8>, size: usize, align: usize) {
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    if lifecycle::in_library() {
        // SAFETY: the library frees what it allocated, and does both between `enter_library` and `leave_library`.
        unsafe { HEAP.library_free(ptr) };
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
    // SAFETY: the sheaves are the calling thread's.
    let object = unsafe { tls::sheaves().of(to).pop() }?;
    HEAP.check_object(ptr, from);
    HEAP.hand_out(object, to, new.size());
    // SAFETY: both are at least so long; one is the program's, the other was free.
    unsafe { object.as_ptr().copy_from_nonoverlapping(ptr.as_ptr(), layout.size().min(new.size())) };
    // SAFETY: by contract.
    unsafe { Kmalloc::new().dealloc(ptr.as_ptr(), layout) };
    Some(object)
}

/// # Safety
/// As for `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
unsafe fn realloc_slow(ptr: NonNull<u8>, size: usize, align: usize, new_size: usize) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: by contract.
    let new = unsafe { Layout::from_size_align_unchecked(new_size, align) };
    // SAFETY: by contract.
    if let Some(object) = unsafe { realloc_by_sheaves(ptr, layout, new) } {
        return object.as_ptr();
    }
    if lifecycle::in_library() {
        return null_mut(); // crossbeam-epoch never does; a null is a refusal
    }
    // SAFETY: the block is the calling thread's; the rest by contract.
    or_null(lifecycle::with(|thread| unsafe { HEAP.realloc(thread, ptr, layout, new_size) }))
}
