//! deepbind: what is opened with `RTLD_DEEPBIND` has the program's heap, too.
//!
//! A library that a program opens so looks for each name in itself and in what it needs first, and finds the C library's `free` there,
//! and not that of a library which is loaded before the program. So it gives the one heap what comes from the other, be it
//! from the program or from the C library's own `strdup`, and the process ends. PHP opens its extensions so, and Julia all libraries.
//!
//! # Algorithm
//! [`dlopen`] is a function of this library. It opens the file as it was asked to, by the function that comes next, so all other names are
//! bound as the program wants them. Then it goes through the relocations of what was loaded: a word that has the C library's function
//! for a name of the heap, or that is not bound yet, gets the function that the name means for the program as a whole. Where a library
//! brings another heap with it, nothing is done. Pages that the dynamic linker has made read-only are writable meanwhile.
//!
//! A library's constructors have run by then, and have had the C library's heap. What they leave is freed as what it is: it is foreign,
//! and is passed on.
//!
//! A name without a slash is looked for where the *caller* says (`DT_RUNPATH`), so all that need not come back here is a jump: what is
//! opened without the flag, and a name without a slash, which stays as it was.

use allocator_core::sys::{Os, Unix};
use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::transmute;
use core::ops::Range;
use core::ptr::{addr_of_mut, null, null_mut};
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use libc::{dl_phdr_info, Elf64_Phdr, Elf64_Sym};

type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;

/// The names of the heap, but for those of C++: they are the C++ library's, which calls these.
const NAMES: [&CStr; 14] = [
    c"malloc",
    c"calloc",
    c"realloc",
    c"reallocarray",
    c"free",
    c"cfree",
    c"memalign",
    c"aligned_alloc",
    c"posix_memalign",
    c"valloc",
    c"pvalloc",
    c"malloc_usable_size",
    c"free_sized",
    c"free_aligned_sized",
];

/// As the C library's.
///
/// # Safety
/// As for that.
#[no_mangle]
pub(crate) unsafe extern "C" fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void {
    let Some(open) = next() else { return null_mut() };
    // SAFETY: null, or text that ends, by contract.
    if flags & libc::RTLD_DEEPBIND != 0 && unsafe { has_slash(file) } {
        // SAFETY: by contract.
        return unsafe { open_deeply(open, file, flags) };
    }
    // The last act of this function, so a jump.
    // SAFETY: by contract.
    unsafe { open(file, flags) }
}

/// The `dlopen` that comes next. `None`: there is none.
fn next() -> Option<Open> {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    let mut found = NEXT.load(Relaxed);
    if found.is_null() {
        // SAFETY: a name that ends.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) };
        NEXT.store(found, Relaxed);
    }
    // SAFETY: null, or a function of this type.
    unsafe { transmute::<*mut c_void, Option<Open>>(found) }
}

/// # Safety
/// Null, or text that ends.
unsafe fn has_slash(file: *const c_char) -> bool {
    // SAFETY: text that ends.
    !file.is_null() && unsafe { CStr::from_ptr(file) }.to_bytes().contains(&b'/')
}

/// # Safety
/// As for [`dlopen`].
#[cold]
#[inline(never)]
unsafe extern "C" fn open_deeply(open: Open, file: *const c_char, flags: c_int) -> *mut c_void {
    let before = loaded_so_far();
    // SAFETY: by contract.
    let handle = unsafe { open(file, flags) };
    if !handle.is_null() && loaded_so_far() != before {
        // SAFETY: just opened.
        unsafe { rebind(open, handle) };
    }
    handle
}

/// How many objects the dynamic linker has loaded since the process began.
fn loaded_so_far() -> u64 {
    let mut loaded = 0;
    each_object(&mut |object| {
        loaded = object.dlpi_adds;
        false
    });
    loaded
}

/// Shows what is loaded, in the order in which it was, as long as `show` returns true. Nothing is loaded or unloaded meanwhile.
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

