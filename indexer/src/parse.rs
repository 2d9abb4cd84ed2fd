//! Parse: from the bytes of one file to its terms and symbols.
//!
//! A Rust file goes through `syn`: its identifiers (those in macro calls too), the names of its functions and types,
//! the words of its documentation and of its strings become terms; each function and type becomes a symbol with its
//! signature and the first line of its documentation. Any other file is text: its words become terms. A file that is
//! not UTF-8 or does not parse gives neither, and says why.

use crate::depth::{self, MAX_DEPTH};
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use syn::visit::{self, Visit};

/// What a term is, where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// An identifier, wherever it is used.
    Identifier,
    /// The name of a function where it is defined.
    Function,
    /// The name of a type or trait where it is defined.
    Type,
    /// A word of documentation.
    Documentation,
    /// A word of a string literal.
    String,
    /// A word of a file that is not Rust.
    Text,
}

/// Where a term occurs in one file. (Fields in alphabetical order: JSON objects that have been read back are sorted.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Posting {
    /// Ordinal numbers of the occurrences among all terms of the file.
    pub(crate) at: Vec<u32>,
    /// Number of the file in the corpus.
    pub(crate) file: u32,
    /// What the term is there.
    pub(crate) kind: Kind,
}

/// A function or type that a Rust file defines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Symbol {
    /// First line of its documentation.
    pub(crate) documentation: Option<String>,
    /// Function or type.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: String,
    /// Its signature, as tokens.
    pub(crate) signature: String,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Parsed as Rust.
    Rust,
    /// Split into words.
    Text,
    /// A Rust file that `syn` refuses.
    SyntaxError,
    /// Not UTF-8.
    NotText,
    /// Rust that may nest more deeply than the parser's stack allows.
    TooDeep,
    /// Longer than this program reads.
    TooLong,
    /// Could not be read.
    Unreadable,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Rust => "parsed as Rust",
            Outcome::Text => "split into words",
            Outcome::SyntaxError => "skipped, does not parse",
            Outcome::NotText => "skipped, not UTF-8",
            Outcome::TooDeep => "skipped, may nest too deeply",
            Outcome::TooLong => "skipped, too long",
            Outcome::Unreadable => "skipped, cannot be read",
        })
    }
}

/// What parsing one file gives.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Where each term occurs.
    pub(crate) terms: HashMap<String, Vec<Posting>>,
    /// What the file defines, in its order.
    pub(crate) symbols: Vec<Symbol>,
    /// What became of the file.
    pub(crate) outcome: Outcome,
}

/// Parses file number `file`.
pub(crate) fn parse(file: u32, name: &str, content: &[u8]) -> Parsed {
    let mut collector = Collector { file, terms: HashMap::new(), symbols: Vec::new(), position: 0 };
    let outcome = match std::str::from_utf8(content) {
        Err(_) => Outcome::NotText,
        Ok(text) if name.ends_with(".rs") => collector.rust(text),
        Ok(text) => {
            collector.words(Kind::Text, text);
            Outcome::Text
        }
    };
    Parsed { terms: collector.terms, symbols: collector.symbols, outcome }
}

struct Collector {
    file: u32,
    terms: HashMap<String, Vec<Posting>>,
    symbols: Vec<Symbol>,
    position: u32,
}

impl Collector {
    fn rust(&mut self, text: &str) -> Outcome {
        if depth::bound(text) > MAX_DEPTH {
            return Outcome::TooDeep;
        }
        match syn::parse_file(text) {
            Ok(tree) => {
                self.visit_file(&tree);
                Outcome::Rust
            }
            Err(_) => Outcome::SyntaxError,
        }
    }

    fn term(&mut self, kind: Kind, term: String) {
        let position = self.position;
        self.position += 1;
        let postings = self.terms.entry(term).or_default();
        match postings.iter_mut().find(|posting| posting.kind == kind) {
            Some(posting) => posting.at.push(position),
            None => postings.push(Posting { at: vec![position], file: self.file, kind }),
        }
    }

    fn words(&mut self, kind: Kind, text: &str) {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        for word in words.filter(|word| word.len() > 1) {
            self.term(kind, word.to_lowercase());
        }
    }

    fn define(&mut self, kind: Kind, name: &Ident, attributes: &[syn::Attribute], signature: String) {
        self.term(kind, name.to_string());
        let documentation = attributes.iter().find_map(documentation).map(|text| text.trim().to_string());
        self.symbols.push(Symbol { documentation, kind, name: name.to_string(), signature });
    }

    fn function(&mut self, attributes: &[syn::Attribute], signature: &syn::Signature) {
        let text = signature.to_token_stream().to_string();
        self.define(Kind::Function, &signature.ident, attributes, text);
    }

    fn type_of(&mut self, attributes: &[syn::Attribute], what: &str, name: &Ident, generics: &syn::Generics) {
        let generics = generics.to_token_stream();
        self.define(Kind::Type, name, attributes, format!("{what} {name} {generics}").trim_end().to_string());
    }

    /// The terms of a macro call, whose tokens have no tree. Groups wait on the heap, not on the stack.
    fn tokens(&mut self, tokens: &TokenStream) {
        let mut open = vec![tokens.clone().into_iter()];
        while let Some(innermost) = open.last_mut() {
            match innermost.next() {
                Some(TokenTree::Group(group)) => open.push(group.stream().into_iter()),
                Some(TokenTree::Ident(ident)) => self.visit_ident(&ident),
                Some(TokenTree::Literal(literal)) => {
                    if let syn::Lit::Str(string) = syn::Lit::new(literal) {
                        self.visit_lit_str(&string);
                    }
                }
                Some(TokenTree::Punct(_)) => {}
                None => drop(open.pop()),
            }
        }
    }
}

