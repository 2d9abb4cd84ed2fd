//! rayon: strings are made, sorted and joined by two threads.

use crate::{timed, Done, Random, Scale};
use rayon::prelude::*;
use rayon::ThreadPoolBuilder;
use std::hint::black_box;

const THREADS: usize = 2;

/// Numbers at full scale, how many of them are sorted at a time, and of how many different ones.
const NUMBERS: usize = 350_000;
const ROUND: usize = 50_000;
const DIFFERENT: usize = 200_000;

/// Makes a string of each number, sorts them, drops those that come twice, and joins the rest.
pub(crate) fn rayon_sort(scale: Scale) -> Done {
    let count = scale.of(NUMBERS);
    let mut random = Random::new(320);
    let numbers: Vec<_> = (0..count).map(|_| random.below(DIFFERENT)).collect();
    let pool = ThreadPoolBuilder::new().num_threads(scale.threads(THREADS)).build().expect("threads");
    timed(count, || {
        pool.install(|| {
            for round in numbers.chunks(ROUND) {
                let mut texts: Vec<_> = round.par_iter().map(|number| format!("{number:06}:{number:x}\n")).collect();
                texts.par_sort();
                texts.dedup();
                assert!(texts.is_sorted() && texts.len() <= round.len());
                let joined: String = texts.par_iter().map(String::as_str).collect();
                assert_eq!(joined.len(), texts.iter().map(String::len).sum::<usize>());
                black_box(joined);
            }
        });
        drop(pool);
    })
}
