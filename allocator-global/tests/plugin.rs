//! Plugin: a shared object with a Kmalloc of its own in a program with another.

mod common;

use allocator_global::Kmalloc;
use common::{assert_child_exits, child, join_raw, layout, spawn_raw, Block, KIB, KMALLOC, MIB, PAGE};
use std::alloc::GlobalAlloc;
use std::ffi::{CStr, CString};
use std::os::raw::{c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::ptr;

suite! {
    tests: [
        a_plugin_is_loaded_used_and_left,
        what_belongs_to_the_other_heap_is_not_taken,
    ],
    children: [use_the_plugin, free_what_is_the_plugins]
}

/// The functions of the plugin.
struct Plugin {
    handle: *mut c_void,
    alloc: extern "C" fn(usize) -> *mut u8,
    free: unsafe extern "C" fn(*mut u8, usize),
    threads: extern "C" fn() -> usize,
    owns: extern "C" fn(*const u8) -> bool,
    valid: extern "C" fn() -> bool,
}

impl Plugin {
    fn load() -> Self {
        let this = std::env::current_exe().expect("the test's own path");
        let profile = this.parent().and_then(|deps| deps.parent()).expect("tests lie in target/PROFILE/deps");
        let path = profile.join("examples/libplugin.so");
        let path = CString::new(path.to_str().expect("a path in UTF-8")).expect("no zero in it");
        // `cargo test` builds the plugin as well, unless it is told which tests to build: `cargo build --example plugin`.
        // One that carries Kmalloc must not be unloaded: threads end by a function of it.
        // SAFETY: the path ends with a zero.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE) };
        if handle.is_null() {
            // SAFETY: has no precondition.
            let why = unsafe { libc::dlerror() };
            // SAFETY: says why the last call failed.
            panic!("{:?}", unsafe { CStr::from_ptr(why) });
        }
        let function = |name: &CStr| {
            // SAFETY: the name ends with a zero.
            let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!function.is_null(), "{name:?}");
            function
        };
        type Alloc = extern "C" fn(usize) -> *mut u8;
        type Free = unsafe extern "C" fn(*mut u8, usize);
        type Owns = extern "C" fn(*const u8) -> bool;
        Self {
            handle,
            // SAFETY: the function of this name has this type.
            alloc: unsafe { std::mem::transmute::<*mut c_void, Alloc>(function(c"plugin_alloc")) },
            // SAFETY: as above.
            free: unsafe { std::mem::transmute::<*mut c_void, Free>(function(c"plugin_free")) },
            // SAFETY: as above.
            threads: unsafe {
                std::mem::transmute::<*mut c_void, extern "C" fn() -> usize>(function(c"plugin_threads"))
            },
            // SAFETY: as above.
            owns: unsafe { std::mem::transmute::<*mut c_void, Owns>(function(c"plugin_owns")) },
            // SAFETY: as above.
            valid: unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> bool>(function(c"plugin_valid")) },
        }
    }
}

const SIZES: [usize; 4] = [100, 5 * KIB, 3 * PAGE, 33 * MIB];

/// Bytes of static thread-local storage that the plugin takes, its own and those of the standard library in it: the
/// loader has about 1.6 KiB for all that are loaded later.
fn thread_local_bytes() -> usize {
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
        // SAFETY: the loader's answer, for the time of this call.
        let info = unsafe { &*info };
        // SAFETY: a string that ends with a zero.
        if unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes().ends_with(b"libplugin.so") {
            // SAFETY: as many as it says.
            let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            for header in headers {
                if header.p_type == libc::PT_TLS {
                    // SAFETY: the caller's.
                    unsafe { *found.cast::<usize>() = header.p_memsz as usize };
                }
            }
        }
        0
    }
    let mut found = 0usize;
    // SAFETY: the function takes what it is given.
    unsafe { libc::dl_iterate_phdr(Some(look), ptr::addr_of_mut!(found).cast()) };
    found
}

/// A child: both heaps are used, by threads of both, and each knows its own.
fn use_the_plugin(_: &str) {
    let plugin = Plugin::load();
    let bytes = thread_local_bytes();
    assert!((8..=512).contains(&bytes), "{bytes} bytes of thread-local storage");
    let own: Vec<Block> = SIZES.map(|size| Block::filled(size, 8, 1)).into();
    for _ in 0..20 {
        let theirs = SIZES.map(|size| (plugin.alloc)(size));
        for (ptr, size) in theirs.into_iter().zip(SIZES) {
            assert!(!ptr.is_null() && (plugin.owns)(ptr) && !Kmalloc::owns(ptr));
            // SAFETY: the plugin has just given us so many bytes.
            unsafe { ptr.write_bytes(7, size) };
        }
        assert!(own.iter().all(|block| Kmalloc::owns(block.as_ptr()) && !(plugin.owns)(block.as_ptr())));
        assert_eq!(
            (plugin.threads)(),
            1,
            "this thread has a place in the plugin's heap, and those that ended have none"
        );
        for (ptr, size) in theirs.into_iter().zip(SIZES) {
            // SAFETY: the plugin's, of this size.
            unsafe { (plugin.free)(ptr, size) };
        }
    }
    /// A thread of the program that uses both, and ends when nobody holds the plugin any more.
    extern "C" fn uses_both(plugin: *mut c_void) -> *mut c_void {
        // SAFETY: the creator's, which waits.
        let plugin = unsafe { &*plugin.cast::<Plugin>() };
        let blocks: Vec<_> = (1..500).map(|n| (n, (plugin.alloc)(n), Block::new(n, 8))).collect();
        for (size, ptr, block) in blocks {
            // SAFETY: the plugin's, of this size.
            unsafe { (plugin.free)(ptr, size) };
            block.free();
        }
        // SAFETY: loaded by this handle; it stays where it is.
        unsafe { libc::dlclose(plugin.handle) };
        ptr::null_mut()
    }
    join_raw(spawn_raw(None, uses_both, ptr::addr_of!(plugin).cast_mut().cast()));
    // SAFETY: a child that uses both heaps and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let good = (plugin.threads)() == 1 && (plugin.valid)() && Kmalloc::validate().is_ok();
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = -1;
    // SAFETY: the child is ours.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "a child");
    own.into_iter().for_each(|block| block.check_and_free(1));
    assert!((plugin.valid)());
    common::assert_valid();
}

fn a_plugin_is_loaded_used_and_left() {
    assert_child_exits("use_the_plugin", "", 0);
}

/// A child.
fn free_what_is_the_plugins(size: &str) {
    let size = size.parse().expect("a size");
    let ptr = (Plugin::load().alloc)(size);
    println!("{ptr:p}");
    // SAFETY: none. That it is found is what is tested.
    unsafe { KMALLOC.dealloc(ptr, layout(size, 8)) };
    // What is small goes home with others.
    let blocks: Vec<Block> = (0..1000).map(|_| Block::new(size.min(PAGE), 8)).collect();
    blocks.into_iter().for_each(Block::free);
}

fn what_belongs_to_the_other_heap_is_not_taken() {
    for size in SIZES {
        let output = child("free_what_is_the_plugins", &size.to_string());
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{size}: {stderr}");
        let line = format!("kmalloc: not allocated here, or back with the system: {}", stdout.trim());
        assert!(stderr.starts_with(&line) && stderr.lines().count() == 1, "{size}: {stderr}");
    }
}
