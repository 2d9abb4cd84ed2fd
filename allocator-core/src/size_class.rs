//! Size classes: from a `Layout` to the object size that serves it. A table and nothing else.
//!
//! # Algorithm
//! Sizes are 8, then 16-byte steps to 256, then four per doubling to 32 KiB. With `x = (size - 1) | (align - 1)` one
//! expression serves every alignment: `x + 1` is `size` rounded up to `align` or a little more, and the smallest class
//! that holds it is a multiple of `align` (asserted for every pair in the tests).
//! One table of bytes answers all of them. Up to 1 KiB each `x` has an entry: a coarser table would be shorter, but one
//! more instruction away, and a program touches no more of it than the sizes that it uses. Above, where classes are
//! further apart, a block of `x` has one.
//!
//! A size of zero wraps to the largest `x` and so leaves the fast path; `kmalloc` treats it as one byte.

use crate::config::{MAX_OBJECT, MAX_SLAB_OBJECTS, MAX_SLAB_PAGES, PAGE_SIZE, SHEAF_CAPACITY, SHEAF_LIMIT};
use core::alloc::Layout;
use core::fmt;

/// Number of size classes.
pub const CLASSES: usize = if cfg!(kmalloc_loom) { 3 } else { 1 + 16 + 8 + 20 };

/// The `x` below this have an entry of the table each.
const SMALL: usize = if cfg!(kmalloc_loom) { MAX_OBJECT } else { 1024 };
/// Base-2 logarithm of how many share an entry above: no class ends within such a block.
const BLOCK_SHIFT: u32 = 8;
/// Blocks up to the largest object; the first few are below `SMALL` and not asked for.
const BLOCKS: usize = if cfg!(kmalloc_loom) { 0 } else { MAX_OBJECT >> BLOCK_SHIFT };

/// A size class: its number is below [`CLASSES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SizeClass(usize);

const SIZES: [u32; CLASSES] = {
    let mut sizes = [8; CLASSES];
    let mut class = 1;
    let mut size = 0;
    while class < CLASSES {
        size += if size < 256 { 16 } else { (1 << (31 - (size as u32).leading_zeros())) / 4 };
        sizes[class] = size as u32;
        class += 1;
    }
    sizes
};

/// The class of each `x` below `SMALL`, then that of each block.
const TABLE: [u8; SMALL + BLOCKS] = {
    let mut table = [0; SMALL + BLOCKS];
    let mut class = 0;
    let mut x = 0;
    while x < MAX_OBJECT {
        if SIZES[class] as usize <= x {
            class += 1;
        }
        table[if x < SMALL { x } else { SMALL + (x >> BLOCK_SHIFT) }] = class as u8;
        x += 1;
    }
    table
};

/// How a slab of a class is cut into objects.
pub struct Cut {
    size: u32,
    objects: u32,
    /// Bytes that the objects take up: all but what is left over at the end.
    used: u32,
    pages: u32,
    /// `ceil(2^32 / size)`: an object's number is its offset times this, shifted.
    reciprocal: u32,
}

const CUTS: [Cut; CLASSES] = {
    let mut cuts = [const { Cut { size: 0, objects: 0, used: 0, pages: 0, reciprocal: 0 } }; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as usize;
        // The fewest pages that waste at most an eighth and hold at least two objects.
        let mut n = 1;
        while n * PAGE_SIZE / size < 2 || (n * PAGE_SIZE % size) * 8 > n * PAGE_SIZE {
            n += 1;
        }
        let objects = (n * PAGE_SIZE / size) as u32;
        let reciprocal = (1u64 << 32).div_ceil(size as u64) as u32;
        let size = SIZES[class];
        cuts[class] = Cut { size, objects, used: objects * size, pages: n as u32, reciprocal };
        class += 1;
    }
    cuts
};

impl SizeClass {
    /// The class that serves `layout`, if one does. Zero bytes are not answered here.
    #[inline(always)]
    pub const fn of(layout: Layout) -> Option<Self> {
        Self::of_words(layout.size(), layout.align())
    }

