//! Threads: how they start, how they end, and what they may do to the allocator meanwhile.

mod common;

use allocator_global::Kmalloc;
use common::{
    assert_child_exits, join_raw, on_threads, resident_bytes, spawn_raw, Block, ThreadBody, AREA, KIB, MIB, PAGE,
};
use std::cell::RefCell;
use std::os::raw::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread;

suite! {
    tests: [
        a_thread_may_allocate_first_in_the_initialiser_of_a_thread_local,
        a_thread_may_allocate_first_in_the_destructor_of_a_thread_local,
        thread_local_destructors_allocate_and_register_further_ones,
        pthread_key_destructors_allocate_in_every_round,
        many_keys_may_be_set_before_the_first_allocation,
        atexit_handlers_allocate_and_free,
        the_process_may_exit_while_threads_allocate,
        ten_thousand_threads_one_after_another_leave_nothing_behind,
        two_hundred_threads_at_once_leave_nothing_behind,
        a_thousand_threads_that_walked_the_arenas_end_at_once,
        any_first_call_fits_the_smallest_stack,
        walking_and_retiring_arenas_fits_a_small_stack,
        twenty_thousand_threads_live_at_once,
        the_first_allocation_may_be_anywhere_in_std,
        a_million_frees_after_a_threads_end,
        an_idle_thread_does_not_stop_a_real_time_one,
    ],
    children: [
        atexit,
        exit_in_the_middle,
        smallest_stack,
        arenas_on_a_small_stack,
        twenty_thousand_threads,
        anywhere_in_std,
        a_million_late_frees,
        idle_and_real_time,
    ]
}

/// A little of everything: a small object, a vector that grows across classes, a page run.
fn use_the_allocator(id: u64) {
    let small = Block::filled(24 + id as usize % 200, 8, id);
    let numbers: Vec<u64> = (0..500).map(|n| n ^ id).collect();
    let mut run = Block::filled(PAGE + 1, 8, id);
    run.resize(3 * PAGE);
    run.check_prefix(id, PAGE + 1);
    assert!(numbers.iter().enumerate().all(|(n, &number)| number == n as u64 ^ id));
    small.check_and_free(id);
    run.free();
}

// Thread locals.

static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Allocates when it is made, and again when it is dropped.
struct Keeper {
    numbers: Vec<u64>,
    text: String,
}

impl Keeper {
    fn new() -> Self {
        Self { numbers: (0..1000).collect(), text: "kept until the thread ends".repeat(9) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        use_the_allocator(7);
        self.numbers.extend(0..5000);
        assert_eq!(self.numbers.iter().sum::<u64>(), 999 * 500 + 4999 * 2500);
        self.text.push_str(&self.text.clone());
        assert_eq!(self.text.len(), 26 * 9 * 2);
        DROPPED.fetch_add(1, SeqCst);
    }
}

thread_local! {
    static KEEPER: Keeper = Keeper::new();
    static LAZY: LazyKeeper = const { LazyKeeper };
    static OUTER: Nested = const { Nested { depth: 0, held: RefCell::new(Vec::new()) } };
    static MIDDLE: Nested = const { Nested { depth: 1, held: RefCell::new(Vec::new()) } };
    static INNER: Nested = const { Nested { depth: 2, held: RefCell::new(Vec::new()) } };
}

/// Runs `body` on threads of libc's, in which nothing has allocated before, and counts `DROPPED`.
fn dropped_by(threads: usize, body: ThreadBody) -> usize {
    let before = DROPPED.load(SeqCst);
    for _ in 0..threads {
        join_raw(spawn_raw(None, body, ptr::null_mut()));
    }
    DROPPED.load(SeqCst) - before
}

fn a_thread_may_allocate_first_in_the_initialiser_of_a_thread_local() {
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        let sum: u64 = KEEPER.with(|keeper| keeper.numbers.iter().sum());
        assert_eq!(sum, 999 * 500);
        ptr::null_mut()
    }
    let before = Kmalloc::stats().threads;
    assert_eq!(dropped_by(100, body), 100);
    assert_eq!(Kmalloc::stats().threads, before);
}

