//! The main job: an indexer over source files, which runs the same work under Kmalloc and under the system's
//! allocator, in fresh processes, and compares time, memory and results.
//!
//! `dispatch` is the global allocator; `corpus`, `depth`, `parse`, `index` and `pipeline` are the work; `child` does it
//! once and measures it; `compare` runs the children; `report` shows and proves.
//!
//! Exit codes: 0 if all went well, 1 if a child failed or a claim of the proof does not hold, 2 for a PATH that cannot
//! be read and for arguments that make no sense.

mod child;
mod compare;
mod corpus;
mod depth;
mod dispatch;
mod index;
mod parse;
mod pipeline;
mod report;

use clap::Parser;
use corpus::Corpus;
use dispatch::{Choice, Dispatch};
use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: Dispatch = Dispatch;

/// Indexes the files under PATH under Kmalloc and under the system's allocator, and compares the two.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// File or directory to index [default: the sources of the packages in Cargo.lock]
    path: Option<PathBuf>,
    /// Measured runs under each allocator
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Threads that parse [default: one per processor]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Index only the first files, sorted by name, that hold at most this many MiB together [default: 16 without a
    /// PATH, else all]
    #[arg(long, value_name = "MIB")]
    limit: Option<u64>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Do the work once under this allocator and report in one line of JSON
    #[arg(long, hide = true, value_name = "KIND")]
    child: Option<Choice>,
}

/// What is indexed of the default corpus, in MiB.
const DEFAULT_LIMIT: u64 = 16;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let corpus = match Corpus::open(arguments.path.as_deref()) {
        Ok(corpus) => corpus,
        Err(error) => return fail(&error, 2),
    };
    let result = match arguments.child {
        Some(choice) => run_child(&arguments, choice, &corpus),
        None => run_parent(&arguments, &corpus),
    };
    result.unwrap_or_else(|error| fail(&error, 1))
}

fn fail(error: &str, code: u8) -> ExitCode {
    eprintln!("indexer: {error}");
    ExitCode::from(code)
}

impl Arguments {
    fn limit_in_bytes(&self) -> Option<u64> {
        let default = if self.path.is_none() { Some(DEFAULT_LIMIT) } else { None };
        self.limit.or(default).map(|mebibytes| mebibytes.saturating_mul(1 << 20))
    }

    fn threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(processors).get()
    }

    /// The arguments of a child that does the same.
    fn of_child(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--threads".into(), self.threads().to_string().into()];
        if let Some(limit) = self.limit {
            arguments.extend(["--limit".into(), limit.to_string().into()]);
        }
        if let Some(path) = &self.path {
            arguments.extend(["--".into(), path.into()]);
        }
        arguments
    }
}

fn run_child(arguments: &Arguments, choice: Choice, corpus: &Corpus) -> Result<ExitCode, String> {
    if Choice::of_this_process() != choice {
        let variable = dispatch::CHOICE_VARIABLE.to_string_lossy();
        return Err(format!("--child {choice} needs {variable}={choice} in the environment"));
    }
    let report = child::work(corpus, arguments.limit_in_bytes(), arguments.threads())?;
    let line = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    print(&format!("{line}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn run_parent(arguments: &Arguments, corpus: &Corpus) -> Result<ExitCode, String> {
    let corpus_hash = corpus.hash();
    if !arguments.json {
        print(&describe(arguments, corpus, &corpus_hash))?;
    }
    let reports = compare::run(&arguments.of_child(), arguments.rounds)?;
    let claims = report::claims(&reports);
    if arguments.json {
        let all = serde_json::json!({ "corpus_hash": corpus_hash, "runs": reports, "claims": claims });
        print(&format!("{all:#}\n"))?;
    } else {
        print(&report::text(&reports, &claims))?;
    }
    match claims.iter().all(|claim| claim.holds) {
        true => Ok(ExitCode::SUCCESS),
        false => Err("the proof has failed".to_string()),
    }
}

fn describe(arguments: &Arguments, corpus: &Corpus, hash: &str) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = match &arguments.path {
        Some(path) => format!("corpus:  {}: ", path.display()),
        None => format!(
            "corpus:  {} packages of Cargo.lock ({} not on this disk): ",
            corpus.packages, corpus.absent_packages
        ),
    };
    text += &format!("{} files, {} bytes, SHA-256 {hash}\n", corpus.files.len(), corpus.bytes());
    if corpus.unreadable > 0 {
        text += &format!("skipped: {} directories or entries that cannot be read\n", corpus.unreadable);
    }
    let indexed = corpus.within(arguments.limit_in_bytes());
    let bytes = mebibytes(indexed.iter().map(|file| file.bytes).sum());
    let limit = match arguments.limit_in_bytes() {
        Some(limit) => format!(" (limit {} MiB, in the order of names)", limit >> 20),
        None => String::new(),
    };
    let (files, threads, rounds) = (indexed.len(), arguments.threads(), arguments.rounds);
    text + &format!("indexed: {files} files, {bytes:.1} MiB{limit}; {threads} parsing threads, {rounds} rounds\n")
}

/// Writes to standard output. A reader that has gone is no error of ours.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}