    /// As [`SizeClass::of`], for any size at all; the alignment is a power of two.
    #[inline(always)]
    pub const fn of_words(size: usize, align: usize) -> Option<Self> {
        let x = size.wrapping_sub(1) | (align - 1);
        let entry = if x < SMALL {
            x
        } else if x < MAX_OBJECT {
            SMALL + (x >> BLOCK_SHIFT)
        } else {
            return None;
        };
        Some(Self(TABLE[entry] as usize))
    }

    /// The class with number `n`, if there is one.
    pub const fn new(n: usize) -> Option<Self> {
        if n < CLASSES {
            Some(Self(n))
        } else {
            None
        }
    }

    /// Every class, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..CLASSES).map(Self)
    }

    /// Its number.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0
    }

    /// How its slabs are cut.
    #[inline]
    pub const fn cut(self) -> &'static Cut {
        &CUTS[self.0]
    }

    /// Bytes in one of its objects.
    #[inline]
    pub const fn size(self) -> usize {
        self.cut().size()
    }

    /// Pages in one of its slabs.
    #[inline]
    pub const fn slab_pages(self) -> u32 {
        self.cut().pages
    }

    /// Objects in one of its slabs.
    #[inline]
    pub const fn slab_objects(self) -> usize {
        self.cut().objects()
    }

    /// The number of the object that starts `offset` bytes into a slab, if one does.
    #[inline]
    pub const fn object_at(self, offset: usize) -> Option<usize> {
        self.cut().object_at(offset)
    }

    /// Objects that a thread keeps in its sheaf of this class, as the kernel's sheaves: fewer of larger ones.
    #[inline]
    pub const fn sheaf_capacity(self) -> usize {
        match self.size() {
            0..=255 => SHEAF_CAPACITY,
            256..=1023 => 32,
            1024..=4095 => 16,
            4096..=16383 => 8,
            _ => 4,
        }
    }

    /// Objects that it keeps at most, where very many are alive.
    #[inline]
    pub const fn sheaf_limit(self) -> usize {
        if self.size() < 256 {
            SHEAF_LIMIT
        } else {
            4 * self.sheaf_capacity()
        }
    }
}

impl Cut {
    /// Bytes in an object.
    #[inline]
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// Objects in a slab.
    #[inline]
    pub const fn objects(&self) -> usize {
        self.objects as usize
    }

    /// Bytes of a slab that its objects take up.
    #[inline]
    pub const fn used(&self) -> usize {
        self.used as usize
    }

    /// Bytes behind the last object in whole pages of the system. None where one of those may hold others' objects, too.
    pub const fn rest(&self, page_size: usize) -> usize {
        let left = self.pages() * PAGE_SIZE - self.used();
        left & !(page_size - 1)
    }

    /// Pages in a slab.
    #[inline]
    pub const fn pages(&self) -> usize {
        self.pages as usize
    }

    /// The number of the object that starts `offset` bytes into a slab, if one does.
    #[inline(always)]
    pub const fn object_at(&self, offset: usize) -> Option<usize> {
        // The quotient, and behind the point the rest: less than one object's share if, and only if, there is none. (Lemire,
        // Kaser and Kurz, Faster remainder by direct computation, 2019.)
        let product = (offset as u64).wrapping_mul(self.reciprocal as u64);
        if offset < self.used() && (product as u32) < self.reciprocal {
            Some((product >> 32) as usize)
        } else {
            None
        }
    }
}

/// The name of its cache: `kmalloc-96`, `kmalloc-1k`. Of the format only the width counts.
impl fmt::Display for SizeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PREFIX: &str = "kmalloc-";
        let (number, unit) = if self.size() % 1024 == 0 { (self.size() / 1024, "k") } else { (self.size(), "") };
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let pad = f.width().unwrap_or(0).saturating_sub(PREFIX.len() + digits + unit.len());
        write!(f, "{PREFIX}{number}{unit}{:pad$}", "")
    }
}

