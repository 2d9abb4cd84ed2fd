//! kswapd: when it runs, how much free memory may stay resident, and what it has done.
//!
//! # Algorithm
//! Free pages that stay resident make the next burst fast; nobody else can use them. A *tick* frees the memory behind
//! those that were free at the tick before and have not been taken since, and marks the others ([`crate::buddy`]); so
//! age is counted in ticks. It begins when more than the *high* watermark is resident, and stops at the *low* one
//! ([`Watermarks`]). What a tick does is the heap's business; here is when.
//!
//! One thread ticks. It is started by a slow `dealloc` or `realloc` of a heap that has grown beyond [`GROWN`]: small processes
//! never have it. When two ticks in a row had nothing to do it sleeps, and the next slow `dealloc` or `realloc` wakes it, or growth
//! where a control group might get short. That may miss it, since no fence lies between what is given back and the look at
//! the state; so the sleep has an end. Where no thread can be had, a slow `dealloc` or `realloc` looks at the clock, and ticks once in a while.
//!
//! Beyond the `high` mark of a limit ([`crate::page_counter`]) nothing is kept, and an *alarm* is raised: it ends a sleep,
//! and lets whoever allocates, or the thread after its tick, tell the program. The next tick silences it; where nobody ticks,
//! it is raised again after as long, or [`LOOK`]. However long free memory may stay, where it is short the next tick comes within [`LOOK`].
//!
//! ```text
//! SMALL ──grown──► DORMANT ──dealloc──► AWAKE ──nothing to do──► ASLEEP
//!                                        │ └◄──────dealloc─────────┘
//!                                        └──refused──► ALONE
//! ```
//! From everywhere to OFF, back to SMALL when it is to be settled anew, and back to DORMANT in the child of a fork and when it
//! is to retire. Each of these gives the thread that may still run a new number to compare: it sees that it is not wanted any more, and ends.
//! Whoever has no thread at all, because the program wants none, leaves SMALL at once: nothing has to be started for it.
//!
//! # Invariants
//! - Ks1: one thread at a time has the number in the state.
//! - Ks2: who holds `still` meets no tick, so no pages in transit of one.
//! - Ks3: no sleep begins that the last thread of the program could have ended and did not: the state says ASLEEP before the
//!   sleeper asks the registry who is left, and who leaves attends to the state afterwards. The registry's lock orders the two.
//!
//! # Memory ordering
//! The state orders nothing: pages are ordered by the buddy's words. All of it is Relaxed.
//!
//! The idea of a thread that balances zones by watermarks is the kernel's (`mm/vmscan.c`). There, memory runs out when
//! it is below them; here, too much is kept when it is above.

use crate::cgroup::{Group, Shortage};
use crate::config::{CHUNK_SIZE, PAGE_SIZE};
use crate::error::ConfigError;
use crate::page_counter::{Limits, PageCounter};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{const_unless_loom, Guard, Mutex, Rank, Ranked, UnwatchedU32, UnwatchedU64};
use crate::sys::Os;

/// Committed bytes from which on a heap has a kswapd.
pub const GROWN: usize = 16 * CHUNK_SIZE;

/// Milliseconds that free memory stays resident, unless somebody says something else.
pub const PURGE_AFTER: u32 = 1000;

/// Milliseconds after which the thread looks whether memory is short, should its next tick be later than that; and between two
/// alarms where nobody ticks.
const LOOK: u32 = PURGE_AFTER / 2;

/// A sleep that nobody ends lasts for so many ticks.
const SLEEP: u32 = 64;

/// Ticks without work before the thread sleeps.
const QUIET: u32 = 2;

/// Waits in a row that may end too early, or before a coarse clock has moved, which may stand still while a processor of a virtual
/// machine does. Each is a millisecond at least, unless the system refuses.
const WAITS: u32 = 256;

/// The bit of a state in which a slow `dealloc` has something to do.
const ATTEND: u32 = 1;

const SMALL: u32 = 0;
const DORMANT: u32 = 2 | ATTEND;
const AWAKE: u32 = 4;
const ASLEEP: u32 = 6 | ATTEND;
const ALONE: u32 = 8 | ATTEND;
const OFF: u32 = 10;
const STATE: u32 = 15;
/// The number of the thread, in the bits above the state.
const NUMBER: u32 = STATE + 1;

