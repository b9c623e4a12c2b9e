//! How long a passphrase would last, in words.
//!
//! The estimate is zxcvbn's (Wheeler, USENIX Security 2016): it knows words, names, dates, keyboards and repetitions,
//! in English above all. It is an upper bound for what an adversary needs who does not know the person.

use std::fmt;

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

    proptest! {
        #[test]
        fn estimating_never_panics(text in any::<String>()) {
            let _ = Strength::of(&text).to_string();
        }
    }
}
