//! cxx: `operator new` and `operator delete` in all their forms, by the names that C++ compilers give them.
//!
//! Nothing here can throw, and what is refused must ask the program's handler first. Both are the business of the C++ library: a
//! refusal is passed on to its own function of the same name, which asks `malloc`, and so us, once more.
//!
//! What that throws finds no frame of ours: the call is the last act of a function, so it is a jump. In a crate that aborts at a
//! panic the function is of a type that cannot unwind; for one that can, a frame that ends the process would stand in between.
//!
//! A program may replace any of them, and most replace the plain pair: then the forms that C++ makes of those must call the
//! program's. Whether it has, the addresses tell that the dynamic linker gives these names here. Where one is not ours, the forms
//! that are made of others leave each call to the program: those of `operator delete` by the address, those of `operator new` by
//! the C++ library's function of the same name, which goes by the dynamic linker, too, and knows how to catch what must not be thrown.

use super::next::{is_ours, Next};
use super::{alloc, alloc_aligned, release};
use allocator_core::sys::die;
use core::ffi::c_void;
use core::hint::black_box;
use core::mem::transmute;
use core::ptr::{null_mut, NonNull};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// As `keep` of the module above.
#[inline(never)]
pub(super) fn keep() {}

/// Whether the program has replaced a function that others are made of: not known yet, no, or yes.
static REPLACED: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// Looks when the library is loaded: the dynamic linker's lock, which that takes, is held then anyway.
#[used]
#[link_section = ".init_array"]
static AT_LOADING: extern "C" fn() = look;

#[cold]
extern "C" fn look() {
    let made_of = [
        _Znwm as *mut c_void,
        _Znam as *mut c_void,
        _ZdlPv as *mut c_void,
        _ZdaPv as *mut c_void,
        _ZnwmSt11align_val_t as *mut c_void,
        _ZnamSt11align_val_t as *mut c_void,
        _ZdlPvSt11align_val_t as *mut c_void,
        _ZdaPvSt11align_val_t as *mut c_void,
    ];
    // By the address that the name has for all: what the compiler knows of the function here says nothing.
    let ours = made_of.into_iter().all(|function| is_ours(black_box(function)));
    REPLACED.store(if ours { NO } else { YES }, Relaxed);
    if !ours {
        // Each call of these goes there. To ask when one is made would be with locks of the program's held, and end what it has of
        // `dlerror`.
        find_all();
    }
}

#[inline(always)]
fn is_replaced() -> bool {
    REPLACED.load(Relaxed) != NO && is_replaced_after_all()
}

#[cold]
#[inline(never)]
fn is_replaced_after_all() -> bool {
    if REPLACED.load(Relaxed) == UNKNOWN {
        look();
    }
    REPLACED.load(Relaxed) == YES
}

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

/// The name of a function, for the dynamic linker.
macro_rules! name_of {
    ($name:ident) => {
        match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => c"",
        }
    };
}

/// A form of `operator new`: its name, its arguments behind the size, how it allocates, whether it may be null, and, if C++ makes it of
/// another one, a call of that.
macro_rules! new {
    ($($name:ident($($arg:ident: $type:ty),*) => $alloc:expr, $may_be_null:expr, $base:expr;)*) => { $(
        /// # Safety
        /// None; what comes back is to be freed by a matching `operator delete`.
        #[no_mangle]
        #[allow(non_snake_case)]
        unsafe extern "C-unwind" fn $name(size: usize $(, $arg: $type)*) -> *mut c_void {
            #[cfg(panic = "unwind")]
            type Theirs = unsafe extern "C-unwind" fn(usize $(, $type)*) -> *mut c_void;
            #[cfg(not(panic = "unwind"))]
            type Theirs = unsafe extern "C" fn(usize $(, $type)*) -> *mut c_void;
            use self::$name::NEXT;
            const BASE: Option<fn(usize $(, $type)*) -> *mut c_void> = $base;
            #[cold]
            #[inline(never)]
            unsafe extern "C-unwind" fn pass_on(size: usize $(, $arg: $type)*) -> *mut c_void {
                match (NEXT.find_in_cxx(), BASE) {
                    (Some(next), _) => {
                        // SAFETY: a function of this name has this type.
                        let next: Theirs = unsafe { transmute(next) };
                        // SAFETY: has no precondition.
                        unsafe { next(size $(, $arg)*) }
                    }
                    (None, Some(base)) => base(size $(, $arg)*),
                    (None, None) => null_mut(),
                }
            }
            if BASE.is_some() && is_replaced() {
                // SAFETY: as for this one.
                return unsafe { pass_on(size $(, $arg)*) };
            }
            let alloc: fn(usize $(, $type)*) -> *mut u8 = $alloc;
            let ptr = alloc(size $(, $arg)*);
            if !ptr.is_null() {
                return ptr.cast();
            }
            let Some(next) = theirs(&NEXT, size, $may_be_null) else { return null_mut() };
            // SAFETY: a function of this name has this type.
            let next: Theirs = unsafe { transmute(next) };
            // It may round up, and is not to come out at zero.
            let size = size.min(isize::MAX as usize);
            // SAFETY: has no precondition.
            unsafe { next(size $(, $arg)*) }
        }
        /// What the function of the same name needs.
        #[allow(non_snake_case)]
        mod $name {
            use super::super::next::Next;
            pub(super) static NEXT: Next = Next::new(name_of!($name));
        }
    )*
        /// Looks all of them up.
        #[cold]
        fn find_all() {
            $( _ = $name::NEXT.find_in_cxx(); )*
        }
    };
}

