//! vmalloc: requests too long for an arena, each a mapping of its own.
//!
//! # Algorithm
//! An area is mapped at its length, or longer where its start must be aligned. Its record, out of band, says what was
//! asked for, and the address table leads to it from the 2 MiB window in which it begins; since no area is shorter
//! than a window, a window has one at most. Growing uses the spare tail, then more room behind it, then moves the
//! pages to another place (`mremap`), which copies nothing; moved areas get a spare tail of an eighth and up to the next
//! 2 MiB, so that a vector that grows in small steps moves seldom. What the system does not take back is kept and used again; a guard, to
//! which it has not given the access back either, stays *closed* in the area's record, and is offered again.
//!
//! What is freed may be *set aside* for a while, resident and counted: the next area of about that length that will be used
//! as a whole is the same pages, and the system need not clear them. A request that finds none of its length, or does not look since it is
//! for zeros or aligned to more than a page, shows that the program has moved on, so all that is set aside goes back before it maps
//! more; the rest goes by ticks of kswapd.
//!
//! # Invariants
//! - Vm1: the record of an area that is handed out is in the table, and in no list; the others are in one, free or closed.
//! - Vm2: of several threads that free or resize one area exactly one finds it in the table.
//! - Vm3: the owner of an area, and nobody else, changes its record.
//! - Vm4: what is set aside is in no table, and counted as long as it is.

use crate::config::{CHUNK_SIZE, MIN_AREA, PAGE_SIZE, VMALLOC_THRESHOLD};
use crate::error::{AllocError, Misuse};
use crate::huge::{HugePages, Policy};
use crate::page::AddressTable;
use crate::page_counter::{PageCounter, Urgency};
use crate::poison;
use crate::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use crate::sync::{const_unless_loom, recheck, Mutex, Rank, Ranked, UnwatchedU32};
use crate::sys::{Guarded, Kept, Os, Reservation};
use core::alloc::Layout;
use core::mem::size_of;
use core::ptr::{null_mut, NonNull};

/// The record of one area. All but `start` is its owner's, or that of the list which it is in.
#[repr(C, align(64))]
struct Record {
    /// Where the area begins. `owns` looks at it from any thread; Relaxed, since the table published the record.
    start: AtomicPtr<u8>,
    area: Area,
}

/// What its owner knows of an area.
#[derive(Clone, Copy)]
struct Area {
    ptr: NonNull<u8>,
    layout: Layout,
    /// The mapping that it lies in.
    map: NonNull<u8>,
    map_len: usize,
    /// What was asked for, in whole pages of the system: so much of it is counted.
    len: usize,
    /// Bytes without access behind that; none, or one of those pages.
    guard: usize,
    /// How they came to have none.
    guarded: Guarded,
    /// Whether huge pages were asked for, or none; `None`: it was left to the system.
    huge: Option<bool>,
    next: *mut Record,
}

impl Area {
    /// Bytes from its start to the end of the mapping, but for a guard.
    fn room(&self) -> usize {
        self.map_len - (self.ptr.as_ptr() as usize - self.map.as_ptr() as usize) - self.guard
    }
}

impl Record {
    /// # Safety
    /// The record is mapped, and the caller is the area's owner.
    unsafe fn read(this: NonNull<Self>) -> Area {
        // SAFETY: by contract.
        unsafe { (*this.as_ptr()).area }
    }

    /// # Safety
    /// The record is mapped, and the caller is the area's owner (Vm3).
    unsafe fn write(this: NonNull<Self>, area: Area) {
        // SAFETY: by contract mapped, and written when it was made; only the atomic is referred to.
        let start = unsafe { &(*this.as_ptr()).start };
        start.store(area.ptr.as_ptr(), Relaxed);
        // SAFETY: by contract.
        unsafe { (*this.as_ptr()).area = area };
    }
}

/// Bytes of records mapped at a time.
const RECORDS_LEN: usize = if cfg!(kmalloc_loom) { 2 * size_of::<Record>() } else { PAGE_SIZE };

/// Mappings that are set aside at the most, and bytes of them.
const ASIDE: usize = 4;
const ASIDE_BYTES: usize = 4 * VMALLOC_THRESHOLD;

