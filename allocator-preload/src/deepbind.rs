//! deepbind: what is opened with `RTLD_DEEPBIND` has the program's heap, too.
//!
//! A library that a program opens so looks for each name in itself and in what it needs first, and finds the C library's `free` there,
//! and not that of a library which is loaded before the program. So it gives the one heap what comes from the other, be it
//! from the program or from the C library's own `strdup`, and the process ends. PHP opens its extensions so, and Julia all libraries.
//!
//! # Algorithm
//! [`dlopen`] is a function of this library. It opens the file as it was asked to, by the function that comes next, so all other names are
//! bound as the program wants them. Then it goes through the relocations of that library, and of those that were loaded for it: a word that
//! has the C library's function for a name of the heap, or that is not bound yet, gets the function that the name means for the
//! program as a whole. So does one that has the C library's `dlopen`. Where a library brings another heap with it, nothing is done.
//! Pages that the dynamic linker has made read-only are writable meanwhile.
//!
//! It is done again whenever the library is opened: another thread may have the handle before the first one is done.
//!
//! A library's constructors have run by then, and have had the C library's heap. What they leave is freed as what it is: it is foreign,
//! and is passed on.
//!
//! A name without a slash, or with `$ORIGIN`, is looked for where the *caller* says, so all that need not come back here is a jump: what
//! is opened without the flag, and such names, which stay as they were.

use allocator_core::sys::{Os, Unix};
use core::ffi::{c_char, c_int, c_long, c_void, CStr};
use core::mem::{transmute, MaybeUninit};
use core::ops::Range;
use core::ptr::{addr_of_mut, null, null_mut};
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use libc::{dl_phdr_info, Elf64_Phdr, Elf64_Sym};

type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;

/// How many names are the heap's.
const HEAP: usize = 13;
/// The names of the heap, but for those of C++, which are the C++ library's and call these; and what opens further libraries.
const NAMES: [&CStr; HEAP + 1] = [
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
    for version in VERSIONS {
        // SAFETY: a name and a version that end.
        let found = unsafe { libc::dlvsym(libc::RTLD_NEXT, c"dlopen".as_ptr(), version.as_ptr()) };
        if !found.is_null() && !is_ours(found) {
            NEXT.store(found, Relaxed);
            break;
        }
    }
    // SAFETY: a name that ends.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) };
    if !found.is_null() && !is_ours(found) {
        NEXT.store(found, Relaxed);
    }
}

/// Versions of the C library that have one: in it, or in a library beside it.
#[cfg(target_arch = "x86_64")]
const VERSIONS: [&CStr; 2] = [c"GLIBC_2.34", c"GLIBC_2.2.5"];
#[cfg(target_arch = "aarch64")]
const VERSIONS: [&CStr; 2] = [c"GLIBC_2.34", c"GLIBC_2.17"];

/// True if the function is of this library.
fn is_ours(function: *mut c_void) -> bool {
    module(function) == module(is_ours as *mut c_void)
}

/// Where the library or program begins that has this function.
fn module(function: *mut c_void) -> *mut c_void {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: there is room for the answer.
    unsafe { libc::dladdr(function, info.as_mut_ptr()) };
    // SAFETY: zeros are null pointers.
    unsafe { info.assume_init() }.dli_fbase
}

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

/// Libraries in a family at most: what is opened, and what is loaded for it.
const FAMILY: usize = 64;

