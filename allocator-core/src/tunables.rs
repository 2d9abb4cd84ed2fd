//! tunables: what can be set, by which names, and how the values are written.
//!
//! # Algorithm
//! A program says what it wants where it declares the allocator; whoever starts it may say otherwise in one variable of the
//! environment: `key:value,key:value`. Both are the same record of choices, read without allocating. Here is what they mean,
//! once: [`KEYS`] is the help text, the table in README, and the parser.
//!
//! # Not here
//! What the settings do: `page_counter`, `kswapd`, `huge`, `cgroup`, `vmalloc`.

use crate::huge::HugePages;
use crate::page_counter::Limits;

/// Choices; what is `None` stays as it is by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tunables {
    /// Bytes that may be resident; zero: any number.
    pub limit: Option<usize>,
    /// Bytes beyond which memory is asked back; zero: no such number.
    pub soft_limit: Option<usize>,
    /// The last bytes below the limit, which are for small requests.
    pub reserve: Option<usize>,
    /// Bytes of free memory that stay resident.
    pub low: Option<usize>,
    /// Bytes of free memory from which on the others go back.
    pub high: Option<usize>,
    /// Milliseconds that free memory stays resident; `u32::MAX`: for ever.
    pub purge_after: Option<u32>,
    /// What is backed by huge pages.
    pub huge_pages: Option<HugePages>,
    /// Whether a page without access lies behind every mapping of its own.
    pub guard_pages: Option<bool>,
    /// Whether the system is asked which pages of what is to read as zeros were written.
    pub sparse_zeros: Option<bool>,
    /// Whether the limits of control groups are looked at.
    pub cgroup: Option<bool>,
    /// Whether a thread gives free memory back.
    pub background_thread: Option<bool>,
}

/// Free memory stays for ever.
pub const NEVER: u32 = u32::MAX;

/// One thing that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// What it is called.
    pub name: &'static str,
    /// How its values are written.
    pub values: &'static str,
    /// What it is if nobody says anything.
    pub default: &'static str,
    /// What it does.
    pub what: &'static str,
    set: fn(&mut Tunables, &str) -> bool,
}

/// What can be set.
pub const KEYS: &[Key] = &[
    Key {
        name: "limit",
        values: "bytes, or none",
        default: "none",
        what: "no more than that is resident: requests beyond it are refused, those above 32 KiB a reserve earlier",
        set: |to, text| set(&mut to.limit, bytes_or(text, "none", 0)),
    },
    Key {
        name: "soft_limit",
        values: "bytes, or none",
        default: "seven eighths of the limit",
        what: "beyond that free memory goes back at once, and if that is not enough, the program's callbacks are called",
        set: |to, text| set(&mut to.soft_limit, bytes_or(text, "none", 0)),
    },
    Key {
        name: "reserve",
        values: "bytes",
        default: "a sixty-fourth of the limit, 4 MiB at most",
        what: "the last of the limit, left to requests of up to 32 KiB",
        set: |to, text| set(&mut to.reserve, bytes(text)),
    },
    Key {
        name: "low",
        values: "bytes",
        default: "512 KiB and a sixty-fourth of what is in use",
        what: "so much free memory stays resident for ever, or half of what is left below a limit, the control group's too, if that is less",
        set: |to, text| set(&mut to.low, bytes(text)),
    },
    Key {
        name: "high",
        values: "bytes",
        default: "twice the low watermark",
        what: "with more free and resident memory than that, it goes back, down to the low watermark",
        set: |to, text| set(&mut to.high, bytes(text)),
    },
    Key {
        name: "purge_after",
        values: "milliseconds, seconds as in 2s, or never",
        default: "1s; 25ms in libkmalloc.so",
        what: "how long free memory stays resident; at least half of that",
        set: |to, text| set(&mut to.purge_after, millis(text)),
    },
    Key {
        name: "huge_pages",
        values: "never, auto, or always",
        default: "auto",
        what: "which chunks of 2 MiB are backed by huge pages; auto: below 8 MiB, or more where blocks have room, only blocks of more than 2 MiB, unless little is written into them, and what stays full",
        set: |to, text| set(&mut to.huge_pages, HugePages::named(text)),
    },
    Key {
        name: "guard_pages",
        values: "yes, or no",
        default: "no",
        what: "a page without access behind every block of more than 32 MiB",
        set: |to, text| set(&mut to.guard_pages, yes_or_no(text)),
    },
    Key {
        name: "sparse_zeros",
        values: "yes, or no",
        default: "yes",
        what: "long blocks of zeros are cleared only where they were written, as /proc/thread-self/pagemap says; no: as a whole",
        set: |to, text| set(&mut to.sparse_zeros, yes_or_no(text)),
    },
    Key {
        name: "cgroup",
        values: "yes, or no",
        default: "yes",
        what: "free memory goes back at once when the control group is short of memory, at which the background thread looks, and nobody without one",
        set: |to, text| set(&mut to.cgroup, yes_or_no(text)),
    },
    Key {
        name: "background_thread",
        values: "yes, or no",
        default: "yes; no in libkmalloc.so",
        what: "a thread gives free memory back, also while nobody calls; else those who free do, once in a while",
        set: |to, text| set(&mut to.background_thread, yes_or_no(text)),
    },
];

