//! settings: what can be set while a heap is in use. A setting that makes no sense is an error and changes nothing.

use super::Heap;
use crate::buddy::Purge;
use crate::config::PAGE_SIZE;
use crate::error::ConfigError;
use crate::huge::HugePages;
use crate::kswapd::Watermarks;
use crate::page_counter::{Limits, PageCounter, Urgency};
use crate::thread::Thread;
use crate::tunables::{Tunables, NEVER};
use crate::units::PageCount;
use crate::zone::Caller;

impl Heap {
    /// How much may be resident, and how much is.
    pub fn counter(&self) -> &PageCounter {
        &self.parts.zone.counter
    }

    /// How much free memory may stay resident, where so many bytes are free and resident, and so many in use.
    pub fn watermarks(&self, free: usize, used: usize) -> Watermarks {
        self.kswapd().watermarks(free, used, self.counter())
    }

    /// From now on, no more than that is resident. An error, and nothing changed, if the marks are not in order, or if more
    /// is in use than they allow. Costs a walk over all arenas, and if what is free and resident is
    /// too much, another one for each 64 MiB that goes back; in between others may fork.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn set_limits(&self, thread: Option<&Thread>, limits: Limits) -> Result<(), ConfigError> {
        let counter = self.counter();
        let free = self.calmly(thread, |caller| {
            if counter.usage() > 0 {
                // SAFETY: by contract.
                let aside = unsafe { self.shrink(thread) };
                self.kswapd().note_call(aside);
                self.parts.zone.collect(caller);
            }
            let (free, _) = self.parts.zone.resident_pages(caller);
            counter.set_limits(limits, counter.usage().saturating_sub(free * PAGE_SIZE))?;
            // Who was told of the old ones is to be told of these, but not who sets them because of that.
            if !thread.is_some_and(Thread::is_relieving) {
                self.kswapd().silence();
            }
            self.parts.zone.consider_kswapd(caller.os);
            Ok(free as u32)
        })?;
        if counter.is_exceeded(Urgency::Usual) || counter.is_high() {
            let purged = self.purge_calmly(thread, free, Purge::ALL);
            self.kswapd().note_call(PageCount::new(purged).bytes());
        }
        let _inside = self.enter(thread);
        self.parts.zone.watch(self.os());
        Ok(())
    }

    /// If there is more than the soft limit says, frees the memory behind free pages, as much as that is. True if there still
    /// is.
    pub fn stay_below_soft_limit(&self, thread: Option<&Thread>) -> bool {
        let thread = self.own(thread);
        let counter = self.counter();
        if counter.is_high() {
            self.give_back(thread, || counter.usage().saturating_sub(counter.limits().high));
        }
        counter.is_high()
    }

    /// From now on, free memory stays resident for so many milliseconds, and then goes back to the system by itself; never,
    /// if `None`.
    pub fn set_purge_after(&self, thread: Option<&Thread>, millis: Option<u32>) {
        self.calmly(self.own(thread), |caller| {
            self.kswapd().set_purge_after(caller.os, millis);
            self.restarted(caller);
        });
    }

    /// The thread that there may be is not wanted any more. There is another one, should the heap be large enough.
    pub fn dismiss_kswapd(&self, thread: Option<&Thread>) {
        self.calmly(self.own(thread), |caller| {
            self.kswapd().dismiss(caller.os);
            self.restarted(caller);
        });
    }

    /// Nobody ticks now, and perhaps nobody will. Whether there is to be a thread is looked at later than what was kept and set aside,
    /// so that growth meanwhile is not missed.
    fn restarted(&self, caller: Caller<'_>) {
        self.let_go_of_what_waits();
        self.parts.zone.consider_kswapd(caller.os);
    }

    /// There is no thread of this number, or none that ticks now: whoever gives pages back has to.
    pub fn without_kswapd(&self, thread: Option<&Thread>, number: u32) {
        self.kswapd().alone(self.os(), number);
        self.give_back_what_waits(self.own(thread));
    }

    /// What threads keep and what was set aside, for a tick that may not come, goes back. Returns the bytes that were aside.
    pub(super) fn give_back_what_waits(&self, thread: Option<&Thread>) -> usize {
        self.calmly(thread, |_| self.let_go_of_what_waits())
    }

    /// The same, of somebody who is inside.
    pub(super) fn let_go_of_what_waits(&self) -> usize {
        self.give_back_kept_runs();
        self.parts.vmalloc.shrink(self.site(Urgency::Usual))
    }

    /// What was set aside for a tick that may not come goes back. Returns the bytes.
    pub(super) fn give_back_what_is_aside(&self, thread: Option<&Thread>) -> usize {
        self.calmly(thread, |_| self.parts.vmalloc.shrink(self.site(Urgency::Usual)))
    }

    /// From now on, so much free memory stays resident. An error, and nothing changed, if `low` is above `high`; `None`: as the
    /// use of the heap says.
    pub fn set_watermarks(&self, low: Option<usize>, high: Option<usize>) -> Result<(), ConfigError> {
        self.kswapd().set_watermarks(low, high)
    }

    /// From now on, new memory is backed like that.
    pub fn set_huge_pages(&self, policy: HugePages) {
        self.parts.zone.huge.set(policy);
    }

    /// From now on, a page without access lies behind each new area, or none.
    pub fn set_guard_pages(&self, guards: bool) {
        self.parts.vmalloc.set_guards(guards);
    }

    /// From now on, the system is asked which pages of what is to read as zeros were written, or all of it is cleared.
    pub fn set_sparse_zeros(&self, asks: bool) {
        self.parts.zeroing.set(asks);
    }

    /// From now on, a tick looks whether the control group is short of memory, or does not.
    pub fn set_cgroup(&self, looks: bool) {
        self.kswapd().set_cgroup(looks);
    }

    /// Takes choices, each on its own. Those that make no sense are told, by what they are about, and left out.
    ///
    /// # Safety
    /// As for [`Heap::alloc`].
    pub unsafe fn configure(
        &self,
        thread: Option<&Thread>,
        tunables: &Tunables,
        refused: &mut dyn FnMut(&'static str, ConfigError),
    ) {
        let Tunables { low, high, purge_after, huge_pages, guard_pages, sparse_zeros, cgroup, .. } = *tunables;
        // SAFETY: by contract.
        let limits = tunables.limits().map(|limits| unsafe { self.set_limits(thread, limits) });
        let marks = (low.is_some() || high.is_some()).then(|| self.set_watermarks(low, high));
        for (what, set) in [("limit", limits), ("watermarks", marks)] {
            if let Some(Err(why)) = set {
                refused(what, why);
            }
        }
        if let Some(millis) = purge_after {
            self.set_purge_after(thread, (millis != NEVER).then_some(millis));
        }
        if let Some(policy) = huge_pages {
            self.set_huge_pages(policy);
        }
        if let Some(guards) = guard_pages {
            self.set_guard_pages(guards);
        }
        if let Some(asks) = sparse_zeros {
            self.set_sparse_zeros(asks);
        }
        if let Some(looks) = cgroup {
            self.set_cgroup(looks);
        }
    }
}
