//! Live: which objects the program has. Only with the feature `checked`; without it nothing is noted here.
//!
//! # Algorithm
//! Beside the bitmap of a slab, which says what is free *in the slab*, lies another with one bit per object: set while
//! the program has the object. An object in a sheaf has neither bit. Handing an object out sets its bit, taking it back
//! clears it, and the bit's old value decides. So everything that is given back is judged at the call: the address
//! table knows foreign pointers, the page's tag the class, the reciprocal of the size what is no start of an object,
//! and the bit what is free already or was never handed out.
//!
//! The bits of one word belong to objects of different threads, hence atomic operations, and of two threads that give
//! the same object back exactly one finds the bit.
//!
//! # Invariants (each is a line of [`validate`], `Thread::validate` or `Heap::validate`)
//! - Lv1: an object that is free in its slab or lies in a sheaf is not live.
//! - Lv2: there are as many live objects as are neither free in a slab nor in a sheaf; in a child of a fork one more or
//!   less for each thread of its parent, which may have been stopped between its sheaf and the bit.
//!
//! # Memory ordering
//! Relaxed throughout: a bit changes hands with its object, ordered by what orders the object.

use crate::cache::{locate, Found};
use crate::config::CHECKED;
use crate::error::Misuse;
use crate::page::ChunkMap;
use crate::size_class::SizeClass;
use crate::slab::Slab;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::zone::Zone;
use core::ptr::NonNull;

/// The word and the bit in it of an object of `class`, or why it is none.
fn bit(zone: &Zone, object: *mut u8, class: SizeClass) -> Result<(&AtomicU64, u64), Found> {
    let at = locate(zone, object, class)?;
    // The memmap stays as long as the caller's object. Who has none misuses the heap: see `owner`.
    Ok((&Slab::live(at.map, at.page, class)[at.number / 64], 1 << (at.number % 64)))
}

/// Notes that the program has an object now. False if it had it already: the heap is damaged.
#[inline(always)]
pub fn hand_out(zone: &Zone, object: NonNull<u8>, class: SizeClass) -> bool {
    !CHECKED || bit(zone, object.as_ptr(), class).is_ok_and(|(word, bit)| word.fetch_or(bit, Relaxed) & bit == 0)
}

/// Notes that the program gives an object back. An error if it has none of this class there.
#[inline(always)]
pub fn take_back(zone: &Zone, object: NonNull<u8>, class: SizeClass) -> Result<(), Found> {
    if CHECKED {
        decide(zone, object.as_ptr(), class, |word, bit| word.fetch_and(!bit, Relaxed))
    } else {
        Ok(())
    }
}

/// Notes that the program has no object there, whatever was noted before.
pub fn forget(zone: &Zone, object: *mut u8, class: SizeClass) {
    if let Ok((word, bit)) = bit(zone, object, class) {
        word.fetch_and(!bit, Relaxed);
    }
}

/// That the program has an object of this class there; without the feature, that such an object may be there.
pub fn check(zone: &Zone, object: *mut u8, class: SizeClass) -> Result<(), Found> {
    if CHECKED {
        decide(zone, object, class, |word, _| word.load(Relaxed))
    } else {
        locate(zone, object, class).map(|_| ())
    }
}

/// An error unless the old value of an object's word, which `look` gets, has its bit.
fn decide(
    zone: &Zone,
    object: *mut u8,
    class: SizeClass,
    look: impl FnOnce(&AtomicU64, u64) -> u64,
) -> Result<(), Found> {
    match bit(zone, object, class)? {
        (word, bit) if look(word, bit) & bit != 0 => Ok(()),
        _ => Err(Found { at: object, said: class, misuse: Misuse::DoubleFree }),
    }
}

/// That no live object of a slab is free in it (Lv1), while nobody else is here. For who has the lock of the slab's shard.
pub fn validate(zone: &Zone, slab: &Slab, class: SizeClass) -> Result<(), &'static str> {
    if !CHECKED {
        return Ok(());
    }
    let map = zone.map_of(slab.base());
    let words = Slab::live(map, map.page_of(slab.base() as usize), class).iter().zip(slab.free_bits());
    for (live, free) in words {
        if live.load(Relaxed) & free != 0 {
            return Err("live: an object is free in its slab (Lv1)");
        }
    }
    Ok(())
}

/// The number of live objects of the slab of a class that begins at a page, at about this moment.
pub fn count(map: &ChunkMap, page: usize, class: SizeClass) -> usize {
    Slab::live(map, page, class).iter().map(|live| live.load(Relaxed).count_ones() as usize).sum()
}
