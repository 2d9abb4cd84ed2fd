//! Child: does the work once, in a process of its own, and reports on it in one line of JSON.
//!
//! The clock runs while files are read, parsed, indexed, written as JSON, read back, and while everything is dropped.
//! It stands still while the heap is looked at, at its fullest, between the last two.

use crate::corpus::Corpus;
use crate::dispatch::{calls_served_by, Calls, Choice};
use crate::index::{FileEntry, Index};
use crate::parse::Outcome;
use crate::pipeline;
use allocator_global::Kmalloc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a child reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChildReport {
    /// The allocator of the process.
    pub(crate) allocator: Choice,
    /// Time of the work by the clock on the wall, in seconds.
    pub(crate) wall_seconds: f64,
    /// Time of the work on all processors, in user and in system mode, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Largest resident memory of the process (`VmHWM`).
    pub(crate) peak_rss_bytes: u64,
    /// Calls that Kmalloc has served in the whole life of the process.
    pub(crate) served_by_kmalloc: Calls,
    /// Calls that the system's allocator has served.
    pub(crate) served_by_system: Calls,
    /// Bytes in use in the C heap when the index was complete, by `mallinfo2`; absent where there is none.
    pub(crate) c_heap_bytes: Option<u64>,
    /// Terms of the index when it was complete, as built and as read back.
    pub(crate) terms: u64,
    /// Those of them whose text lies in memory that Kmalloc says is its own.
    pub(crate) terms_owned_by_kmalloc: u64,
    /// SHA-256 of the result.
    pub(crate) result_hash: String,
    /// Bytes of the result, as JSON.
    pub(crate) result_bytes: u64,
    /// Files by what became of them.
    pub(crate) outcomes: BTreeMap<Outcome, u64>,
    /// The state of Kmalloc when the index was complete; absent in a process that the system's allocator serves.
    pub(crate) kmalloc: Option<KmallocState>,
}

/// The state of Kmalloc, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KmallocState {
    /// Bytes of address space reserved for arenas.
    pub(crate) reserved: u64,
    /// Arenas.
    pub(crate) arenas: u64,
    /// Objects handed out by the slab caches.
    pub(crate) slab_objects: u64,
    /// Bytes of those objects.
    pub(crate) slab_bytes: u64,
    /// Bytes of page runs handed out.
    pub(crate) run_bytes: u64,
    /// Bytes mapped for vmalloc areas.
    pub(crate) area_bytes: u64,
    /// Its slab caches.
    pub(crate) slabinfo: String,
    /// Its page heap.
    pub(crate) buddyinfo: String,
}

impl KmallocState {
    fn now() -> KmallocState {
        let stats = Kmalloc::stats();
        KmallocState {
            reserved: stats.reserved as u64,
            arenas: stats.arenas as u64,
            slab_objects: stats.slab_objects as u64,
            slab_bytes: stats.slab_bytes as u64,
            run_bytes: stats.run_bytes as u64,
            area_bytes: stats.area_bytes as u64,
            slabinfo: Kmalloc::slabinfo().to_string(),
            buddyinfo: Kmalloc::buddyinfo().to_string(),
        }
    }
}

/// Does the work and reports on it.
pub(crate) fn work(corpus: &Corpus, limit: Option<u64>, threads: usize) -> Result<ChildReport, String> {
    let mut watch = Stopwatch::default();
    let index = watch.time(|| pipeline::run(corpus.within(limit), threads))?;

    // Every thread of the work has been joined, so these figures are exact.
    let allocator = Choice::of_this_process();
    let c_heap_bytes = c_heap_bytes();
    let (terms, terms_owned_by_kmalloc) = ownership(&index);
    let result_hash = index.hash();
    let result_bytes = index.json_bytes() as u64;
    let outcomes = outcomes(&index.files.built);
    let kmalloc = (allocator == Choice::Kmalloc).then(KmallocState::now);

    watch.time(|| drop(index));
    Ok(ChildReport {
        allocator,
        wall_seconds: watch.wall.as_secs_f64(),
        cpu_seconds: watch.cpu.as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes()?,
        served_by_kmalloc: calls_served_by(Choice::Kmalloc),
        served_by_system: calls_served_by(Choice::System),
        c_heap_bytes,
        terms,
        terms_owned_by_kmalloc,
        result_hash,
        result_bytes,
        outcomes,
        kmalloc,
    })
}

#[derive(Default)]
struct Stopwatch {
    wall: Duration,
    cpu: Duration,
}

impl Stopwatch {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, cpu) = (Instant::now(), cpu_time());
        let result = work();
        self.wall += wall.elapsed();
        self.cpu += cpu_time().saturating_sub(cpu);
        result
    }
}

fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what the call writes.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: all zeros is a valid `rusage`, and so is what the call has written over it.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

fn peak_rss_bytes() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes << 10).ok_or_else(|| "/proc/self/status: no VmHWM".to_string())
}

#[cfg(target_env = "gnu")]
fn c_heap_bytes() -> Option<u64> {
    // SAFETY: the call only reads the state of the C heap.
    let info = unsafe { libc::mallinfo2() };
    Some((info.uordblks + info.hblkhd) as u64)
}

#[cfg(not(target_env = "gnu"))]
fn c_heap_bytes() -> Option<u64> {
    None
}

/// How many terms the index has, and how many of them Kmalloc owns.
fn ownership(index: &Index) -> (u64, u64) {
    index.terms().fold((0, 0), |(terms, owned), (term, _)| (terms + 1, owned + u64::from(Kmalloc::owns(term.as_ptr()))))
}

fn outcomes(files: &[FileEntry]) -> BTreeMap<Outcome, u64> {
    let mut outcomes = BTreeMap::new();
    for file in files {
        *outcomes.entry(file.outcome).or_default() += 1;
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_reports_what_it_did() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.rs"), "pub fn f() {}").unwrap();
        std::fs::write(root.path().join("b.rs"), "pub fn (").unwrap();
        let corpus = Corpus::open(Some(root.path())).unwrap();
        let report = work(&corpus, None, 2).unwrap();
        assert_eq!(report.outcomes, BTreeMap::from([(Outcome::Rust, 1), (Outcome::SyntaxError, 1)]));
        assert_eq!(report.terms, 2, "`f`, as built and as read back");
        assert!(report.peak_rss_bytes > 0 && report.wall_seconds > 0.0 && report.result_bytes > 0);
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ChildReport>(&line).unwrap(), report);
    }
}
