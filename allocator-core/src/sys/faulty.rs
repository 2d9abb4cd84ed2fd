//! FaultyOs: another system whose calls fail when a plan says so.

use super::{Guarded, Os};
use crate::sync::{
    array_of,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    const_unless_loom, Park, Word,
};
use core::ffi::CStr;
use core::ptr::NonNull;

/// A system call that can be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Call {
    /// [`Os::map`]
    Map,
    /// [`Os::reserve`]
    Reserve,
    /// [`Os::commit`]
    Commit,
    /// [`Os::unmap`]
    Unmap,
    /// [`Os::discard`]
    Discard,
    /// [`Os::advise_huge`], where it asks for huge pages.
    AdviseHuge,
    /// The same, where it asks for none.
    AdviseSmall,
    /// [`Os::populate`]
    Populate,
    /// [`Os::resize`]
    Resize,
    /// [`Os::relocate`]
    Relocate,
    /// [`Os::guard`]
    Guard,
    /// [`Os::unguard`]
    Unguard,
    /// [`Os::name`]
    Name,
    /// [`Os::resident`]
    Resident,
    /// [`Os::written`]
    Written,
    /// [`Os::read`]
    Read,
}

impl Call {
    /// Every call.
    pub const ALL: [Call; 16] = [
        Call::Map,
        Call::Reserve,
        Call::Commit,
        Call::Unmap,
        Call::Discard,
        Call::AdviseHuge,
        Call::AdviseSmall,
        Call::Populate,
        Call::Resize,
        Call::Relocate,
        Call::Guard,
        Call::Unguard,
        Call::Name,
        Call::Resident,
        Call::Written,
        Call::Read,
    ];
}

/// Which calls fail. Calls are counted from 1, over all kinds together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// None.
    Never,
    /// The `n`-th.
    Nth(u64),
    /// The `n`-th and all that follow.
    From(u64),
    /// Every `k`-th.
    Each(u64),
    /// Two of them.
    Pair(u64, u64),
    /// All of one kind.
    Kind(Call),
    /// One in so many on average, chosen by a seed.
    OneIn(u64, u64),
}

/// A system that refuses what its plan says and forwards the rest. Futexes and queries never fail.
pub struct FaultyOs<O> {
    inner: O,
    calls: AtomicU64,
    refused: AtomicU64,
    by_kind: [AtomicU64; Call::ALL.len()],
    mode: AtomicUsize,
    first: AtomicU64,
    second: AtomicU64,
    mapped: AtomicUsize,
    limit: AtomicUsize,
    denies: AtomicUsize,
    /// Told of every refusal, on the thread and under the call that is refused.
    watcher: Option<fn(Call, u64)>,
}

impl<O: Os> FaultyOs<O> {
    const_unless_loom! {
        /// Wraps `inner`; nothing fails until [`FaultyOs::plan`] says so.
        pub fn new(inner: O) -> Self {
            Self::watched(inner, None)
        }
    }

    const_unless_loom! {
        /// As [`FaultyOs::new`]; `watcher` is told the kind and number of each call that is refused. It runs under that
        /// call, so that it can see where in the allocator it comes from, and must not call into the heap.
        pub fn watched(inner: O, watcher: Option<fn(Call, u64)>) -> Self {
            Self {
                inner,
                calls: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                by_kind: array_of!(Call::ALL.len(), AtomicU64, AtomicU64::new(0)),
                mode: AtomicUsize::new(0),
                first: AtomicU64::new(0),
                second: AtomicU64::new(0),
                mapped: AtomicUsize::new(0),
                limit: AtomicUsize::new(usize::MAX),
                denies: AtomicUsize::new(0),
                watcher,
            }
        }
    }

    /// Follows `plan` from now on and counts calls from 1 again.
    pub fn plan(&self, plan: Plan) {
        let (mode, first, second) = match plan {
            Plan::Never => (0, 0, 0),
            Plan::Nth(n) => (1, n, 0),
            Plan::From(n) => (2, n, 0),
            Plan::Each(k) => (3, k.max(1), 0),
            Plan::Pair(a, b) => (4, a, b),
            Plan::Kind(call) => (5, call as u64, 0),
            Plan::OneIn(k, seed) => (6, k.max(1), seed),
        };
        self.mode.store(0, Relaxed);
        self.first.store(first, Relaxed);
        self.second.store(second, Relaxed);
        self.calls.store(0, Relaxed);
        self.refused.store(0, Relaxed);
        self.mode.store(mode, Relaxed);
    }

    /// The system under it.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// Calls since the plan was made.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Calls refused since the plan was made.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Calls of one kind since the beginning.
    pub fn calls_of(&self, call: Call) -> u64 {
        self.by_kind[call as usize].load(Relaxed)
    }

