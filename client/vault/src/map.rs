//! CBOR maps with small integer keys (RFC 8949): the one encoding of everything structured that is sealed.
//!
//! Invariants: the writer emits keys in ascending order and shortest heads (deterministic encoding, section
//! 4.2.1), into a buffer that is wiped; the reader is given at most 8 KiB and nests at most eight deep, so
//! what it allocates is bounded by its input; unknown keys are ignored.

use ciborium::Value;
use zeroize::{Zeroize, Zeroizing};

/// Deeper nesting than any of our maps has.
const DEPTH_MAX: usize = 8;

/// Writes one map.
pub(crate) struct MapWriter {
    out: Zeroizing<Vec<u8>>,
}

impl MapWriter {
    /// A map of `entries` entries; the caller writes exactly that many.
    pub(crate) fn new(entries: usize) -> Self {
        // Room for the largest content from the start: growing would leave copies of keys behind.
        let mut writer = Self { out: Zeroizing::new(Vec::with_capacity(8192)) };
        writer.head(5, entries as u64);
        writer
    }

    pub(crate) fn unsigned(&mut self, key: u8, value: u64) {
        self.head(0, key.into());
        self.head(0, value);
    }

    pub(crate) fn boolean(&mut self, key: u8, value: bool) {
        self.head(0, key.into());
        self.out.push(if value { 0xf5 } else { 0xf4 });
    }

    pub(crate) fn bytes(&mut self, key: u8, value: &[u8]) {
        self.head(0, key.into());
        self.byte_string(value);
    }

    /// A list of `items` items; the caller writes exactly that many.
    pub(crate) fn list(&mut self, key: u8, items: usize) {
        self.head(0, key.into());
        self.head(4, items as u64);
    }

    pub(crate) fn item(&mut self, value: u64) {
        self.head(0, value);
    }

    pub(crate) fn item_bytes(&mut self, value: &[u8]) {
        self.byte_string(value);
    }

    /// A list of `items` items inside a list.
    pub(crate) fn inner_list(&mut self, items: usize) {
        self.head(4, items as u64);
    }

    /// An item `[number, bytes]`.
    pub(crate) fn pair(&mut self, number: u64, value: &[u8]) {
        self.inner_list(2);
        self.item(number);
        self.item_bytes(value);
    }

    pub(crate) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.out
    }

    fn byte_string(&mut self, value: &[u8]) {
        self.head(2, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        match value {
            0..=23 => self.out.push(major | bytes[7]),
            24..=0xff => self.out.extend_from_slice(&[major | 24, bytes[7]]),
            0x100..=0xffff => {
                self.out.push(major | 25);
                self.out.extend_from_slice(&bytes[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(major | 26);
                self.out.extend_from_slice(&bytes[4..]);
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend_from_slice(&bytes);
            }
        }
    }
}

/// One decoded map; its byte strings are wiped on drop.
pub(crate) struct MapReader {
    entries: Vec<(Value, Value)>,
}

impl MapReader {
    /// Decodes exactly one map with nothing behind it.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, DEPTH_MAX).ok()?;
        match value {
            Value::Map(entries) if bytes.is_empty() => Some(Self { entries }),
            mut other => {
                wipe(&mut other);
                None
            }
        }
    }

    pub(crate) fn unsigned(&self, key: u8) -> Option<u64> {
        u64::try_from(self.value(key)?.as_integer()?).ok()
    }

    pub(crate) fn boolean(&self, key: u8) -> Option<bool> {
        self.value(key)?.as_bool()
    }

    pub(crate) fn bytes(&self, key: u8) -> Option<&[u8]> {
        Some(self.value(key)?.as_bytes()?.as_slice())
    }

    pub(crate) fn array<const N: usize>(&self, key: u8) -> Option<&[u8; N]> {
        self.bytes(key)?.try_into().ok()
    }

    /// A list of at most `most` items.
    pub(crate) fn list(&self, key: u8, most: usize) -> Option<&[Value]> {
        let items = self.value(key)?.as_array()?;
        (items.len() <= most).then_some(items.as_slice())
    }

    /// The parts of an item `[number, 32 bytes]`.
    pub(crate) fn pair(item: &Value) -> Option<(u64, &[u8; 32])> {
        let [number, bytes] = item.as_array()?.as_slice() else { return None };
        Some((u64::try_from(number.as_integer()?).ok()?, bytes.as_bytes()?.as_slice().try_into().ok()?))
    }

    fn value(&self, key: u8) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name.as_integer() == Some(key.into())).map(|(_, value)| value)
    }
}

impl Drop for MapReader {
    fn drop(&mut self) {
        for (key, value) in &mut self.entries {
            wipe(key);
            wipe(value);
        }
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::Bytes(bytes) => bytes.zeroize(),
        Value::Text(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            wipe(key);
            wipe(value);
        }),
        Value::Tag(_, inner) => wipe(inner),
        // Numbers and simple values carry no secret; the type may grow, and so may they.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_the_bytes_of_rfc_8949_appendix_a() {
        let mut map = MapWriter::new(0);
        for value in [0, 10, 23, 24, 100, 1000, 1_000_000, 1_000_000_000_000] {
            map.item(value);
        }
        let expected = "a0000a171818186419 03e81a000f42401b000000e8d4a51000".replace(' ', "");
        assert_eq!(data_encoding::HEXLOWER.encode(&map.finish()), expected);
    }

    #[test]
    fn something_behind_the_map_is_refused() {
        assert!(MapReader::read(&[0xa0]).is_some());
        assert!(MapReader::read(&[0xa0, 0]).is_none());
        assert!(MapReader::read(&[0x80]).is_none());
        assert!(MapReader::read(&[]).is_none());
    }
}
