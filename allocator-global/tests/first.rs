//! The first allocation of a process: before `main`, by two threads at once, while another thread forks, where the C
//! library refuses what the allocator asks of it.
//!
//! Without Rust's runtime and without the usual runner, so that this process has allocated nothing when a test begins:
//! each runs in children of it.
#![no_main]

use allocator_global::Kmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::raw::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

/// An object, a run and an area.
const SIZES: [usize; 3] = [100, 100 << 10, 33 << 20];

fn say(text: &str) {
    // SAFETY: the text is as long as it says.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

/// Ends this process when something is wrong: a panic would allocate first.
fn expect(right: bool, what: &str) {
    if !right {
        say(what);
        say("\n");
        // SAFETY: has no precondition.
        unsafe { libc::_exit(1) };
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Whether each of so many bytes is the mark.
///
/// # Safety
/// The bytes can be read.
unsafe fn has(block: *const u8, len: usize, mark: u8) -> bool {
    // SAFETY: by contract.
    unsafe { std::slice::from_raw_parts(block, len) }.iter().all(|byte| *byte == mark)
}

/// Allocates, fills, resizes and frees one block of each kind.
fn use_the_allocator(mark: u8) {
    for size in SIZES {
        // SAFETY: the size is not zero.
        let first = unsafe { GLOBAL.alloc(layout(size)) };
        expect(!first.is_null(), "refused");
        // SAFETY: just allocated.
        unsafe { first.write_bytes(mark, size.min(5000)) };
        // SAFETY: live, and of this layout.
        let block = unsafe { GLOBAL.realloc(first, layout(size), 2 * size) };
        expect(!block.is_null(), "not resized");
        // SAFETY: live, and written.
        expect(unsafe { has(block, size.min(5000), mark) }, "spoiled");
        // SAFETY: live, and of this layout.
        unsafe { GLOBAL.dealloc(block, layout(2 * size)) };
    }
}

fn expect_valid() {
    expect(Kmalloc::validate().is_ok(), "the heap is not valid");
}

/// Forks, runs `body` in the child, and says whether it came to its end. A child that hangs is ended by an alarm.
fn in_child(body: impl FnOnce()) -> bool {
    // SAFETY: the child calls what a child of a process with threads may call, and the allocator.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes no pointer.
        unsafe { libc::alarm(20) };
        body();
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: the child is ours, and a place for its status.
    while child > 0 && unsafe { libc::waitpid(child, &mut status, 0) } != child {}
    status == 0
}

type Body = extern "C" fn(*mut c_void) -> *mut c_void;

fn spawn(body: Body) -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: a place for the answer; the body takes nothing.
    expect(unsafe { libc::pthread_create(thread.as_mut_ptr(), null(), body, null_mut()) } == 0, "no thread");
    // SAFETY: the call has written it.
    unsafe { thread.assume_init() }
}

fn join(thread: libc::pthread_t) {
    // SAFETY: from `spawn`, and joined once.
    unsafe { libc::pthread_join(thread, null_mut()) };
}

/// Threads that are about to make their first allocation.
static READY: AtomicU32 = AtomicU32::new(0);

/// Waits until so many are ready.
fn meet(others: u32) {
    READY.fetch_add(1, SeqCst);
    while READY.load(SeqCst) < others {
        std::hint::spin_loop();
    }
}

extern "C" fn meets_and_allocates(_: *mut c_void) -> *mut c_void {
    meet(2);
    use_the_allocator(1);
    null_mut()
}

/// Class of bug: lazy initialisation that two threads race through.
fn two_threads_make_the_first_allocation_at_once() {
    for _ in 0..1000 {
        let went_well = in_child(|| {
            let threads = [spawn(meets_and_allocates), spawn(meets_and_allocates)];
            threads.into_iter().for_each(join);
            expect_valid();
            expect(Kmalloc::stats().threads == 1, "a thread block is lost");
        });
        expect(went_well, "two first allocations at once");
    }
}

/// Class of bug: fork handlers that are registered only when the first thread has been inside.
fn a_fork_during_the_first_allocation_leaves_a_whole_heap() {
    for n in 0..1000 {
        let went_well = in_child(|| {
            let thread = spawn(meets_and_allocates);
            meet(2);
            // At another moment each time.
            (0..n % 100 * 20).for_each(|_| std::hint::spin_loop());
            let whole = in_child(|| {
                use_the_allocator(2);
                expect_valid();
            });
            expect(whole, "a child of the first allocation");
            join(thread);
            use_the_allocator(3);
            expect_valid();
        });
        expect(went_well, "a fork during the first allocation");
    }
}

unsafe extern "C" fn nothing(_: *mut c_void) {}

/// Class of bug: what depends on a place in one of the C library's tables.
fn a_process_without_a_free_key_is_served_and_may_fork() {
    static STOP: AtomicU32 = AtomicU32::new(0);
    extern "C" fn allocates_until_told(_: *mut c_void) -> *mut c_void {
        while STOP.load(SeqCst) == 0 {
            use_the_allocator(1);
        }
        null_mut()
    }
    let went_well = in_child(|| {
        let mut key = 0;
        // SAFETY: a place for the answer.
        while unsafe { libc::pthread_key_create(&mut key, Some(nothing)) } == 0 {}
        let threads = [(); 4].map(|()| spawn(allocates_until_told));
        for _ in 0..50 {
            use_the_allocator(2);
            expect(in_child(|| use_the_allocator(3)), "a child without a key");
        }
        STOP.store(1, SeqCst);
        threads.into_iter().for_each(join);
        expect_valid();
        expect(Kmalloc::stats().threads == 0, "a block that nobody would give back");
    });
    expect(went_well, "without a key");
}

/// Class of bug: the C library allocates a thread's places for keys beyond the first few when it sets one.
fn a_key_may_be_far_from_the_first() {
    let went_well = in_child(|| {
        for _ in 0..40 {
            let mut key = 0;
            // SAFETY: a place for the answer.
            expect(unsafe { libc::pthread_key_create(&mut key, Some(nothing)) } == 0, "no key");
        }
        for _ in 0..20 {
            join(spawn(allocates));
        }
        expect_valid();
        expect(Kmalloc::stats().threads == 1, "a thread block is lost");
    });
    expect(went_well, "a key with a high number");
}

/// The function of this name that is behind the one of this program.
fn the_c_librarys(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    expect(!function.is_null(), "the C library has no function of this name");
    function
}

/// The C library's, and refused where the environment says so.
#[no_mangle]
unsafe extern "C" fn pthread_setspecific(key: libc::pthread_key_t, value: *const c_void) -> c_int {
    type Set = unsafe extern "C" fn(libc::pthread_key_t, *const c_void) -> c_int;
    if !value.is_null() && asked_for(c"no-place") {
        return libc::ENOMEM;
    }
    // SAFETY: the function of that name has this type.
    let real: Set = unsafe { std::mem::transmute(the_c_librarys(c"pthread_setspecific")) };
    // SAFETY: as we were called.
    unsafe { real(key, value) }
}

/// In a process of its own: no thread can have its block found when it ends, so none has one.
fn lives_without_a_place() {
    let threads = [(); 4].map(|()| spawn(allocates));
    use_the_allocator(2);
    expect(in_child(|| use_the_allocator(3)), "a child without a place");
    threads.into_iter().for_each(join);
    expect_valid();
    expect(Kmalloc::stats().threads == 0, "a block that nobody would give back");
}

type Handler = Option<unsafe extern "C" fn()>;
type Register = unsafe extern "C" fn(Handler, Handler, Handler, *mut c_void) -> c_int;

static REGISTRATIONS: AtomicUsize = AtomicUsize::new(0);

/// The C library's, which `pthread_atfork` comes to; counted, and refused where the environment says so.
#[no_mangle]
unsafe extern "C" fn __register_atfork(before: Handler, parent: Handler, child: Handler, dso: *mut c_void) -> c_int {
    if REGISTRATIONS.fetch_add(1, SeqCst) == 0 && asked_for(c"refused") {
        return libc::ENOMEM;
    }
    // SAFETY: the function of that name has this type.
    let real: Register = unsafe { std::mem::transmute(the_c_librarys(c"__register_atfork")) };
    // SAFETY: as we were called.
    unsafe { real(before, parent, child, dso) }
}

/// Whether this process was started for this part.
fn asked_for(part: &CStr) -> bool {
    // SAFETY: the name ends with a zero.
    let value = unsafe { libc::getenv(c"KMALLOC_FIRST".as_ptr()) };
    // SAFETY: the environment's, which ends with a zero.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == part
}

extern "C" fn allocates(_: *mut c_void) -> *mut c_void {
    use_the_allocator(1);
    null_mut()
}

/// In a process of its own: `registrations` is how often handlers must have been registered when all is done.
fn registers(registrations: usize) {
    expect(REGISTRATIONS.load(SeqCst) == 1, "registered before main");
    for _ in 0..20 {
        join(spawn(allocates));
    }
    expect(REGISTRATIONS.load(SeqCst) == registrations, "registered as often as it has to be");
    expect(in_child(|| use_the_allocator(3)), "a child");
    expect_valid();
}

/// What constructors of this program have allocated.
static EARLY: [AtomicPtr<u8>; 4] = [const { AtomicPtr::new(null_mut()) }; 4];

fn construct(first: usize) {
    for (place, size) in EARLY[first..].iter().zip([SIZES[0], SIZES[1]]) {
        // SAFETY: the size is not zero.
        let block = unsafe { GLOBAL.alloc(layout(size)) };
        expect(!block.is_null(), "refused before main");
        // SAFETY: just allocated.
        unsafe { block.write_bytes(7, size) };
        place.store(block, SeqCst);
    }
    use_the_allocator(8);
    expect_valid();
}

/// Run when the C library has not looked at the environment yet.
extern "C" fn before_all_constructors(_: c_int, _: *const *const c_char, environment: *const *const c_char) {
    let variables = (0..).map(|n| environment.wrapping_add(n));
    // SAFETY: a list that ends with null.
    for variable in variables.map(|place| unsafe { *place }).take_while(|variable| !variable.is_null()) {
        // SAFETY: a string that ends with a zero.
        if unsafe { CStr::from_ptr(variable) } == c"KMALLOC_FIRST=constructors" {
            construct(0);
        }
    }
}

extern "C" fn constructor() {
    if asked_for(c"constructors") {
        construct(2);
    }
}

#[used]
#[link_section = ".preinit_array"]
static BEFORE_ALL: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = before_all_constructors;
#[used]
#[link_section = ".init_array"]
static CONSTRUCTOR: extern "C" fn() = constructor;

/// In a process of its own.
fn frees_what_constructors_allocated() {
    for (place, size) in EARLY.iter().zip([SIZES[0], SIZES[1]].into_iter().cycle()) {
        let block = place.load(SeqCst);
        expect(!block.is_null(), "a constructor has not run");
        // SAFETY: live, and written.
        expect(unsafe { has(block, size, 7) }, "spoiled before main");
        // SAFETY: live, and of this layout.
        unsafe { GLOBAL.dealloc(block, layout(size)) };
    }
    expect(in_child(|| use_the_allocator(3)), "a child of a process that allocated before main");
    expect_valid();
}

/// Runs this program once more for one part of it.
fn again(program: *const c_char, part: &CStr) {
    let went_well = in_child(|| {
        // SAFETY: both end with a zero.
        unsafe { libc::setenv(c"KMALLOC_FIRST".as_ptr(), part.as_ptr(), 1) };
        // SAFETY: a list that ends with null.
        unsafe { libc::execv(c"/proc/self/exe".as_ptr(), [program, null()].as_ptr()) };
        expect(false, "not executed");
    });
    expect(went_well, "this program, run again");
}

#[no_mangle]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    if asked_for(c"constructors") {
        frees_what_constructors_allocated();
        return 0;
    }
    if asked_for(c"no-place") {
        lives_without_a_place();
        return 0;
    }
    if asked_for(c"refused") || asked_for(c"registered") {
        registers(1 + usize::from(asked_for(c"refused")));
        return 0;
    }
    // SAFETY: so many there are; a program has a name.
    let arguments = unsafe { std::slice::from_raw_parts(arguments, count as usize) };
    let program = arguments[0];
    // SAFETY: each is a string.
    let lists = arguments.iter().any(|argument| unsafe { CStr::from_ptr(*argument) } == c"--list");
    let untouched = || expect(Kmalloc::stats().reserved == 0, "somebody has allocated before this program");
    expect(in_child(untouched), "the first allocation is still to come");
    let tests: [(&str, &dyn Fn()); 8] = [
        ("two_threads_make_the_first_allocation_at_once", &two_threads_make_the_first_allocation_at_once),
        (
            "a_fork_during_the_first_allocation_leaves_a_whole_heap",
            &a_fork_during_the_first_allocation_leaves_a_whole_heap,
        ),
        ("a_process_without_a_free_key_is_served_and_may_fork", &a_process_without_a_free_key_is_served_and_may_fork),
        ("a_key_may_be_far_from_the_first", &a_key_may_be_far_from_the_first),
        ("a_thread_without_a_place_under_its_key_is_served", &|| again(program, c"no-place")),
        ("handlers_are_registered_once", &|| again(program, c"registered")),
        ("handlers_are_registered_again_after_a_refusal", &|| again(program, c"refused")),
        ("constructors_may_allocate", &|| again(program, c"constructors")),
    ];
    for (name, test) in tests {
        if lists {
            say(name);
            say(": test\n");
            continue;
        }
        say("test ");
        say(name);
        say(" ... ");
        test();
        say("ok\n");
    }
    expect(!std::thread::panicking(), "a panic");
    0
}
