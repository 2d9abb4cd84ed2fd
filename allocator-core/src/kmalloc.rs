//! kmalloc: which layer serves a `Layout`.
//!
//! Up to 32 KiB in size and alignment a size class does; then a run of pages, as far as the buddy of an arena serves
//! it; beyond that, vmalloc. The answer is a pure function of the layout, so `dealloc` needs no memory access to know
//! where to look; what it then finds in the descriptors must agree.

use crate::config::{CHUNK_SIZE, VMALLOC_THRESHOLD};
use crate::size_class::SizeClass;
use crate::units::{Order, PageCount};
use core::alloc::Layout;
use core::fmt;

/// Which layer serves a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// A cache.
    Object(SizeClass),
    /// A run of this many pages with a start aligned to this order.
    Run(PageCount, Order),
    /// A mapping of its own.
    Area,
}

impl Route {
    /// The layer that serves `layout`. Zero bytes are served as one.
    pub fn of(layout: Layout) -> Self {
        if layout.align() > CHUNK_SIZE {
            return Route::Area;
        }
        if layout.size() == 0 {
            // SAFETY: the alignment comes from a layout and is no longer than a chunk, so one byte never overflows.
            return Self::of(unsafe { Layout::from_size_align_unchecked(1, layout.align()) });
        }
        if let Some(class) = SizeClass::of(layout) {
            return Route::Object(class);
        }
        if layout.size() > VMALLOC_THRESHOLD {
            return Route::Area;
        }
        match PageCount::holding(layout.size()) {
            Some(pages) => Route::Run(pages, Order::of_alignment(layout.align())),
            None => Route::Area,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Object(class) => class.fmt(f),
            Route::Run(pages, _) => write!(f, "a run of {} pages", pages.get()),
            Route::Area => f.write_str("an area"),
        }
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;
    use crate::config::{MAX_OBJECT, PAGE_SIZE};

    fn route(size: usize, align: usize) -> Route {
        Route::of(Layout::from_size_align(size, align).unwrap())
    }

    #[test]
    fn boundaries_are_where_they_are_said_to_be() {
        assert_eq!(route(0, 1), route(1, 1));
        assert_eq!(route(0, 4096), route(1, 4096));
        assert!(matches!(route(MAX_OBJECT, MAX_OBJECT), Route::Object(_)));
        assert_eq!(route(MAX_OBJECT + 1, 1), Route::Run(PageCount::new(2), Order::ZERO));
        assert_eq!(route(1, 2 * PAGE_SIZE), Route::Run(PageCount::new(1), Order::new(1)));
        assert_eq!(route(CHUNK_SIZE, CHUNK_SIZE), Route::Run(PageCount::new(64), Order::new(6)));
        assert_eq!(route(CHUNK_SIZE + 1, 1), Route::Run(PageCount::new(65), Order::ZERO));
        assert_eq!(route(VMALLOC_THRESHOLD, 1), Route::Run(PageCount::new(1024), Order::ZERO));
        assert_eq!(route(VMALLOC_THRESHOLD + 1, 1), Route::Area);
        assert_eq!(route(1, 2 * CHUNK_SIZE), Route::Area);
        assert_eq!(route(0, 1 << (usize::BITS - 1)), Route::Area);
        assert_eq!(route(isize::MAX as usize, 1), Route::Area);
    }
}
