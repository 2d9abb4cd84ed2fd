//! The constants that more than one module needs, and the assertions that tie them together. What one module alone
//! needs stands there.

use static_assertions::const_assert;

/// A number, or the one that makes the same code small enough for a model to try every interleaving of it.
const fn or_in_a_model(number: u32, model: u32) -> u32 {
    if cfg!(kmalloc_loom) {
        model
    } else {
        number
    }
}

/// Base-2 logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = or_in_a_model(15, 6);
/// Bytes in a page: our frame, whatever the page of the operating system is.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Pages in a chunk: as many as a word has bits; fewer in a model.
pub const PAGES_PER_CHUNK: u32 = or_in_a_model(64, 4);
/// Base-2 logarithm of [`CHUNK_SIZE`].
pub const CHUNK_SHIFT: u32 = PAGE_SHIFT + PAGES_PER_CHUNK.trailing_zeros();
/// Bytes in a chunk: one transparent huge page of x86-64.
pub const CHUNK_SIZE: usize = 1 << CHUNK_SHIFT;
/// Chunks that one word of whole chunks holds.
pub const CHUNKS_PER_REGION: u32 = 64;
/// Regions that one summary word holds; so the largest arena.
pub const REGIONS_PER_ARENA: u32 = 64;
/// Chunks in the largest arena.
pub const MAX_ARENA_CHUNKS: u32 = CHUNKS_PER_REGION * REGIONS_PER_ARENA;

/// Chunks in the first arena, and in each later one at least, where the system does not refuse so many. The descriptors of more
/// would be long enough for a huge page.
pub const FIRST_ARENA_CHUNKS: u32 = if cfg!(feature = "small-arenas") { 1 } else { or_in_a_model(48, 1) };
/// Chunks in the largest arena that is asked for.
pub const ARENA_CHUNKS_LIMIT: u32 = if cfg!(feature = "small-arenas") { 1 } else { or_in_a_model(MAX_ARENA_CHUNKS, 2) };
/// A new arena is the part `1 / GROWTH` of all that is reserved.
pub const GROWTH: u32 = 4;
/// Arenas at most.
pub const MAX_ARENAS: usize = or_in_a_model(1024, 3) as usize;
/// The first chunk of the first arena that may be backed by huge pages for where it lies, if no block has room.
pub const HUGE_FROM_CHUNK: u32 = 4;
/// The first one where some block may have room, and none had huge pages before that.
pub const SMALL_CHUNKS: u32 = 8;
/// In a later arena, so many have small pages then.
pub const LATER_SMALL_CHUNKS: u32 = 1;
/// A block of this length that is asked for as zeros may have room.
pub const ROOMY_PAGES: u32 = PAGES_PER_CHUNK / 4;
/// Chunks made writable at a time.
pub const COMMIT_CHUNKS: u32 = or_in_a_model(8, 1);

/// Bits of an address that user space may see. All memory of a model lies in one block of this alignment and length.
pub const ADDRESS_BITS: u32 = or_in_a_model(48, 16);
/// Base-2 logarithm of the entries in one leaf of the address table.
pub const LEAF_SHIFT: u32 = or_in_a_model(14, 5);
/// Base-2 logarithm of the entries in the root of the address table.
pub const ROOT_SHIFT: u32 = ADDRESS_BITS - CHUNK_SHIFT - LEAF_SHIFT;

/// Bytes in the largest object of a size class.
pub const MAX_OBJECT: usize = or_in_a_model(32 << 10, 32) as usize;
/// Pages in the longest slab.
pub const MAX_SLAB_PAGES: u32 = 3;
/// Objects in the largest slab: 8-byte objects in one page.
pub const MAX_SLAB_OBJECTS: usize = PAGE_SIZE / 8;

/// Requests above this many bytes are mappings of their own.
pub const VMALLOC_THRESHOLD: usize = or_in_a_model(32 << 20, 512) as usize;
/// Bytes in the smallest of these mappings. Two of them never begin in one chunk, which keeps the table unambiguous.
pub const MIN_AREA: usize = CHUNK_SIZE;

/// True if every object that is given back is checked at the call.
pub const CHECKED: bool = cfg!(feature = "checked");

/// Pages in the longest run that a thread keeps when it frees it: 256 KiB.
pub const PCP_PAGES: u32 = or_in_a_model(8, 2);

/// Objects that a thread's sheaf of the smallest objects holds.
pub const SHEAF_CAPACITY: usize = or_in_a_model(64, 7) as usize;
/// And where very many are alive.
pub const SHEAF_LIMIT: usize = or_in_a_model(512, 14) as usize;
/// Shards per cache at most.
pub const MAX_SHARDS: usize = or_in_a_model(16, 2) as usize;
/// Empty slabs that a shard keeps.
pub const MIN_PARTIAL: u32 = 1;
/// Thread blocks mapped at a time.
pub const THREAD_BATCH: usize = or_in_a_model(4, 1) as usize;

const_assert!(cfg!(kmalloc_loom) || CHUNK_SIZE == 2 << 20);
const_assert!(cfg!(kmalloc_loom) || PAGE_SIZE % 4096 == 0);
const_assert!(cfg!(kmalloc_loom) || 8 * MAX_SLAB_PAGES <= PAGES_PER_CHUNK);
const_assert!(cfg!(kmalloc_loom) || MAX_OBJECT % PAGE_SIZE == 0);
const_assert!(VMALLOC_THRESHOLD % CHUNK_SIZE == 0);
const_assert!(VMALLOC_THRESHOLD / CHUNK_SIZE <= CHUNKS_PER_REGION as usize);
const_assert!(FIRST_ARENA_CHUNKS <= ARENA_CHUNKS_LIMIT && ARENA_CHUNKS_LIMIT <= MAX_ARENA_CHUNKS);
const_assert!(MIN_AREA >= CHUNK_SIZE);
