//! pressure: the program is told that memory is short, and asked to give some back.
//!
//! # Algorithm
//! Beyond the soft limit, or when the control group is short, an alarm is raised ([`allocator_core::kswapd`]). The next thread
//! that comes out of a slow allocation, or kswapd after its tick, takes it: it frees the memory behind free pages, and if that
//! is not enough, it calls the callback, then the *shrinkers* one
//! after another until they have freed what is too much. A thread that is about to be refused does the same, and then
//! asks once more. All of that happens outside the heap; only the allocation that led there has not returned yet.
//!
//! A thread that is in a callback may take the reserve, and is not sent into another one.
//!
//! The levels are those of the kernel's `mm/vmpressure.c`; the shrinkers are the idea of `mm/shrinker.c`.

use crate::{lifecycle, HEAP};
use allocator_core::sys::{die, quietly};
use allocator_core::thread::Thread;
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Release},
};

/// How short memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Pressure {
    /// More is resident than the soft limit says.
    Low,
    /// The control group that the process is in is short of memory, or its threads, or those of the whole system, wait for some. Only
    /// where the heap has a thread to look: not without it, in a small heap, or where free memory stays for ever.
    Medium,
    /// A request is about to be refused.
    Critical,
}

/// What is called when memory is short.
pub type OnPressure = fn(Pressure);

/// What gives memory back: it is told how many bytes are wanted, and says how many it has freed.
pub type Shrink = fn(usize) -> usize;

/// Shrinkers at most.
const SHRINKERS: usize = 16;

// Release where they are set, so that who finds one may use what its caller wrote before.
static CALLBACK: AtomicPtr<()> = AtomicPtr::new(null_mut());
static REGISTERED: [AtomicPtr<()>; SHRINKERS] = [const { AtomicPtr::new(null_mut()) }; SHRINKERS];

/// A shrinker that is registered.
#[derive(Debug)]
#[must_use = "nothing else can unregister it"]
pub struct Shrinker(usize);

impl Shrinker {
    /// It is not called any more, but by who has been about to, and it may be running still: its code must stay.
    pub fn unregister(self) {
        REGISTERED[self.0 % SHRINKERS].store(null_mut(), Release);
    }
}

pub(crate) fn on_pressure(callback: Option<OnPressure>) {
    CALLBACK.store(callback.map_or(null_mut(), |callback| callback as *mut ()), Release);
}

/// `None`: there are too many already.
pub(crate) fn register(shrink: Shrink) -> Option<Shrinker> {
    let free = |place: &AtomicPtr<()>| place.compare_exchange(null_mut(), shrink as *mut (), AcqRel, Acquire).is_ok();
    REGISTERED.iter().position(free).map(Shrinker)
}

fn callback() -> Option<OnPressure> {
    let callback = CALLBACK.load(Acquire);
    // SAFETY: `on_pressure` is the only one that stores something here, and it was such a function.
    (!callback.is_null()).then(|| unsafe { transmute::<*mut (), OnPressure>(callback) })
}

fn shrinkers() -> impl Iterator<Item = Shrink> {
    REGISTERED.iter().filter_map(|place| {
        let shrink = place.load(Acquire);
        // SAFETY: `register` is the only one that stores something here, and it was such a function.
        (!shrink.is_null()).then(|| unsafe { transmute::<*mut (), Shrink>(shrink) })
    })
}

/// As [`tell`], where an alarm is raised.
#[inline(always)]
pub(crate) fn tell_if_alarmed() {
    if HEAP.kswapd().is_alarmed() {
        tell();
    }
}

/// The program is told, if memory is short and nobody else does so. Outside of the heap.
#[cold]
#[inline(never)]
pub(crate) fn tell() {
    // Before the alarm is taken, which another thread might pass on.
    let free_to = |thread: &&Thread| !thread.is_relieving();
    let Some(thread) = lifecycle::block().filter(free_to) else { return };
    if HEAP.kswapd().take_alarm() {
        let above = HEAP.stay_below_soft_limit(Some(thread));
        if !above && !HEAP.kswapd().is_group_short() {
            HEAP.kswapd().listen();
            return; // what was free was enough
        }
        let (counter, short) = (HEAP.counter(), HEAP.kswapd().is_group_short());
        let wanted = match counter.limits().high {
            0 => 0,
            high => counter.usage().saturating_sub(high),
        };
        ask(Some(if short { Pressure::Medium } else { Pressure::Low }), wanted);
        // What was freed for it.
        HEAP.stay_below_soft_limit(Some(thread));
    }
}

/// Asks for the memory that a request of so many bytes is missing: the callback in the first round, and shrinkers as long as
/// they free some. True if it is worth to try again.
#[cold]
#[inline(never)]
pub(crate) fn relieve(bytes: usize, round: u32) -> bool {
    let (counter, limits) = (HEAP.counter(), HEAP.counter().limits());
    let beyond = match limits.max {
        0 => 0,
        max => counter.usage().saturating_add(bytes).saturating_sub(max.saturating_sub(limits.min)),
    };
    ask((round == 0).then_some(Pressure::Critical), beyond.max(bytes))
}

/// A panic must not leave an allocator.
struct NoUnwinding;

impl Drop for NoUnwinding {
    fn drop(&mut self) {
        die(format_args!("a callback for memory pressure panicked"));
    }
}

/// Calls the callback, if it is told of a level, and shrinkers until they have freed so many bytes. True if the callback was
/// called or they have freed some.
fn ask(level: Option<Pressure>, bytes: usize) -> bool {
    let Some(thread) = lifecycle::block().filter(|thread| !thread.is_relieving()) else { return false };
    let told = level.zip(callback());
    if told.is_none() && shrinkers().next().is_none() {
        return false;
    }
    thread.set_relieving(true);
    let bomb = NoUnwinding;
    let freed = quietly(|| {
        if let Some((level, callback)) = told {
            callback(level);
        }
        let mut freed = 0usize;
        for shrink in shrinkers() {
            if bytes != 0 && freed >= bytes {
                break;
            }
            freed = freed.saturating_add(shrink(bytes.saturating_sub(freed)));
        }
        freed
    });
    core::mem::forget(bomb);
    thread.set_relieving(false);
    told.is_some() || freed > 0
}
