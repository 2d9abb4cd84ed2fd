//! A Rust program whose C code uses the same heap: SQLite, compiled from its source.
//!
//! `cargo run --release -p allocator-preload --example sqlite` fills a table in memory, and says whose memory that is. The only thing
//! that makes it ours is the feature `override` of `allocator-global`.

use allocator_global::Kmalloc;
use rusqlite::{ffi, Connection};
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

/// Bytes that the program has.
fn used() -> usize {
    Kmalloc::stats().allocated()
}

/// Bytes that SQLite says it has.
fn sqlites() -> usize {
    // SAFETY: has no precondition.
    usize::try_from(unsafe { ffi::sqlite3_memory_used() }).unwrap_or(0)
}

/// Fills a table in memory; what is in use then, and how much of it SQLite says is its own, beside what was before.
fn fill() -> rusqlite::Result<(usize, usize, String)> {
    let before = (used(), sqlites());
    let mut database = Connection::open_in_memory()?;
    database.execute("CREATE TABLE words (number INTEGER PRIMARY KEY, word TEXT NOT NULL)", ())?;
    database.execute("CREATE INDEX by_word ON words (word)", ())?;
    let all = database.transaction()?;
    {
        let mut insert = all.prepare("INSERT INTO words (word) VALUES (?1)")?;
        for number in 0u64..50_000 {
            insert.execute([format!("word {:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))])?;
        }
    }
    all.commit()?;
    let verdict = database.query_row("PRAGMA integrity_check", (), |row| row.get(0))?;
    Ok((used() - before.0, sqlites() - before.1, verdict))
}

fn main() -> ExitCode {
    let (ours, sqlites, verdict) = match fill() {
        Ok(filled) => filled,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // SAFETY: a block of SQLite's, which is freed below.
    let block = unsafe { ffi::sqlite3_malloc(100) };
    let owned = Kmalloc::owns(block.cast::<u8>());
    // SAFETY: allocated above.
    unsafe { ffi::sqlite3_free(block) };
    println!(
        "integrity: {verdict}; SQLite has {sqlites} bytes more, Kmalloc {ours}; a block of SQLite's is ours: {owned}"
    );
    // The rest are a few words of Rust's.
    if verdict == "ok" && owned && sqlites > 1 << 20 && ours >= sqlites {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
