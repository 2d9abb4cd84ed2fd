//! Heap: the one type that other crates use. It joins the layers and decides what happens when one refuses.
//!
//! # Algorithm
//! The fast path is the caller's: pop or push in its sheaves (`sheaf`). Everything else comes here: refill and
//! overflow, page runs, areas, `realloc` across all of them. A thread without a block (it is new and none can be had,
//! or it has ended) is served without a cache, object by object.
//!
//! Every other call but a look at an address passes the gate (`gate`), so that a fork finds the heap at rest; but for a run that a
//! thread keeps or takes again (`pcp`), which is a push or a pop in this sense.
//!
//! Every refusal is a value. Every misuse found ends the process with one line that names the address, what is there,
//! and what it was said to be.

mod figures;
mod large;
mod lifecycle;
mod misused;
mod settings;
mod tick;
mod untyped;

pub use figures::Stats;

use self::large::Claimed;
use self::misused::barred_out;
use self::tick::AT_A_TIME;
use crate::buddy::Purge;
use crate::cache::{self, Caches, Found};
use crate::config::{CHECKED, CHUNK_SIZE, MAX_OBJECT, MAX_SHARDS, PAGE_SIZE, VMALLOC_THRESHOLD};
use crate::error::{AllocError, Misuse};
use crate::gate::{Gate, Inside};
use crate::kmalloc::Route;
use crate::live;
use crate::mempool::Mempool;
use crate::page::Owner;
use crate::page_counter::Urgency;
use crate::poison;
use crate::reclaim::Reclaim;
use crate::size_class::SizeClass;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::const_unless_loom;
use crate::sys::{die, Os};
use crate::thread::{Registry, Thread};
use crate::units::{Order, PageCount};
use crate::vmalloc::{Site, Vmalloc};
use crate::zeroing::Zeroing;
use crate::zone::{Caller, Zone};
use core::alloc::Layout;
use core::ptr::{null_mut, NonNull};
use static_assertions::assert_impl_all;

/// A heap: its system, its scheme, and its parts.
pub struct Heap {
    os: &'static dyn Os,
    reclaim: Option<&'static dyn Reclaim>,
    parts: &'static Parts,
}

/// What a heap consists of. All zeros, so a `static` of it costs no space in the binary, and no memory where it is not
/// touched.
pub struct Parts {
    zone: Zone,
    vmalloc: Vmalloc,
    caches: Caches,
    registry: Registry,
    gate: Gate,
    cpus: AtomicU32,
    /// Memory for the reclamation scheme's own needs.
    mempool: Mempool,
    zeroing: Zeroing,
}

assert_impl_all!(Parts: Sync);

impl Parts {
    const_unless_loom! {
        /// Those of an empty heap.
        pub fn new() -> Self {
            Self {
                zone: Zone::new(),
                vmalloc: Vmalloc::new(),
                caches: Caches::new(),
                registry: Registry::new(),
                gate: Gate::new(),
                cpus: AtomicU32::new(0),
                mempool: Mempool::new(),
                zeroing: Zeroing::new(),
            }
        }
    }
}

impl Heap {
    /// A heap of these parts, on this system. Without a scheme, empty arenas are unmapped and whoever walks them holds a
    /// lock.
    ///
    /// # Safety
    /// No other heap has these parts, or had them before.
    pub const unsafe fn new(os: &'static dyn Os, reclaim: Option<&'static dyn Reclaim>, parts: &'static Parts) -> Self {
        Self { os, reclaim, parts }
    }

