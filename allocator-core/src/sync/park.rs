//! Park: what a thread that must wait asks of the system.

use super::Word;

/// Sleeping until a word changes, and who sleeps. No call can fail in a way that matters: each may return early.
pub trait Park {
    /// Sleeps while `word` is `expected`, or returns for no reason at all.
    fn wait(&self, word: &Word, expected: u32);
    /// As `wait`, for so many milliseconds at most.
    fn wait_for(&self, word: &Word, expected: u32, millis: u32);
    /// Wakes at least one thread that sleeps on `word`, if there is one.
    fn wake_one(&self, word: &Word);
    /// Wakes every thread that sleeps on `word`.
    fn wake_all(&self, word: &Word);
    /// Lets every other thread run for a moment, those of lower priority too.
    fn nap(&self);
    /// The number of the calling thread: no other living thread has it, it is never zero, and a fork leaves it as it
    /// is.
    fn current(&self) -> usize;
}

#[cfg(all(test, kmalloc_loom))]
pub(crate) mod loom_park {
    use super::{Park, Word};
    use crate::sync::atomic::Ordering::Relaxed;
    use core::cell::Cell;

    /// A futex as loom sees it: `wait` sleeps on a condition variable while the word has not changed.
    pub(crate) struct Futex {
        lock: loom::sync::Mutex<()>,
        changed: loom::sync::Condvar,
    }

    impl Futex {
        pub(crate) fn new() -> Self {
            Futex { lock: loom::sync::Mutex::new(()), changed: loom::sync::Condvar::new() }
        }
    }

    impl Park for Futex {
        fn wait(&self, word: &Word, expected: u32) {
            let guard = self.lock.lock().unwrap();
            if word.load(Relaxed) == expected {
                drop(self.changed.wait(guard).unwrap());
            }
        }
        fn wait_for(&self, _: &Word, _: u32, _: u32) {
            loom::thread::yield_now();
        }
        fn wake_one(&self, _: &Word) {
            let _guard = self.lock.lock().unwrap();
            self.changed.notify_one();
        }
        fn wake_all(&self, _: &Word) {
            let _guard = self.lock.lock().unwrap();
            self.changed.notify_all();
        }
        fn nap(&self) {
            loom::thread::yield_now();
        }
        fn current(&self) -> usize {
            loom::thread_local!(static HERE: Cell<u8> = Cell::new(0));
            HERE.with(|here| here.as_ptr() as usize)
        }
    }
}
