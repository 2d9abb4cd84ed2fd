//! The standard library's maps, with keys and values on the heap.

use super::words::Words;
use crate::{timed, Done, Random, Scale};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

/// Operations on the ordered map at full scale, and the keys they choose from.
const ORDERED: usize = 400_000;
const ORDERED_KEYS: usize = 20_000;
/// Entries visited from a key on.
const VISITED: usize = 30;

/// Operations on hash maps at full scale, how many a map lives for, and the keys they choose from.
const HASHED: usize = 540_000;
const HASHED_LIFE: usize = 60_000;
const HASHED_KEYS: usize = 30_000;

/// Inserts, replaces and removes entries in about even parts, so that some two thirds of the keys are there.
pub(crate) fn btreemap(scale: Scale) -> Done {
    let operations = scale.of(ORDERED);
    let mut random = Random::new(304);
    let names = names(305, ORDERED_KEYS);
    timed(operations, || {
        let mut map = BTreeMap::new();
        let mut visited = 0;
        for _ in 0..operations {
            let name = &names[random.below(ORDERED_KEYS)];
            match random.below(16) {
                0..10 => drop(map.insert(name.clone(), name.repeat(random.between(1, 6)))),
                10..15 => drop(map.remove(name)),
                _ => {
                    let found = map.range(name.clone()..).take(VISITED);
                    visited += found.map(|(key, value)| value.len() / key.len()).sum::<usize>();
                }
            }
        }
        assert!(map.iter().all(|(key, value)| value.starts_with(key.as_str())));
        black_box(visited);
    })
}

/// Inserts, replaces and removes entries in one map after another, each of which grows from nothing.
pub(crate) fn hashmap(scale: Scale) -> Done {
    let operations = scale.of(HASHED);
    let mut random = Random::new(306);
    let names = names(307, HASHED_KEYS);
    timed(operations, || {
        let mut map: HashMap<String, Vec<u8>, BuildHasherDefault<DefaultHasher>> = HashMap::default();
        for operation in 0..operations {
            if operation % HASHED_LIFE == 0 {
                map = HashMap::default();
            }
            let name = &names[random.below(HASHED_KEYS)];
            if random.below(4) == 0 {
                map.remove(name);
            } else {
                let mark = name.as_bytes()[0];
                map.insert(name.clone(), vec![mark; random.log_uniform(3, 9)]);
            }
        }
        assert!(map.iter().all(|(key, value)| value.last() == key.as_bytes().first()));
    })
}

/// Different names in no order, of 5 to 40 letters.
fn names(seed: u64, count: usize) -> Vec<String> {
    let mut words = Words::new(seed, 12);
    (0..count).map(|number| format!("{}-{number}-{}", words.phrase(1), words.word())).collect()
}
