//! The catalogue of misuse: what is done wrong × to memory of which layout × by which thread × by which call. Each case
//! runs in a child process and is either caught, by one line that says what was wrong with which address, or silent.
//!
//! `docs/misuse.csv` has how many cases of each row are caught and how many are silent: by the default build, by the
//! default build once all sheaves have been flushed, and by the feature `checked`. The test prints the columns of the
//! build that it runs in and fails if they are not those of the file. With KMALLOC_BLESS set it writes them anew.

mod common;

use allocator_global::Kmalloc;
use common::{
    child, class_sizes, join_raw, layout, on_threads, spawn_raw, Block, AREA, CHUNK, KIB, KMALLOC, LONGEST_RUN, MIB,
    PAGE,
};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::os::raw::c_void;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::OnceLock;
use std::{env, fs};

suite! {
    tests: [every_case_is_decided_as_the_table_says],
    children: [one_case, count]
}

/// True in the build with the feature `checked`.
const CHECKED: bool = cfg!(feature = "checked");

/// What serves a layout.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Object,
    Run,
    Area,
}

impl Level {
    fn of(layout: Layout) -> Self {
        if layout.size() > LONGEST_RUN || layout.align() > CHUNK {
            Level::Area
        } else if layout.size().max(layout.align()) > PAGE {
            Level::Run
        } else {
            Level::Object
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    DoubleFree,
    NeverAllocated,
    /// A few bytes behind the start.
    Interior,
    /// The middle: a start of a page for runs, another 2 MiB for most areas.
    FarInterior,
    OnTheStack,
    FromMalloc,
    FromNowhere,
    /// Allocated with another layout, and given back as one of this level.
    WrongLayout,
}

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Threads {
    /// The main thread did everything before, and does this.
    Same,
    /// Another one than all before, which lives on.
    Other,
    /// The main thread; a thread that has ended did everything before.
    AfterEnded,
    /// Another one than all before, which ends then.
    Ending,
    /// A thread that has ended but for destructors of its own: it has no sheaves any more.
    Ended,
    /// Two at once, each believing that it is the owner.
    Racing,
}

/// By which call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Call {
    Dealloc,
    /// `realloc` to twice the size.
    Grow,
    /// `realloc` to the size that it is said to have.
    Keep,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Case {
    kind: Kind,
    call: Call,
    threads: Threads,
    /// What the memory was allocated with.
    is: Layout,
    /// What it is said to be.
    said: Layout,
    /// Whether the sheaves are flushed afterwards.
    flush: bool,
}

/// Each level short and long, at the boundaries, and aligned to more than its size asks for. Twice the size is another
/// class, or another length, for each of them.
fn bands() -> Vec<Layout> {
    let bands = [
        (8, 8),
        (48, 8),
        (640, 8),
        (KIB, 8),
        (3 * KIB, 4 * KIB),
        (20_000, 8),
        (PAGE, 8),
        (PAGE + 1, 8),
        (96 * KIB, 8),
        (64 * KIB, 64 * KIB),
        (MIB, CHUNK),
        (CHUNK, 8),
        (3 * MIB, 8),
        (LONGEST_RUN, 8),
        (LONGEST_RUN + 1, 8),
        (AREA, 8),
        (64 * KIB, 2 * CHUNK),
    ];
    bands.map(|(size, align)| layout(size, align)).to_vec()
}

/// One layout of each level that is served otherwise than `is`.
fn said_instead(is: Layout) -> [Layout; 3] {
    let other = |one, two| layout(if class_of(layout(one, 8)) == class_of(is) { two } else { one }, 8);
    [other(640, 250), other(64 * KIB, MIB), other(AREA, 2 * AREA)]
}

/// What a layout comes down to: the size of a class, or of a run or an area.
fn class_of(layout: Layout) -> usize {
    let fits = |class: &usize| *class >= layout.size() && class % layout.align() == 0;
    class_sizes().into_iter().find(fits).unwrap_or(layout.size().next_multiple_of(PAGE))
}

fn cases() -> Vec<Case> {
    use {Call::*, Kind::*, Threads::*};
    let kinds = [DoubleFree, NeverAllocated, Interior, FarInterior, OnTheStack, FromMalloc, FromNowhere, WrongLayout];
    let mut cases = Vec::new();
    for (kind, is) in kinds.into_iter().flat_map(|kind| bands().into_iter().map(move |is| (kind, is))) {
        let level = Level::of(is);
        let applies = match kind {
            NeverAllocated => level != Level::Area, // that is an address from nowhere
            FarInterior => is.size() > 8,
            _ => true,
        };
        let said = if kind == WrongLayout { said_instead(is).to_vec() } else { vec![is] };
        for said in said.into_iter().filter(|_| applies) {
            for threads in [Same, Other, AfterEnded, Ending, Ended, Racing] {
                for call in [Dealloc, Grow, Keep] {
                    // Two that race are both right until one of them is through; keeping the size gives nothing back.
                    if threads == Racing && (kind != DoubleFree || call == Keep) {
                        continue;
                    }
                    let case = Case { kind, call, threads, is, said, flush: false };
                    cases.push(case);
                    if Level::of(said) == Level::Object && !CHECKED {
                        cases.push(Case { flush: true, ..case });
                    }
                }
            }
        }
    }
    cases
}

/// The case that this process is about, and the address that is misused.
static CASE: OnceLock<Case> = OnceLock::new();
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

fn this_case() -> Case {
    *CASE.get().expect("the child knows its case")
}

/// A child: does what the case says and ends at once if it got away with it. Its threads are libc's, and nothing is
/// printed by way of std: whoever allocates between the first free and the second may be handed what was freed.
fn one_case(argument: &str) {
    let case = *CASE.get_or_init(|| cases()[argument.parse::<usize>().expect("the number of a case")]);
    let on_stack = [0u64; 5 * KIB];
    let ptr = match case.kind {
        Kind::OnTheStack => on_stack.as_ptr().cast_mut().cast(),
        // SAFETY: any size may be asked for.
        Kind::FromMalloc => unsafe { libc::malloc(40 * KIB) }.cast(),
        Kind::FromNowhere => (1usize << 40) as *mut u8,
        Kind::NeverAllocated => never_allocated(case.is),
        _ if case.threads == Threads::AfterEnded => join_raw(spawn_raw(None, allocates, null_mut())).cast(),
        _ => allocated(case),
    };
    black_box(&on_stack);
    ADDRESS.store(ptr as usize, SeqCst);
    announce(ptr);
    let on_another = |body| assert!(join_raw(spawn_raw(None, body, null_mut())).is_null());
    match case.threads {
        Threads::Same | Threads::AfterEnded => case.misuse(),
        Threads::Other => beside(1),
        Threads::Racing => beside(2),
        Threads::Ending => on_another(misuses),
        Threads::Ended => on_another(misuses_when_it_has_ended),
    }
    if case.flush {
        Kmalloc::reclaim();
    }
    // SAFETY: has no precondition. Neither destructors nor other threads may use the heap any more.
    unsafe { libc::_exit(0) }
}

extern "C" fn allocates(_: *mut c_void) -> *mut c_void {
    allocated(this_case()).cast()
}

extern "C" fn misuses(_: *mut c_void) -> *mut c_void {
    this_case().misuse();
    null_mut()
}

/// Memory that the case is about, as its owner leaves it.
fn allocated(case: Case) -> *mut u8 {
    let block = Block::new(case.is.size(), case.is.align());
    let ptr = block.as_ptr();
    if Level::of(case.is) == Level::Object {
        // Beside it in its slab, which is not given up with it then: the line names the slab.
        black_box(Block::new(case.is.size(), case.is.align()).as_ptr());
    }
    match case.kind {
        Kind::DoubleFree if case.threads != Threads::Racing => block.free(),
        Kind::Interior => return ptr.wrapping_add(if case.is.size() > 8 { 8 } else { 4 }),
        Kind::FarInterior if case.is.size() <= PAGE => return ptr.wrapping_add(case.is.size() / 16 * 8),
        Kind::FarInterior => return ptr.wrapping_add((case.is.size() / 2).next_multiple_of(PAGE)),
        _ => {}
    }
    ptr
}

/// The place of an object that lies behind all that were handed out, or the last page of a chunk.
fn never_allocated(layout: Layout) -> *mut u8 {
    let last_of = |count: usize| (0..count).map(|_| Block::new(layout.size(), layout.align()).as_ptr()).max();
    match class_of(layout) {
        _ if Level::of(layout) != Level::Object => {
            let chunk = Block::new(48, 8).address() / CHUNK * CHUNK;
            (chunk + CHUNK - PAGE) as *mut u8
        }
        PAGE => last_of(1).expect("there is a block").wrapping_add(PAGE), // its slabs have two
        class => last_of(if class > KIB { 2 } else { 8 }).expect("there are blocks").wrapping_add(class),
    }
}

/// Says which address is going to be misused, without allocating.
fn announce(ptr: *const u8) {
    let mut line = [0u8; 32];
    writeln!(&mut line[..], "{ptr:p}").expect("an address is shorter");
    let length = line.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    // SAFETY: that many bytes are initialised and live.
    let written = unsafe { libc::write(1, line.as_ptr().cast(), length) };
    assert_eq!(written, length as isize);
}

impl Case {
    /// The call that is wrong.
    fn misuse(self) {
        let ptr = black_box(ADDRESS.load(SeqCst) as *mut u8);
        match self.call {
            // SAFETY: none. That the allocator finds the mistake, and does nothing before it has, is what is tested.
            Call::Dealloc => unsafe { KMALLOC.dealloc(ptr, self.said) },
            // SAFETY: as above.
            Call::Grow => drop(black_box(unsafe { KMALLOC.realloc(ptr, self.said, 2 * self.said.size()) })),
            // SAFETY: as above.
            Call::Keep => drop(black_box(unsafe { KMALLOC.realloc(ptr, self.said, self.said.size()) })),
        }
    }
}

/// Threads that are ready, and how many of them are through.
static READY: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);

fn wait_for(word: &AtomicUsize, value: usize) {
    while word.load(SeqCst) < value {
        std::thread::yield_now();
    }
}

/// Has `count` threads misuse the memory at the same time, flush one after the other, and live on.
fn beside(count: usize) {
    for number in 0..count {
        let number_and_count = (number << 8 | count) as *mut c_void;
        spawn_raw(None, misuses_and_stays, number_and_count);
    }
    wait_for(&DONE, count);
}

extern "C" fn misuses_and_stays(number_and_count: *mut c_void) -> *mut c_void {
    let (number, count) = (number_and_count as usize >> 8, number_and_count as usize & 0xff);
    READY.fetch_add(1, SeqCst);
    wait_for(&READY, count);
    this_case().misuse();
    wait_for(&DONE, number);
    if this_case().flush {
        Kmalloc::reclaim();
    }
    DONE.fetch_add(1, SeqCst);
    wait_for(&DONE, usize::MAX);
    null_mut()
}

/// A thread that does it from the destructor of a key, in the round after the one in which its sheaves go.
extern "C" fn misuses_when_it_has_ended(_: *mut c_void) -> *mut c_void {
    static KEY: AtomicUsize = AtomicUsize::new(0);
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn last_words(value: *mut c_void) {
        if ROUNDS.fetch_add(1, SeqCst) == 0 {
            // SAFETY: the key is there, and nobody looks at its value.
            unsafe { libc::pthread_setspecific(KEY.load(SeqCst) as libc::pthread_key_t, value) };
        } else {
            this_case().misuse();
        }
    }
    Block::new(3 * KIB, 8).free(); // the thread has sheaves
    let mut key = 0;
    // SAFETY: `key` is where the answer goes.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(last_words)) }, 0);
    KEY.store(key as usize, SeqCst);
    // SAFETY: the key is there.
    assert_eq!(unsafe { libc::pthread_setspecific(key, ptr::from_ref(&KEY).cast_mut().cast()) }, 0);
    null_mut()
}

/// What the line may say is wrong.
fn right_words(case: Case) -> &'static [&'static str] {
    const DOUBLE: &str = "double free, or never allocated";
    const FOREIGN: &str = "not allocated here, or back with the system";
    const INSIDE: &str = "not the start of an allocation";
    const LAYOUT: &str = "not the layout it was allocated with";
    // An arena of one chunk cannot hold such a run: it is an area then.
    let may_be_an_area = Level::of(case.is) == Level::Area || case.is.size() > CHUNK;
    match case.kind {
        // The first of two may have changed its length in place, so that the second one's layout is wrong by now.
        Kind::DoubleFree if case.threads == Threads::Racing && case.call == Call::Grow => {
            &[DOUBLE, FOREIGN, INSIDE, LAYOUT]
        }
        Kind::DoubleFree if may_be_an_area => &[DOUBLE, FOREIGN],
        Kind::DoubleFree | Kind::NeverAllocated => &[DOUBLE],
        Kind::FarInterior if may_be_an_area => &[INSIDE, FOREIGN],
        Kind::Interior | Kind::FarInterior => &[INSIDE],
        Kind::OnTheStack | Kind::FromMalloc | Kind::FromNowhere => &[FOREIGN],
        Kind::WrongLayout => &[LAYOUT],
    }
}

