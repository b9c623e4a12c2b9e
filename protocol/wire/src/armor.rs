//! Bytes as text that people copy: a prefix, a colon, base32 (RFC 4648, lower case, no padding) of the bytes and
//! four bytes of checksum. Case, spaces and line breaks do not matter on reading; a wrong letter is noticed.

use data_encoding::BASE32_NOPAD;

use crate::{ids::labelled_hash, labels};

/// Longest text that is looked at: a ticket has some 400 characters.
pub const MAX_TEXT: usize = 4096;
const CHECKSUM: usize = 4;

/// Text that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArmorError {
    /// Another kind of text, or none of ours.
    #[error("the text does not start with the expected word")]
    WrongKind,
    /// A letter is missing or was changed.
    #[error("the text is damaged: a letter is missing or was changed")]
    Damaged,
}

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash = labelled_hash(labels::ARMOR, &[prefix.as_bytes(), bytes]);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// `prefix:` and the text of `bytes`.
pub fn encode(prefix: &str, bytes: &[u8]) -> String {
    let mut all = bytes.to_vec();
    all.extend_from_slice(&checksum(prefix, bytes));
    let mut text = BASE32_NOPAD.encode(&all);
    text.make_ascii_lowercase();
    format!("{prefix}:{text}")
}

/// The bytes of a text with this prefix.
///
/// # Errors
/// [`ArmorError::WrongKind`] for another prefix, [`ArmorError::Damaged`] for a wrong letter or checksum.
pub fn decode(prefix: &str, text: &str) -> Result<Vec<u8>, ArmorError> {
    if text.len() > MAX_TEXT {
        return Err(ArmorError::Damaged);
    }
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (kind, body) = compact.split_once(':').ok_or(ArmorError::WrongKind)?;
    if !kind.eq_ignore_ascii_case(prefix) {
        return Err(ArmorError::WrongKind);
    }
    let mut bytes =
        BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map_err(|_| ArmorError::Damaged)?;
    let split = bytes.len().checked_sub(CHECKSUM).ok_or(ArmorError::Damaged)?;
    let sum = bytes.split_off(split);
    if sum != checksum(prefix, &bytes) {
        return Err(ArmorError::Damaged);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_letter_is_noticed() {
        let text = encode("lapwing", &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(decode("lapwing", &text).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for i in "lapwing:".len()..text.len() {
            let mut changed: Vec<char> = text.chars().collect();
            changed[i] = if changed[i] == 'a' { 'b' } else { 'a' };
            let changed: String = changed.into_iter().collect();
            assert_eq!(decode("lapwing", &changed), Err(ArmorError::Damaged), "at {i}");
        }
    }

    #[test]
    fn spaces_and_case_do_not_matter() {
        let text = encode("lapwing", b"hello").to_uppercase();
        let (a, b) = text.split_at(12);
        assert_eq!(decode("lapwing", &format!(" {a}\n  {b}\n")).unwrap(), b"hello");
    }

    #[test]
    fn other_words_are_named() {
        assert_eq!(decode("lapwing", "https://example.org"), Err(ArmorError::WrongKind));
        assert_eq!(decode("lapwing", "garbage"), Err(ArmorError::WrongKind));
        assert_eq!(decode("lapwing", "lapwing:"), Err(ArmorError::Damaged));
    }
}
