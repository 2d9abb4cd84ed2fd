//! Pressure: limits, what the program is asked for before it is refused, and who may choose them. Each case is a process of
//! its own.

mod common;

use allocator_global::{ConfigError, HugePages, Key, Kmalloc, Limits, Pressure, KEYS};
use common::{assert_child_exits, child_with, layout, on_threads, resident_bytes, Block, AREA, KIB, MIB, PAGE};
use std::cell::Cell;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

const LIMIT: usize = 256 * MIB;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new().limit(LIMIT).purge_after(Some(Duration::from_millis(300)));

fn main() -> std::process::ExitCode {
    common::run(
        &[
            ("greedy_threads_stay_within_the_limit_and_go_on", greedy_threads_stay_within_the_limit_and_go_on),
            ("a_collection_sees_an_error_at_the_limit", a_collection_sees_an_error_at_the_limit),
            (
                "shrinkers_give_memory_back_before_anybody_is_refused",
                shrinkers_give_memory_back_before_anybody_is_refused,
            ),
            ("a_block_that_grows_is_not_refused_for_what_is_free", a_block_that_grows_is_not_refused_for_what_is_free),
            ("the_program_is_told_of_the_soft_limit", the_program_is_told_of_the_soft_limit),
            ("a_callback_may_allocate_and_must_not_panic", a_callback_may_allocate_and_must_not_panic),
            ("whoever_starts_the_program_has_the_first_word", whoever_starts_the_program_has_the_first_word),
            ("what_makes_no_sense_is_told_once_and_left_out", what_makes_no_sense_is_told_once_and_left_out),
            (
                "a_call_before_the_first_allocation_has_the_last_word",
                a_call_before_the_first_allocation_has_the_last_word,
            ),
            ("a_guard_page_ends_a_run_over_the_end", a_guard_page_ends_a_run_over_the_end),
            ("mappings_have_names", mappings_have_names),
            ("the_keys_are_those_of_the_readme", the_keys_are_those_of_the_readme),
        ],
        &[
            ("greedy", greedy),
            ("collection", collection),
            ("shrinking", shrinking),
            ("growing", growing),
            ("told", told),
            ("allocating_callback", allocating_callback),
            ("panicking_callback", panicking_callback),
            ("chosen", chosen),
            ("over_the_end", over_the_end),
            ("named", named),
        ],
    )
}

/// A kibibyte count of `/proc/self/status`.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().expect("a number") * KIB
}

/// Eight threads that take all they can get, in every size, keep it for a while, and free half of it when they are
/// refused.
fn greedy(_: &str) {
    let until = Instant::now() + Duration::from_secs(3);
    let (refused, served, all_have_begun) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(8));
    on_threads(8, |thread| {
        let mut random = 0x9e37_79b9 * (thread as u64 + 1);
        let mut blocks: Vec<(u64, Block)> = Vec::with_capacity(1 << 16);
        all_have_begun.wait();
        while Instant::now() < until {
            for _ in 0..100 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let size = match random >> 61 {
                    0..=3 => 16 + (random >> 40) as usize % 1000,
                    4 | 5 => (random >> 40) as usize % (64 * KIB) + 1,
                    6 => (random >> 40) as usize % (4 * MIB) + 1,
                    _ if random >> 56 & 15 == 0 => AREA,
                    _ => (random >> 40) as usize % MIB + 1,
                };
                let block = if blocks.len() < blocks.capacity() { Block::try_new(layout(size, 8)) } else { None };
                match block {
                    Some(mut block) => {
                        block.fill(random);
                        blocks.push((random, block));
                        served.fetch_add(1, Relaxed);
                    }
                    None => {
                        refused.fetch_add(1, Relaxed);
                        for (id, block) in blocks.drain(blocks.len() / 2..) {
                            block.check_and_free(id);
                        }
                    }
                }
            }
        }
        blocks.into_iter().for_each(|(id, block)| block.check_and_free(id));
    });
    let peak = status("VmHWM:");
    let stats = Kmalloc::stats();
    assert!(peak <= LIMIT + 8 * MIB, "{} MiB were resident; {stats:?}", peak / MIB);
    let (refused, served) = (refused.into_inner(), served.into_inner());
    assert!(refused > 20 && served > 1000, "{refused} refused, {served} served");
    assert!(stats.charged <= LIMIT);
    // All is free again, so there is room for something large.
    Block::try_new(layout(LIMIT - 8 * MIB, 8)).expect("service goes on").free();
    Kmalloc::reclaim();
    common::assert_valid();
}

fn greedy_threads_stay_within_the_limit_and_go_on() {
    assert_child_exits("greedy", "", 0);
}