/// `kmalloc-48` or the like.
fn cache_name(layout: Layout) -> String {
    match class_of(layout) {
        size if size % KIB == 0 => format!("kmalloc-{}k", size / KIB),
        size => format!("kmalloc-{size}"),
    }
}

/// True if the case was caught, false if it was silent; anything else is an error.
fn caught(case: Case, output: &Output) -> Result<bool, String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let wrong = |what: &str| Err(format!("{case:?}: {what}: {}\n  {stdout}  {stderr}", output.status));
    if !stdout.starts_with("0x") || stdout.lines().count() != 1 {
        return wrong("the child does not say which address");
    }
    if output.status.success() && stderr.is_empty() {
        return Ok(false);
    }
    if output.status.signal() != Some(libc::SIGABRT) {
        return wrong("neither silent nor aborted");
    }
    let words =
        right_words(case).iter().any(|words| stderr.starts_with(&format!("kmalloc: {words}: {} in ", stdout.trim())));
    if !words || !stderr.ends_with('\n') || stderr.lines().count() != 1 {
        return wrong("the line is not the right one");
    }
    if Level::of(case.said) == Level::Object && !stderr.contains(&format!("given back as {}\n", cache_name(case.said)))
    {
        return wrong("the line does not name the class that it is said to be of");
    }
    let foreign = matches!(case.kind, Kind::OnTheStack | Kind::FromMalloc | Kind::FromNowhere);
    if Level::of(case.is) == Level::Object && !foreign && !stderr.contains(&format!(" in {},", cache_name(case.is))) {
        return wrong("the line does not name the class that it is of");
    }
    Ok(true)
}

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/misuse.csv");
const HEADER: &str = "kind,call,threads,given back as,default,default after a flush,checked";

