//! c: the C library's heap is this one (feature `override`).
//!
//! # Algorithm
//! The names that a C program knows, for the linker to bind to instead of the C library's. A block goes back without a layout: the
//! tag of its page names its class ([`Heap::class_of`]), and from there it takes the way of all others. What the heap does not
//! know is *foreign* (the C library's own, from before us or from a library that does not bind to us) and is passed on
//! ([`next`]).
//!
//! Each exported function is a few words around a private one: a name that is exported may be bound to somebody else's, so
//! nothing here calls one. What is out of line is `extern "C"`, which does not unwind, so that it is reached by a jump.
//!
//! # When it is called
//! - Before thread-local storage is set up (resolvers of the program's own functions): the pointer in `tls` is null then, and the
//!   call is served without a block.
//! - Before the program's own allocator is asked for anything: served without a block, so that it can still say how the heap is to
//!   be.
//! - With locks of the C library held. So no thread is started here, and the C library is not asked where a thread's stack lies.
//!
//! # Promises
//! Those of C17, POSIX and the manual of glibc: aligned to 16 bytes; `errno` is `ENOMEM` or `EINVAL` after a refusal and is kept
//! by `free`; zero bytes are a block of their own; `realloc(p, 0)` frees.
//!
//! [`Heap::class_of`]: allocator_core::heap::Heap::class_of

mod cxx;
mod info;
mod next;

pub use next::is_ours;

use crate::{kswapd, lifecycle, tls, HEAP};
use allocator_core::error::Misuse;
use allocator_core::size_class::SizeClass;
use allocator_core::sys::quietly;
use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::{null_mut, NonNull};
use libc::{c_int, EINVAL, ENOMEM};

/// What everything is aligned to: `max_align_t`.
const ALIGN: usize = 16;

/// Something of this file, to be called from where every program comes by: else a linker might leave the names out.
#[inline(never)]
pub(crate) fn keep() {
    cxx::keep();
    info::keep();
}

fn fail(errno: c_int) -> *mut u8 {
    // SAFETY: has no precondition.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own variable.
    unsafe { *place = errno };
    null_mut()
}

/// A block, or a refusal that says why.
fn or_no_memory(ptr: *mut u8) -> *mut u8 {
    if ptr.is_null() {
        fail(ENOMEM)
    } else {
        ptr
    }
}

#[inline(always)]
fn class(size: usize) -> Option<SizeClass> {
    SizeClass::of_words(size, ALIGN)
}

/// The newest object in the calling thread's sheaf.
#[inline(always)]
fn pop(class: SizeClass, size: usize) -> Option<NonNull<u8>> {
    // SAFETY: null, or sheaves that stay mapped.
    let sheaves = unsafe { tls::get().as_ref() }?;
    // SAFETY: the sheaves are the calling thread's.
    let object = unsafe { sheaves.of(class).pop() }?;
    // SAFETY: just popped.
    unsafe { HEAP.hand_out(object, class, size) };
    Some(object)
}

#[inline(always)]
fn alloc(size: usize) -> *mut u8 {
    match class(size).and_then(|class| pop(class, size)) {
        Some(object) => object.as_ptr(),
        None => alloc_slow(size, ALIGN),
    }
}

#[inline(always)]
fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size, align.max(ALIGN)) else { return fail(ENOMEM) };
    match SizeClass::of(layout).and_then(|class| pop(class, size)) {
        Some(object) => object.as_ptr(),
        None => alloc_slow(size, layout.align()),
    }
}

#[cold]
#[inline(never)]
extern "C" fn alloc_slow(size: usize, align: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size.max(1), align) else { return fail(ENOMEM) };
    // SAFETY: of a layout.
    or_no_memory(unsafe { crate::alloc_slow(layout.size(), layout.align(), None) })
}

