//! The workloads: each aims at one way through the allocator, and all of them at as many system calls as they can.

use crate::ops::{Action, Claims, Instance, Limits, Op, Player, Profile, Visitor};
use crate::Violation;
use allocator_core::config::{CHUNK_SIZE, FIRST_ARENA_CHUNKS, PAGE_SIZE, VMALLOC_THRESHOLD};
use allocator_core::size_class::SizeClass;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::alloc::Layout;
use std::sync::mpsc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Lanes of most workloads.
const LANES: u8 = 4;

/// A list of operations with a name.
pub struct Workload {
    /// What it is aimed at.
    pub name: &'static str,
    /// Whether empty arenas are unmapped by crossbeam-epoch, or under a lock.
    pub with_epoch: bool,
    /// Thread blocks that it may have.
    pub lanes: usize,
    /// What may be live at once.
    pub limits: Limits,
    /// What is done.
    pub play: Play,
}

/// How operations are done.
pub enum Play {
    /// By one thread, with the blocks of all lanes.
    Alone(Vec<Op>),
    /// By two threads at once, which hand blocks to each other.
    Together(Vec<Op>, Vec<Op>),
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("sizes are far below the limit")
}

/// Operations in the making.
struct Script {
    ops: Vec<Op>,
    rng: ChaCha8Rng,
}