/// What was not understood.
#[derive(Clone, Copy)]
pub enum Unknown<'a> {
    /// No key is called so.
    Key(&'a str),
    /// The value of this key is none.
    Value(&'a Key, &'a str),
    /// Bytes that are no text.
    Text,
}

impl core::fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Unknown::Key(name) => write!(f, "no such key: {name}"),
            Unknown::Value(key, value) => write!(f, "{}: not {}: {value}", key.name, key.values),
            Unknown::Text => f.write_str("not UTF-8"),
        }
    }
}

impl Tunables {
    /// No choices.
    pub const fn new() -> Self {
        Self {
            limit: None,
            soft_limit: None,
            reserve: None,
            low: None,
            high: None,
            purge_after: None,
            huge_pages: None,
            guard_pages: None,
            sparse_zeros: None,
            cgroup: None,
            background_thread: None,
        }
    }

    /// Reads choices as `KMALLOC_CONF` has them. What is not understood is told, and left out. True if somebody asks for help.
    pub fn read(&mut self, text: &[u8], unknown: &mut dyn FnMut(Unknown<'_>)) -> bool {
        let Ok(text) = core::str::from_utf8(text) else {
            unknown(Unknown::Text);
            return false;
        };
        let mut help = false;
        for choice in text.split(',').map(str::trim_ascii).filter(|choice| !choice.is_empty()) {
            let (name, value) = choice.split_once(':').unwrap_or((choice, ""));
            match KEYS.iter().find(|key| key.name == name.trim_ascii()) {
                Some(key) if (key.set)(self, value.trim_ascii()) => {}
                Some(key) => unknown(Unknown::Value(key, value)),
                None if choice == "help" => help = true,
                None => unknown(Unknown::Key(name)),
            }
        }
        help
    }

    /// These choices, and where there are none, those of `other`. Marks that `other` chose for another limit than this one are
    /// none.
    pub const fn or(self, mut other: Self) -> Self {
        if self.limit.is_some() {
            (other.soft_limit, other.reserve) = (None, None);
        }
        // No `Option::or` in a constant.
        macro_rules! either {
            ($($field:ident),*) => { Self { $($field: if self.$field.is_some() { self.$field } else { other.$field }),* } };
        }
        either!(
            limit,
            soft_limit,
            reserve,
            low,
            high,
            purge_after,
            huge_pages,
            guard_pages,
            sparse_zeros,
            cgroup,
            background_thread
        )
    }

    /// The limits that these choices make. `None`: nothing is said of them.
    pub fn limits(&self) -> Option<Limits> {
        let Self { limit, soft_limit, reserve, .. } = *self;
        if (limit, soft_limit, reserve) == (None, None, None) {
            return None;
        }
        let usual = Limits::of(limit.unwrap_or(0));
        Some(Limits { high: soft_limit.unwrap_or(usual.high), min: reserve.unwrap_or(usual.min), ..usual })
    }
}

/// Puts a value in its place, if it is one.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let good = value.is_some();
    if good {
        *place = value;
    }
    good
}

fn bytes_or(text: &str, word: &str, means: usize) -> Option<usize> {
    if text == word {
        Some(means)
    } else {
        bytes(text)
    }
}

