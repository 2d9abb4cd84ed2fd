//! cgroup: whether the control group that the process is in is short of memory.
//!
//! # Algorithm
//! `/proc/self/cgroup` says which group that is; the limit that counts is the smallest on the way from there to the root, in
//! `memory.max` and `memory.high` (version 2), or in the hard and the soft `limit_in_bytes` (version 1). A group is short when
//! what it uses, without page cache, which the system can take back, is above seven eighths of that limit; or when the system
//! says that some of its threads wait for memory a tenth of the time (pressure stall information, `memory.pressure` of the
//! group, or of the whole system). The limit is looked up once in a while, the rest at each look: two or three small files.
//!
//! A file that is not there, or not as expected, says nothing: then the group is not short. In a container the files of the
//! group may lie at the root of the mount; a path that does not exist is left for its parent.
//!
//! Nothing is refused because of a group: the system does that by itself.

use crate::sys::Os;
use core::ffi::CStr;

/// Looks between two searches for the limit.
const SEARCH: u32 = 64;

/// The longest path of a group that is looked at, with the name of a file.
const PATH: usize = 512;

/// Bytes of a file that are looked at.
const FILE: usize = 4096;

/// Hundredths of the time that some thread waits for memory: from then on it is short.
const STALLED: u64 = 10_00;

/// A version 1 group without a limit has one of this size or more.
const NO_LIMIT: u64 = 1 << 62;

/// The files of one version.
struct Files {
    root: &'static [u8],
    limits: [&'static [u8]; 2],
    usage: &'static [u8],
    /// Fields of `memory.stat`: page cache, which the system can take back.
    cache: [&'static [u8]; 2],
}

const VERSION_1: Files = Files {
    root: b"/sys/fs/cgroup/memory",
    limits: [b"memory.limit_in_bytes", b"memory.soft_limit_in_bytes"],
    usage: b"memory.usage_in_bytes",
    cache: [b"total_inactive_file ", b"total_active_file "],
};

const VERSION_2: Files = Files {
    root: b"/sys/fs/cgroup",
    limits: [b"memory.max", b"memory.high"],
    usage: b"memory.current",
    cache: [b"inactive_file ", b"active_file "],
};

/// What was found out last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shortage {
    /// The limit of the group in bytes, if it has one.
    pub limit: Option<u64>,
    /// What it uses, without page cache.
    pub used: u64,
    /// Threads of it wait for memory.
    pub stalled: bool,
}

impl Shortage {
    /// True if the group is short of memory.
    pub const fn is_short(&self) -> bool {
        let above = match self.limit {
            Some(limit) => self.used > limit - limit / 8,
            None => false,
        };
        above || self.stalled
    }

    /// Bytes that the group may go on to have; `u64::MAX`: any number.
    pub const fn room(&self) -> u64 {
        match self.limit {
            Some(limit) => limit.saturating_sub(self.used),
            None => u64::MAX,
        }
    }
}

/// A path in place, with room for a zero behind it.
#[derive(Clone, Copy)]
struct Path {
    bytes: [u8; PATH],
    len: usize,
}

impl Path {
    const EMPTY: Self = Self { bytes: [0; PATH], len: 0 };

    /// This path and that behind it. `None`: too long.
    fn with(mut self, more: &[u8]) -> Option<Self> {
        let end = self.len.checked_add(more.len()).filter(|end| *end < PATH)?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(more);
        self.bytes.get_mut(end..)?.fill(0);
        self.len = end;
        Some(self)
    }

    fn file(self, name: &[u8]) -> Option<Self> {
        self.with(b"/")?.with(name)
    }

    /// The path without its last part, but at least `least` long. `None`: it is that already.
    fn parent(mut self, least: usize) -> Option<Self> {
        let end = self.bytes.get(..self.len)?.iter().rposition(|byte| *byte == b'/')?.max(least);
        if end >= self.len {
            return None;
        }
        self.bytes.get_mut(end..)?.fill(0);
        self.len = end;
        Some(self)
    }

    /// What the file says; nothing if it cannot be read.
    fn read<'b>(&self, os: &dyn Os, into: &'b mut [u8; FILE]) -> &'b [u8] {
        let path = CStr::from_bytes_until_nul(&self.bytes).ok();
        let len = path.and_then(|path| os.read(path, into)).unwrap_or(0);
        into.get(..len).unwrap_or(&[])
    }

    fn number(&self, os: &dyn Os, into: &mut [u8; FILE]) -> Option<u64> {
        number(self.read(os, into))
    }
}

