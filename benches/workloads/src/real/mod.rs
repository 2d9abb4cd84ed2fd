//! Real crates at real work, in the amounts that an allocator meets them in.
//!
//! Each row makes its input from a seed, and then does with the crate what a program would do; only that is timed. What
//! comes out is checked in passing, and some of it stays alive while the next is made. Where there are several threads,
//! one frees what another allocated.

mod cache;
mod compress;
mod index;
mod json;
mod maps;
mod markdown;
mod regexes;
mod sort;
mod source;
mod tasks;
mod words;

use crate::Listed;

/// Name, what it does, and the function.
pub(crate) const ROWS: &[Listed] = &[
    ("json", "serde_json reads documents of nested values, changes and writes them", json::json),
    ("syn", "syn parses generated Rust files, eight of them alive", source::syn),
    ("regex", "regex compiles expressions and runs them over short texts", regexes::regex),
    ("btreemap", "an ordered map of strings: insert, remove, visit a range", maps::btreemap),
    ("hashmap", "hash maps from strings to bytes grow, change and go", maps::hashmap),
    ("markdown", "pulldown-cmark renders documents of 2 to 128 KiB", markdown::markdown),
    ("tokio-tasks", "tokio runs small tasks that wait for children, on two workers", tasks::tokio_tasks),
    ("tokio-channels", "tokio passes messages to another runtime and back, on a worker of each", tasks::tokio_channels),
    ("rayon-sort", "rayon makes, sorts and joins strings by two threads", sort::rayon_sort),
    ("tantivy", "tantivy indexes generated documents in memory and searches", index::tantivy),
    ("lru", "lru keeps 2,000 buffers of 64 bytes to 64 KiB, by keys of which few are common", cache::lru),
    ("flate2", "flate2 packs and unpacks buffers of 1 KiB to 1 MiB", compress::flate2),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    #[test]
    fn every_row_runs_with_little_of_its_work_and_with_other_numbers_of_threads() {
        for &(name, _, run) in ROWS {
            for scale in [Scale::new(0.01), Scale::new(0.001).with_threads(1), Scale::new(0.001).with_threads(3)] {
                assert!(run(scale).operations > 0, "{name}");
            }
        }
    }
}
