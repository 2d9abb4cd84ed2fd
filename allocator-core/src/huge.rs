//! huge: which memory is to be backed by huge pages.
//!
//! A huge page spares the processor misses of its address cache, and the system 512 faults; and makes 2 MiB resident where
//! perhaps little of it is used. `auto` asks for them where that little is little beside all the rest: above the first few
//! chunks of the first arena, and for runs longer than a chunk and areas that will be used as a whole, before they are
//! touched (not for what was asked for as zeros, unless such blocks were found to be written as a whole: `zeroing`); and
//! for a chunk of the first few once it has been in use as a whole from one tick of kswapd to the next, and nothing of it
//! ever went back.
//!
//! A program whose blocks have *room*, as they are longer than what it writes into them, would have the rest resident as
//! well. Two signs tell of such blocks before anything of them is written: one grows and is a run of pages or an area then,
//! or a long one is asked for as zeros. Before the first sign the fifth chunk lies high enough; after it the ninth does or,
//! if others had huge pages by then, one that has four with small pages between it and those.
//!
//! And the chunks below are asked before each second one of the first arena is backed by huge pages for where it lies, and
//! before each of the fifth to the eighth, once: unless three quarters of what was given out of them is resident, the heap
//! is *sparse*, and its new chunks have small pages. Long runs, which may be about to be written, are left out, and so are
//! chunks that have or had huge pages; what is left must be a quarter of those chunks, or two. If there was no sign before,
//! such an answer is only a sign: the heap is not called sparse yet, since few chunks were asked. It is a sign, too, if
//! seven eighths of the shorter runs lie in chunks with huge pages, since then nothing would be told of runs.
//!
//! A tick looks at each chunk with small pages that has filled up since the last one: unless seven eighths of it are
//! resident, the heap is sparse, until one that fills up is dense. The holes that a tick makes in slabs count as if they
//! had never been written: to be called sparse for a while costs a program some time, and one that is and was not would
//! keep what it does not need for good.

use crate::config::{HUGE_FROM_CHUNK, SMALL_CHUNKS};
use crate::sync::{atomic::Ordering::Relaxed, const_unless_loom, UnwatchedU32};

/// What is backed by huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Nothing, even where the system would do so by itself.
    Never,
    /// What is large and long-lived.
    #[default]
    Auto,
    /// All that can be.
    Always,
}

impl HugePages {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "never" => Some(Self::Never),
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            _ => None,
        }
    }
}

/// Before one in so many chunks is opened those below are asked.
const LOOK_EACH: u32 = 2;

/// The policy of a zone. All zeros: [`HugePages::Auto`], dense, and no block has room.
pub struct Policy {
    policy: UnwatchedU32,
    sparse: UnwatchedU32,
    /// Up to this chunk of the first arena those below were asked.
    looked: UnwatchedU32,
    /// One since a block may have room.
    roomy: UnwatchedU32,
    /// Behind the highest chunk that had huge pages for where it lies before that, or would have had them. Even.
    high: UnwatchedU32,
}

impl Policy {
    const_unless_loom! {
        /// The usual one.
        pub fn new() -> Self {
            let [policy, sparse, looked, roomy, high] = [const { UnwatchedU32::new(0) }; 5];
            Self { policy, sparse, looked, roomy, high }
        }
    }

    /// What it is.
    pub fn get(&self) -> HugePages {
        match self.policy.load(Relaxed) {
            1 => HugePages::Never,
            2 => HugePages::Always,
            _ => HugePages::Auto,
        }
    }

    /// Another one, for memory that is asked for from now on.
    pub fn set(&self, policy: HugePages) {
        let word = match policy {
            HugePages::Auto => 0,
            HugePages::Never => 1,
            HugePages::Always => 2,
        };
        self.policy.store(word, Relaxed);
    }

    /// Notes that a block may have room.
    #[inline]
    pub fn note_room(&self) {
        // Read first, so that the line stays with whoever reads it.
        if !self.has_room() {
            self.roomy.store(1, Relaxed);
        }
    }

    /// True if a block may have room.
    pub fn has_room(&self) -> bool {
        self.roomy.load(Relaxed) != 0
    }

    /// Chunks of the first arena from this one on lie high enough for huge pages.
    pub fn from_chunk(&self) -> u32 {
        if self.has_room() {
            SMALL_CHUNKS + self.high.load(Relaxed).saturating_sub(HUGE_FROM_CHUNK)
        } else {
            HUGE_FROM_CHUNK
        }
    }

    /// Notes that chunks of the first arena below this one have huge pages for where they lie, or would have had them.
    pub fn note_high(&self, chunk: u32) {
        if !self.has_room() {
            let even = chunk.div_ceil(LOOK_EACH) * LOOK_EACH;
            self.high.store(self.high.load(Relaxed).max(even), Relaxed);
        }
    }

    /// Whether the chunks below this one are to be asked: once, but for threads that come at the same time.
    pub fn looks_below(&self, chunk: u32) -> bool {
        let looks = chunk > self.looked.load(Relaxed) && (chunk < SMALL_CHUNKS || chunk % LOOK_EACH == 0);
        if looks {
            self.looked.store(chunk, Relaxed);
        }
        looks
    }

    /// True if blocks seem to be longer than what is written into them.
    pub fn is_sparse(&self) -> bool {
        self.sparse.load(Relaxed) != 0
    }

    /// Notes whether blocks are written as a whole, as far as somebody has looked.
    pub fn note_dense(&self, dense: bool) {
        self.sparse.store(u32::from(!dense), Relaxed);
    }
}
