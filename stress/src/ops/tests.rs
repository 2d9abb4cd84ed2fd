//! The interpreter itself: it does what it is told, and finds what is wrong.

use super::*;
use allocator_core::heap::Stats;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::ptr::NonNull;

fn ops(profile: Profile, seed: u64, n: usize) -> Vec<Op> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| Op::decode(profile, rng.random())).collect()
}

#[test]
fn every_profile_plays_on_an_instance_and_leaves_it_empty() {
    for (seed, profile) in Profile::ALL.into_iter().enumerate() {
        for with_epoch in [false, true] {
            let counts =
                run(Instance::new(with_epoch, Placing::Kernel), profile.limits(), ops(profile, seed as u64, 600))
                    .unwrap();
            assert_eq!(counts.ops, 600);
            assert!(counts.verified > 100, "{profile:?}: {counts:?}");
        }
    }
}

#[test]
fn an_instance_refuses_when_its_system_does_and_serves_again_afterwards() {
    let layout = Layout::new::<[u64; 1000]>();
    let alloc = Op { lane: 0, action: Action::Alloc { layout, zeroed: true } };
    let fail = |plan| Op { lane: 0, action: Action::Fail(plan) };
    let counts = run(
        Instance::new(true, Placing::Kernel),
        Profile::Objects.limits(),
        [alloc, fail(Plan::From(1))].into_iter().chain([alloc; 4000]).chain([fail(Plan::Never), alloc]),
    )
    .unwrap();
    assert!(counts.refused > 0 && counts.verified > 100, "{counts:?}");
}

#[test]
fn a_profile_names_the_sizes_that_it_is_meant_for() {
    use allocator_core::kmalloc::Route;
    let mut seen = [[0u32; 3]; Profile::ALL.len()];
    for band in 0..=255u8 {
        for fine in (0..=u16::MAX).step_by(97) {
            for (profile, seen) in Profile::ALL.into_iter().zip(&mut seen) {
                match Route::of(profile.layout(band, fine, 0)) {
                    Route::Object(_) => seen[0] += 1,
                    Route::Run(..) => seen[1] += 1,
                    Route::Area => seen[2] += 1,
                }
            }
        }
    }
    let [objects, runs, areas, edges, everything, program, busy, small] = seen;
    assert_eq!((objects[1], objects[2]), (0, 0));
    assert_eq!((runs[0], runs[2]), (0, 0));
    assert!(areas[0] == 0 && areas[1] < areas[2] / 5, "{areas:?}");
    assert!([edges, everything, program, busy].iter().all(|routes| routes.iter().all(|n| *n > 0)));
    assert!(small[0] > 100 * small[1] && small[2] == 0, "{small:?}");
}

#[test]
fn claims_of_different_ranges_never_overlap() {
    let claims = Claims::default();
    let far = 5 << 21;
    assert_eq!(claims.claim(far - 100, 300), Ok(()), "across the border of two pieces");
    assert!(claims.claim(far - 200, 101).is_err() && claims.claim(far + 199, 1).is_err());
    assert!(claims.claim(far - 1000, 9000).is_err(), "around it");
    assert_eq!(claims.claim(far + 200, 16 << 20), Ok(()));
    claims.release(far - 100, 300);
    assert_eq!(claims.claim(far - 50, 250), Ok(()));
    assert!(claims.claim(far + (15 << 20), 8).is_err());
}

#[test]
fn a_pattern_differs_wherever_it_is_looked_at() {
    for (size, whole) in [(1, 4096), (13, 4096), (4096, 4096), (5000, 4096), (40_000, 4096), (1 << 20, 0)] {
        let mut bytes = vec![0u64; size / 8 + 1];
        let ptr = NonNull::from(&mut bytes[0]).cast::<u8>();
        // SAFETY: the vector is at least this long.
        assert_eq!(unsafe { pattern::nonzero(ptr, size, whole) }, None);
        // SAFETY: as above.
        unsafe { pattern::fill(ptr, size, whole, 7) };
        // SAFETY: as above.
        let check = |id, len| unsafe { pattern::spoiled(ptr, size, len, whole, id) };
        assert_eq!((check(7, size), check(7, size / 2)), (None, None));
        assert_eq!((check(8, size), check(8, 0)), (Some(0), None));
        // SAFETY: as above.
        assert_eq!(unsafe { pattern::nonzero(ptr, size, whole) }, Some(0));
        for offset in [0, size / 2, size - 1] {
            // SAFETY: inside the vector.
            let byte = unsafe { ptr.add(offset) };
            // SAFETY: as above.
            let old = unsafe { byte.read() };
            // SAFETY: as above.
            unsafe { byte.write(!old) };
            assert!(check(7, size).is_some() || size > whole && offset == size / 2, "{size} bytes, at {offset}");
            // SAFETY: as above.
            unsafe { byte.write(old) };
        }
    }
}

/// What a broken allocator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    HandsOutTwice,
    Misaligns,
    ForgetsZeros,
    RefusesForNothing,
    LosesContent,
    SpoilsOnRefusal,
    SpoilsNeighbour,
    DisownsBlocks,
    Loses,
}

/// An instance with a fault.
struct Broken {
    inner: Instance,
    fault: Fault,
    last: Option<NonNull<u8>>,
    refused: u64,
}

