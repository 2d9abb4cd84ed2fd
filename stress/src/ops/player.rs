//! The interpreter: does operations, keeps the model, finds differences.

use super::{pattern, Action, Claims, Op};
use crate::Violation;
use allocator_core::heap::Stats;
use allocator_core::sys::Plan;
use std::alloc::Layout;
use std::ptr::NonNull;

/// What operations are done on: an allocator, seen by several logical threads.
pub trait Subject {
    /// Logical threads.
    fn lanes(&self) -> usize;

    /// Allocates; `None` is a refusal.
    fn alloc(&mut self, lane: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>>;

    /// Changes the size of a block. On a refusal it is as it was.
    ///
    /// # Safety
    /// The block is live and has this layout; the new size is not zero, and makes a layout with the alignment.
    unsafe fn realloc(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>>;

    /// Frees a block.
    ///
    /// # Safety
    /// The block is live, has this layout, and nobody uses it any more.
    unsafe fn free(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout);

    /// Whether the heap says that it handed this out.
    fn owns(&self, ptr: NonNull<u8>) -> bool;

    /// The lane begins, if it has ended.
    fn attach(&mut self, lane: usize);

    /// The lane ends.
    fn detach(&mut self, lane: usize);

    /// Gives back what is free.
    fn reclaim(&mut self, lane: usize);

    /// Gives back what has been free since the last tick. Where that is done by itself, as `reclaim`.
    fn tick(&mut self, lane: usize) {
        self.reclaim(lane);
    }

    /// Another setting: a limit, watermarks, what lies behind areas, huge pages. Without a meaning where others use the heap
    /// as well.
    fn set(&mut self, _what: u8, _value: u16) {}

    /// Checks every invariant, and tells how many blocks are out. `None` where others use the heap as well.
    fn validate(&mut self) -> Option<Result<Stats, &'static str>>;

    /// Lets system calls fail. Without a meaning where they cannot be made to.
    fn fail(&mut self, plan: Plan);

    /// System calls refused so far, which `fail` may set back, and requests refused at a limit.
    fn refused(&self) -> u64;

    /// When all blocks are freed: calls fail no longer, all lanes end, everything is reclaimed, and the heap proves
    /// that it is valid and empty. It may be used again after that, by new lanes.
    fn finish(&mut self) -> Result<(), String>;
}

/// A block that is live. What it holds is a function of its identity.
#[must_use = "a block that is dropped leaks"]
#[derive(Debug)]
pub struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
    id: u64,
}

// SAFETY: a block is plain memory with one owner; the allocator lets any thread use and free it.
unsafe impl Send for Block {}

impl Block {
    /// Where it is.
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// As what it was allocated.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    fn address(&self) -> usize {
        self.ptr.as_ptr() as usize
    }
}

/// What a player may have live at once, and how much of it it looks at.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes. What would exceed them is not done.
    pub bytes: usize,
    /// Blocks. What would exceed them is not done.
    pub blocks: usize,
    /// Up to this size blocks are written and verified from end to end.
    pub whole: usize,
}

/// What a player did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations.
    pub ops: u64,
    /// Blocks verified when they were resized or freed.
    pub verified: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// Requests that were refused.
    pub refused: u64,
}

impl Counts {
    /// Adds what another player did.
    pub fn add(&mut self, other: Counts) {
        self.ops += other.ops;
        self.verified += other.verified;
        self.bytes += other.bytes;
        self.refused += other.refused;
    }
}

/// Sizes beyond this have no place among the addresses of a process, so nobody may serve them.
const TOO_LARGE: usize = 1 << 47;

/// Does operations on a subject.
#[derive(Debug)]
pub struct Player<'c, S> {
    subject: S,
    claims: &'c Claims,
    limits: Limits,
    lanes: Vec<Vec<Block>>,
    bytes: usize,
    blocks: usize,
    /// Identity of the last block made. The upper half is the player's own.
    id: u64,
    counts: Counts,
}

