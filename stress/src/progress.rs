//! Progress: what all threads have done so far, told once in a while; and the end of a process in which nothing moves.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Sums over all lanes of the process, a little behind what they really did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Operations drawn.
    pub ops: AtomicU64,
    /// Blocks verified.
    pub verified: AtomicU64,
    /// Bytes that threads have, without those on their way between them.
    pub live: AtomicUsize,
    /// What is being run.
    doing: Mutex<String>,
}

/// The one of this process.
pub static PROGRESS: Progress = Progress {
    ops: AtomicU64::new(0),
    verified: AtomicU64::new(0),
    live: AtomicUsize::new(0),
    doing: Mutex::new(String::new()),
};

/// After so long without any progress the process is at its end.
const PATIENCE: Duration = Duration::from_secs(20);

impl Progress {
    /// Says what is being run from now on.
    pub fn doing(&self, what: String) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Prints a line every `every` until `done`, and ends the process when nothing has moved for 20 seconds. `before`:
    /// operations verified by earlier runs that this one continues.
    pub fn report(&self, every: Duration, before: u64, done: &AtomicBool) {
        self.report_or_end(every, before, done, PATIENCE);
    }

    fn report_or_end(&self, every: Duration, before: u64, done: &AtomicBool, patience: Duration) {
        let started = Instant::now();
        let (mut told, mut told_verified) = (started, 0);
        let (mut moved, mut seen) = (started, (0, 0));
        while !done.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
            let now = (self.ops.load(Relaxed), self.verified.load(Relaxed));
            if now != seen {
                (moved, seen) = (Instant::now(), now);
            } else if moved.elapsed() > patience {
                self.stuck(patience);
            }
            if told.elapsed() >= every {
                let rate = (seen.1 - told_verified) as f64 / told.elapsed().as_secs_f64() / 1e6;
                let (live, rss) = (self.live.load(Relaxed) >> 20, resident() >> 20);
                let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
                println!(
                    "{:>6} s  {:>13} ops  {:>13} verified  {rate:>5.2} M/s  {live:>4} MiB live  {rss:>4} MiB resident  {doing}",
                    started.elapsed().as_secs(),
                    seen.0,
                    before + seen.1,
                );
                (told, told_verified) = (Instant::now(), seen.1);
            }
        }
    }

    /// Nothing moves. What each thread waits for may say why.
    fn stuck(&self, patience: Duration) -> ! {
        eprintln!("no progress for {patience:?}: {self:?}");
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let (stat, wchan, call) = (read("stat"), read("wchan"), read("syscall"));
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
            eprintln!("  thread {:?}: state {state}, in {wchan}, system call {}", task.file_name(), call.trim());
        }
        std::process::abort();
    }
}

/// Bytes resident.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test runs once more in a process of its own, which this variable tells to get stuck.
    const STUCK: &str = "STRESS_TEST_STUCK";

    #[test]
    fn a_process_in_which_nothing_moves_ends() {
        let never = AtomicBool::new(false);
        if std::env::var_os(STUCK).is_some() {
            Progress::default().report_or_end(Duration::MAX, 0, &never, Duration::from_millis(200));
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "progress::tests::a_process_in_which_nothing_moves_ends"])
            .env(STUCK, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success() && said.contains("no progress") && said.contains("thread"), "{said}");
    }

    #[test]
    fn what_is_resident_is_known() {
        assert!(resident() > 100_000, "{} bytes", resident());
    }
}
