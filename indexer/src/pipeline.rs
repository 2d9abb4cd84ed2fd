//! Pipeline: the threads of the work and the channels between them.
//!
//! ```text
//! reader ── batches of files ──► parsers ── terms, by shard ──► one thread per shard ── stored shard ──► caller
//!                                   └────────── file entries ───────────────────────────────────────────► caller
//! ```
//!
//! The text that the reader allocated is freed by a parser, a parser's strings by a shard, a shard by the caller.
//! Channels are bounded, so that a slow stage holds up the one before it.

use crate::corpus::SourceFile;
use crate::depth::PARSER_STACK;
use crate::index::{shard_of, FileEntry, Index, ShardBuilder, Stored, Terms, SHARDS};
use crate::parse::{parse, Outcome, Parsed, Posting};
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use std::fs::File;
use std::io::Read;
use std::thread;

/// A batch is handed on when it has this many bytes or files.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_FILES: usize = 16;
/// A file that is longer is not read.
const LONGEST_FILE: u64 = 32 << 20;

/// A file that has been read, or the reason why not.
struct ReadFile {
    number: u32,
    name: String,
    content: Result<Vec<u8>, Outcome>,
}

type Batch = Vec<ReadFile>;
type ShardTerms = Vec<(String, Vec<Posting>)>;

/// Indexes the files with as many parsing threads as said.
pub(crate) fn run(files: &[SourceFile], parsers: usize) -> Result<Index, String> {
    let (batches, to_parse) = bounded::<Batch>(parsers * 2);
    let (entries, finished) = unbounded::<FileEntry>();
    let (to_shards, of_shards): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| bounded::<ShardTerms>(64)).unzip();
    thread::scope(|scope| {
        let say = |error: std::io::Error| format!("cannot start a thread: {error}");
        let builder = |name: &str| thread::Builder::new().name(name.to_string());
        builder("reader").spawn_scoped(scope, move || read(files, &batches)).map_err(say)?;
        for _ in 0..parsers {
            let (to_parse, entries, to_shards) = (to_parse.clone(), entries.clone(), to_shards.clone());
            let work = move || parse_batches(&to_parse, &entries, &to_shards);
            builder("parser").stack_size(PARSER_STACK).spawn_scoped(scope, work).map_err(say)?;
        }
        drop((to_parse, entries, to_shards));
        let shards = of_shards.into_iter().map(|terms| builder("shard").spawn_scoped(scope, move || shard(&terms)));
        let shards = shards.collect::<Result<Vec<_>, _>>().map_err(say)?;

        let mut files: Vec<FileEntry> = finished.iter().collect();
        files.sort_unstable_by_key(|entry| entry.file);
        let files = Stored::round_trip(files)?;
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().map_err(|_| "a shard has panicked")?;
        let shards = shards.into_iter().map(join).collect::<Result<Vec<_>, String>>()?;
        Ok(Index { files, shards })
    })
}

fn read(files: &[SourceFile], batches: &Sender<Batch>) {
    let mut batch = Batch::new();
    let mut bytes = 0;
    for (number, file) in (0..).zip(files) {
        let content = read_file(file);
        bytes += content.as_ref().map_or(0, Vec::len);
        batch.push(ReadFile { number, name: file.name.clone(), content });
        if bytes >= BATCH_BYTES || batch.len() >= BATCH_FILES {
            bytes = 0;
            if batches.send(std::mem::take(&mut batch)).is_err() {
                return; // the parsers have panicked, and the scope says so
            }
        }
    }
    // Refused only if the parsers have panicked.
    let _ = batches.send(batch);
}

fn read_file(file: &SourceFile) -> Result<Vec<u8>, Outcome> {
    if file.bytes > LONGEST_FILE {
        return Err(Outcome::TooLong);
    }
    let mut content = Vec::with_capacity(file.bytes as usize + 1);
    let read = File::open(&file.path).and_then(|open| open.take(LONGEST_FILE).read_to_end(&mut content));
    read.map(|_| content).map_err(|_| Outcome::Unreadable)
}

fn parse_batches(batches: &Receiver<Batch>, entries: &Sender<FileEntry>, shards: &[Sender<ShardTerms>]) {
    for ReadFile { number, name, content } in batches.iter().flatten() {
        let (bytes, parsed) = match content {
            Ok(content) => (content.len() as u64, parse(number, &name, &content)),
            Err(outcome) => (0, Parsed { terms: Default::default(), symbols: Vec::new(), outcome }),
        };
        let mut by_shard: [ShardTerms; SHARDS] = Default::default();
        for (term, postings) in parsed.terms {
            by_shard[shard_of(&term)].push((term, postings));
        }
        let entry = FileEntry { bytes, file: number, name, outcome: parsed.outcome, symbols: parsed.symbols };
        let sent = entries.send(entry).is_ok();
        if !sent || !by_shard.into_iter().zip(shards).all(|(terms, shard)| shard.send(terms).is_ok()) {
            return; // a shard or the caller has panicked
        }
    }
}

fn shard(arriving: &Receiver<ShardTerms>) -> Result<Stored<Terms>, String> {
    let mut builder = ShardBuilder::default();
    arriving.iter().for_each(|terms| builder.add(terms));
    Stored::round_trip(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Corpus;

    #[test]
    fn pipeline_gives_the_same_result_with_any_number_of_threads() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..60 {
            let text =
                format!("/// Doc {n}\npub fn f{n}(x: Option<Vec<u{n}>>) -> String {{ format!(\"word{n} {{x:?}}\") }}");
            std::fs::write(root.path().join(format!("{n}.rs")), text).unwrap();
            std::fs::write(root.path().join(format!("{n}.md")), format!("word{n} common")).unwrap();
        }
        std::fs::write(root.path().join("broken.rs"), "fn (").unwrap();
        std::fs::write(root.path().join("binary.txt"), [0xff, 0xfe]).unwrap();
        let corpus = Corpus::open(Some(root.path())).unwrap();
        let one = run(&corpus.files, 1).unwrap();
        for parsers in [2, 5] {
            assert_eq!(run(&corpus.files, parsers).unwrap().hash(), one.hash());
        }
        let outcomes = |outcome| one.files.built.iter().filter(|entry| entry.outcome == outcome).count();
        assert_eq!(outcomes(Outcome::Rust), 60);
        assert_eq!(outcomes(Outcome::Text), 60);
        assert_eq!((outcomes(Outcome::SyntaxError), outcomes(Outcome::NotText)), (1, 1));
        let (_, common) = one.terms().find(|(term, _)| *term == "common").unwrap();
        assert_eq!(common.len(), 60);
    }

    #[test]
    fn pipeline_counts_a_file_that_has_gone() {
        let gone = SourceFile { name: "gone.rs".into(), path: "/nowhere/gone.rs".into(), bytes: 1 };
        let index = run(&[gone], 1).unwrap();
        assert_eq!(index.files.built[0].outcome, Outcome::Unreadable);
    }
}