/// So many chunks of an area are asked about, all over it.
const ASKED_PARTS: usize = 16;

/// A mapping without an area. The one at null is none.
#[derive(Clone, Copy)]
struct Aside {
    map: *mut u8,
    map_len: usize,
    /// So much of it may be resident.
    len: usize,
    /// As of an area.
    huge: Option<bool>,
    /// Since before the last tick.
    old: bool,
}

impl Aside {
    // All zeros, as all of a new heap: it must cost no space in a binary.
    const NONE: Self = Self { map: null_mut(), map_len: 0, len: 0, huge: Some(false), old: false };
}

/// Where areas come from and are entered.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The system.
    pub os: &'a dyn Os,
    /// What it did not take back.
    pub kept: &'a Kept,
    /// From addresses to areas.
    pub table: &'a AddressTable,
    /// What may be resident.
    pub counter: &'a PageCounter,
    /// What is backed by huge pages.
    pub huge: &'a Policy,
    /// What the caller may take where there is a limit.
    pub urgency: Urgency,
}

struct Records {
    free: *mut Record,
    /// Those whose `map` and `map_len` are what the system did not take back of an area: it cannot be touched.
    closed: *mut Record,
    /// Records ever made: in a list, or of an area.
    made: usize,
    areas: usize,
    bytes: usize,
    /// Those of the bytes that were asked for, in whole pages of the system.
    asked: usize,
    aside: [Aside; ASIDE],
    /// The last two that were mapped to be written as a whole: where they begin, and their lengths; null, and zero, if they do
    /// not any more.
    opened: [(*mut u8, usize); 2],
}

impl Records {
    fn aside_bytes(&self) -> usize {
        self.aside.iter().map(|aside| aside.len).sum()
    }

    /// Nobody is to ask about the area that begins there.
    fn forget(&mut self, start: *mut u8) {
        for opened in &mut self.opened {
            if opened.0 == start {
                *opened = (null_mut(), 0);
            }
        }
    }
}

// SAFETY: the records in the lists belong to them, and they to the lock around them.
unsafe impl Send for Records {}

/// Areas of one heap.
pub struct Vmalloc {
    records: Mutex<Records>,
    /// One if new areas get a page without access behind them.
    guards: UnwatchedU32,
}

impl Ranked for Records {
    const RANK: Rank = Rank::Vmalloc;
}

impl Vmalloc {
    const_unless_loom! {
        /// No areas.
        pub fn new() -> Self {
            let (free, closed) = (null_mut(), null_mut());
            let (aside, opened) = ([Aside::NONE; ASIDE], [(null_mut(), 0); 2]);
            let none = Records { free, closed, made: 0, areas: 0, bytes: 0, asked: 0, aside, opened };
            Self { records: Mutex::new(none), guards: UnwatchedU32::new(0) }
        }
    }

    /// An area, and whether it is known to read as zeros. If it is `dense`, that is all of it will be used, huge pages are asked
    /// for unless those before it were not, or what was set aside is used again; if not, which of it has huge pages is the system's
    /// choice, unless the policy says otherwise. Costs two to six system calls, sixteen more for a look at another area, another
    /// one if it is said which pages it has, and one for a guard.
    pub fn alloc(&self, site: Site<'_>, layout: Layout, dense: bool) -> Result<(NonNull<u8>, bool), AllocError> {
        let wants_huge = || match site.huge.get() {
            HugePages::Never => Some(false),
            HugePages::Auto => dense.then_some(!site.huge.areas.is_sparse()),
            HugePages::Always => Some(true),
        };
        let len = Self::mapped_len(site.os, layout.size())?;
        let guard = if self.guards.load(Relaxed) != 0 { site.os.page_size() } else { 0 };
        let again = (dense && layout.align() <= site.os.page_size())
            .then(|| self.take_aside(site, layout, (len, guard), wants_huge()))
            .flatten();
        if again.is_none() {
            self.give_aside_back(site, |_| true);
        }
        let zero = again.is_none();
        if zero && dense {
            self.look_before(site);
        }
        let mapped = again.or_else(|| Self::map_new(site, layout, (len, guard), wants_huge()));
        let mut area = mapped.ok_or(AllocError::OutOfMemory)?;
        let Some(record) = self.record(site) else {
            // SAFETY: just mapped or taken, not used yet.
            unsafe { site.kept.unmap(site.os, area.map, area.map_len) };
            site.counter.uncharge(len);
            return Err(AllocError::OutOfMemory);
        };
        Self::put_guard(site.os, &mut area);
        if zero && dense {
            let mut records = self.records.lock(site.os);
            records.opened = [records.opened[1], (area.ptr.as_ptr(), area.len)];
        }
        // SAFETY: the record is ours (Vm3).
        unsafe { Record::write(record, area) };
        self.count(site.os, null_mut(), 1, area.map_len as isize, len as isize);
        poison::fit(area.ptr, layout.size(), area.room());
        site.table.set_area(area.ptr, record.cast());
        Ok((area.ptr, zero))
    }

