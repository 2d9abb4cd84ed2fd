//! What the integration tests share: blocks that carry a pattern, threads made by hand, child processes, and the
//! runner.
//!
//! The tests of a file run one after another on the main thread (`harness = false`), because most of them end at a
//! quiet point: a moment when no other thread is in the allocator, which the standard harness cannot give while its
//! own threads come and go under the same global allocator.
#![allow(dead_code)] // each test file uses its own part of this

use allocator_core::config::FIRST_ARENA_CHUNKS;
use allocator_global::Kmalloc;
use libtest_mimic::{Arguments, Trial};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::os::raw::c_void;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Output};
use std::ptr::NonNull;
use std::{env, fs, thread};

/// The allocator as a value: its methods are called directly, so that the compiler cannot elide a pair of calls.
pub(crate) const KMALLOC: Kmalloc = Kmalloc::new();

/// One page of the heap: the unit of page runs.
pub(crate) const PAGE: usize = 32 << 10;
/// One chunk.
pub(crate) const CHUNK: usize = 2 << 20;
/// The longest page run; anything longer has a mapping of its own.
pub(crate) const LONGEST_RUN: usize = 32 << 20;
/// Bytes of a block that is a mapping of its own.
#[allow(dead_code)]
pub(crate) const AREA: usize = 40 << 20;
pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;
/// So many blocks of 1 MiB lie in more than one arena.
pub(crate) const BEYOND_AN_ARENA: usize = FIRST_ARENA_CHUNKS as usize * CHUNK / MIB + 100;
pub(crate) const GIB: usize = 1 << 30;

/// The object sizes of the caches: 8, then 16 to 256 by 16, 4 per doubling to 32 KiB.
pub(crate) fn class_sizes() -> Vec<usize> {
    let mut sizes = vec![8];
    sizes.extend((16..=256).step_by(16));
    for base in (8..15).map(|shift| 1 << shift) {
        sizes.extend((1..=4).map(|step| base + base / 4 * step));
    }
    assert_eq!(sizes.len(), 45);
    sizes
}

/// Every size up to `limit` at which a request may begin to be served differently, with its two neighbours.
pub(crate) fn boundary_sizes(limit: usize) -> Vec<usize> {
    let mut sizes = class_sizes();
    sizes.extend([2, 3, 4, 5, 6, 7, 8, 12, 16, 31, 32, 33, 63, 64, 65, 96, 128, 192, 255, 256, 257].map(|n| n * PAGE));
    sizes.extend([12, 16, 32, 64].map(|n| n * MIB));
    let mut all: Vec<usize> = sizes.iter().flat_map(|&size| [size - 1, size, size + 1]).collect();
    all.push(1);
    all.retain(|&size| size <= limit);
    all.sort_unstable();
    all.dedup();
    all
}

pub(crate) fn layout(size: usize, align: usize) -> Layout {
    assert!(size != 0, "GlobalAlloc is never asked for nothing");
    Layout::from_size_align(size, align).expect("a layout that the type allows")
}

/// A block of Kmalloc's with the layout that it was asked for. It is freed by hand: a block that is dropped leaks.
#[must_use = "a block that is dropped leaks"]
pub(crate) struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is plain memory with one owner; the allocator lets any thread use and free it.
unsafe impl Send for Block {}

