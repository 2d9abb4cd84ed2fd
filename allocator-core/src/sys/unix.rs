//! The system calls of Linux: memmap2 for mappings that are used at once, libc for what it cannot say (a mapping
//! without access, part of a mapping, `mremap`, futexes).

#[cfg(feature = "raw")]
use super::clock::{period, Clock};
use super::file::File;
#[cfg(feature = "raw")]
use super::raw::{clock_gettime, madvise, mincore, mmap, mprotect, mremap, munmap, prctl, sched_yield};
use super::{pagemap, Guarded, Os};
use crate::config::CHUNK_SIZE;
use crate::sync::{atomic::Ordering::Relaxed, Park, UnwatchedU32, Word};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut, NonNull};
#[cfg(not(feature = "raw"))]
use libc::{clock_gettime, madvise, mincore, mmap, mprotect, mremap, munmap, prctl, sched_yield};

/// The system that the process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unix;

/// What stands in for a nap where the system refuses one: about as long, or longer where others want the processor.
const NAP_YIELDS: u32 = 100;

/// Runs `call` and puts `errno` back: neither `malloc` nor `free` may change it.
pub fn quietly<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: has no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own variable.
    let saved = unsafe { *errno };
    let result = call();
    // SAFETY: as above.
    unsafe { *errno = saved };
    result
}

impl Park for Unix {
    fn wait(&self, word: &Word, expected: u32) {
        let flags = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let none = core::ptr::null::<libc::timespec>();
        // SAFETY: the word lives for the call; a wrong value, a signal or a refusal return at once.
        quietly(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), flags, expected, none) });
    }

    fn wait_for(&self, word: &Word, expected: u32, millis: u32) {
        let flags = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let (seconds, rest) = (millis / 1000, millis % 1000);
        let time = libc::timespec { tv_sec: seconds.into(), tv_nsec: libc::c_long::from(rest as i32) * 1_000_000 };
        // SAFETY: as in `wait`.
        quietly(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), flags, expected, &time) });
    }

    fn wake_one(&self, word: &Word) {
        wake(word, 1);
    }

    fn wake_all(&self, word: &Word) {
        wake(word, libc::c_int::MAX);
    }

    fn nap(&self) {
        // One system call less to depend on than with `nanosleep`.
        let (word, flags) = (0u32, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
        // SAFETY: nobody else knows the word, so it is the time that ends the wait.
        let nap = || unsafe { libc::syscall(libc::SYS_futex, &word, flags, word, &moment) };
        let refused = quietly(|| {
            nap();
            // SAFETY: has no precondition.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: this thread's own variable.
            ![libc::ETIMEDOUT, libc::EINTR].contains(unsafe { &*errno })
        });
        if refused {
            (0..NAP_YIELDS).for_each(|_| self.yield_now());
        }
    }

    fn current(&self) -> usize {
        // SAFETY: has no precondition. Every thread has a variable of its own, and a child's thread its parent's.
        unsafe { libc::__errno_location() as usize }
    }
}

impl Unix {
    /// Whether who asks gets huge pages, by the system's choice for all and for this process: it takes the advice even where nobody
    /// does. What it says when it is first asked counts; one that says nothing is thought to have some.
    fn grants_huge_pages() -> bool {
        static SAID: UnwatchedU32 = UnwatchedU32::new(0); // zero: nobody has asked
        const NO: u32 = 1;
        const YES: u32 = 2;
        const GET_THP_DISABLE: libc::c_int = 42;
        const CHOICES: [&CStr; 2] = [
            c"/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled",
            c"/sys/kernel/mm/transparent_hugepage/enabled",
        ];
        let said = SAID.load(Relaxed);
        if said != 0 {
            return said == YES;
        }
        let none = 0 as libc::c_ulong;
        // SAFETY: asks about this process.
        let off = quietly(|| unsafe { prctl(GET_THP_DISABLE, none, none, none, null::<libc::c_char>()) }) == 1;
        let choice = |path: &&CStr| {
            let mut text = [0; 64];
            let len = Unix.read(path, &mut text)?;
            grants(text.get(..len)?)
        };
        let granted = !off && CHOICES.iter().find_map(choice).unwrap_or(true);
        SAID.store(if granted { YES } else { NO }, Relaxed);
        granted
    }
}

