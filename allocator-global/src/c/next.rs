//! next: whose memory it is, if it is not ours.
//!
//! Where the program as a whole uses our functions, the one that would be used without us: the C library's. Else this is a copy that
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
        let mut found = self.found.load(Relaxed);
        if found.is_null() {
            // SAFETY: a name that ends.
            let used = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_free".as_ptr()) };
            let whose = if is_ours(used) { libc::RTLD_NEXT } else { libc::RTLD_DEFAULT };
            // SAFETY: as above.
            found = unsafe { libc::dlsym(whose, self.name.as_ptr()) };
            self.found.store(found, Relaxed);
        }
        NonNull::new(found)
    }

    /// Its address, also where only a part of the program has the C++ library.
    pub(super) fn find_in_cxx(&self) -> Option<NonNull<c_void>> {
        self.find().or_else(|| {
            [c"libstdc++.so.6", c"libc++.so.1"].into_iter().find_map(|library| {
                // SAFETY: a name that ends; nothing is loaded.
                let library = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
                // SAFETY: a library that is loaded, and a name that ends.
                if library.is_null() {
                    return None;
                }
                // SAFETY: a library that is loaded, and a name that ends.
                let found = unsafe { libc::dlsym(library, self.name.as_ptr()) };
                self.found.store(found, Relaxed);
                NonNull::new(found)
            })
        })
    }
}

/// True if the function is of the library or program that this one is of.
pub(super) fn is_ours(function: *mut c_void) -> bool {
    let base = |function: *const c_void| {
        let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: there is room for the answer.
        unsafe { libc::dladdr(function, info.as_mut_ptr()) };
        // SAFETY: zeros are null pointers.
        unsafe { info.assume_init() }.dli_fbase
    };
    base(function) == base(is_ours as *const c_void)
}

/// The one that `name` has, or the end of the process: somebody has given back what nobody can have.
fn demand(next: &Next, ptr: NonNull<u8>) -> NonNull<c_void> {
    next.find().unwrap_or_else(|| crate::HEAP.misused_untyped(ptr, allocator_core::error::Misuse::Foreign))
}

/// # Safety
/// A block of the next heap that nobody uses any more.
pub(super) unsafe fn free(ptr: NonNull<u8>) {
    static NEXT: Next = Next::new(c"free");
    // SAFETY: a function of this name has this type.
    let free: unsafe extern "C" fn(*mut u8) = unsafe { core::mem::transmute(demand(&NEXT, ptr)) };
    // SAFETY: by contract.
    unsafe { free(ptr.as_ptr()) }
}

/// # Safety
/// A block of the next heap.
pub(super) unsafe fn realloc(ptr: NonNull<u8>, size: usize) -> *mut u8 {
    static NEXT: Next = Next::new(c"realloc");
    // SAFETY: a function of this name has this type.
    let realloc: unsafe extern "C" fn(*mut u8, usize) -> *mut u8 = unsafe { core::mem::transmute(demand(&NEXT, ptr)) };
    // SAFETY: by contract.
    unsafe { realloc(ptr.as_ptr(), size) }
}

/// # Safety
/// A block of the next heap.
pub(super) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    static NEXT: Next = Next::new(c"malloc_usable_size");
    // SAFETY: a function of this name has this type.
    let usable_size: unsafe extern "C" fn(*mut u8) -> usize = unsafe { core::mem::transmute(demand(&NEXT, ptr)) };
    // SAFETY: by contract.
    unsafe { usable_size(ptr.as_ptr()) }
}
