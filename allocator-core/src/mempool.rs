//! Mempool: memory set aside for a library that cannot be told that there is none.
//!
//! # Algorithm
//! Elements of one size from mappings of their own, in a list threaded through the free ones. Before a caller starts
//! what it cannot break off, it has elements *promised*; a promise is given only while as many are free beyond those
//! promised to others. The kernel's mempool does the same for block I/O.
//!
//! The library's need is not bounded by the call alone. Whoever collects garbage unlinks the records of all threads
//! that have ended since, 64 to each further element, and each of them is an element that is out. So that many are
//! free beyond all promises; callers share them, since only one unlinks a record.
//!
//! # Invariants
//! - Me1: the list has `free` elements, and they belong to the pool.
//! - Me2: whoever has a promise of `n` gets `n` elements.

use crate::config::PAGE_SIZE;
use crate::sync::{const_unless_loom, Mutex, Rank, Ranked};
use crate::sys::{Kept, Os};
use core::ptr::{null_mut, NonNull};

struct Element {
    next: *mut Element,
}

struct Pool {
    list: *mut Element,
    free: usize,
    promised: usize,
    out: usize,
}

// SAFETY: the free elements belong to the pool, and the pool to the lock around it.
unsafe impl Send for Pool {}

/// Elements mapped at a time.
const BATCH: usize = 2 * PAGE_SIZE / Mempool::ELEMENT;

/// Elements of [`Mempool::ELEMENT`] bytes.
pub struct Mempool {
    pool: Mutex<Pool>,
}

impl Ranked for Pool {
    const RANK: Rank = Rank::Registry;
}

impl Mempool {
    /// Bytes in an element, and its alignment.
    pub const ELEMENT: usize = if cfg!(kmalloc_loom) { 8 } else { 4096 };
    /// Elements in one promise.
    pub const PROMISE: usize = 8;
    /// Elements out, at least, for each further one that a call may need: crossbeam-epoch's bag holds as many records.
    pub const RECORDS: usize = 64;

    const_unless_loom! {
        /// An empty pool.
        pub fn new() -> Self {
            Self { pool: Mutex::new(Pool { list: null_mut(), free: 0, promised: 0, out: 0 }) }
        }
    }

    /// Promises [`Mempool::PROMISE`] elements. False if the system refuses memory for them.
    pub fn promise(&self, os: &dyn Os, kept: &Kept) -> bool {
        let mut pool = self.pool.lock(os);
        while pool.free < pool.promised + Self::PROMISE + pool.out.div_ceil(Self::RECORDS) {
            let Some(memory) = kept.map(os, BATCH * Self::ELEMENT) else { return false };
            // SAFETY: just mapped. A refusal costs a name, nothing else.
            unsafe { os.name(memory, os.whole_pages(BATCH * Self::ELEMENT), c"kmalloc mempool") };
            for i in 0..BATCH {
                // SAFETY: inside the new mapping.
                let element = unsafe { memory.add(i * Self::ELEMENT) };
                // SAFETY: ours, page-aligned.
                unsafe { pool.put(element) };
            }
        }
        pool.promised += Self::PROMISE;
        true
    }

    /// Takes a promise back; elements taken under it stay out.
    pub fn release(&self, os: &dyn Os) {
        self.pool.lock(os).promised -= Self::PROMISE;
    }

    /// Takes an element: one of those promised to the caller.
    pub fn alloc(&self, os: &dyn Os) -> Option<NonNull<u8>> {
        let mut pool = self.pool.lock(os);
        let element = NonNull::new(pool.list)?;
        // SAFETY: in the list, so ours (Me1).
        pool.list = unsafe { (*element.as_ptr()).next };
        pool.free -= 1;
        pool.out += 1;
        Some(element.cast())
    }

    /// Gives an element back.
    ///
    /// # Safety
    /// It came from [`Mempool::alloc`], and nobody uses it any more.
    pub unsafe fn free(&self, os: &dyn Os, element: NonNull<u8>) {
        let mut pool = self.pool.lock(os);
        pool.out -= 1;
        // SAFETY: by contract.
        unsafe { pool.put(element) };
    }

    /// Bytes mapped for elements.
    pub fn own_bytes(&self, os: &dyn Os) -> usize {
        let pool = self.pool.lock(os);
        (pool.free + pool.out) / BATCH * os.whole_pages(BATCH * Self::ELEMENT)
    }

    /// Elements that are out.
    pub fn in_use(&self, os: &dyn Os) -> usize {
        self.pool.lock(os).out
    }
}

impl Pool {
    /// # Safety
    /// The element is the pool's, and in no list.
    unsafe fn put(&mut self, element: NonNull<u8>) {
        let element = element.cast::<Element>().as_ptr();
        // SAFETY: by contract ours, and aligned.
        unsafe { element.write(Element { next: self.list }) };
        self.list = element;
        self.free += 1;
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;
    use crate::sys::{Call, FaultyOs, Plan, Unix};

    #[test]
    fn a_promise_is_kept_when_the_system_refuses_everything() {
        let (os, kept, pool) = (FaultyOs::new(Unix), Kept::new(), Mempool::new());
        assert!(pool.promise(&os, &kept) && pool.promise(&os, &kept));
        os.plan(Plan::Kind(Call::Map));
        assert!(!pool.promise(&os, &kept), "two promises are all that one mapping holds");
        let mut out = [(); 2 * Mempool::PROMISE].map(|()| pool.alloc(&os).unwrap());
        out.sort();
        assert!(out.windows(2).all(|w| w[1].as_ptr() as usize - w[0].as_ptr() as usize >= Mempool::ELEMENT));
        assert_eq!((pool.alloc(&os), pool.in_use(&os)), (None, out.len()));
        // SAFETY: just taken.
        out.iter().for_each(|e| unsafe { pool.free(&os, *e) });
        pool.release(&os);
        pool.release(&os);
        assert!(pool.promise(&os, &kept), "what came back can be promised again");
        assert_eq!(pool.in_use(&os), 0);
    }

    #[test]
    fn elements_can_be_had_when_their_mapping_gets_no_name() {
        let (os, kept, pool) = (FaultyOs::new(Unix), Kept::new(), Mempool::new());
        os.plan(Plan::Kind(Call::Name));
        assert!(pool.promise(&os, &kept) && pool.alloc(&os).is_some());
        assert_eq!((os.calls_of(Call::Name), os.refused()), (1, 1));
    }
}