const _: () = {
    assert!(SIZES[CLASSES - 1] as usize == MAX_OBJECT);
    assert!(CLASSES <= u8::MAX as usize); // an entry of the table
    let mut class = 0;
    while class < CLASSES {
        let c = SizeClass(class);
        assert!(c.slab_pages() <= MAX_SLAB_PAGES);
        assert!(c.slab_objects() <= MAX_SLAB_OBJECTS);
        // Waste of a slab's tail: at most an eighth. Waste inside an object: at most a fifth of it, above 64 bytes.
        assert!(
            (c.slab_pages() as usize * PAGE_SIZE - c.slab_objects() * c.size()) * 8
                <= c.slab_pages() as usize * PAGE_SIZE
        );
        // What `Cut::object_at` relies on: over all objects the error of the reciprocal adds up to less than a share.
        let error = CUTS[class].reciprocal as u64 * c.size() as u64 - (1 << 32);
        assert!((c.slab_objects() as u64 + 1) * error < CUTS[class].reciprocal as u64);
        assert!(class == 0 || SIZES[class] <= 64 || (SIZES[class] - SIZES[class - 1] - 1) * 5 <= SIZES[class]);
        assert!(c.size() <= SMALL || c.size() % (1 << BLOCK_SHIFT) == 0);
        class += 1;
    }
};

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn every_size_and_alignment_gets_the_smallest_class_that_is_a_multiple_of_the_alignment() {
        for shift in 0..=15 {
            let align = 1usize << shift;
            for size in 1..=MAX_OBJECT {
                let layout = Layout::from_size_align(size, align).unwrap();
                let class = SizeClass::of(layout).unwrap();
                assert!(class.size() >= size && class.size() % align == 0, "{layout:?} {class:?}");
                if align == 1 && class.index() > 0 {
                    assert!(SizeClass::new(class.index() - 1).unwrap().size() < size, "{layout:?} {class:?}");
                }
            }
        }
    }

    #[test]
    fn what_no_class_serves_is_refused() {
        for (size, align) in [(MAX_OBJECT + 1, 1), (1, MAX_OBJECT * 2), (0, 1), (isize::MAX as usize, 1)] {
            assert_eq!(SizeClass::of(Layout::from_size_align(size, align).unwrap()), None);
        }
        assert_eq!(SizeClass::new(CLASSES), None);
    }

    #[test]
    fn object_numbers_are_exact_for_every_offset() {
        for class in SizeClass::all() {
            for offset in 0..class.slab_pages() as usize * PAGE_SIZE {
                let exact = offset % class.size() == 0 && offset / class.size() < class.slab_objects();
                assert_eq!(class.object_at(offset), exact.then_some(offset / class.size()));
            }
            // Of an address below the slab.
            assert!((1..99).all(|n| class.object_at(0usize.wrapping_sub(n * class.size())).is_none()));
        }
    }

    #[test]
    fn pages_behind_the_last_object_are_what_a_slab_wastes_at_most() {
        for cut in SizeClass::all().map(SizeClass::cut) {
            let bytes = cut.pages() * PAGE_SIZE;
            for page_size in [4 << 10, 16 << 10] {
                assert!((cut.used()..cut.used() + page_size).contains(&(bytes - cut.rest(page_size))));
                assert_eq!(cut.rest(page_size) % page_size, 0);
                assert!(cut.rest(page_size) <= bytes - cut.used() && cut.rest(page_size) * 8 <= bytes);
            }
            assert_eq!(cut.rest(64 << 10), 0, "less than a page of the system");
        }
    }

    #[test]
    fn names_are_the_kernels_and_fill_its_column() {
        use std::format;
        assert!(SizeClass::all().all(|class| format!("{class:17}").len() == 17));
        let name = |size| format!("{}", SizeClass::of(Layout::from_size_align(size, 1).unwrap()).unwrap());
        assert_eq!([name(96), name(1000), name(2048)], ["kmalloc-96", "kmalloc-1k", "kmalloc-2k"]);
    }
}