/// Holds nothing, so its thread allocates for the first time when it ends.
struct LazyKeeper;

impl Drop for LazyKeeper {
    fn drop(&mut self) {
        use_the_allocator(11);
        DROPPED.fetch_add(1, SeqCst);
    }
}

fn a_thread_may_allocate_first_in_the_destructor_of_a_thread_local() {
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        LAZY.with(|_| ());
        ptr::null_mut()
    }
    let before = Kmalloc::stats().threads;
    assert_eq!(dropped_by(100, body), 100);
    assert_eq!(Kmalloc::stats().threads, before);
}

/// Its destructor touches the next one for the first time, which registers that one's destructor meanwhile.
struct Nested {
    depth: u32,
    held: RefCell<Vec<Block>>,
}

impl Nested {
    fn hold(&self) {
        self.held.borrow_mut().extend((1..20).map(|n| Block::filled(n * 40, 8, n as u64)));
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        use_the_allocator(u64::from(self.depth));
        match self.depth {
            0 => MIDDLE.with(Nested::hold),
            1 => INNER.with(Nested::hold),
            _ => KEEPER.with(|keeper| assert_eq!(keeper.numbers.len(), 1000)),
        }
        for (n, block) in (1..).zip(self.held.take()) {
            block.check_and_free(n);
        }
        use_the_allocator(u64::from(self.depth) + 1);
        DROPPED.fetch_add(1, SeqCst);
    }
}

fn thread_local_destructors_allocate_and_register_further_ones() {
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        OUTER.with(Nested::hold);
        ptr::null_mut()
    }
    let before = Kmalloc::stats().threads;
    // Three of the nested ones and the keeper that the last of them makes.
    assert_eq!(dropped_by(50, body), 50 * 4);
    assert_eq!(Kmalloc::stats().threads, before);
}

// Keys of pthread's: their destructors run after those of thread locals, in up to four rounds.

/// A key made before `main`, so before the allocator can have made its own.
static EARLY_KEY: AtomicU32 = AtomicU32::new(u32::MAX);

extern "C" fn before_main() {
    EARLY_KEY.store(new_key(key_destructor), SeqCst);
    use_the_allocator(12);
}

// SAFETY: the section holds functions of this type, which are called once before `main`.
#[used]
#[link_section = ".init_array"]
static BEFORE_MAIN: extern "C" fn() = before_main;

fn new_key(destructor: unsafe extern "C" fn(*mut c_void)) -> u32 {
    let mut key = 0;
    // SAFETY: writes the key.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
    key
}

fn set_key(key: u32, value: *const c_void) {
    // SAFETY: the key exists; its destructor knows what to make of the value.
    assert_eq!(unsafe { libc::pthread_setspecific(key, value) }, 0);
}

const ROUNDS: u32 = 4; // PTHREAD_DESTRUCTOR_ITERATIONS of glibc and musl
static ROUNDS_SEEN: AtomicUsize = AtomicUsize::new(0);

/// What a key holds: something of the thread's own, and blocks that the main thread allocated.
struct KeyValue {
    key: u32,
    rounds: u32,
    own: Block,
    foreign: Vec<Block>,
}

impl KeyValue {
    fn set(self) {
        set_key(self.key, Box::into_raw(Box::new(self)).cast());
    }
}

unsafe extern "C" fn key_destructor(value: *mut c_void) {
    // SAFETY: the value is one that `KeyValue::set` made, and pthread has given it up.
    let mut value = *unsafe { Box::from_raw(value.cast::<KeyValue>()) };
    let (id, size) = (u64::from(value.key), value.own.size());
    value.own.check(id);
    value.own.resize(size * 4 + 5);
    value.own.check_prefix(id, size);
    value.own.fill_from(id, size);
    value.foreign.pop().expect("one for each round").check_and_free(id);
    use_the_allocator(id);
    value.rounds += 1;
    ROUNDS_SEEN.fetch_add(1, SeqCst);
    if value.rounds < ROUNDS {
        value.set();
    } else {
        value.own.check_and_free(id);
    }
}

struct KeyJob {
    before: Vec<KeyValue>,
    own_key: bool,
    after: Vec<KeyValue>,
}