/// A number of bytes: `4096`, `64K`, `256MiB`, `1g`.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim_ascii_start().as_bytes();
    let shift = match unit.first().map(u8::to_ascii_lowercase) {
        None => 0,
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        Some(_) => return None,
    };
    let written = |rest: &str| unit.get(1..).is_some_and(|end| end.eq_ignore_ascii_case(rest.as_bytes()));
    if !(unit.is_empty() || written("") || written("b") || written("ib")) {
        return None;
    }
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// A time in milliseconds: `500`, `500ms`, `2s`, `never`.
fn millis(text: &str) -> Option<u32> {
    if text == "never" {
        return Some(NEVER);
    }
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1),
    };
    number.trim_ascii_end().parse::<u32>().ok()?.checked_mul(factor).filter(|millis| *millis != NEVER)
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" | "1" => Some(true),
        "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn read(text: &str) -> (Tunables, Vec<String>, bool) {
        let (mut tunables, mut unknown) = (Tunables::new(), Vec::new());
        let help = tunables.read(text.as_bytes(), &mut |what| unknown.push(what.to_string()));
        (tunables, unknown, help)
    }

    #[test]
    fn every_key_is_read() {
        let text = "limit:1g, soft_limit:900MiB,reserve:64k,low:1,high:2B,purge_after:250ms,huge_pages:never,\
                    guard_pages:yes,sparse_zeros:no,cgroup:no,background_thread:no";
        let expected = Tunables {
            limit: Some(1 << 30),
            soft_limit: Some(900 << 20),
            reserve: Some(64 << 10),
            low: Some(1),
            high: None,
            purge_after: Some(250),
            huge_pages: Some(HugePages::Never),
            guard_pages: Some(true),
            sparse_zeros: Some(false),
            cgroup: Some(false),
            background_thread: Some(false),
        };
        let (found, unknown, help) = read(text);
        assert_eq!((found, help), (expected, false));
        assert_eq!(unknown, ["high: not bytes: 2B"], "a unit has a letter for its factor");
        assert_eq!(KEYS.len(), text.split(',').count(), "every key is tried here");
        assert_eq!(found.limits(), Some(Limits { max: 1 << 30, high: 900 << 20, min: 64 << 10 }));
    }

    #[test]
    fn what_is_not_understood_is_told_and_left_out() {
        let (found, unknown, help) = read("nonsense:1,limit:many,,help,purge_after:,low:5,high:99999999999999999999");
        assert_eq!(found, Tunables { low: Some(5), ..Tunables::new() });
        assert_eq!(unknown.len(), 4, "{unknown:?}");
        assert!(help);
        let mut unknown = Vec::new();
        assert!(!Tunables::new().read(b"\xff", &mut |what| unknown.push(what.to_string())));
        assert_eq!(unknown, ["not UTF-8"]);
        assert_eq!((yes_or_no("true"), yes_or_no("0"), yes_or_no("perhaps")), (Some(true), Some(false), None));
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        for (text, value) in
            [("0", Some(0)), ("7", Some(7)), ("4k", Some(4096)), ("2 MiB", Some(2 << 20)), ("1gb", Some(1 << 30))]
        {
            assert_eq!(bytes(text), value, "{text}");
        }
        for text in ["", "k", "-1", "1x", "1kk", "1mib2", "99999999999t", "1.5g"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(["never", "2s", "10", "10ms"].map(millis), [Some(NEVER), Some(2000), Some(10), Some(10)]);
        assert_eq!(["", "s", "4294967295", "5000000s"].map(millis), [None; 4]);
    }

    #[test]
    fn the_choice_of_whoever_starts_the_program_comes_first() {
        let program = Tunables { limit: Some(1), low: Some(2), ..Tunables::new() };
        let (starter, ..) = read("limit:none");
        assert_eq!(starter.or(program), Tunables { limit: Some(0), low: Some(2), ..Tunables::new() });
        let marked = Tunables { soft_limit: Some(5), reserve: Some(6), ..program };
        assert_eq!(starter.or(marked), starter.or(program), "marks for another limit");
        assert_eq!(Tunables::new().limits(), None);
        assert_eq!(starter.limits(), Some(Limits::default()));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..200)) {
            Tunables::new().read(&text, &mut |_| ());
        }
    }
}
