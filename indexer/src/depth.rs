//! Depth: how deeply a parser that calls itself could nest in a Rust file, before it is asked to.
//!
//! `syn` and the destructors of its tree recurse once or a few times per level, and a stack overflow cannot be
//! caught. So the text is looked over first, without recursion, for an upper bound: delimiters that are open, plus the
//! tokens since the start of the statement or list element that one is in, because each of them may open a level
//! (`- - - x`, `a + b + c`, `else if`). Strings, characters and comments count as one token or none.
//!
//! The bound is rough on purpose: it may be far above the truth, never below it. A comma starts a new element only
//! while no `<` is open, since `A<B, A<B, ...` nests through commas; a `<` that compares counts as open until the
//! statement ends.

/// The largest bound that a file may have and still be parsed.
pub(crate) const MAX_DEPTH: usize = 6_000;

/// Stack of a thread that parses: several times what [`MAX_DEPTH`] levels were seen to take in a test build. Only what
/// is used becomes resident.
pub(crate) const PARSER_STACK: usize = 128 << 20;

/// What is known of one open delimiter: the tokens of its current statement, and the `<` open in it.
#[derive(Default, Clone, Copy)]
struct Level {
    tokens: usize,
    angles: usize,
}

/// Upper bound of the nesting depth of a Rust file.
pub(crate) fn bound(text: &str) -> usize {
    let mut scan = Scan { text: text.as_bytes(), at: 0 };
    let mut outer: Vec<Level> = Vec::new();
    let mut outer_sum = 0;
    let mut level = Level::default();
    let mut deepest = 0;
    let mut after_brace = false;
    while let Some(token) = scan.next_token() {
        // After a block, an attribute or a word that does not carry the expression on starts a new statement or item.
        if after_brace && matches!(token, Token::Word | Token::Hash) {
            level = Level::default();
        }
        after_brace = false;
        match token {
            Token::Open => {
                outer_sum += level.tokens + 1;
                outer.push(level);
                level = Level::default();
            }
            Token::Close { brace } => {
                level = outer.pop().unwrap_or_default();
                outer_sum = outer_sum.saturating_sub(level.tokens + 1);
                level.tokens += 1;
                after_brace = brace;
            }
            Token::Semicolon => level = Level::default(),
            Token::Comma if level.angles == 0 => level.tokens = 0,
            Token::Less => {
                level.angles += 1;
                level.tokens += 1;
            }
            Token::Greater => {
                level.angles = level.angles.saturating_sub(1);
                level.tokens += 1;
            }
            Token::Comma | Token::Word | Token::Linking | Token::Hash | Token::Other => level.tokens += 1,
        }
        deepest = deepest.max(outer_sum + level.tokens);
    }
    deepest
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Open,
    Close {
        brace: bool,
    },
    Comma,
    Semicolon,
    Less,
    Greater,
    /// A name, a number, a string or a character.
    Word,
    /// `else`, `as` or `in`: words that carry on what stands before them.
    Linking,
    /// `#`, which starts an attribute.
    Hash,
    Other,
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn next_token(&mut self) -> Option<Token> {
        loop {
            let byte = *self.text.get(self.at)?;
            match (byte, self.peek(1)) {
                _ if byte.is_ascii_whitespace() => self.at += 1,
                (b'/', b'/') => self.skip_to(|byte| byte == b'\n'),
                (b'/', b'*') => self.skip_block_comment(),
                _ => break,
            }
        }
        let (byte, next) = (self.peek(0), self.peek(1));
        let start = self.at;
        self.at += 1;
        Some(match byte {
            b'(' | b'[' | b'{' => Token::Open,
            b')' | b']' | b'}' => Token::Close { brace: byte == b'}' },
            b',' => Token::Comma,
            b';' => Token::Semicolon,
            b'-' | b'=' if next == b'>' => {
                self.at += 1; // an arrow closes nothing
                Token::Other
            }
            b'<' => Token::Less,
            b'>' => Token::Greater,
            b'#' => Token::Hash,
            b'"' => self.end_of_string(),
            b'\'' => self.end_of_quote(),
            _ if is_word(byte) => {
                self.skip_to(|byte| !is_word(byte));
                match &self.text[start..self.at] {
                    b"else" | b"as" | b"in" => Token::Linking,
                    b"r" | b"br" | b"cr" if self.starts_raw_string() => self.end_of_raw_string(),
                    _ => Token::Word,
                }
            }
            _ => Token::Other,
        })
    }

    fn skip_to(&mut self, stop: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && !stop(self.text[self.at]) {
            self.at += 1;
        }
    }

    fn skip_block_comment(&mut self) {
        let mut open = 0;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    open += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    open -= 1;
                    self.at += 2;
                    if open == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// The opening quote has been read.
    fn end_of_string(&mut self) -> Token {
        while self.at < self.text.len() {
            match self.peek(0) {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    break;
                }
                _ => self.at += 1,
            }
        }
        Token::Word
    }

    /// A quote has been read: a character if one closes it, else a lifetime or label.
    fn end_of_quote(&mut self) -> Token {
        if self.peek(0) == b'\\' {
            self.at += 2;
            self.skip_to(|byte| byte == b'\'' || byte == b'\n');
            self.at += 1;
            return Token::Word;
        }
        // One character, which may be longer than a byte, and the closing quote.
        let mut end = self.at + 1;
        while self.text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end += 1;
        }
        if self.text.get(end) == Some(&b'\'') {
            self.at = end + 1;
            return Token::Word;
        }
        Token::Other
    }

    fn starts_raw_string(&self) -> bool {
        let hashes = self.text[self.at..].iter().take_while(|&&byte| byte == b'#').count();
        self.peek(hashes) == b'"'
    }

    fn end_of_raw_string(&mut self) -> Token {
        let hashes = self.text[self.at..].iter().take_while(|&&byte| byte == b'#').count();
        self.at += hashes + 1;
        while self.at < self.text.len() {
            self.skip_to(|byte| byte == b'"');
            self.at += 1;
            let closing = self.text[self.at.min(self.text.len())..].iter().take_while(|&&byte| byte == b'#').count();
            if closing >= hashes {
                self.at += hashes;
                break;
            }
        }
        Token::Word
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_grows_with_everything_that_nests() {
        let n = 1_000;
        let repeat = |text: &str| text.repeat(n);
        for text in [
            format!("const A: u8 = {}1{};", repeat("("), repeat(")")),
            format!("const A: u8 = {}1;", repeat("-")),
            format!("const A: u8 = 1{};", repeat(" + 1")),
            format!("type A = {}u8{};", repeat("Box<"), repeat(">")),
            format!("type A = {}u8{};", repeat("P<u8, "), repeat(">")),
            format!("fn f() {{ if a {{}} {} }}", repeat("else if a {} ")),
            format!("fn f() {{ x{} }}", repeat(".y()")),
            format!("fn f() {}{}", repeat("{"), repeat("}")),
            format!("fn f() {{ {} }}", repeat("|x| ")),
            format!("fn f() {{ {{}}{} }}", repeat(" as u8")),
            format!("fn f() {{ {} x {} }}", repeat("for A {} in "), repeat("{}")),
            format!("const A: &str = {}\"\\\"\" {};", repeat("'\"' - ('a' - "), repeat(")")),
        ] {
            assert!(bound(&text) >= n, "{} for {}", bound(&text), &text[..40]);
        }
    }

    #[test]
    fn depth_ignores_length_without_nesting() {
        let n = 10_000;
        for text in [
            "fn f(a: u8) -> u8 { a + 1 }\n".repeat(n),
            "#[test]\nfn f(a: u8) -> u8 { a + 1 }\n".repeat(n),
            format!("const A: [u8; {n}] = [{}];", "0xff, ".repeat(n)),
            format!("// {}", "( ".repeat(n)),
            format!("/* /* {} */ */", "( ".repeat(n)),
            format!("const A: &str = \"{}\";", "\\\"( ".repeat(n)),
            format!("const A: &str = r#\"{}\"#;", "\" ( ".repeat(n)),
            "const A: char = '('; const B: char = '\\''; const C: &'static str = \"\"; const D: char = 'é';".repeat(n),
            format!("fn f() {{ match x {{ {} }} }}", "1 => { g(); }\n'a' => {} A::B(_) => Vec::<u8>::new(),".repeat(n)),
        ] {
            assert!(bound(&text) < 100, "{} for {}", bound(&text), &text[..40]);
        }
    }

    #[test]
    fn depth_survives_text_that_is_not_rust() {
        for text in ["", ")))}", "'", "'\\", "\"\\", "r#\"", "r###", "/* /*", "é'é", "br\"", "<<>>>>", "\u{feff}x"] {
            bound(text);
        }
    }
}
