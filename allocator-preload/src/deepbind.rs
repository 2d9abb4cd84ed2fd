//! deepbind: what is opened with `RTLD_DEEPBIND` has the program's heap, too.
//!
//! A library that a program opens so looks for each name in itself and in what it needs first, and finds the C library's `free` there,
//! and not that of a library which is loaded before the program. So it gives the one heap what comes from the other, be it
//! from the program or from the C library's own `strdup`, and the process ends. PHP opens its extensions so, and Julia all libraries.
//!
//! # Algorithm
//! [`dlopen`] is a function of this library. It opens the file as it was asked to, by the function that comes next, so all other names are
//! bound as the program wants them. Then it goes through the relocations of that library, and of those that it needs: a word that
//! has the C library's function for a name of the heap, or that is not bound yet, gets the function that the name means for the
//! program as a whole. So does one that has the C library's `dlopen`. Where a library brings another heap with it, nothing is done.
//! Pages that the dynamic linker has made read-only are writable meanwhile.
//!
//! It is done again whenever the library is opened so: another thread may have the handle before the first one is done.
//!
//! A library's constructors have run by then, and have had the C library's heap. What they leave is freed as what it is: it is foreign,
//! and is passed on.
//!
//! A name without a slash, or with `$ORIGIN`, is looked for where the *caller* says, so all that need not come back here is a jump: what
//! is opened without the flag, and such names, which stay as they were.

use allocator_core::sys::{Os, Unix};
use allocator_global::is_ours;
use core::ffi::{c_char, c_int, c_long, c_void, CStr};
use core::mem::transmute;
use core::ops::Range;
use core::ptr::{addr_of_mut, null, null_mut};
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use libc::{dl_phdr_info, Elf64_Phdr, Elf64_Sym};

type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;

/// The names of the heap, but for those of C++, which are the C++ library's and call these; and, last, what opens further libraries.
const NAMES: [&CStr; 14] = [
    c"malloc",
    c"calloc",
    c"realloc",
    c"reallocarray",
    c"free",
    c"memalign",
    c"aligned_alloc",
    c"posix_memalign",
    c"valloc",
    c"pvalloc",
    c"malloc_usable_size",
    c"free_sized",
    c"free_aligned_sized",
    c"dlopen",
];

/// As the C library's.
///
/// # Safety
/// As for that.
#[no_mangle]
pub(crate) unsafe extern "C" fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void {
    let Some(open) = next() else { return null_mut() };
    // SAFETY: null, or text that ends, by contract.
    if flags & libc::RTLD_DEEPBIND != 0 && unsafe { is_path(file) } {
        // SAFETY: by contract.
        return unsafe { open_deeply(open, file, flags) };
    }
    // The last act of this function, so a jump, as long as nothing of this function's is on the stack whose address is known elsewhere.
    // SAFETY: by contract.
    unsafe { open(file, flags) }
}

/// The `dlopen` that comes next, or null.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The `dlopen` that comes next. `None`: there is none, as in a program that is linked statically.
fn next() -> Option<Open> {
    if NEXT.load(Relaxed).is_null() {
        look_for_next();
    }
    // SAFETY: null, or a function of this type.
    unsafe { transmute::<*mut c_void, Option<Open>>(NEXT.load(Relaxed)) }
}

#[cold]
#[inline(never)]
fn look_for_next() {
    // A program's own `dlsym` may come back here, and is to find the C library's. And it may ask in the name of its caller, for whom
    // we are what comes next.
    let is_next = |found: *mut c_void| {
        let is_next = !found.is_null() && !is_ours(found);
        if is_next {
            NEXT.store(found, Relaxed);
        }
        is_next
    };
    // SAFETY: a name and a version that end.
    let of = |version: &CStr| unsafe { libc::dlvsym(libc::RTLD_NEXT, c"dlopen".as_ptr(), version.as_ptr()) };
    VERSIONS.into_iter().any(|version| is_next(of(version)));
    // SAFETY: a name that ends.
    is_next(unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) });
}

/// Versions of the C library that have one: in it, or in a library beside it.
#[cfg(target_arch = "x86_64")]
const VERSIONS: [&CStr; 2] = [c"GLIBC_2.34", c"GLIBC_2.2.5"];
#[cfg(target_arch = "aarch64")]
const VERSIONS: [&CStr; 2] = [c"GLIBC_2.34", c"GLIBC_2.17"];

/// Whether a name says all of where the file is.
///
/// # Safety
/// Null, or text that ends.
unsafe fn is_path(file: *const c_char) -> bool {
    if file.is_null() {
        return false;
    }
    // SAFETY: text that ends.
    let file = unsafe { CStr::from_ptr(file) }.to_bytes();
    file.contains(&b'/') && !file.contains(&b'$')
}