fn collection(_: &str) {
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(LIMIT + 1).expect_err("more than the limit");
    bytes.try_reserve_exact(100 * MIB).expect("less than the limit");
    bytes.resize(100 * MIB, 7);
    let mut strings = Vec::new();
    let error = loop {
        let mut text = String::new();
        match text.try_reserve_exact(100 * KIB) {
            Ok(()) => strings.push(text),
            // Made, and printed, from the reserve.
            Err(error) => break format!("after {} strings: {error}", strings.len()),
        }
    };
    assert!(error.len() > 10 && strings.len() > 1000, "{error}");
    assert_eq!(Kmalloc::current_limits(), Limits::of(LIMIT));
    assert_eq!(Kmalloc::set_limits(Limits::of(100 * MIB)), Err(ConfigError::BelowUse));
    assert_eq!(Kmalloc::set_watermarks(Some(2), Some(1)), Err(ConfigError::OutOfOrder));
    drop((strings, bytes));
    Kmalloc::set_limits(Limits::default()).expect("no limit at all");
    Vec::<u8>::new().try_reserve_exact(LIMIT + 1).expect("no limit any more");
}

fn a_collection_sees_an_error_at_the_limit() {
    assert_child_exits("collection", "", 0);
}

/// What the program could do without.
static CACHE: Mutex<Vec<Block>> = Mutex::new(Vec::new());
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn shrink(bytes: usize) -> usize {
    CALLS.fetch_add(1, Relaxed);
    // Whoever allocates may have the lock: then another time.
    let Ok(mut cache) = CACHE.try_lock() else { return 0 };
    let mut freed = 0;
    while let Some(block) = if freed < bytes.max(MIB) { cache.pop() } else { None } {
        freed += block.size();
        block.free();
    }
    freed
}

fn shrinking(_: &str) {
    let shrinker = Kmalloc::register_shrinker(shrink).expect("there is room for one");
    let cached = |blocks: usize| {
        CACHE.lock().expect("nobody panicked").extend((0..blocks).map(|id| Block::filled(MIB, 8, id as u64)));
    };
    cached(200);
    // More than is left below the limit; in all kinds of requests.
    let mut blocks: Vec<Block> = (0..100).map(|id| Block::filled(MIB, 8, id)).collect();
    blocks.extend((0..10_000).map(|id| Block::filled(2000, 8, id)));
    blocks.push(Block::filled(AREA, 8, 1));
    let mut last = Block::filled(AREA, 8, 2);
    last.resize(AREA + 20 * MIB);
    blocks.push(last);
    blocks.into_iter().for_each(Block::free);
    // The lock is held by the thread that is asked.
    {
        let cache = CACHE.lock().expect("nobody panicked");
        let (left, calls) = (cache.len(), CALLS.load(Relaxed));
        assert!(calls > 0 && left < 100, "{left} blocks are left in the cache");
        assert!(Block::try_new(layout(LIMIT, 8)).is_none());
        assert!(CALLS.load(Relaxed) > calls && cache.len() == left);
        // Nothing that anybody gives makes room for these.
        let calls = CALLS.load(Relaxed);
        for size in [LIMIT + 1, 1 << 50, isize::MAX as usize - 7] {
            assert!(Block::try_new(layout(size, 8)).is_none());
        }
        assert_eq!(CALLS.load(Relaxed), calls);
    }
    // One that runs on kswapd may not have ended yet.
    Kmalloc::set_purge_after(None);
    shrinker.unregister();
    std::thread::sleep(Duration::from_millis(100));
    let calls = CALLS.load(Relaxed);
    assert!(Block::try_new(layout(LIMIT, 8)).is_none());
    assert_eq!(CALLS.load(Relaxed), calls);
    let full: Vec<_> = (0..).map_while(|_| Kmalloc::register_shrinker(shrink)).collect();
    assert_eq!(full.len(), 16);
    CACHE.lock().expect("nobody panicked").drain(..).for_each(Block::free);
}

fn shrinkers_give_memory_back_before_anybody_is_refused() {
    assert_child_exits("shrinking", "", 0);
}

static LOW: AtomicUsize = AtomicUsize::new(0);
static CRITICAL: AtomicUsize = AtomicUsize::new(0);

fn growing(_: &str) {
    Kmalloc::set_huge_pages(HugePages::Never);
    Kmalloc::set_background_thread(false);
    let [others, free, mut grows, behind] = [22, 12, 28, 4].map(|mib| Block::filled(mib * MIB, 8, mib as u64));
    behind.free();
    Kmalloc::reclaim();
    let used = Kmalloc::stats().charged;
    // A copy is too much even without what is free, and two more are too much with it.
    Kmalloc::set_limits(Limits { max: used + 2 * MIB, high: used + 2 * MIB, min: MIB }).expect("more than there is");
    free.free();
    grows.resize(30 * MIB);
    grows.check_prefix(28, 28 * MIB);
    assert!(Kmalloc::stats().charged < used - 8 * MIB);
    [others, grows].into_iter().for_each(Block::free);
}