#[inline(always)]
fn alloc_zeroed(count: usize, size: usize) -> *mut u8 {
    let Some(size) = count.checked_mul(size) else { return fail(ENOMEM) };
    match class(size).and_then(|class| pop(class, size)) {
        Some(object) => {
            // SAFETY: an object of a class that holds this many bytes.
            unsafe { object.as_ptr().write_bytes(0, size) };
            object.as_ptr()
        }
        None => zeroed_slow(size),
    }
}

#[cold]
#[inline(never)]
extern "C" fn zeroed_slow(size: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size.max(1), ALIGN) else { return fail(ENOMEM) };
    // SAFETY: of a layout.
    or_no_memory(unsafe { crate::zeroed_slow(layout.size(), layout.align(), None) })
}

/// # Safety
/// Null, or a block of this heap or of the next that nobody uses any more.
#[inline(always)]
unsafe fn release(ptr: *mut c_void) {
    let Some(ptr) = NonNull::new(ptr.cast::<u8>()) else { return };
    // SAFETY: by contract.
    if let Some(class) = unsafe { HEAP.class_of(ptr) } {
        // SAFETY: null, or sheaves that stay mapped.
        let sheaves = unsafe { tls::get().as_ref() };
        // SAFETY: the sheaves are the calling thread's; the object is of this class by its tag.
        if sheaves.is_some_and(|sheaves| unsafe { sheaves.of(class).push(ptr) }) {
            // SAFETY: by contract.
            unsafe { HEAP.take_back(ptr, class) };
            return;
        }
    }
    // SAFETY: by contract.
    unsafe { release_slow(ptr) }
}

/// # Safety
/// As for [`release`].
#[cold]
#[inline(never)]
unsafe extern "C" fn release_slow(ptr: NonNull<u8>) {
    // SAFETY: by contract.
    quietly(|| match unsafe { HEAP.layout_of(ptr) } {
        Ok(layout) => {
            kswapd::attend_without_start();
            // SAFETY: the block is the calling thread's; the rest by contract.
            lifecycle::with_for_free(|thread| unsafe { HEAP.free(thread, ptr, layout) });
        }
        // SAFETY: not ours, so by contract the next one's.
        Err(Misuse::Foreign) => unsafe { next::free(ptr) },
        // SAFETY: by contract.
        Err(misuse) => unsafe { HEAP.misused_untyped(ptr, misuse) },
    });
}

/// # Safety
/// As for [`release`]; should this be refused, the block stays as it is.
#[inline(always)]
unsafe fn resize(ptr: *mut c_void, size: usize) -> *mut u8 {
    let Some(ptr) = NonNull::new(ptr.cast::<u8>()) else { return alloc(size) };
    // SAFETY: by contract.
    if let Some(is) = unsafe { HEAP.class_of(ptr) }.filter(|is| class(size) == Some(*is)) {
        // SAFETY: by contract.
        unsafe { HEAP.check(ptr, is, size) };
        return ptr.as_ptr();
    }
    // SAFETY: by contract.
    unsafe { resize_slow(ptr, size) }
}

/// # Safety
/// As for [`resize`].
#[cold]
#[inline(never)]
unsafe extern "C" fn resize_slow(ptr: NonNull<u8>, size: usize) -> *mut u8 {
    if size == 0 {
        // SAFETY: by contract.
        unsafe { release(ptr.as_ptr().cast()) };
        return null_mut();
    }
    // SAFETY: by contract.
    let is = match unsafe { HEAP.layout_of(ptr) } {
        Ok(layout) => layout,
        // SAFETY: not ours, so by contract the next one's.
        Err(Misuse::Foreign) => return unsafe { next::realloc(ptr, size) },
        // SAFETY: by contract.
        Err(misuse) => unsafe { HEAP.misused_untyped(ptr, misuse) },
    };
    if Layout::from_size_align(size, is.align()).is_err() {
        return fail(ENOMEM);
    }
    // SAFETY: live, with this layout by what the heap knows, and the new one is one.
    or_no_memory(unsafe { crate::realloc_slow::<false>(ptr, is.size(), is.align(), size) })
}