/// # Safety
/// As for [`dlopen`].
#[cold]
#[inline(never)]
unsafe extern "C" fn open_deeply(open: Open, file: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: by contract.
    let handle = unsafe { open(file, flags) };
    if !handle.is_null() {
        // SAFETY: just opened.
        unsafe { rebind(open, handle) };
    }
    handle
}

/// A name: what it means to a library, or zero, and to the program as a whole.
struct Name {
    name: &'static CStr,
    theirs: usize,
    ours: usize,
}

/// Binds names of the heap as the program has them, in the library of `handle` and those that it needs.
///
/// # Safety
/// A handle of a library that is loaded.
#[inline(never)]
unsafe fn rebind(open: Open, handle: *mut c_void) {
    // SAFETY: by contract.
    let names = unsafe { look_up(open, handle) };
    // SAFETY: by contract.
    let first = unsafe { dynamic_of(handle) };
    // A name that is not there is no failure of the call that the program made.
    // SAFETY: has no precondition.
    unsafe { libc::dlerror() };
    if let (Some(names), Some(first)) = (names, first) {
        Family { names, first, members: [None; FAMILY] }.rebind();
    }
}

/// Libraries in a family at most.
const FAMILY: usize = 64;

/// A library that was opened, and those that it needs, as far as they have been found. All of them are loaded and relocated, and
/// stay as long as the handle.
struct Family {
    names: [Name; NAMES.len()],
    first: *const Dynamic,
    members: [Option<Object<'static>>; FAMILY],
}

impl Family {
    fn rebind(&mut self) {
        let first = self.first;
        self.join(|object, _| object.dynamic.as_ptr() == first);
        let mut n = 0;
        while let Some(member) = self.members.get(n).copied().flatten() {
            for needed in member.texts(DT_NEEDED) {
                // By the name of its file alone, an older one is meant only if there is no other: one that was opened by its path has not
                // that name for the dynamic linker.
                _ = self.join(|object, _| object.is_called(needed))
                    || self.join(|object, is_new| is_new && object.is_file(needed))
                    || self.join(|object, _| object.is_file(needed));
            }
            n += 1;
        }
    }

