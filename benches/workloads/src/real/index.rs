//! tantivy: an index of generated documents is built in memory and searched.

use super::words::Words;
use crate::{timed, Done, Scale};
use std::hint::black_box;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::QueryParser;
use tantivy::schema::{Schema, STORED, TEXT};
use tantivy::{doc, Index, IndexWriter};

/// Documents at full scale.
const DOCUMENTS: usize = 5_000;
/// Memory that the writer may fill before it writes a segment: the least it accepts.
const BUDGET: usize = 15_000_000;

/// Adds documents, commits them, and searches once. The writer, the merger and the store have threads of their own.
pub(crate) fn tantivy(scale: Scale) -> Done {
    let documents = scale.of(DOCUMENTS);
    let mut words = Words::new(330, 14);
    let texts: Vec<_> = (0..documents)
        .map(|_| {
            let length = words.random.between(100, 1_000);
            (words.phrase(5), words.text(length))
        })
        .collect();
    let wanted = texts[documents / 2].0.clone();

    timed(documents, || {
        let mut schema = Schema::builder();
        let title = schema.add_text_field("title", TEXT | STORED);
        let body = schema.add_text_field("body", TEXT);
        let index = Index::create_in_ram(schema.build());
        let mut writer: IndexWriter = index.writer_with_num_threads(1, BUDGET).expect("a writer");
        for (number, (heading, text)) in texts.iter().enumerate() {
            let stamp = writer.add_document(doc!(title => heading.as_str(), body => text.as_str()));
            assert_eq!(stamp.expect("a document that is taken"), number as u64);
        }
        writer.commit().expect("a commit");

        let searcher = index.reader().expect("a reader").searcher();
        assert_eq!(searcher.num_docs(), documents as u64);
        let query = QueryParser::for_index(&index, vec![title, body]).parse_query(&wanted).expect("a query");
        let (best, all) = searcher.search(&query, &(TopDocs::with_limit(10).order_by_score(), Count)).expect("results");
        assert!(all >= best.len() && !best.is_empty());
        black_box(best);
        writer.wait_merging_threads().expect("merges that end");
    })
}