/// A name of the heap: what it means to a library, or zero, and to the program as a whole.
struct Name {
    name: &'static CStr,
    theirs: usize,
    ours: usize,
}

/// Binds names of the heap as the program has them, in the library of `handle` and all that was loaded after it.
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
    let mut is_new = false;
    each_object(&mut |object| {
        // SAFETY: it is loaded.
        if let Some(object) = unsafe { Object::new(object) } {
            is_new |= object.dynamic.as_ptr() == first;
            if is_new {
                object.rebind(&names);
            }
        }
        true
    });
}

/// What the names of the heap mean to a library that is deeply bound. `None`: one of them is of another heap than the C library's.
///
/// # Safety
/// A handle of a library that is loaded.
unsafe fn look_up(open: Open, handle: *mut c_void) -> Option<[Name; NAMES.len()]> {
    // SAFETY: a name that ends; nothing is loaded, and the C library stays.
    let c_library = unsafe { open(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    // SAFETY: a name that ends; a handle of what is loaded, or what means all of the program.
    let find = |handle, name: &CStr| unsafe { libc::dlsym(handle, name.as_ptr()) } as usize;
    let names = NAMES.map(|name| Name { name, theirs: find(handle, name), ours: find(libc::RTLD_DEFAULT, name) });
    let is_of_c_library = |name: &Name| name.theirs == 0 || name.theirs == find(c_library, name.name);
    (!c_library.is_null() && names.iter().all(is_of_c_library)).then_some(names)
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
        if self.symbol == 0 || self.addend != 0 || !ADDRESSES.contains(&self.kind) {
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

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;

/// Kinds of relocations: a word of data that is a symbol's address, one that code loads, and one that code jumps by.
#[cfg(target_arch = "x86_64")]
const ADDRESSES: [u32; 3] = [1, 6, JUMP];
#[cfg(target_arch = "x86_64")]
const JUMP: u32 = 7;
#[cfg(target_arch = "aarch64")]
const ADDRESSES: [u32; 3] = [257, 1025, JUMP];
#[cfg(target_arch = "aarch64")]
const JUMP: u32 = 1026;

/// A library that is loaded.
struct Object<'a> {
    base: usize,
    segments: &'a [Elf64_Phdr],
    dynamic: &'a [Dynamic],
}

impl<'a> Object<'a> {
    /// `None`: it is not linked dynamically.
    ///
    /// # Safety
    /// It is loaded, and stays so.
    unsafe fn new(object: &'a dl_phdr_info) -> Option<Self> {
        let base = object.dlpi_addr as usize;
        // SAFETY: by contract.
        let segments = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        let segment = segments.iter().find(|segment| segment.p_type == libc::PT_DYNAMIC)?;
        let n = segment.p_memsz as usize / size_of::<Dynamic>();
        // SAFETY: the dynamic linker reads it there.
        let dynamic = unsafe { slice::from_raw_parts((base + segment.p_vaddr as usize) as *const Dynamic, n) };
        Some(Self { base, segments, dynamic })
    }

    fn entry(&self, tag: i64) -> Option<usize> {
        Some(self.dynamic.iter().take_while(|entry| entry.tag != 0).find(|entry| entry.tag == tag)?.value)
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
                let word = self.base + relocation.offset;
                if !self.has(word, libc::PF_W) {
                    continue;
                }
                // SAFETY: a word of its data, which the dynamic linker may write at any time, and others read.
                let word = unsafe { &*(word as *const AtomicUsize) };
                let is = word.load(Relaxed);
                let is_unbound = relocation.kind == JUMP && self.has(is, 0);
                if is != name.theirs && !is_unbound {
                    continue;
                }
                if read_only.contains(&(word.as_ptr() as usize)) && !is_writable {
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

fn protect(pages: &Range<usize>, access: c_int) -> bool {
    // SAFETY: whole pages of data of a library, of which nobody needs that they cannot be written.
    unsafe { libc::mprotect(pages.start as *mut c_void, pages.len(), access) == 0 }
}