/// The text of a documentation attribute.
fn documentation(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
    pair.path.is_ident("doc").then(|| text.value())
}

impl<'tree> Visit<'tree> for Collector {
    fn visit_ident(&mut self, ident: &'tree Ident) {
        self.term(Kind::Identifier, ident.to_string());
    }

    fn visit_lit_str(&mut self, string: &'tree syn::LitStr) {
        self.words(Kind::String, &string.value());
    }

    fn visit_attribute(&mut self, attribute: &'tree syn::Attribute) {
        match documentation(attribute) {
            Some(text) => self.words(Kind::Documentation, &text),
            None => visit::visit_attribute(self, attribute),
        }
    }

    fn visit_macro(&mut self, call: &'tree syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(&call.tokens);
    }

    fn visit_item_fn(&mut self, item: &'tree syn::ItemFn) {
        self.function(&item.attrs, &item.sig);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'tree syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'tree syn::TraitItemFn) {
        self.function(&item.attrs, &item.sig);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_foreign_item_fn(&mut self, item: &'tree syn::ForeignItemFn) {
        self.function(&item.attrs, &item.sig);
        visit::visit_foreign_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'tree syn::ItemStruct) {
        self.type_of(&item.attrs, "struct", &item.ident, &item.generics);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'tree syn::ItemEnum) {
        self.type_of(&item.attrs, "enum", &item.ident, &item.generics);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'tree syn::ItemUnion) {
        self.type_of(&item.attrs, "union", &item.ident, &item.generics);
        visit::visit_item_union(self, item);
    }

    fn visit_item_trait(&mut self, item: &'tree syn::ItemTrait) {
        self.type_of(&item.attrs, "trait", &item.ident, &item.generics);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'tree syn::ItemType) {
        self.type_of(&item.attrs, "type", &item.ident, &item.generics);
        visit::visit_item_type(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(parsed: &Parsed, term: &str) -> Vec<Kind> {
        parsed.terms.get(term).into_iter().flatten().map(|posting| posting.kind).collect()
    }

    #[test]
    fn parse_finds_names_documentation_strings_and_macro_tokens() {
        let text = r#"
            /// Counts beans.
            pub struct Counter<T> { beans: T }
            impl<T> Counter<T> { fn count(&self) -> usize { println!("{} Beans", inner(hidden)); 0 } }
        "#;
        let parsed = parse(3, "lib.rs", text.as_bytes());
        assert_eq!(parsed.outcome, Outcome::Rust);
        assert_eq!(kinds(&parsed, "Counter"), [Kind::Type, Kind::Identifier]);
        assert_eq!(kinds(&parsed, "count"), [Kind::Function, Kind::Identifier]);
        assert_eq!(kinds(&parsed, "beans"), [Kind::Documentation, Kind::Identifier, Kind::String]);
        assert_eq!(kinds(&parsed, "hidden"), [Kind::Identifier]);
        assert!(parsed.terms.values().flatten().all(|posting| posting.file == 3));
        let symbols: Vec<_> = parsed.symbols.iter().map(|symbol| symbol.signature.as_str()).collect();
        assert_eq!(symbols, ["struct Counter < T >", "fn count (& self) -> usize"]);
        assert_eq!(parsed.symbols[0].documentation.as_deref(), Some("Counts beans."));
    }

    #[test]
    fn parse_splits_other_files_into_words() {
        let parsed = parse(0, "README.md", "Two words, two WORDS; ünïcode_x a".as_bytes());
        assert_eq!(parsed.outcome, Outcome::Text);
        assert_eq!(parsed.terms["two"][0].at, [0, 2]);
        assert_eq!(parsed.terms["words"][0].at, [1, 3]);
        assert_eq!(parsed.terms.len(), 3);
    }

    #[test]
    fn parse_skips_what_it_cannot_read() {
        assert_eq!(parse(0, "a.rs", b"fn f( {").outcome, Outcome::SyntaxError);
        assert_eq!(parse(0, "a.txt", b"\xff\xfe").outcome, Outcome::NotText);
        let deep = format!("const A: u8 = {}1{};", "(".repeat(1_000_000), ")".repeat(1_000_000));
        assert_eq!(parse(0, "a.rs", deep.as_bytes()).outcome, Outcome::TooDeep);
    }

    #[test]
    fn parse_of_the_deepest_files_that_are_let_through_fits_the_stack() {
        let files = |n: usize| {
            let repeat = |text: &str| text.repeat(n);
            [
                format!("const A: u8 = {}1{};", repeat("("), repeat(")")),
                format!("const A: u8 = {}1;", repeat("-")),
                format!("const A: u8 = 1{};", "+1".repeat(n / 2)),
                format!("type A = {}u8{};", "Box<".repeat(n / 3), ">".repeat(n / 3)),
                format!("fn f() {}{}", repeat("{"), repeat("}")),
                format!("fn f() {{ if a {{}} {} }}", "else if a {} ".repeat(n / 4)),
                format!("fn f() {{ {}a{} }}", "if ".repeat(n / 2), "{}".repeat(n / 2)),
                format!("fn f() {{ {}x{} }}", "match x { _ => ".repeat(n / 5), "}".repeat(n / 5)),
                format!("m! {}{}", repeat("{"), repeat("}")),
            ]
        };
        let run = move || {
            for text in files(MAX_DEPTH - 20) {
                let outcome = parse(0, "a.rs", text.as_bytes()).outcome;
                assert_eq!(outcome, Outcome::Rust, "{}", &text[..30]);
            }
        };
        std::thread::Builder::new().stack_size(depth::PARSER_STACK).spawn(run).unwrap().join().unwrap();
    }
}
