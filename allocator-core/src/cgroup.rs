//! cgroup: whether the control group that the process is in is short of memory.
//!
//! # Algorithm
//! `/proc/self/cgroup` says which group that is. It and those above it, up to the root, may have limits: in `memory.max` and
//! `memory.high` (version 2), or in the hard and the soft `limit_in_bytes` (version 1), of which the smaller counts. Each is
//! charged with what is used in all groups below it (in version 1 if `memory.use_hierarchy` says so), so that the one with the
//! least room left may be any of them. A group is short when what it uses, without page cache, which the system can take back, is
//! above seven eighths of its limit; or when the system says that some threads of the process's own group wait for memory a tenth
//! of the time, whoever's limit it is that they wait for (pressure stall information, `memory.pressure`, or that of the whole
//! system). Limits are looked up once in a while, the rest at each look: of each group with a limit what it is charged with, and
//! only of one that may be the one with the least room what of that is page cache, for which the system walks all groups below.
//!
//! A file that is not there, or not as expected, says nothing: then the group is not short. In a container the files of the
//! group may lie at the root of the mount; a file that does not exist is looked for in the parent.
//!
//! Nothing is refused because of a group: the system does that by itself.

use crate::sys::Os;
use core::ffi::CStr;

/// Looks between two searches for the limit.
const SEARCH: u32 = 64;

/// The longest path of a group that is looked at, with the name of a file.
const PATH: usize = 512;