/// Whether who asks gets huge pages by what a file of the system's says, such as `always [madvise] never`. `None`: it leaves that to
/// another one (`inherit`), or is none of these.
fn grants(text: &[u8]) -> Option<bool> {
    match text.iter().skip_while(|byte| **byte != b'[').nth(1) {
        Some(b'n') => Some(false),
        Some(b'm' | b'a') => Some(true),
        _ => None,
    }
}

fn wake(word: &Word, threads: libc::c_int) {
    let flags = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel uses the address as a name only.
    quietly(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), flags, threads) });
}

// SAFETY: the kernel gives every mapping once.
#[cfg(not(miri))]
unsafe impl Os for Unix {
    fn page_size(&self) -> usize {
        // Not by `sysconf`, which a program may have put a function before (`raw`).
        // SAFETY: has no precondition.
        let size = unsafe { libc::getauxval(libc::AT_PAGESZ) };
        (size as usize).max(4096)
    }

    fn cpus(&self) -> usize {
        // The C library's set has room for 1024 processors, and the call fails where there are more.
        let mut set = [0u64; 128];
        let len = core::mem::size_of_val(&set);
        // SAFETY: the set is as long as we say.
        quietly(|| unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, len, set.as_mut_ptr()) });
        set.iter().map(|word| word.count_ones() as usize).sum::<usize>().max(1)
    }

    fn total_memory(&self) -> Option<usize> {
        let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
        // SAFETY: the answer goes where there is room for it.
        let told = quietly(|| unsafe { libc::syscall(libc::SYS_sysinfo, info.as_mut_ptr()) }) == 0;
        // SAFETY: all zeros are numbers, too.
        let info = unsafe { info.assume_init() };
        let units = (info.totalram as usize).saturating_add(info.totalswap as usize);
        told.then_some(units.saturating_mul(info.mem_unit as usize)).filter(|bytes| *bytes > 0)
    }

    #[cfg(all(feature = "std", not(feature = "raw")))]
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        if len > isize::MAX as usize {
            return None; // memmap2's own words for it would be allocated
        }
        let mut map = quietly(|| memmap2::MmapOptions::new().len(len).map_anon()).ok()?;
        let start = map.as_mut_ptr();
        core::mem::forget(map); // from here on its owner is whoever holds the address
        NonNull::new(start)
    }

    #[cfg(any(not(feature = "std"), feature = "raw"))]
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        anonymous(len, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        anonymous(len, libc::PROT_NONE)
    }

    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: by contract a range of our own.
        quietly(|| unsafe { mprotect(ptr.as_ptr().cast(), len, access) }) == 0
    }

    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: by contract a range of our own that nobody uses.
        quietly(|| unsafe { munmap(ptr.as_ptr().cast(), len) }) == 0
    }

    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: by contract a range of our own whose content nobody needs.
        quietly(|| unsafe { madvise(ptr.as_ptr().cast(), len, libc::MADV_DONTNEED) }) == 0
    }

    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool {
        let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: by contract a range of our own.
        (!huge || self.has_huge_pages()) && quietly(|| unsafe { madvise(ptr.as_ptr().cast(), len, advice) }) == 0
    }

    fn has_huge_pages(&self) -> bool {
        // A huge page is as many pages as a page has entries of 8 bytes.
        let page = self.page_size();
        page * (page / 8) == CHUNK_SIZE && Self::grants_huge_pages()
    }

    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: by contract a range of our own.
        quietly(|| unsafe { madvise(ptr.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) }) == 0
    }

    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        // SAFETY: by contract a mapping of our own; without MAYMOVE it stays where it is or the call fails.
        quietly(|| unsafe { mremap(ptr.as_ptr().cast(), len, new_len, 0) }) != libc::MAP_FAILED
    }

    unsafe fn relocate(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> Option<NonNull<u8>> {
        // Not MREMAP_FIXED: before Linux 6.17 it unmaps the target and then finds that a limit forbids the rest
        // (RLIMIT_DATA, overcommit). To unmap the target after that would hit whoever has mapped it meanwhile.
        // SAFETY: by contract a mapping of our own.
        let to = quietly(|| unsafe { mremap(ptr.as_ptr().cast(), len, new_len, libc::MREMAP_MAYMOVE) });
        if to == libc::MAP_FAILED {
            None
        } else {
            NonNull::new(to.cast())
        }
    }

    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize) -> Option<Guarded> {
        const INSTALL: libc::c_int = 102;
        // SAFETY: by contract a range of our own whose content nobody needs.
        let advised = || unsafe { madvise(ptr.as_ptr().cast(), len, INSTALL) } == 0;
        // SAFETY: as above.
        let barred = || unsafe { mprotect(ptr.as_ptr().cast(), len, libc::PROT_NONE) } == 0;
        quietly(|| if advised() { Some(Guarded::ByAdvice) } else { barred().then_some(Guarded::ByAccess) })
    }

    unsafe fn unguard(&self, ptr: NonNull<u8>, len: usize, guarded: Guarded) -> bool {
        const REMOVE: libc::c_int = 103;
        match guarded {
            // SAFETY: by contract a range of our own.
            Guarded::ByAdvice => quietly(|| unsafe { madvise(ptr.as_ptr().cast(), len, REMOVE) }) == 0,
            // SAFETY: by contract.
            Guarded::ByAccess => unsafe { self.commit(ptr, len) },
        }
    }

    unsafe fn name(&self, ptr: NonNull<u8>, len: usize, name: &CStr) -> bool {
        const SET_VMA: libc::c_int = 0x5356_4d41;
        const ANON_NAME: libc::c_ulong = 0;
        let (start, len) = (ptr.as_ptr() as libc::c_ulong, len as libc::c_ulong);
        // SAFETY: by contract a range of our own; the kernel copies the name.
        quietly(|| unsafe { prctl(SET_VMA, ANON_NAME, start, len, name.as_ptr()) }) == 0
    }

    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize> {
        // No page of Linux is shorter.
        let mut bytes = [0u8; CHUNK_SIZE / 4096];
        let page = self.page_size();
        let bytes = bytes.get_mut(..len.div_ceil(page))?;
        // SAFETY: the answer, a byte for each page, goes where there is room for it; memory is not looked at.
        let told = quietly(|| unsafe { mincore(ptr.as_ptr().cast(), len, bytes.as_mut_ptr()) }) == 0;
        told.then(|| bytes.iter().filter(|byte| **byte & 1 != 0).count() * page)
    }

    fn written(&self, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        quietly(|| File::open(c"/proc/thread-self/pagemap").map_or(0, |file| pagemap::written(&file, ptr, len, show)))
    }

    fn read(&self, path: &CStr, into: &mut [u8]) -> Option<usize> {
        quietly(|| File::open(path)?.read(into))
    }

    fn yield_now(&self) {
        // SAFETY: has no precondition.
        quietly(|| unsafe { sched_yield() });
    }

    #[cfg(feature = "raw")]
    fn now(&self) -> u64 {
        static CLOCK: Clock = Clock::new();
        CLOCK.millis(period(), coarse_millis)
    }

    #[cfg(not(feature = "raw"))]
    fn now(&self) -> u64 {
        coarse_millis()
    }
}

