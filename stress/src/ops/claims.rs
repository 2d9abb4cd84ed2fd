//! Which addresses are handed out: an overlap shows at once, whoever has the other block.
//!
//! # Algorithm
//! One bit for each granule of 8 bytes, set by whoever gets a block and cleared by whoever is about to free it; a bit
//! that is set already is an overlap. No lock: a small block is one or two atomic operations. The bits of 2 MiB of
//! addresses are a *window*, found by three levels of nine address bits each; tables and windows are made when they are
//! first needed, by the system's allocator, and go with the map.

use allocator_core::config::{ADDRESS_BITS, CHUNK_SHIFT};
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// Bytes of one bit; no two blocks share as many.
const GRANULE: usize = 8;
/// Bytes of one word of bits.
const PER_WORD: usize = 64 * GRANULE;
/// Words of one window.
const WORDS: usize = (1 << CHUNK_SHIFT) / PER_WORD;
/// Entries of a table.
const ENTRIES: usize = 512;
const _: () = assert!(1 << (ADDRESS_BITS - CHUNK_SHIFT) <= ENTRIES * ENTRIES * ENTRIES);

/// All zeros at first, whatever it consists of; so it is made from zeros.
type Window = [AtomicU64; WORDS];

/// Places of what is made when it is first needed, and never goes before the table.
struct Table<T>([AtomicPtr<T>; ENTRIES]);

impl<T: Default> Default for Table<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicPtr::new(null_mut())))
    }
}

impl<T: Default> Table<T> {
    fn at(&self, place: usize) -> &T {
        let place = &self.0[place % ENTRIES];
        let mut seen = place.load(Acquire);
        if seen.is_null() {
            let new = Box::into_raw(Box::<T>::default());
            match place.compare_exchange(null_mut(), new, AcqRel, Acquire) {
                Ok(_) => seen = new,
                Err(theirs) => {
                    // SAFETY: made above, and nobody else knows it.
                    drop(unsafe { Box::from_raw(new) });
                    seen = theirs;
                }
            }
        }
        // SAFETY: made from a box, and it goes with the table.
        unsafe { &*seen }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        for place in &mut self.0 {
            let made = std::mem::replace(place.get_mut(), null_mut());
            if !made.is_null() {
                // SAFETY: made from a box, and taken out of the table here.
                drop(unsafe { Box::from_raw(made) });
            }
        }
    }
}

/// The words of a window, on the heap.
struct Words(Box<Window>);

impl Default for Words {
    fn default() -> Self {
        let words: Box<[AtomicU64]> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self(words.try_into().unwrap_or_else(|_| unreachable!("there are as many")))
    }
}

/// Ranges that are live, for any number of threads.
#[derive(Default)]
pub struct Claims(Box<Table<Table<Table<Words>>>>);

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claims")
    }
}

/// The words of a range, each with the bits of it that belong to the range.
fn words(start: usize, size: usize) -> impl Iterator<Item = (usize, u64)> {
    let (first, end) = (start / GRANULE, (start + size).div_ceil(GRANULE));
    (first / 64..end.div_ceil(64)).map(move |word| {
        let (from, to) = (first.max(word * 64) % 64, end.min((word + 1) * 64) - word * 64);
        (word, u64::MAX >> (64 - (to - from)) << from)
    })
}

impl Claims {
    fn window(&self, window: usize) -> &Words {
        self.0.at(window / ENTRIES / ENTRIES).at(window / ENTRIES).at(window)
    }

    /// Shows `visit` every word of a range, with its number and the bits of it that belong to the range, until one is
    /// refused.
    fn each_word<E>(
        &self,
        start: usize,
        size: usize,
        mut visit: impl FnMut(&AtomicU64, usize, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut found: Option<(usize, &Words)> = None;
        for (word, bits) in words(start, size) {
            let number = word / WORDS;
            let window = match found {
                Some((is, window)) if is == number => window,
                _ => self.window(number),
            };
            found = Some((number, window));
            visit(&window.0[word % WORDS], word, bits)?;
        }
        Ok(())
    }

    /// Claims a range, before it is used. `Err` has the first address of it that somebody else has; then nothing is
    /// claimed.
    pub fn claim(&self, start: usize, size: usize) -> Result<(), usize> {
        self.each_word(start, size, |place, word, bits| {
            let taken = place.fetch_or(bits, AcqRel) & bits;
            if taken == 0 {
                return Ok(());
            }
            place.fetch_and(!bits | taken, AcqRel);
            if word * PER_WORD > start {
                self.release(start, word * PER_WORD - start);
            }
            Err((word * 64 + taken.trailing_zeros() as usize) * GRANULE)
        })
    }

    /// Gives a claimed range up, before it is freed.
    pub fn release(&self, start: usize, size: usize) {
        let Ok(()) = self.each_word(start, size, |place, _, bits| -> Result<(), std::convert::Infallible> {
            let had = place.fetch_and(!bits, AcqRel);
            assert_eq!(had & bits, bits, "the range was not claimed");
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_finds_every_overlap_and_nothing_else() {
        const BASE: usize = 0x7f12_3400_0000;
        let claims = Claims::default();
        for (start, size) in [(0, 1), (8, 520), (1 << 21, 3 << 21), ((1 << 21) - 16, 16)] {
            assert_eq!(claims.claim(BASE + start, size), Ok(()));
        }
        assert_eq!(claims.claim(BASE, 8), Err(BASE));
        assert_eq!(claims.claim(BASE + 528, 8), Ok(()), "right behind another");
        assert_eq!(claims.claim(BASE + 536, 1 << 21), Err(BASE + (1 << 21) - 16));
        assert_eq!(claims.claim(BASE + (4 << 21), 100), Ok(()), "right behind many windows");
        claims.release(BASE + (1 << 21), 3 << 21);
        assert_eq!(claims.claim(BASE + (3 << 21) + 8, 8), Ok(()), "in the middle of what was released");
    }

    #[test]
    fn the_bits_of_a_range_are_those_of_its_granules() {
        for (start, size) in [(0, 1), (0, 8), (0, 9), (8, 512), (504, 16), (4096, 512), (4096, 513), (16, 5000)] {
            let granules: u32 = words(start, size).map(|(_, bits)| bits.count_ones()).sum();
            assert_eq!(granules as usize, size.div_ceil(GRANULE), "{size} bytes at {start}");
        }
    }
}