/// Binds names of the heap as the program has them, in the library of `handle` and those that were loaded for it.
///
/// # Safety
/// A handle of a library that is loaded.
unsafe fn rebind(open: Open, handle: *mut c_void) {
    // SAFETY: by contract.
    let names = unsafe { look_up(open, handle) };
    // SAFETY: by contract.
    let first = unsafe { dynamic_of(handle) };
    // A name that is not there is no failure of the call that the program made.
    // SAFETY: has no precondition.
    unsafe { libc::dlerror() };
    let (Some(names), Some(first)) = (names, first) else { return };
    // What was loaded for a library comes after it, and after what needs it. All of these are relocated; others, which another thread
    // is opening, may not be.
    let mut family = [const { None::<Object<'_>> }; FAMILY];
    let mut size = 0;
    each_object(&mut |object| {
        // SAFETY: it stays as long as the handle.
        let Some(object) = (unsafe { Object::new(object) }) else { return };
        if object.dynamic.as_ptr() == first || family.iter().flatten().any(|of| of.needs(&object)) {
            object.rebind(&names);
            if let Some(place) = family.get_mut(size) {
                *place = Some(object);
                size += 1;
            }
        }
    });
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
    let (heap, others) = names.split_at_mut(HEAP);
    // A function of somebody else that opens libraries stays where it is, and where it is not.
    others
        .iter_mut()
        .filter(|name| name.theirs != open as usize || !is_ours(name.ours as *mut c_void))
        .for_each(|name| name.theirs = 0);
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

/// Shows what is loaded, in the order in which it was. Nothing is added or taken away meanwhile: the dynamic linker holds a lock, so
/// `show` calls nothing that may take another.
fn each_object(mut show: &mut dyn FnMut(&dl_phdr_info)) {
    unsafe extern "C" fn next(object: *mut dl_phdr_info, _: usize, show: *mut c_void) -> c_int {
        // SAFETY: it is `show`.
        let show = unsafe { &mut *show.cast::<&mut dyn FnMut(&dl_phdr_info)>() };
        // SAFETY: the dynamic linker's, for this call.
        show(unsafe { &*object });
        0
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

impl Relocation {
    /// The name of the symbol whose address it wants, if the library has not that symbol itself.
    ///
    /// # Safety
    /// It is of a library that has these symbols, and their names there.
    unsafe fn symbol_elsewhere<'a>(&self, symbols: *const Elf64_Sym, text: *const c_char) -> Option<&'a CStr> {
        // What a linker says of an entry of its table beside that is no part of the address.
        if self.symbol == 0 || self.kind == DATA && self.addend != 0 || !ADDRESSES.contains(&self.kind) {
            return None;
        }
        // SAFETY: where one of the symbols is.
        let symbol = unsafe { symbols.add(self.symbol as usize) };
        // SAFETY: it is there.
        let symbol = unsafe { &*symbol };
        // SAFETY: where its name begins.
        let name = unsafe { text.add(symbol.st_name as usize) };
        // SAFETY: and it ends.
        (symbol.st_shndx == 0).then(|| unsafe { CStr::from_ptr(name) })
    }
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
struct Object<'a> {
    name: &'a CStr,
    base: usize,
    segments: &'a [Elf64_Phdr],
    dynamic: &'a [Dynamic],
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
        Some(Self { name, base, segments, dynamic })
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

    /// The texts that entries name.
    fn texts(&self, tag: i64) -> impl Iterator<Item = &'a CStr> + '_ {
        let text = self.array::<c_char>(DT_STRTAB);
        // SAFETY: where one of them begins.
        let starts = self.entries(tag).filter_map(move |offset| text.map(|text| unsafe { text.add(offset) }));
        // SAFETY: it is there, and ends.
        starts.map(|start| unsafe { CStr::from_ptr(start) })
    }

    /// Whether this one is linked to `other`, by the name that it has in itself or by that of its file.
    fn needs(&self, other: &Self) -> bool {
        let file = other.name.to_bytes();
        let short = file.rsplit(|byte| *byte == b'/').next();
        let is = |name: &CStr| {
            name.to_bytes() == file || Some(name.to_bytes()) == short || other.texts(DT_SONAME).any(|own| own == name)
        };
        self.texts(DT_NEEDED).any(is)
    }

    /// The array of which an entry says where it begins: most dynamic linkers have made an address of that.
    fn array<T>(&self, tag: i64) -> Option<*const T> {
        let value = self.entry(tag)?;
        Some(if value < self.base { self.base + value } else { value } as *const T)
    }

    /// Binds words that have the C library's functions for these names, or are not bound yet, to ours.
    fn rebind(&self, names: &[Name]) {
        let (Some(symbols), Some(text)) = (self.array(DT_SYMTAB), self.array(DT_STRTAB)) else { return };
        let read_only = self.read_only_after_relocation();
        let mut is_writable = false;
        for (array, bytes) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let (Some(first), Some(bytes)) = (self.array(array), self.entry(bytes)) else { continue };
            // SAFETY: the dynamic linker reads them there.
            let relocations: &[Relocation] = unsafe { slice::from_raw_parts(first, bytes / size_of::<Relocation>()) };
            for relocation in relocations {
                // SAFETY: the library's own.
                let Some(name) = (unsafe { relocation.symbol_elsewhere(symbols, text) }) else { continue };
                let Some(name) = names.iter().find(|one| one.name == name && one.theirs != 0 && one.ours != 0) else {
                    continue;
                };
                let place = self.base + relocation.offset;
                if place % size_of::<AtomicUsize>() != 0 || !self.has(place, libc::PF_W) {
                    continue;
                }
                // SAFETY: a word of its data, which the dynamic linker may write at any time, and others read.
                let word = unsafe { &*(place as *const AtomicUsize) };
                let is = word.load(Relaxed);
                let is_unbound = relocation.kind == JUMP && self.has(is, 0);
                if is != name.theirs && !is_unbound {
                    continue;
                }
                if read_only.contains(&place) && !is_writable {
                    is_writable = protect(&read_only, libc::PROT_READ | libc::PROT_WRITE);
                    if !is_writable {
                        continue;
                    }
                }
                word.store(name.ours, Relaxed);
            }
        }
        if is_writable {
            protect(&read_only, libc::PROT_READ);
        }
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

/// By the number of the call: a program's function of this name may want the dynamic linker's locks.
fn protect(pages: &Range<usize>, access: c_int) -> bool {
    // SAFETY: whole pages of data of a library that is relocated, of which nobody needs that they cannot be written.
    unsafe { libc::syscall(libc::SYS_mprotect, pages.start, pages.len(), c_long::from(access)) == 0 }
}
