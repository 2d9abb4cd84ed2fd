//! Every shape, short, on every system; and faults that a run has to find.

use super::*;
use crate::front::Shared;
use crate::ops::{Claims, Limits, Player};
use allocator_core::heap::Stats;
use std::alloc::{GlobalAlloc, Layout, System as Machine};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// The audit at the end of a shape wants the heap for itself.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn short_on(system: System, shape: Shape, seed: u64, threads: usize, ops: u64) -> Report {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // One round in four with larger blocks, as a soak has it.
    let profile = if seed % 4 == 1 { Profile::Program } else { Profile::Busy };
    let config = Config { seed, threads, limit: Limit::Ops(ops), system, profile };
    let report = run(&config, shape).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    assert!(report.verified > 0, "{shape:?} on {system:?} verified nothing");
    report
}

fn short(shape: Shape, seed: u64, threads: usize, ops: u64) -> Report {
    short_on(System::Real, shape, seed, threads, ops)
}

#[test]
fn whatever_the_language_has_keeps_every_block_intact() {
    assert_eq!(short(Shape::Mixed, 1, 6, 700).ops, 6 * 700);
}

#[test]
fn consumers_find_what_producers_wrote() {
    let pairs = short(Shape::OneToOne, 2, 6, 3000);
    assert_eq!(pairs.ops, 3 * 3000);
    assert!(pairs.verified >= pairs.ops, "each is freed: {pairs:?}");
    let many = short(Shape::ManyToOne, 3, 6, 2000);
    assert_eq!(many.ops, 5 * 2000);
    assert!(many.verified >= many.ops, "each is freed: {many:?}");
    let one = short(Shape::OneToMany, 4, 6, 6000);
    assert_eq!(one.ops, 6000);
    assert!(one.verified >= one.ops, "each is freed: {one:?}");
}

#[test]
fn blocks_survive_being_passed_around() {
    short(Shape::PassTheBlock, 5, 8, 1000);
}

#[test]
fn survivors_outlive_their_threads() {
    short(Shape::Churn, 17, 4, 6000);
}

#[test]
fn threads_end_while_others_free_what_they_allocated() {
    let report = short(Shape::ExitWhileFreed, 7, 4, 6000);
    assert_eq!((report.ops, report.verified), (4 * 6000, 4 * 6000));
}

#[test]
fn slabs_fill_and_empty_between_two_threads() {
    short(Shape::PingPong, 8, 4, 20_000);
}

#[test]
fn phases_of_one_size_make_room_for_each_other() {
    short(Shape::Phases, 9, 4, 4000);
}

#[test]
fn a_sawtooth_leaves_nothing_behind() {
    short(Shape::Sawtooth, 10, 2, 4000);
}

#[test]
fn every_shape_ends_well_where_a_tenth_of_all_calls_is_refused() {
    let refused: u64 =
        Shape::DEFAULT.into_iter().map(|shape| short_on(System::Storm, shape, 11, 4, 1500).refused).sum();
    assert!(refused > 0, "the storm refused nothing");
}

#[test]
fn a_sawtooth_turns_where_the_system_refuses() {
    assert!(short_on(System::Edge, Shape::Sawtooth, 12, 4, 6000).refused > 0);
}

#[test]
fn children_allocate_and_free_what_their_parent_had() {
    assert!(short(Shape::ForkStorm, 18, 4, 800).forks > 0);
}

#[test]
fn a_run_ends_by_time() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = Limit::Time(Duration::from_millis(50));
    let config = Config { seed: 13, threads: 3, limit, system: System::Real, profile: Profile::Busy };
    for shape in Shape::DEFAULT {
        let report = run(&config, shape).unwrap_or_else(|what| panic!("{what}"));
        assert!(report.ops > 0, "{shape:?} did nothing");
    }
}

#[test]
fn a_seed_replays_its_streams() {
    for shape in Shape::DEFAULT {
        let first = short(shape, 14, 4, 500);
        assert_eq!(first.digest, short(shape, 14, 4, 500).digest, "{shape:?}");
        assert_ne!(first.digest, short(shape, 15, 4, 500).digest, "{shape:?}");
    }
}

#[test]
fn a_soak_goes_on_from_its_state() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = soak::Plan {
        seed: 16,
        threads: 2,
        time: Duration::from_millis(300),
        verified: 0,
        shapes: vec![Shape::Churn, Shape::PingPong],
        every: Duration::from_secs(1),
    };
    let path = std::env::temp_dir().join(format!("stress-{}.state", std::process::id()));
    let mut state = soak::State::new(plan.seed);
    soak::soak(&plan, &mut state, |state| state.save(&path)).unwrap();
    let mut again = soak::State::load(&path).unwrap().expect("it was saved");
    assert_eq!(state, again);
    assert!(state.slices > 0 && state.verified > 0, "{state:?}");
    soak::soak(&plan, &mut again, |_| Ok(())).unwrap();
    assert!(again.slices > state.slices && again.verified > state.verified, "{again:?} after {state:?}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(soak::State::load(&path).unwrap(), None);
}

/// What a broken heap does, now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    HandsOutTwice,
    HandsOutOverlapping,
    ForgetsZeros,
    LosesContent,
}

