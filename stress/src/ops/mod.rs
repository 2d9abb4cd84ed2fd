//! One language of operations on an allocator, and one interpreter of it.
//!
//! Fuzzers, property tests and the stress program all speak it. An operation is eight bytes, and any eight bytes are an
//! operation: a fuzzer cuts them from its input ([`from_bytes`]), a property test draws lists of them
//! ([`Op::decode`] of an array), the stress program takes them from a seeded generator. What sizes they name is up to
//! a [`Profile`], so that the same bytes can be aimed at one layer.
//!
//! A [`Player`] does the operations on a [`Subject`]: one heap of its own on a system that refuses calls as planned
//! ([`Instance`]), or the heap of the process, with real threads ([`Threads`]) or on the calling one ([`Direct`]). It
//! keeps a model beside it and stops at the first difference, a [`Violation`]:
//! - a block is aligned, the heap says that it owns it, and it overlaps no other that is live ([`Claims`]);
//! - it carries a [`pattern`] made from its identity, verified when it is freed, resized or looked at;
//! - what is asked to be zero is zero; what is resized keeps its content;
//! - a refusal comes only while system calls are being refused, and leaves the old block of a `realloc` as it was;
//! - the heap counts as many blocks as the model, and `validate` holds whenever it is asked;
//! - in the end everything is freed and reclaimed, and `audit` proves that nothing is lost.
//!
//! Each logical thread, a *lane*, has blocks of its own, which it allocates, resizes and frees; handing one over to
//! another lane means that the other one will free it.

mod claims;
mod instance;
pub mod pattern;
mod placing;
mod player;
mod process;
mod profile;

pub use claims::Claims;
pub use instance::{Instance, Tracked, Visitor};
pub use placing::Placing;
pub use player::{Block, Counts, Limits, Player, Subject};
pub use process::{Direct, Threads};
pub use profile::Profile;

use crate::Violation;
use allocator_core::sys::{Call, Plan};
use std::alloc::Layout;

/// One operation, and the lane that does it. Numbers of lanes and blocks are taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Who does it.
    pub lane: u8,
    /// What is done.
    pub action: Action,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Allocates a block.
    Alloc {
        /// Its size and alignment.
        layout: Layout,
        /// Whether zeros are asked for.
        zeroed: bool,
    },
    /// Allocates many blocks of one layout, so that sheaves overflow and slabs fill.
    Fill {
        /// Their size and alignment.
        layout: Layout,
        /// How many.
        count: u16,
    },
    /// Changes the size of a block.
    Resize {
        /// Which of the lane's blocks.
        which: u16,
        /// The new size, not zero.
        size: usize,
    },
    /// Verifies and frees a block.
    Free {
        /// Which of the lane's blocks.
        which: u16,
    },
    /// Verifies and frees every `nth` of the lane's blocks.
    FreeEvery {
        /// 1 for all of them.
        nth: u8,
        /// Newest first, or oldest first.
        newest_first: bool,
    },
    /// Verifies a block.
    Verify {
        /// Which of the lane's blocks.
        which: u16,
    },
    /// Hands blocks over to another lane.
    Hand {
        /// The first of them.
        which: u16,
        /// How many.
        count: u8,
        /// To whom.
        to: u8,
    },
    /// The lane, if it has ended, begins anew.
    Attach,
    /// The lane ends, with whatever the heap keeps for it. Its blocks stay.
    Detach,
    /// What is free goes back to the system.
    Reclaim,
    /// As after a while without a call: what has been free for long enough goes back.
    Tick,
    /// A setting of the heap is another one from now on.
    Set {
        /// Which.
        what: u8,
        /// To what.
        value: u16,
    },
    /// Every invariant of the heap is checked.
    Validate,
    /// From now on system calls fail as planned; `Never` is the end of it.
    Fail(Plan),
}

/// An operation as bytes.
pub type Record = [u8; 8];

impl Op {
    /// The operation that a record stands for. Zeros are the simplest: lane 0 allocates one byte.
    pub fn decode(profile: Profile, record: Record) -> Self {
        let [kind, lane, align, band, fine_low, fine_high, which_low, which_high] = record;
        let (fine, which) = (u16::from_le_bytes([fine_low, fine_high]), u16::from_le_bytes([which_low, which_high]));
        let layout = || profile.layout(band, fine, align);
        let action = match kind {
            0..=69 => Action::Alloc { layout: layout(), zeroed: false },
            70..=94 => Action::Alloc { layout: layout(), zeroed: true },
            95..=129 => Action::Resize { which, size: layout().size() },
            130..=184 => Action::Free { which },
            185..=200 => Action::Fill { layout: layout(), count: which % 256 + 1 },
            201..=209 => Action::FreeEvery { nth: band % 4 + 1, newest_first: fine_low % 2 == 1 },
            210..=217 => Action::Verify { which },
            218..=228 => Action::Hand { which, count: band, to: fine_low },
            229..=232 => Action::Attach,
            233..=236 => Action::Detach,
            237..=239 => Action::Reclaim,
            240 => Action::Tick,
            241 => Action::Set { what: band, value: fine },
            242..=243 => Action::Validate,
            244..=251 => Action::Fail(plan(band, fine, which)),
            252..=255 => Action::Fail(Plan::Never),
        };
        Self { lane, action }
    }
}

fn plan(kind: u8, a: u16, b: u16) -> Plan {
    let n = |x: u16| u64::from(x % 48) + 1;
    match kind % 5 {
        0 => Plan::Nth(n(a)),
        1 => Plan::From(n(a)),
        2 => Plan::Each(u64::from(a % 7) + 1),
        3 => Plan::Pair(n(a), n(b)),
        _ => Plan::Kind(Call::ALL[usize::from(a) % Call::ALL.len()]),
    }
}

/// The operations that bytes stand for. What is left over at the end stands for nothing.
pub fn from_bytes(profile: Profile, bytes: &[u8]) -> impl Iterator<Item = Op> + '_ {
    bytes.chunks_exact(size_of::<Record>()).filter_map(move |record| Some(Op::decode(profile, record.try_into().ok()?)))
}

/// Does all operations on a subject, and then frees everything, reclaims, validates and audits.
pub fn run<S: Subject>(subject: S, limits: Limits, ops: impl IntoIterator<Item = Op>) -> Result<Counts, Violation> {
    let claims = Claims::default();
    let mut player = Player::new(subject, &claims, limits, 0);
    for op in ops {
        player.play(op)?;
    }
    player.finish()
}

fn placing(n: u8) -> Placing {
    [Placing::Aligned, Placing::Unaligned][usize::from(n % 2)]
}

/// [`run`] on bytes as a fuzzer makes them: the first one chooses the heap and the profile, the rest are operations.
/// `in_process` allows that the heap of the process is chosen.
pub fn run_bytes(profiles: &[Profile], bytes: &[u8], in_process: bool) -> Result<Counts, Violation> {
    let Some((&kind, bytes)) = bytes.split_first() else { return Ok(Counts::default()) };
    let profile = profiles[usize::from(kind / 8) % profiles.len()];
    let (limits, ops) = (profile.limits(), from_bytes(profile, bytes));
    match kind % 8 {
        7 if in_process => run(Threads::default(), limits, ops),
        kind => run(Instance::new(kind % 2 == 1, placing(kind / 2)), limits, ops),
    }
}

#[cfg(test)]
mod tests;
