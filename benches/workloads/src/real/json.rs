//! serde_json: documents of many nested values are read, changed and written.

use super::words::Words;
use crate::{timed, Done, Scale};
use serde_json::{json, Value};
use std::hint::black_box;

/// Documents read at full scale.
const DOCUMENTS: usize = 140;
/// Different ones among them.
const DIFFERENT: usize = 4;
/// Records of a document.
const RECORDS: usize = 200;
/// Documents alive at a time.
const ALIVE: usize = 4;

/// Parses a document, changes each record, writes it all to a string.
pub(crate) fn json(scale: Scale) -> Done {
    let documents = scale.of(DOCUMENTS);
    let mut words = Words::new(301, 10);
    let texts: Vec<_> = (0..DIFFERENT).map(|_| document(&mut words).to_string()).collect();
    timed(documents, || {
        let mut alive = vec![Value::Null; ALIVE];
        for i in 0..documents {
            let text = &texts[i % DIFFERENT];
            let mut document: Value = serde_json::from_str(text).expect("JSON");
            for record in document["records"].as_array_mut().expect("the records") {
                change(record);
            }
            let written = black_box(document.to_string());
            assert!(written.len() > text.len());
            alive[i % ALIVE] = document;
        }
        black_box(alive);
    })
}

/// Longer in every case.
fn change(record: &mut Value) {
    let street = record["address"]["street"].take();
    record["address"]["lines"] = json!([street, "second floor", null]);
    record["tags"].as_array_mut().expect("the tags").push(json!("changed"));
    record["history"].as_array_mut().expect("the history").reverse();
}

fn document(words: &mut Words) -> Value {
    let records: Vec<_> = (0..RECORDS).map(|id| record(words, id)).collect();
    json!({ "version": 3, "title": words.phrase(5), "records": records })
}

fn record(words: &mut Words, id: usize) -> Value {
    let tags: Vec<_> = (0..words.random.below(6)).map(|_| words.word().to_owned()).collect();
    let history: Vec<_> = (0..words.random.below(5))
        .map(|year| json!({ "year": 2000 + year, "what": words.phrase(3), "paid": words.random.below(2) == 0 }))
        .collect();
    json!({
        "id": id,
        "name": words.phrase(2),
        "active": words.random.below(2) == 0,
        "balance": words.random.below(1_000_000) as f64 / 100.0,
        "address": { "street": words.phrase(2), "number": words.random.below(200), "town": words.word() },
        "tags": tags,
        "history": history,
        "note": if words.random.below(3) == 0 { Value::Null } else { json!(words.text(80)) },
    })
}
