//! Words, sentences and sizes to make input from.
//!
//! Few words are common and most are rare, as in speech: the number of a word is log-uniform, which comes close to
//! Zipf's law and needs integers only, so that the text is the same everywhere.

use crate::Random;

const ONSETS: [&str; 20] =
    ["b", "br", "c", "d", "f", "g", "gl", "h", "k", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "tr", "v"];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "ou"];
const CODAS: [&str; 8] = ["", "", "", "l", "n", "r", "s", "t"];

/// A source of words.
pub(super) struct Words {
    /// For whoever makes something of the words.
    pub(super) random: Random,
    vocabulary: Vec<String>,
    bits: usize,
}

impl Words {
    /// About `1 << bits` different words.
    pub(super) fn new(seed: u64, bits: usize) -> Self {
        let mut random = Random::new(seed);
        let vocabulary = (1..1 << bits).map(|_| invented(&mut random)).collect();
        Self { random, vocabulary, bits }
    }

    /// A word, most often a common one.
    pub(super) fn word(&mut self) -> &str {
        let number = self.random.log_uniform(0, self.bits);
        &self.vocabulary[number - 1]
    }

    /// This many words with spaces between them.
    pub(super) fn phrase(&mut self, words: usize) -> String {
        let mut phrase = String::new();
        for _ in 0..words {
            phrase.push_str(if phrase.is_empty() { "" } else { " " });
            phrase.push_str(self.word());
        }
        phrase
    }

    /// Sentences that together are at least this long.
    pub(super) fn text(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            text.push_str(if text.is_empty() { "" } else { " " });
            let words = self.random.between(4, 12);
            text.push_str(&capital(&self.phrase(words)));
            if self.random.below(3) == 0 {
                text.push_str(", ");
                text.push_str(&self.phrase(words));
            }
            text.push('.');
        }
        text
    }
}

/// The word with its first letter in upper case.
pub(super) fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn invented(random: &mut Random) -> String {
    let mut word = String::new();
    for _ in 0..random.between(1, 4) {
        word.push_str(ONSETS[random.below(ONSETS.len())]);
        word.push_str(VOWELS[random.below(VOWELS.len())]);
        word.push_str(CODAS[random.below(CODAS.len())]);
    }
    word
}