/// What a thread has to do that gives memory back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attend {
    /// Nothing, somebody else does it.
    Nothing,
    /// Start the thread of this number, which calls [`crate::heap::Heap::run_kswapd`]; say so if there can be none
    /// ([`crate::heap::Heap::without_kswapd`]), or not from here ([`Kswapd::not_here`]).
    Start(u32),
    /// Tick, and say so ([`crate::heap::Heap::without_kswapd`]).
    Tick(u32),
}

/// Bounds of the memory that is free but resident, in bytes. Every process may have other ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermarks {
    /// The last of what a limit allows, for small requests. Nothing is, without a limit.
    pub min: usize,
    /// Down to so much is given back.
    pub low: usize,
    /// With more than that it begins.
    pub high: usize,
}

impl Watermarks {
    /// Those of a heap of which so many bytes are in use.
    pub const fn of(used: usize) -> Self {
        // A sixty-fourth of what is in use is found again by the next burst.
        let low = CHUNK_SIZE / 4 + used / 64 / PAGE_SIZE * PAGE_SIZE;
        Self { min: 0, low, high: 2 * low }
    }
}

/// Nobody needs to be told that memory is short.
const SILENT: u32 = 0;
/// Somebody has to tell the program.
const RAISED: u32 = 1;
/// Somebody has, since the last tick, or the last look that found it is not.
const TOLD: u32 = 2;

/// What has been done so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Done {
    /// Ticks.
    pub ticks: u64,
    /// Times that somebody ended its sleep.
    pub wakeups: u64,
    /// Bytes given back to the system by ticks.
    pub by_ticks: u64,
    /// Bytes given back to the system because somebody asked for it.
    pub by_calls: u64,
}

/// The state of one heap's kswapd. All zeros is that of a new heap.
pub struct Kswapd {
    state: AtomicU32,
    /// Milliseconds; zero: as it is by default.
    purge_after: AtomicU32,
    /// Without a thread: when the last tick was.
    ticked: UnwatchedU64,
    /// Without a thread: when the last alarm was.
    alarmed: UnwatchedU64,
    alarm: AtomicU32,
    /// Whether the control group was short of memory at the last look, and what it may go on to have; whether nobody looks.
    short: UnwatchedU32,
    room: UnwatchedU64,
    blind: UnwatchedU32,
    /// Watermarks that somebody has set, plus one; zero: none.
    low: UnwatchedU64,
    high: UnwatchedU64,
    /// Bytes in use at the most, since the load fell to the half of what it was.
    busiest: UnwatchedU64,
    still: Mutex<Still>,
    ticks: UnwatchedU64,
    wakeups: UnwatchedU64,
    by_ticks: UnwatchedU64,
    by_calls: UnwatchedU64,
}

/// Whoever has it is the only one to tick.
pub struct Still {
    group: Group,
}

impl Ranked for Still {
    const RANK: Rank = Rank::Kswapd;
}

impl Kswapd {
    const_unless_loom! {
        /// Of a new heap.
        pub fn new() -> Self {
            Self {
                state: AtomicU32::new(SMALL),
                purge_after: AtomicU32::new(0),
                ticked: UnwatchedU64::new(0),
                alarmed: UnwatchedU64::new(0),
                alarm: AtomicU32::new(SILENT),
                short: UnwatchedU32::new(0),
                room: UnwatchedU64::new(0),
                blind: UnwatchedU32::new(0),
                low: UnwatchedU64::new(0),
                high: UnwatchedU64::new(0),
                busiest: UnwatchedU64::new(0),
                still: Mutex::new(Still { group: Group::new() }),
                ticks: UnwatchedU64::new(0),
                wakeups: UnwatchedU64::new(0),
                by_ticks: UnwatchedU64::new(0),
                by_calls: UnwatchedU64::new(0),
            }
        }
    }

