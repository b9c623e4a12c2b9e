//! Passphrases drawn at random from lists of words.
//!
//! The lists are those of BIP-39 (Bitcoin Improvement Proposal 39): 2,048 words of a language, chosen to be common, told
//! apart by their first letters, and unlike each other. Each word drawn adds eleven bits, whoever knows the list. Only
//! lists in letters that one keyboard types alike everywhere are offered: what an input method composes may come out
//! differently on another computer, and would then open nothing.

use std::fmt;

use rand_core::CryptoRng;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Words in a list.
const LIST: usize = 2048;

/// Bits that a word adds: the logarithm of [`LIST`].
const BITS_PER_WORD: usize = 11;

/// Fewest words: 44 bits, above the floor of what is accepted as a passphrase.
pub const FEWEST_WORDS: usize = 4;

/// Words drawn unless more or fewer are asked for: 66 bits, which at [`GUESSES_PER_SECOND`] take a hundred million years.
///
/// [`GUESSES_PER_SECOND`]: crate::cli::strength::GUESSES_PER_SECOND
pub const DEFAULT_WORDS: usize = 6;

/// Most words: 264 bits, more than any key has.
pub const MOST_WORDS: usize = 24;

/// A language that there is a list of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Czech, without accents.
    Czech,
    /// English.
    English,
    /// French.
    French,
    /// Italian, without accents.
    Italian,
    /// Portuguese, without accents.
    Portuguese,
    /// Spanish.
    Spanish,
}

impl Language {
    fn list(self) -> &'static [&'static str; LIST] {
        match self {
            Self::Czech => bip39::Language::Czech,
            Self::English => bip39::Language::English,
            Self::French => bip39::Language::French,
            Self::Italian => bip39::Language::Italian,
            Self::Portuguese => bip39::Language::Portuguese,
            Self::Spanish => bip39::Language::Spanish,
        }
        .word_list()
    }
}

/// A passphrase drawn at random. Wiped when dropped; shown by [`Suggestion::expose`] only.
pub struct Suggestion {
    text: Zeroizing<String>,
    words: usize,
}

impl Suggestion {
    /// Draws `count` words, brought within [`FEWEST_WORDS`] and [`MOST_WORDS`], each with equal probability and
    /// independent of the others.
    #[must_use]
    pub fn draw(language: Language, count: usize, rng: &mut impl CryptoRng) -> Self {
        let list = language.list();
        let words = count.clamp(FEWEST_WORDS, MOST_WORDS);
        // Longer than any word of the lists, so that nothing is moved and left behind.
        let mut text = Zeroizing::new(String::with_capacity(words * 48));
        for number in 0..words {
            if number > 0 {
                text.push(' ');
            }
            // LIST is a power of two: the low bits of a uniform number are uniform.
            let at = usize::try_from(rng.next_u32()).unwrap_or_default() % LIST;
            // The lists are decomposed (NFKD); a passphrase is compared composed, as it is typed.
            text.extend(list[at].nfc());
        }
        Self { text, words }
    }

    /// The words, a space between each two.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Bits of randomness in it: what remains to be guessed by who knows the list and the number of words.
    #[must_use]
    pub const fn bits(&self) -> usize {
        self.words * BITS_PER_WORD
    }
}

impl fmt::Debug for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text: _, words: _ } = self;
        f.write_str("Suggestion(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clap::ValueEnum;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::cli::{
        prompt::TypedPassphrase,
        strength::{Level, Strength},
    };

    fn languages() -> &'static [Language] {
        Language::value_variants()
    }

    #[test]
    fn the_lists_have_different_words_that_any_prompt_takes() {
        for language in languages() {
            let words: BTreeSet<String> = language.list().iter().map(|word| word.nfc().collect()).collect();
            assert_eq!(words.len(), 1 << BITS_PER_WORD, "{language:?}");
            for word in &words {
                assert!(word.chars().all(|c| c.is_lowercase()) && word.len() < 48, "{language:?}: {word}");
                assert!(word.chars().count() >= 2, "{language:?}: {word}");
            }
        }
    }

    #[test]
    fn what_is_drawn_is_what_a_prompt_reads() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for language in languages() {
            for count in [0, FEWEST_WORDS, DEFAULT_WORDS, MOST_WORDS, 1000] {
                let drawn = Suggestion::draw(*language, count, &mut rng);
                let typed = TypedPassphrase::new(Zeroizing::new(drawn.expose().to_owned())).unwrap();
                assert_eq!(typed.expose(), drawn.expose());
                // Typed on a keyboard that composes nothing.
                let apart: String = drawn.expose().nfd().collect();
                assert_eq!(TypedPassphrase::new(Zeroizing::new(apart)).unwrap().expose(), drawn.expose());
                let words = drawn.expose().split(' ').count();
                assert_eq!(words, count.clamp(FEWEST_WORDS, MOST_WORDS));
                assert_eq!(drawn.bits(), words * 11);
            }
        }
    }

    #[test]
    fn the_default_is_strong_and_the_fewest_are_accepted() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        for language in languages() {
            for _ in 0..40 {
                let drawn = Suggestion::draw(*language, DEFAULT_WORDS, &mut rng);
                assert_eq!(Strength::of(drawn.expose()).level(), Level::Strong, "{}", drawn.expose());
                let least = Suggestion::draw(*language, FEWEST_WORDS, &mut rng);
                assert_ne!(Strength::of(least.expose()).level(), Level::TooWeak, "{}", least.expose());
            }
        }
    }

    /// Chi-square over all words of a list: drawn with equal probability.
    #[test]
    fn every_word_is_drawn_equally_often() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        let (draws, per) = (8000, MOST_WORDS);
        for _ in 0..draws {
            let drawn = Suggestion::draw(Language::English, per, &mut rng);
            drawn.expose().split(' ').for_each(|word| *counts.entry(word.to_owned()).or_default() += 1.0);
        }
        assert_eq!(counts.len(), LIST);
        let expected = f64::from(draws * u32::try_from(per).unwrap()) / 2048.0;
        let chi: f64 = counts.values().map(|count| (count - expected).powi(2) / expected).sum();
        // 2,047 degrees of freedom: mean 2,047, standard deviation 64; five of them either way.
        assert!((1727.0..2367.0).contains(&chi), "{chi}");
    }

    #[test]
    fn debug_tells_nothing() {
        let drawn = Suggestion::draw(Language::English, 6, &mut ChaCha20Rng::seed_from_u64(4));
        assert_eq!(format!("{drawn:?}"), "Suggestion(..)");
    }
}
