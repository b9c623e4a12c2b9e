//! What the examiner looks for: words and bytes that were planted where nobody may find them.

use std::fmt::Write;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64, Encoding};

/// Something planted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canary {
    /// A word; found in any case and writing.
    Text(String),
    /// Bytes, a key for instance, with a name for the report.
    Bytes(String, Vec<u8>),
}

impl Canary {
    /// What the report calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Bytes(name, _) => name,
        }
    }
}

/// Looks for many canaries at once, in every form in which programs write things down: as it is, in other case, as
/// UTF-16 of both orders, as hexadecimal digits, and as base64 from each of its three places.
pub struct Search {
    /// Compared with a copy in lower case.
    folded: Patterns,
    exact: Patterns,
}

/// Many byte strings that are looked for in one pass.
struct Patterns {
    /// What each is: the number of a canary, and its writing.
    meaning: Vec<(usize, &'static str)>,
    /// There is one, unless there were thousands of millions of bytes to look for.
    finder: Option<AhoCorasick>,
}

impl Patterns {
    fn new(all: Vec<(usize, &'static str, Vec<u8>)>) -> Self {
        let finder = AhoCorasick::new(all.iter().map(|(_, _, bytes)| bytes)).ok();
        assert!(finder.is_some(), "fewer words have to be looked for at once");
        Self { meaning: all.into_iter().map(|(canary, form, _)| (canary, form)).collect(), finder }
    }

    fn hits(&self, bytes: &[u8], hits: &mut Vec<Hit>) {
        let mut seen = vec![false; self.meaning.len()];
        for found in self.finder.iter().flat_map(|finder| finder.find_overlapping_iter(bytes)) {
            let pattern = found.pattern().as_usize();
            if !std::mem::replace(&mut seen[pattern], true) {
                let (canary, form) = self.meaning[pattern];
                hits.push(Hit { canary, form, at: found.start() });
            }
        }
    }
}

/// Where a canary was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Number of the canary in the list that was searched for.
    pub canary: usize,
    /// In which writing.
    pub form: &'static str,
    /// At which byte, the first time.
    pub at: usize,
}

impl Search {
    /// For these canaries. Shorter than five bytes they are found anywhere by chance.
    #[must_use]
    pub fn new(canaries: &[Canary]) -> Self {
        let (mut folded, mut exact) = (Vec::new(), Vec::new());
        let mut add = |canary: usize, form: &'static str, fold: bool, bytes: &[u8]| {
            let patterns = if fold { &mut folded } else { &mut exact };
            patterns.push((canary, form, bytes.to_vec()));
        };
        for (number, canary) in canaries.iter().enumerate() {
            let (bytes, text) = match canary {
                Canary::Text(text) => (text.to_lowercase().into_bytes(), Some(text)),
                Canary::Bytes(_, bytes) => (bytes.clone(), None),
            };
            add(number, "plain", text.is_some(), &bytes);
            if let Some(text) = text {
                let lower = text.to_lowercase();
                let wide =
                    |order: fn(u16) -> [u8; 2]| lower.encode_utf16().flat_map(order).collect::<Vec<u8>>();
                add(number, "UTF-16LE", true, &wide(u16::to_le_bytes));
                add(number, "UTF-16BE", true, &wide(u16::to_be_bytes));
            }
            // As written, for words: who encodes does not fold.
            let written = text.map_or(bytes, |text| text.clone().into_bytes());
            let hex = written.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            add(number, "hexadecimal", true, hex.as_bytes());
            for place in 0..3 {
                add(number, "base64", false, base64_core(&BASE64, &written, place).as_bytes());
            }
        }
        Self { folded: Patterns::new(folded), exact: Patterns::new(exact) }
    }

    /// Every canary and form that stands in `bytes`, once each.
    #[must_use]
    pub fn hits(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.folded.hits(&bytes.to_ascii_lowercase(), &mut hits);
        self.exact.hits(bytes, &mut hits);
        hits.sort();
        hits.dedup_by_key(|hit| (hit.canary, hit.form));
        hits
    }
}

/// The characters that do not depend on what stands around `bytes`, if these begin at `place` within three bytes.
fn base64_core(encoding: &Encoding, bytes: &[u8], place: usize) -> String {
    let padded = [&[0; 2][..place.min(2)], bytes].concat();
    let text = encoding.encode(&padded);
    let whole = padded.len() / 3 * 4;
    // The first characters are mixed with the bytes before.
    let start = [0, 2, 3][place.min(2)];
    text.get(start..whole).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_every_writing_and_nothing_else_is() {
        let canary = "Heron-4711-Nest";
        let search = Search::new(&[Canary::Text(canary.to_owned()), Canary::Text("absent".to_owned())]);
        let forms =
            |bytes: &[u8]| search.hits(bytes).iter().map(|hit| (hit.canary, hit.form)).collect::<Vec<_>>();
        assert_eq!(forms(b"..heron-4711-NEST.."), [(0, "plain")]);
        let wide: Vec<u8> = canary.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(forms(&[b"ab".as_slice(), &wide].concat()), [(0, "UTF-16LE")]);
        let wide: Vec<u8> = canary.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(forms(&[b"ab".as_slice(), &wide].concat()), [(0, "UTF-16BE")]);
        assert_eq!(forms(b"5:4865726F6E2D343731312D4e657374;"), [(0, "hexadecimal")]);
        for before in ["", "a", "ab", "abc", "abcd"] {
            let text = BASE64.encode(format!("{before}{canary} and more").as_bytes());
            assert_eq!(forms(text.as_bytes()), [(0, "base64")], "{before:?}");
        }
        assert!(forms(b"Heron-4711-Nes and t").is_empty());
    }
}
