//! cxx: `operator new` and `operator delete` in all their forms, by the names that C++ compilers give them.
//!
//! Nothing here can throw, and what is refused must ask the program's handler first. Both are the business of the C++ library: a
//! refusal is passed on to its own function of the same name, which asks `malloc`, and so us, once more. What it throws must not
//! come by a frame of ours, since a crate that is built to abort at a panic ends the process there: it is called by a jump.

use super::next::Next;
use super::{alloc, alloc_aligned, release};
use allocator_core::sys::die;
use core::ffi::c_void;

/// As `keep` of the module above.
#[inline(never)]
pub(super) fn keep() {}

/// The C++ library's function of one of these names.
struct Theirs {
    next: Next,
    refusal: Refusal,
}

/// What it says of a refusal.
enum Refusal {
    Null,
    Throws,
}

/// What there is of it where there is none.
unsafe extern "C" fn null() -> *mut c_void {
    core::ptr::null_mut()
}

/// Whom to ask after a refusal.
#[cold]
extern "C" fn theirs(size: usize, _: usize, _: usize, theirs: &Theirs) -> *const c_void {
    match (theirs.next.find_in_cxx(), &theirs.refusal) {
        (Some(next), _) => next.as_ptr(),
        (None, Refusal::Null) => null as *const c_void,
        (None, Refusal::Throws) => {
            die(format_args!("operator new: {size} bytes were refused, and there is no C++ library to say so"))
        }
    }
}

// Calls `theirs` with its own arguments, and jumps to what that returns with the first three of them.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.kmalloc_new_refused, \"ax\", @progbits",
    ".globl __kmalloc_new_refused_0_1",
    ".hidden __kmalloc_new_refused_0_1",
    ".type __kmalloc_new_refused_0_1, @function",
    "__kmalloc_new_refused_0_1:",
    ".cfi_startproc",
    "push rdi",
    "push rsi",
    "push rdx",
    ".cfi_def_cfa_offset 32",
    "call {theirs}",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    ".cfi_def_cfa_offset 8",
    "jmp rax",
    ".cfi_endproc",
    ".size __kmalloc_new_refused_0_1, . - __kmalloc_new_refused_0_1",
    ".popsection",
    theirs = sym theirs,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.kmalloc_new_refused, \"ax\", @progbits",
    ".globl __kmalloc_new_refused_0_1",
    ".hidden __kmalloc_new_refused_0_1",
    ".type __kmalloc_new_refused_0_1, @function",
    "__kmalloc_new_refused_0_1:",
    ".cfi_startproc",
    "stp x29, x30, [sp, -48]!",
    ".cfi_def_cfa_offset 48",
    ".cfi_offset x29, -48",
    ".cfi_offset x30, -40",
    "stp x0, x1, [sp, 16]",
    "str x2, [sp, 32]",
    "bl {theirs}",
    "mov x16, x0",
    "ldp x0, x1, [sp, 16]",
    "ldr x2, [sp, 32]",
    "ldp x29, x30, [sp], 48",
    ".cfi_restore x29",
    ".cfi_restore x30",
    ".cfi_def_cfa_offset 0",
    "br x16",
    ".cfi_endproc",
    ".size __kmalloc_new_refused_0_1, . - __kmalloc_new_refused_0_1",
    ".popsection",
    theirs = sym theirs,
);

#[allow(improper_ctypes)] // comes back to us as it is
extern "C" {
    /// What `theirs` says of these arguments, called with the first three. It may throw, and is declared as what cannot: then a
    /// call that is the last act of a function becomes a jump, and nothing of ours is left on the stack.
    #[link_name = "__kmalloc_new_refused_0_1"]
    fn refused(size: usize, first: usize, second: usize, theirs: &Theirs) -> *mut c_void;
}

/// A form of `operator new`: its name and arguments, how it allocates, what a refusal is, and the three words that are passed on then.
macro_rules! new {
    ($($name:ident($($arg:ident),*) => $alloc:expr, $refusal:ident($size:expr, $first:expr, $second:expr);)*) => { $(
        /// # Safety
        /// None; what comes back is to be freed by a matching `operator delete`.
        #[no_mangle]
        #[allow(non_snake_case)]
        unsafe extern "C-unwind" fn $name($($arg: usize),*) -> *mut c_void {
            static THEIRS: Theirs = Theirs {
                next: Next::new(match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                }),
                refusal: Refusal::$refusal,
            };
            let ptr = $alloc;
            if !ptr.is_null() {
                return ptr.cast();
            }
            // SAFETY: has no precondition.
            unsafe { refused($size, $first, $second, &THEIRS) }
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

new! {
    _Znwm(size) => alloc(size), Throws(size, 0, 0);
    _Znam(size) => alloc(size), Throws(size, 0, 0);
    _ZnwmRKSt9nothrow_t(size, no) => alloc(size), Null(size, no, 0);
    _ZnamRKSt9nothrow_t(size, no) => alloc(size), Null(size, no, 0);
    _ZnwmSt11align_val_t(size, align) => alloc_aligned(size, align), Throws(size, align, 0);
    _ZnamSt11align_val_t(size, align) => alloc_aligned(size, align), Throws(size, align, 0);
    _ZnwmSt11align_val_tRKSt9nothrow_t(size, align, no) => alloc_aligned(size, align), Null(size, align, no);
    _ZnamSt11align_val_tRKSt9nothrow_t(size, align, no) => alloc_aligned(size, align), Null(size, align, no);
}

/// `std::nothrow_t const &`.
type NoThrow = *const u8;

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
