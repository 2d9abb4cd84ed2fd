//! Shapes of load that the literature compares allocators by, written anew.
//!
//! - One thread: pairs, batches, a large live set, mixtures of sizes (Larson and Krishnan 1998; MicroQuill's SmartHeap).
//! - Several threads: a server whose threads hand their blocks over (Larson), producers and consumers, blocks passed on
//!   in a ring, cache-scratch and cache-thrash (Berger et al., Hoard, 2000), threads that come and go.
//! - Growth and large blocks, which are mostly the system's page faults.

pub(crate) mod block;
mod growth;
mod single;
mod threads;

use crate::Listed;

/// Name, what it does, and the function.
pub(crate) const ROWS: &[Listed] = &[
    ("pair-fixed", "one block of 48 bytes at a time", single::pair_fixed),
    ("pair-mixed", "one block of 8 to 1,024 bytes at a time", single::pair_mixed),
    ("pair-mid", "one block of 1 to 32 KiB at a time", single::pair_mid),
    ("batch-lifo", "10,000 blocks of 48 bytes, freed newest first", single::batch_lifo),
    ("batch-fifo", "10,000 blocks of 48 bytes, freed oldest first", single::batch_fifo),
    ("batch-random", "10,000 blocks of 48 bytes, freed at random", single::batch_random),
    ("batch-mixed", "10,000 blocks of 16 to 512 bytes, freed oldest first", single::batch_mixed),
    ("live-1", "300,000 live blocks of 16 to 1,024 bytes, replaced at random", threads::live_1),
    ("live-2", "the same by two threads, each with half of them", threads::live_2),
    ("smartheap-1", "sets of blocks of rising sizes, freed in changing orders", threads::smartheap_1),
    ("smartheap-2", "the same by two threads", threads::smartheap_2),
    ("phases", "mixes of sizes that change, and leave one block in twenty", single::phases),
    ("aligned", "blocks aligned to 16 to 4,096 bytes, replaced at random", single::aligned),
    ("larson-2", "two threads replace blocks of 10 to 500 bytes and hand them to their successors", threads::larson_2),
    ("larson-8", "the same by eight threads", threads::larson_8),
    ("producer-consumer", "one thread allocates 64 bytes, another frees", threads::producer_consumer),
    ("asymmetric", "one thread allocates 16 to 4,096 bytes, three free", threads::asymmetric),
    ("pass-the-block", "four threads in a ring free what the one before allocated", threads::pass_the_block),
    (
        "cache-scratch",
        "two threads free neighbouring blocks, and write to what they get for them",
        threads::cache_scratch,
    ),
    ("cache-thrash", "two threads allocate, write, free", threads::cache_thrash),
    ("thread-churn", "threads come and go, and leave half of their blocks to others", threads::thread_churn),
    ("short-threads", "threads that allocate ten blocks and end", threads::short_threads),
    ("vec-small", "vectors grow to 100 numbers", growth::vec_small),
    ("vec-large", "a vector grows to 8 MiB", growth::vec_large),
    ("vec-huge", "a vector grows to 512 MiB", growth::vec_huge),
    ("pages", "blocks of 4 to 32 KiB, each of their pages written", growth::pages),
    ("large", "blocks of 64 KiB to 4 MiB, each of their pages written", growth::large),
    ("huge", "blocks of 8 to 32 MiB, each of their pages written", growth::huge),
    ("zeroed", "blocks of 64 KiB to 4 MiB of zeros, one page in eight written", growth::zeroed),
];