/// A heap that any number of threads use, over the machine's allocator, with a fault at each 40th call.
struct Planted {
    fault: Fault,
    calls: Mutex<u64>,
    /// The last block of each size; they are never freed, so that a second owner does no harm.
    last: Mutex<HashMap<usize, usize>>,
}

impl Planted {
    fn new(fault: Fault) -> &'static Self {
        Box::leak(Box::new(Self { fault, calls: Mutex::default(), last: Mutex::default() }))
    }

    fn strikes(&self, fault: Fault) -> bool {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls += u64::from(self.fault == fault);
        self.fault == fault && calls.is_multiple_of(40)
    }
}

impl Front for Planted {
    fn alloc(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        // Room for what begins eight bytes later.
        let room = Layout::from_size_align(layout.size() + 64, layout.align().max(64)).expect("a layout");
        // SAFETY: the size is not zero.
        let new = NonNull::new(unsafe { Machine.alloc_zeroed(room) })?;
        if zeroed && self.strikes(Fault::ForgetsZeros) {
            // SAFETY: just allocated, at least one byte.
            unsafe { new.write(1) };
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.insert(layout.size(), new.as_ptr().expose_provenance());
        let before = before.and_then(|at| NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(at)));
        match before {
            Some(before) if !zeroed && self.strikes(Fault::HandsOutTwice) => Some(before),
            Some(before) if !zeroed && layout.align() <= 8 && self.strikes(Fault::HandsOutOverlapping) => {
                // SAFETY: there is room behind it.
                Some(unsafe { before.add(8) })
            }
            _ => Some(new),
        }
    }
    unsafe fn realloc(&self, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let to = self.alloc(Layout::from_size_align(size, layout.align()).ok()?, true)?;
        if !self.strikes(Fault::LosesContent) {
            // SAFETY: both are at least this long, and the new one is new: it asked for zeros.
            unsafe { to.copy_from_nonoverlapping(ptr, layout.size().min(size)) };
        }
        Some(to)
    }
    unsafe fn free(&self, _: NonNull<u8>, _: Layout) {}
    fn owns(&self, _: NonNull<u8>) -> bool {
        true
    }
    fn reclaim(&self) {}
    fn refused(&self) -> u64 {
        0
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
    fn reports(&self) -> [String; 2] {
        Default::default()
    }
    fn audit(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Two threads work on a heap with a fault, and hand each other what they have. With maps of claims of their own, none
/// sees what the other was given.
fn found(fault: Fault, one_map: bool) -> Option<String> {
    let front = Shared(Planted::new(fault));
    // Nobody claims a block while it is resized, as its place may be another's before that ends. What is handed out of
    // it then is found by its pattern.
    let resizes = !matches!(fault, Fault::HandsOutTwice | Fault::HandsOutOverlapping);
    let limits = Limits { bytes: 1 << 20, blocks: 300, whole: usize::MAX };
    let maps = [Claims::default(), Claims::default()];
    let work = |number: usize| -> Result<(), Violation> {
        let map = if one_map { 0 } else { number };
        let mut player = Player::new(front, &maps[map], limits, number as u32);
        for n in 0..3000usize {
            let layout = Layout::from_size_align([64, 100, 8, 400][n % 4], 8).expect("a layout");
            player.alloc(0, layout, n % 7 == 0)?;
            let len = player.blocks(0).len();
            if resizes && n % 5 == 0 && len > 0 {
                player.resize(0, n % len, 40 + n % 300)?;
            }
            if len > 100 {
                player.free(0, n * 31 % len)?;
            }
        }
        player.free_all()
    };
    let results = thread::scope(|scope| {
        let threads = [0, 1].map(|number| scope.spawn(move || work(number)));
        threads.map(|thread| thread.join().unwrap_or_else(|_| Err(Violation("a thread panicked".to_owned()))))
    });
    results.into_iter().find_map(|result| result.err().map(|violation| violation.0))
}

#[test]
fn a_heap_without_a_fault_is_found_right() {
    assert_eq!((found(Fault::None, true), found(Fault::None, false)), (None, None));
}

#[test]
fn the_map_of_claims_finds_a_block_that_two_have() {
    for fault in [Fault::HandsOutTwice, Fault::HandsOutOverlapping] {
        let what = found(fault, true).expect("a violation");
        assert!(what.contains("is live"), "{fault:?}: {what}");
    }
}

#[test]
fn patterns_find_what_no_map_sees() {
    for (fault, says) in [(Fault::ForgetsZeros, "was to be zero"), (Fault::LosesContent, "after realloc")] {
        let what = found(fault, true).expect("a violation");
        assert!(what.contains(says), "{fault:?}: {what}");
    }
    // One block, two owners, and neither knows what the other claims.
    let front = Shared(Planted::new(Fault::HandsOutTwice));
    let limits = Limits { bytes: 1 << 20, blocks: 300, whole: usize::MAX };
    let maps = [Claims::default(), Claims::default()];
    let [mut one, mut other] = [0, 1].map(|number| Player::new(front, &maps[number], limits, number as u32));
    let layout = Layout::new::<[u64; 16]>();
    for _ in 0..100 {
        one.alloc(0, layout, false).and_then(|_| other.alloc(0, layout, false)).expect("the maps see nothing");
    }
    let spoiled = one.free_all().and_then(|()| other.free_all()).err();
    assert!(spoiled.expect("a violation").0.contains("is spoiled"));
}
