//! Fork storm: children of a process whose every thread is in the allocator.
//!
//! A child has one thread and the memory of all. It frees what its parent had allocated, allocates, starts a thread
//! that does the same, and exits; an alarm ends one that hangs. Around each fork handlers of `pthread_atfork` allocate
//! too: some that were registered before the allocator could register its own, by a constructor that runs before the
//! first allocation, and some that were registered after. Those registered first run last before the fork, and first
//! after it.

use super::{on_threads, Shape, Work};
use crate::front::register_beside;
use crate::ops::{Action, Op};
use crate::{Config, Lane, Limit, Report, Violation};
use allocator_global::Kmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Once;
use std::thread;

/// Seconds that a child may take. It needs a thousandth of one.
const PATIENCE: u32 = 20;

/// How often a handler has allocated: before the fork, and after it in the parent.
static HANDLED: AtomicU64 = AtomicU64::new(0);
/// Forks for another purpose are none of the handlers' business.
static ARMED: AtomicBool = AtomicBool::new(false);

extern "C" fn handler() {
    if !ARMED.load(Relaxed) {
        return;
    }
    for size in [24, 700, 40_000] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        // SAFETY: the size is not zero.
        let ptr = black_box(unsafe { Kmalloc::new().alloc(layout) });
        if !ptr.is_null() {
            // SAFETY: just allocated, and of this size.
            unsafe { ptr.write_bytes(1, size) };
            // SAFETY: just allocated, with this layout.
            unsafe { Kmalloc::new().dealloc(ptr, layout) };
        }
    }
    HANDLED.fetch_add(1, Relaxed);
}

extern "C" fn register() {
    // SAFETY: the handlers are functions of this program, which stay.
    unsafe { libc::pthread_atfork(Some(handler), Some(handler), Some(handler)) };
}

/// Registers the first handlers when the program is loaded.
#[used]
#[link_section = ".init_array.00101"]
static BEFORE: extern "C" fn() = register;

pub(super) fn storm(config: &Config) -> Work {
    static AFTER: Once = Once::new();
    register_beside();
    let shape = Shape::ForkStorm;
    let (handled, forks) = (HANDLED.load(Relaxed), AtomicU64::new(0));
    // One thread forks. The others allocate as long as it does, so that each fork finds them in the allocator.
    let forker = Lane::new(config, shape, 0, config.limit);
    let others = (1..=config.threads as u32).map(|n| Lane::new(config, shape, n, Limit::Ops(u64::MAX)));
    let (over, roles) =
        (AtomicBool::new(false), std::iter::once((true, forker)).chain(others.map(|lane| (false, lane))));
    let result = on_threads(roles.collect(), |(forks_too, mut lane), stop| {
        if !forks_too {
            // Behind the one that forks and its children, which would wait for a time slice of each of the others.
            // SAFETY: of this thread, which ends with the shape.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
        }
        let result = (|| {
            while !over.load(Relaxed) {
                let Some(draw) = lane.next(stop) else { break };
                match draw.op().action {
                    Action::Reclaim if draw.other() % 16 != 0 => {}
                    action => lane.play(Op { lane: 0, action })?,
                }
                if forks_too && draw.which() % FORK_EVERY == 0 {
                    // The allocator has registered its handlers by now, if it has any.
                    AFTER.call_once(|| register());
                    ARMED.store(true, Relaxed);
                    fork(config, &mut lane, forks.fetch_add(1, Relaxed))?;
                }
            }
            lane.free_all()
        })();
        over.fetch_or(forks_too, Relaxed);
        result.map(|()| lane.report())
    });
    ARMED.store(false, Relaxed);
    let (forks, handled) = (forks.into_inner(), HANDLED.load(Relaxed) - handled);
    // Those registered before and those registered after, each before a fork and after it.
    if result.is_ok() && handled != 4 * forks {
        return Err(Violation(format!("handlers ran {handled} times around {forks} forks")));
    }
    result.map(|report| Report { forks, ..report })
}

/// Operations of the forking thread for one fork.
const FORK_EVERY: usize = 8;

fn fork(config: &Config, lane: &mut Lane, number: u64) -> Result<(), Violation> {
    // SAFETY: the child calls nothing that another thread's lock can stop: neither the standard streams nor queues.
    // That it may allocate is what is on trial; the system's own allocator can take a fork.
    match unsafe { libc::fork() } {
        -1 => Err(Violation(format!("fork {number}: {}", std::io::Error::last_os_error()))),
        0 => {
            // SAFETY: has no precondition.
            unsafe { libc::alarm(PATIENCE) };
            let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(config, lane))) {
                Ok(Ok(())) => 0,
                Ok(Err(_)) => 3,
                Err(_) => 4,
            };
            // SAFETY: ends this child at once.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a child of ours, and a place for its status.
            while unsafe { libc::waitpid(child, &mut status, 0) } == -1 {}
            match status {
                0 => Ok(()),
                _ if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM => {
                    Err(Violation(format!("the child of fork {number} hangs")))
                }
                _ => Err(Violation(format!("the child of fork {number} ended with status {status:#x}"))),
            }
        }
    }
}

/// What a child does, on the lane that its parent goes on with.
fn child(config: &Config, lane: &mut Lane) -> Result<(), Violation> {
    let play = |lane: &mut Lane| -> Result<(), Violation> {
        let mut own = Lane::new(config, Shape::ForkStorm, u32::MAX - 3, Limit::Ops(50));
        own.receive(lane.give(lane.len() / 2));
        let never = AtomicBool::new(false);
        while let Some(draw) = own.next(&never) {
            own.alloc(draw.layout(), draw.zeroed())?;
        }
        own.free_all()
    };
    play(lane)?;
    thread::scope(|scope| scope.spawn(|| play(lane)).join())
        .unwrap_or_else(|_| Err(Violation("a thread of a child panicked".to_owned())))?;
    lane.free_all()
}