    /// The right to tick, or to meet no tick.
    pub fn hold_still<'a>(&'a self, os: &'a dyn Os) -> Guard<'a, Still, dyn Os + 'a> {
        self.still.lock(os)
    }

    /// The heap has so many bytes committed, and may have so many resident.
    pub fn grown(&self, os: &dyn Os, committed: usize, limits: Limits) {
        let state = self.state.load(Relaxed);
        let small = if limits.high == 0 { GROWN } else { GROWN.min(limits.high / 4) };
        match state & STATE {
            SMALL if committed >= small => _ = self.go(state, state - SMALL + DORMANT),
            // It may be the group that is short now, and only a tick looks at it.
            ASLEEP if self.room.load(Relaxed) != 0 => self.wake(os, state),
            _ => {}
        }
    }

    /// Ends the sleep of the thread.
    fn wake(&self, os: &dyn Os, asleep: u32) {
        if self.go(asleep, asleep & !STATE | AWAKE) {
            self.wakeups.fetch_add(1, Relaxed);
            os.wake_all(&self.state);
        }
    }

    /// True if a thread ticks, or is about to.
    pub fn is_awake(&self) -> bool {
        self.state.load(Relaxed) & STATE == AWAKE
    }

    /// True if there is a thread, and it sleeps.
    #[cfg(test)]
    pub fn is_asleep(&self) -> bool {
        self.state.load(Relaxed) & STATE == ASLEEP
    }

    /// True if somebody is to start a thread.
    pub fn is_dormant(&self) -> bool {
        self.state.load(Relaxed) & STATE == DORMANT
    }

    /// True if nothing is to go back to the system by itself: nobody ticks.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.state.load(Relaxed) & STATE == OFF
    }

    /// True if [`Kswapd::attend`] has something to say.
    #[inline(always)]
    pub fn needs_attention(&self) -> bool {
        self.state.load(Relaxed) & ATTEND != 0
    }

    /// What a thread has to do that gives memory back, and is outside. Of several threads one is told.
    #[cold]
    pub fn attend(&self, os: &dyn Os) -> Attend {
        let state = self.state.load(Relaxed);
        let awake = state & !STATE | AWAKE;
        match state & STATE {
            // As if the thread ran already: it will, or it will be said that it does not.
            DORMANT if self.go(state, awake) => Attend::Start(state / NUMBER),
            ASLEEP => {
                self.wake(os, state);
                Attend::Nothing
            }
            ALONE if self.is_due(os) && self.go(state, awake) => {
                // Another thread may have ticked in between.
                if self.is_due(os) {
                    return Attend::Tick(state / NUMBER);
                }
                self.go(awake, state);
                Attend::Nothing
            }
            _ => Attend::Nothing,
        }
    }

    /// Without a thread: whether the last tick is as long ago as two are apart.
    fn is_due(&self, os: &dyn Os) -> bool {
        let short = self.alarm.load(Relaxed) != SILENT;
        Self::is_over(os, &self.ticked, if short { self.hurry() } else { self.period() })
    }

    /// Whether the last time is so many milliseconds ago.
    fn is_over(os: &dyn Os, last: &UnwatchedU64, millis: u32) -> bool {
        // It may be later than the clock was read.
        os.now().saturating_sub(last.load(Relaxed)) >= u64::from(millis)
    }

    /// There is no thread, or none that ticks now: whoever gives pages back has to.
    pub fn alone(&self, os: &dyn Os, number: u32) {
        self.ticked.store(os.now(), Relaxed);
        self.go(number * NUMBER + AWAKE, number * NUMBER + ALONE);
    }

    /// The thread cannot be started here, but elsewhere.
    pub fn not_here(&self, number: u32) {
        self.go(number * NUMBER + AWAKE, number * NUMBER + DORMANT);
    }

    /// Memory is short: a thread that sleeps wakes up, and the program is to be told, once until the next tick, or for as long as
    /// one takes to come.
    #[cold]
    pub fn alarm(&self, os: &dyn Os) {
        let raise = |from| self.alarm.compare_exchange(from, RAISED, Relaxed, Relaxed).is_ok();
        // Only one who finds none raises one.
        let raised = raise(SILENT);
        let state = self.state.load(Relaxed);
        match state & STATE {
            ASLEEP => self.wake(os, state),
            // Nobody ticks, who would silence it, or perhaps nobody.
            SMALL | DORMANT | OFF | ALONE
                if raised || Self::is_over(os, &self.alarmed, self.hurry()) && raise(TOLD) =>
            {
                self.alarmed.store(os.now(), Relaxed);
            }
            _ => {}
        }
    }

    /// Memory is not short any more, as far as a limit goes: who has not been told yet need not be.
    pub fn calm(&self) {
        if self.is_alarmed() && !self.is_group_short() {
            _ = self.alarm.compare_exchange(RAISED, SILENT, Relaxed, Relaxed);
        }
    }

    /// True if the program is to be told that memory is short.
    #[inline(always)]
    pub fn is_alarmed(&self) -> bool {
        self.alarm.load(Relaxed) == RAISED
    }

    /// The right to tell it: of several threads one gets it.
    pub fn take_alarm(&self) -> bool {
        self.alarm.compare_exchange(RAISED, TOLD, Relaxed, Relaxed).is_ok()
    }

    /// The next alarm is one again.
    pub fn silence(&self) {
        self.alarm.store(SILENT, Relaxed);
    }

    /// The next alarm is one again, but for one that nobody has taken yet: what was free was enough, or memory is not short any more.
    pub fn listen(&self) {
        _ = self.alarm.compare_exchange(TOLD, SILENT, Relaxed, Relaxed);
    }

    /// Looks at the control group. The right to tick is the right to do so.
    pub fn look_at_group(&self, os: &dyn Os, still: &mut Still) {
        let blind = self.blind.load(Relaxed) != 0;
        let shortage = if blind { Shortage::default() } else { still.group.look(os) };
        self.short.store(shortage.is_short().into(), Relaxed);
        // Zero: nothing is known.
        self.room.store(shortage.room().wrapping_add(1), Relaxed);
    }

    /// Whether the control group is looked at.
    pub fn set_cgroup(&self, looks: bool) {
        self.blind.store((!looks).into(), Relaxed);
        if !looks {
            self.forget_group();
        }
    }

    /// Whether it looks at the control group.
    #[cfg(test)]
    pub fn looks_at_groups(&self) -> bool {
        self.blind.load(Relaxed) == 0
    }

    /// Nobody looks at the control group any more: nothing is known of it.
    pub fn forget_group(&self) {
        self.short.store(0, Relaxed);
        self.room.store(0, Relaxed);
    }

    /// True if the control group was short of memory at the last look.
    pub fn is_group_short(&self) -> bool {
        self.short.load(Relaxed) != 0
    }

    /// How much free memory may stay resident, where so many bytes are free and resident, and so many in use.
    pub fn watermarks(&self, free: usize, used: usize, counter: &PageCounter) -> Watermarks {
        let (limits, usual) = (counter.limits(), Watermarks::of(used));
        let given = |word: &UnwatchedU64| (word.load(Relaxed) as usize).checked_sub(1);
        let (mut low, mut high) = match (given(&self.low), given(&self.high)) {
            (None, None) => (usual.low, usual.high),
            (Some(low), None) => (low, low.saturating_mul(2)),
            (None, Some(high)) => (usual.low.min(high / 2), high),
            (Some(low), Some(high)) => (low, high),
        };
        // What is kept must not be what drives others beyond a limit.
        let mut room = usize::MAX;
        if limits.max != 0 {
            // Areas count, too.
            let charged = counter.usage().saturating_sub(free).max(used);
            room = limits.high.max(limits.max / 2).saturating_sub(charged) / 2;
        }
        if let Some(of_group) = self.room.load(Relaxed).checked_sub(1) {
            room = room.min(usize::try_from(of_group / 2).unwrap_or(usize::MAX));
        }
        if counter.is_high() || self.is_group_short() {
            room = 0;
        }
        high = high.min(room);
        low = low.min(high); // one of the two may have been set just now
        Watermarks { min: limits.min, low, high }
    }

    /// Sets the watermarks; `None`: as the use of the heap says.
    pub fn set_watermarks(&self, low: Option<usize>, high: Option<usize>) -> Result<(), ConfigError> {
        if matches!((low, high), (Some(low), Some(high)) if low > high) {
            return Err(ConfigError::OutOfOrder);
        }
        let word = |bytes: Option<usize>| bytes.map_or(0, |bytes| (bytes as u64).saturating_add(1));
        self.low.store(word(low), Relaxed);
        self.high.store(word(high), Relaxed);
        Ok(())
    }

    /// Notes how much is in use now. True if it is not half of what it was.
    pub fn has_fallen(&self, used: usize) -> bool {
        let (used, busiest) = (used as u64, self.busiest.load(Relaxed));
        let fallen = used < busiest / 2;
        if fallen || used > busiest {
            self.busiest.store(used, Relaxed);
        }
        fallen
    }

    /// Waits for the next tick of the thread of this number, which has had nothing to do for so many; or until `is_short` says
    /// that memory is, which is asked now and then, or `is_deserted` that nobody is left who could end a sleep. False: it is not
    /// wanted any more, or the system does not let it wait.
    pub fn wait(
        &self,
        os: &dyn Os,
        number: u32,
        quiet: u32,
        is_short: &dyn Fn() -> bool,
        is_deserted: &dyn Fn() -> bool,
    ) -> bool {
        let (awake, asleep) = (number * NUMBER + AWAKE, number * NUMBER + ASLEEP);
        if quiet >= QUIET && self.go(awake, asleep) {
            // Who leaves last attends to the state once he has left (Ks3).
            if !is_deserted() {
                os.wait_for(&self.state, asleep, self.period().saturating_mul(SLEEP));
            }
            self.go(asleep, awake);
        }
        let mut left = self.period();
        while left > 0 {
            let now = left.min(LOOK);
            if !self.pause(os, number, now) {
                return false;
            }
            if is_short() || is_deserted() {
                break;
            }
            self.listen();
            left -= now;
        }
        self.state.load(Relaxed) == awake
    }

    /// Waits for so many milliseconds. False as for [`Kswapd::wait`].
    fn pause(&self, os: &dyn Os, number: u32, millis: u32) -> bool {
        let (awake, begin) = (number * NUMBER + AWAKE, os.now());
        for _ in 0..WAITS {
            let left = u64::from(millis).saturating_sub(os.now().saturating_sub(begin)) as u32;
            if left == 0 || self.state.load(Relaxed) != awake {
                return self.state.load(Relaxed) == awake;
            }
            os.wait_for(&self.state, awake, left);
        }
        self.alone(os, number);
        false
    }

    /// Milliseconds between two ticks: what is free for two of them has been for one at least.
    fn period(&self) -> u32 {
        (self.purge_after() / 2).max(1)
    }

    /// As [`Kswapd::period`], where memory is short.
    fn hurry(&self) -> u32 {
        self.period().min(LOOK)
    }

    /// Milliseconds that free memory stays resident, at most.
    pub fn purge_after(&self) -> u32 {
        match self.purge_after.load(Relaxed) {
            0 => PURGE_AFTER,
            given => given,
        }
    }

    /// From now on, free memory stays resident for so many milliseconds; for ever, if `None`.
    pub fn set_purge_after(&self, os: &dyn Os, millis: Option<u32>) {
        if let Some(millis) = millis {
            self.purge_after.store(millis.max(1), Relaxed);
        }
        self.restart(|_| Some(if millis.is_some() { SMALL } else { OFF }));
        os.wake_all(&self.state); // the thread, if there is one, sees that it is not wanted any more
    }

    /// In a child, which has none of the threads of its parent.
    pub fn fork(&self) {
        self.restart(|state| (![SMALL, OFF].contains(&state)).then_some(DORMANT));
        self.forget_group();
    }

    /// The thread that there may be is not wanted any more; whether there is another one, [`Kswapd::grown`] says.
    pub fn dismiss(&self, os: &dyn Os) {
        self.restart(|state| (state != OFF).then_some(SMALL));
        os.wake_all(&self.state);
    }

    /// The thread of this number, which is the caller, ends; the next slow `dealloc` starts another one. For when no thread of the
    /// program uses the heap any more: the heap's is not to keep the process alive.
    pub fn retire(&self, number: u32) {
        let next = number.wrapping_add(1);
        self.go(number * NUMBER + AWAKE, next.wrapping_mul(NUMBER) + DORMANT);
    }

    /// Another state, if the one that it is in says so, and another number: the thread that there may be is not wanted any more.
    fn restart(&self, to: impl Fn(u32) -> Option<u32>) {
        let mut was = self.state.load(Relaxed);
        while let Some(state) = to(was & STATE) {
            let next = (was & !STATE).wrapping_add(NUMBER) | state;
            match self.state.compare_exchange_weak(was, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => was = now,
            }
        }
    }

    fn go(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    /// Notes a tick that gave so many bytes back.
    pub fn note_tick(&self, bytes: usize) {
        self.ticks.fetch_add(1, Relaxed);
        self.by_ticks.fetch_add(bytes as u64, Relaxed);
    }

    /// Notes that so many bytes were given back because somebody asked for it.
    pub fn note_call(&self, bytes: usize) {
        self.by_calls.fetch_add(bytes as u64, Relaxed);
    }

    /// What has been done so far.
    pub fn done(&self) -> Done {
        Done {
            ticks: self.ticks.load(Relaxed),
            wakeups: self.wakeups.load(Relaxed),
            by_ticks: self.by_ticks.load(Relaxed),
            by_calls: self.by_calls.load(Relaxed),
        }
    }
}