    /// Takes in, and rebinds, the first library that `is` it, as the dynamic linker takes the first; `is` is told whether it is no older
    /// than the one that was opened. False: there is none.
    fn join(&mut self, is: impl Fn(&Object<'_>, bool) -> bool) -> bool {
        let (mut is_new, mut found) = (false, false);
        each_object(&mut |object| {
            // SAFETY: it is loaded; kept only if it is one of the family.
            let Some(object) = (unsafe { Object::new(object) }) else { return true };
            is_new |= object.dynamic.as_ptr() == self.first;
            if !is(&object, is_new) {
                return true;
            }
            found = true;
            let is_known = self.members.iter().flatten().any(|known| known.dynamic.as_ptr() == object.dynamic.as_ptr());
            if let Some(place) = self.members.iter_mut().find(|place| place.is_none()).filter(|_| !is_known) {
                *place = Some(object);
                object.rebind(&self.names, is_new);
            }
            false
        });
        found
    }
}

/// What the names mean to a library that is deeply bound. `None`: one of them is of another heap than the C library's.
///
/// # Safety
/// A handle of a library that is loaded.
unsafe fn look_up(open: Open, handle: *mut c_void) -> Option<[Name; NAMES.len()]> {
    // SAFETY: a name that ends; nothing is loaded, and the C library stays.
    let c_library = unsafe { open(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    // SAFETY: a name that ends; a handle of what is loaded, or what means all of the program.
    let find = |handle, name: &CStr| unsafe { libc::dlsym(handle, name.as_ptr()) } as usize;
    let mut names = NAMES.map(|name| Name { name, theirs: find(handle, name), ours: find(libc::RTLD_DEFAULT, name) });
    let [heap @ .., opener] = &mut names;
    // A function of somebody else that opens libraries stays where it is, and where it is not.
    if opener.theirs != open as usize || !is_ours(opener.ours as *mut c_void) {
        opener.theirs = 0;
    }
    let is_of_c_library = |name: &Name| name.theirs == 0 || name.theirs == find(c_library, name.name);
    (!c_library.is_null() && heap.iter().all(is_of_c_library)).then_some(names)
}

/// Where the dynamic section of a library is.
///
/// # Safety
/// A handle of a library that is loaded.
unsafe fn dynamic_of(handle: *mut c_void) -> Option<*const Dynamic> {
    let mut map: *const LinkMap = null();
    // SAFETY: by contract; there is room for the answer.
    unsafe { libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, addr_of_mut!(map).cast()) };
    // SAFETY: null, or the dynamic linker's description of it.
    unsafe { map.as_ref() }.map(|map| map.dynamic)
}

/// Shows what is loaded, in the order in which it was, as long as `show` returns true. Nothing is added or taken away meanwhile: the
/// dynamic linker holds a lock, so `show` calls nothing that may take another.
fn each_object(mut show: &mut dyn FnMut(&dl_phdr_info) -> bool) {
    unsafe extern "C" fn next(object: *mut dl_phdr_info, _: usize, show: *mut c_void) -> c_int {
        // SAFETY: it is `show`.
        let show = unsafe { &mut *show.cast::<&mut dyn FnMut(&dl_phdr_info) -> bool>() };
        // SAFETY: the dynamic linker's, for this call.
        c_int::from(!show(unsafe { &*object }))
    }
    // SAFETY: a function that takes what it is given.
    unsafe { libc::dl_iterate_phdr(Some(next), addr_of_mut!(show).cast()) };
}

/// The begin of the dynamic linker's `link_map`.
#[repr(C)]
struct LinkMap {
    address: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

/// `Elf64_Rela`.
#[repr(C)]
struct Relocation {
    offset: usize,
    kind: u32,
    symbol: u32,
    addend: i64,
}

const DT_NEEDED: i64 = 1;
const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_SONAME: i64 = 14;
const DT_JMPREL: i64 = 23;

/// Kinds of relocations: a word of data that is a symbol's address, one that code loads, and one that code jumps by.
const ADDRESSES: [u32; 3] = [DATA, CODE, JUMP];
#[cfg(target_arch = "x86_64")]
mod kind {
    pub(super) const DATA: u32 = 1;
    pub(super) const CODE: u32 = 6;
    pub(super) const JUMP: u32 = 7;
}
#[cfg(target_arch = "aarch64")]
mod kind {
    pub(super) const DATA: u32 = 257;
    pub(super) const CODE: u32 = 1025;
    pub(super) const JUMP: u32 = 1026;
}
use kind::{CODE, DATA, JUMP};

/// A library that is loaded.
#[derive(Clone, Copy)]
struct Object<'a> {
    name: &'a CStr,
    base: usize,
    segments: &'a [Elf64_Phdr],
    dynamic: &'a [Dynamic],
    symbols: Option<*const Elf64_Sym>,
    text: Option<*const c_char>,
}

impl<'a> Object<'a> {
    /// `None`: it is not linked dynamically.
    ///
    /// # Safety
    /// It is loaded, and stays so.
    unsafe fn new(object: &dl_phdr_info) -> Option<Self> {
        let base = object.dlpi_addr as usize;
        // SAFETY: text that ends.
        let name = unsafe { CStr::from_ptr(object.dlpi_name) };
        // SAFETY: by contract.
        let segments = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        let segment = segments.iter().find(|segment| segment.p_type == libc::PT_DYNAMIC)?;
        let n = segment.p_memsz as usize / size_of::<Dynamic>();
        // SAFETY: the dynamic linker reads it there.
        let dynamic = unsafe { slice::from_raw_parts((base + segment.p_vaddr as usize) as *const Dynamic, n) };
        let mut object = Self { name, base, segments, dynamic, symbols: None, text: None };
        (object.symbols, object.text) = (object.array(DT_SYMTAB), object.array(DT_STRTAB));
        Some(object)
    }

    fn entries(&self, tag: i64) -> impl Iterator<Item = usize> + '_ {
        self.dynamic
            .iter()
            .take_while(|entry| entry.tag != 0)
            .filter(move |entry| entry.tag == tag)
            .map(|entry| entry.value)
    }

    fn entry(&self, tag: i64) -> Option<usize> {
        self.entries(tag).next()
    }

    /// The array of which an entry says where it begins: most dynamic linkers have made an address of that.
    fn array<T>(&self, tag: i64) -> Option<*const T> {
        let value = self.entry(tag)?;
        Some(if value < self.base { self.base + value } else { value } as *const T)
    }

    /// Whether who needs a library of this name means this one: by the name that it has in itself, or its path.
    fn is_called(&self, name: &CStr) -> bool {
        name == self.name || self.texts(DT_SONAME).any(|own| own == name)
    }

    /// Whether it may: by the name of its file. (`$ORIGIN` is replaced in that.)
    fn is_file(&self, name: &CStr) -> bool {
        let (name, file) = (name.to_bytes(), self.name.to_bytes());
        let name = if name.contains(&b'$') { file_name(name) } else { name };
        name == file_name(file)
    }

    /// Binds words that have the C library's functions for these names to ours, and if it `is_new` those that are not bound yet, too.
    fn rebind(&self, names: &[Name], is_new: bool) {
        let read_only = self.read_only_after_relocation();
        let is_read_only = |word: &AtomicUsize| read_only.contains(&(word.as_ptr() as usize));
        let must_be_writable = self.words(names, is_new).any(|(word, _)| is_read_only(word));
        if must_be_writable && !protect(&read_only, libc::PROT_READ | libc::PROT_WRITE) {
            return;
        }
        self.words(names, is_new).for_each(|(word, name)| word.store(name.ours, Relaxed));
        if must_be_writable {
            protect(&read_only, libc::PROT_READ);
        }
    }

    /// Words that are to have another value, and the name that each is of.
    fn words<'n>(&'n self, names: &'n [Name], is_new: bool) -> impl Iterator<Item = (&'n AtomicUsize, &'n Name)> {
        let of = |array, bytes| {
            let (first, bytes) = (self.array::<Relocation>(array), self.entry(bytes).unwrap_or(0));
            // SAFETY: the dynamic linker reads them there.
            first.map_or(&[][..], |first| unsafe { slice::from_raw_parts(first, bytes / size_of::<Relocation>()) })
        };
        let relocations = of(DT_RELA, DT_RELASZ).iter().chain(of(DT_JMPREL, DT_PLTRELSZ));
        relocations.filter_map(move |relocation| {
            let wanted = self.symbol_elsewhere(relocation)?;
            let name = names.iter().find(|name| name.name == wanted && name.theirs != 0 && name.ours != 0)?;
            let place = self.base + relocation.offset;
            if place % size_of::<AtomicUsize>() != 0 || !self.has(place, libc::PF_W) {
                return None;
            }
            // SAFETY: a word of its data, which the dynamic linker may write at any time, and others read.
            let word = unsafe { &*(place as *const AtomicUsize) };
            let is = word.load(Relaxed);
            let is_unbound = is_new && relocation.kind == JUMP && self.has(is, 0);
            (is == name.theirs || is_unbound).then_some((word, name))
        })
    }

