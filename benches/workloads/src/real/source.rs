//! syn: Rust source becomes syntax trees, of which some stay alive.

use super::words::{capital, Words};
use crate::{timed, Done, Scale};
use std::fmt::Write;
use std::hint::black_box;

/// Files parsed at full scale.
const FILES: usize = 50;
/// Different ones among them.
const DIFFERENT: usize = 4;
/// Types of a file, each with what belongs to it.
const TYPES: usize = 8;
/// Items that make one type.
const ITEMS: usize = 5;
/// Files alive at a time.
const ALIVE: usize = 8;

/// Parses files, and drops each when so many others have followed.
pub(crate) fn syn(scale: Scale) -> Done {
    let files = scale.of(FILES);
    let mut words = Words::new(302, 10);
    let sources: Vec<_> = (0..DIFFERENT).map(|_| source(&mut words)).collect();
    timed(files, || {
        let mut alive: Vec<_> = (0..ALIVE).map(|_| None).collect();
        for i in 0..files {
            let file = syn::parse_file(&sources[i % DIFFERENT]).expect("Rust");
            assert_eq!(file.items.len(), 1 + TYPES * ITEMS);
            alive[i % ALIVE] = Some(file);
        }
        black_box(alive);
    })
}

fn source(words: &mut Words) -> String {
    let mut source = String::from("//! Generated.\nuse std::{collections::HashMap, fmt::{self, Display}};\n");
    for number in 0..TYPES {
        let name = format!("{}{number}", capital(words.word()));
        add_type(words, &name, &mut source).expect("strings take everything");
    }
    source
}

/// A structure, an enumeration, their methods, a trait's, and a test.
fn add_type(words: &mut Words, name: &str, source: &mut String) -> std::fmt::Result {
    // Names that are no keywords, whatever the words are.
    let mut field = || words.phrase(2).replace(' ', "_");
    let (first, second, third, method) = (field(), field(), field(), field());
    let variants: Vec<_> = (0..6).map(|number| format!("{}{number}", capital(words.word()))).collect();
    let note = words.text(60);

    writeln!(source, "/// {note}\n#[derive(Debug, Clone, PartialEq)]")?;
    writeln!(source, "pub struct {name}<'a, K: Ord + 'a, V = Vec<u8>> where V: Clone {{")?;
    writeln!(source, "    /// {note}\n    pub {first}: HashMap<K, Vec<Option<&'a V>>>,")?;
    writeln!(source, "    {second}: Result<Box<dyn Fn(usize, &str) -> V + Send>, {name}Error>,")?;
    writeln!(source, "    {third}: [(u32, String); 4],\n}}")?;

    writeln!(source, "#[derive(Debug)]\npub enum {name}Error {{")?;
    for (number, variant) in variants.iter().enumerate() {
        match number % 3 {
            0 => writeln!(source, "    {variant},")?,
            1 => writeln!(source, "    {variant}(String, usize),")?,
            _ => writeln!(source, "    {variant} {{ line: u32, column: u32 }},")?,
        }
    }
    writeln!(source, "}}")?;

    writeln!(source, "impl<'a, K: Ord + 'a, V> {name}<'a, K, V> where V: Clone {{")?;
    writeln!(source, "    /// {note}\n    #[inline]\n    pub fn {method}(&mut self, key: K, limit: usize)")?;
    writeln!(source, "        -> Result<Vec<&'a V>, {name}Error> {{")?;
    writeln!(source, "        let mut found = Vec::with_capacity(limit * 2 + 1);")?;
    writeln!(source, "        for (index, value) in self.{first}.entry(key).or_default().iter().enumerate() {{")?;
    writeln!(source, "            if index >= limit && !found.is_empty() || value.is_none() {{ continue; }}")?;
    writeln!(source, "            match (value, index % 4) {{")?;
    writeln!(source, "                (Some(value), 0 | 1) => found.push(*value),")?;
    writeln!(source, "                (Some(value), rest) if rest < limit => found.insert(rest - 1, value),")?;
    writeln!(source, "                (None, _) => return Err({name}Error::{}),", variants[0])?;
    writeln!(source, "                _ => unreachable!(\"{note} {{}}\", index),")?;
    writeln!(source, "            }}\n        }}")?;
    writeln!(source, "        let total: u64 = self.{third}.iter().map(|(n, s)| *n as u64 + s.len() as u64).sum();")?;
    writeln!(
        source,
        "        while let Some(last) = found.pop() {{ if total & 1 == 0 {{ found.push(last); break }} }}"
    )?;
    writeln!(source, "        Ok(found)\n    }}\n}}")?;

    writeln!(source, "impl Display for {name}Error {{")?;
    writeln!(source, "    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n        match self {{")?;
    for (number, variant) in variants.iter().enumerate() {
        match number % 3 {
            0 => writeln!(source, "            Self::{variant} => f.write_str(\"{variant}\"),")?,
            1 => writeln!(source, "            Self::{variant}(what, n) => write!(f, \"{{what}}: {{}}\", n + 1),")?,
            _ => writeln!(source, "            Self::{variant} {{ line, .. }} => Display::fmt(line, f),")?,
        }
    }
    writeln!(source, "        }}\n    }}\n}}")?;

    writeln!(source, "#[test]\nfn {method}_of_{}() {{", name.to_lowercase())?;
    writeln!(source, "    let texts = [\"{first}\", \"{second}\", \"{third}\"].map(|t| t.to_owned() + \"!\");")?;
    writeln!(source, "    let closure = move |a: usize, b: &str| -> Vec<u8> {{ vec![a as u8; b.len()] }};")?;
    writeln!(source, "    assert_eq!(texts[1..].iter().filter(|t| t.len() > 3).count(), 2, \"{note}\");")?;
    writeln!(source, "    assert!(matches!(closure(0x1f, &texts[0]).as_slice(), [31, .., 31]));\n}}")
}
