//! How long a passphrase would last, in words, and whether two are too much alike.
//!
//! The estimate is zxcvbn's (Wheeler, USENIX Security 2016): it knows words, names, dates, keyboards and repetitions,
//! in English above all. It is an upper bound for what an adversary needs who does not know the person.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Guesses a second that a laboratory makes against the vault's derivation (Argon2id with 256 MiB): some hundred of
/// today's graphics processors. One of them is held back by its memory's speed to about a hundred.
pub const GUESSES_PER_SECOND: f64 = 1e4;

/// Below 10^11 guesses (a laboratory's four months) a passphrase is refused unless the caller's flag says otherwise:
/// eleven random letters, four words drawn by dice, or a sentence that nobody else has said.
const FLOOR_LOG10: f64 = 11.0;

/// From 10^14 guesses on (centuries) there is nothing to better.
const STRONG_LOG10: f64 = 14.0;

/// Characters that are looked at: the estimate's work grows with the square of the length, and whoever types more has
/// enough.
const MAX_LOOKED_AT: usize = 100;

/// How hard a passphrase is to guess.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Strength {
    guesses_log10: f64,
    advice: Option<&'static str>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below the floor: refuse it, unless the person insists by a flag that explains the risk.
    TooWeak,
    /// It holds for a time; longer is better.
    Fair,
    /// It holds.
    Strong,
}

impl Strength {
    /// Estimates a passphrase. Takes milliseconds.
    pub fn of(passphrase: &str) -> Self {
        let looked_at: Zeroizing<String> = Zeroizing::new(passphrase.chars().take(MAX_LOOKED_AT).collect());
        let entropy = zxcvbn::zxcvbn(&looked_at, &["lapwing"]);
        Self {
            guesses_log10: entropy.guesses_log10(),
            advice: entropy.feedback().map(|_| {
                "use four or more words drawn by dice or at random, or a sentence that nobody else has said"
            }),
        }
    }

    /// What to do about it.
    pub fn level(&self) -> Level {
        if self.guesses_log10 < FLOOR_LOG10 {
            Level::TooWeak
        } else if self.guesses_log10 < STRONG_LOG10 {
            Level::Fair
        } else {
            Level::Strong
        }
    }

    /// What would make it stronger, where the estimate has found a weakness.
    pub const fn advice(&self) -> Option<&'static str> {
        self.advice
    }

    fn time(&self) -> &'static str {
        // 10^n guesses at GUESSES_PER_SECOND, rounded down to a word.
        let seconds_log10 = self.guesses_log10 - GUESSES_PER_SECOND.log10();
        let steps = [
            (0.0, "less than a second"),
            (1.78, "seconds"),
            (3.56, "minutes"),
            (4.94, "hours"),
            (6.42, "days"),
            (7.5, "months"),
            (8.5, "years"),
            (9.5, "decades"),
        ];
        steps.iter().find(|(below, _)| seconds_log10 < *below).map_or("centuries", |(_, word)| *word)
    }
}

impl fmt::Display for Strength {
    /// One line: `fair: it would hold a laboratory off for years`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.level() {
            Level::TooWeak => "too weak",
            Level::Fair => "fair",
            Level::Strong => "strong",
        };
        write!(f, "{word}: it would hold a laboratory off for {}", self.time())
    }
}

impl fmt::Debug for Strength {
    /// No figure: a strength in a log tells where guessing pays.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guesses_log10: _, advice: _ } = self;
        f.write_str("Strength(..)")
    }
}

/// Edits within which two passphrases count as alike: one of them guessed, seen or betrayed leads to the other in a few
/// thousand tries, and one is typed for the other by mistake.
const ALIKE_EDITS: usize = 3;

/// Whether one passphrase leads to the other: at most three edits apart (a character inserted, deleted, replaced, or
/// swapped with its neighbour), or one a prefix of the other. Case and the way accents are encoded do not count as
/// differences.
pub fn too_close(a: &str, b: &str) -> bool {
    let fold = |text: &str| -> Zeroizing<Vec<char>> {
        Zeroizing::new(text.nfkc().flat_map(char::to_lowercase).collect())
    };
    let (a, b) = (fold(a), fold(b));
    a.starts_with(&b) || b.starts_with(&a) || within(&a, &b, ALIKE_EDITS)
}

