//! hollow: memory behind the free objects of slabs that are at rest goes back to the system.
//!
//! # Algorithm
//! One object in a hundred that survives keeps the slab of the others. An allocator whose free objects hold its links
//! can do nothing about that; here nothing lies in them. So a look at a shard frees the memory behind the *holes* of its
//! resting slabs, whole pages of the system in which no object is out, and lets the sparse ones rest: who takes an object
//! of one or gives one back before the next look makes it sparse again. Only sparse slabs are looked at: it must be worth to
//! fault the pages in again; and only those more than half of which is free where a huge page is to be broken up.
//!
//! The objects in the holes are taken for as long as the system frees their memory, as by a refill, so that nobody else
//! can have them, and no lock is held meanwhile. Nobody can give the slab up meanwhile either: not all of it is free.

use super::{give_back, Caches, Found, Partial};
use crate::config::{MIN_PARTIAL, PAGE_SIZE};
use crate::error::Misuse;
use crate::size_class::SizeClass;
use crate::slab::{Holes, Listed, Slab};
use crate::zone::{Caller, Zone};
use core::ptr::NonNull;

/// Slabs whose holes are taken at a time.
const HOLLOWED: usize = 16;

/// Slabs that are laid to rest at a time.
const RESTED: usize = 64;

/// A slab, its first byte, its holes, and whether more than half of its objects are free.
type Taken = Option<(NonNull<Slab>, *mut u8, Holes, bool)>;

impl Partial {
    /// Takes the holes of the first slabs that have rested since the last look. Those without any are hollow.
    fn take_holes(&mut self, page_size: usize, class: SizeClass) -> [Taken; HOLLOWED] {
        let mut taken = [None; HOLLOWED];
        for place in &mut taken {
            let Some(mut slab) = self.resting.first() else { break };
            // SAFETY: on a list of this shard, whose lock we have; the reference ends before `put_on`.
            let this = unsafe { slab.as_mut() };
            let before = this.free();
            let holes = this.take_holes(page_size);
            let (after, base) = (this.free(), this.base());
            self.free -= before - after;
            // SAFETY: of this shard.
            unsafe { self.put_on(slab, if after == 0 { Listed::Full } else { Listed::Hollow }) };
            // What no object lies in, the rest of a slab behind its last one, would not keep the slab.
            if after < before {
                *place = Some((slab, base, holes, before * 2 > class.slab_objects()));
            }
        }
        taken
    }

    /// Gives the objects in the holes back. A slab that nobody has touched meanwhile is hollow. An object of them that is
    /// free already was freed twice.
    fn fill_holes(
        &mut self,
        taken: [Taken; HOLLOWED],
        page_size: usize,
        zone: &Zone,
        class: SizeClass,
        shard: usize,
    ) -> Result<(), Found> {
        for (mut slab, base, holes, _) in taken.into_iter().flatten() {
            let map = zone.map_of(base);
            let page = map.page_of(base as usize);
            if map.tag(page).of_shard(class.index(), shard as u8) != Some(page) {
                // Others have freed all of them, too, and the slab was given up.
                return Err(Found { at: base, said: class, misuse: Misuse::DoubleFree });
            }
            // SAFETY: of this shard, as the tag says, whose lock we have (Sl3); the reference ends before `put_on`.
            let this = unsafe { slab.as_mut() };
            let before = this.free();
            let twice = this.fill_holes(holes, page_size);
            self.free += this.free() - before;
            let belongs = match (this.listed(), this.belongs()) {
                (Listed::Full | Listed::Hollow, Listed::Sparse) => Listed::Hollow,
                (_, belongs) => belongs,
            };
            // SAFETY: of this shard.
            unsafe { self.put_on(slab, belongs) };
            if let Some(at) = twice {
                return Err(Found { at, said: class, misuse: Misuse::DoubleFree });
            }
        }
        Ok(())
    }

    /// Lets the first of the sparse slabs rest. Returns how many.
    fn lay_to_rest(&mut self) -> usize {
        for n in 0..RESTED {
            let Some(slab) = self.sparse.first() else { return n };
            // SAFETY: on a list of this shard.
            unsafe { self.put_on(slab, Listed::Resting) };
        }
        RESTED
    }
}

impl Caches {
    /// Frees the memory behind the holes of some slabs of a shard that have rested. Returns the bytes; `None` if none has
    /// rested. Call it with no lock held.
    pub fn hollow(
        &self,
        zone: &Zone,
        caller: Caller<'_>,
        class: SizeClass,
        shard: usize,
        page_size: usize,
    ) -> Result<Option<usize>, Found> {
        if page_size > PAGE_SIZE {
            return Ok(None); // a page of the system may hold others' objects, too
        }
        let taken = {
            let mut partial = self.shard(class, shard).partial.lock(caller.os);
            if partial.resting.len() == 0 {
                return Ok(None);
            }
            partial.take_holes(page_size, class)
        };
        let mut bytes = 0;
        for (_, base, holes, most) in taken.iter().flatten() {
            if !most && zone.map_of(*base).is_huge() {
                continue;
            }
            for (start, len) in holes.runs(page_size) {
                // SAFETY: holes lie inside the slab.
                let ptr = unsafe { base.add(start) };
                // SAFETY: whole pages in which no object is out, and we have all of them.
                bytes += if unsafe { zone.discard_part(caller.os, ptr, len) } { len } else { 0 };
            }
        }
        let own = self.shard(class, shard);
        let chain = {
            let mut partial = own.partial.lock(caller.os);
            partial.fill_holes(taken, page_size, zone, class, shard)?;
            own.trim(&mut partial, MIN_PARTIAL as usize, zone, class)
        };
        give_back(chain, zone, class)?;
        Ok(Some(bytes))
    }

    /// Lets the sparse slabs of a shard rest. Returns how many. Call it with no lock held.
    pub fn lay_to_rest(&self, caller: Caller<'_>, class: SizeClass, shard: usize) -> usize {
        let (mut rested, mut all) = (0, usize::MAX);
        // Others may make sparse ones all the time.
        while rested < all {
            let mut partial = self.shard(class, shard).partial.lock(caller.os);
            all = all.min(rested + partial.sparse.len());
            let now = partial.lay_to_rest();
            rested += now;
            if now < RESTED {
                break;
            }
        }
        rested
    }
}