/// Class of bug: free memory that is resident is what refuses a request.
fn a_block_that_grows_is_not_refused_for_what_is_free() {
    assert_child_exits("growing", "", 0);
}

fn count(pressure: Pressure) {
    match pressure {
        Pressure::Low => &LOW,
        _ => &CRITICAL,
    }
    .fetch_add(1, Relaxed);
}

fn told(_: &str) {
    Kmalloc::set_cgroup(false);
    Kmalloc::on_pressure(Some(count));
    let soft = Kmalloc::current_limits().high;
    let mut blocks = Vec::with_capacity(1000);
    let mut size = 0;
    while size + 4 * MIB < soft {
        blocks.push(Block::filled(MIB, 8, 1));
        size += MIB;
        assert_eq!(LOW.load(Relaxed) + CRITICAL.load(Relaxed), 0, "at {} MiB", size / MIB);
    }
    while LOW.load(Relaxed) == 0 {
        blocks.push(Block::filled(MIB, 8, 1));
    }
    assert!(blocks.len() <= soft / MIB + 4 && CRITICAL.load(Relaxed) == 0, "{} blocks", blocks.len());
    // As long as there is too much, kswapd tells it with each tick. A slow free starts it.
    Block::filled(PAGE * 2, 8, 1).free();
    let before = LOW.load(Relaxed);
    let until = Instant::now() + Duration::from_secs(60);
    while LOW.load(Relaxed) < before + 2 {
        assert!(Instant::now() < until, "nobody says that there is still too much");
        std::thread::sleep(Duration::from_millis(10));
    }
    while let Some(mut block) = Block::try_new(layout(MIB, 8)) {
        block.fill(1);
        blocks.push(block);
    }
    assert!(CRITICAL.load(Relaxed) > 0);
    blocks.into_iter().for_each(|block| block.check_and_free(1));
    // What was used and is free now goes back though it is not old.
    let until = Instant::now() + Duration::from_secs(60);
    while resident_bytes() > 30 * MIB {
        assert!(Instant::now() < until, "{} MiB are resident", resident_bytes() / MIB);
        std::thread::sleep(Duration::from_millis(10));
    }
    Kmalloc::on_pressure(None);
}

fn the_program_is_told_of_the_soft_limit() {
    assert_child_exits("told", "", 0);
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn allocate(_: Pressure) {
    assert!(!INSIDE.replace(true), "a callback is called from within itself");
    // Small things and large, from the reserve if need be; one that is refused asks nobody.
    Block::filled(100, 8, 1).check_and_free(1);
    Block::filled(MIB, 8, 1).check_and_free(1);
    assert!(Block::try_new(layout(LIMIT, 8)).is_none());
    drop(vec![1u8; 10_000]);
    INSIDE.set(false);
    CALLS.fetch_add(1, Relaxed);
}

fn allocating_callback(_: &str) {
    Kmalloc::on_pressure(Some(allocate));
    let mut blocks = Vec::with_capacity(1000);
    while let Some(block) = Block::try_new(layout(MIB, 8)) {
        blocks.push(block);
    }
    assert!(CALLS.load(Relaxed) > 0);
    blocks.into_iter().for_each(Block::free);
    Kmalloc::on_pressure(None);
}

fn panicking_callback(_: &str) {
    Kmalloc::on_pressure(Some(|_| panic!("not here")));
    assert!(Block::try_new(layout(LIMIT, 8)).is_none());
}

fn a_callback_may_allocate_and_must_not_panic() {
    assert_child_exits("allocating_callback", "", 0);
    let Output { status, stderr, .. } = common::child("panicking_callback", "");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGABRT), "{stderr}");
    assert!(stderr.ends_with("kmalloc: a callback for memory pressure panicked\n"), "{stderr}");
}

/// Prints what is in force.
fn chosen(_: &str) {
    drop(vec![0u8; 100]);
    let Limits { max, high, min } = Kmalloc::current_limits();
    println!("{} {} {}", max / MIB, high / MIB, min / KIB);
}