fn key_value(key: u32, size: usize) -> KeyValue {
    let id = u64::from(key);
    let foreign = (0..ROUNDS as usize).map(|n| Block::filled(100 + 3000 * n * n, 8, id)).collect();
    KeyValue { key, rounds: 0, own: Block::filled(size, 8, id), foreign }
}

extern "C" fn set_keys(job: *mut c_void) -> *mut c_void {
    // SAFETY: the creator passes a boxed job and gives it up.
    let mut job = *unsafe { Box::from_raw(job.cast::<KeyJob>()) };
    job.before.drain(..).for_each(KeyValue::set);
    use_the_allocator(3);
    job.after.drain(..).for_each(KeyValue::set);
    if job.own_key {
        key_value(new_key(key_destructor), 48).set(); // made by the thread itself, after its first allocation
    }
    ptr::null_mut()
}

fn pthread_key_destructors_allocate_in_every_round() {
    let early = EARLY_KEY.load(SeqCst);
    assert_ne!(early, u32::MAX, "the constructor ran before main");
    let (first, second) = (new_key(key_destructor), new_key(key_destructor));
    let before = Kmalloc::stats().threads;
    let seen = ROUNDS_SEEN.load(SeqCst);
    for n in 0..20 {
        let job = KeyJob {
            before: vec![key_value(early, 16), key_value(first, 300)],
            own_key: true,
            after: vec![key_value(second, 9 * KIB + n)],
        };
        join_raw(spawn_raw(None, set_keys, Box::into_raw(Box::new(job)).cast()));
    }
    assert_eq!(ROUNDS_SEEN.load(SeqCst) - seen, 20 * 4 * ROUNDS as usize);
    assert_eq!(Kmalloc::stats().threads, before);
}

static PLAIN_KEYS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static PLAIN_DESTROYED: AtomicUsize = AtomicUsize::new(0);

/// Class of bug: glibc allocates for a key beyond its 32nd, so an allocator that registers its own exit hook by such
/// a key comes back to itself.
fn many_keys_may_be_set_before_the_first_allocation() {
    unsafe extern "C" fn destructor(_: *mut c_void) {
        use_the_allocator(5);
        PLAIN_DESTROYED.fetch_add(1, SeqCst);
    }
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        for &key in PLAIN_KEYS.lock().expect("no panic").iter() {
            set_key(key, ptr::NonNull::<u8>::dangling().as_ptr().cast());
        }
        use_the_allocator(6);
        ptr::null_mut()
    }
    PLAIN_KEYS.lock().expect("no panic").extend((0..100).map(|_| new_key(destructor)));
    let before = Kmalloc::stats().threads;
    for _ in 0..5 {
        join_raw(spawn_raw(None, body, ptr::null_mut()));
    }
    assert_eq!(PLAIN_DESTROYED.load(SeqCst), 5 * 100);
    assert_eq!(Kmalloc::stats().threads, before);
    for key in PLAIN_KEYS.lock().expect("no panic").drain(..) {
        // SAFETY: the key exists, and no thread that set it is left.
        unsafe { libc::pthread_key_delete(key) };
    }
}

// The end of the process.

