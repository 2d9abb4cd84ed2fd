//! tick: what kswapd does, and in which order.
//!
//! # Algorithm
//! A tick goes from the small to the large, so that what one step gives back can be had by the next tick: empty slabs, and the
//! runs that threads keep, to the arenas; areas that were set aside before the last tick to the system; memory behind the
//! holes of slabs at rest, and behind free pages that are idle, to the system; empty arenas as a whole. Last, what is free now
//! is marked, and sparse slabs are laid to rest: if nobody touches them until the next tick, it is their turn.
//!
//! It is done in pieces, each inside the gate and with the right to be the only one who ticks, and never longer than a fork
//! can wait.

use super::Heap;
use crate::buddy::Purge;
use crate::config::{PAGES_PER_CHUNK, PAGE_SIZE};
use crate::kswapd::Kswapd;
use crate::page_counter::Urgency;
use crate::size_class::SizeClass;
use crate::thread::Thread;
use crate::units::PageCount;
use crate::zone::Caller;

/// Free pages that a chunk must have for a tick to purge it: whole chunks first, then those that are nearly empty.
const EMPTIEST_FIRST: [u32; 4] = [PAGES_PER_CHUNK, PAGES_PER_CHUNK / 4 * 3, PAGES_PER_CHUNK / 2, 1];

/// Pages that are purged before others may fork: 64 MiB, some milliseconds.
pub(super) const AT_A_TIME: u32 = 32 * PAGES_PER_CHUNK;

impl Heap {
    /// When free memory goes back to the system by itself.
    pub fn kswapd(&self) -> &Kswapd {
        &self.parts.zone.kswapd
    }

