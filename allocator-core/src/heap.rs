//! Heap: the one type that other crates use. It joins the layers and decides what happens when one refuses.
//!
//! # Algorithm
//! The fast path is the caller's: pop or push in its sheaves (`sheaf`). Everything else comes here: refill and
//! overflow, page runs, areas, `realloc` across all of them. A thread without a block (it is new and none can be had,
//! or it has ended) is served without a cache, object by object.
//!
//! Every call but a look at an address passes the gate (`gate`), so that a fork finds the heap at rest.
//!
//! Every refusal is a value. Every misuse found ends the process with one line that names the address, what is there,
//! and what it was said to be.

mod figures;
mod settings;
mod tick;
mod untyped;

pub use figures::Stats;

use crate::buddy::Purge;
use crate::cache::{self, Caches, Found};
use crate::config::{CHECKED, MAX_SHARDS, PAGES_PER_CHUNK, PAGE_SIZE, VMALLOC_THRESHOLD};
use crate::error::{AllocError, Misuse};
use crate::gate::{Barred, Gate, Inside};
use crate::kmalloc::Route;
use crate::live;
use crate::mempool::Mempool;
use crate::page::{ChunkMap, Kind, Owner, Tag};
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
use crate::zone::{Caller, Zone};
use core::alloc::Layout;
use core::fmt;
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

    /// The thread's block, if it is one of this heap. A look at a heap is safe with whatever block.
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
                self.parts.cpus.store(cpus as u32, Relaxed);
                cpus
            }
            cpus => cpus as usize,
        }
    }

    /// A block for the calling thread, which must give it back before it ends. `None` if the system refuses.
    pub fn attach(&self) -> Option<&Thread> {
        self.attach_as(false)
    }

    /// As [`Heap::attach`], for a thread of the heap itself.
    pub fn attach_service(&self) -> Option<&Thread> {
        self.attach_as(true)
    }

    fn attach_as(&self, service: bool) -> Option<&Thread> {
        let _inside = self.enter(None);
        if let Err(found) = self.adopt_orphans() {
            self.found(found);
        }
        let shards = self.shards();
        // SAFETY: blocks stay mapped as long as the heap.
        self.parts
            .registry
            .attach(self.os(), &self.parts.zone.kept, shards, service)
            .map(|block| unsafe { block.as_ref() })
    }

    /// Takes the block of a thread that ends back: its objects go home, its handle is dropped.
    ///
    /// # Safety
    /// The calling thread has the block and will not use it again.
    pub unsafe fn detach(&self, thread: &Thread) {
        // Not by the word of the block: that will be another thread's.
        let _inside = self.enter(None);
        // SAFETY: by contract.
        if let Err(found) = unsafe { self.empty_and_free(thread) } {
            self.found(found);
        }
    }

    /// # Safety
    /// The block is the caller's alone, and not used again.
    unsafe fn empty_and_free(&self, thread: &Thread) -> Result<(), Found> {
        // SAFETY: by contract.
        unsafe { thread.flush(&self.parts.caches, &self.parts.zone, self.caller(Some(thread))) }?;
        if let Some(reclaim) = self.reclaim {
            // SAFETY: by contract; nothing here leaves a thread protected.
            unsafe { reclaim.leave(thread.slot()) };
        }
        // SAFETY: by contract; it holds nothing any more.
        unsafe { self.parts.registry.detach(self.os(), NonNull::from(thread)) };
        Ok(())
    }

    /// Frees the blocks of threads that a fork left behind.
    fn adopt_orphans(&self) -> Result<(), Found> {
        for orphan in self.parts.registry.adopt(self.os()) {
            // SAFETY: its thread is no more, and it was outside when it went: what it had is whole.
            unsafe { orphan.settle(&self.parts.zone) };
            // SAFETY: as above.
            unsafe { self.empty_and_free(orphan) }?;
        }
        Ok(())
    }

    /// To be called before `fork`: waits until no other thread is in the heap, and keeps all but the calling one out.
    /// If somebody stays inside for seconds, or the calling thread is inside (in a signal handler), nobody is kept
    /// out, and the child will not be able to use the heap.
    pub fn before_fork(&self, thread: Option<&Thread>) {
        let thread = self.own(thread);
        self.parts.gate.close(self.os(), thread.map(Thread::presence), || self.parts.registry.presences());
    }

    /// To be called after `fork` in the parent.
    pub fn after_fork_in_parent(&self) {
        self.parts.gate.open(self.os());
    }

    /// To be called after `fork` in the child. What other threads had in their sheaves is kept until somebody needs it;
    /// what they had from the heap stays allocated.
    pub fn after_fork_in_child(&self, thread: Option<&Thread>) {
        if self.parts.gate.open_in_child(self.os(), self.parts.registry.presences()) {
            self.parts.registry.fork(self.os(), self.own(thread));
            self.parts.zone.kswapd.fork();
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
    /// Before a refusal, what the caches could spare goes back to the arenas, and the request is made once more; then, if an
    /// area could serve it, what arenas could spare goes back to the system.
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
                self.hand_out(object, class, layout.size());
                return Ok((object, layout.size()));
            }
        }
        let _inside = self.enter(thread);
        // SAFETY: by contract.
        let first = unsafe { self.alloc_once(thread, layout, route, dense) };
        if !matches!(first, Err(AllocError::OutOfMemory)) {
            return first;
        }
        // SAFETY: by contract.
        let last = unsafe { self.alloc_at_last(thread, layout, route, dense) };
        if last.is_err() && self.counter().limits().max != 0 {
            self.counter().note_failure();
        }
        last
    }

    /// Tries again, and gives back what the heap can spare before.
    ///
    /// # Safety
    /// As for [`Heap::alloc`]; inside.
    #[cold]
    unsafe fn alloc_at_last(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        route: Route,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        // What is missing may be with a tick.
        let _still = self.kswapd().hold_still(self.os());
        // SAFETY: by contract.
        unsafe { self.shrink(thread) };
        let urgency = if let Route::Object(_) = route { Urgency::Reserve } else { self.caller(thread).urgency };
        self.make_room(thread, layout.size(), urgency);
        // SAFETY: by contract.
        let second = unsafe { self.alloc_once(thread, layout, route, dense) };
        if second.is_ok() || matches!(route, Route::Object(_)) {
            return second;
        }
        self.make_room(thread, usize::MAX, urgency);
        self.retire(thread);
        // SAFETY: by contract.
        unsafe { self.alloc_once(thread, layout, route, dense) }
    }

    /// If there is a limit, frees the memory behind free pages, so that as many bytes fit below it and a chunk more, and asks
    /// other threads for what is in their sheaves.
    fn make_room(&self, thread: Option<&Thread>, bytes: usize, urgency: Urgency) {
        let zone = &self.parts.zone;
        if zone.counter.limits().max != 0 {
            self.parts.vmalloc.shrink(self.site(urgency));
            let excess = zone.counter.excess(bytes, urgency) / PAGE_SIZE;
            let most = u32::try_from(excess).unwrap_or(u32::MAX).saturating_add(PAGES_PER_CHUNK);
            zone.purge(self.caller(thread), Purge { most, ..Purge::ALL });
            self.parts.registry.ask_back();
        }
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
                let object = unsafe { self.alloc_object(thread, layout, class) }?;
                Ok((object, layout.size()))
            }
            Route::Run(pages, align) => self.alloc_run(thread, layout, pages, align, dense),
            Route::Area => self.alloc_area(thread, layout, dense),
        }
    }

    /// Sends the calling thread's objects home, gives empty slabs back to the arenas, and mappings that are set aside to the
    /// system. Returns the bytes of those.
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
        self.parts.vmalloc.shrink(self.site(Urgency::Usual))
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
        // SAFETY: just allocated, `layout.size()` bytes.
        unsafe { ptr.as_ptr().write_bytes(0, stale.min(layout.size())) };
        Ok(ptr)
    }

    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn alloc_object(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        class: SizeClass,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: by contract.
        let object = unsafe { self.take_object(thread, class) }?;
        self.hand_out(object, class, layout.size());
        Ok(object)
    }

    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn take_object(&self, thread: Option<&Thread>, class: SizeClass) -> Result<NonNull<u8>, AllocError> {
        // What is small may be what a refusal of something large is handled with.
        let caller = Caller { urgency: Urgency::Reserve, ..self.caller(thread) };
        let Some(thread) = thread else {
            let mut one = [null_mut()];
            self.parts.caches.refill(&self.parts.zone, caller, class, 0, &mut one)?;
            return NonNull::new(one[0]).ok_or(AllocError::OutOfMemory);
        };
        // SAFETY: by contract.
        if let Err(found) = unsafe { self.give_what_is_asked_back(thread) } {
            self.found(found);
        }
        // SAFETY: by contract.
        unsafe { thread.refill(&self.parts.caches, &self.parts.zone, caller, class, self.parts.registry.peers(thread)) }
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
    #[inline(always)]
    pub fn hand_out(&self, object: NonNull<u8>, class: SizeClass, size: usize) {
        poison::unpoison(object, size);
        if !live::hand_out(&self.parts.zone, object, class) {
            die(format_args!("{class} hands out {object:p}, which it has not: the heap is damaged"));
        }
    }

    /// Notes that the program gives an object back: whoever pushes one to a sheaf says so. With the feature `checked`
    /// a misuse is found here and ends the process; without it this does nothing.
    #[inline(always)]
    pub fn take_back(&self, object: NonNull<u8>, class: SizeClass) {
        if let Err(found) = live::take_back(&self.parts.zone, object, class) {
            self.found(found);
        }
        if poison::ON {
            poison::poison(object, class.size());
        }
    }

    /// Checks what is resized within its class to `size` bytes and so stays where it is, as [`Heap::take_back`] checks
    /// what is given back.
    #[inline(always)]
    pub fn check(&self, object: NonNull<u8>, class: SizeClass, size: usize) {
        if CHECKED {
            self.check_object(object, class);
        }
        if poison::ON {
            poison::fit(object, size, class.size());
        }
    }

    /// Checks what is about to be copied to an object of another class: what is not what it is said to be must not be. A
    /// misuse that is found ends the process.
    #[inline(always)]
    pub fn check_object(&self, object: NonNull<u8>, class: SizeClass) {
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

    /// A run, and how many bytes of it are not known to be zero. Where no arena can hold it, an area.
    fn alloc_run(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        pages: PageCount,
        align: Order,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        match self.parts.zone.alloc_pages(self.caller(thread), pages, align) {
            Ok(run) => {
                let map = self.parts.zone.map_of(run.ptr.as_ptr());
                map.set_tag(map.page_of(run.ptr.as_ptr() as usize), Tag::run(pages));
                poison::unpoison(run.ptr, layout.size());
                Ok((run.ptr, run.content.stale().bytes()))
            }
            // An area is at least a chunk long, so what is shorter has no better chance there.
            Err(_) if pages.get() > PAGES_PER_CHUNK => self.alloc_area(thread, layout, dense),
            Err(refused) => Err(refused),
        }
    }

    /// Looks whether areas have made it more than a soft limit says.
    fn watch(&self) {
        if self.counter().is_marked() {
            self.parts.zone.watch(self.os());
        }
    }

    /// An area, and how many bytes of it are not known to be zero.
    fn alloc_area(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        let caller = self.caller(thread);
        self.kswapd().grown(layout.size(), self.counter().limits());
        let area = self.parts.vmalloc.alloc(self.site(caller.urgency), layout, dense);
        self.watch();
        area.map(|(ptr, zeros)| (ptr, if zeros { 0 } else { layout.size() }))
    }

    /// Frees. A misuse that is found ends the process.
    ///
    /// # Safety
    /// As for [`Heap::alloc`]; `ptr` was allocated here with this layout, and nobody uses it any more.
    pub unsafe fn free(&self, thread: Option<&Thread>, ptr: NonNull<u8>, layout: Layout) {
        match Route::of(layout) {
            Route::Object(class) => {
                self.take_back(ptr, class);
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
            return self.parts.caches.flush(&self.parts.zone, caller, class, &[ptr.as_ptr()]);
        };
        // SAFETY: by contract.
        unsafe { self.give_what_is_asked_back(thread) }?;
        // SAFETY: by contract.
        unsafe {
            thread.overflow(&self.parts.caches, &self.parts.zone, caller, class, ptr, self.parts.registry.peers(thread))
        }
    }

    /// Takes a run or an area from whoever else might free or resize it: of several threads exactly one succeeds.
    #[inline]
    fn claim(&self, ptr: NonNull<u8>, layout: Layout) -> Result<Claimed<'_>, Misuse> {
        match self.parts.zone.table.owner(ptr.as_ptr() as usize) {
            Owner::Chunk(map) => {
                let (page, pages) = run_of(map, ptr, Route::of(layout))?;
                if !map.replace_tag(page, Tag::run(pages), Tag::NONE) {
                    return Err(Misuse::DoubleFree);
                }
                Ok(Claimed::Run(map, ptr, pages))
            }
            Owner::Area(record) => {
                self.parts.vmalloc.claim(self.site(Urgency::Usual), record, ptr, layout).map(|()| Claimed::Area(record))
            }
            Owner::Nobody => Err(Misuse::Foreign),
        }
    }

    /// Frees what was claimed.
    ///
    /// # Safety
    /// Nobody uses it any more.
    #[inline]
    unsafe fn release(&self, claimed: Claimed<'_>) -> Result<(), Misuse> {
        match claimed {
            Claimed::Run(map, ptr, pages) => {
                poison::poison(ptr, pages.bytes());
                self.parts.zone.free_pages(map, ptr.as_ptr() as usize, pages)
            }
            Claimed::Area(record) => {
                // Only with somebody who will give it back.
                let aside = self.kswapd().is_awake() && !self.counter().is_high();
                // SAFETY: claimed, and by contract.
                unsafe { self.parts.vmalloc.release(self.site(Urgency::Usual), record, aside) };
                Ok(())
            }
        }
    }

    /// Changes the size of an allocation, in place where it can be. On a refusal the old one is as it was.
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
        // Who shrinks gives memory back; the standard library takes a refusal of that for the end.
        let shrinks = thread.filter(|thread| new_size < layout.size() && !thread.is_relieving());
        shrinks.inspect(|thread| thread.set_relieving(true));
        // SAFETY: by contract.
        let to = unsafe { self.alloc(thread, new) };
        shrinks.inspect(|thread| thread.set_relieving(false));
        let to = to?;
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
            self.check_object(ptr, class);
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

    /// That a run or an area begins at `ptr` and has this layout, which goes that way.
    fn check_large(&self, ptr: NonNull<u8>, layout: Layout, route: Route) -> Result<(), Misuse> {
        match self.parts.zone.table.owner(ptr.as_ptr() as usize) {
            Owner::Chunk(map) => run_of(map, ptr, route).map(|_| ()),
            Owner::Area(record) => self.parts.vmalloc.check(record, ptr, layout),
            Owner::Nobody => Err(Misuse::Foreign),
        }
    }

    /// Changes the length of a run or an area without copying, if it can be done and the route stays the same. Both
    /// layouts come with their routes.
    ///
    /// # Safety
    /// As for [`Heap::realloc`].
    unsafe fn resize(
        &self,
        thread: Option<&Thread>,
        ptr: NonNull<u8>,
        (layout, is): (Layout, Route),
        (new, wanted): (Layout, Route),
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        match self.parts.zone.table.owner(ptr.as_ptr() as usize) {
            Owner::Chunk(map) => {
                let (page, has) = run_of(map, ptr, is)?;
                let Route::Run(wants, _) = wanted else { return Ok(None) };
                if wants > has
                    && !self.parts.zone.extend_pages(self.caller(thread), map, ptr.as_ptr() as usize, has, wants - has)
                {
                    return Ok(None);
                }
                // Before a tail goes: the pages behind the new end are not ours to speak of any more. Who frees or
                // resizes the run meanwhile has the tag instead of us.
                if wants != has && !map.replace_tag(page, Tag::run(has), Tag::run(wants)) {
                    return Err(Misuse::DoubleFree);
                }
                poison::fit(ptr, new.size(), wants.max(has).bytes());
                if wants < has {
                    let tail = ptr.as_ptr() as usize + wants.bytes();
                    self.parts.zone.free_pages(map, tail, has - wants)?;
                }
                Ok(Some(ptr))
            }
            // A run that no arena could hold is an area too; it stays one as long as it is too long for a chunk.
            Owner::Area(record) => match wanted {
                Route::Run(pages, _) if pages.get() <= PAGES_PER_CHUNK => {
                    self.parts.vmalloc.check(record, ptr, layout).map(|()| None)
                }
                _ => {
                    let site = self.site(self.caller(thread).urgency);
                    // SAFETY: by contract.
                    let mut resized = unsafe { self.parts.vmalloc.resize(site, record, ptr, layout, new) };
                    let more = new.size().saturating_sub(layout.size());
                    if resized == Ok(None) && self.counter().excess(more, site.urgency) > 0 {
                        // To copy it would need more.
                        let _still = self.kswapd().hold_still(self.os());
                        self.make_room(thread, more, site.urgency);
                        // SAFETY: by contract; it is as it was.
                        resized = unsafe { self.parts.vmalloc.resize(site, record, ptr, layout, new) };
                    }
                    self.watch();
                    resized
                }
            },
            Owner::Nobody => Err(Misuse::Foreign),
        }
    }

    /// Sets memory aside for one call into a library that allocates through this heap and cannot be told that there is
    /// none; until [`Heap::leave_library`] the thread's requests must go to [`Heap::library_alloc`]. False: do without.
    pub fn enter_library(&self) -> bool {
        self.parts.mempool.promise(self.os(), &self.parts.zone.kept)
    }

    /// The end of what [`Heap::enter_library`] began.
    pub fn leave_library(&self) {
        self.parts.mempool.release(self.os());
    }

    /// Memory for the library: up to [`Mempool::ELEMENT`] bytes, counted apart.
    pub fn library_alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        (layout.size().max(layout.align()) <= Mempool::ELEMENT).then(|| self.parts.mempool.alloc(self.os())).flatten()
    }

    /// Frees memory of the library.
    ///
    /// # Safety
    /// It came from [`Heap::library_alloc`], and nobody uses it any more.
    pub unsafe fn library_free(&self, ptr: NonNull<u8>) {
        // SAFETY: by contract.
        unsafe { self.parts.mempool.free(self.os(), ptr) };
    }

    /// Gives back what is not needed: the calling thread's sheaves, empty slabs, resident free pages, empty arenas,
    /// what ended threads left behind. Returns the bytes of free pages that went back to the system. Costs a walk over
    /// all arenas and a system call for each run of free pages.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn reclaim(&self, thread: Option<&Thread>) -> usize {
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        // SAFETY: by contract.
        let aside = unsafe { self.shrink(thread) };
        let pages = self.parts.zone.purge(self.caller(thread), Purge::ALL);
        let bytes = aside + PageCount::new(pages).bytes() + self.retire(thread);
        self.parts.registry.shrink(self.os());
        self.kswapd().note_call(bytes);
        bytes
    }

    /// True if `address` lies in an arena of this heap, or is the start of one of its areas.
    pub fn owns(&self, address: usize) -> bool {
        match self.parts.zone.table.holder(address) {
            Owner::Nobody => false,
            Owner::Chunk(_) => true,
            Owner::Area(record) => self.parts.vmalloc.begins_at(record, address),
        }
    }

    /// Ends the process: an object was misused.
    #[cold]
    fn found(&self, Found { at, said, misuse }: Found) -> ! {
        self.misused(at, misuse, Some(Route::Object(said)))
    }

    /// Ends the process: memory has not the layout that it was given back with.
    #[cold]
    fn not_so(&self, ptr: NonNull<u8>, misuse: Misuse, layout: Layout) -> ! {
        self.misused(ptr.as_ptr(), misuse, Some(Route::of(layout)))
    }

    /// Ends the process: memory was misused that was `said` to be something, or was not.
    #[cold]
    fn misused(&self, ptr: *mut u8, misuse: Misuse, said: Option<Route>) -> ! {
        let place = self.place(ptr as usize);
        let misuse = match (misuse, &place) {
            (Misuse::NotAStart, Place::Free) => Misuse::DoubleFree, // nothing but a run starts there, and it is gone
            _ => misuse,
        };
        match said {
            Some(said) => die(format_args!("{misuse}: {ptr:p} in {place}, given back as {said}")),
            None => die(format_args!("{misuse}: {ptr:p} in {place}")),
        }
    }

    fn place(&self, address: usize) -> Place {
        let map = match self.parts.zone.table.owner(address) {
            Owner::Nobody => return Place::Nowhere,
            Owner::Area(_) => return Place::In(Route::Area),
            Owner::Chunk(map) => map,
        };
        let in_run = |pages| Place::In(Route::Run(pages, Order::ZERO));
        match map.tag(map.page_of(address)).kind() {
            Kind::Slab { class, .. } => SizeClass::new(class).map_or(Place::Nowhere, |c| Place::In(Route::Object(c))),
            Kind::Run(pages) => in_run(pages),
            Kind::None => self.run_around(address).map_or(Place::Free, in_run),
        }
    }

    /// The length of the run that has the page of `address` without beginning there: the nearest tag below it tells.
    fn run_around(&self, address: usize) -> Option<PageCount> {
        for back in 1..VMALLOC_THRESHOLD / PAGE_SIZE {
            let below = address.checked_sub(back * PAGE_SIZE)?;
            let Owner::Chunk(map) = self.parts.zone.table.owner(below) else { return None };
            match map.tag(map.page_of(below)).kind() {
                Kind::None => {}
                Kind::Slab { .. } => return None,
                Kind::Run(pages) => return (pages.get() as usize > back).then_some(pages),
            }
        }
        None
    }
}

