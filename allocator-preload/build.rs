//! How the shared library is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Its constructor before all others, it is never unloaded (threads have its destructors), it has a name, and all that it
    // refers to.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,initfirst,-z,nodelete,-soname,libkmalloc.so,-z,defs");
}