static KEPT_FOR_EXIT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A child: leaves with code 42, which its `atexit` handler sets after it has used the allocator.
fn atexit(_: &str) {
    extern "C" fn handler() {
        use_the_allocator(1);
        for block in KEPT_FOR_EXIT.lock().expect("no panic").drain(..) {
            block.check_and_free(9);
        }
        let threads: Vec<_> = (0..2).map(|n| thread::spawn(move || use_the_allocator(n))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
        common::assert_valid();
        // SAFETY: ends the process.
        unsafe { libc::_exit(42) };
    }
    // SAFETY: the handler is a function of this binary.
    assert_eq!(unsafe { libc::atexit(handler) }, 0);
    KEEPER.with(|keeper| assert_eq!(keeper.numbers.len(), 1000)); // dropped on the main thread before the handler runs
    let sizes = [8, 100, 5000, PAGE, 3 * PAGE, AREA];
    KEPT_FOR_EXIT.lock().expect("no panic").extend(sizes.map(|size| Block::filled(size, 8, 9)));
}

fn atexit_handlers_allocate_and_free() {
    assert_child_exits("atexit", "", 42);
}

/// A child: `exit` on one thread while the others are in the allocator.
fn exit_in_the_middle(from: &str) {
    let started = Barrier::new(5);
    thread::scope(|scope| {
        for id in 0..4 {
            let started = &started;
            scope.spawn(move || {
                started.wait();
                loop {
                    use_the_allocator(id);
                }
            });
        }
        started.wait();
        use_the_allocator(9);
        let exit = || {
            KEEPER.with(|keeper| assert_eq!(keeper.numbers.len(), 1000)); // its destructor allocates
            std::process::exit(3)
        };
        if from == "another thread" {
            scope.spawn(exit);
        } else {
            exit();
        }
    });
}

fn the_process_may_exit_while_threads_allocate() {
    for _ in 0..15 {
        assert_child_exits("exit_in_the_middle", "the main thread", 3);
        assert_child_exits("exit_in_the_middle", "another thread", 3);
    }
}

// Many threads.

fn one_short_life(index: usize) {
    let blocks: Vec<Block> = (0..40).map(|n| Block::filled(8 + (index + n * 37) % 2000, 8, n as u64)).collect();
    if index % 16 == 0 {
        Block::filled(2 * PAGE, 8, 0).check_and_free(0);
    }
    if index % 256 == 0 {
        Block::zeroed(AREA, 8).free();
    }
    for (id, block) in (0..).zip(blocks) {
        block.check_and_free(id);
    }
}

fn ten_thousand_threads_one_after_another_leave_nothing_behind() {
    extern "C" fn never_allocates(_: *mut c_void) -> *mut c_void {
        ptr::null_mut()
    }
    // A million, for instance; that takes a minute.
    let many = std::env::var("MANY_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let lives = |count| {
        for index in 0..count {
            thread::spawn(move || one_short_life(index)).join().expect("a thread panicked");
            join_raw(spawn_raw(None, never_allocates, ptr::null_mut()));
        }
    };
    lives(600);
    let (before, resident) = (Kmalloc::stats(), resident_bytes());
    lives(many);
    let (after, drift) = (Kmalloc::stats(), resident_bytes().saturating_sub(resident));
    assert_eq!(after.threads, before.threads);
    assert_eq!((after.slab_objects, after.runs, after.areas), (before.slab_objects, before.runs, before.areas));
    assert!(after.reserved <= before.reserved, "{before:?}\n{after:?}");
    assert!(after.committed <= before.committed, "{before:?}\n{after:?}");
    assert!(drift <= MIB, "{drift} bytes more are resident");
}

fn two_hundred_threads_at_once_leave_nothing_behind() {
    const THREADS: usize = 200;
    let round = || {
        let (ready, go) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|index| {
                    let (ready, go) = (&ready, &go);
                    scope.spawn(move || {
                        let run = Block::filled(MIB, 8, index as u64);
                        let small: Vec<Block> = (1..60).map(|n| Block::filled(n * 30, 8, n as u64)).collect();
                        ready.wait();
                        go.wait();
                        run.check_and_free(index as u64);
                        for (id, block) in (1..).zip(small) {
                            block.check_and_free(id);
                        }
                    })
                })
                .collect();
            ready.wait();
            let alive = Kmalloc::stats();
            go.wait();
            threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
            alive
        })
    };
    // What is free stays resident for a while, so much or so little of it depending on how fast this machine is.
    let resident = || {
        Kmalloc::reclaim();
        resident_bytes()
    };
    round();
    let (before, at_first) = (Kmalloc::stats(), resident());
    for _ in 0..10 {
        let alive = round();
        assert!(alive.threads >= before.threads + THREADS, "{alive:?}");
        assert!(alive.runs >= before.runs + THREADS, "{alive:?}");
        let after = Kmalloc::stats();
        assert_eq!(after.threads, before.threads);
        assert_eq!((after.slab_objects, after.runs, after.areas), (before.slab_objects, before.runs, before.areas));
    }
    // Which of libc's stacks are resident differs from round to round; a leak would add up over ten.
    let (after, drift) = (Kmalloc::stats(), resident().saturating_sub(at_first));
    assert!(after.committed <= before.committed + 32 * MIB, "{before:?}\n{after:?}");
    assert!(drift <= 32 * MIB, "{drift} bytes more are resident");
}