impl Script {
    fn new(seed: u64) -> Self {
        Self { ops: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn op(&mut self, lane: u8, action: Action) {
        self.ops.push(Op { lane, action });
    }

    fn alloc(&mut self, lane: u8, size: usize, align: usize) {
        self.op(lane, Action::Alloc { layout: layout(size, align), zeroed: false });
    }

    fn zeroed(&mut self, lane: u8, size: usize, align: usize) {
        self.op(lane, Action::Alloc { layout: layout(size, align), zeroed: true });
    }

    fn fill(&mut self, lane: u8, size: usize, count: u16) {
        self.op(lane, Action::Fill { layout: layout(size, 8), count });
    }

    fn free_every(&mut self, lane: u8, nth: u8) {
        self.op(lane, Action::FreeEvery { nth, newest_first: nth.is_multiple_of(2) });
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    /// Operations at random, without faults of their own, and with a reclaim after each `reclaim` of them.
    fn random(&mut self, profile: Profile, n: usize, reclaim: usize) {
        let mut done = 0;
        while done < n {
            let op = Op::decode(profile, self.rng.random());
            if matches!(op.action, Action::Fail(_) | Action::Validate) {
                continue;
            }
            self.ops.push(op);
            done += 1;
            if done % reclaim == 0 {
                self.op(op.lane, Action::Reclaim);
            }
        }
    }
}

fn objects_of_one_class(s: &mut Script, scale: usize) {
    for round in 0..12 * scale {
        for lane in 0..LANES {
            s.fill(lane, 2000, 40);
        }
        s.free_every(round as u8 % LANES, 2);
        s.free_every((round as u8 + 1) % LANES, 1);
        s.op(0, Action::Reclaim);
    }
}

fn objects_of_all_classes(s: &mut Script, scale: usize) {
    for round in 0..3 * scale {
        for class in SizeClass::all() {
            let lane = (class.index() + round) as u8 % LANES;
            s.fill(lane, class.size(), (32 * KIB / class.size()).clamp(2, 40) as u16);
            if class.index() % 11 == 10 {
                s.free_every(lane, 2);
                s.op(lane, Action::Reclaim);
            }
        }
        (0..LANES).for_each(|lane| s.free_every(lane, 1 + (round % 2) as u8));
        s.op(0, Action::Reclaim);
    }
}

fn page_runs(s: &mut Script, scale: usize) {
    for round in 0..14 * scale {
        for i in 0..24 {
            let size = PAGE_SIZE + 1 + s.below(6 * PAGE_SIZE);
            s.alloc(i % LANES, size, 8);
        }
        s.alloc(0, (round % 4 + 1) * CHUNK_SIZE, 8);
        (0..LANES).for_each(|lane| s.free_every(lane, 1 + (round as u8 + lane) % 3));
        s.op(round as u8 % LANES, Action::Reclaim);
    }
}

fn over_aligned(s: &mut Script, scale: usize) {
    for round in 0..36 * scale {
        for shift in 6..=21 {
            let size = 1 + s.below(2 << shift).min(256 * KIB);
            s.alloc(shift as u8 % LANES, size, 1 << shift);
        }
        s.alloc(1, 100 * KIB, CHUNK_SIZE);
        (0..LANES).for_each(|lane| s.free_every(lane, 1 + (round as u8 + lane) % 3));
        s.op(2, Action::Reclaim);
    }
}

fn areas(s: &mut Script, scale: usize) {
    for _ in 0..110 * scale {
        let lane = s.below(LANES as usize) as u8;
        let size = VMALLOC_THRESHOLD + 1 + s.below(8 * MIB);
        match s.below(8) {
            0..=2 => s.alloc(lane, size, 8),
            3 => s.zeroed(lane, size, 8),
            4 => s.op(lane, Action::Resize { which: 0, size }),
            5 | 6 => s.op(lane, Action::Free { which: 1 }),
            _ => s.op(lane, Action::Reclaim),
        }
    }
}

fn aligned_areas(s: &mut Script, scale: usize) {
    for round in 0..24 * scale {
        let (size, shift) = (1 + s.below(100 * KIB), 22 + s.below(4));
        s.alloc(0, size, 1 << shift);
        s.zeroed(1, 64, 16 * MIB);
        s.op(1, Action::Resize { which: 0, size });
        if round % 12 == 0 {
            let shift = 13 + s.below(12);
            s.alloc(0, VMALLOC_THRESHOLD + size, 1 << shift);
            s.op(0, Action::Resize { which: u16::MAX, size: VMALLOC_THRESHOLD + MIB });
        }
        s.free_every(round as u8 % 2, 1 + (round % 3) as u8);
        if round % 4 == 3 {
            s.op(0, Action::Reclaim);
        }
    }
}

/// From an object to an area, by way of every layer.
const RUNGS: [usize; 12] = [
    24,
    200,
    1000,
    3000,
    20 * KIB,
    40 * KIB,
    100 * KIB,
    300 * KIB,
    700 * KIB,
    2200 * KIB,
    VMALLOC_THRESHOLD + 1,
    VMALLOC_THRESHOLD + MIB,
];

/// Of six blocks one goes up to an area, the others to a run that most of a chunk has no room for.
fn rungs(block: usize) -> &'static [usize] {
    if block == 0 {
        &RUNGS
    } else {
        &RUNGS[..9]
    }
}

fn ladder_up(s: &mut Script, scale: usize) {
    for round in 0..4 * scale {
        for block in 0..6 {
            s.alloc(block as u8, 8, [8, 64, 8, 4096, 8, 256 * KIB][block]);
        }
        for rung in 0..RUNGS.len() {
            for block in 0..6 {
                if let Some(size) = rungs(block).get(rung) {
                    s.op(block as u8, Action::Resize { which: 0, size: size + round });
                }
            }
        }
        (0..6).for_each(|lane| s.free_every(lane, 1));
        s.op(0, Action::Reclaim);
    }
}

fn ladder_down(s: &mut Script, scale: usize) {
    for round in 0..4 * scale {
        for block in 0..6 {
            let size = rungs(block).last().copied().unwrap_or(1) + round;
            s.alloc(block as u8, size, [8, 64, 8, 4096, 8, 256 * KIB][block]);
        }
        for rung in (0..RUNGS.len()).rev() {
            for block in 0..6 {
                if let Some(size) = rungs(block).get(rung) {
                    s.op(block as u8, Action::Resize { which: 0, size: *size });
                }
            }
            if rung % 4 == 0 {
                s.op(0, Action::Reclaim);
            }
        }
        (0..6).for_each(|lane| s.free_every(lane, 1));
        s.op(0, Action::Reclaim);
    }
}

fn zeroed(s: &mut Script, scale: usize) {
    for round in 0..6 * scale {
        for i in 0..20 {
            let size = [500, 20 * KIB, 3 * PAGE_SIZE, 10 * PAGE_SIZE, CHUNK_SIZE / 2][s.below(5)];
            s.alloc(i % LANES, size, 8);
        }
        (0..LANES).for_each(|lane| s.free_every(lane, 1 + (lane + round as u8) % 2));
        s.op(0, Action::Reclaim);
        for i in 0..20 {
            let size = [500, 20 * KIB, 3 * PAGE_SIZE, 10 * PAGE_SIZE, CHUNK_SIZE / 2][s.below(5)];
            s.zeroed(i % LANES, size, 8);
        }
        s.zeroed(0, VMALLOC_THRESHOLD + 1, 8);
        (0..LANES).for_each(|lane| s.free_every(lane, 1 + (lane + round as u8) % 2));
    }
}

/// Lanes of the workload of many thread blocks.
const MANY: usize = 200;

fn many_thread_blocks(s: &mut Script, scale: usize) {
    for round in 0..4 * scale {
        for lane in 0..MANY as u8 {
            s.op(lane, Action::Attach);
            s.fill(lane, 48 + round * 100, 5);
            s.alloc(lane, 3000, 8);
        }
        for lane in (0..MANY as u8).step_by(3) {
            s.op(lane, Action::Detach);
            s.free_every(lane, 1);
        }
        s.op(1, Action::Reclaim);
        for lane in 0..MANY as u8 {
            s.op(lane, Action::Hand { which: 0, count: 3, to: lane.wrapping_mul(7) % MANY as u8 });
        }
        for lane in 0..MANY as u8 {
            s.free_every(lane, 1);
            s.op(lane, Action::Detach);
        }
        s.op(0, Action::Attach);
        s.op(0, Action::Reclaim);
    }
}

fn reclaim_in_the_middle(s: &mut Script, scale: usize) {
    s.random(Profile::Program, 480 * scale, 12);
}

fn to_the_edge(s: &mut Script, scale: usize) {
    for round in 0..2 * scale {
        for lane in 0..3 {
            // All of them are more than the first arena has.
            s.fill(lane, CHUNK_SIZE, FIRST_ARENA_CHUNKS.max(30) as u16 / 3 + 1);
        }
        for lane in 0..3 {
            s.fill(lane, CHUNK_SIZE / 2 + round * PAGE_SIZE, 3);
        }
        // From the old end, from the new one, and in between: then arenas are empty, and are retired.
        s.free_every(1, 2);
        s.op(0, Action::Reclaim);
        (0..3).for_each(|lane| s.free_every(lane, 1));
        s.op(1, Action::Reclaim);
        s.op(2, Action::Reclaim);
        s.op(1, Action::Detach);
        s.op(1, Action::Attach);
    }
}

fn hand_over(s: &mut Script, scale: usize) {
    for round in 0..5 * scale {
        for lane in 0..LANES {
            s.fill(lane, [100, 1000, 9000, 30_000][usize::from(lane + round as u8) % 4], 20);
            let pages = 1 + s.below(20);
            s.fill(lane, pages * PAGE_SIZE, 3);
        }
        s.alloc(round as u8 % LANES, VMALLOC_THRESHOLD + MIB, 8);
        for lane in 0..LANES {
            s.op(lane, Action::Hand { which: 3, count: 200, to: (lane + 1) % LANES });
        }
        let ends = round as u8 % LANES;
        s.op(ends, Action::Detach);
        (0..LANES).for_each(|lane| s.free_every(lane, 1 + u8::from(lane == ends)));
        s.op((ends + 1) % LANES, Action::Reclaim);
        s.op(ends, Action::Attach);
    }
}

fn mixed(s: &mut Script, scale: usize) {
    s.random(Profile::Everything, 140 * scale, 15);
}

fn edges(s: &mut Script, scale: usize) {
    s.random(Profile::Edges, 120 * scale, 15);
}

fn ticks(s: &mut Script, scale: usize) {
    for round in 0..3 * scale {
        for lane in 0..3 {
            s.fill(lane, CHUNK_SIZE / 2 + round * PAGE_SIZE, 12);
            s.fill(lane, [48, 1000, 5000][usize::from(lane)], 400);
        }
        // Most of it goes, and what survives is scattered; then nothing happens for a while.
        (0..3).for_each(|lane| s.free_every(lane, 2));
        (0..3).for_each(|lane| s.free_every(lane, 2));
        (0..3).for_each(|lane| s.op(lane, Action::Tick));
        s.fill(3, CHUNK_SIZE / 2, 2);
        (0..4).for_each(|lane| s.free_every(lane, 1));
        (0..4).for_each(|lane| s.op(lane, Action::Tick));
    }
}

fn settings(s: &mut Script, scale: usize) {
    let set = |s: &mut Script, what, value| s.op(0, Action::Set { what, value });
    for round in 0..2 * scale as u16 {
        set(s, 4, 1); // pages without access behind areas
        s.alloc(0, VMALLOC_THRESHOLD + 1, 8);
        s.op(0, Action::Resize { which: 0, size: VMALLOC_THRESHOLD + CHUNK_SIZE });
        set(s, 1, 200); // a little more than what is in use
        set(s, 3, round * 100);
        set(s, 5, round);
        for lane in 0..3 {
            s.fill(lane, CHUNK_SIZE / 2 + PAGE_SIZE, 4);
            s.fill(lane, [48, 1000, 5000][usize::from(lane)], 300);
        }
        s.op(0, Action::Resize { which: 0, size: VMALLOC_THRESHOLD + 4 * CHUNK_SIZE });
        (0..3).for_each(|lane| s.free_every(lane, 2));
        s.op(0, Action::Tick);
        s.fill(1, 3 * CHUNK_SIZE, 2);
        set(s, 2, 0); // no limit
        set(s, 4, 0);
        s.fill(2, CHUNK_SIZE, 3);
        (0..3).for_each(|lane| s.free_every(lane, 1));
    }
}

/// A little of everything, to see that a heap serves every layer on every lane.
pub fn probe() -> Vec<Op> {
    let mut s = Script::new(0);
    for class in SizeClass::all() {
        s.alloc(class.index() as u8 % LANES, class.size(), 8);
    }
    for lane in 0..LANES {
        s.fill(lane, 1000, 100);
        s.zeroed(lane, 3 * PAGE_SIZE, 8);
        s.alloc(lane, CHUNK_SIZE, CHUNK_SIZE);
        s.op(lane, Action::Resize { which: 0, size: 5 * PAGE_SIZE });
    }
    s.zeroed(0, VMALLOC_THRESHOLD + 1, 8);
    s.alloc(0, 64, 16 * MIB);
    s.op(0, Action::Resize { which: u16::MAX, size: VMALLOC_THRESHOLD + CHUNK_SIZE });
    (0..LANES).for_each(|lane| s.free_every(lane, 1));
    s.ops
}

/// Every workload, `scale` times as long as the shortest that is of use.
pub fn all(scale: usize) -> Vec<Workload> {
    type Make = fn(&mut Script, usize);
    let alone: [(&'static str, bool, Make); 18] = [
        ("objects of one class", true, objects_of_one_class),
        ("objects of all classes", false, objects_of_all_classes),
        ("page runs", true, page_runs),
        ("over-aligned", false, over_aligned),
        ("areas", true, areas),
        ("aligned areas", false, aligned_areas),
        ("realloc ladder up", true, ladder_up),
        ("realloc ladder down", false, ladder_down),
        ("zeroed", true, zeroed),
        ("many thread blocks", true, many_thread_blocks),
        ("reclaim in the middle", true, reclaim_in_the_middle),
        ("to the edge, with epochs", true, to_the_edge),
        ("to the edge, with a lock", false, to_the_edge),
        ("hand-over", true, hand_over),
        ("mixed", true, mixed),
        ("edges of sizes", false, edges),
        ("ticks", true, ticks),
        ("settings", true, settings),
    ];
    let limits = Limits { bytes: 128 * MIB, blocks: 20_000, whole: 512 };
    let mut all = Vec::new();
    for (seed, (name, with_epoch, make)) in alone.into_iter().enumerate() {
        let mut script = Script::new(seed as u64);
        make(&mut script, scale);
        let lanes = if name == "many thread blocks" { MANY } else { 6 };
        all.push(Workload { name, with_epoch, lanes, limits, play: Play::Alone(script.ops) });
    }
    let [first, second] = [100, 101].map(|seed| {
        let mut script = Script::new(seed);
        script.random(Profile::Runs, 20 * scale, 8);
        script.random(Profile::Program, 40 * scale, 12);
        script.ops
    });
    let play = Play::Together(first, second);
    all.push(Workload { name: "two threads", with_epoch: true, lanes: 1, limits, play });
    all
}

/// Two threads do a list of operations each on the heap of the instance, and every tenth block changes hands. All that
/// they allocate is freed when they have ended.
pub fn together(
    player: &mut Player<'_, Instance>,
    claims: &Claims,
    limits: Limits,
    first: &[Op],
    second: &[Op],
) -> Result<(), Violation> {
    // SAFETY: the threads have ended before the instance is finished.
    let heap = unsafe { player.subject().heap() };
    let os = player.subject().os();
    let (to_first, from_second) = mpsc::channel();
    let (to_second, from_first) = mpsc::channel();
    let part = |number, ops: &[Op], to: mpsc::Sender<_>, from: mpsc::Receiver<_>| {
        let mut player = Player::new(Visitor::new(heap, os), claims, limits, number);
        for (i, op) in ops.iter().enumerate() {
            player.play(*op)?;
            if i % 10 == 9 && !player.blocks(0).is_empty() {
                // Should the other one have stopped, the block comes back.
                if let Err(mpsc::SendError(block)) = to.send(player.give(0, 0)) {
                    player.receive(0, block);
                }
            }
            from.try_iter().for_each(|block| player.receive(0, block));
        }
        drop(to);
        from.iter().for_each(|block| player.receive(0, block));
        player.free_all()?;
        player.finish().map(|_| ())
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| part(2, second, to_first, from_first));
        let first = part(1, first, to_second, from_second);
        let second = second.join().unwrap_or_else(|_| Err(Violation("a thread panicked".to_owned())));
        first.and(second)
    })
}
