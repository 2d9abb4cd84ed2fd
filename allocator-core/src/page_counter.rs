//! page_counter: how many bytes may be resident, and how many may be.
//!
//! # Algorithm
//! Pages of arenas are counted when they are taken by somebody who may touch them, and were known to be zero before; and
//! no more once the memory behind them is freed, but for holes in slabs. So pages that go round between the program and the buddy
//! cost nothing here.
//! An area is counted as long as somebody has it or it is set aside, without the spare tail that was never touched. What the system
//! did not take back of one is not counted: the memory behind it was freed, or cannot be touched, or is locked.
//!
//! Three marks lie above that, each off until it is set. Beyond `high`, memory is asked back: kswapd keeps nothing, and the
//! program's own caches are told. Beyond `max` minus `min`, page runs and areas are refused, and beyond `max` objects, too: so
//! whoever is refused something large has a reserve of small things left for saying so.
//!
//! Pages are counted first and looked at then: several threads may exceed a mark together for a moment, each with pages
//! that it has not touched yet, and gives back.
//!
//! # Invariants
//! - Pc1: at rest, what is counted is the pages that are not known to be zero, and the areas.
//! - Pc2: where there is a `max`, there is a `high`, no higher, and `min` is no more than half of it.
//!
//! # Memory ordering
//! All of it is Relaxed: the figures order nothing, and whoever exceeds a mark finds out by its own addition.
//!
//! The kernel's `mm/page_counter.c` and `memory.high`, `memory.max` of its control groups; the reserve is that of
//! `mm/page_alloc.c` below the `min` watermark.

use crate::config::CHUNK_SIZE;
use crate::error::ConfigError;
use crate::sync::{atomic::Ordering::Relaxed, const_unless_loom, UnwatchedU64};
use crate::units::PageCount;

/// Who asks for memory that has a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Urgency {
    /// Leaves the reserve to others.
    #[default]
    Usual,
    /// May take the reserve, too: small, or on the way to give memory back.
    Reserve,
}

/// Limits in bytes. Zero: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// No more than that is resident.
    pub max: usize,
    /// The soft limit: beyond that, memory is asked back. Zero: as `max`.
    pub high: usize,
    /// The reserve: so many bytes below `max` are left alone by large requests; half of `max` at most.
    pub min: usize,
}

impl Limits {
    /// Those of a heap that may have so many bytes: memory is asked back from seven eighths on, and a sixty-fourth, 4 MiB at
    /// most, is for small requests.
    pub const fn of(max: usize) -> Self {
        let (high, min) = (max - max / 8, max / 64);
        Self { max, high, min: if min < RESERVE { min } else { RESERVE } }
    }

    /// These limits, if they are in order (a reserve is part of a limit) and `used` bytes are within them.
    pub const fn checked(self, used: usize) -> Result<Self, ConfigError> {
        let Self { max, high, min } = self;
        // Without a soft limit, the limit itself is it.
        let high = if high == 0 { max } else { high };
        if max != 0 && (high > max || min > max / 2) || max == 0 && min != 0 {
            Err(ConfigError::OutOfOrder)
        } else if max != 0 && used > max - min {
            Err(ConfigError::BelowUse)
        } else {
            Ok(Self { high, ..self })
        }
    }
}

/// The longest reserve that is kept unless somebody says something else.
const RESERVE: usize = 4 << 20;

/// Bytes that may be resident, and the marks above them. All zeros: none, and no marks.
pub struct PageCounter {
    usage: UnwatchedU64,
    max: UnwatchedU64,
    high: UnwatchedU64,
    min: UnwatchedU64,
    failcnt: UnwatchedU64,
}

impl PageCounter {
    const_unless_loom! {
        /// Of an empty heap, without limits.
        pub fn new() -> Self {
            Self {
                usage: UnwatchedU64::new(0),
                max: UnwatchedU64::new(0),
                high: UnwatchedU64::new(0),
                min: UnwatchedU64::new(0),
                failcnt: UnwatchedU64::new(0),
            }
        }
    }

