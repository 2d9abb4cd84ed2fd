//! Linux's memory management as a library for user space: the algorithms and all metadata of Kmalloc.
//!
//! # The story
//! ```text
//! mmap ─► arena ─► buddy ─► zone ─► slab ─► cache ─► thread sheaves ─► kmalloc ─► Heap
//!                     └──────────────────────► page runs ──────────────────┘
//! mmap ─► vmalloc (longer than an arena serves) ───────────────────────────┘
//! ```
//! An *arena* is a mapped range with its descriptors beside it. Its *buddy* knows which pages are free: one atomic word
//! per 2 MiB chunk, no lock. A *zone* has the arenas and grows them. A *slab* is a run of pages cut into equal objects,
//! with one bit per object outside it. A *cache* has all slabs of one size class, in shards of one lock each. A
//! thread's *sheaf* of a class is an array of pointers to free objects: the fast path pops and pushes there, without an
//! atomic operation, a lock or a call. `kmalloc` chooses between class, page run and vmalloc; [`heap::Heap`] joins all.
//!
//! What has been free for a while goes back to the system: [`kswapd`] says when, and a heap's `tick` how.
//!
//! The memory that a program gets is never touched by the allocator: no link lies in a free object. No thread owns a
//! slab, so a thread that ends sends its objects home and is gone. Heaps are instances; nothing here is global.
//!
//! # Layers
//! A module uses modules of a lower layer, or of its own layer further up in this table.
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | 0 | [`config`] | the constants that modules share, and the assertions that tie them together |
//! | 0 | [`units`] | pages, chunks, orders as types |
//! | 0 | [`size_class`] | `Layout` → size class |
//! | 0 | [`error`] | why a request was refused; what kind of misuse was found |
//! | 0 | [`sync`] | atomics, cells and the mutex; loom's under `cfg(kmalloc_loom)` |
//! | 0 | [`gate`] | who is inside the allocator; waiting until nobody is, for a fork |
//! | 0 | [`sys`] | every system call, and one that fails as planned |
//! | 0 | [`poison`] | what AddressSanitizer is told of free memory |
//! | 0 | [`reclaim`] | destroying what others may still be reading |
//! | 1 | [`chunk`] | 64 pages in one word; split and merge are bit arithmetic |
//! | 1 | [`huge`] | which memory is to be backed by huge pages |
//! | 1 | [`page_counter`] | how many bytes may be resident, and the limits on them |
//! | 1 | [`buddy`] | which pages are free: whole chunks, bins, summaries, purge; no lock |
//! | 1 | [`page`] | the memmap: what each page is, and whose; from an address to it |
//! | 1 | [`arena`] | one mapping, its buddy and memmap |
//! | 1 | [`cgroup`] | whether the control group of the process is short of memory |
//! | 1 | [`kswapd`] | when free memory goes back to the system |
//! | 1 | [`zone`] | the arenas of one policy; growth; retirement |
//! | 1 | [`vmalloc`] | requests too long for an arena |
//! | 1 | [`zeroing`] | making memory read as zeros that may hold anything |
//! | 1 | [`mempool`] | memory set aside for a library that cannot be told that there is none |
//! | 2 | [`slab`] | a run of pages cut into equal objects |
//! | 2 | [`cache`] | every slab of one size class; per shard a lock and its partial lists |
//! | 2 | [`live`] | which objects the program has, for the feature `checked` |
//! | 3 | [`sheaf`] | one thread's free objects of one class: the fast path |
//! | 3 | [`pcp`] | a run of pages that a thread has freed and keeps |
//! | 3 | [`thread`] | a thread's sheaves; the registry |
//! | 4 | [`kmalloc`] | which layer serves a `Layout` |
//! | 4 | [`tunables`] | what can be set, by which names, and how the values are written |
//! | 4 | [`heap`] | the one type other crates use |
//! | 4 | [`slabinfo`] | reports in the text formats of Linux |
//!
//! # Lock order
//! kswapd < shard < zone < vmalloc < registry < kept ([`sync::Rank`]). No lock is held while another layer is asked for pages,
//! nor (but for kswapd's) while the reclamation scheme is called.
//!
//! # Glossary
//! *Page*: 32 KiB, our frame, whatever the system's page is. *Chunk*: 64 pages, 2 MiB. *Region*: 64 chunks. *Run*:
//! pages in a row that are handed out as one. *Block*: a run of `2^k` pages whose start is a multiple of `2^k`; `k` is
//! its *order*. *Window*: 2 MiB of address space, the grain of the address table. *Object*: what a slab is cut into.
//! *Home*: the slab that an object came from. *Refill*: objects from the caches into a sheaf; *flush*: the way back.

#![cfg_attr(not(any(test, kmalloc_loom)), no_std)]
// Modules that only a heap may use are private; the story links to them all the same, and each is written as if it were
// public, so that what a layer offers to the next is seen.
#![allow(rustdoc::private_intra_doc_links, unreachable_pub)]

mod arena;
pub mod buddy;
mod cache;
pub mod cgroup;
pub mod chunk;
pub mod config;
pub mod error;
pub mod gate;
pub mod heap;
pub mod huge;
pub mod kmalloc;
pub mod kswapd;
mod live;
mod mempool;
mod page;
pub mod page_counter;
mod pcp;
mod poison;
pub mod reclaim;
pub mod sheaf;
pub mod size_class;
mod slab;
pub mod slabinfo;
pub mod sync;
pub mod sys;
pub mod thread;
pub mod tunables;
pub mod units;
mod vmalloc;
mod zeroing;
mod zone;

/// These items, where this crate is built without its feature `std`: what a library that is to do without must define itself,
/// and must not where another crate of the build has asked for std after all.
#[cfg(not(feature = "std"))]
#[macro_export]
macro_rules! without_std {
    ($($item:item)*) => { $($item)* };
}

/// Nothing, since this crate is built with its feature `std`.
#[cfg(feature = "std")]
#[macro_export]
macro_rules! without_std {
    ($($item:item)*) => {};
}

#[cfg(all(test, kmalloc_loom))]
mod loom_tests;