    /// A new mapping of `len` bytes and a guard, counted, with its window prepared.
    fn map_new(site: Site<'_>, layout: Layout, (len, guard): (usize, usize), huge: Option<bool>) -> Option<Area> {
        if len > site.counter.room(site.urgency) {
            return None;
        }
        let has_huge = huge == Some(true) && site.os.has_huge_pages();
        let (ptr, map, map_len) = Self::map(site, len + guard, layout.align(), has_huge)?;
        // Counted only now: what the system refuses, others must not find in the figure even for a moment.
        if !site.table.prepare(site.os, site.kept, ptr, 1) || !site.counter.try_charge(len, site.urgency) {
            // SAFETY: just mapped, not used yet.
            unsafe { site.kept.unmap(site.os, map, map_len) };
            return None;
        }
        if let Some(huge) = huge {
            // SAFETY: just mapped. A refusal costs time or memory, nothing else.
            unsafe { site.os.advise_huge(map, map_len, huge) };
        }
        // SAFETY: just mapped. A refusal costs a name, nothing else.
        unsafe { site.os.name(map, map_len, c"kmalloc area") };
        Some(Area { ptr, layout, map, map_len, len, guard, guarded: Guarded::ByAccess, huge, next: null_mut() })
    }

    /// Asks the system, before a new area that is to be written as a whole, whether the last but one was: the last one may be about to
    /// be. Nothing is known of one that was freed since, or has another length.
    #[cold]
    #[inline(never)] // beside what is set aside and used again
    fn look_before(&self, site: Site<'_>) {
        if site.huge.get() != HugePages::Auto || !site.os.has_huge_pages() {
            return;
        }
        // Whoever unmaps it waits for this lock before.
        let records = self.records.lock(site.os);
        let [(ptr, len), _] = records.opened;
        let step = (len / ASKED_PARTS) & !(site.os.page_size() - 1);
        let (mut all, mut resident) = (0, 0);
        for from in (0..ASKED_PARTS).map(|part| part * step) {
            let part = CHUNK_SIZE.min(len - from);
            let Some(says) = NonNull::new(ptr.wrapping_add(from)).and_then(|from| site.os.resident(from, part)) else {
                break;
            };
            all += part;
            resident += says;
        }
        site.huge.areas.note_resident(resident, all);
    }

    /// Nobody is to ask about an area any more, since a part of it or all goes.
    #[cold]
    #[inline(never)]
    fn forget(&self, os: &dyn Os, area: &Area) {
        self.records.lock(os).forget(area.ptr.as_ptr());
    }

