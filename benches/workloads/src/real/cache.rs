//! lru: a cache of buffers of very different sizes.

use crate::{timed, Done, Random, Scale};
use lru::LruCache;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::num::NonZeroUsize;

/// Requests at full scale.
const REQUESTS: usize = 200_000;
/// Buffers in the cache.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();
/// Powers of two: how many keys there are, and sizes of the smallest and the largest buffer.
const KEYS: usize = 15;
const SMALLEST: usize = 6;
const LARGEST: usize = 16;

/// Looks for keys, of which few are common, and fills a buffer for each that is not there.
pub(crate) fn lru(scale: Scale) -> Done {
    let requests = scale.of(REQUESTS);
    let mut random = Random::new(340);
    timed(requests, || {
        let mut cache: LruCache<String, Vec<u8>, _> =
            LruCache::with_hasher(CAPACITY, BuildHasherDefault::<DefaultHasher>::default());
        for _ in 0..requests {
            let number = random.log_uniform(0, KEYS);
            let key = format!("object/{number}");
            match cache.get(&key) {
                Some(buffer) => assert_eq!(buffer.last(), Some(&(number as u8))),
                None => drop(cache.put(key, vec![number as u8; random.log_uniform(SMALLEST, LARGEST)])),
            }
        }
        assert!(cache.len() <= CAPACITY.get());
        black_box(cache);
    })
}