/// A run or an area that nobody else can free or resize any more.
enum Claimed<'a> {
    /// The map of its chunk, its first byte, its length.
    Run(&'a ChunkMap, NonNull<u8>, PageCount),
    /// Its record.
    Area(NonNull<u8>),
}

/// The page and length of the run that begins at `ptr`, if it is what it is said to be.
fn run_of(map: &ChunkMap, ptr: NonNull<u8>, said: Route) -> Result<(usize, PageCount), Misuse> {
    let page = map.page_of(ptr.as_ptr() as usize);
    match map.tag(page).kind() {
        Kind::Run(_) if ptr.as_ptr() as usize % PAGE_SIZE != 0 => Err(Misuse::NotAStart),
        Kind::Run(pages) => match said {
            Route::Run(says, _) if says == pages => Ok((page, pages)),
            _ => Err(Misuse::WrongLayout),
        },
        Kind::Slab { .. } => Err(Misuse::WrongLayout),
        Kind::None => Err(Misuse::NotAStart),
    }
}

/// What is at an address, for the last line of a process.
enum Place {
    Nowhere,
    Free,
    In(Route),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Nowhere => f.write_str("no memory of this heap"),
            Place::Free => f.write_str("free pages"),
            Place::In(route) => route.fmt(f),
        }
    }
}

/// Ends the process: nobody may use the heap any more, or not from here.
#[cold]
fn barred_out(barred: Barred) -> ! {
    die(format_args!("{}", barred.what()))
}

#[cfg(all(test, not(loom)))]
mod tests;