    /// What was set aside and has about this length, counted as that; its window is prepared, since it had an area.
    fn take_aside(
        &self,
        site: Site<'_>,
        layout: Layout,
        (len, guard): (usize, usize),
        huge: Option<bool>,
    ) -> Option<Area> {
        let fits = |aside: &Aside| (len + guard..=len + guard + len / 4).contains(&aside.map_len);
        let found = self.unlink_aside(site.os, fits)?;
        let map = NonNull::new(found.map)?;
        poison::unpoison(map, found.map_len);
        let fitted = if found.len < len {
            site.counter.try_charge(len - found.len, site.urgency)
        } else if found.len > len {
            // SAFETY: inside the mapping.
            let tail = unsafe { map.add(len) };
            // SAFETY: as above.
            unsafe { site.os.discard(tail, found.len - len) }
        } else {
            true
        };
        if !fitted {
            // SAFETY: ours alone.
            unsafe { site.kept.unmap(site.os, map, found.map_len) };
            site.counter.uncharge(found.len);
            return None;
        }
        if found.len > len {
            site.counter.uncharge(found.len - len);
        }
        if let Some(says) = huge.filter(|_| huge != found.huge) {
            // SAFETY: ours alone. A refusal costs time or memory, nothing else.
            unsafe { site.os.advise_huge(map, found.map_len, says) };
        }
        Some(Area {
            ptr: map,
            layout,
            map,
            map_len: found.map_len,
            len,
            guard,
            guarded: Guarded::ByAccess,
            huge: huge.or(found.huge),
            next: null_mut(),
        })
    }

    fn unlink_aside(&self, os: &dyn Os, which: impl Fn(&Aside) -> bool) -> Option<Aside> {
        let mut records = self.records.lock(os);
        let found = records.aside.iter_mut().find(|aside| !aside.map.is_null() && which(aside))?;
        Some(core::mem::replace(found, Aside::NONE))
    }

    /// Sets the mapping of an area aside. False, and nothing done, if there is too much already.
    fn set_aside(&self, os: &dyn Os, area: &Area) -> bool {
        let mut records = self.records.lock(os);
        if area.ptr != area.map || records.aside_bytes() + area.len > ASIDE_BYTES {
            return false;
        }
        let Some(place) = records.aside.iter_mut().find(|aside| aside.map.is_null()) else { return false };
        poison::poison(area.map, area.map_len);
        *place = Aside { map: area.map.as_ptr(), map_len: area.map_len, len: area.len, huge: area.huge, old: false };
        true
    }

    /// Gives what is set aside and is `such` back to the system. Returns the bytes that may have been resident.
    fn give_aside_back(&self, site: Site<'_>, such: impl Fn(&Aside) -> bool + Copy) -> usize {
        let mut bytes = 0;
        while let Some(Aside { map, map_len, len, .. }) = self.unlink_aside(site.os, such) {
            if let Some(map) = NonNull::new(map) {
                poison::unpoison(map, map_len);
                // SAFETY: ours alone (Vm4).
                unsafe { site.kept.unmap(site.os, map, map_len) };
            }
            site.counter.uncharge(len);
            bytes += len;
        }
        bytes
    }

    /// Gives all that is set aside back to the system, and offers it what is closed. Returns the bytes that were set aside.
    pub fn shrink(&self, site: Site<'_>) -> usize {
        self.retry_closed(site.os);
        self.give_aside_back(site, |_| true)
    }

    /// A tick: what was set aside before the last one goes back. Returns the bytes, and whether there is more.
    pub fn age(&self, site: Site<'_>) -> (usize, bool) {
        self.retry_closed(site.os);
        let bytes = self.give_aside_back(site, |aside| aside.old);
        let mut records = self.records.lock(site.os);
        records.aside.iter_mut().for_each(|aside| aside.old = true);
        (bytes, records.aside_bytes() > 0)
    }

    /// Unmaps what is closed, unless the system refuses again.
    fn retry_closed(&self, os: &dyn Os) {
        let mut next = core::mem::replace(&mut self.records.lock(os).closed, null_mut());
        while let Some(record) = NonNull::new(next) {
            // SAFETY: it was in the list, so it is ours now.
            let area = unsafe { Record::read(record) };
            next = area.next;
            // SAFETY: the rest of a mapping of ours, which nobody uses.
            if unsafe { os.unmap(area.map, area.map_len) } {
                self.recycle(os, record);
            } else {
                self.close(os, record);
            }
        }
    }

