//! conf: who has said what, and when it takes effect.
//!
//! What the program says where it declares the allocator takes effect at its first allocation, and before that what
//! `KMALLOC_CONF` says, which is read then, once: whoever starts a program knows where it runs. What is set by a call later is
//! later; what was set by a call even earlier stays.

use crate::{kswapd, lifecycle, HEAP};
use allocator_core::sys::{quietly, warn};
use allocator_core::tunables::{Tunables, KEYS};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Whether the choices of the program and of the environment have been taken, or are being. It orders nothing: the settings
/// are words of their own.
static READ: AtomicBool = AtomicBool::new(false);

/// What was set by calls before: a bit for each [`Setting`].
static SET: AtomicU32 = AtomicU32::new(0);

/// What one call sets.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Setting {
    Limits = 1,
    Watermarks = 2,
    PurgeAfter = 4,
    HugePages = 8,
    GuardPages = 16,
    Cgroup = 32,
    BackgroundThread = 64,
    SparseZeros = 128,
}

/// To be called where a setting is made by a call.
pub(crate) fn set(setting: Setting) {
    SET.fetch_or(setting as u32, Relaxed);
}

/// True if somebody has allocated: the choices are taken, or about to be.
pub(crate) fn is_read() -> bool {
    READ.load(Relaxed)
}

/// To be called when a thread allocates that has no block yet.
#[cold]
#[inline(never)]
pub(crate) fn read_once(program: &Tunables) {
    // Whoever comes meanwhile, on another thread or from below, is served as if nothing had been said.
    if READ.load(Relaxed) || READ.swap(true, Relaxed) {
        return;
    }
    quietly(|| {
        let environment = environment();
        // The program's alone first: should the two make no sense together, that is what stays.
        take(*program);
        if environment != Tunables::new() {
            take(environment.or(*program));
        }
    });
}

fn take(chosen: Tunables) {
    let chosen = without(chosen, SET.load(Relaxed));
    if chosen != Tunables::new() {
        let mut refused = |what, why| warn(format_args!("{what}: {why}; as it was before"));
        // SAFETY: the block is the calling thread's.
        lifecycle::with(|thread| unsafe { HEAP.configure(thread, &chosen, &mut refused) });
        match chosen.background_thread {
            Some(thread) => kswapd::allow(thread),
            None => kswapd::begin(), // as a call may have said, before settings were read
        }
    }
}

fn without(mut chosen: Tunables, set: u32) -> Tunables {
    let is_set = |setting: Setting| set & setting as u32 != 0;
    if is_set(Setting::Limits) {
        (chosen.limit, chosen.soft_limit, chosen.reserve) = (None, None, None);
    }
    if is_set(Setting::Watermarks) {
        (chosen.low, chosen.high) = (None, None);
    }
    if is_set(Setting::PurgeAfter) {
        chosen.purge_after = None;
    }
    if is_set(Setting::HugePages) {
        chosen.huge_pages = None;
    }
    if is_set(Setting::GuardPages) {
        chosen.guard_pages = None;
    }
    if is_set(Setting::SparseZeros) {
        chosen.sparse_zeros = None;
    }
    if is_set(Setting::Cgroup) {
        chosen.cgroup = None;
    }
    if is_set(Setting::BackgroundThread) {
        chosen.background_thread = None;
    }
    chosen
}

/// What `KMALLOC_CONF` says; nothing in a process that has more rights than whoever started it.
fn environment() -> Tunables {
    let mut chosen = Tunables::new();
    // SAFETY: has no precondition.
    let has_more_rights = || unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if !cfg!(miri) && has_more_rights() {
        return chosen;
    }
    // SAFETY: a name that ends. The environment changes as the C library says: not while another thread may read it.
    let text = unsafe { libc::getenv(c"KMALLOC_CONF".as_ptr()) };
    if !text.is_null() {
        // SAFETY: a variable that is there is text that ends.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        if chosen.read(text, &mut |what| warn(format_args!("KMALLOC_CONF: {what}"))) {
            help();
        }
    }
    chosen
}

#[cold]
fn help() {
    warn(format_args!("KMALLOC_CONF=key:value,key:value"));
    for key in KEYS {
        warn(format_args!("  {}: {} ({})", key.name, key.values, key.default));
        warn(format_args!("    {}", key.what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocator_core::huge::HugePages;

    #[test]
    fn what_a_call_has_set_is_left_alone() {
        let all = Tunables {
            limit: Some(1),
            soft_limit: Some(1),
            reserve: Some(1),
            low: Some(1),
            high: Some(1),
            purge_after: Some(1),
            huge_pages: Some(HugePages::Never),
            guard_pages: Some(true),
            sparse_zeros: Some(true),
            cgroup: Some(true),
            background_thread: Some(true),
        };
        for (set, left) in [
            (Setting::Limits, Tunables { limit: None, soft_limit: None, reserve: None, ..all }),
            (Setting::Watermarks, Tunables { low: None, high: None, ..all }),
            (Setting::PurgeAfter, Tunables { purge_after: None, ..all }),
            (Setting::HugePages, Tunables { huge_pages: None, ..all }),
            (Setting::GuardPages, Tunables { guard_pages: None, ..all }),
            (Setting::SparseZeros, Tunables { sparse_zeros: None, ..all }),
            (Setting::Cgroup, Tunables { cgroup: None, ..all }),
            (Setting::BackgroundThread, Tunables { background_thread: None, ..all }),
        ] {
            assert_eq!(without(all, set as u32), left);
        }
        assert_eq!((without(all, 0), without(all, u32::MAX)), (all, Tunables::new()));
    }
}
