//! The wire crate's bounded CBOR for what is secret: encoded into a buffer that is wiped.

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// Bytes are not one complete value of the expected format and size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadEncoding;

/// Encodes `value` into a buffer that is wiped when dropped.
///
/// `capacity` is the expected size: a buffer that never grows leaves no copy behind.
pub(crate) fn encode<T: Serialize>(value: &T, capacity: usize) -> Result<Zeroizing<Vec<u8>>, BadEncoding> {
    let mut out = Zeroizing::new(Vec::with_capacity(capacity));
    ciborium::into_writer(value, &mut *out).map_err(|_| BadEncoding)?;
    Ok(out)
}

/// Decodes exactly one value of at most `max` bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, BadEncoding> {
    lapwing_wire::codec::decode(bytes, max).map_err(|_| BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_oversize_and_depth_are_refused() {
        let bytes = encode(&7_u32, 8).unwrap();
        assert_eq!(decode::<u32>(&bytes, 8), Ok(7));
        assert_eq!(decode::<u32>(&[&bytes[..], &[0]].concat(), 8), Err(BadEncoding));
        assert_eq!(decode::<u32>(&bytes, 0), Err(BadEncoding));
        assert_eq!(decode::<ciborium::Value>(&[0x81; 64], 64), Err(BadEncoding));
    }
}