    /// So many pages may be resident from now on.
    #[inline]
    pub fn charge_pages(&self, pages: u32) {
        self.charge(PageCount::new(pages).bytes());
    }

    /// So many pages are not any more.
    pub fn uncharge_pages(&self, pages: u32) {
        self.uncharge(PageCount::new(pages).bytes());
    }

    fn charge(&self, bytes: usize) {
        self.usage.fetch_add(bytes as u64, Relaxed);
    }

    /// So many bytes are not resident any more.
    pub fn uncharge(&self, bytes: usize) {
        self.usage.fetch_sub(bytes as u64, Relaxed);
    }

    /// As many bytes more, if the limit allows them.
    pub fn try_charge(&self, bytes: usize, urgency: Urgency) -> bool {
        // What cannot fit is not seen by others even for a moment.
        if bytes > self.room(urgency) {
            return false;
        }
        self.charge(bytes);
        let fits = !self.is_exceeded(urgency);
        if !fits {
            self.uncharge(bytes);
        }
        fits
    }

    /// True if there is any mark.
    #[inline]
    pub fn is_marked(&self) -> bool {
        self.high.load(Relaxed) != 0
    }

    /// Bytes that somebody of this urgency may have in all.
    fn bound(&self, urgency: Urgency) -> usize {
        match (self.limits(), urgency) {
            (Limits { max: 0, .. }, _) => isize::MAX as usize,
            (Limits { max, .. }, Urgency::Reserve) => max,
            (Limits { max, min, .. }, Urgency::Usual) => max.saturating_sub(min),
        }
    }

    /// Bytes that somebody of this urgency may have beside what there is.
    #[inline]
    pub fn room(&self, urgency: Urgency) -> usize {
        self.bound(urgency).saturating_sub(self.usage())
    }

    /// Bytes that must go before somebody of this urgency may have so many.
    pub fn excess(&self, bytes: usize, urgency: Urgency) -> usize {
        // Others may have what this one may not, so there may be more than its bound already.
        self.usage().saturating_add(bytes).saturating_sub(self.bound(urgency))
    }

    /// True if there is more than somebody of this urgency may have.
    pub fn is_exceeded(&self, urgency: Urgency) -> bool {
        self.usage() > self.bound(urgency)
    }

    /// True if there is so much that memory is asked back.
    pub fn is_high(&self) -> bool {
        let high = self.high.load(Relaxed);
        high != 0 && self.usage.load(Relaxed) > high
    }

    /// Bytes that may be resident.
    pub fn usage(&self) -> usize {
        self.usage.load(Relaxed) as usize
    }

    /// The marks.
    pub fn limits(&self) -> Limits {
        let word = |word: &UnwatchedU64| word.load(Relaxed) as usize;
        Limits { max: word(&self.max), high: word(&self.high), min: word(&self.min) }
    }

    /// Other marks, if they are in order and `used` bytes, which cannot be had back, are within them.
    pub fn set_limits(&self, limits: Limits, used: usize) -> Result<(), ConfigError> {
        let Limits { max, high, min } = limits.checked(used)?;
        self.max.store(max as u64, Relaxed);
        self.high.store(high as u64, Relaxed);
        self.min.store(min as u64, Relaxed);
        Ok(())
    }

    /// How often the heap refused something where there is a limit: before the program was asked for memory, so the request may have been
    /// served after all, or refused again.
    pub fn failures(&self) -> u64 {
        self.failcnt.load(Relaxed)
    }

    /// Notes that somebody is refused.
    pub fn note_failure(&self) {
        self.failcnt.fetch_add(1, Relaxed);
    }

    /// True if there is so much that nothing should be resident which nobody has asked for.
    pub fn is_tight(&self) -> bool {
        let Limits { max, min, .. } = self.limits();
        self.is_high() || max != 0 && self.usage().saturating_add(2 * CHUNK_SIZE) > max.saturating_sub(min)
    }
}
