//! What is read from opened bytes: payloads, records, keys (docs/vault-format.md, sections 2.3, 4.1, 4.3).

use ciborium::Value;
use serde::Serialize;

/// A payload, field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its name.
    pub id: Vec<u8>,
    /// The key that all payloads of the container share.
    pub header_key: [u8; 32],
    /// Region and key of each volume.
    pub volumes: Vec<(u8, [u8; 32])>,
    /// The two slots it lies in.
    pub slots: [u8; 2],
    /// Bits of the slots it keeps.
    pub keep: u64,
    /// Whether it refreshes all others.
    pub refresh: bool,
    /// The program's own field.
    pub application: Vec<u8>,
    /// Keys of the map that the format does not know.
    pub unknown: Vec<i128>,
    /// Whether everything behind the map is zero.
    pub zero_padded: bool,
}

/// What a stranger may be shown of it: no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PayloadShown {
    /// Volumes it opens.
    pub volumes: usize,
    /// Slots it lies in.
    pub slots: [u8; 2],
    /// Number of slots it says it keeps.
    pub kept_slots: u32,
    /// Whether it refreshes all others at an unlock.
    pub refreshes_others: bool,
    /// Bytes of the program's own field.
    pub field_bytes: usize,
    /// Fields that the format does not know.
    pub unknown_fields: usize,
}

impl Payload {
    /// From an opened inner layer.
    #[must_use]
    pub fn read(plain: &[u8]) -> Option<Self> {
        let (map, rest) = map(plain)?;
        let at = |key: i128| map.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        let volumes =
            at(3)?.as_array()?.iter().map(|item| grant(item.as_array()?)).collect::<Option<Vec<_>>>()?;
        let slots = at(4)?.as_array()?;
        let slot = |number: usize| u8::try_from(slots.get(number)?.as_integer()?).ok();
        Some(Self {
            id: at(1)?.as_bytes()?.clone(),
            header_key: array(at(2)?)?,
            volumes,
            slots: [slot(0)?, slot(1)?],
            keep: u64::try_from(at(5)?.as_integer()?).ok()?,
            refresh: at(6)?.as_bool()?,
            application: at(7)?.as_bytes()?.clone(),
            unknown: map.iter().map(|(key, _)| *key).filter(|key| !(0..=7).contains(key)).collect(),
            zero_padded: rest.iter().all(|byte| *byte == 0),
        })
    }

    /// What may be shown of it.
    #[must_use]
    pub fn shown(&self) -> PayloadShown {
        PayloadShown {
            volumes: self.volumes.len(),
            slots: self.slots,
            kept_slots: self.keep.count_ones(),
            refreshes_others: self.refresh,
            field_bytes: self.application.len(),
            unknown_fields: self.unknown.len(),
        }
    }
}

/// A record of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadRecord {
    /// The slots it lies in.
    pub slots: [u8; 2],
    /// Their keys.
    pub keys: [[u8; 32]; 2],
    /// What it is called.
    pub label: Vec<u8>,
}

/// The records of an allocation unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Of payloads.
    pub payloads: Vec<PayloadRecord>,
    /// Region and key of each volume, and the label.
    pub volumes: Vec<(u8, [u8; 32], Vec<u8>)>,
}

impl Records {
    /// From an opened allocation unit.
    #[must_use]
    pub fn read(plain: &[u8]) -> Option<Self> {
        let (map, _) = map(plain.get(8..)?)?;
        let list = |key: i128| Some(map.iter().find(|(known, _)| *known == key)?.1.as_array()?.clone());
        let payload = |item: &Value| {
            let item = item.as_array()?;
            let slot = |at: usize| u8::try_from(item.get(at)?.as_integer()?).ok();
            let keys = [array(item.get(3)?)?, array(item.get(4)?)?];
            Some(PayloadRecord { slots: [slot(1)?, slot(2)?], keys, label: item.get(5)?.as_bytes()?.clone() })
        };
        let volume = |item: &Value| {
            let item = item.as_array()?;
            let (region, key) = grant(item)?;
            Some((region, key, item.get(2)?.as_bytes()?.clone()))
        };
        Some(Self {
            payloads: list(1)?.iter().map(payload).collect::<Option<_>>()?,
            volumes: list(2)?.iter().map(volume).collect::<Option<_>>()?,
        })
    }
}

/// The keys of an opened unit of the key table.
#[must_use]
pub fn table_keys(plain: &[u8]) -> Vec<[u8; 32]> {
    let entries = plain.get(8..).unwrap_or_default().chunks_exact(49);
    entries.filter(|entry| entry[0] == 1).filter_map(|entry| entry[17..].try_into().ok()).collect()
}

type Map = Vec<(i128, Value)>;

/// The map behind its two bytes of length, and what follows it.
fn map(plain: &[u8]) -> Option<(Map, &[u8])> {
    let (len, rest) = plain.split_first_chunk::<2>()?;
    let (cbor, padding) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    let value: Value = ciborium::from_reader(cbor).ok()?;
    let pairs = value.into_map().ok()?;
    let map = pairs.into_iter().map(|(key, value)| Some((key.as_integer()?.into(), value)));
    Some((map.collect::<Option<_>>()?, padding))
}

fn grant(item: &[Value]) -> Option<(u8, [u8; 32])> {
    Some((u8::try_from(item.first()?.as_integer()?).ok()?, array(item.get(1)?)?))
}

fn array(value: &Value) -> Option<[u8; 32]> {
    value.as_bytes()?.as_slice().try_into().ok()
}