    /// Bytes that are closed.
    pub fn closed_bytes(&self, os: &dyn Os) -> usize {
        let records = self.records.lock(os);
        let (mut next, mut bytes) = (records.closed, 0);
        while let Some(record) = NonNull::new(next) {
            // SAFETY: in the list, whose lock we have.
            let area = unsafe { Record::read(record) };
            (next, bytes) = (area.next, bytes + area.map_len);
        }
        bytes
    }

    /// Bytes that are set aside.
    pub fn aside_bytes(&self, os: &dyn Os) -> usize {
        self.records.lock(os).aside_bytes()
    }

    /// From now on, a page without access lies behind each new area, or none.
    pub fn set_guards(&self, guards: bool) {
        self.guards.store(guards.into(), Relaxed);
    }

    /// Takes the access to the page behind it, where the area is to have a guard. A refusal costs the guard, nothing else.
    fn put_guard(os: &dyn Os, area: &mut Area) {
        // SAFETY: inside the mapping, or at its end if there is no guard.
        let page = unsafe { area.ptr.add(area.len) };
        // SAFETY: whole pages of the mapping, behind all that was asked for.
        match (area.guard > 0).then(|| unsafe { os.guard(page, area.guard) }).flatten() {
            Some(guarded) => area.guarded = guarded,
            None => area.guard = 0,
        }
    }

    /// Gives the access back. False if the system refuses.
    fn take_guard(os: &dyn Os, area: &Area) -> bool {
        // SAFETY: as in `put_guard`.
        let page = unsafe { area.ptr.add(area.len) };
        // SAFETY: as above.
        area.guard == 0 || unsafe { os.unguard(page, area.guard, area.guarded) }
    }

    fn mapped_len(os: &dyn Os, size: usize) -> Result<usize, AllocError> {
        let len = os.whole_pages(size);
        // With room for a guard behind it.
        if len > isize::MAX as usize - CHUNK_SIZE {
            return Err(AllocError::TooLarge);
        }
        Ok(len.max(MIN_AREA))
    }

    /// A mapping of at least `len` bytes that contains an aligned range of them: that range, and the mapping. `huge`: better one that
    /// begins with a huge page. The system sees to that if it is as long as some of them, and what is too much goes back at once.
    fn map(site: Site<'_>, len: usize, align: usize, huge: bool) -> Option<(NonNull<u8>, NonNull<u8>, usize)> {
        if align <= site.os.page_size() {
            let long = len.next_multiple_of(CHUNK_SIZE);
            if let Some(map) = (huge && long > len).then(|| site.kept.map(site.os, long)).flatten() {
                // SAFETY: inside the mapping.
                let tail = unsafe { map.add(len) };
                // SAFETY: the end of the mapping, not used yet.
                let cut = unsafe { site.os.unmap(tail, long - len) };
                return Some((map, map, if cut { len } else { long }));
            }
            let map = site.kept.map(site.os, len)?;
            return Some((map, map, len));
        }
        // Writable from the start only where it must be: while it is trimmed it is longer than it need be.
        if let Some(place) = site.kept.place(site.os) {
            let range = Reservation::new(site.os, site.kept, len, align, false)?;
            // SAFETY: the whole mapping, just reserved.
            if unsafe { site.os.commit(range.map, range.map_len) } {
                return Some((range.ptr, range.map, range.map_len));
            }
            // SAFETY: just reserved, not used yet.
            unsafe { place.unmap(range.map, range.map_len) };
        }
        let range = Reservation::new(site.os, site.kept, len, align, true)?;
        Some((range.ptr, range.map, range.map_len))
    }

    /// Takes an area out of the table, for [`Vmalloc::release`] alone to follow. `record` is what the table says of the
    /// window of `ptr`. Of several threads exactly one succeeds.
    #[inline(never)] // leaves registers to those who free runs
    pub fn claim(
        &self,
        table: &AddressTable,
        record: NonNull<u8>,
        ptr: NonNull<u8>,
        layout: Layout,
    ) -> Result<(), Misuse> {
        self.check(record, ptr, layout)?;
        if !table.clear_area(ptr, record) {
            return Err(Misuse::DoubleFree);
        }
        // Once more, now that it is ours: another thread may have resized it in between, and entered it again.
        match self.check(record, ptr, layout) {
            Err(misuse) if recheck("an area was resized meanwhile", true) => {
                table.set_area(ptr, record);
                Err(misuse)
            }
            _ => Ok(()),
        }
    }

