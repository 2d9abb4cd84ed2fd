//! What the fuzzers have found worth keeping, replayed: every committed seed of every target.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use stress::targets::{Target, TARGETS};

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn replay(name: &str) {
    let Target { play, .. } = TARGETS.into_iter().find(|target| target.name == name).expect("a target");
    let directory = fuzz().join("seeds").join(name);
    let mut seeds: Vec<PathBuf> = fs::read_dir(&directory).expect("seeds").map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{} has {} seeds", directory.display(), seeds.len());
    for seed in seeds {
        let bytes = fs::read(&seed).expect("a seed");
        // Named beforehand: a heap that finds itself misused ends the process, and the name is all that is left.
        println!("{} ({} bytes)", seed.display(), bytes.len());
        play(&bytes);
    }
}

#[test]
fn seeds_of_size_class() {
    replay("size_class");
}

#[test]
fn seeds_of_buddy() {
    replay("buddy");
}

#[test]
fn seeds_of_slab() {
    replay("slab");
}

#[test]
fn seeds_of_vmalloc() {
    replay("vmalloc");
}

#[test]
fn seeds_of_kmalloc() {
    replay("kmalloc"); // the only one that uses the heap of the process
}

#[test]
fn targets_seeds_and_binaries_have_the_same_names() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(directory)).expect("a directory of fuzz");
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names("seeds"), targets);
    assert_eq!(names("fuzz_targets"), targets);
}