    /// The system under it.
    pub fn os(&self) -> &'static dyn Os {
        self.os
    }

    /// Passes the gate. Nobody may come in twice, so what is public comes in and what is private is inside.
    #[inline(always)]
    fn enter<'a>(&'a self, thread: Option<&'a Thread>) -> Inside<'a> {
        match self.parts.gate.enter(self.os(), thread.map(Thread::presence)) {
            Ok(inside) => inside,
            Err(barred) => barred_out(barred),
        }
    }

    /// The thread's block, if it is one of this heap. What is no unsafe function is safe with whatever block.
    fn own<'a>(&self, thread: Option<&'a Thread>) -> Option<&'a Thread> {
        thread.filter(|thread| thread.is_of(&self.parts.registry))
    }

    fn caller<'a>(&self, thread: Option<&'a Thread>) -> Caller<'a> {
        let urgency = thread.map_or(Urgency::Usual, Thread::urgency);
        Caller { os: self.os(), reclaim: self.reclaim, slot: thread.map(Thread::slot), urgency }
    }

    fn site(&self, urgency: Urgency) -> Site<'_> {
        let Zone { kept, table, counter, huge, .. } = &self.parts.zone;
        Site { os: self.os(), kept, table, counter, huge, urgency }
    }

    fn shards(&self) -> usize {
        match self.parts.cpus.load(Relaxed) {
            0 => {
                let cpus = self.os().cpus().clamp(1, MAX_SHARDS);
                // The largest answer: of two threads that ask first each may be bound to other processors.
                self.parts.cpus.fetch_max(cpus as u32, Relaxed).max(cpus as u32) as usize
            }
            cpus => cpus as usize,
        }
    }

    /// Allocates. `thread` is the calling thread's block, if it has one.
    ///
    /// # Safety
    /// The calling thread has `thread`.
    pub unsafe fn alloc(&self, thread: Option<&Thread>, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: by contract.
        unsafe { self.obtain(thread, layout, true) }.map(|(ptr, _)| ptr)
    }

    /// Memory, and how many bytes of it, from the first one on, are not known to be zero; `dense`: all of it will be used.
    /// Before a refusal, what the caches could spare goes back to the arenas, and the request is made once more; then, unless
    /// it is an object, what arenas could spare goes back to the system.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn obtain(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        let route = Route::of(layout);
        if let (Route::Object(class), Some(thread)) = (route, thread) {
            // SAFETY: by contract.
            if let Some(object) = unsafe { thread.sheaves().of(class).pop() } {
                // SAFETY: just popped.
                unsafe { self.hand_out(object, class, layout.size()) };
                return Ok((object, layout.size()));
            }
        }
        if let (Route::Run(pages, Order::ZERO), Some(thread)) = (route, thread) {
            if let Some(run) = thread.pcp().take(pages) {
                self.hand_over(run, layout, pages);
                return Ok((run, pages.bytes()));
            }
        }
        let first = {
            let _inside = self.enter(thread);
            // SAFETY: by contract.
            unsafe { self.alloc_once(thread, layout, route, dense) }
        };
        if !matches!(first, Err(AllocError::OutOfMemory)) {
            return first;
        }
        let last = if self.never_fits(layout.size()) {
            Err(AllocError::TooLarge)
        } else {
            // SAFETY: by contract.
            unsafe { self.alloc_at_last(thread, layout, route, dense) }
        };
        if last.is_err() && self.counter().limits().max != 0 {
            self.counter().note_failure();
        }
        last
    }

    /// True if so many bytes, which were refused, are more than the limit allows in all, or than the machine has: to give
    /// anything back is no use. (With an overcommit that is not the system's heuristics, something else was short perhaps.)
    #[cold]
    fn never_fits(&self, bytes: usize) -> bool {
        let max = self.counter().limits().max;
        let exceeds = |has| bytes > has;
        max != 0 && bytes > max || bytes > VMALLOC_THRESHOLD && self.os().total_memory().is_some_and(exceeds)
    }

    /// Tries again, and gives back what the heap can spare before: in pieces, so that others may fork in between.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    #[cold]
    unsafe fn alloc_at_last(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        route: Route,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        // SAFETY: by contract.
        let shrink = |_: Caller<'_>| unsafe { self.shrink(thread) };
        self.kswapd().note_call(self.calmly(thread, shrink));
        // What is missing may be with a tick, so it is held still; or a thread has kept it meanwhile.
        let once = |_: Caller<'_>| {
            self.give_back_kept_runs();
            // SAFETY: by contract.
            unsafe { self.alloc_once(thread, layout, route, dense) }
        };
        let urgency = if let Route::Object(_) = route { Urgency::Reserve } else { self.caller(thread).urgency };
        self.make_room(thread, layout.size(), urgency);
        let second = self.calmly(thread, once);
        if second.is_ok() || matches!(route, Route::Object(_)) {
            return second;
        }
        self.make_room(thread, usize::MAX, urgency);
        self.calmly(thread, |caller| {
            self.kswapd().note_call(self.retire(thread));
            once(caller)
        })
    }

    /// If there is a limit, frees the memory behind free pages, so that as many bytes fit below it and a chunk more, and asks
    /// other threads for what is in their sheaves.
    fn make_room(&self, thread: Option<&Thread>, bytes: usize, urgency: Urgency) {
        let counter = self.counter();
        if counter.limits().max != 0 {
            self.give_back(thread, || counter.excess(bytes, urgency).saturating_add(CHUNK_SIZE));
            self.parts.registry.ask_back();
        }
    }

    /// Gives back what is aside, and then the memory behind free pages, as many bytes as are too much by then, in pieces. The caller
    /// is outside.
    fn give_back(&self, thread: Option<&Thread>, excess: impl Fn() -> usize) {
        let aside = self.give_back_what_waits(thread);
        let mut most = u32::try_from(excess().div_ceil(PAGE_SIZE)).unwrap_or(u32::MAX);
        if most > AT_A_TIME {
            // No more than there is now: others may free as fast.
            most = most.min(self.calmly(thread, |caller| self.parts.zone.resident_pages(caller).0 as u32));
        }
        let purged = self.purge_calmly(thread, most, Purge::ALL);
        self.kswapd().note_call(aside + PageCount::new(purged).bytes());
    }

    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn alloc_once(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        route: Route,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        match route {
            Route::Object(class) => {
                // SAFETY: by contract.
                let (object, zeros) = unsafe { self.take_object(thread, class, dense) }?;
                // SAFETY: just taken.
                unsafe { self.hand_out(object, class, layout.size()) };
                Ok((object, if zeros { 0 } else { layout.size() }))
            }
            Route::Run(pages, align) => self.alloc_run(thread, layout, pages, align, dense),
            Route::Area => self.alloc_area(thread, layout, dense),
        }
    }

    /// Sends the calling thread's objects home, gives empty slabs and what threads keep back to the arenas, and mappings that
    /// are set aside to the system. Returns the bytes of those.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn shrink(&self, thread: Option<&Thread>) -> usize {
        let caller = self.caller(thread);
        // SAFETY: by contract.
        let flushed = thread.map_or(Ok(()), |thread| unsafe { self.flush(thread) });
        let adopted = flushed.and_then(|()| self.adopt_orphans());
        if let Err(found) = adopted {
            self.found(found);
        }
        self.shrink_caches(caller, MAX_SHARDS);
        self.let_go_of_what_waits()
    }

    fn shrink_caches(&self, caller: Caller<'_>, shards: usize) {
        if let Err(found) = self.parts.caches.shrink(&self.parts.zone, caller, shards) {
            self.found(found);
        }
    }

    /// Gives empty arenas back to the system, and what it did not take back before.
    fn retire(&self, thread: Option<&Thread>) -> usize {
        let caller = self.caller(thread);
        self.parts.zone.retire_empty(caller, false);
        self.parts.zone.collect(caller);
        self.parts.zone.kept.shrink(caller.os)
    }

    /// Allocates memory that reads as zeros.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn alloc_zeroed(&self, thread: Option<&Thread>, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: by contract.
        let (ptr, stale) = unsafe { self.obtain(thread, layout, false) }?;
        let len = stale.min(layout.size());
        if self.parts.zeroing.asks(len) {
            // Or the child of a fork would have the file that is open meanwhile. A run is 32 MiB long at most.
            let _inside = self.enter(thread);
            // SAFETY: just allocated, `layout.size()` bytes.
            unsafe { self.parts.zeroing.clear(self.os(), ptr, len) };
        } else {
            // Not inside the gate: to clear may take long, where memory is short.
            // SAFETY: as above.
            unsafe { ptr.as_ptr().write_bytes(0, len) };
        }
        Ok(ptr)
    }

    /// An object, and whether it is known to be zeros. One that is to be (it is not `dense`) and that is longer than a page of the
    /// system is taken alone: of several, the sheaf would forget which are.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn take_object(
        &self,
        thread: Option<&Thread>,
        class: SizeClass,
        dense: bool,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        let Parts { caches, zone, registry, .. } = self.parts;
        // What is small may be what a refusal of something large is handled with.
        let caller = Caller { urgency: Urgency::Reserve, ..self.caller(thread) };
        // SAFETY: by contract.
        if let Some(Err(found)) = thread.map(|thread| unsafe { self.give_what_is_asked_back(thread) }) {
            self.found(found);
        }
        if !dense && class.size() > caller.os.page_size() {
            return caches.take_one(zone, caller, class, thread.map_or(0, Thread::shard));
        }
        let object = if let Some(thread) = thread {
            // SAFETY: by contract.
            unsafe { thread.refill(caches, zone, caller, class, registry.peers(thread)) }?
        } else {
            let mut one = [null_mut()];
            caches.refill(zone, caller, class, 0, &mut one)?;
            NonNull::new(one[0]).ok_or(AllocError::OutOfMemory)?
        };
        Ok((object, false))
    }

    /// Sends the calling thread's objects home, if somebody has asked for them since it last did.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    #[inline(always)]
    unsafe fn give_what_is_asked_back(&self, thread: &Thread) -> Result<(), Found> {
        if !self.parts.registry.has_asked(thread) {
            return Ok(());
        }
        // SAFETY: by contract.
        unsafe { self.flush(thread) }
    }

    /// # Safety
    /// As for [`Heap::alloc`].
    #[cold]
    #[inline(never)]
    unsafe fn flush(&self, thread: &Thread) -> Result<(), Found> {
        // SAFETY: by contract.
        unsafe { thread.flush(&self.parts.caches, &self.parts.zone, self.caller(Some(thread))) }
    }

    /// Notes that the program has `size` bytes of an object now: whoever pops one from a sheaf says so. Does nothing
    /// without the features `checked` and `asan`.
    ///
    /// # Safety
    /// The caller has the object, of this class, and `size` is no more than the class has.
    #[inline(always)]
    pub unsafe fn hand_out(&self, object: NonNull<u8>, class: SizeClass, size: usize) {
        poison::unpoison(object, size);
        if !live::hand_out(&self.parts.zone, object, class) {
            die(format_args!("{class} hands out {object:p}, which it has not: the heap is damaged"));
        }
    }

    /// Notes that the program gives an object back: whoever pushes one to a sheaf says so. With the feature `checked`
    /// a misuse is found here and ends the process; without it this does nothing.
    ///
    /// # Safety
    /// As for [`Heap::free`], but that the object may be in its sheaf already.
    #[inline(always)]
    pub unsafe fn take_back(&self, object: NonNull<u8>, class: SizeClass) {
        if let Err(found) = live::take_back(&self.parts.zone, object, class) {
            self.found(found);
        }
        if poison::ON {
            poison::poison(object, class.size());
        }
    }

    /// Checks what is resized within its class to `size` bytes and so stays where it is, as [`Heap::take_back`] checks
    /// what is given back.
    ///
    /// # Safety
    /// As for [`Heap::free`], and `size` is no more than the class has.
    #[inline(always)]
    pub unsafe fn check(&self, object: NonNull<u8>, class: SizeClass, size: usize) {
        if CHECKED {
            // SAFETY: by contract.
            unsafe { self.check_object(object, class) };
        }
        if poison::ON {
            poison::fit(object, size, class.size());
        }
    }

    /// Checks what is about to be copied to an object of another class: what is not what it is said to be must not be. A
    /// misuse that is found ends the process.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(always)]
    pub unsafe fn check_object(&self, object: NonNull<u8>, class: SizeClass) {
        if CHECKED || !cache::is_start(&self.parts.zone, object.as_ptr(), class) {
            self.check_closely(object, class);
        }
    }

    #[cfg_attr(not(feature = "checked"), cold)]
    #[inline(never)]
    fn check_closely(&self, object: NonNull<u8>, class: SizeClass) {
        if let Err(found) = live::check(&self.parts.zone, object.as_ptr(), class) {
            self.found(found);
        }
    }

    /// Frees. A misuse that is found ends the process.
    ///
    /// # Safety
    /// As for [`Heap::alloc`]; `ptr` was allocated here with this layout, and nobody uses it any more.
    pub unsafe fn free(&self, thread: Option<&Thread>, ptr: NonNull<u8>, layout: Layout) {
        match Route::of(layout) {
            Route::Object(class) => {
                // SAFETY: by contract.
                unsafe { self.take_back(ptr, class) };
                // SAFETY: by contract.
                if thread.is_some_and(|thread| unsafe { thread.sheaves().of(class).push(ptr) }) {
                    return;
                }
                let _inside = self.enter(thread);
                // SAFETY: by contract.
                if let Err(found) = unsafe { self.free_object(thread, ptr, class) } {
                    self.found(found);
                }
            }
            Route::Run(pages, _) if self.keep(thread, ptr, layout, pages) => {}
            Route::Run(..) | Route::Area => {
                let _inside = self.enter(thread);
                // SAFETY: by contract.
                if let Err(misuse) = self.claim(ptr, layout).and_then(|large| unsafe { self.release(large) }) {
                    self.not_so(ptr, misuse, layout);
                }
            }
        }
    }

    /// # Safety
    /// As for [`Heap::free`].
    unsafe fn free_object(&self, thread: Option<&Thread>, ptr: NonNull<u8>, class: SizeClass) -> Result<(), Found> {
        let caller = self.caller(thread);
        let Some(thread) = thread else {
            return self.parts.caches.flush(&self.parts.zone, caller, class, &mut [ptr.as_ptr()]);
        };
        // SAFETY: by contract.
        unsafe { self.give_what_is_asked_back(thread) }?;
        // SAFETY: by contract.
        unsafe {
            thread.overflow(&self.parts.caches, &self.parts.zone, caller, class, ptr, self.parts.registry.peers(thread))
        }
    }

    /// Changes the size of an allocation, in place where it can be. On a refusal the old one is as it was; asked once more, it
    /// may be served, since what was free has gone back to the system meanwhile, and in place it takes less than a copy.
    ///
    /// # Safety
    /// As for [`Heap::free`]; `new_size`, rounded up to the alignment, does not exceed `isize::MAX`.
    pub unsafe fn realloc(
        &self,
        thread: Option<&Thread>,
        ptr: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: by contract.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: by contract.
        match unsafe { self.in_place(thread, ptr, layout, new) } {
            Ok(Some(same_or_moved)) => return Ok(same_or_moved),
            Ok(None) => {}
            Err(misuse) => self.not_so(ptr, misuse, layout),
        }
        let mut with_room = None;
        if new_size > layout.size().max(MAX_OBJECT) {
            self.parts.zone.huge.note_room();
            // SAFETY: by contract; it is as it was.
            match unsafe { self.grow_area_at_last(thread, ptr, layout, new) } {
                Ok(Some(same_or_moved)) => return Ok(same_or_moved),
                Ok(None) => {}
                Err(misuse) => self.not_so(ptr, misuse, layout),
            }
            with_room = self.alloc_run_with_room(thread, layout, new);
        }
        // Who shrinks gives memory back; the standard library takes a refusal of that for the end.
        let shrinks = thread.filter(|thread| new_size < layout.size() && !thread.is_relieving());
        shrinks.inspect(|thread| thread.set_relieving(true));
        // SAFETY: by contract.
        let to = with_room.map_or_else(|| unsafe { self.alloc(thread, new) }, Ok);
        shrinks.inspect(|thread| thread.set_relieving(false));
        let to = match to {
            Ok(to) => to,
            // SAFETY: by contract.
            Err(refused) => match unsafe { self.stay_an_area(thread, ptr, layout, new) } {
                Ok(stayed) => return stayed.ok_or(refused),
                Err(misuse) => self.not_so(ptr, misuse, layout),
            },
        };
        let copy = || {
            // SAFETY: both are at least this long, and the new one is not the old one.
            unsafe { to.as_ptr().copy_from_nonoverlapping(ptr.as_ptr(), layout.size().min(new_size)) };
        };
        if let Route::Object(_) = Route::of(layout) {
            copy();
            // SAFETY: by contract; its content has been copied.
            unsafe { self.free(thread, ptr, layout) };
            return Ok(to);
        }
        // Claimed before it is read: should another thread free it meanwhile, that one is told. Nor may a fork come in
        // between, for the child would have nobody to release it.
        let _inside = self.enter(thread);
        let moved = self.claim(ptr, layout).and_then(|large| {
            copy();
            if let (Claimed::Run(map, run, pages), Route::Area) = (&large, Route::of(new)) {
                // It has outgrown the arenas for good, and nobody else needs so much so soon.
                self.parts.zone.discard_pages(self.os(), map, *run, *pages);
            }
            // SAFETY: by contract; its content has been copied.
            unsafe { self.release(large) }
        });
        match moved {
            Ok(()) => Ok(to),
            Err(misuse) => self.not_so(ptr, misuse, layout),
        }
    }

    /// What `realloc` can do without copying bytes. What is not what it is said to be must not be copied either.
    ///
    /// # Safety
    /// As for [`Heap::realloc`].
    unsafe fn in_place(
        &self,
        thread: Option<&Thread>,
        ptr: NonNull<u8>,
        layout: Layout,
        new: Layout,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let (is, wanted) = (Route::of(layout), Route::of(new));
        if let Route::Object(class) = is {
            // SAFETY: by contract.
            unsafe { self.check_object(ptr, class) };
            if is != wanted {
                return Ok(None);
            }
            poison::fit(ptr, new.size(), class.size());
            return Ok(Some(ptr));
        }
        let _inside = self.enter(thread);
        match wanted {
            Route::Object(_) => self.check_large(ptr, layout, is).map(|()| None),
            // SAFETY: by contract.
            Route::Run(..) | Route::Area => unsafe { self.resize(thread, ptr, (layout, is), (new, wanted)) },
        }
    }

    /// Sets memory aside for one call into a library that allocates through this heap and cannot be told that there is
    /// none; until [`Heap::leave_library`] the thread's requests must go to [`Heap::alloc_for_library`]. False: do without.
    pub fn enter_library(&self) -> bool {
        self.parts.mempool.promise(self.os(), &self.parts.zone.kept)
    }

    /// The end of what [`Heap::enter_library`] began.
    ///
    /// # Safety
    /// It said true, and this is the only end of it.
    pub unsafe fn leave_library(&self) {
        self.parts.mempool.release(self.os());
    }

    /// Memory for the library: up to [`Mempool::ELEMENT`] bytes, counted apart.
    pub fn alloc_for_library(&self, layout: Layout) -> Option<NonNull<u8>> {
        (layout.size().max(layout.align()) <= Mempool::ELEMENT).then(|| self.parts.mempool.alloc(self.os())).flatten()
    }

    /// Frees memory of the library.
    ///
    /// # Safety
    /// It came from [`Heap::alloc_for_library`], and nobody uses it any more.
    pub unsafe fn free_for_library(&self, ptr: NonNull<u8>) {
        // SAFETY: by contract.
        unsafe { self.parts.mempool.free(self.os(), ptr) };
    }

    /// Gives back what is not needed: the calling thread's sheaves, runs that threads keep, empty slabs, resident free pages, empty arenas,
    /// what ended threads left behind. Returns the bytes that went back to the system: of free pages, of areas that were set aside,
    /// and of ranges that it had not taken back before. Costs a walk over
    /// all arenas and a system call for each run of free pages; in between others may fork.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn reclaim(&self, thread: Option<&Thread>) -> usize {
        let (aside, dirty) = self.calmly(thread, |caller| {
            // SAFETY: by contract.
            let aside = unsafe { self.shrink(thread) };
            (aside, self.parts.zone.resident_pages(caller).0)
        });
        let pages = self.purge_calmly(thread, dirty as u32, Purge::ALL);
        self.calmly(thread, |caller| {
            let bytes = aside + PageCount::new(pages).bytes() + self.retire(thread);
            self.parts.registry.shrink(caller.os);
            self.kswapd().note_call(bytes);
            bytes
        })
    }

    /// True if `address` lies in an arena of this heap, or is the start of one of its areas.
    pub fn owns(&self, address: usize) -> bool {
        match self.parts.zone.table.holder(address) {
            Owner::Nobody => false,
            Owner::Chunk(_) => true,
            Owner::Area(record) => self.parts.vmalloc.begins_at(record, address),
        }
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests;
