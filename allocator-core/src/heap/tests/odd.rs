//! Systems that are not as most are.

use super::*;

/// Real memory under a system that differs in one thing.
pub(super) struct Odd {
    /// Bytes in its page.
    pub(super) page: usize,
    /// Its `discard` says that it has done it, and does nothing, with ranges that are no multiples of this.
    pub(super) lies_below: usize,
    /// Every other mapping lies at a low address.
    pub(super) low: bool,
    /// A wait with a limit ends at once.
    pub(super) sleepless: bool,
    /// It has a control group with a limit far away.
    pub(super) grouped: bool,
    pub(super) mapped: core::sync::atomic::AtomicUsize,
}

impl Odd {
    pub(super) fn plain() -> Self {
        Self {
            page: 4096,
            lies_below: 1,
            low: false,
            sleepless: false,
            grouped: false,
            mapped: core::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn place(&self, len: usize, access: libc::c_int) -> Option<NonNull<u8>> {
        assert_eq!(len % self.page, 0, "whole pages");
        let n = self.mapped.fetch_add(len, core::sync::atomic::Ordering::Relaxed);
        let long = len.checked_add(self.page)?;
        let hint = if self.low && n / len % 2 == 0 { (1usize << 33) + n.next_multiple_of(self.page) } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, near the hint if there is room.
        let start = unsafe { libc::mmap(hint as *mut _, long, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            self.mapped.fetch_sub(len, core::sync::atomic::Ordering::Relaxed);
            return None;
        }
        let start = start.cast::<u8>();
        let head = start.align_offset(self.page);
        // What is too much stays mapped, and is nobody's.
        NonNull::new(start.wrapping_add(head))
    }

    fn whole(&self, ptr: NonNull<u8>, len: usize) {
        assert_eq!((ptr.as_ptr() as usize % self.page, len % self.page), (0, 0), "whole pages");
        assert_ne!(len, 0);
    }
}

impl crate::sync::Park for Odd {
    fn wait(&self, word: &crate::sync::Word, expected: u32) {
        Unix.wait(word, expected);
    }
    fn wait_for(&self, word: &crate::sync::Word, expected: u32, millis: u32) {
        if !self.sleepless {
            Unix.wait_for(word, expected, millis);
        }
    }
    fn wake_one(&self, word: &crate::sync::Word) {
        Unix.wake_one(word);
    }
    fn wake_all(&self, word: &crate::sync::Word) {
        Unix.wake_all(word);
    }
    fn nap(&self) {
        Unix.nap();
    }
    fn current(&self) -> usize {
        Unix.current()
    }
}

// SAFETY: every answer is the real system's, or a part of one.
unsafe impl Os for Odd {
    fn page_size(&self) -> usize {
        self.page
    }
    fn cpus(&self) -> usize {
        3
    }
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, libc::PROT_READ | libc::PROT_WRITE)
    }
    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, libc::PROT_NONE)
    }
    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        unsafe { Unix.commit(ptr, len) }
    }
    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        let done = unsafe { Unix.unmap(ptr, len) };
        self.mapped.fetch_sub(if done { len } else { 0 }, core::sync::atomic::Ordering::Relaxed);
        done
    }
    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        unsafe { Unix.advise_huge(ptr, len, huge) }
    }

    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        unsafe { Unix.populate(ptr, len) }
    }

    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        (ptr.as_ptr() as usize | len) % self.lies_below != 0 || unsafe { Unix.discard(ptr, len) }
    }
    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        self.whole(ptr, len);
        self.whole(ptr, new_len);
        // To grow, it would have to know that what lies behind is nobody's.
        // SAFETY: by contract.
        let done = new_len < len && unsafe { Unix.resize(ptr, len, new_len) };
        self.mapped.fetch_sub(if done { len - new_len } else { 0 }, core::sync::atomic::Ordering::Relaxed);
        done
    }
    unsafe fn relocate(&self, _: NonNull<u8>, _: usize, _: usize) -> Option<NonNull<u8>> {
        None // to a multiple of its page, which the real system does not know
    }
    unsafe fn guard(&self, _: NonNull<u8>, _: usize) -> Option<Guarded> {
        None
    }
    unsafe fn unguard(&self, _: NonNull<u8>, _: usize, _: Guarded) -> bool {
        false
    }
    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &core::ffi::CStr) -> bool {
        false
    }
    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize> {
        Unix.resident(ptr, len)
    }
    fn written(&self, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        assert_eq!((ptr.as_ptr() as usize % self.page, len % self.page), (0, 0), "whole pages");
        Unix.written(ptr, len, show)
    }
    fn read(&self, path: &core::ffi::CStr, into: &mut [u8]) -> Option<usize> {
        let text = match path.to_bytes() {
            _ if !self.grouped => return None,
            b"/proc/self/cgroup" => "0::/\n",
            b"/sys/fs/cgroup/memory.max" => "1000000000000\n",
            b"/sys/fs/cgroup/memory.current" => "0\n",
            _ => return None,
        };
        into[..text.len()].copy_from_slice(text.as_bytes());
        Some(text.len())
    }
    fn yield_now(&self) {
        Unix.yield_now();
    }
    fn now(&self) -> u64 {
        Unix.now()
    }
}