impl Broken {
    fn spoil(ptr: NonNull<u8>) {
        // SAFETY: blocks of these tests are live and not empty.
        let byte = unsafe { ptr.as_ref() };
        // SAFETY: as above.
        unsafe { ptr.write(!byte) };
    }
}

impl Subject for Broken {
    fn lanes(&self) -> usize {
        self.inner.lanes()
    }
    fn alloc(&mut self, lane: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        let last = self.last;
        self.last = self.inner.alloc(lane, layout, zeroed);
        match (self.fault, last) {
            (Fault::HandsOutTwice, Some(last)) => Some(last),
            // SAFETY: one byte into the block.
            (Fault::Misaligns, _) => self.last.map(|ptr| unsafe { ptr.add(1) }),
            (Fault::RefusesForNothing, Some(_)) => None,
            (Fault::ForgetsZeros, _) => self.last.inspect(|ptr| Self::spoil(*ptr)),
            (Fault::SpoilsNeighbour, Some(last)) => {
                Self::spoil(last);
                self.last
            }
            _ => self.last,
        }
    }
    unsafe fn realloc(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        if self.fault == Fault::SpoilsOnRefusal {
            Self::spoil(ptr);
            self.refused += 1;
            return None;
        }
        // SAFETY: by contract.
        let to = unsafe { self.inner.realloc(lane, ptr, layout, size) };
        to.inspect(|to| {
            if self.fault == Fault::LosesContent {
                Self::spoil(*to);
            }
        })
    }
    unsafe fn free(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout) {
        if self.fault != Fault::Loses {
            // SAFETY: by contract.
            unsafe { self.inner.free(lane, ptr, layout) };
        }
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        self.fault != Fault::DisownsBlocks && self.inner.owns(ptr)
    }
    fn attach(&mut self, lane: usize) {
        self.inner.attach(lane);
    }
    fn detach(&mut self, lane: usize) {
        self.inner.detach(lane);
    }
    fn reclaim(&mut self, lane: usize) {
        self.inner.reclaim(lane);
    }
    fn tick(&mut self, lane: usize) {
        self.inner.tick(lane);
    }
    fn set(&mut self, what: u8, value: u16) {
        self.inner.set(what, value);
    }
    fn validate(&mut self) -> Option<Result<Stats, &'static str>> {
        self.inner.validate()
    }
    fn fail(&mut self, plan: Plan) {
        self.inner.fail(plan);
    }
    fn refused(&self) -> u64 {
        self.inner.refused() + self.refused
    }
    fn finish(&mut self) -> Result<(), String> {
        self.inner.finish()
    }
}

#[test]
fn every_fault_of_an_allocator_is_found() {
    let found = |fault| {
        let layout = Layout::new::<[u64; 9]>();
        let ops = [
            Action::Alloc { layout, zeroed: true },
            Action::Alloc { layout, zeroed: true },
            Action::Verify { which: 0 },
            Action::Resize { which: 1, size: 5000 },
            Action::Free { which: 0 },
            Action::Validate,
        ];
        let ops = ops.map(|action| Op { lane: 0, action });
        let subject = Broken { inner: Instance::new(false, Placing::Kernel), fault, last: None, refused: 0 };
        run(subject, Profile::Objects.limits(), ops).err().map(|violation| violation.0)
    };
    assert_eq!(found(Fault::None), None);
    for (fault, words) in [
        (Fault::HandsOutTwice, "is live"),
        (Fault::Misaligns, "not aligned"),
        (Fault::ForgetsZeros, "was to be zero"),
        (Fault::RefusesForNothing, "though no system call was"),
        (Fault::LosesContent, "after realloc"),
        (Fault::SpoilsOnRefusal, "after a refused realloc"),
        (Fault::SpoilsNeighbour, "is spoiled"),
        (Fault::DisownsBlocks, "does not own"),
        (Fault::Loses, "the heap counts"),
    ] {
        let what = found(fault).unwrap_or_else(|| panic!("{fault:?} was not found"));
        assert!(what.contains(words), "{fault:?}: {what}");
    }
}

#[test]
fn blocks_go_from_player_to_player() {
    let _alone = crate::tests::ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (claims, layout) = (Claims::default(), Layout::new::<[u64; 50]>());
    let player = |number| Player::new(Direct, &claims, Profile::Program.limits(), number);
    let (to, inbox) = std::sync::mpsc::channel();
    // Threads that are joined, since their caches must be empty when the next test audits the heap.
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut player = player(1);
            assert_eq!(player.alloc(0, layout, false), Ok(true));
            to.send(player.give(0, 0)).unwrap();
            player.finish().unwrap();
        });
        first.join().unwrap();
        let block = inbox.recv().unwrap();
        let second = scope.spawn(|| {
            let mut player = player(2);
            player.receive(0, block);
            assert_eq!(player.free(0, 0), Ok(()));
            player.finish().unwrap();
        });
        second.join().unwrap();
    });
}

#[test]
fn lanes_of_the_heap_of_the_process_are_threads() {
    let _alone = crate::tests::ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // On a thread that is joined, since the last steps of a run are done on the calling one.
    let run = || run(Threads::default(), Profile::Everything.limits(), ops(Profile::Everything, 1, 400)).unwrap();
    let counts = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    assert!(counts.verified > 100, "{counts:?}");
}
