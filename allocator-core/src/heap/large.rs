//! large: runs of pages, and areas.
//!
//! Both are *claimed* before they are freed, moved, or given another length: the tag of the page or the window in the table
//! changes, once, so of several threads that do so to one block exactly one goes on, and the others are told of a misuse.

use super::Heap;
use crate::config::{MIN_AREA, PAGES_PER_CHUNK, PAGE_SIZE, ROOMY_PAGES};
use crate::error::{AllocError, Misuse};
use crate::kmalloc::Route;
use crate::page::{ChunkMap, Kind, Owner, Tag};
use crate::page_counter::Urgency;
use crate::poison;
use crate::thread::Thread;
use crate::units::{Order, PageCount};
use crate::zone::Caller;
use core::alloc::Layout;
use core::ptr::NonNull;

impl Heap {
    /// A run, and how many bytes of it are not known to be zero. Where no arena can hold it, an area.
    pub(super) fn alloc_run(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        pages: PageCount,
        align: Order,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        let written = dense || self.parts.zeroing.is_dense();
        if !dense && pages.get() >= ROOMY_PAGES {
            self.parts.zone.huge.note_room();
        }
        match self.parts.zone.alloc_pages(self.caller(thread), pages, align, written) {
            Ok(run) => {
                self.hand_over(run.ptr, layout, pages);
                Ok((run.ptr, run.content.stale().bytes()))
            }
            // An area is at least a chunk long, so what is shorter has no better chance there.
            Err(_) if pages.get() > PAGES_PER_CHUNK => self.alloc_area(thread, layout, dense),
            Err(refused) => Err(refused),
        }
    }