    /// Bytes that are mapped or reserved now.
    pub fn mapped(&self) -> usize {
        self.mapped.load(Relaxed)
    }

    fn fails(&self, call: Call) -> bool {
        self.by_kind[call as usize].fetch_add(1, Relaxed);
        let n = self.calls.fetch_add(1, Relaxed) + 1;
        let (first, second) = (self.first.load(Relaxed), self.second.load(Relaxed));
        let fails = match self.mode.load(Relaxed) {
            1 => n == first,
            2 => n >= first,
            3 => n % first == 0,
            4 => n == first || n == second,
            5 => first == call as u64,
            6 => scatter(n ^ second) % first == 0,
            _ => false,
        };
        if fails {
            self.refused.fetch_add(1, Relaxed);
            if let Some(watcher) = self.watcher {
                watcher(call, n);
            }
        }
        fails
    }

    /// From now on, mappings and reservations that would make more than so many bytes together are refused, as under a
    /// limit of address space.
    pub fn limit(&self, bytes: usize) {
        self.limit.store(bytes, Relaxed);
    }

    /// From now on it says that there are no huge pages.
    pub fn deny_huge_pages(&self) {
        self.denies.store(1, Relaxed);
    }

    /// True if `more` bytes would exceed the limit.
    fn exceeds(&self, more: usize) -> bool {
        let exceeds = self.mapped().saturating_add(more) > self.limit.load(Relaxed);
        if exceeds {
            self.refused.fetch_add(1, Relaxed);
        }
        exceeds
    }

    fn gained(&self, ptr: Option<NonNull<u8>>, len: usize) -> Option<NonNull<u8>> {
        if ptr.is_some() {
            self.mapped.fetch_add(len, Relaxed);
        }
        ptr
    }
}

/// Spreads a number over all 64 bits.
fn scatter(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
    let n = (n ^ n >> 27).wrapping_mul(0x81da_def4_bc2d_d44d);
    n ^ n >> 33
}

impl<O: Os> Park for FaultyOs<O> {
    fn wait(&self, word: &Word, expected: u32) {
        self.inner.wait(word, expected);
    }
    fn wait_for(&self, word: &Word, expected: u32, millis: u32) {
        self.inner.wait_for(word, expected, millis);
    }
    fn wake_one(&self, word: &Word) {
        self.inner.wake_one(word);
    }
    fn wake_all(&self, word: &Word) {
        self.inner.wake_all(word);
    }
    fn nap(&self) {
        self.inner.nap();
    }
    fn current(&self) -> usize {
        self.inner.current()
    }
}

// SAFETY: what is not refused is the inner system's answer.
unsafe impl<O: Os> Os for FaultyOs<O> {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn cpus(&self) -> usize {
        self.inner.cpus()
    }

