//! untyped: what the heap itself knows of a block, for whoever gives it back without a layout, as C does.
//!
//! The page's tag names the size class of an object, or the length of a run; the record of an area has its layout. A
//! pointer is known to be foreign after two loads.

use super::Heap;
use crate::config::PAGE_SIZE;
use crate::error::Misuse;
use crate::page::{Kind, Owner};
use crate::size_class::SizeClass;
use core::alloc::Layout;
use core::ptr::NonNull;

impl Heap {
    /// The class of the slab that has this address. `None`: no slab has it. Costs three loads.
    ///
    /// # Safety
    /// What is there stays mapped meanwhile, or is none of this heap: as where the caller has a block, of this heap or another.
    #[inline(always)]
    pub unsafe fn class_of(&self, ptr: NonNull<u8>) -> Option<SizeClass> {
        let address = ptr.as_ptr() as usize;
        match self.parts.zone.table.owner(address) {
            Owner::Chunk(map) => {
                let class = map.tag(map.page_of(address)).class()?;
                // SAFETY: what says that it is a slab was made of a class.
                Some(unsafe { SizeClass::new(class).unwrap_unchecked() })
            }
            _ => None,
        }
    }

    /// A layout that goes the way of the block at `ptr`, which is live: of the bytes that may be used of it, and aligned as C
    /// has it. What is live and not of this heap is [`Misuse::Foreign`].
    ///
    /// # Safety
    /// As for [`Heap::class_of`].
    pub unsafe fn layout_of(&self, ptr: NonNull<u8>) -> Result<Layout, Misuse> {
        let address = ptr.as_ptr() as usize;
        let (size, align) = match self.parts.zone.table.owner(address) {
            Owner::Nobody => return Err(Misuse::Foreign),
            // Other mappings may lie in the window where an area begins.
            Owner::Area(record) => return self.parts.vmalloc.layout_of(record, ptr).ok_or(Misuse::Foreign),
            Owner::Chunk(map) => match map.tag(map.page_of(address)).kind() {
                Kind::Slab { class, .. } => {
                    let class = SizeClass::new(class).ok_or(Misuse::NotAStart)?;
                    (class.size(), class.size().min(16))
                }
                // Of one page only what needed its alignment.
                Kind::Run(pages) if address % PAGE_SIZE == 0 && pages.get() == 1 => (PAGE_SIZE, 2 * PAGE_SIZE),
                Kind::Run(pages) if address % PAGE_SIZE == 0 => (pages.bytes(), 16),
                Kind::Run(_) | Kind::None => return Err(Misuse::NotAStart),
            },
        };
        Layout::from_size_align(size, align).map_err(|_| Misuse::NotAStart)
    }

    /// Ends the process: what was given back without a layout is nothing that can be.
    ///
    /// # Safety
    /// As for [`Heap::class_of`].
    #[cold]
    pub unsafe fn misused_untyped(&self, ptr: NonNull<u8>, misuse: Misuse) -> ! {
        self.misused(ptr.as_ptr(), misuse, None)
    }
}