    /// A run for one that grows by a quarter at most and had no room where it lay: as far behind the one before it, so that such ones
    /// side by side need not be copied each time. `None`: as usual.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_run_with_room(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        let (Route::Run(had, _), Route::Run(wants, Order::ZERO)) = (Route::of(layout), Route::of(new)) else {
            return None;
        };
        let with_room = |pages: PageCount| PageCount::new(pages.get() + pages.get().div_ceil(4));
        if wants > with_room(had) {
            return None;
        }
        let _inside = self.enter(thread);
        let run = self.parts.zone.take_with_room(self.caller(thread), wants, with_room(wants))?;
        self.hand_over(run.ptr, new, wants);
        Some(run.ptr)
    }

    /// Says that these pages are a run.
    #[inline(always)]
    pub(super) fn hand_over(&self, run: NonNull<u8>, layout: Layout, pages: PageCount) {
        let map = self.parts.zone.map_of(run.as_ptr());
        map.set_tag(map.page_of(run.as_ptr() as usize), Tag::run(pages));
        poison::unpoison(run, layout.size());
    }

    /// An area, and how many bytes of it are not known to be zero.
    pub(super) fn alloc_area(
        &self,
        thread: Option<&Thread>,
        layout: Layout,
        dense: bool,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        let caller = self.caller(thread);
        if !dense {
            self.parts.zone.huge.note_room();
        }
        let area = self.parts.vmalloc.alloc(self.site(caller.urgency), layout, dense);
        self.watch();
        let (ptr, zeros) = area?;
        self.kswapd().grown(self.os(), layout.size(), self.counter().limits());
        Ok((ptr, if zeros { 0 } else { layout.size() }))
    }

    /// Looks whether areas have made it more than a soft limit says.
    fn watch(&self) {
        if self.counter().is_marked() {
            self.parts.zone.watch(self.os());
        }
    }

    /// Takes a run or an area from whoever else might free or resize it: of several threads exactly one succeeds.
    #[inline]
    pub(super) fn claim(&self, ptr: NonNull<u8>, layout: Layout) -> Result<Claimed<'_>, Misuse> {
        match self.parts.zone.table.owner(ptr.as_ptr() as usize) {
            Owner::Chunk(map) => claim_run(map, ptr, layout).map(|pages| Claimed::Run(map, ptr, pages)),
            Owner::Area(record) => {
                self.parts.vmalloc.claim(&self.parts.zone.table, record, ptr, layout).map(|()| Claimed::Area(record))
            }
            Owner::Nobody => Err(Misuse::Foreign),
        }
    }

    /// Frees what was claimed.
    ///
    /// # Safety
    /// Nobody uses it any more.
    #[inline]
    pub(super) unsafe fn release(&self, claimed: Claimed<'_>) -> Result<(), Misuse> {
        match claimed {
            Claimed::Run(map, ptr, pages) => {
                poison::poison(ptr, pages.bytes());
                self.parts.zone.free_pages(map, ptr.as_ptr() as usize, pages)
            }
            Claimed::Area(record) => {
                // SAFETY: claimed, and by contract.
                unsafe { self.release_area(record) };
                Ok(())
            }
        }
    }

    /// Takes a run that is freed for the thread to keep, if it wants one, and gives that one back which had to go for it; not where
    /// nobody is to tick, nor where memory is short. As with objects no gate is passed: a thread that a fork stops in here loses one
    /// run that was its own.
    #[inline]
    pub(super) fn keep(&self, thread: Option<&Thread>, ptr: NonNull<u8>, layout: Layout, pages: PageCount) -> bool {
        let would =
            |thread: &&Thread| thread.pcp().wants(pages) && !self.kswapd().is_off() && !self.counter().is_high();
        let Some(thread) = thread.filter(would) else { return false };
        let Owner::Chunk(map) = self.parts.zone.table.owner(ptr.as_ptr() as usize) else { return false };
        match claim_run(map, ptr, layout) {
            Ok(pages) => poison::poison(ptr, pages.bytes()),
            Err(misuse) => self.not_so(ptr, misuse, layout),
        }
        let other = thread.pcp().put((ptr, pages));
        // Or nobody is to tick any more, as was said meanwhile.
        if let Some(run) = other.or_else(|| if self.kswapd().is_off() { thread.pcp().empty() } else { None }) {
            let _inside = self.enter(Some(thread));
            self.parts.zone.give_back_kept(run);
        }
        true
    }

    /// Gives the runs back that threads keep.
    pub(super) fn give_back_kept_runs(&self) {
        self.parts.registry.kept_runs().for_each(|run| self.parts.zone.give_back_kept(run));
    }

    /// Not a part of [`Heap::release`], so that runs need fewer registers.
    ///
    /// # Safety
    /// The area was claimed, and nobody uses it any more.
    #[inline(never)]
    unsafe fn release_area(&self, record: NonNull<u8>) {
        let site = self.site(Urgency::Usual);
        // Only with somebody who will give it back.
        let aside = self.kswapd().is_awake() && !self.counter().is_high();
        // SAFETY: by contract.
        unsafe { self.parts.vmalloc.release(site, record, aside) };
        if aside && !self.kswapd().is_awake() {
            self.parts.vmalloc.shrink(site); // nobody will, as was said meanwhile
        }
    }

    /// That a run or an area begins at `ptr` and has this layout, which goes that way.
    pub(super) fn check_large(&self, ptr: NonNull<u8>, layout: Layout, route: Route) -> Result<(), Misuse> {
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
    pub(super) unsafe fn resize(
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
                if wants > has {
                    self.parts.zone.huge.note_room();
                    let (caller, start) = (self.caller(thread), ptr.as_ptr() as usize);
                    if !self.parts.zone.extend_pages(caller, map, start, has, wants - has) {
                        return Ok(None);
                    }
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
                    let resized = unsafe { self.parts.vmalloc.resize(site, record, ptr, layout, new) };
                    if new.size() > layout.size() {
                        self.parts.zone.huge.note_room();
                    }
                    self.watch();
                    resized
                }
            },
            Owner::Nobody => Err(Misuse::Foreign),
        }
    }

    /// Grows an area near a limit where it lies, after what is free has gone back: to copy it would need more. `None`: it is none, or it
    /// cannot grow here.
    ///
    /// # Safety
    /// As for [`Heap::realloc`]; it is to be longer.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn grow_area_at_last(
        &self,
        thread: Option<&Thread>,
        ptr: NonNull<u8>,
        layout: Layout,
        new: Layout,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let is_area = || matches!(self.parts.zone.table.owner(ptr.as_ptr() as usize), Owner::Area(_));
        if self.counter().limits().max == 0 || !is_area() || self.never_fits(new.size()) {
            return Ok(None);
        }
        let len = |layout: Layout| self.os().whole_pages(layout.size().max(MIN_AREA));
        let (more, urgency) = (len(new).saturating_sub(len(layout)), self.caller(thread).urgency);
        // SAFETY: by contract.
        let grow = |_: Caller<'_>| unsafe { self.resize_area(thread, ptr, layout, new) };
        // Others may take the room, so all goes back then.
        for room in [more, usize::MAX] {
            if self.counter().excess(more, urgency) > 0 {
                self.make_room(thread, room, urgency);
            }
            let grown = self.calmly(thread, grow);
            if grown != Ok(None) || self.counter().excess(more, urgency) == 0 {
                return grown;
            }
        }
        Ok(None)
    }

    /// What [`Heap::resize`] does with an area, not a part of it. `None` if it is none, too.
    ///
    /// # Safety
    /// As for [`Heap::realloc`]; inside.
    #[cold]
    unsafe fn resize_area(
        &self,
        thread: Option<&Thread>,
        ptr: NonNull<u8>,
        layout: Layout,
        new: Layout,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let Owner::Area(record) = self.parts.zone.table.owner(ptr.as_ptr() as usize) else { return Ok(None) };
        let site = self.site(self.caller(thread).urgency);
        // SAFETY: by contract.
        let resized = unsafe { self.parts.vmalloc.resize(site, record, ptr, layout, new) };
        self.watch();
        resized
    }

    /// Keeps an area that is to be a run, and makes it shorter where it lies: no run could be had, and what needs no more memory
    /// is not to be refused.
    ///
    /// # Safety
    /// As for [`Heap::realloc`].
    #[cold]
    pub(super) unsafe fn stay_an_area(
        &self,
        thread: Option<&Thread>,
        ptr: NonNull<u8>,
        layout: Layout,
        new: Layout,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let is_run = matches!(Route::of(new), Route::Run(..));
        if !is_run || new.size() > layout.size().max(MIN_AREA) {
            return Ok(None);
        }
        let _inside = self.enter(thread);
        // SAFETY: by contract.
        unsafe { self.resize_area(thread, ptr, layout, new) }
    }
}

/// A run or an area that nobody else can free or resize any more.
pub(super) enum Claimed<'a> {
    /// The map of its chunk, its first byte, its length.
    Run(&'a ChunkMap, NonNull<u8>, PageCount),
    /// Its record.
    Area(NonNull<u8>),
}

/// Takes the run that begins at `ptr` from whoever else might free or resize it, if it is what it is said to be.
#[inline]
fn claim_run(map: &ChunkMap, ptr: NonNull<u8>, layout: Layout) -> Result<PageCount, Misuse> {
    let (page, pages) = run_of(map, ptr, Route::of(layout))?;
    if !map.replace_tag(page, Tag::run(pages), Tag::NONE) {
        return Err(Misuse::DoubleFree);
    }
    Ok(pages)
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
