//! Random lists of operations, made smaller when one fails: the operations that are printed then are all it takes.
//!
//! Every run has other seeds; a failure names its own, and `PROPTEST_RNG_SEED` replays it.

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use std::hash::{BuildHasher, RandomState};
use stress::ops::{run, Counts, Instance, Op, Placing, Profile, Threads};
use stress::Violation;

/// Plays `cases` lists of up to `most` operations of a profile.
fn check(
    profile: Profile,
    cases: u32,
    most: usize,
    max_shrink_iters: u32,
    play: impl Fn((bool, Placing), Vec<Op>) -> Result<Counts, Violation>,
) {
    let mut config = ProptestConfig { cases, max_shrink_iters, failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let op = any::<[u8; 8]>().prop_map(move |record| Op::decode(profile, record));
    let placing = prop_oneof![Just(Placing::Aligned), Just(Placing::Unaligned), Just(Placing::Kernel)];
    let ops = ((any::<bool>(), placing), proptest::collection::vec(op, 1..most));
    let found = TestRunner::new(config)
        .run(&ops, |(kind, ops)| play(kind, ops).map(|_| ()).map_err(|Violation(what)| TestCaseError::fail(what)));
    if let Err(what) = found {
        panic!("{profile:?}, PROPTEST_RNG_SEED={seed}: {what}");
    }
}

fn on_instances(profile: Profile, cases: u32) {
    check(profile, cases, 300, 4000, |(with_epoch, placing), ops| {
        run(Instance::new(with_epoch, placing), profile.limits(), ops)
    });
}

#[test]
fn objects_agree_with_the_model() {
    on_instances(Profile::Objects, 50);
}

#[test]
fn page_runs_agree_with_the_model() {
    on_instances(Profile::Runs, 50);
}

#[test]
fn areas_agree_with_the_model() {
    on_instances(Profile::Areas, 40);
}

#[test]
fn sizes_at_every_border_agree_with_the_model() {
    on_instances(Profile::Edges, 50);
}

#[test]
fn all_layers_together_agree_with_the_model() {
    on_instances(Profile::Everything, 50);
}

#[test]
fn the_heap_of_the_process_agrees_with_the_model() {
    // A failure is not made smaller: what it has left in the heap would spoil the next attempt.
    for profile in [Profile::Program, Profile::Everything] {
        check(profile, 40, 250, 0, |_, ops| run(Threads::default(), profile.limits(), ops));
    }
}