/// Word `index` of the pattern that belongs to `id`.
fn word(id: u64, index: usize) -> u64 {
    (id ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ id
}

impl Block {
    pub(crate) fn try_new(layout: Layout) -> Option<Self> {
        assert!(layout.size() != 0);
        // SAFETY: the size is not zero.
        let ptr = black_box(unsafe { KMALLOC.alloc(layout) });
        Self::adopt(ptr, layout)
    }

    pub(crate) fn try_zeroed(layout: Layout) -> Option<Self> {
        assert!(layout.size() != 0);
        // SAFETY: the size is not zero.
        let ptr = black_box(unsafe { KMALLOC.alloc_zeroed(layout) });
        Self::adopt(ptr, layout)
    }

    fn adopt(ptr: *mut u8, layout: Layout) -> Option<Self> {
        let block = Self { ptr: NonNull::new(ptr)?, layout };
        assert_eq!(block.address() % layout.align(), 0, "{layout:?} was served at {ptr:p}");
        Some(block)
    }

    pub(crate) fn new(size: usize, align: usize) -> Self {
        Self::try_new(layout(size, align)).unwrap_or_else(|| panic!("{size} bytes aligned to {align} were refused"))
    }

    pub(crate) fn zeroed(size: usize, align: usize) -> Self {
        Self::try_zeroed(layout(size, align))
            .unwrap_or_else(|| panic!("{size} zeroed bytes aligned to {align} were refused"))
    }

    /// A block filled with the pattern of `id`.
    pub(crate) fn filled(size: usize, align: usize, id: u64) -> Self {
        let mut block = Self::new(size, align);
        block.fill(id);
        block
    }

    /// Changes the size; on refusal the block stays as it was.
    pub(crate) fn try_resize(&mut self, size: usize) -> bool {
        let layout = layout(size, self.layout.align());
        // SAFETY: the block came from this allocator with this layout, and the new size makes a valid layout.
        let ptr = black_box(unsafe { KMALLOC.realloc(self.ptr.as_ptr(), self.layout, size) });
        match Self::adopt(ptr, layout) {
            None => false,
            Some(block) => {
                *self = block;
                true
            }
        }
    }

    pub(crate) fn resize(&mut self, size: usize) {
        assert!(self.try_resize(size), "{:?} could not be resized to {size}", self.layout);
    }

    pub(crate) fn free(self) {
        // SAFETY: the block came from this allocator with this layout, and nobody else has it.
        unsafe { KMALLOC.dealloc(self.ptr.as_ptr(), self.layout) }
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    pub(crate) fn address(&self) -> usize {
        self.ptr.as_ptr() as usize
    }

    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn fill(&mut self, id: u64) {
        self.fill_from(id, 0);
    }

    /// Writes the pattern of `id` from offset `from`, or a few bytes before it, to the end.
    pub(crate) fn fill_from(&mut self, id: u64, from: usize) {
        let (ptr, size) = (self.ptr.as_ptr(), self.layout.size());
        let mut at = from - from % 8;
        while at + 8 <= size {
            // SAFETY: eight bytes from `at` lie inside the block.
            unsafe { ptr.wrapping_add(at).cast::<u64>().write_unaligned(word(id, at / 8)) };
            at += 8;
        }
        for (offset, byte) in word(id, at / 8).to_ne_bytes().into_iter().enumerate().take(size - at) {
            // SAFETY: the offset lies inside the block.
            unsafe { ptr.wrapping_add(at + offset).write(byte) };
        }
    }

    /// Asserts that the first `len` bytes, which have been filled, still carry the pattern of `id`.
    pub(crate) fn check_prefix(&self, id: u64, len: usize) {
        let ptr = self.ptr.as_ptr();
        assert!(len <= self.layout.size());
        let mut at = 0;
        while at + 8 <= len {
            // SAFETY: eight bytes from `at` lie inside the block and have been written.
            let found = unsafe { ptr.wrapping_add(at).cast::<u64>().read_unaligned() };
            assert_eq!(found, word(id, at / 8), "{:?} at {ptr:p} is spoiled at offset {at}", self.layout);
            at += 8;
        }
        for (offset, expected) in word(id, at / 8).to_ne_bytes().into_iter().enumerate().take(len - at) {
            // SAFETY: the offset lies inside the block and has been written.
            let found = unsafe { ptr.wrapping_add(at + offset).read() };
            assert_eq!(found, expected, "{:?} at {ptr:p} is spoiled at offset {}", self.layout, at + offset);
        }
    }

    pub(crate) fn check(&self, id: u64) {
        self.check_prefix(id, self.layout.size());
    }

    pub(crate) fn check_and_free(self, id: u64) {
        self.check(id);
        self.free();
    }

    /// Asserts that every byte is zero. Only for a block that came from `zeroed`, so that every byte is initialised.
    pub(crate) fn check_zero(&self) {
        let (ptr, size) = (self.ptr.as_ptr(), self.layout.size());
        let mut at = 0;
        while at + 8 <= size {
            // SAFETY: eight bytes from `at` lie inside the block, and the allocator has written or mapped zeros there.
            let found = unsafe { ptr.wrapping_add(at).cast::<u64>().read_unaligned() };
            assert_eq!(found, 0, "{:?} at {ptr:p} is not zero at offset {at}", self.layout);
            at += 8;
        }
        for at in at..size {
            // SAFETY: the offset lies inside the block, and the allocator has written or mapped zeros there.
            let found = unsafe { ptr.wrapping_add(at).read() };
            assert_eq!(found, 0, "{:?} at {ptr:p} is not zero at offset {at}", self.layout);
        }
    }
}

/// Asserts the invariants of the heap; call it while no other thread is in the allocator.
pub(crate) fn assert_valid() {
    if let Err(what) = Kmalloc::validate() {
        panic!("the heap is not valid: {what}");
    }
}

/// Runs `work` on `count` threads and waits until they have ended for good: unlike the end of a scope, a join comes
/// after the destructors of the thread's local storage.
pub(crate) fn on_threads<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || work(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect()
    })
}