/// Whether the optimal string alignment distance is at most `most`. Looks at the band of the table that can decide.
fn within(a: &[char], b: &[char], most: usize) -> bool {
    if a.len().abs_diff(b.len()) > most {
        return false;
    }
    let far = most + 1;
    // Rows for two characters ago, one ago and now; the cell of column `j` is the distance of the prefixes.
    let mut before_last = vec![far; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).map(|j| j.min(far)).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![far; b.len() + 1];
        if i < far {
            row[0] = i + 1;
        }
        let from = i.saturating_sub(most);
        let to = (i + most + 1).min(b.len());
        for j in from..to {
            let cb = b[j];
            let mut best = (last[j] + usize::from(ca != cb)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb {
                best = best.min(before_last[j - 1] + 1);
            }
            row[j + 1] = best.min(far);
        }
        before_last = last;
        last = row;
    }
    last.last().is_some_and(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passphrases_are_told_apart_by_strength() {
        for weak in
            ["", "a", "password", "lapwing1", "qwertyuiop", "Tr0ub4dour", "aaaaaaaaaaaaaaaaaaaaa", "20011987"]
        {
            assert_eq!(Strength::of(weak).level(), Level::TooWeak, "{weak}");
            assert!(Strength::of(weak).advice().is_some(), "{weak}");
        }
        for strong in
            ["plinth oxbow garnet mulled voyage", "x8!kQz0vTr#m2LpW", "ночь улица фонарь аптека мост"]
        {
            assert_eq!(Strength::of(strong).level(), Level::Strong, "{strong}");
        }
    }

    #[test]
    fn it_is_said_in_words() {
        let said = |guesses_log10| Strength { guesses_log10, advice: None }.to_string();
        assert_eq!(said(3.0), "too weak: it would hold a laboratory off for less than a second");
        assert_eq!(said(10.9), "too weak: it would hold a laboratory off for months");
        assert_eq!(said(11.0), "fair: it would hold a laboratory off for months");
        assert_eq!(said(12.0), "fair: it would hold a laboratory off for years");
        assert_eq!(said(14.0), "strong: it would hold a laboratory off for centuries");
    }

    #[test]
    fn a_very_long_one_takes_no_longer() {
        assert_eq!(Strength::of(&"ab1 ".repeat(100_000)).level(), Strength::of(&"ab1 ".repeat(25)).level());
    }

    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", Strength::of("password")), "Strength(..)");
    }

    #[test]
    fn alike_is_a_prefix_or_three_edits() {
        for (a, b) in [
            ("correct horse", "correct horse"),
            ("correct horse", "correct horse battery staple"),
            ("correct horse", "Correct Horse"),
            ("correct horse", "corret hores"),
            ("correct horse", "c0rrect h0rse!"),
            ("correct horse", "orrect horseXY"),
            ("caf\u{e9} au lait", "cafe\u{301} au lait"),
            ("anything", ""),
        ] {
            assert!(too_close(a, b) && too_close(b, a), "{a} / {b}");
        }
        for (a, b) in [
            ("correct horse", "correct house by the sea"),
            ("correct horse", "wrong camel"),
            ("abcdefgh", "abXdeYghZW"),
            ("1234567890", "0987654321"),
        ] {
            assert!(!too_close(a, b) && !too_close(b, a), "{a} / {b}");
        }
    }

    /// The same distance by its definition, without a band.
    fn distance(a: &[char], b: &[char]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let mut best = (table[i - 1][j] + 1)
                        .min(table[i][j - 1] + 1)
                        .min(table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(table[i - 2][j - 2] + 1);
                    }
                    best
                };
            }
        }
        table[a.len()][b.len()]
    }

    proptest! {
        #[test]
        fn the_band_decides_as_the_whole_table(a in "[abc]{0,12}", b in "[abc]{0,12}", most in 0usize..5) {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(within(&a, &b, most), distance(&a, &b) <= most);
        }

        #[test]
        fn three_edits_are_always_found(
            text in "[a-z ]{8,30}", edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, "[0-9]"), 0..=3)
        ) {
            let mut chars: Vec<char> = text.chars().collect();
            for (at, kind, new) in edits {
                let at = at.index(chars.len());
                let new = new.chars().next().unwrap();
                match kind {
                    0 => chars.insert(at, new),
                    1 => { chars.remove(at); }
                    2 => chars[at] = new,
                    _ => { let next = (at + 1) % chars.len(); if next == at + 1 { chars.swap(at, next) } }
                }
            }
            let changed: String = chars.iter().collect();
            // Swaps of characters that other edits had moved can cost two; then the plain distance decides.
            let apart = distance(&text.chars().collect::<Vec<_>>(), &chars);
            prop_assert_eq!(too_close(&text, &changed), apart <= 3 || text.starts_with(&changed) || changed.starts_with(&text));
        }

        #[test]
        fn it_does_not_matter_which_comes_first(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(too_close(&a, &b), too_close(&b, &a));
            prop_assert!(too_close(&a, &a));
        }

        #[test]
        fn estimating_never_panics(text in any::<String>()) {
            let _ = Strength::of(&text).to_string();
        }
    }
}
