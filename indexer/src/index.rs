//! Index: terms and where they occur, in shards that are each built by one thread.
//!
//! The shard of a term is a fixed function of its bytes, so shards are the same however many threads parse. Postings
//! arrive in any order and are sorted once all are there; from then on nothing tells in which order they came.

use crate::corpus::hexadecimal;
use crate::parse::{Outcome, Posting, Symbol};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Shards of the index.
pub(crate) const SHARDS: usize = 4;

/// The shard that a term belongs to: FNV-1a of its bytes, and a last multiplication to bring its bits to the top.
pub(crate) fn shard_of(term: &str) -> usize {
    let hash = term
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SHARDS
}

/// Terms of one shard and where they occur.
pub(crate) type Terms = BTreeMap<String, Vec<Posting>>;

/// What the index says of one file. (Fields in alphabetical order, as in `Posting`.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Its number.
    pub(crate) file: u32,
    /// Its name in the corpus.
    pub(crate) name: String,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// What it defines.
    pub(crate) symbols: Vec<Symbol>,
}

/// A shard while its postings arrive.
#[derive(Debug, Default)]
pub(crate) struct ShardBuilder(HashMap<String, Vec<Posting>>);

impl ShardBuilder {
    /// Takes in the terms of one file.
    pub(crate) fn add(&mut self, terms: Vec<(String, Vec<Posting>)>) {
        for (term, postings) in terms {
            self.0.entry(term).or_default().extend(postings);
        }
    }

    /// Sorts what has arrived.
    pub(crate) fn finish(self) -> Terms {
        let mut terms: Terms = self.0.into_iter().collect();
        for postings in terms.values_mut() {
            postings.sort_unstable_by_key(|posting| (posting.file, posting.kind));
        }
        terms
    }
}

/// A part of the result with its JSON, and what was read back from that JSON.
#[derive(Debug)]
pub(crate) struct Stored<T> {
    /// As it was built.
    pub(crate) built: T,
    /// As JSON.
    pub(crate) json: Vec<u8>,
    /// As read back from the JSON.
    pub(crate) read_back: T,
}

impl<T: Serialize + for<'json> Deserialize<'json> + PartialEq> Stored<T> {
    /// Writes `built` as JSON and reads it back twice: as the type it was, and as a tree of values that must give the
    /// same JSON again.
    pub(crate) fn round_trip(built: T) -> Result<Stored<T>, String> {
        let say = |error: serde_json::Error| format!("JSON: {error}");
        let json = serde_json::to_vec(&built).map_err(say)?;
        let tree: Value = serde_json::from_slice(&json).map_err(say)?;
        if serde_json::to_vec(&tree).map_err(say)? != json {
            return Err("the tree of values read back from JSON gives other JSON".to_string());
        }
        drop(tree);
        let read_back: T = serde_json::from_slice(&json).map_err(say)?;
        if read_back != built {
            return Err("what was read back from JSON differs from what was written".to_string());
        }
        Ok(Stored { built, json, read_back })
    }
}

/// All that the work has produced.
#[derive(Debug)]
pub(crate) struct Index {
    /// The files, in the order of the corpus.
    pub(crate) files: Stored<Vec<FileEntry>>,
    /// The terms, by shard.
    pub(crate) shards: Vec<Stored<Terms>>,
}

impl Index {
    /// SHA-256 of the JSON of all parts.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for json in self.parts() {
            hasher.update((json.len() as u64).to_le_bytes());
            hasher.update(json);
        }
        hexadecimal(&hasher.finalize())
    }

    /// Bytes of JSON.
    pub(crate) fn json_bytes(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.files.json[..]).chain(self.shards.iter().map(|shard| &shard.json[..]))
    }

    /// Every term, as built and as read back.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (&String, &Vec<Posting>)> {
        self.shards.iter().flat_map(|shard| shard.built.iter().chain(&shard.read_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Kind;

    fn posting(file: u32, kind: Kind) -> Posting {
        Posting { at: vec![file, file + 1], file, kind }
    }

    #[test]
    fn index_does_not_depend_on_the_order_of_arrival() {
        let batches = [
            vec![("b".to_string(), vec![posting(1, Kind::Text)]), ("a".to_string(), vec![posting(1, Kind::Text)])],
            vec![("b".to_string(), vec![posting(0, Kind::Type), posting(0, Kind::Function)])],
        ];
        let build = |order: [usize; 2]| {
            let mut shard = ShardBuilder::default();
            order.into_iter().for_each(|batch| shard.add(batches[batch].clone()));
            shard.finish()
        };
        let terms = build([0, 1]);
        assert_eq!(terms, build([1, 0]));
        let order: Vec<_> = terms["b"].iter().map(|posting| (posting.file, posting.kind)).collect();
        assert_eq!(order, [(0, Kind::Function), (0, Kind::Type), (1, Kind::Text)]);
    }

    #[test]
    fn index_round_trip_gives_back_what_was_written() {
        let terms = Terms::from([("quote \" and é".to_string(), vec![posting(4, Kind::String)])]);
        let stored = Stored::round_trip(terms.clone()).unwrap();
        assert_eq!(stored.read_back, terms);
        let json = String::from_utf8(stored.json).unwrap();
        assert_eq!(json, r#"{"quote \" and é":[{"at":[4,5],"file":4,"kind":"string"}]}"#);
    }

    #[test]
    fn index_round_trip_notices_a_loss() {
        #[derive(Serialize, Deserialize, PartialEq)]
        struct Lossy {
            #[serde(skip)]
            lost: u8,
        }
        assert!(Stored::round_trip(Lossy { lost: 1 }).is_err());
    }

    #[test]
    fn index_shards_share_the_terms_out() {
        let mut shards = [0; SHARDS];
        (0..1_000).for_each(|n| shards[shard_of(&format!("term{n}"))] += 1);
        assert!(shards.iter().all(|&terms| terms > 100), "{shards:?}");
    }
}
