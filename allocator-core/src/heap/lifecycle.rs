//! lifecycle: threads that come and go, and forks.
//!
//! A thread gets a block at its first slow call and gives it back when it ends; the block of one that a fork left behind is
//! adopted where memory is wanted.

use super::Heap;
use crate::cache::Found;
use crate::thread::Thread;

impl Heap {
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

    /// True if no thread of the program has a block.
    pub fn is_deserted(&self, thread: Option<&Thread>) -> bool {
        let _inside = self.enter(self.own(thread));
        self.parts.registry.live(self.os()) == 0
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
        unsafe { self.parts.registry.detach(self.os(), thread) };
        Ok(())
    }

    /// Frees the blocks of threads that a fork left behind.
    pub(super) fn adopt_orphans(&self) -> Result<(), Found> {
        for orphan in self.parts.registry.adopt(self.os()) {
            // SAFETY: its thread is no more, and it was outside when it went: what it had is whole.
            unsafe { orphan.settle(&self.parts.zone) };
            // SAFETY: as above.
            unsafe { self.empty_and_free(orphan) }?;
        }
        Ok(())
    }

    /// To be called before `fork`: waits until no other thread is in the heap, and keeps all but the calling one out.
    /// If somebody stays inside for seconds, or the calling thread is inside, nobody is kept out, and the child will not be
    /// able to use the heap. That thread is a signal handler: a block says so by itself; `interrupts`, that it has
    /// interrupted a call without one.
    pub fn before_fork(&self, thread: Option<&Thread>, interrupts: bool) {
        let inside = self.is_inside(thread, interrupts);
        self.parts.gate.close(self.os(), inside, || self.parts.registry.presences());
    }

    fn is_inside(&self, thread: Option<&Thread>, interrupts: bool) -> bool {
        interrupts || self.own(thread).is_some_and(|thread| thread.presence().is_inside())
    }

    /// To be called after `fork` in the parent.
    ///
    /// # Safety
    /// By the thread that called [`Heap::before_fork`] before, once for each such call.
    pub unsafe fn after_fork_in_parent(&self) {
        self.parts.gate.open(self.os());
    }

    /// To be called after `fork` in the child. What other threads had in their sheaves is kept until somebody needs it;
    /// what they had from the heap stays allocated.
    /// `interrupts` as before the fork.
    ///
    /// # Safety
    /// By the thread that called [`Heap::before_fork`] before, once for each such call; and no other thread of the process uses this
    /// heap, or will, that used it then.
    pub unsafe fn after_fork_in_child(&self, thread: Option<&Thread>, interrupts: bool) {
        let inside = self.is_inside(thread, interrupts);
        let before = || {
            self.parts.registry.fork(self.os(), self.own(thread));
            self.parts.zone.kswapd.fork();
        };
        if self.parts.gate.open_in_child(self.os(), inside, self.parts.registry.presences(), before) {
            self.give_back_what_is_aside(self.own(thread));
        }
    }
}
