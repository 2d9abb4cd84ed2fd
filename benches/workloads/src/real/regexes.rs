//! regex: many different expressions are compiled and run over short texts.

use super::words::Words;
use crate::{timed, Done, Scale};
use regex::Regex;
use std::hint::black_box;

/// Expressions compiled at full scale.
const EXPRESSIONS: usize = 100;
/// Expressions alive at a time.
const ALIVE: usize = 16;
/// Texts that each one is run over, and how long they are.
const TEXTS: usize = 8;
const LENGTH: usize = 200;

/// Compiles expressions, looks for all their matches and captures.
pub(crate) fn regex(scale: Scale) -> Done {
    let expressions = scale.of(EXPRESSIONS);
    let mut words = Words::new(303, 8);
    let texts: Vec<_> = (0..TEXTS).map(|_| text(&mut words)).collect();
    let patterns: Vec<_> = (0..expressions).map(|number| pattern(&mut words, number)).collect();
    timed(expressions, || {
        let mut alive: Vec<_> = (0..ALIVE).map(|_| None).collect();
        let mut matches = 0;
        for (i, pattern) in patterns.iter().enumerate() {
            let regex = Regex::new(pattern).expect("an expression");
            for text in &texts {
                matches += regex.find_iter(text).count();
                let captures: Vec<_> = regex.captures_iter(text).filter_map(|found| found.get(1)).collect();
                black_box(captures);
            }
            alive[i % ALIVE] = Some(regex);
        }
        assert!(matches >= expressions);
        black_box(alive);
    })
}

/// Words, with numbers, dates, addresses and other alphabets among them.
fn text(words: &mut Words) -> String {
    let (day, number) = (words.random.between(10, 28), words.random.below(10_000));
    let (key, user, host, phrase) = (words.phrase(1), words.phrase(1), words.phrase(1), words.phrase(6));
    format!(
        "2031-05-{day} {phrase}; {key} = \"{number}\" straße λόγος слово {user}@{host}.example {}",
        words.text(LENGTH)
    )
}

fn pattern(words: &mut Words, number: usize) -> String {
    let (a, b, c, d) = (words.phrase(1), words.phrase(1), words.phrase(1), words.phrase(1));
    let n = words.random.between(1, 6);
    match number % 8 {
        0 => format!(r"(?i)\b({a}|{b}|{c}|{d}|example)\b"),
        1 => format!(r"([\p{{L}}\p{{N}}_.]{{1,12}})@(?:{a}|{b}|\w+)\.example"),
        2 => format!(r"(\d{{4}})-(\d{{2}})-(\d{{2}}) ({a}|\w{{{n},}})?"),
        3 => format!(r#"(?P<key>{a}|\w+)\s*=\s*(?P<value>"[^"]{{0,{n}}}"|\S+)"#),
        4 => format!(r"([\p{{Greek}}&&[^{}]]+|\p{{Cyrillic}}{{{n}}}|{b})", &a[..1]),
        5 => format!(r"(?:{a} |{b} |[a-z]+ ){{{n}}}(\w+)"),
        6 => format!(r"(?m)([\p{{Lu}}\p{{Lt}}]\p{{Ll}}+)(?:[ ,]+[^\s{}]+)*?\.", &c[..1]),
        _ => format!(r"(?u:\b)([^\W\d]+(?:{a}|{b}|[aeiou]{{1,{n}}}))"),
    }
}
