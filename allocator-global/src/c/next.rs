//! next: whose memory it is, if it is not ours.
//!
//! Where the program as a whole uses our functions, the one that would be used without us: the C library's, which is asked for by its
//! name, since what comes next in the program's order may be another copy of this library, which would ask us. Else this is a copy that
//! was loaded beside another heap, and it is what the program uses. Which of the two, a name says that nobody takes the address of
//! or wraps (of a name whose address a program takes, the address is in the program, whoever has the function). Each is looked up once.

use core::ffi::{c_void, CStr};
use core::mem::MaybeUninit;
use core::ptr::{null_mut, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// A function of others.
pub(super) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(super) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(null_mut()) }
    }

    /// Its address. `None`: there is none.
    pub(super) fn find(&self) -> Option<NonNull<c_void>> {
        self.find_as(|| self.find_in(&[c"libc.so.6"]).or_else(|| self.find_by(libc::RTLD_NEXT)))
    }

    /// The same of a function of the C++ library, also where only a part of the program has that.
    pub(super) fn find_in_cxx(&self) -> Option<NonNull<c_void>> {
        // A heap, and a library that has functions of these names for itself, have not what only the C++ library has.
        // SAFETY: a name that ends.
        let handler = || unsafe { libc::dlsym(libc::RTLD_NEXT, c"_ZSt15get_new_handlerv".as_ptr()) };
        let next = || self.find_by(libc::RTLD_NEXT).filter(|found| module(found.as_ptr()) == module(handler()));
        self.find_as(|| next().or_else(|| self.find_in(&[c"libstdc++.so.6", c"libc++.so.1"])))
    }

    /// By `without_us`, where the program as a whole uses our functions.
    fn find_as(&self, without_us: impl FnOnce() -> Option<NonNull<c_void>>) -> Option<NonNull<c_void>> {
        if let Some(found) = NonNull::new(self.found.load(Relaxed)) {
            return Some(found);
        }
        // SAFETY: a name that ends.
        let used = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_free".as_ptr()) };
        let as_used = if is_ours(used) { None } else { self.find_by(libc::RTLD_DEFAULT) };
        let found = as_used.or_else(without_us)?;
        self.found.store(found.as_ptr(), Relaxed);
        Some(found)
    }

    fn find_in(&self, libraries: &[&CStr]) -> Option<NonNull<c_void>> {
        libraries.iter().find_map(|library| self.find_by(loaded(library)?))
    }

    fn find_by(&self, handle: *mut c_void) -> Option<NonNull<c_void>> {
        // SAFETY: a library that is loaded, or one of the two that mean all; and a name that ends.
        let found = unsafe { libc::dlsym(handle, self.name.as_ptr()) };
        // Who has replaced `dlsym` may have asked for what is next to somebody else.
        NonNull::new(found).filter(|found| !is_ours(found.as_ptr()))
    }
}

/// A library of the process.
fn loaded(library: &CStr) -> Option<*mut c_void> {
    // SAFETY: a name that ends; nothing is loaded.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    (!handle.is_null()).then_some(handle)
}

/// True if the function is of the library or program that this one is of.
pub fn is_ours(function: *mut c_void) -> bool {
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

/// The one that `name` has, or the end of the process: somebody has given back what nobody can have.
///
/// # Safety
/// No block of our heap is there.
unsafe fn demand(next: &Next, ptr: NonNull<u8>) -> NonNull<c_void> {
    // SAFETY: by contract.
    next.find().unwrap_or_else(|| unsafe { crate::HEAP.misused_untyped(ptr, allocator_core::error::Misuse::Foreign) })
}

/// # Safety
/// A block of the next heap that nobody uses any more.
pub(super) unsafe fn free(ptr: NonNull<u8>) {
    static NEXT: Next = Next::new(c"free");
    // SAFETY: by contract.
    let found = unsafe { demand(&NEXT, ptr) };
    // SAFETY: a function of this name has this type.
    let free: unsafe extern "C" fn(*mut u8) = unsafe { core::mem::transmute(found) };
    // SAFETY: by contract.
    unsafe { free(ptr.as_ptr()) }
}

/// # Safety
/// A block of the next heap.
pub(super) unsafe fn realloc(ptr: NonNull<u8>, size: usize) -> *mut u8 {
    static NEXT: Next = Next::new(c"realloc");
    // SAFETY: by contract.
    let found = unsafe { demand(&NEXT, ptr) };
    // SAFETY: a function of this name has this type.
    let realloc: unsafe extern "C" fn(*mut u8, usize) -> *mut u8 = unsafe { core::mem::transmute(found) };
    // SAFETY: by contract.
    unsafe { realloc(ptr.as_ptr(), size) }
}

/// # Safety
/// A block of the next heap.
pub(super) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    static NEXT: Next = Next::new(c"malloc_usable_size");
    // SAFETY: by contract.
    let found = unsafe { demand(&NEXT, ptr) };
    // SAFETY: a function of this name has this type.
    let usable_size: unsafe extern "C" fn(*mut u8) -> usize = unsafe { core::mem::transmute(found) };
    // SAFETY: by contract.
    unsafe { usable_size(ptr.as_ptr()) }
}
