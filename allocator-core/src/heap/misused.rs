//! misused: the last line of a process that misuses the heap. It names the address, what is there, and what it was said to
//! be.

use super::Heap;
use crate::cache::Found;
use crate::config::{PAGE_SIZE, VMALLOC_THRESHOLD};
use crate::error::Misuse;
use crate::gate::Barred;
use crate::kmalloc::Route;
use crate::page::{Kind, Owner};
use crate::size_class::SizeClass;
use crate::sys::die;
use crate::units::{Order, PageCount};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

impl Heap {
    /// Ends the process: an object was misused.
    #[cold]
    pub(super) fn found(&self, Found { at, said, misuse }: Found) -> ! {
        self.misused(at, misuse, Some(Route::Object(said)))
    }

    /// Ends the process: memory has not the layout that it was given back with.
    #[cold]
    pub(super) fn not_so(&self, ptr: NonNull<u8>, misuse: Misuse, layout: Layout) -> ! {
        self.misused(ptr.as_ptr(), misuse, Some(Route::of(layout)))
    }

    /// Ends the process: memory was misused that was `said` to be something, or was not.
    #[cold]
    pub(super) fn misused(&self, ptr: *mut u8, misuse: Misuse, said: Option<Route>) -> ! {
        let place = self.place(ptr as usize);
        let misuse = match (misuse, &place) {
            (Misuse::NotAStart, Place::Free) => Misuse::DoubleFree, // nothing but a run starts there, and it is gone
            _ => misuse,
        };
        match said {
            Some(said) => die(format_args!("{misuse}: {ptr:p} in {place}, given back as {said}")),
            None => die(format_args!("{misuse}: {ptr:p} in {place}")),
        }
    }

    fn place(&self, address: usize) -> Place {
        let map = match self.parts.zone.table.owner(address) {
            Owner::Nobody => return Place::Nowhere,
            Owner::Area(_) => return Place::In(Route::Area),
            Owner::Chunk(map) => map,
        };
        let in_run = |pages| Place::In(Route::Run(pages, Order::ZERO));
        match map.tag(map.page_of(address)).kind() {
            Kind::Slab { class, .. } => SizeClass::new(class).map_or(Place::Nowhere, |c| Place::In(Route::Object(c))),
            Kind::Run(pages) => in_run(pages),
            Kind::None => self.run_around(address).map_or(Place::Free, in_run),
        }
    }

    /// The length of the run that has the page of `address` without beginning there: the nearest tag below it tells.
    fn run_around(&self, address: usize) -> Option<PageCount> {
        for back in 1..VMALLOC_THRESHOLD / PAGE_SIZE {
            let below = address.checked_sub(back * PAGE_SIZE)?;
            let Owner::Chunk(map) = self.parts.zone.table.owner(below) else { return None };
            match map.tag(map.page_of(below)).kind() {
                Kind::None => {}
                Kind::Slab { .. } => return None,
                Kind::Run(pages) => return (pages.get() as usize > back).then_some(pages),
            }
        }
        None
    }
}

/// What is at an address, for the last line of a process.
enum Place {
    Nowhere,
    Free,
    In(Route),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Nowhere => f.write_str("no memory of this heap"),
            Place::Free => f.write_str("free pages"),
            Place::In(route) => route.fmt(f),
        }
    }
}

/// Ends the process: nobody may use the heap any more, or not from here.
#[cold]
pub(super) fn barred_out(barred: Barred) -> ! {
    die(format_args!("{}", barred.what()))
}