/// The number at the begin of a text, with a hundredth part if there is one.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    core::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}

/// What stands behind `name` where a line begins with it.
fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

/// The control group of a process. All zeros: nothing is known.
pub struct Group {
    looks: u32,
    /// One or two; zero: there is none with a limit.
    version: u8,
    limit: u64,
    path: Path,
}

impl Group {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self { looks: 0, version: 0, limit: 0, path: Path::EMPTY }
    }

    /// Looks whether the group is short of memory. Two to four system calls for each file.
    pub fn look(&mut self, os: &dyn Os) -> Shortage {
        let mut text = [0; FILE];
        if self.looks % SEARCH == 0 {
            self.search(os, &mut text);
        }
        self.looks = self.looks.wrapping_add(1);
        let files = self.files();
        let path = self.path;
        let mut shortage = Shortage { stalled: Self::stalled(os, path, &mut text), ..Shortage::default() };
        if let Some(files) = files {
            let cache = path.file(b"memory.stat").map_or(0, |stat| {
                let text = stat.read(os, &mut text);
                let pages = files.cache.iter().filter_map(|name| number(field(text, name)?));
                pages.fold(0, u64::saturating_add)
            });
            if let Some(used) = path.file(files.usage).and_then(|usage| usage.number(os, &mut text)) {
                shortage.limit = Some(self.limit);
                shortage.used = used.saturating_sub(cache);
            }
        }
        shortage
    }

    fn files(&self) -> Option<&'static Files> {
        match self.version {
            1 => Some(&VERSION_1),
            2 => Some(&VERSION_2),
            _ => None,
        }
    }

    /// True if threads wait for memory: of the group, or if that is not known, of the system.
    fn stalled(os: &dyn Os, group: Path, text: &mut [u8; FILE]) -> bool {
        let mut some = |path: Option<Path>| -> Option<u64> {
            let line = field(path?.read(os, text), b"some avg10=")?;
            let rest = line.get(line.iter().position(|byte| *byte == b'.')? + 1..)?;
            Some(number(line)?.saturating_mul(100).saturating_add(number(rest.get(..2)?)?))
        };
        some(group.file(b"memory.pressure"))
            .or_else(|| some(Path::EMPTY.with(b"/proc/pressure/memory")))
            .is_some_and(|part| part >= STALLED)
    }

    /// Finds the group with the smallest limit among those that the process is in.
    fn search(&mut self, os: &dyn Os, text: &mut [u8; FILE]) {
        *self = Self { looks: self.looks, ..Self::new() };
        let mut groups = [0; FILE];
        let Some(own) = Path::EMPTY.with(b"/proc/self/cgroup") else { return };
        let groups = own.read(os, &mut groups);
        for line in groups.split(|byte| *byte == b'\n') {
            let mut parts = line.splitn(3, |byte| *byte == b':');
            let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let version = match (number, controllers) {
                (b"0", b"") => 2,
                _ if controllers.split(|byte| *byte == b',').any(|name| name == b"memory") => 1,
                _ => continue,
            };
            self.search_from(os, version, path, text);
        }
    }

    /// Looks at the group of this path and at all above it.
    fn search_from(&mut self, os: &dyn Os, version: u8, path: &[u8], text: &mut [u8; FILE]) {
        let files = if version == 1 { &VERSION_1 } else { &VERSION_2 };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut at = Path::EMPTY.with(files.root).and_then(|root| root.with(path));
        while let Some(group) = at {
            if self.path.len == 0 && version == 2 {
                self.path = group; // for its pressure, should there be no limit
            }
            for limit in files.limits {
                let limit = group.file(limit).and_then(|file| file.number(os, text)).filter(|limit| *limit < NO_LIMIT);
                if let Some(limit) = limit.filter(|limit| self.version == 0 || *limit < self.limit) {
                    (self.version, self.limit, self.path) = (version, limit, group);
                }
            }
            at = group.parent(files.root.len());
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::kswapd::Kswapd;
    use crate::page_counter::PageCounter;
    use crate::sync::{Park, Word};
    use core::ptr::NonNull;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::string::{String, ToString};
    use std::vec::Vec;

    /// A system that has these files and nothing else.
    struct Tree(HashMap<String, Vec<u8>>);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            Self(files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect())
        }

        fn look(&self) -> Shortage {
            Group::default().look(self)
        }
    }

    impl Park for Tree {
        fn wait(&self, _: &Word, _: u32) {}
        fn wait_for(&self, _: &Word, _: u32, _: u32) {}
        fn wake_one(&self, _: &Word) {}
        fn wake_all(&self, _: &Word) {}
        fn nap(&self) {}
        fn current(&self) -> usize {
            1
        }
    }

    // SAFETY: it gives no memory at all.
    unsafe impl Os for Tree {
        fn page_size(&self) -> usize {
            4096
        }
        fn cpus(&self) -> usize {
            1
        }
        fn map(&self, _: usize) -> Option<NonNull<u8>> {
            None
        }
        fn reserve(&self, _: usize) -> Option<NonNull<u8>> {
            None
        }
        unsafe fn commit(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn unmap(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn discard(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn advise_huge(&self, _: NonNull<u8>, _: usize, _: bool) -> bool {
            false
        }
        unsafe fn populate(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn resize(&self, _: NonNull<u8>, _: usize, _: usize) -> bool {
            false
        }
        unsafe fn relocate(&self, _: NonNull<u8>, _: usize, _: usize) -> Option<NonNull<u8>> {
            None
        }
        unsafe fn guard(&self, _: NonNull<u8>, _: usize, _: bool) -> bool {
            false
        }
        unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &core::ffi::CStr) -> bool {
            false
        }
        fn resident(&self, _: NonNull<u8>, _: usize) -> Option<usize> {
            None
        }
        fn read(&self, path: &CStr, into: &mut [u8]) -> Option<usize> {
            let text = self.0.get(path.to_str().unwrap())?;
            let len = text.len().min(into.len());
            into[..len].copy_from_slice(&text[..len]);
            Some(len)
        }
        fn yield_now(&self) {}
        fn now(&self) -> u64 {
            0
        }
    }

    const V2: &str = "/sys/fs/cgroup";
    const V1: &str = "/sys/fs/cgroup/memory";

    #[test]
    fn the_smallest_limit_above_the_process_counts() {
        let leaf = [
            ("/proc/self/cgroup", "0::/pod/leaf\n"),
            (&*[V2, "/pod/leaf/memory.max"].concat(), "max\n"),
            (&*[V2, "/pod/leaf/memory.high"].concat(), "max\n"),
            (&*[V2, "/pod/leaf/memory.current"].concat(), "5\n"),
            (&*[V2, "/pod/memory.max"].concat(), "1000\n"),
            (&*[V2, "/pod/memory.high"].concat(), "800\n"),
            (&*[V2, "/pod/memory.current"].concat(), "750\n"),
            (&*[V2, "/pod/memory.stat"].concat(), "anon 1\ninactive_file 40\nactive_file 7\n"),
        ];
        let shortage = Tree::new(&leaf).look();
        assert_eq!(shortage, Shortage { limit: Some(800), used: 703, stalled: false });
        assert!(shortage.is_short() && shortage.room() == 97);
    }

    #[test]
    fn a_group_of_version_1_is_one_too() {
        let files = [
            ("/proc/self/cgroup", "12:cpu,cpuacct:/x\n9:memory:/docker/abc\n0::/\n"),
            (&*[V1, "/memory.limit_in_bytes"].concat(), "2000\n"), // the container's, at the root of its mount
            (&*[V1, "/memory.soft_limit_in_bytes"].concat(), "9223372036854771712\n"),
            (&*[V1, "/memory.usage_in_bytes"].concat(), "1000\n"),
            (&*[V1, "/memory.stat"].concat(), "inactive_file 3\ntotal_inactive_file 100\n"),
        ];
        let shortage = Tree::new(&files).look();
        assert_eq!(shortage, Shortage { limit: Some(2000), used: 900, stalled: false });
        assert!(!shortage.is_short());
    }

    #[test]
    fn threads_that_wait_for_memory_are_a_shortage() {
        let text = |part: &str| ["some avg10=", part, " avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n"].concat();
        for (part, short) in [("9.99", false), ("10.00", true), ("73.50", true)] {
            let pressure = text(part);
            let group = [("/proc/self/cgroup", "0::/a\n"), ("/sys/fs/cgroup/a/memory.pressure", &*pressure)];
            assert_eq!(Tree::new(&group).look().is_short(), short, "{part}");
            let system = [("/proc/pressure/memory", &*pressure)];
            assert_eq!(Tree::new(&system).look().is_short(), short, "{part}");
        }
        let (calm, busy) = (text("0.00"), text("50.00"));
        let group = [
            ("/proc/self/cgroup", "0::/a\n"),
            ("/sys/fs/cgroup/a/memory.pressure", &*calm),
            ("/proc/pressure/memory", &*busy),
        ];
        assert!(!Tree::new(&group).look().is_short(), "its own pressure is what counts");
    }

    #[test]
    fn a_system_without_groups_is_never_short() {
        assert_eq!(Tree::new(&[]).look(), Shortage::default());
        assert!(!Shortage::default().is_short() && Shortage::default().room() == u64::MAX);
        // A limit whose use cannot be read.
        let files = [("/proc/self/cgroup", "0::/a\n"), ("/sys/fs/cgroup/a/memory.max", "1\n")];
        assert_eq!(Tree::new(&files).look(), Shortage::default());
        let long = ["0::/", &"a".repeat(2 * PATH), "\n"].concat();
        assert_eq!(Tree::new(&[("/proc/self/cgroup", &*long)]).look(), Shortage::default());
    }

    #[test]
    fn no_more_stays_resident_than_half_of_what_the_group_may_go_on_to_have() {
        let (kswapd, counter) = (Kswapd::new(), PageCounter::new());
        let usual = kswapd.watermarks(0, 1 << 30, &counter);
        let mut tree = Tree::new(&[
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "1000000000\n"),
            ("/sys/fs/cgroup/memory.current", "0\n"),
        ]);
        let mut marks = |used: &str| {
            tree.0.insert("/sys/fs/cgroup/memory.current".to_string(), used.as_bytes().to_vec());
            kswapd.look_at_group(&tree, &mut kswapd.hold_still(&tree));
            let marks = kswapd.watermarks(0, 1 << 30, &counter);
            (marks.low, marks.high, kswapd.is_group_short())
        };
        assert_eq!(marks("0"), (usual.low, usual.high, false));
        assert_eq!(marks("870000000"), (usual.low, usual.high, false));
        assert_eq!(marks("880000000"), (0, 0, true));
        kswapd.set_cgroup(false);
        assert_eq!(marks("880000000"), (usual.low, usual.high, false), "nobody looks any more");
        kswapd.set_cgroup(true);
        assert_eq!(marks("880000000"), (0, 0, true));
        kswapd.fork();
        assert!(!kswapd.is_group_short(), "a child has no thread that would look again");
        kswapd.set_watermarks(Some(200_000_000), Some(400_000_000)).unwrap();
        assert_eq!(marks("800000000"), (100_000_000, 100_000_000, false));
    }

    #[test]
    fn a_limit_that_changes_is_seen_some_time() {
        let mut tree = Tree::new(&[
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.current", "500\n"),
        ]);
        let mut group = Group::new();
        assert!(!group.look(&tree).is_short());
        tree.0.insert("/sys/fs/cgroup/memory.max".to_string(), b"510\n".to_vec());
        assert!((0..SEARCH).any(|_| group.look(&tree).is_short()));
        tree.0.clear();
        assert!((0..=SEARCH).any(|_| group.look(&tree) == Shortage::default()));
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(
            groups in prop::collection::vec(any::<u8>(), 0..100),
            other in "[a-z0-9 .=\n/:]{0,200}",
            known in prop::sample::select(std::vec!["0::/a\n", "1:memory:/\n", "0::\n", "0::/../..\n", ""]),
        ) {
            let mut tree = Tree::new(&[]);
            let groups = if known.is_empty() { groups } else { known.as_bytes().to_vec() };
            tree.0.insert("/proc/self/cgroup".to_string(), groups);
            for file in ["memory.max", "memory.high", "memory.current", "memory.stat", "memory.pressure"] {
                for place in ["/sys/fs/cgroup/", "/sys/fs/cgroup/a/"] {
                    tree.0.insert([place, file].concat(), other.as_bytes().to_vec());
                }
            }
            tree.look();
        }
    }
}
