//! Texts that differ only in case or composition, made equal.
//!
//! Invariant: [`fold`] gives the normalisation form C of Unicode's full case folding of the text's normalisation form C.
//! Most texts never reach the tables: for scripts whose letters fold one to one and compose with nothing in the same
//! ranges, the answer is computed.

use unicase::UniCase;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

/// Writes the folded `text` into `out`, in place of what that held.
pub(super) fn fold(text: &str, out: &mut Zeroizing<String>) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
        return;
    }
    for letter in text.chars() {
        let Some(folded) = plain(letter) else {
            fold_by_tables(text, out);
            return;
        };
        out.push(folded);
    }
}

/// The folded letter, where it is one letter, stands for itself in form C, and is no part of a longer composition.
const fn plain(letter: char) -> Option<char> {
    let point = letter as u32;
    let shift = match point {
        0x41..=0x5a => 0x20,
        0x00..=0x7f => 0,
        // Latin-1 but for the micro sign and the sharp s, which fold to others.
        0xd7 => 0,
        0xc0..=0xde => 0x20,
        0xb5 | 0xdf => return None,
        0x80..=0xff => 0,
        // Cyrillic.
        0x400..=0x40f => 0x50,
        0x410..=0x42f => 0x20,
        0x430..=0x45f => 0,
        // Hebrew and Arabic letters, syllables of Japanese and Korean, Han, dashes and quotation marks, emoji: no case.
        0x5d0..=0x5ea | 0x621..=0x63a | 0x641..=0x64a => 0,
        0x3041..=0x3096 | 0x30a1..=0x30fa | 0x4e00..=0x9fff | 0xac00..=0xd7a3 => 0,
        0x2010..=0x2027 | 0x1f300..=0x1f64f => 0,
        _ => return None,
    };
    char::from_u32(point + shift)
}

fn fold_by_tables(text: &str, out: &mut Zeroizing<String>) {
    let composed: Zeroizing<String> = Zeroizing::new(text.nfc().collect());
    let mut folded = UniCase::unicode(composed.as_str()).to_folded_case();
    out.clear();
    out.extend(folded.nfc());
    folded.zeroize();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        let mut out = Zeroizing::new("what was there before".to_owned());
        fold(text, &mut out);
        out.to_string()
    }

    fn by_tables(text: &str) -> String {
        let mut out = Zeroizing::new(String::new());
        fold_by_tables(text, &mut out);
        out.to_string()
    }

    #[test]
    fn every_letter_that_is_computed_is_what_the_tables_say() {
        for letter in '\0'..=char::MAX {
            if let Some(folded) = plain(letter) {
                assert_eq!(by_tables(&letter.to_string()), folded.to_string(), "{letter:?}");
            }
        }
    }

    #[test]
    fn case_and_composition_make_no_difference() {
        for (one, other) in [
            ("Straße", "STRASSE"),
            ("Zürich", "zu\u{308}RICH"),
            ("Ёлка", "ёЛКА"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ﬁn", "FIN"),
            ("\u{212a}elvin", "kelvin"),
            ("ĲSSEL", "ĳssel"),
            ("Việt", "VIE\u{323}\u{302}T"),
            ("\u{1e9e}", "ss"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("cafe"), folded("café"));
        assert_ne!(folded("и"), folded("й"));
    }

    proptest! {
        #[test]
        fn what_is_computed_equals_what_the_tables_say(text in "[A-Za-z À-ÿЀ-џא-ת一-丿가-각😀-😏‘-”]{0,40}") {
            prop_assert_eq!(folded(&text), by_tables(&text));
        }

        #[test]
        fn any_text_folds_as_the_tables_say_and_folding_twice_changes_nothing(text: String) {
            prop_assert_eq!(folded(&text), by_tables(&text));
            prop_assert_eq!(folded(&folded(&text)), folded(&text));
        }
    }
}