/// A form of `operator delete`: its name, its arguments behind the block, and, if C++ makes it of another one, a call of that.
macro_rules! delete {
    ($($name:ident($($arg:ident: $type:ty),*) => $base:expr;)*) => { $(
        /// # Safety
        /// Null, or a block of a matching `operator new` that nobody uses any more.
        #[no_mangle]
        #[allow(non_snake_case)]
        unsafe extern "C" fn $name(ptr: *mut c_void $(, $arg: $type)*) {
            const BASE: Option<fn(*mut c_void $(, $type)*)> = $base;
            match BASE {
                // As the C++ library's own does, without a look for that.
                Some(base) if is_replaced() => return base(ptr $(, $arg)*),
                _ => {}
            }
            // SAFETY: by contract.
            unsafe { release(ptr) }
        }
    )* };
}

/// A call of the function that the dynamic linker gives this name to.
macro_rules! bound {
    ($name:ident: $type:ty, $($arg:expr),*) => {{
        let bound: $type = black_box($name);
        // SAFETY: as for the form that is made of it.
        unsafe { bound($($arg),*) }
    }};
}

fn new(size: usize) -> *mut c_void {
    bound!(_Znwm: unsafe extern "C-unwind" fn(usize) -> *mut c_void, size)
}

fn new_array(size: usize) -> *mut c_void {
    bound!(_Znam: unsafe extern "C-unwind" fn(usize) -> *mut c_void, size)
}

fn new_aligned(size: usize, align: usize) -> *mut c_void {
    bound!(_ZnwmSt11align_val_t: unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void, size, align)
}

fn new_aligned_array(size: usize, align: usize) -> *mut c_void {
    bound!(_ZnamSt11align_val_t: unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void, size, align)
}

#[cold]
fn delete(ptr: *mut c_void) {
    bound!(_ZdlPv: unsafe extern "C" fn(*mut c_void), ptr)
}

#[cold]
fn delete_array(ptr: *mut c_void) {
    bound!(_ZdaPv: unsafe extern "C" fn(*mut c_void), ptr)
}

#[cold]
fn delete_aligned(ptr: *mut c_void, align: usize) {
    bound!(_ZdlPvSt11align_val_t: unsafe extern "C" fn(*mut c_void, usize), ptr, align)
}

#[cold]
fn delete_aligned_array(ptr: *mut c_void, align: usize) {
    bound!(_ZdaPvSt11align_val_t: unsafe extern "C" fn(*mut c_void, usize), ptr, align)
}

/// `std::nothrow_t const &`.
type NoThrow = *const u8;

new! {
    _Znwm() => alloc, false, None;
    _Znam() => alloc, false, Some(new);
    _ZnwmRKSt9nothrow_t(no: NoThrow) => |size, _| alloc(size), true, Some(|size, _| new(size));
    _ZnamRKSt9nothrow_t(no: NoThrow) => |size, _| alloc(size), true, Some(|size, _| new_array(size));
    _ZnwmSt11align_val_t(align: usize) => alloc_aligned, false, None;
    _ZnamSt11align_val_t(align: usize) => alloc_aligned, false, Some(new_aligned);
    _ZnwmSt11align_val_tRKSt9nothrow_t(align: usize, no: NoThrow) =>
        |size, align, _| alloc_aligned(size, align), true, Some(|size, align, _| new_aligned(size, align));
    _ZnamSt11align_val_tRKSt9nothrow_t(align: usize, no: NoThrow) =>
        |size, align, _| alloc_aligned(size, align), true, Some(|size, align, _| new_aligned_array(size, align));
}

delete! {
    _ZdlPv() => None;
    _ZdaPv() => Some(delete);
    _ZdlPvm(size: usize) => Some(|ptr, _| delete(ptr));
    _ZdaPvm(size: usize) => Some(|ptr, _| delete_array(ptr));
    _ZdlPvRKSt9nothrow_t(no: NoThrow) => Some(|ptr, _| delete(ptr));
    _ZdaPvRKSt9nothrow_t(no: NoThrow) => Some(|ptr, _| delete_array(ptr));
    _ZdlPvSt11align_val_t(align: usize) => None;
    _ZdaPvSt11align_val_t(align: usize) => Some(delete_aligned);
    _ZdlPvmSt11align_val_t(size: usize, align: usize) => Some(|ptr, _, align| delete_aligned(ptr, align));
    _ZdaPvmSt11align_val_t(size: usize, align: usize) => Some(|ptr, _, align| delete_aligned_array(ptr, align));
    _ZdlPvSt11align_val_tRKSt9nothrow_t(align: usize, no: NoThrow) => Some(|ptr, align, _| delete_aligned(ptr, align));
    _ZdaPvSt11align_val_tRKSt9nothrow_t(align: usize, no: NoThrow) => Some(|ptr, align, _| delete_aligned_array(ptr, align));
}