    /// Frees an area that the caller has claimed; `aside`: its mapping may be set aside, since ticks will come.
    ///
    /// # Safety
    /// Nobody uses it any more.
    pub unsafe fn release(&self, site: Site<'_>, record: NonNull<u8>, aside: bool) {
        let record = record.cast::<Record>();
        // SAFETY: the area was in the table, so it was live, and it is ours now (Vm2, Vm3).
        let area = unsafe { Record::read(record) };
        let Area { map_len, len, .. } = area;
        let mut closed = false;
        self.count(site.os, area.ptr.as_ptr(), -1, -(map_len as isize), -(len as isize));
        poison::unpoison(area.map, area.map_len);
        if Self::take_guard(site.os, &area) {
            if aside && self.set_aside(site.os, &area) {
                self.recycle(site.os, record);
                return;
            }
            // SAFETY: as above, and by contract.
            unsafe { site.kept.unmap(site.os, area.map, map_len) };
        // SAFETY: as above.
        } else if !unsafe { site.os.unmap(area.map, map_len) } {
            // What has no access cannot be used again: its record remembers it.
            let before = area.ptr.as_ptr() as usize - area.map.as_ptr() as usize + len;
            // SAFETY: inside the mapping.
            let guard = unsafe { area.map.add(before) };
            // SAFETY: ours as above (Vm3).
            unsafe { Record::write(record, Area { map: guard, map_len: map_len - before, ..area }) };
            closed = true;
            // SAFETY: as above.
            unsafe { site.kept.unmap(site.os, area.map, before) };
        }
        // Not before: somebody else takes the room at once.
        site.counter.uncharge(len);
        if closed {
            self.close(site.os, record);
        } else {
            self.recycle(site.os, record);
        }
    }

    fn compare(area: &Area, ptr: NonNull<u8>, layout: Layout) -> Result<(), Misuse> {
        if area.ptr != ptr {
            Err(Misuse::NotAStart)
        } else if area.layout != layout {
            Err(Misuse::WrongLayout)
        } else {
            Ok(())
        }
    }

    /// That the area of `record`, which the table says of the window of `ptr`, begins there and has this layout.
    pub(crate) fn check(&self, record: NonNull<u8>, ptr: NonNull<u8>, layout: Layout) -> Result<(), Misuse> {
        // SAFETY: the table led here, and the caller claims to be the owner.
        let area = unsafe { Record::read(record.cast()) };
        Self::compare(&area, ptr, layout)
    }

    /// The layout of the area of `record`, which the table says of the window of `ptr`, if it begins there.
    pub fn layout_of(&self, record: NonNull<u8>, ptr: NonNull<u8>) -> Option<Layout> {
        if !self.begins_at(record, ptr.as_ptr() as usize) {
            return None; // somebody else's, who may change it now
        }
        // SAFETY: the table led here, and the caller is the owner.
        Some(unsafe { Record::read(record.cast()) }.layout)
    }