    /// The body of the thread of this number: gives memory back that has not been used for a while, until nobody wants it
    /// to, or until no thread of the program has a block: then all goes back at once that would have with the next ticks. It may begin after
    /// it is not wanted any more. After each tick it calls `after`, outside.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn run_kswapd(&self, thread: Option<&Thread>, number: u32, after: &dyn Fn()) {
        let mut quiet = 0;
        let is_short = || {
            self.look_at_group(thread);
            self.is_short()
        };
        let is_deserted = || self.is_deserted(thread);
        while self.kswapd().wait(self.os(), number, quiet, &is_short, &is_deserted) {
            // SAFETY: by contract.
            let worked = unsafe { self.tick(thread) };
            after();
            // What the program has freed here.
            // SAFETY: by contract.
            unsafe { self.send_home(thread) };
            // What others have kept or set aside meanwhile is to have its tick.
            let waits = |caller: Caller<'_>| {
                self.parts.registry.kept_pages() > 0 || self.parts.vmalloc.aside_bytes(caller.os) > 0
            };
            let worked = worked || self.calmly(thread, waits);
            quiet = if worked { 0 } else { quiet + 1 };
            if is_deserted() {
                // What the last tick has marked.
                // SAFETY: by contract.
                unsafe { self.tick(thread) };
                self.kswapd().retire(number);
            }
        }
        self.kswapd().forget_group();
        self.give_back_what_waits(thread);
    }

    /// One tick of kswapd: gives empty slabs back to the arenas, and to the system what was free at the last tick already,
    /// down to the low watermark. False: there was nothing to do. Costs a walk over the words of all chunks, and a
    /// system call for each run that goes back; in between others may fork.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn tick(&self, thread: Option<&Thread>) -> bool {
        let zone = &self.parts.zone;
        self.kswapd().silence();
        let short = self.is_short();
        let mut excess = self.calmly(thread, |caller| {
            self.shrink_caches(caller, self.shards());
            self.give_back_kept_runs();
            self.parts.registry.shrink(caller.os);
            let (resident, used) = zone.resident_pages(caller);
            let bounds = self.watermarks(resident * PAGE_SIZE, used * PAGE_SIZE);
            if self.kswapd().has_fallen(used * PAGE_SIZE) || short {
                self.parts.registry.ask_back();
            }
            if resident * PAGE_SIZE > bounds.high {
                resident.saturating_sub(bounds.low / PAGE_SIZE) as u32
            } else {
                0
            }
        });
        let aside = self.calmly(thread, |_| {
            let (vmalloc, site) = (&self.parts.vmalloc, self.site(Urgency::Usual));
            if short {
                (vmalloc.shrink(site), false)
            } else {
                vmalloc.age(site)
            }
        });
        let hollowed = self.hollow(thread);
        let mut purged = 0;
        for least in EMPTIEST_FIRST {
            let now = self.purge_calmly(thread, excess, Purge { idle: !short, least, ..Purge::ALL });
            purged += now;
            excess = excess.saturating_sub(now);
        }
        let aged = self.calmly(thread, |caller| {
            zone.retire_empty(caller, true);
            zone.collect(caller);
            zone.kept.shrink(caller.os);
            zone.name_arenas(caller);
            self.parts.registry.name(caller.os);
            zone.ripen(caller);
            let aged = zone.mark_idle(caller);
            if excess > 0 && purged == 0 && aged == 0 {
                // What is locked in memory the system takes back with its mapping alone.
                zone.retire_empty(caller, false);
            }
            aged
        });
        let rested = self.lay_to_rest(thread);
        if self.is_short() {
            self.kswapd().alarm(self.os());
        }
        let bytes = aside.0 + hollowed + PageCount::new(purged).bytes();
        self.kswapd().note_tick(bytes);
        bytes > 0 || aside.1 || rested > 0 || excess > 0 && aged > 0 || self.is_short()
    }

    /// Whether more is resident than the soft limit says, or the control group is short of memory.
    fn is_short(&self) -> bool {
        self.counter().is_high() || self.kswapd().is_group_short()
    }

    /// Purges `excess` pages, or a chunk more, in pieces; of what is `such`. Returns how many.
    pub(super) fn purge_calmly(&self, thread: Option<&Thread>, excess: u32, such: Purge) -> u32 {
        let mut purged = 0;
        while purged < excess {
            let most = (excess - purged).min(AT_A_TIME);
            let now = self.calmly(thread, |caller| self.parts.zone.purge(caller, Purge { most, ..such }));
            purged += now;
            if now < most {
                break;
            }
        }
        purged
    }

    /// Sends the calling thread's objects home.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    unsafe fn send_home(&self, thread: Option<&Thread>) {
        let _inside = self.enter(thread);
        // SAFETY: by contract.
        if let Some(Err(found)) = thread.map(|thread| unsafe { self.flush(thread) }) {
            self.found(found);
        }
    }

    fn look_at_group(&self, thread: Option<&Thread>) {
        let _inside = self.enter(thread);
        let mut still = self.kswapd().hold_still(self.os());
        self.kswapd().look_at_group(self.os(), &mut still);
    }

    /// Frees the memory behind the holes of all slabs that have rested. Returns the bytes.
    fn hollow(&self, thread: Option<&Thread>) -> usize {
        let mut bytes = 0;
        for (class, shard) in self.used_shards() {
            let some = |caller: Caller<'_>| match self.parts.caches.hollow(
                &self.parts.zone,
                caller,
                class,
                shard,
                caller.os.page_size(),
            ) {
                Ok(bytes) => bytes,
                Err(found) => self.found(found),
            };
            while let Some(now) = self.calmly(thread, some) {
                bytes += now;
            }
        }
        bytes
    }

    /// Lets all sparse slabs rest. Returns how many.
    fn lay_to_rest(&self, thread: Option<&Thread>) -> usize {
        let rest = |(class, shard)| self.calmly(thread, |caller| self.parts.caches.lay_to_rest(caller, class, shard));
        self.used_shards().map(rest).sum()
    }

    /// The shards that may have slabs; the locks of others were never touched.
    fn used_shards(&self) -> impl Iterator<Item = (SizeClass, usize)> {
        let shards = self.shards();
        SizeClass::all().flat_map(move |class| (0..shards).map(move |shard| (class, shard)))
    }

    /// A piece of a tick, or of something as long, short enough for a fork to wait for it; and for whoever must meet no pages in transit.
    pub(super) fn calmly<R>(&self, thread: Option<&Thread>, piece: impl FnOnce(Caller<'_>) -> R) -> R {
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        piece(self.caller(thread))
    }
}