// Small stacks.

/// A thread that makes one call first, and says whether it went well. It does not panic: its stack is too short.
struct FirstCall {
    call: &'static str,
    foreign: Option<Block>,
    kept: Vec<Block>, // with room for `KEPT`, so that the thread neither grows it nor needs the place on its stack
    done: AtomicBool,
}

const KEPT: usize = 64;

impl FirstCall {
    /// Runs it in a thread with the smallest stack there is.
    fn run(call: &'static str, foreign: Option<Block>) {
        let stack = libc::PTHREAD_STACK_MIN.max(16 * KIB);
        let mut first = Self { call, foreign, kept: Vec::with_capacity(KEPT), done: AtomicBool::new(false) };
        join_raw(spawn_raw(Some(stack), make_first_call, ptr::addr_of_mut!(first).cast()));
        assert!(first.done.load(SeqCst), "{call}");
    }
}

const FIRST_CALLS: [&str; 10] = [
    "alloc",
    "free of a foreign object",
    "free of a foreign run",
    "realloc of a foreign object",
    "realloc of a foreign run",
    "alloc_zeroed",
    "page run",
    "area",
    "free of a foreign area",
    "refused",
];

extern "C" fn make_first_call(first: *mut c_void) -> *mut c_void {
    // SAFETY: the creator passes this type and waits for the thread.
    let first = unsafe { &mut *first.cast::<FirstCall>() };
    let served = |block: Option<Block>| match block {
        None => false,
        Some(mut block) => {
            block.fill(1);
            block.check_and_free(1);
            true
        }
    };
    let done = match (first.call, first.foreign.take()) {
        ("alloc", _) => served(Block::try_new(common::layout(48, 8))),
        ("alloc_zeroed", _) => served(Block::try_zeroed(common::layout(48, 8))),
        ("page run", _) => served(Block::try_new(common::layout(2 * PAGE, 8))),
        ("area", _) => served(Block::try_new(common::layout(AREA, 8))),
        ("refused", _) => Block::try_new(common::layout(isize::MAX as usize - PAGE, 8)).is_none(),
        (call, Some(mut block)) if call.starts_with("realloc") => {
            let size = block.size();
            let done = block.try_resize(3 * size);
            block.check_prefix(1, size);
            block.free();
            done
        }
        (_, Some(block)) => {
            block.check_and_free(1);
            true
        }
        _ => false,
    };
    // A whole life after it: refill, flush, and the exit with things in the sheaves.
    for n in 0..KEPT {
        first.kept.extend(Block::try_new(common::layout(16 + n * 8, 8)));
    }
    let all = first.kept.len() == KEPT;
    while let Some(block) = first.kept.pop() {
        block.free();
    }
    first.done.store(done && all, SeqCst);
    ptr::null_mut()
}

/// A child, so that a stack that overflows is told from other failures.
fn smallest_stack(call: &str) {
    let call = *FIRST_CALLS.iter().find(|&&known| known == call).expect("a call from the list");
    for _ in 0..3 {
        let foreign = match call {
            _ if call.ends_with("object") => Some(Block::filled(48, 8, 1)),
            _ if call.ends_with("run") && call != "page run" => Some(Block::filled(2 * PAGE, 8, 1)),
            _ if call.ends_with("foreign area") => Some(Block::filled(AREA, 8, 1)),
            _ => None,
        };
        FirstCall::run(call, foreign);
    }
    common::assert_valid();
}