    /// Changes the length of an area, moving its pages if it must. `Ok(None)`: not without copying.
    ///
    /// # Safety
    /// `ptr` is the caller's claim to own the area; after `Ok(Some(new))` the old address is gone.
    pub unsafe fn resize(
        &self,
        site: Site<'_>,
        record: NonNull<u8>,
        ptr: NonNull<u8>,
        layout: Layout,
        new: Layout,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let Ok(need) = Self::mapped_len(site.os, new.size()) else {
            return self.check(record, ptr, layout).map(|()| None);
        };
        self.claim(site.table, record, ptr, layout)?;
        let record = record.cast::<Record>();
        // SAFETY: claimed (Vm2, Vm3).
        let mut area = unsafe { Record::read(record) };
        let had = area.len;
        if !Self::take_guard(site.os, &area) {
            site.table.set_area(ptr, record.cast());
            return Ok(None);
        }
        let before = area.map_len;
        poison::unpoison(area.map, area.map_len);
        // The spare tail was never touched, so what counts is what was asked for.
        let may = need <= had || site.counter.try_charge(need - had, site.urgency);
        let done =
            may && (self.fit(site.os, &mut area, had, need) || Self::move_to_room(site, &mut area, need, new.align()));
        if done {
            (area.layout, area.len) = (new, need);
        }
        Self::put_guard(site.os, &mut area);
        // SAFETY: it was in the table, so it is ours (Vm2, Vm3).
        unsafe { Record::write(record, area) };
        let over = if done { had.saturating_sub(need) } else { need.saturating_sub(had) };
        if may && over > 0 {
            site.counter.uncharge(over);
        }
        poison::fit(area.ptr, area.layout.size(), area.room());
        // Its window is prepared: the old one was, and `move_to_room` has seen to the new one.
        site.table.set_area(area.ptr, record.cast());
        if !done {
            return Ok(None);
        }
        if (area.map_len, need) != (before, had) {
            self.count(site.os, ptr.as_ptr(), 0, area.map_len as isize - before as isize, need as isize - had as isize);
        }
        Ok(Some(area.ptr))
    }

    /// Makes the mapping hold `need` bytes behind the area's start, where it lies. It had `had` that may be resident; what
    /// it has no need for is not any more.
    fn fit(&self, os: &dyn Os, area: &mut Area, had: usize, need: usize) -> bool {
        let head = area.ptr.as_ptr() as usize - area.map.as_ptr() as usize;
        let (has, whole) = (area.room(), need + area.guard);
        // Only a mapping that begins with its area can be cut and stretched; a little spare tail is left alone.
        let keep = need <= has && (head != 0 || has - need <= need / 4 + CHUNK_SIZE);
        if !keep {
            self.forget(os, area); // it is cut, or moved if it cannot be stretched
        }
        // SAFETY: the whole mapping; what is cut off lies behind the new length.
        if !keep && head == 0 && unsafe { os.resize(area.map, area.map_len, whole) } {
            area.map_len = whole;
            return true;
        }
        if need < had {
            // SAFETY: inside the mapping.
            let tail = unsafe { area.ptr.add(need) };
            // SAFETY: behind the new length.
            let freed = unsafe { os.discard(tail, had - need) };
            if !freed {
                self.forget(os, area);
            }
            // What is locked in memory the system does not free, but it can be cut off. A refusal costs memory, nothing else.
            // SAFETY: as above.
            if !freed && keep && head == 0 && unsafe { os.resize(area.map, area.map_len, whole) } {
                area.map_len = whole;
            }
        }
        need <= has // also where the system refused to cut: it stays longer than it need be
    }

    /// Moves the pages to a mapping of `need` bytes and, if it can be had, a spare tail. Only where any page may begin
    /// the area: the system chooses the place. The area is not in the table: others may map and enter its old window as
    /// soon as the pages have left it.
    fn move_to_room(site: Site<'_>, area: &mut Area, need: usize, align: usize) -> bool {
        if area.ptr != area.map || align > site.os.page_size() {
            return false;
        }
        // Once the pages have moved there is no way back, so what the table may need is taken before.
        let Some(leaf) = site.table.hold_leaf(site.os, site.kept) else { return false };
        let need = need + area.guard;
        // Huge pages are moved as such from one place that begins with one to another (`map`).
        let roomy = need.saturating_add(need / 8).next_multiple_of(CHUNK_SIZE);
        let moved = [roomy, need].into_iter().find_map(|len| {
            // SAFETY: the area's own mapping; a refusal leaves it as it is.
            unsafe { site.os.relocate(area.map, area.map_len, len) }.map(|to| (to, len))
        });
        if let Some((to, map_len)) = moved {
            *area = Area { ptr: to, map: to, map_len, ..*area };
        }
        site.table.prepare_with(site.os, site.kept, leaf, area.ptr);
        moved.is_some()
    }

