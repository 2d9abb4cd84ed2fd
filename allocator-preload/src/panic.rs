//! panic: what a library without std has to have.
//!
//! Nothing here panics, but `core` could, and wants to know where to. std would bring all that a backtrace needs: more than our own
//! code again, and another library, in every process. (In a build of the whole workspace it is there all the same, and brings both
//! of these.)

allocator_core::without_std! {
    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        match info.location() {
            Some(place) => allocator_core::sys::die(format_args!("panic at {place}")),
            None => allocator_core::sys::die(format_args!("panic")),
        }
    }

    // Unwind tables of `core` name it; nobody unwinds through them. Weak, for another library may define it.
    core::arch::global_asm!(".weak rust_eh_personality", ".hidden rust_eh_personality", "rust_eh_personality:", "ud2");
}