/// A column of the table: `caught/silent` by row.
type Column = BTreeMap<String, [usize; 2]>;

fn row_of(case: Case) -> String {
    format!("{:?},{:?},{:?},{:?}", case.kind, case.call, case.threads, Level::of(case.said))
}

/// A child: says how many cases there are.
fn count(_: &str) {
    println!("{}", cases().len());
}

fn every_case_is_decided_as_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 2500, "the catalogue has shrunk to {} cases", cases.len());
    let next = AtomicUsize::new(0);
    let results = on_threads(4, |_| {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, SeqCst)).filter(|number| *number < cases.len()));
        numbers.map(|n| (n, caught(cases[n], &child("one_case", &n.to_string())))).collect::<Vec<_>>()
    });
    let mut columns = [Column::new(), Column::new()];
    let mut errors = String::new();
    for (n, result) in results.into_iter().flatten() {
        match result {
            Ok(caught) => {
                let counts = columns[usize::from(cases[n].flush)].entry(row_of(cases[n])).or_default();
                counts[usize::from(!caught)] += 1;
            }
            Err(error) => writeln!(errors, "{error}").expect("a string takes everything"),
        }
    }
    assert!(errors.is_empty(), "{errors}");
    let table = merge(&columns);
    println!("{} cases\n{table}", cases.len());
    // What is promised, whatever the table says.
    for (column, rows) in columns.iter().enumerate() {
        for (row, [_, silent]) in rows {
            let within_its_class = row.contains(",Keep,"); // gives nothing back, so nothing reaches a flush
            let promised = CHECKED || !row.ends_with(",Object") || (column == 1 && !within_its_class);
            assert!(!promised || *silent == 0, "{row}: {silent} cases are silent");
        }
    }
    if env::var_os("KMALLOC_BLESS").is_some() {
        fs::write(TABLE, &table).expect("the table can be written");
    }
    assert_eq!(fs::read_to_string(TABLE).expect("the table is there"), table, "{TABLE} is not what this build does");
}

/// The table with the columns of this build put in.
fn merge(columns: &[Column; 2]) -> String {
    let committed = fs::read_to_string(TABLE).unwrap_or_default();
    let mut lines = vec![HEADER.to_string()];
    for row in columns[0].keys() {
        let rest = committed.lines().find_map(|line| line.strip_prefix(&format!("{row},"))).unwrap_or(",,");
        let mut cells: Vec<String> = rest.split(',').map(str::to_string).collect();
        let cell =
            |column: &Column| column.get(row).map_or(String::new(), |[caught, silent]| format!("{caught}/{silent}"));
        if CHECKED {
            cells[2] = cell(&columns[0]);
        } else {
            (cells[0], cells[1]) = (cell(&columns[0]), cell(&columns[1]));
        }
        lines.push(format!("{row},{}", cells.join(",")));
    }
    lines.join("\n") + "\n"
}
