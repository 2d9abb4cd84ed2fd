//! cxx: `operator new` and `operator delete` in all their forms, by the names that C++ compilers give them.
//!
//! Nothing here can throw, and what is refused must ask the program's handler first. Both are the business of the C++ library: a
//! refusal is passed on to its own function of the same name, which asks `malloc`, and so us, once more.
//!
//! What that throws finds no frame of ours: the call is the last act of a function, so it is a jump. In a crate that aborts at a
//! panic the function is of a type that cannot unwind; for one that can, a frame that ends the process would stand in between.

use super::next::Next;
use super::{alloc, alloc_aligned, release};
use allocator_core::sys::die;
use core::ffi::c_void;
use core::ptr::{null_mut, NonNull};

/// As `keep` of the module above.
#[inline(never)]
pub(super) fn keep() {}

/// Whom a refusal is passed on to. `None` if there is no C++ library, and a refusal may be null.
#[cold]
#[inline(never)]
fn theirs(next: &Next, size: usize, may_be_null: bool) -> Option<NonNull<c_void>> {
    let theirs = next.find_in_cxx();
    if theirs.is_none() && !may_be_null {
        die(format_args!("operator new: {size} bytes were refused, and there is no C++ library to say so"))
    }
    theirs
}

/// A form of `operator new`: its name, its arguments behind the size, how it allocates, and whether it may be null.
macro_rules! new {
    ($($name:ident($($arg:ident: $type:ty),*) => $alloc:expr, $may_be_null:expr;)*) => { $(
        /// # Safety
        /// None; what comes back is to be freed by a matching `operator delete`.
        #[no_mangle]
        #[allow(non_snake_case)]
        unsafe extern "C-unwind" fn $name(size: usize $(, $arg: $type)*) -> *mut c_void {
            let alloc: fn(usize $(, $type)*) -> *mut u8 = $alloc;
            let ptr = alloc(size $(, $arg)*);
            if !ptr.is_null() {
                return ptr.cast();
            }
            static NEXT: Next = Next::new(match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            });
            let Some(next) = theirs(&NEXT, size, $may_be_null) else { return null_mut() };
            #[cfg(panic = "unwind")]
            type Theirs = unsafe extern "C-unwind" fn(usize $(, $type)*) -> *mut c_void;
            #[cfg(not(panic = "unwind"))]
            type Theirs = unsafe extern "C" fn(usize $(, $type)*) -> *mut c_void;
            // SAFETY: a function of this name has this type.
            let next: Theirs = unsafe { core::mem::transmute(next) };
            // SAFETY: has no precondition.
            unsafe { next(size $(, $arg)*) }
        }
    )* };
}

/// A form of `operator delete`: its name, and its arguments behind the block.
macro_rules! delete {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => { $(
        /// # Safety
        /// Null, or a block of a matching `operator new` that nobody uses any more.
        #[no_mangle]
        #[allow(non_snake_case)]
        unsafe extern "C" fn $name(ptr: *mut c_void $(, $arg: $type)*) {
            // SAFETY: by contract.
            unsafe { release(ptr) }
        }
    )* };
}

/// `std::nothrow_t const &`.
type NoThrow = *const u8;

new! {
    _Znwm() => alloc, false;
    _Znam() => alloc, false;
    _ZnwmRKSt9nothrow_t(_no: NoThrow) => |size, _| alloc(size), true;
    _ZnamRKSt9nothrow_t(_no: NoThrow) => |size, _| alloc(size), true;
    _ZnwmSt11align_val_t(align: usize) => alloc_aligned, false;
    _ZnamSt11align_val_t(align: usize) => alloc_aligned, false;
    _ZnwmSt11align_val_tRKSt9nothrow_t(align: usize, _no: NoThrow) => |size, align, _| alloc_aligned(size, align), true;
    _ZnamSt11align_val_tRKSt9nothrow_t(align: usize, _no: NoThrow) => |size, align, _| alloc_aligned(size, align), true;
}

delete! {
    _ZdlPv();
    _ZdaPv();
    _ZdlPvm(_size: usize);
    _ZdaPvm(_size: usize);
    _ZdlPvRKSt9nothrow_t(_no: NoThrow);
    _ZdaPvRKSt9nothrow_t(_no: NoThrow);
    _ZdlPvSt11align_val_t(_align: usize);
    _ZdaPvSt11align_val_t(_align: usize);
    _ZdlPvmSt11align_val_t(_size: usize, _align: usize);
    _ZdaPvmSt11align_val_t(_size: usize, _align: usize);
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_align: usize, _no: NoThrow);
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_align: usize, _no: NoThrow);
}
