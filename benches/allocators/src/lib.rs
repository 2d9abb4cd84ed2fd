//! One of several allocators, chosen by a feature; the system's without any.
//!
//! A program sets it as its global one itself, `static GLOBAL: Allocator = ALLOCATOR`: a static of another crate would
//! cost it a call more.

#![forbid(unsafe_code)]

macro_rules! choose {
    ($allocator:ty, $value:expr) => {
        /// The chosen allocator.
        pub type Allocator = $allocator;
        /// Its value.
        pub const ALLOCATOR: Allocator = $value;
    };
}

#[cfg(feature = "kmalloc")]
choose!(allocator_global::Kmalloc, allocator_global::Kmalloc::new());

#[cfg(any(feature = "mimalloc-v3", feature = "mimalloc-v2"))]
choose!(mimalloc::MiMalloc, mimalloc::MiMalloc);

#[cfg(feature = "jemalloc")]
choose!(tikv_jemallocator::Jemalloc, tikv_jemallocator::Jemalloc);

#[cfg(feature = "snmalloc")]
choose!(snmalloc_rs::SnMalloc, snmalloc_rs::SnMalloc);

#[cfg(feature = "rpmalloc")]
choose!(rpmalloc::RpMalloc, rpmalloc::RpMalloc);

#[cfg(feature = "tcmalloc")]
choose!(tcmalloc_better::TCMalloc, tcmalloc_better::TCMalloc);

#[cfg(feature = "rusty")]
choose!(rusty_alloc_api::RustyAlloc, rusty_alloc_api::RustyAlloc);

#[cfg(not(any(
    feature = "kmalloc",
    feature = "mimalloc-v3",
    feature = "mimalloc-v2",
    feature = "jemalloc",
    feature = "snmalloc",
    feature = "rpmalloc",
    feature = "tcmalloc",
    feature = "rusty"
)))]
choose!(std::alloc::System, std::alloc::System);