/// Each is known to the reclamation scheme, which later unlinks all of them in one call.
fn a_thousand_threads_that_walked_the_arenas_end_at_once() {
    // More than one arena, so that a walk must be protected.
    let fill = || {
        let blocks: Vec<Block> = (0..common::BEYOND_AN_ARENA).map(|_| Block::new(MIB, 8)).collect();
        assert!(Kmalloc::stats().arenas > 1);
        blocks
    };
    let blocks = fill();
    let registered = Barrier::new(1500);
    thread::scope(|scope| {
        let walk = || {
            let _ = Kmalloc::stats();
            registered.wait();
        };
        let start = |_| thread::Builder::new().stack_size(256 * KIB).spawn_scoped(scope, walk).expect("a thread");
        let threads: Vec<_> = (0..1500).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
    });
    blocks.into_iter().for_each(Block::free);
    for _ in 0..100 {
        fill().into_iter().for_each(Block::free);
        Kmalloc::reclaim();
    }
    common::assert_valid();
    let left = Kmalloc::stats().internal_objects;
    assert!(left < 100, "{left} elements of threads that have ended");
}

fn any_first_call_fits_the_smallest_stack() {
    for call in FIRST_CALLS {
        assert_child_exits("smallest_stack", call, 0);
    }
    // And many of them at once.
    on_threads(4, |index| {
        for n in 0..20 {
            FirstCall::run(FIRST_CALLS[(index + n) % 2 * 5], None); // alloc or alloc_zeroed
        }
    });
}

extern "C" fn walk(_: *mut c_void) -> *mut c_void {
    Block::new(MIB, 8).free();
    ptr::null_mut()
}

extern "C" fn walk_and_reclaim(_: *mut c_void) -> *mut c_void {
    Kmalloc::reclaim();
    ptr::null_mut()
}

/// A child: a thread with a small stack walks the arenas, or retires them, which is crossbeam-epoch's business.
fn arenas_on_a_small_stack(what: &str) {
    for _ in 0..3 {
        let full: Vec<Block> = (0..common::BEYOND_AN_ARENA).map(|_| Block::new(MIB, 8)).collect();
        assert!(Kmalloc::stats().arenas > 1, "a walk must be protected");
        if what == "walk" {
            join_raw(spawn_raw(Some(libc::PTHREAD_STACK_MIN), walk, ptr::null_mut()));
        }
        full.into_iter().for_each(Block::free);
        if what == "reclaim" {
            join_raw(spawn_raw(Some(libc::PTHREAD_STACK_MIN), walk_and_reclaim, ptr::null_mut()));
        }
    }
    common::assert_valid();
}

fn walking_and_retiring_arenas_fits_a_small_stack() {
    assert_child_exits("arenas_on_a_small_stack", "walk", 0);
    assert_child_exits("arenas_on_a_small_stack", "reclaim", 0);
}

/// Threads that are parked: they go on when the number rises.
static STEP: AtomicU32 = AtomicU32::new(0);
/// Threads that are at their current step.
static THERE: AtomicUsize = AtomicUsize::new(0);

/// Waits for the next step without a place of its own in the heap.
fn park_until(step: u32) {
    THERE.fetch_add(1, SeqCst);
    while STEP.load(SeqCst) < step {
        // SAFETY: the word lives for ever.
        unsafe { libc::syscall(libc::SYS_futex, STEP.as_ptr(), libc::FUTEX_WAIT, step - 1, ptr::null::<u8>()) };
    }
}