/// A heap on this system is used, emptied, used again, and knows every byte that is mapped.
fn lives_on(os: Odd) {
    let os = forever(os);
    for with_epoch in [false, true] {
        let before = os.mapped.load(Relaxed);
        let scheme = with_epoch.then(|| forever(Epoch::beside()) as &dyn Reclaim);
        let heap = heap_on(os, scheme);
        let thread = heap.attach();
        let zeros = || {
            for size in [100, 5000, 3 * PAGE_SIZE, CHUNK_SIZE, VMALLOC_THRESHOLD + 1] {
                Block::zeroed(heap, thread, layout(size, 8)).free(heap, thread);
            }
        };
        for _ in 0..2 {
            assert_eq!(workload(heap, thread), 0);
            heap.validate(thread).unwrap();
            zeros();
            for _ in 0..2 {
                // SAFETY: the block is this thread's.
                unsafe { heap.tick(thread) };
            }
            // SAFETY: the block is this thread's.
            unsafe { heap.reclaim(thread) };
            // Now what the system says that it has discarded.
            zeros();
            // SAFETY: the block is this thread's.
            unsafe { heap.reclaim(thread) };
            heap.audit(thread).unwrap();
            let stats = heap.stats(thread);
            let known = stats.reserved + stats.area_bytes + stats.kept + stats.own;
            assert_eq!(os.mapped.load(Relaxed) - before, known, "{stats:?}");
        }
    }
}

#[test]
fn pages_of_the_system_may_be_longer_than_ours() {
    for page in [16 << 10, 64 << 10] {
        lives_on(Odd { page, ..Odd::plain() });
    }
}

#[test]
fn a_system_that_does_not_discard_what_it_says_is_found_out() {
    for lies_below in [usize::MAX, CHUNK_SIZE, 64 << 10] {
        lives_on(Odd { lies_below, ..Odd::plain() });
    }
}

/// Class of bug: what is true of some ranges is taken to be true of all.
#[test]
fn a_system_that_discards_some_ranges_only_is_found_out() {
    let (discard, os) = (Discard::new(), Odd { lies_below: 64 << 10, ..Odd::plain() });
    let memory = Unix.map(CHUNK_SIZE).unwrap();
    let ptr = memory.as_ptr().wrapping_add(memory.as_ptr().align_offset(128 << 10));
    let at = |offset: usize, len: usize| {
        let ptr = NonNull::new(ptr.wrapping_add(offset)).unwrap();
        // SAFETY: part of the mapping.
        unsafe { ptr.as_ptr().write_bytes(7, len) };
        // SAFETY: as above; nobody needs what is in it.
        let zero = unsafe { discard.discard(&os, ptr, len) };
        // SAFETY: as above.
        let first = unsafe { ptr.as_ptr().read() };
        assert!(!zero || first == 0);
        zero
    };
    assert!(at(0, 128 << 10) && at(0, 64 << 10) && at(64 << 10, 256 << 10));
    assert!(!at(32 << 10, 32 << 10), "it says so, and has done nothing");
    assert!(!at(0, 128 << 10), "it is not believed again");
    // SAFETY: the whole mapping; nobody uses it.
    assert!(unsafe { Unix.unmap(memory, CHUNK_SIZE) });
}

#[test]
fn mappings_may_lie_far_from_each_other() {
    lives_on(Odd { low: true, ..Odd::plain() });
}
