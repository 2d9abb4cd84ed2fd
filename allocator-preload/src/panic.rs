//! panic: what a library without std has to have.
//!
//! Nothing here panics, but `core` could, and wants to know where to. std would bring all that a backtrace needs: more than twice
//! our own code, and another library, in every process. (In a build of the whole workspace it is there all the same, and brings
//! both of these.)

allocator_core::without_std! {
    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        allocator_core::sys::die(format_args!("{info}"))
    }

    // Unwind tables of `core` name it; nobody unwinds through them. Linked into a program that has std, it gives way to std's.
    core::arch::global_asm!(".weak rust_eh_personality", ".hidden rust_eh_personality", "rust_eh_personality:", "ud2");
}
