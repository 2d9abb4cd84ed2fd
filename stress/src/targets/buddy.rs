//! The public API of the buddy against the model that its own tests use.

use allocator_core::buddy::{Buddy, NotFound, Purge, Region, Summary, MAX_BLOCK, ROW_TRIES};
use allocator_core::chunk::{Chunk, Content};
use allocator_core::config::CHUNKS_PER_REGION;
use allocator_core::error::Misuse;
use allocator_core::page_counter::PageCounter;
use allocator_core::units::{ChunkIndex, Order, PageCount, PageIndex};

#[allow(clippy::manual_is_multiple_of)] // the core is written for a Rust that lacks it
#[path = "../../../allocator-core/src/buddy/model.rs"]
mod model;

pub(super) fn play(bytes: &[u8]) {
    let Some((start, script)) = bytes.split_first_chunk() else { return };
    let records = script.chunks_exact(size_of::<model::Record>());
    model::play(*start, records.filter_map(|record| Some(model::Step::decode(record.try_into().ok()?))));
}