fn unpark_to(step: u32) {
    STEP.store(step, SeqCst);
    // SAFETY: the word lives for ever.
    unsafe { libc::syscall(libc::SYS_futex, STEP.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

/// What is resident of the mappings that are longer than a stack of these threads: all of ours are.
fn longer_mappings() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps");
    let (mut long, mut resident) = (false, 0);
    for line in smaps.lines() {
        let kib = |field| line.strip_prefix(field).map(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>());
        if let Some(Ok(size)) = kib("Size:") {
            long = size > 64;
        } else if let (true, Some(Ok(rss))) = (long, kib("Rss:")) {
            resident += rss * KIB;
        }
    }
    resident
}

/// A child: as many threads as the machine lets us have, up to 20,000.
fn twenty_thousand_threads(_: &str) {
    extern "C" fn allocates_a_little(_: *mut c_void) -> *mut c_void {
        park_until(1);
        let block = Block::try_new(common::layout(48, 8));
        park_until(2);
        block.into_iter().for_each(Block::free);
        ptr::null_mut()
    }
    let wait_for = |threads: usize| {
        while THERE.load(SeqCst) < threads {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        THERE.store(0, SeqCst);
    };
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: initialises the attributes.
    assert_eq!(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) }, 0);
    // SAFETY: the attributes are initialised.
    assert_eq!(unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), 64 * KIB) }, 0);
    // Should they be all that there may be, these leave room for a child, and for what else the machine does.
    static SPARE: AtomicBool = AtomicBool::new(true);
    extern "C" fn keeps_a_place(_: *mut c_void) -> *mut c_void {
        while SPARE.load(SeqCst) {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        ptr::null_mut()
    }
    let spare: Vec<_> = (0..50).map(|_| spawn_raw(Some(64 * KIB), keeps_a_place, ptr::null_mut())).collect();
    let before = Kmalloc::stats();
    let mut threads = Vec::with_capacity(20_000);
    while threads.len() < 20_000 {
        let mut new = std::mem::MaybeUninit::uninit();
        let body: ThreadBody = allocates_a_little;
        // SAFETY: the attributes are initialised; the body takes nothing.
        if unsafe { libc::pthread_create(new.as_mut_ptr(), attributes.as_ptr(), body, ptr::null_mut()) } != 0 {
            break; // this machine has no more
        }
        // SAFETY: the call has written it.
        threads.push(unsafe { new.assume_init() });
    }
    let count = threads.len();
    assert!(count >= 1000, "{count} threads");
    SPARE.store(false, SeqCst);
    spare.into_iter().for_each(|thread| _ = join_raw(thread));
    wait_for(count);
    let parked = longer_mappings();
    unpark_to(1);
    wait_for(count);
    let all = Kmalloc::stats();
    let each = longer_mappings().saturating_sub(parked) / count;
    assert_eq!(all.threads, before.threads + count);
    assert!(each <= 8 * KIB, "{each} bytes for a thread that allocated little");
    // The gate looks at every one of them, and the child gives all their blocks back.
    // SAFETY: the child allocates and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child of {count} threads: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: takes no pointer.
        unsafe { libc::alarm(60) };
        Kmalloc::reclaim();
        let left = Kmalloc::stats().threads;
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(left != 1)) };
    }
    let mut status = -1;
    // SAFETY: the child is ours.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "the child of a process with {count} threads");
    unpark_to(2);
    threads.into_iter().for_each(|thread| _ = join_raw(thread));
    assert_eq!(Kmalloc::stats().threads, before.threads);
    common::assert_valid();
}

fn twenty_thousand_threads_live_at_once() {
    assert_child_exits("twenty_thousand_threads", "", 0);
}

/// A child: the first allocation of a thread in places where the standard library is in the middle of something.
fn anywhere_in_std(_: &str) {
    use std::sync::{LazyLock, OnceLock};
    static ONCE: OnceLock<Vec<u64>> = OnceLock::new();
    static LAZY: LazyLock<String> = LazyLock::new(|| "made on first use".repeat(100));
    struct AllocatesWhenDropped;
    impl Drop for AllocatesWhenDropped {
        fn drop(&mut self) {
            use_the_allocator(4);
        }
    }
    extern "C" fn once(_: *mut c_void) -> *mut c_void {
        assert_eq!(ONCE.get_or_init(|| (0..10_000).collect()).len(), 10_000);
        ptr::null_mut()
    }
    extern "C" fn lazy(_: *mut c_void) -> *mut c_void {
        assert_eq!(LAZY.len(), 1700);
        ptr::null_mut()
    }
    extern "C" fn unwinds(_: *mut c_void) -> *mut c_void {
        let result = std::panic::catch_unwind(|| {
            let _held = AllocatesWhenDropped;
            panic!("allocates for the first time: {}", 42);
        });
        assert!(result.is_err());
        ptr::null_mut()
    }
    extern "C" fn at_exit() {
        println!("printed by a handler of atexit, {}", "which allocates".repeat(50));
    }
    std::panic::set_hook(Box::new(|what| {
        let text = what.to_string();
        assert!(text.contains("42"));
        use_the_allocator(5);
    }));
    for body in [once as ThreadBody, lazy, unwinds] {
        join_raw(spawn_raw(None, body, ptr::null_mut()));
    }
    thread::Builder::new()
        .name("named".repeat(9))
        .spawn(|| use_the_allocator(6))
        .expect("a thread")
        .join()
        .expect("no panic");
    // SAFETY: the handler is a function of this binary.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    common::assert_valid();
}