fn with_conf(conf: &str) -> (String, String) {
    let Output { status, stdout, stderr } = child_with("chosen", "", &[("KMALLOC_CONF", conf)]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(status.success(), "{conf}: {stderr}");
    (stdout.trim().to_owned(), stderr)
}

fn whoever_starts_the_program_has_the_first_word() {
    let quiet = |limits: &str| (limits.to_owned(), String::new());
    assert_eq!(with_conf(""), quiet("256 224 4096"));
    assert_eq!(with_conf("limit:512M"), quiet("512 448 4096"));
    assert_eq!(with_conf("soft_limit:100MiB, reserve:64k"), quiet("256 100 64"));
    assert_eq!(with_conf("limit:none,purge_after:never,huge_pages:never,cgroup:no"), quiet("0 0 0"));
}

fn what_makes_no_sense_is_told_once_and_left_out() {
    let (limits, told) = with_conf("limt:1,limit:much,reserve:1M");
    assert_eq!(limits, "256 224 1024");
    let lines: Vec<&str> = told.lines().collect();
    let expected =
        ["kmalloc: KMALLOC_CONF: no such key: limt", "kmalloc: KMALLOC_CONF: limit: not bytes, or none: much"];
    assert_eq!(lines, expected);
    let (limits, told) = with_conf("soft_limit:300M");
    assert_eq!((&*limits, told.lines().count()), ("256 224 4096", 1), "{told}");
    assert!(told.starts_with("kmalloc: limit: not in the order"), "{told}");
    let (limits, help) = with_conf("help");
    assert_eq!(limits, "256 224 4096");
    for key in KEYS {
        assert!(help.contains(&format!("  {}: {} ({})\n", key.name, key.values, key.default)), "{help}");
    }
}

fn a_call_before_the_first_allocation_has_the_last_word() {
    // A constructor of the program runs before the first allocation of Rust's.
    let Output { stdout, .. } =
        child_with("chosen", "", &[("KMALLOC_TEST_EARLY", "1"), ("KMALLOC_CONF", "limit:512M")]);
    assert_eq!(String::from_utf8_lossy(&stdout).trim(), "64 64 0");
}

extern "C" fn constructor() {
    // SAFETY: a name that ends.
    if !unsafe { libc::getenv(c"KMALLOC_TEST_EARLY".as_ptr()) }.is_null() {
        Kmalloc::set_limits(Limits { max: 64 * MIB, high: 64 * MIB, min: 0 }).expect("nothing is in use");
    }
}

#[used]
#[link_section = ".init_array"]
static CONSTRUCTOR: extern "C" fn() = constructor;

const GUARDED: [(usize, usize); 3] = [(AREA, 8), (AREA + 1, 8), (AREA, 4 * MIB)];

/// The argument is what is done, and with which of those.
fn over_the_end(argument: &str) {
    Kmalloc::set_guard_pages(true);
    Kmalloc::set_huge_pages(HugePages::Always);
    let (what, which) = argument.split_once(' ').expect("two words");
    let (size, align) = GUARDED[which.parse::<usize>().expect("a number")];
    let mut block = Block::filled(size, align, 1);
    if what != "fresh" {
        block.resize(size + 10 * MIB);
        block.resize(size + 100 * MIB);
        block.resize(size);
    }
    block.check(1);
    if what == "freed" {
        return block.free();
    }
    let end = block.as_ptr().wrapping_add(block.size().next_multiple_of(4096));
    // SAFETY: none at all: with a guard behind it this ends the process.
    unsafe { end.write_volatile(1) };
}

fn a_guard_page_ends_a_run_over_the_end() {
    use std::os::unix::process::ExitStatusExt;
    for which in 0..GUARDED.len() {
        for what in ["fresh", "resized"] {
            let Output { status, .. } = common::child("over_the_end", &format!("{what} {which}"));
            assert_eq!(status.signal(), Some(libc::SIGSEGV), "{what} {which}");
        }
        assert_child_exits("over_the_end", &format!("freed {which}"), 0);
    }
}

fn named(_: &str) {
    let area = Block::filled(AREA, 8, 1);
    let blocks: Vec<Block> = (0..40).map(|id| Block::filled(MIB, 8, id)).collect();
    Block::filled(2 * PAGE, 8, 1).free();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
        if ["kmalloc arena", "kmalloc memmap", "kmalloc area"].iter().all(|name| maps.contains(name)) {
            break;
        }
        if Instant::now() > until {
            println!("{maps}");
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    blocks.into_iter().chain([area]).for_each(Block::free);
}

fn mappings_have_names() {
    // SAFETY: a question to the kernel; the name is copied, and the range is empty.
    let known = unsafe {
        libc::prctl(0x5356_4d41, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong, c"kmalloc".as_ptr())
    } == 0;
    if known {
        assert_child_exits("named", "", 0);
    } else {
        println!("this kernel knows no names of mappings");
    }
}

fn the_keys_are_those_of_the_readme() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("README.md");
    let mut table = String::from("| key | values | by default | what it does |\n|---|---|---|---|\n");
    for Key { name, values, default, what, .. } in KEYS {
        table += &format!("| `{name}` | {values} | {default} | {what} |\n");
    }
    assert!(readme.contains(&table), "README.md should have this table:\n{table}");
}