    /// The name of the symbol whose address a relocation wants, if the library has not that symbol itself.
    fn symbol_elsewhere(&self, relocation: &Relocation) -> Option<&'a CStr> {
        // What a linker says of an entry of its table beside that is no part of the address.
        let is_more = relocation.kind == DATA && relocation.addend != 0;
        if relocation.symbol == 0 || is_more || !ADDRESSES.contains(&relocation.kind) {
            return None;
        }
        // SAFETY: where one of the symbols is.
        let symbol = unsafe { self.symbols?.add(relocation.symbol as usize) };
        // SAFETY: it is there.
        let symbol = unsafe { &*symbol };
        if symbol.st_shndx == 0 {
            self.text(symbol.st_name as usize)
        } else {
            None
        }
    }

    /// The text that begins so far from the first one.
    fn text(&self, offset: usize) -> Option<&'a CStr> {
        // SAFETY: where one of them begins.
        let start = unsafe { self.text?.add(offset) };
        // SAFETY: it is there, and ends.
        Some(unsafe { CStr::from_ptr(start) })
    }

    /// The texts that entries name.
    fn texts(&self, tag: i64) -> impl Iterator<Item = &'a CStr> + '_ {
        self.entries(tag).filter_map(|offset| self.text(offset))
    }

    /// Whether an address is in a segment that has these flags.
    fn has(&self, address: usize, flags: u32) -> bool {
        self.segments.iter().any(|segment| {
            segment.p_type == libc::PT_LOAD
                && segment.p_flags & flags == flags
                && address.wrapping_sub(self.base + segment.p_vaddr as usize) < segment.p_memsz as usize
        })
    }

    /// What the dynamic linker makes read-only at the end (`-z relro`): whole pages of the system.
    fn read_only_after_relocation(&self) -> Range<usize> {
        let segment = self.segments.iter().find(|segment| segment.p_type == libc::PT_GNU_RELRO);
        segment.map_or(0..0, |segment| {
            let start = self.base + segment.p_vaddr as usize;
            let page = |address: usize| address & !(Unix.page_size() - 1);
            page(start)..page(start + segment.p_memsz as usize)
        })
    }
}

/// What is behind the last slash of a path.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// By the number of the call: a program's function of this name may want the dynamic linker's locks.
fn protect(pages: &Range<usize>, access: c_int) -> bool {
    // SAFETY: whole pages of data of a library that is relocated, of which nobody needs that they cannot be written.
    unsafe { libc::syscall(libc::SYS_mprotect, pages.start, pages.len(), c_long::from(access)) == 0 }
}