fn the_first_allocation_may_be_anywhere_in_std() {
    let output = common::child("anywhere_in_std", "");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()), (Some(0), String::new()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("a handler of atexit"));
}

/// A child: what is freed after a thread's end goes home one by one. That is linear: nothing is searched.
fn a_million_late_frees(_: &str) {
    static LATE: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    /// In the last round all blocks of threads are gone.
    unsafe extern "C" fn frees_in_the_last_round(round: *mut c_void) {
        if (round as u32) < ROUNDS {
            return set_key(LATE_KEY.load(SeqCst), (round as usize + 1) as *const c_void);
        }
        LATE.lock().expect("no panic").drain(..).for_each(Block::free);
    }
    static LATE_KEY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        use_the_allocator(1);
        set_key(LATE_KEY.load(SeqCst), 1 as *const c_void);
        ptr::null_mut()
    }
    LATE_KEY.store(new_key(frees_in_the_last_round), SeqCst);
    let before = Kmalloc::stats();
    LATE.lock().expect("no panic").extend((0..1_000_000).map(|n| Block::new(16 + n % 100, 8)));
    join_raw(spawn_raw(None, body, ptr::null_mut()));
    assert!(LATE.lock().expect("no panic").is_empty());
    *LATE.lock().expect("no panic") = Vec::new();
    assert_eq!(Kmalloc::stats().threads, before.threads);
    common::assert_valid();
}

fn a_million_frees_after_a_threads_end() {
    assert_child_exits("a_million_late_frees", "", 0);
}

/// A child: on one processor, a thread that hardly ever runs and one that must not wait use the same caches.
fn idle_and_real_time(_: &str) {
    // SAFETY: all zeros is a valid set.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: takes no pointer.
    let here = unsafe { libc::sched_getcpu() }.max(0) as usize;
    // SAFETY: writes the set.
    unsafe { libc::CPU_SET(here, &mut one) };
    // SAFETY: reads the set.
    unsafe { libc::sched_setaffinity(0, size_of_val(&one), &one) };
    let become_a = |policy: libc::c_int, priority: libc::c_int| {
        // SAFETY: zeros are parameters.
        let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
        parameters.sched_priority = priority;
        // SAFETY: reads the parameters.
        unsafe { libc::sched_setscheduler(0, policy, &parameters) == 0 }
    };
    let (done, real_time) = (AtomicBool::new(false), AtomicBool::new(false));
    // Joined, for the end of a scope comes before the destructors of a thread.
    thread::scope(|scope| {
        let idle = scope.spawn(|| {
            become_a(libc::SCHED_IDLE, 0);
            let mut n = 0;
            while !done.load(SeqCst) {
                let blocks: Vec<Block> = (0..200).map(|_| Block::new(3000, 8)).collect();
                blocks.into_iter().for_each(Block::free);
                Block::new(40 * KIB + n % KIB, 8).free();
                n += 1;
            }
        });
        let busy = scope.spawn(|| {
            // Without the right to it, as an ordinary thread: it still must not wait for the idle one for ever.
            real_time.store(become_a(libc::SCHED_FIFO, 10), SeqCst);
            for n in 0..2000 {
                let blocks: Vec<Block> = (0..200).map(|_| Block::new(3000, 8)).collect();
                blocks.into_iter().for_each(Block::free);
                Block::new(40 * KIB, 8).free();
                if n % 50 == 0 {
                    Kmalloc::reclaim();
                    thread::sleep(std::time::Duration::from_millis(1)); // lets the other one into the middle of something
                }
            }
            done.store(true, SeqCst);
        });
        for thread in [idle, busy] {
            thread.join().expect("a thread panicked");
        }
    });
    if !real_time.load(SeqCst) {
        println!("as an ordinary thread, without the right to be a real-time one");
    }
    common::assert_valid();
}

fn an_idle_thread_does_not_stop_a_real_time_one() {
    let output = common::child("idle_and_real_time", "");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
}
