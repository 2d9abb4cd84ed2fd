//! The program as a user runs it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn indexer(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexer")).args(arguments).arg(path).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A tree with something of everything: Rust, text, a file that does not parse, one that is not text, one that nests
/// too deeply.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("src")).unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(root.path().join(name), content).unwrap();
    for n in 0..40 {
        let source =
            format!("/// Number {n}.\npub struct S{n}<T>(pub Vec<T>);\nimpl<T> S{n}<T> {{ fn f(&self) {{}} }}\n");
        write(&format!("src/s{n}.rs"), source.repeat(10).as_bytes());
    }
    write("README.md", b"# A tree\nof files");
    write("broken.rs", b"pub fn (");
    write("binary.dat", &[0xff; 100]);
    write("deep.rs", format!("const A: u8 = {}1{};", "(".repeat(100_000), ")".repeat(100_000)).as_bytes());
    root
}

#[test]
fn program_refuses_a_missing_path_with_one_line_and_code_2() {
    let output = indexer(&[], Path::new("/no/such/path"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(text(&output.stderr), "indexer: /no/such/path: No such file or directory\n");
}

#[test]
fn program_refuses_what_is_neither_file_nor_directory_and_an_empty_directory() {
    let output = indexer(&[], Path::new("/dev/null"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "indexer: /dev/null: neither a file nor a directory\n");
    let empty = tempfile::tempdir().unwrap();
    let output = indexer(&[], empty.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).ends_with(": no files to index\n"));
}

#[test]
fn program_refuses_an_unreadable_path_with_code_2() {
    use std::os::unix::fs::PermissionsExt;
    let root = tree();
    let locked = root.path().join("src");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&locked).is_ok() {
        return; // a superuser may read everything
    }
    let output = indexer(&[], &locked);
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).ends_with(": Permission denied\n"));
}

#[test]
fn program_gives_identical_results_under_both_allocators() {
    let root = tree();
    let output = indexer(&["--rounds", "2", "--threads", "3", "--json"], root.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let runs = |name: &str| report["runs"][name].as_array().unwrap().clone();
    let all: Vec<Value> = [runs("warm_up"), runs("kmalloc"), runs("system")].concat();
    assert_eq!(all.len(), 6);
    let hash = all[0]["result_hash"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
    for run in &all {
        assert_eq!(run["result_hash"], hash);
        let outcomes = serde_json::json!({ "rust": 40, "text": 1, "syntaxerror": 1, "nottext": 1, "toodeep": 1 });
        assert_eq!(run["outcomes"], outcomes);
    }
    for run in runs("kmalloc") {
        assert_ne!(run["served_by_kmalloc"]["allocations"], 0);
        assert_eq!(run["served_by_system"]["allocations"], 0);
    }
    for run in runs("system") {
        assert_ne!(run["served_by_system"]["allocations"], 0);
        assert_eq!(run["served_by_kmalloc"]["allocations"], 0);
        assert_eq!(run["terms_owned_by_kmalloc"], 0);
    }
}

#[test]
fn program_proves_its_claims() {
    let root = tree();
    let output = indexer(&["--rounds", "1"], root.path());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("byte-identical") && !stdout.contains("FAILED"), "{stdout}");
}

#[test]
fn program_child_refuses_the_wrong_allocator() {
    let root = tree();
    let output = indexer(&["--child", "system"], root.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("INDEXER_ALLOCATOR=system"));
}
