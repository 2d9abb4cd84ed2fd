//! A program of Rust's own types with this allocator, short enough for an interpreter (`ci/miri.sh`), which watches every access of
//! the program's and of the allocator's. Without the harness, whose own allocations would take it longer.

use allocator_global::Kmalloc;
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::thread;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

/// Boxes of several lengths of one class, each of which may reach no further than its own.
fn boxes() {
    for len in [33usize, 48, 40, 47, 48] {
        let boxed: Box<[u8]> = vec![len as u8; len].into_boxed_slice();
        assert!(boxed.iter().all(|byte| usize::from(*byte) == len));
    }
}

/// Through classes and into pages.
fn a_vector_that_grows() {
    let mut vector: Vec<u64> = Vec::new();
    for length in [1, 3, 4, 30, 700, 5000, 9000] {
        vector.resize(length, length as u64);
    }
    assert_eq!(vector.iter().sum::<u64>(), 1 + 6 + 4 + 26 * 30 + 670 * 700 + 4300 * 5000 + 4000 * 9000);
    vector.truncate(5);
    vector.shrink_to_fit();
    assert_eq!(vector, [1, 3, 3, 4, 30]);
    assert!(vec![0u8; 100_000].iter().step_by(1000).all(|byte| *byte == 0));
}

fn maps() {
    let (mut tree, mut table) = (BTreeMap::new(), HashMap::new());
    for n in 0..30u32 {
        tree.insert(n, n.to_string());
        table.insert(n.to_string(), Box::new(n));
    }
    tree.retain(|n, text| n % 2 == 0 && table.remove(text).is_some());
    assert_eq!((tree.len(), table.len(), *table["7"]), (15, 15, 7));
}

/// What one thread has allocated others free, when its own block is gone.
fn threads() {
    let (send, receive) = mpsc::channel::<Vec<String>>();
    let allocating = (0..2).map(|thread| {
        let send = send.clone();
        thread::spawn(move || send.send((0..20).map(|n| "x".repeat(n * 10 + thread)).collect()))
    });
    allocating.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    drop(send);
    let freeing = thread::spawn(move || receive.iter().flatten().map(|text| text.len()).sum::<usize>());
    assert_eq!(freeing.join().unwrap(), 2 * 1900 + 20);
}

/// What the interpreter is to report, so that its silence means something: nothing orders the two.
fn planted_race() {
    struct Shared(*mut u64);
    // SAFETY: a lie.
    unsafe impl Send for Shared {}
    let boxed = Box::into_raw(Box::new(0));
    let shared = Shared(boxed);
    let other = thread::spawn(move || {
        let Shared(boxed) = { shared };
        // SAFETY: a lie.
        unsafe { *boxed = 1 };
    });
    // SAFETY: a lie.
    unsafe { *boxed = 2 };
    other.join().unwrap();
}

fn main() {
    if std::env::args().any(|argument| argument == "planted-race") {
        return planted_race();
    }
    boxes();
    a_vector_that_grows();
    maps();
    threads();
    println!("{} bytes in use", Kmalloc::usage());
}
