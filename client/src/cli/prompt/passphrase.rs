//! A passphrase between the keyboard and the vault.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Longest passphrase in bytes, after normalisation. A page of text fits; a file given by mistake does not.
pub const MAX_PASSPHRASE: usize = 1024;

/// A passphrase as it was typed or read, normalised to Unicode NFC (UAX 15), so that the same characters from another
/// keyboard are the same passphrase. Wiped when dropped; shown by nothing.
pub struct TypedPassphrase(Zeroizing<String>);

/// What cannot be a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassphraseError {
    /// Nothing.
    #[error("the passphrase is empty")]
    Empty,
    /// Longer than [`MAX_PASSPHRASE`].
    #[error("the passphrase is longer than 1024 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the passphrase is not text in UTF-8")]
    NotText,
    /// Characters that no prompt lets a person type, so that the vault could never be opened at one.
    #[error("the passphrase holds control characters")]
    Control,
}

impl PassphraseError {
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Empty => "type one, or give one line that is not empty",
            Self::TooLong => "is it the right file? a passphrase is one line",
            Self::NotText | Self::Control => {
                "use letters, digits, punctuation and spaces, one line, in UTF-8"
            }
        }
    }
}

impl TypedPassphrase {
    /// Takes text over and normalises it.
    ///
    /// # Errors
    /// [`PassphraseError::Empty`], [`PassphraseError::TooLong`], [`PassphraseError::Control`].
    pub fn new(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if text.len() > MAX_PASSPHRASE {
            return Err(PassphraseError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PassphraseError::Control);
        }
        // NFC makes text at most three times as long in UTF-8 (UAX 15 section 12), so nothing is moved and left behind.
        let mut normal = Zeroizing::new(String::with_capacity(text.len() * 3));
        normal.extend(text.nfc());
        if normal.len() > MAX_PASSPHRASE {
            return Err(PassphraseError::TooLong);
        }
        Ok(Self(normal))
    }

    /// Reads a line of bytes, without its line break.
    pub(super) fn of_line(line: &[u8]) -> Result<Self, PassphraseError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| PassphraseError::NotText)?;
        Self::new(Zeroizing::new(text.to_owned()))
    }

    /// The text, for the derivation and for [`crate::cli::strength`].
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is the same passphrase. What differs, and where, may show in the time this takes; both were typed by
    /// the same person just now.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for TypedPassphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("TypedPassphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(text: &str) -> Result<TypedPassphrase, PassphraseError> {
        TypedPassphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn keyboards_do_not_matter() {
        assert_eq!(typed("cafe\u{301}").unwrap().expose(), "caf\u{e9}");
        assert!(typed("cafe\u{301}").unwrap().is(&typed("caf\u{e9}").unwrap()));
        assert!(!typed("cafe").unwrap().is(&typed("caf\u{e9}").unwrap()));
        assert_eq!(typed(" two  spaces ").unwrap().expose(), " two  spaces ", "spaces count");
    }

    #[test]
    fn what_cannot_be_typed_is_refused() {
        assert_eq!(typed("").unwrap_err(), PassphraseError::Empty);
        assert_eq!(typed("a\0b").unwrap_err(), PassphraseError::Control);
        assert_eq!(typed("a\nb").unwrap_err(), PassphraseError::Control);
        assert_eq!(typed(&"x".repeat(MAX_PASSPHRASE + 1)).unwrap_err(), PassphraseError::TooLong);
        assert!(typed(&"x".repeat(MAX_PASSPHRASE)).is_ok());
        // Grows to three times its length: U+1D160 decomposes and does not compose again.
        assert_eq!(typed(&"\u{1d160}".repeat(200)).unwrap_err(), PassphraseError::TooLong);
    }

    #[test]
    fn lines_lose_their_break() {
        for line in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(TypedPassphrase::of_line(line.as_bytes()).unwrap().expose(), "secret");
        }
        assert_eq!(TypedPassphrase::of_line(b"\n").unwrap_err(), PassphraseError::Empty);
        assert_eq!(TypedPassphrase::of_line(b"\xff\xfe\n").unwrap_err(), PassphraseError::NotText);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", typed("secret").unwrap()), "TypedPassphrase(..)");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_and_nothing_is_moved(text in any::<String>()) {
            if let Ok(once) = typed(&text) {
                prop_assert!(once.0.len() <= text.len() * 3);
                let twice = typed(once.expose()).unwrap();
                prop_assert_eq!(twice.expose(), once.expose());
            }
        }
    }
}