/// Runs `here` while `count` threads run `work`, and waits until they have ended for good. They end by themselves, or when
/// `here` has told them to.
pub(crate) fn beside(count: usize, work: impl Fn(usize) + Sync, here: impl FnOnce()) {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || work(index))).collect();
        here();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
    });
}

pub(crate) type ThreadBody = extern "C" fn(*mut c_void) -> *mut c_void;

/// Starts a thread of libc's: nothing of Rust's runs in it before `body`, so its first allocation is `body`'s.
pub(crate) fn spawn_raw(stack: Option<usize>, body: ThreadBody, argument: *mut c_void) -> libc::pthread_t {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: initialises the attributes.
    assert_eq!(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) }, 0);
    if let Some(stack) = stack {
        // SAFETY: the attributes are initialised.
        assert_eq!(unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack) }, 0);
    }
    let mut thread = std::mem::MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes are initialised; `body` takes what the caller passes.
    let code = unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), body, argument) };
    assert_eq!(code, 0, "pthread_create");
    // SAFETY: the attributes are initialised and no longer needed.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    // SAFETY: pthread_create succeeded and wrote it.
    unsafe { thread.assume_init() }
}

pub(crate) fn join_raw(thread: libc::pthread_t) -> *mut c_void {
    let mut result = std::ptr::null_mut();
    // SAFETY: the thread came from `spawn_raw` and is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, &mut result) }, 0, "pthread_join");
    result
}

/// Bytes of this process that are mapped (field 0) or resident (field 1).
fn statm(field: usize) -> usize {
    let text = fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages: usize = text.split_whitespace().nth(field).and_then(|word| word.parse().ok()).expect("statm");
    // SAFETY: takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * page as usize
}

pub(crate) fn mapped_bytes() -> usize {
    statm(0)
}

pub(crate) fn resident_bytes() -> usize {
    statm(1)
}

/// What a line of a file about this process says, in bytes, as `VmHWM:` of `/proc/self/status`.
pub(crate) fn proc_bytes(path: &str, key: &str) -> usize {
    let text = fs::read_to_string(path).expect(path);
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect(key);
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * KIB
}

const CHILD: &str = "KMALLOC_TEST_CHILD";
const ARGUMENT: &str = "KMALLOC_TEST_ARGUMENT";

/// A program for a child process; it is given the argument of `child`.
pub(crate) type Child = fn(&str);

/// Runs one of this file's child programs in a process of its own.
pub(crate) fn child(name: &str, argument: &str) -> Output {
    child_with(name, argument, &[])
}

/// As `child`, with these variables in its environment.
pub(crate) fn child_with(name: &str, argument: &str, variables: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().expect("the test's own path"))
        .envs(variables.iter().copied())
        .env(CHILD, name)
        .env(ARGUMENT, argument)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("the test binary runs again")
}

/// Runs a child program that must end with `code`, having printed nothing.
pub(crate) fn assert_child_exits(name: &str, argument: &str, code: i32) {
    let Output { status, stdout, stderr } = child(name, argument);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(
        (status.code(), status.signal(), &*stdout, &*stderr),
        (Some(code), None, "", ""),
        "child {name}({argument}): code, signal, stdout, stderr"
    );
}

/// The `main` of a test file: runs the tests one after another, each followed by a check of the whole heap, or, in a
/// child process, the program that was asked for.
pub(crate) fn run(tests: &[(&'static str, fn())], children: &[(&'static str, Child)]) -> ExitCode {
    if let Ok(name) = env::var(CHILD) {
        let argument = env::var(ARGUMENT).unwrap_or_default();
        // SAFETY: a limit of zero on a struct that lives long enough; a child that aborts leaves no core file.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
        // SAFETY: takes no pointer. A child that hangs is ended by the signal.
        unsafe { libc::alarm(300) };
        let (_, program) = children.iter().find(|(child, _)| *child == name).expect("a child of this name");
        program(&argument);
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = tests.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            assert_valid();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// `main` from the names of the tests and of the child programs.
#[macro_export]
macro_rules! suite {
    (tests: [$($test:ident),* $(,)?], children: [$($child:ident),* $(,)?]) => {
        #[global_allocator]
        static GLOBAL: allocator_global::Kmalloc = allocator_global::Kmalloc::new();

        fn main() -> std::process::ExitCode {
            common::run(&[$((stringify!($test), $test)),*], &[$((stringify!($child), $child)),*])
        }
    };
}