    fn record(&self, site: Site<'_>) -> Option<NonNull<Record>> {
        if let Some(record) = self.pop(site.os) {
            return Some(record);
        }
        let memory = site.kept.map(site.os, RECORDS_LEN)?;
        // SAFETY: just mapped. A refusal costs a name, nothing else.
        unsafe { site.os.name(memory, site.os.whole_pages(RECORDS_LEN), c"kmalloc areas") };
        self.records.lock(site.os).made += RECORDS_LEN / size_of::<Record>();
        for i in 0..RECORDS_LEN / size_of::<Record>() {
            // SAFETY: inside the new mapping, which is aligned to more than a record.
            let record = unsafe { memory.cast::<Record>().add(i) };
            // SAFETY: as above.
            let start = unsafe { core::ptr::addr_of_mut!((*record.as_ptr()).start) };
            // SAFETY: nobody else knows the record yet.
            unsafe { start.write(AtomicPtr::new(null_mut())) };
            if i > 0 {
                self.recycle(site.os, record);
            }
        }
        Some(memory.cast())
    }

    fn pop(&self, os: &dyn Os) -> Option<NonNull<Record>> {
        let mut records = self.records.lock(os);
        let record = NonNull::new(records.free)?;
        // SAFETY: in the list, so nobody else's.
        records.free = unsafe { (*record.as_ptr()).area.next };
        Some(record)
    }

    fn recycle(&self, os: &dyn Os, record: NonNull<Record>) {
        Self::push(&mut self.records.lock(os).free, record);
    }

    fn close(&self, os: &dyn Os, record: NonNull<Record>) {
        Self::push(&mut self.records.lock(os).closed, record);
    }

    /// Puts the caller's own record in front of a list, whose lock it holds.
    fn push(list: &mut *mut Record, record: NonNull<Record>) {
        // SAFETY: the caller's own. Only the link is written, and a pointer needs no dropping.
        unsafe { (*record.as_ptr()).area.next = *list };
        *list = record.as_ptr();
    }

    /// Counts what has changed; `of`: an area is gone that began there, or has another length.
    fn count(&self, os: &dyn Os, of: *mut u8, areas: isize, bytes: isize, asked: isize) {
        let mut records = self.records.lock(os);
        records.forget(of);
        records.asked = records.asked.wrapping_add_signed(asked);
        records.areas = records.areas.wrapping_add_signed(areas);
        records.bytes = records.bytes.wrapping_add_signed(bytes);
    }

    /// True if the area of `record`, which the table says of its window, begins at `address`.
    pub(crate) fn begins_at(&self, record: NonNull<u8>, address: usize) -> bool {
        let record = record.cast::<Record>().as_ptr();
        // SAFETY: records stay mapped for ever, and the table led here. Only the atomic is referred to: the rest may
        // change meanwhile.
        let start = unsafe { &(*record).start };
        start.load(Relaxed) as usize == address
    }

    /// Checks that no record is lost; for a moment when nobody else is here.
    pub fn validate(&self, os: &dyn Os) -> Result<(), &'static str> {
        let records = self.records.lock(os);
        let mut listed = 0;
        for list in [records.free, records.closed] {
            let mut next = list;
            while let Some(record) = NonNull::new(next) {
                // SAFETY: in the list, whose lock we have.
                next = unsafe { (*record.as_ptr()).area.next };
                listed += 1;
            }
        }
        if listed + records.areas != records.made {
            return Err("vmalloc: a record is lost, or in two places (Vm1)");
        }
        Ok(())
    }

    /// Bytes mapped for records.
    pub fn own_bytes(&self, os: &dyn Os) -> usize {
        self.records.lock(os).made / (RECORDS_LEN / size_of::<Record>()) * os.whole_pages(RECORDS_LEN)
    }

    /// Bytes that are counted: what areas were asked for, each in whole pages of the system, and what is set aside.
    pub fn charged_bytes(&self, os: &dyn Os) -> usize {
        let records = self.records.lock(os);
        records.asked + records.aside_bytes()
    }

    /// Areas that are handed out, and the bytes mapped for them.
    pub fn usage(&self, os: &dyn Os) -> (usize, usize) {
        let records = self.records.lock(os);
        (records.areas, records.bytes)
    }
}
