//! pulldown-cmark: Markdown becomes HTML.

use super::words::{capital, Words};
use crate::{timed, Done, Scale};
use pulldown_cmark::{html, Options, Parser};
use std::hint::black_box;

/// Documents rendered at full scale.
const DOCUMENTS: usize = 400;
/// Different ones among them, and powers of two that their lengths lie between.
const DIFFERENT: usize = 32;
const SHORTEST: usize = 11;
const LONGEST: usize = 17;
/// Pages alive at a time.
const ALIVE: usize = 8;

/// Renders documents, each to a new string.
pub(crate) fn markdown(scale: Scale) -> Done {
    let documents = scale.of(DOCUMENTS);
    let mut words = Words::new(308, 12);
    let texts: Vec<_> = (0..DIFFERENT.min(documents)).map(|_| document(&mut words)).collect();
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_TASKLISTS;
    timed(documents, || {
        let mut alive = vec![String::new(); ALIVE];
        for i in 0..documents {
            let text = &texts[i % texts.len()];
            let mut page = String::new();
            html::push_html(&mut page, Parser::new_ext(text, options));
            assert!(page.len() > text.len() && page.starts_with("<h1>"));
            alive[i % ALIVE] = page;
        }
        black_box(alive);
    })
}

fn document(words: &mut Words) -> String {
    let length = words.random.log_uniform(SHORTEST, LONGEST);
    let mut document = format!("# {}\n\n", capital(&words.phrase(4)));
    let mut section = 0;
    while document.len() < length {
        section += 1;
        document.push_str(&part(words, section));
        document.push_str("\n\n");
    }
    document
}

fn part(words: &mut Words, section: usize) -> String {
    let lines = words.random.between(3, 9);
    match words.random.below(8) {
        0 => format!("## {} {section}", capital(&words.phrase(3))),
        1 => (0..lines).map(|_| format!("- [ ] {}\n  * `{}`\n", words.text(30), words.word())).collect(),
        2 => (1..lines).map(|line| format!("{line}. **{}** {}\n", words.phrase(1), words.text(40))).collect(),
        3 => {
            let rows = (0..lines).map(|line| format!("| {line} | {} | *{}* |\n", words.phrase(2), words.phrase(1)));
            rows.fold(String::from("| number | what | why |\n|---|:---|---:|\n"), |table, row| table + &row)
        }
        4 => format!("```rust\nlet {} = \"{}\" < &b;\n```", words.phrase(1), words.phrase(5)),
        5 => format!("> {}\n>\n> > {} & so on.", words.text(120), words.text(60)),
        6 => format!("{}[^{section}]\n\n[^{section}]: {}", words.text(100), words.text(50)),
        _ => format!(
            "{} [{}](https://{}.example/{section} \"{}\") _{}_ ![{}](image.png)  \n{}",
            words.text(300),
            words.phrase(3),
            words.phrase(1),
            words.phrase(2),
            words.phrase(2),
            words.phrase(1),
            words.text(100)
        ),
    }
}
