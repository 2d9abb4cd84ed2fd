//! Atomic: loom's atomics, which can be told to be weaker than the code asks for. Only under loom.
//!
//! A model that passes although the code is wrong is no model. So each Acquire, Release and AcqRel of the code, and
//! each of its re-checks, can be taken away in a run of the models, and one of them must fail (`ci/loom.sh --mutants`):
//! - `KMALLOC_MUTANT="FILE:LINE:COLUMN ORDERING"` gives the call there this ordering instead; `Relaxed` for a fence
//!   means no fence. `"FILE:LINE:COLUMN failure ORDERING"` is the same for the second ordering of a compare-exchange.
//! - `KMALLOC_MUTANT="recheck NAME"` makes the re-check of that name answer no.
//! - `KMALLOC_SITES=FILE` appends to that file a line for each place that could be so weakened, once it is reached.

use core::panic::Location;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

pub use loom::sync::atomic::Ordering;

/// What the environment asks for.
struct Wishes {
    mutant: Option<Mutant>,
    /// Where places are noted, and those noted already.
    sites: Option<(String, Mutex<BTreeSet<String>>)>,
}

enum Mutant {
    Weaker { file: String, line: u32, column: u32, failure: bool, order: Ordering },
    Recheck(String),
}

fn wishes() -> &'static Wishes {
    static WISHES: OnceLock<Wishes> = OnceLock::new();
    WISHES.get_or_init(|| Wishes {
        mutant: std::env::var("KMALLOC_MUTANT")
            .ok()
            .map(|text| Mutant::parse(&text).unwrap_or_else(|| panic!("no mutant: KMALLOC_MUTANT={text}"))),
        sites: std::env::var("KMALLOC_SITES").ok().map(|file| (file, Mutex::default())),
    })
}

impl Mutant {
    fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("recheck ") {
            return Some(Self::Recheck(name.to_owned()));
        }
        let (place, order) = text.split_once(' ')?;
        let (failure, order) = order.strip_prefix("failure ").map_or((false, order), |order| (true, order));
        let mut place = place.rsplitn(3, ':');
        let (column, line) = (place.next()?.parse().ok()?, place.next()?.parse().ok()?);
        let order = match order {
            "Relaxed" => Ordering::Relaxed,
            "Acquire" => Ordering::Acquire,
            "Release" => Ordering::Release,
            "AcqRel" => Ordering::AcqRel,
            _ => return None,
        };
        Some(Self::Weaker { file: place.next()?.to_owned(), line, column, failure, order })
    }
}

fn note(site: impl FnOnce() -> String) {
    let Some((file, noted)) = &wishes().sites else { return };
    let site = site();
    let mut noted = noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if noted.insert(site.clone()) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| writeln!(file, "{site}")).expect("KMALLOC_SITES cannot be written");
    }
}

/// The ordering of the caller's call, or what it is to be replaced by.
#[track_caller]
fn asked(order: Ordering, second: bool) -> Ordering {
    let at = Location::caller();
    if order != Ordering::Relaxed {
        let role = if second { " failure" } else { "" };
        note(|| format!("{}:{}:{}{role} {order:?}", at.file(), at.line(), at.column()));
    }
    match &wishes().mutant {
        Some(Mutant::Weaker { file, line, column, failure, order })
            if (*line, *column, *failure) == (at.line(), at.column(), second) && file == at.file() =>
        {
            *order
        }
        _ => order,
    }
}

/// `holds`, unless the re-check of this name is to be left out.
pub(crate) fn recheck(name: &str, holds: bool) -> bool {
    note(|| format!("recheck {name}"));
    holds && !matches!(&wishes().mutant, Some(Mutant::Recheck(left_out)) if left_out == name)
}

/// `core`'s fence.
#[track_caller]
pub fn fence(order: Ordering) {
    match asked(order, false) {
        Ordering::Relaxed => {}
        order => loom::sync::atomic::fence(order),
    }
}

macro_rules! watched {
    ($name:ident $(<$generic:ident>)?, $value:ty, { $($more:tt)* }) => {
        /// `core`'s type of this name.
        pub struct $name $(<$generic>)? (loom::sync::atomic::$name $(<$generic>)?);

        #[allow(missing_docs, dead_code)] // the same methods for all types
        impl $(<$generic>)? $name $(<$generic>)? {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }
            /// For system calls, which no model makes.
            pub fn as_ptr(&self) -> *mut $value {
                unreachable!("a model's word has no address")
            }
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(asked(order, false))
            }
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, asked(order, false))
            }
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.0.swap(value, asked(order, false))
            }
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(current, new, asked(success, false), asked(failure, true))
            }
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange_weak(current, new, asked(success, false), asked(failure, true))
            }
            $($more)*
        }
    };
}

macro_rules! watched_int {
    ($($name:ident of $value:ty)*) => {$(
        watched!($name, $value, {
            #[track_caller]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_add(value, asked(order, false))
            }
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_sub(value, asked(order, false))
            }
            #[track_caller]
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_and(value, asked(order, false))
            }
            #[track_caller]
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_or(value, asked(order, false))
            }
            #[track_caller]
            pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_max(value, asked(order, false))
            }
        });
    )*};
}

watched_int!(AtomicU8 of u8 AtomicU32 of u32 AtomicU64 of u64 AtomicUsize of usize);
watched!(AtomicPtr<T>, *mut T, {});