/// Bytes that may be used of a block.
///
/// # Safety
/// As for [`release`], but it stays in use.
unsafe fn usable(ptr: *mut c_void) -> usize {
    let Some(ptr) = NonNull::new(ptr.cast::<u8>()) else { return 0 };
    // SAFETY: by contract.
    match unsafe { HEAP.layout_of(ptr) } {
        Ok(layout) => layout.size(),
        // SAFETY: not ours, so by contract the next one's.
        Err(Misuse::Foreign) => unsafe { next::usable_size(ptr) },
        // SAFETY: by contract.
        Err(misuse) => unsafe { HEAP.misused_untyped(ptr, misuse) },
    }
}

/// As glibc's: what is no power of two is rounded up to one.
fn memalign_of(align: usize, size: usize) -> *mut u8 {
    match align.checked_next_power_of_two() {
        Some(align) => alloc_aligned(size, align),
        None => fail(EINVAL),
    }
}

/// Exports a function under some names. All of them are as the manual says, of C or of glibc.
macro_rules! export {
    ($(fn $($name:ident),+ ($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => { $(
        export!(@ ($($name)+) ($($arg: $type),*) ($(-> $result)?) $body);
    )* };
    (@ ($($name:ident)+) $args:tt $result:tt $body:block) => { $( export!(# $name $args $result $body); )+ };
    (# $name:ident ($($arg:ident: $type:ty),*) ($(-> $result:ty)?) $body:block) => {
        /// # Safety
        /// As the manual of the C library says of the function of this name.
        #[no_mangle]
        unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? $body
    };
}
use export;

export! {
    fn malloc, __libc_malloc(size: usize) -> *mut c_void {
        alloc(size).cast()
    }

    fn calloc, __libc_calloc(count: usize, size: usize) -> *mut c_void {
        alloc_zeroed(count, size).cast()
    }

    fn free, cfree, __libc_free(ptr: *mut c_void) {
        // SAFETY: by contract.
        unsafe { release(ptr) }
    }

    fn free_sized(ptr: *mut c_void, _size: usize) {
        // SAFETY: by contract.
        unsafe { release(ptr) }
    }

    fn free_aligned_sized(ptr: *mut c_void, _align: usize, _size: usize) {
        // SAFETY: by contract.
        unsafe { release(ptr) }
    }

    fn realloc, __libc_realloc(ptr: *mut c_void, size: usize) -> *mut c_void {
        // SAFETY: by contract.
        unsafe { resize(ptr, size) }.cast()
    }

    fn reallocarray, __libc_reallocarray(ptr: *mut c_void, count: usize, size: usize) -> *mut c_void {
        match count.checked_mul(size) {
            // SAFETY: by contract.
            Some(size) => unsafe { resize(ptr, size) }.cast(),
            None => fail(ENOMEM).cast(),
        }
    }

    fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
        if align.is_power_of_two() { alloc_aligned(size, align).cast() } else { fail(EINVAL).cast() }
    }

    fn memalign, __libc_memalign(align: usize, size: usize) -> *mut c_void {
        memalign_of(align, size).cast()
    }

    fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> c_int {
        if !align.is_power_of_two() || align % core::mem::size_of::<*mut c_void>() != 0 {
            return EINVAL;
        }
        let ptr = quietly(|| alloc_aligned(size, align));
        if ptr.is_null() {
            return ENOMEM;
        }
        // SAFETY: by contract there is room for it.
        unsafe { to.write(ptr.cast()) };
        0
    }

    fn valloc, __libc_valloc(size: usize) -> *mut c_void {
        alloc_aligned(size, HEAP.os().page_size()).cast()
    }

    fn pvalloc, __libc_pvalloc(size: usize) -> *mut c_void {
        let page = HEAP.os().page_size();
        match size.checked_next_multiple_of(page) {
            Some(size) => alloc_aligned(size, page).cast(),
            None => fail(ENOMEM).cast(),
        }
    }

    fn malloc_usable_size(ptr: *mut c_void) -> usize {
        // SAFETY: by contract.
        unsafe { usable(ptr) }
    }
}