fn violation<T>(what: String) -> Result<T, Violation> {
    Err(Violation(what))
}

impl<'c, S: Subject> Player<'c, S> {
    /// A player without blocks. Players that hand blocks over share `claims`, and each has a `number` of its own.
    pub fn new(subject: S, claims: &'c Claims, limits: Limits, number: u32) -> Self {
        let lanes = (0..subject.lanes()).map(|_| Vec::new()).collect();
        let id = u64::from(number) << 32;
        Self { subject, claims, limits, lanes, bytes: 0, blocks: 0, id, counts: Counts::default() }
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What operations are done on.
    pub fn subject(&mut self) -> &mut S {
        &mut self.subject
    }

    /// The blocks of a lane.
    pub fn blocks(&self, lane: usize) -> &[Block] {
        &self.lanes[lane]
    }

    /// Bytes of the blocks that the player has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Does one operation.
    pub fn play(&mut self, op: Op) -> Result<(), Violation> {
        let lane = usize::from(op.lane) % self.lanes.len();
        self.counts.ops += 1;
        match op.action {
            Action::Alloc { layout, zeroed } => self.alloc(lane, layout, zeroed).map(|_| ()),
            Action::Fill { layout, count } => {
                for _ in 0..count {
                    if !self.alloc(lane, layout, false)? {
                        break;
                    }
                }
                Ok(())
            }
            Action::Resize { which, size } => match self.index(lane, which) {
                Some(index) => self.resize(lane, index, size),
                None => Ok(()),
            },
            Action::Free { which } => match self.index(lane, which) {
                Some(index) => self.free(lane, index),
                None => Ok(()),
            },
            Action::FreeEvery { nth, newest_first } => {
                let mut chosen: Vec<usize> = (0..self.lanes[lane].len()).step_by(usize::from(nth.max(1))).collect();
                if newest_first {
                    chosen.reverse();
                }
                // Taken out in one go, so that no index shifts.
                let mut kept: Vec<Option<Block>> = self.lanes[lane].drain(..).map(Some).collect();
                let freed = chosen.into_iter().filter_map(|index| kept[index].take()).collect::<Vec<_>>();
                self.lanes[lane] = kept.into_iter().flatten().collect();
                freed.into_iter().try_for_each(|block| self.free_block(lane, block))
            }
            Action::Verify { which } => match self.index(lane, which) {
                Some(index) => self.verify(lane, index),
                None => Ok(()),
            },
            Action::Hand { which, count, to } => {
                let to = usize::from(to) % self.lanes.len();
                if let Some(first) = self.index(lane, which) {
                    let end = self.lanes[lane].len().min(first + usize::from(count) + 1);
                    let handed: Vec<Block> = self.lanes[lane].drain(first..end).collect();
                    self.lanes[to].extend(handed);
                }
                Ok(())
            }
            Action::Attach => {
                self.subject.attach(lane);
                Ok(())
            }
            Action::Detach => {
                self.subject.detach(lane);
                Ok(())
            }
            Action::Reclaim => {
                self.subject.reclaim(lane);
                Ok(())
            }
            Action::Tick => {
                self.subject.tick(lane);
                Ok(())
            }
            Action::Set { what, value } => {
                self.subject.set(what, value);
                Ok(())
            }
            Action::Validate => self.validate(),
            Action::Fail(plan) => {
                self.subject.fail(plan);
                Ok(())
            }
        }
    }

    fn index(&self, lane: usize, which: u16) -> Option<usize> {
        let len = self.lanes[lane].len();
        (len != 0).then(|| usize::from(which) % len)
    }

    fn fits(&self, bytes: usize, blocks: usize) -> bool {
        bytes >= TOO_LARGE || self.bytes + bytes <= self.limits.bytes && self.blocks + blocks <= self.limits.blocks
    }

    /// Allocates a block for a lane and fills it. False if there is none: it was refused, or beyond the limits.
    pub fn alloc(&mut self, lane: usize, layout: Layout, zeroed: bool) -> Result<bool, Violation> {
        if !self.fits(layout.size(), 1) {
            return Ok(false);
        }
        let refused = self.subject.refused();
        let Some(ptr) = self.subject.alloc(lane, layout, zeroed) else {
            self.refusal(layout, refused)?;
            return Ok(false);
        };
        let block = self.new_block(ptr, layout)?;
        if zeroed {
            // SAFETY: just allocated, and of this size.
            if let Some(offset) = unsafe { pattern::nonzero(ptr, layout.size(), self.limits.whole) } {
                return violation(format!("{layout:?} at {ptr:p} was to be zero and is not at offset {offset}"));
            }
        }
        self.fill(&block);
        self.bytes += layout.size();
        self.blocks += 1;
        self.lanes[lane].push(block);
        Ok(true)
    }

    /// Checks what can be said of a block before it is looked into, and claims it.
    fn new_block(&mut self, ptr: NonNull<u8>, layout: Layout) -> Result<Block, Violation> {
        if layout.size() >= TOO_LARGE {
            return violation(format!("{layout:?} cannot have been served, but was, at {ptr:p}"));
        }
        self.id += 1;
        let block = Block { ptr, layout, id: self.id };
        if !block.address().is_multiple_of(layout.align()) {
            return violation(format!("{layout:?} was served at {ptr:p}, which is not aligned"));
        }
        if !self.subject.owns(ptr) {
            return violation(format!("{layout:?} was served at {ptr:p}, which the heap does not own"));
        }
        match self.claims.claim(block.address(), layout.size()) {
            Ok(()) => Ok(block),
            Err(live) => violation(format!("{layout:?} was served at {ptr:p}, but {live:#x} is live")),
        }
    }

    /// Nobody was refused by the system, so nobody may refuse; but for what cannot exist.
    fn refusal(&mut self, layout: Layout, before: u64) -> Result<(), Violation> {
        self.counts.refused += 1;
        if layout.size() < TOO_LARGE && self.subject.refused() == before {
            return violation(format!("{layout:?} was refused, though no system call was"));
        }
        Ok(())
    }

    fn fill(&self, block: &Block) {
        // SAFETY: the block is live and ours.
        unsafe { pattern::fill(block.ptr, block.layout.size(), self.limits.whole, block.id) };
    }

    /// Looks at the first `len` bytes of a block.
    fn check(&mut self, block: &Block, len: usize, when: &str) -> Result<(), Violation> {
        // The pattern of a block that was just resized is still that of its old size.
        self.check_as(block, block.layout.size(), len, when)
    }

    fn check_as(&mut self, block: &Block, filled: usize, len: usize, when: &str) -> Result<(), Violation> {
        let Block { ptr, layout, id } = *block;
        // SAFETY: the block is live and ours, and at least `len` bytes long.
        match unsafe { pattern::spoiled(ptr, filled, len, self.limits.whole, id) } {
            None => Ok(()),
            Some(offset) => violation(format!("block {id:#x}, {layout:?} at {ptr:p}, is spoiled at {offset} {when}")),
        }
    }

    fn count(&mut self, block: &Block) {
        self.counts.verified += 1;
        self.counts.bytes += block.layout.size() as u64;
    }

    /// Verifies a block, changes its size, verifies what it kept, and fills it anew.
    pub fn resize(&mut self, lane: usize, index: usize, size: usize) -> Result<(), Violation> {
        let old = &self.lanes[lane][index];
        let (has, align) = (old.layout.size(), old.layout.align());
        let Ok(layout) = Layout::from_size_align(size, align) else { return Ok(()) };
        if !self.fits(size.saturating_sub(has), 0) {
            return Ok(());
        }
        let old = self.lanes[lane].swap_remove(index);
        self.check(&old, has, "before realloc")?;
        self.count(&old);
        self.claims.release(old.address(), has);
        let refused = self.subject.refused();
        // SAFETY: the block is live and has this layout; the new size makes one as well, and is not zero.
        let Some(ptr) = (unsafe { self.subject.realloc(lane, old.ptr, old.layout, size) }) else {
            self.refusal(layout, refused)?;
            if let Err(live) = self.claims.claim(old.address(), has) {
                return violation(format!("a refused realloc let {:p} go: {live:#x} is live", old.ptr));
            }
            self.check(&old, has, "after a refused realloc")?;
            self.lanes[lane].push(old);
            return Ok(());
        };
        let new = self.new_block(ptr, layout)?;
        let moved = Block { id: old.id, ..new };
        self.check_as(&moved, has, has.min(size), "after realloc")?;
        self.bytes = self.bytes - has + size;
        let new = Block { id: self.id, ..moved };
        self.fill(&new);
        self.lanes[lane].push(new);
        Ok(())
    }

    /// Verifies a block and frees it.
    pub fn free(&mut self, lane: usize, index: usize) -> Result<(), Violation> {
        let block = self.lanes[lane].swap_remove(index);
        self.free_block(lane, block)
    }

    fn free_block(&mut self, lane: usize, block: Block) -> Result<(), Violation> {
        self.check(&block, block.layout.size(), "before it is freed")?;
        self.count(&block);
        self.claims.release(block.address(), block.layout.size());
        self.bytes -= block.layout.size();
        self.blocks -= 1;
        // SAFETY: the block is live, has this layout, and is given up here.
        unsafe { self.subject.free(lane, block.ptr, block.layout) };
        Ok(())
    }

    /// Verifies a block. That is no operation on the allocator, and not counted.
    pub fn verify(&mut self, lane: usize, index: usize) -> Result<(), Violation> {
        let block = self.lanes[lane].swap_remove(index);
        self.check(&block, block.layout.size(), "while it is live")?;
        self.lanes[lane].push(block);
        Ok(())
    }

    /// Gives a block of a lane to another player that shares the claims: it no longer counts here.
    pub fn give(&mut self, lane: usize, index: usize) -> Block {
        let block = self.lanes[lane].swap_remove(index);
        self.bytes -= block.layout.size();
        self.blocks -= 1;
        block
    }

    /// Takes a block that another player gave. It is kept even beyond the limits.
    pub fn receive(&mut self, lane: usize, block: Block) {
        self.bytes += block.layout.size();
        self.blocks += 1;
        self.lanes[lane].push(block);
    }

    /// Checks the heap's invariants, and that it counts what the model has.
    pub fn validate(&mut self) -> Result<(), Violation> {
        match self.subject.validate() {
            None => Ok(()),
            Some(Err(what)) => violation(format!("the heap is not valid: {what}")),
            Some(Ok(stats)) => {
                let counted = stats.slab_objects + stats.runs + stats.areas;
                if counted != self.blocks {
                    return violation(format!("{} blocks are live, the heap counts {counted}: {stats:?}", self.blocks));
                }
                Ok(())
            }
        }
    }

    /// Verifies and frees every block that is left, each by its lane.
    pub fn free_all(&mut self) -> Result<(), Violation> {
        for lane in 0..self.lanes.len() {
            while !self.lanes[lane].is_empty() {
                self.free(lane, self.lanes[lane].len() - 1)?;
            }
        }
        Ok(())
    }

    /// The end: validates, frees everything, with system calls failing or not as they did at last, and then the heap
    /// must prove that it is valid and empty.
    pub fn finish(mut self) -> Result<Counts, Violation> {
        self.settle()?;
        Ok(self.counts)
    }

    /// [`Player::finish`], after which the player goes on with new lanes.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.validate()?;
        self.free_all()?;
        self.subject.finish().map_err(|what| Violation(format!("in the end: {what}")))
    }
}