pub(super) fn coarse_millis() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the answer goes where there is room for it.
    quietly(|| unsafe { clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) });
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn anonymous(len: usize, access: libc::c_int) -> Option<NonNull<u8>> {
    // What is to be used is for the system to judge: more than all memory and swap it refuses. What is reserved is not.
    let reserves = if access == libc::PROT_NONE { libc::MAP_NORESERVE } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | reserves;
    // SAFETY: a new mapping where the kernel likes.
    let start = quietly(|| unsafe { mmap(null_mut(), len, access, flags, -1, 0) });
    if start == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(start.cast())
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;
    use crate::sys::{Kept, Reservation};

    #[test]
    fn the_choice_of_huge_pages_is_the_word_in_brackets() {
        for (text, granted) in [
            ("always madvise [never]\n", Some(false)),
            ("always [madvise] never\n", Some(true)),
            ("[always] madvise never\n", Some(true)),
            ("always [inherit] madvise never\n", None),
            ("always [", None),
            ("never", None),
            ("", None),
        ] {
            assert_eq!(grants(text.as_bytes()), granted, "{text}");
        }
    }

    /// Class of bug: a request that cannot be served is answered with memory that is not there.
    #[test]
    fn what_the_system_would_refuse_is_refused() {
        for len in [1usize << 36, 1 << 40, 1 << 44, 1 << 46] {
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping.
            let plain = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
            if plain != libc::MAP_FAILED {
                // SAFETY: nobody uses it.
                assert_eq!(unsafe { libc::munmap(plain, len) }, 0);
            }
            let ours = Unix.map(len);
            assert_eq!(ours.is_some(), plain != libc::MAP_FAILED, "{len} bytes");
            // SAFETY: the whole mapping, which nobody uses.
            assert!(ours.map_or(true, |ptr| unsafe { Unix.unmap(ptr, len) }));
        }
    }

    /// Whichever way the system has of making it.
    #[test]
    fn a_guard_can_be_taken_away_again() {
        let len = Unix.page_size();
        for locked in [false, true] {
            let page = Unix.map(len).unwrap();
            if locked {
                // Such memory takes no advice of this kind. (By its number: sanitizers have a function of this name that does nothing.)
                // SAFETY: a page of ours.
                assert_eq!(unsafe { libc::syscall(libc::SYS_mlock, page.as_ptr(), len) }, 0);
            }
            // SAFETY: whole pages of ours, of which nobody needs anything.
            let guarded = unsafe { Unix.guard(page, len) }.expect("one of the two");
            assert!(!locked || guarded == Guarded::ByAccess);
            // SAFETY: the answer of the call before.
            assert!(unsafe { Unix.unguard(page, len, guarded) });
            // SAFETY: readable and writable once more.
            unsafe { page.as_ptr().write_volatile(1) };
            // SAFETY: the whole mapping, which nobody uses.
            assert!(unsafe { Unix.unmap(page, len) });
        }
    }

    #[test]
    fn the_machine_has_more_memory_than_this_process_uses() {
        let total = Unix.total_memory().expect("Linux says it");
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let field = |name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().expect("a number") << 10
        };
        // Swap may come and go meanwhile.
        assert!(total >= field("MemTotal:") / 2 && total <= 2 * (field("MemTotal:") + field("SwapTotal:")), "{total}");
    }

    #[test]
    fn a_reservation_is_aligned_and_reads_as_zeros_once_committed() {
        for (align, writable) in [4096, 2 << 20, 1 << 30].into_iter().flat_map(|a| [(a, false), (a, true)]) {
            let r = Reservation::new(&Unix, &Kept::new(), 2 << 20, align, writable).unwrap();
            assert_eq!(r.ptr.as_ptr() as usize % align, 0);
            // SAFETY: whole pages of the reservation.
            assert!(writable || unsafe { Unix.commit(r.ptr, 4096) });
            // SAFETY: just made readable.
            assert_eq!(unsafe { r.ptr.as_ptr().read() }, 0);
            // SAFETY: the whole mapping; nobody uses it.
            assert!(unsafe { Unix.unmap(r.map, r.map_len) });
        }
    }

    #[test]
    fn a_thread_bound_to_one_processor_has_one() {
        let bound = std::thread::spawn(|| {
            // SAFETY: a set without a processor.
            let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
            // SAFETY: as long as is said.
            assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) }, 0);
            // SAFETY: numbers below the length of the set.
            let first = (0..1024).find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).unwrap();
            // SAFETY: as above.
            unsafe { libc::CPU_ZERO(&mut set) };
            // SAFETY: as above.
            unsafe { libc::CPU_SET(first, &mut set) };
            // SAFETY: as long as is said.
            assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }, 0);
            Unix.cpus()
        });
        assert_eq!(bound.join().unwrap(), 1);
    }

    #[test]
    fn a_refused_call_leaves_errno_alone() {
        // SAFETY: has no precondition.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: this thread's own variable.
        unsafe { *errno = 77 };
        assert!(Unix.reserve(isize::MAX as usize & !4095).is_none());
        assert!(Unix.map(isize::MAX as usize & !4095).is_none());
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, 77);
    }
}
