//! Where in the allocator a system call was made.
//!
//! A site is a line of the allocator outside its layer of system calls, and the lines of that layer that led from
//! there to the call: `thread.rs:233 > sys/kept.rs:41`. It is found by walking the stack of the call that is refused,
//! so the allocator itself carries nothing for it. Inlined functions count where they stand in the source.

use allocator_core::sys::Call;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// The number of a site, in the order in which they were met.
pub type Site = usize;

/// Frames that are looked at, from the refused call outwards.
const DEPTH: usize = 24;

#[derive(Default)]
struct Record {
    on: bool,
    hit: Vec<(u64, Site)>,
    /// The allocator's lines that an address stands for, innermost first.
    lines: BTreeMap<usize, Vec<String>>,
    sites: BTreeMap<String, Site>,
}

static RECORD: Mutex<Option<Record>> = Mutex::new(None);

fn with<R>(work: impl FnOnce(&mut Record) -> R) -> R {
    work(RECORD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Record::default))
}

/// Notes the site of every refusal from now on, or of none.
pub fn record(on: bool) {
    with(|record| {
        record.on = on;
        record.hit.clear();
    });
}

/// The refusals noted, in order: the number of the call, and its site.
pub fn take() -> Vec<(u64, Site)> {
    with(|record| std::mem::take(&mut record.hit))
}

/// Every site met so far.
pub fn all() -> Vec<String> {
    with(|record| record.sites.keys().cloned().collect())
}

/// For [`allocator_core::sys::FaultyOs`]: notes where the call that is being refused comes from.
pub fn watcher(call: Call, n: u64) {
    if !with(|record| record.on) {
        return;
    }
    let mut frames: Vec<*mut c_void> = Vec::with_capacity(DEPTH);
    backtrace::trace(|frame| {
        frames.push(frame.ip());
        frames.len() < DEPTH
    });
    with(|record| {
        let mut path = Vec::new();
        for ip in frames {
            let lines = record.lines.entry(ip as usize).or_insert_with(|| lines_of(ip));
            for line in lines {
                path.push(line.clone());
                if !line.starts_with("sys/") {
                    path.reverse();
                    let next = record.sites.len();
                    let site = *record.sites.entry(format!("{call:?} {}", path.join(" > "))).or_insert(next);
                    record.hit.push((n, site));
                    return;
                }
            }
        }
        panic!("no frame of the allocator above a refused {call:?}: is the program built without line tables?");
    });
}

/// The lines of the allocator that an address stands for, inlined ones first; not those of the system that refuses.
fn lines_of(ip: *mut c_void) -> Vec<String> {
    const ROOT: &str = "allocator-core/src/";
    let mut lines = Vec::new();
    // A return address belongs to the line of the call before it.
    backtrace::resolve(ip.wrapping_byte_sub(1), |symbol| {
        let file = symbol.filename().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        if let (Some(at), Some(line)) = (file.rfind(ROOT), symbol.lineno()) {
            let file = &file[at + ROOT.len()..];
            if file != "sys/faulty.rs" {
                lines.push(format!("{file}:{line}"));
            }
        }
    });
    lines
}
