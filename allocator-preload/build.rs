//! How the shared library is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Its constructor before all others, it is never unloaded (threads have its destructors), and it has a name.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,initfirst,-z,nodelete,-soname,libkmalloc.so");
}