/// Groups with a limit that are looked at, from that of the process upwards.
const LIMITS: usize = 8;

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
    /// The limit in bytes of the group that is short, or has the least room, if one has a limit.
    pub limit: Option<u64>,
    /// What that group uses, without page cache.
    pub used: u64,
    /// Threads of the process's own group wait for memory.
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

    /// Whether less is left in this group than in the other one: it is short and the other one is not, or has less room.
    fn is_worse_than(&self, other: &Self) -> bool {
        (!self.is_short(), self.room()) < (!other.is_short(), other.room())
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

    /// The first `len` bytes of it, which is no longer than the path.
    fn prefix(mut self, len: usize) -> Option<Self> {
        self.bytes.get_mut(len..)?.fill(0);
        self.len = len;
        Some(self)
    }

    /// The path without its last part, but at least `least` long. `None`: it is that already.
    fn parent(self, least: usize) -> Option<Self> {
        let end = self.bytes.get(..self.len)?.iter().rposition(|byte| *byte == b'/')?.max(least);
        if end < self.len {
            self.prefix(end)
        } else {
            None
        }
    }

    /// This path and those of all directories above it, down to a length of `least`.
    fn and_above(self, least: usize) -> impl Iterator<Item = Self> {
        core::iter::successors(Some(self), move |path| path.parent(least))
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

/// The number at the begin of a text.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    core::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}

/// What stands behind `name` where a line begins with it.
fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

/// A group that has a limit.
#[derive(Clone, Copy)]
struct Limit {
    /// So much of the path of the process's own group is that of this one.
    path_len: usize,
    bytes: u64,
}

/// The control group of a process. All zeros: nothing is known.
pub struct Group {
    looks: u32,
    /// What is looked at. `None`: no group is known.
    files: Option<&'static Files>,
    /// Of the group that the process is in.
    path: Path,
    limits: [Limit; LIMITS],
}

impl Group {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self { looks: 0, files: None, path: Path::EMPTY, limits: [Limit { path_len: 0, bytes: 0 }; LIMITS] }
    }

    /// Looks whether the group, or one above it, is short of memory. Two to four system calls for each file.
    pub fn look(&mut self, os: &dyn Os) -> Shortage {
        let mut text = [0; FILE];
        if self.looks % SEARCH == 0 {
            self.search(os, &mut text);
        }
        self.looks = self.looks.wrapping_add(1);
        let mut worst = Shortage::default();
        for limit in self.limits.iter().take_while(|limit| limit.path_len != 0) {
            let Some((group, files)) = self.path.prefix(limit.path_len).zip(self.files) else { continue };
            let Some(charged) = group.file(files.usage).and_then(|file| file.number(os, &mut text)) else { continue };
            let mut found = Shortage { limit: Some(limit.bytes), used: charged, stalled: false };
            if found.is_worse_than(&worst) {
                found.used = charged.saturating_sub(Self::cache(os, group, files, &mut text));
            }
            if found.is_worse_than(&worst) {
                worst = found;
            }
        }
        Shortage { stalled: self.stalled(os, &mut text), ..worst }
    }

    /// Bytes of page cache that a group is charged with.
    fn cache(os: &dyn Os, group: Path, files: &Files, text: &mut [u8; FILE]) -> u64 {
        let Some(stat) = group.file(b"memory.stat") else { return 0 };
        let text = stat.read(os, text);
        files.cache.iter().filter_map(|name| number(field(text, name)?)).fold(0, u64::saturating_add)
    }

    /// True if threads wait for memory: of the process's group, or if that is not known, of the nearest above it, or of the system.
    fn stalled(&self, os: &dyn Os, text: &mut [u8; FILE]) -> bool {
        let mut some = |path: Option<Path>| -> Option<u64> {
            let line = field(path?.read(os, text), b"some avg10=")?;
            let rest = line.get(line.iter().position(|byte| *byte == b'.')? + 1..)?;
            Some(number(line)?.saturating_mul(100).saturating_add(number(rest.get(..2)?)?))
        };
        let mut groups = self.files.into_iter().flat_map(|files| self.path.and_above(files.root.len()));
        let of_group = groups.find_map(|group| some(group.file(b"memory.pressure")));
        of_group.or_else(|| some(Path::EMPTY.with(b"/proc/pressure/memory"))).is_some_and(|part| part >= STALLED)
    }

    /// Finds the group that the process is in, and the limits that it is under.
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
            let files = match (number, controllers) {
                (b"0", b"") => &VERSION_2,
                _ if controllers.split(|byte| *byte == b',').any(|name| name == b"memory") => &VERSION_1,
                _ => continue,
            };
            let path = path.strip_suffix(b"/").unwrap_or(path);
            let Some(path) = Path::EMPTY.with(files.root).and_then(|root| root.with(path)) else { continue };
            (self.path, self.files) = (path, Some(files)); // for its pressure, should there be no limit
            if self.search_from(os, files, text) {
                return;
            }
        }
    }

    /// Looks for limits of the group of this path and of all above it. True if there are some.
    fn search_from(&mut self, os: &dyn Os, files: &Files, text: &mut [u8; FILE]) -> bool {
        let mut found = 0;
        for group in self.path.and_above(files.root.len()) {
            let mut bytes = NO_LIMIT;
            for limit in files.limits {
                let limit = group.file(limit).and_then(|file| file.number(os, text));
                bytes = limit.map_or(bytes, |limit| limit.min(bytes));
            }
            if bytes < NO_LIMIT {
                let Some(limit) = self.limits.get_mut(found) else { break };
                *limit = Limit { path_len: group.len, bytes };
                found += 1;
            }
        }
        found > 0
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
    use crate::sys::Guarded;
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
        unsafe fn guard(&self, _: NonNull<u8>, _: usize) -> Option<Guarded> {
            None
        }
        unsafe fn unguard(&self, _: NonNull<u8>, _: usize, _: Guarded) -> bool {
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
    fn the_group_with_the_least_room_counts_wherever_it_is() {
        let tree = |leaf: &str, pod: &str, root: &str| {
            let files = [
                ("/proc/self/cgroup", "0::/pod/leaf\n"),
                (&*[V2, "/pod/leaf/memory.max"].concat(), "1000\n"),
                (&*[V2, "/pod/leaf/memory.current"].concat(), leaf),
                (&*[V2, "/pod/memory.max"].concat(), "2000\n"),
                (&*[V2, "/pod/memory.current"].concat(), pod),
                (&*[V2, "/pod/memory.pressure"].concat(), "some avg10=20.00 avg60=0.00\n"),
                (&*[V2, "/pod/leaf/memory.pressure"].concat(), "some avg10=2.00 avg60=0.00\n"),
                (&*[V2, "/memory.max"].concat(), "100000\n"),
                (&*[V2, "/memory.current"].concat(), root),
            ];
            Tree::new(&files).look()
        };
        let of = |limit, used, stalled| Shortage { limit: Some(limit), used, stalled };
        assert_eq!(tree("100", "500", "500"), of(1000, 100, false));
        assert_eq!(tree("100", "1400", "1400"), of(2000, 1400, false), "what others use counts, but not how they wait");
        assert_eq!(tree("100", "?", "1400"), of(1000, 100, false), "what cannot be read says nothing");
        assert_eq!(
            tree("600", "1500", "99000"),
            of(100_000, 99_000, false),
            "one that is short has more room than others"
        );
        assert_eq!(tree("950", "950", "99000"), of(1000, 950, false));
    }

    #[test]
    fn page_cache_is_room_in_each_group() {
        let tree = |pod_cache: &str| {
            let files = [
                ("/proc/self/cgroup", "0::/pod/leaf\n"),
                (&*[V2, "/pod/leaf/memory.max"].concat(), "1000\n"),
                (&*[V2, "/pod/leaf/memory.current"].concat(), "950\n"),
                (&*[V2, "/pod/leaf/memory.stat"].concat(), "inactive_file 900\n"),
                (&*[V2, "/pod/memory.max"].concat(), "2000\n"),
                (&*[V2, "/pod/memory.current"].concat(), "1400\n"),
                (&*[V2, "/pod/memory.stat"].concat(), pod_cache),
            ];
            Tree::new(&files).look()
        };
        let of = |limit, used| Shortage { limit: Some(limit), used, stalled: false };
        assert_eq!(tree("inactive_file 300\n"), of(2000, 1100));
        assert_eq!(tree("inactive_file 100\nactive_file 300\n"), of(1000, 50));
    }

    #[test]
    fn of_many_groups_with_a_limit_the_nearest_count() {
        let mut tree = Tree::new(&[("/proc/self/cgroup", "0::/a/a/a/a/a/a/a/a/a\n")]);
        for depth in 0..10 {
            let group = [V2, &"/a".repeat(depth)].concat();
            tree.0.insert([&group, "/memory.max"].concat(), b"1000".to_vec());
            tree.0.insert([&group, "/memory.current"].concat(), (1000 - depth).to_string().into_bytes());
        }
        assert_eq!(tree.look(), Shortage { limit: Some(1000), used: 998, stalled: false });
    }

    #[test]
    fn the_smaller_limit_of_a_group_counts() {
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
            let mount = [("/proc/self/cgroup", "0::/a/b\n"), ("/sys/fs/cgroup/memory.pressure", &*pressure)];
            assert_eq!(Tree::new(&mount).look().is_short(), short, "{part}: a container's, at the root of its mount");
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
