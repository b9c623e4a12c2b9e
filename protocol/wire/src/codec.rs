//! CBOR (RFC 8949) with a bound on length and depth before anything is allocated.
//!
//! Unknown map keys are ignored (so that fields can be added); bytes after the item are refused.

use serde::{Serialize, de::DeserializeOwned};

/// How deep arrays and maps may nest. Our formats need eight; hostile depth costs stack.
const MAX_DEPTH: usize = 24;

/// Bytes that are not what they should be. Which byte was wrong is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than the named limit of this format.
    #[error("the data is longer than allowed")]
    TooLong,
    /// Not CBOR, or not of the expected shape.
    #[error("the data is malformed")]
    Malformed,
}

/// The CBOR bytes of `value`.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    encode_onto(value, &mut out);
    out
}

/// The same behind what is in `out`.
pub(crate) fn encode_onto<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    #[expect(
        clippy::expect_used,
        reason = "a vector accepts every write, and our types have no failing serializer"
    )]
    ciborium::into_writer(value, out).expect("our types serialize");
}

/// Reads one CBOR item that fills `bytes`.
///
/// # Errors
/// [`DecodeError::TooLong`] above `limit` bytes, [`DecodeError::Malformed`] for everything else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong);
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| DecodeError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32);
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes, 100), Err(DecodeError::Malformed));
    }

    #[test]
    fn length_is_checked_first() {
        assert_eq!(decode::<u32>(&[0; 9], 8), Err(DecodeError::TooLong));
    }

    #[test]
    fn deep_nesting_is_refused_without_overflow() {
        let bytes = vec![0x81; 60_000];
        assert_eq!(decode::<ciborium::Value>(&bytes, 100_000), Err(DecodeError::Malformed));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A byte string that claims 2^62 bytes.
        let bytes = [0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(decode::<serde_bytes::ByteBuf>(&bytes, 100).is_err());
    }
}