    fn total_memory(&self) -> Option<usize> {
        self.inner.total_memory()
    }

    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        if self.fails(Call::Map) || self.exceeds(len) {
            return None;
        }
        self.gained(self.inner.map(len), len)
    }

    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        if self.fails(Call::Reserve) || self.exceeds(len) {
            return None;
        }
        self.gained(self.inner.reserve(len), len)
    }

    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller's contract is the callee's.
        !self.fails(Call::Commit) && unsafe { self.inner.commit(ptr, len) }
    }

    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller's contract is the callee's.
        let done = !self.fails(Call::Unmap) && unsafe { self.inner.unmap(ptr, len) };
        if done {
            self.mapped.fetch_sub(len, Relaxed);
        }
        done
    }

    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller's contract is the callee's.
        !self.fails(Call::Discard) && unsafe { self.inner.discard(ptr, len) }
    }

    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool {
        // SAFETY: the caller's contract is the callee's.
        !self.fails(if huge { Call::AdviseHuge } else { Call::AdviseSmall })
            && unsafe { self.inner.advise_huge(ptr, len, huge) }
    }

    fn has_huge_pages(&self) -> bool {
        self.denies.load(Relaxed) == 0 && self.inner.has_huge_pages()
    }

    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller's contract is the callee's.
        !self.fails(Call::Populate) && unsafe { self.inner.populate(ptr, len) }
    }

    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        if self.fails(Call::Resize) || self.exceeds(new_len.saturating_sub(len)) {
            return false;
        }
        // SAFETY: the caller's contract is the callee's.
        let done = unsafe { self.inner.resize(ptr, len, new_len) };
        if done {
            self.mapped.fetch_add(new_len, Relaxed);
            self.mapped.fetch_sub(len, Relaxed);
        }
        done
    }

    unsafe fn relocate(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> Option<NonNull<u8>> {
        if self.fails(Call::Relocate) || self.exceeds(new_len.saturating_sub(len)) {
            return None;
        }
        // SAFETY: the caller's contract is the callee's.
        let to = unsafe { self.inner.relocate(ptr, len, new_len) }?;
        self.mapped.fetch_add(new_len, Relaxed);
        self.mapped.fetch_sub(len, Relaxed);
        Some(to)
    }

    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize) -> Option<Guarded> {
        if self.fails(Call::Guard) {
            return None;
        }
        // SAFETY: the caller's contract is the callee's.
        unsafe { self.inner.guard(ptr, len) }
    }

    unsafe fn unguard(&self, ptr: NonNull<u8>, len: usize, guarded: Guarded) -> bool {
        // SAFETY: the caller's contract is the callee's.
        !self.fails(Call::Unguard) && unsafe { self.inner.unguard(ptr, len, guarded) }
    }

    unsafe fn name(&self, ptr: NonNull<u8>, len: usize, name: &CStr) -> bool {
        // SAFETY: the caller's contract is the callee's.
        !self.fails(Call::Name) && unsafe { self.inner.name(ptr, len, name) }
    }

    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize> {
        if self.fails(Call::Resident) {
            return None;
        }
        self.inner.resident(ptr, len)
    }

    fn written(&self, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        if self.fails(Call::Written) {
            return 0;
        }
        self.inner.written(ptr, len, show)
    }

    fn read(&self, path: &CStr, into: &mut [u8]) -> Option<usize> {
        if self.fails(Call::Read) {
            return None;
        }
        self.inner.read(path, into)
    }

    fn yield_now(&self) {
        self.inner.yield_now();
    }

    fn now(&self) -> u64 {
        self.inner.now()
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sys::Unix;

    #[test]
    fn a_plan_refuses_what_it_names_and_nothing_else() {
        let os = FaultyOs::new(Unix);
        let outcome = |plan| {
            os.plan(plan);
            [(); 6].map(|_| {
                let ptr = os.map(4096);
                if let Some(ptr) = ptr {
                    // SAFETY: just mapped. The inner system is asked, so that this call does not count.
                    assert!(unsafe { Unix.unmap(ptr, 4096) });
                }
                ptr.is_some()
            })
        };
        assert_eq!(outcome(Plan::Never), [true; 6]);
        assert_eq!(outcome(Plan::Nth(2)), [true, false, true, true, true, true]);
        assert_eq!(outcome(Plan::From(3)), [true, true, false, false, false, false]);
        assert_eq!(outcome(Plan::Each(3)), [true, true, false, true, true, false]);
        assert_eq!(outcome(Plan::Pair(1, 6)), [false, true, true, true, true, false]);
        assert_eq!(outcome(Plan::Kind(Call::Map)), [false; 6]);
        assert_eq!(outcome(Plan::Kind(Call::Unmap)), [true; 6]);
        assert_eq!((os.calls(), os.refused()), (6, 0));
        assert_eq!(os.calls_of(Call::Map), 42);
    }

    #[test]
    fn one_in_ten_is_refused_and_a_seed_says_which() {
        let os = FaultyOs::new(Unix);
        let refused = |seed| {
            os.plan(Plan::OneIn(10, seed));
            (0..10_000).map(|_| os.fails(Call::Map)).collect::<std::vec::Vec<_>>()
        };
        let first = refused(1);
        let count = first.iter().filter(|refused| **refused).count();
        assert!((900..1100).contains(&count), "{count} of 10,000");
        assert_eq!(first, refused(1));
        assert_ne!(first, refused(2));
    }

    #[test]
    fn a_file_is_read_or_refused() {
        let (os, mut text) = (FaultyOs::new(Unix), [0; 16]);
        assert!(os.read(c"/proc/self/cgroup", &mut text).is_some());
        assert!(os.read(c"/proc/self/no such file", &mut text).is_none());
        os.plan(Plan::Kind(Call::Read));
        assert!(os.read(c"/proc/self/cgroup", &mut text).is_none());
    }

    #[test]
    fn a_limit_refuses_what_would_exceed_it() {
        let os = FaultyOs::new(Unix);
        os.limit(2 * 4096);
        let first = os.map(4096).expect("below the limit");
        assert!(os.reserve(2 * 4096).is_none());
        assert_eq!(os.refused(), 1);
        // SAFETY: mapped above, whole, and unused.
        assert!(!unsafe { os.resize(first, 4096, 3 * 4096) });
        let second = os.reserve(4096).expect("at the limit");
        for ptr in [first, second] {
            // SAFETY: mapped above, and unused.
            assert!(unsafe { os.unmap(ptr, 4096) });
        }
        assert_eq!(os.mapped(), 0);
    }
}
