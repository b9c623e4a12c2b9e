//! What a passphrase opens: keys, and nothing that names a plan.
//!
//! ```text
//! payload, 3,520 bytes = length of the CBOR 2 (little-endian) | CBOR map | zeros
//! CBOR map             = 0: version | 1: id 16 | 2: header key 32 | 3: [[region, volume key 32]; 1..=4]
//!                        4: [slot, slot] | 5: slots kept (bits) | 6: refresh the others (bool)
//!                        7: application field, at most 2,048 bytes
//! ```
//!
//! Invariants: every payload has this shape, whoever made it and whatever it is for (VLT-30); both slots hold
//! the same payload (VLT-31); unknown map keys are ignored, an unknown version is refused by name.

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    geometry::{REGION_COUNT, RegionIndex, SLOT_COUNT},
    kdf,
    map::{MapReader, MapWriter},
    memory::Secret,
    slot::SlotSet,
};

/// Bytes of a payload before sealing.
pub(crate) const PAYLOAD_LEN: usize = 3520;
/// The longest application field, in bytes.
pub const APPLICATION_MAX: usize = 2048;

const VERSION: u64 = 1;

/// What a header write of this payload's session does with slots that the payload does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They are carried along.
    Keep,
    /// They are refreshed: overwritten with random bytes, whatever was in them. For a container with one
    /// passphrase this changes nothing; for a `destroy` plan it is the plan.
    Refresh,
}

impl Others {
    /// A coin toss, as ordinary payloads have it, so that neither value says anything.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        if rng.next_u32() & 1 == 0 { Self::Keep } else { Self::Refresh }
    }
}

/// The name of a payload: random, kept when its passphrase changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadId([u8; 16]);

impl PayloadId {
    /// From its bytes, as [`as_bytes`](Self::as_bytes) gave them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

/// The name of a volume: derived from its key, so it changes when a region gets a new owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId([u8; 16]);

impl VolumeId {
    /// From its bytes, as [`as_bytes`](Self::as_bytes) gave them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The key of one volume: everything in its region is sealed under keys derived from it.
pub(crate) struct VolumeKey(pub(crate) Secret<32>);

impl VolumeKey {
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    pub(crate) fn id(&self) -> VolumeId {
        VolumeId(kdf::volume_id(&self.0))
    }
}

/// Proves that a header copy is whole; every payload of a container has the same.
pub(crate) struct HeaderKey(pub(crate) Secret<32>);

/// The right to one volume.
pub(crate) struct Grant {
    pub(crate) region: RegionIndex,
    pub(crate) key: VolumeKey,
}

impl Grant {
    pub(crate) fn duplicate(&self) -> Self {
        Self { region: self.region, key: self.key.duplicate() }
    }
}

/// The content of a slot.
pub(crate) struct Payload {
    pub(crate) id: PayloadId,
    pub(crate) header_key: HeaderKey,
    pub(crate) volumes: Vec<Grant>,
    pub(crate) slots: [u8; 2],
    pub(crate) keep: SlotSet,
    pub(crate) others: Others,
    pub(crate) application: Zeroizing<Vec<u8>>,
}

/// Why bytes are not a payload, or a payload not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// Written by a version that this one does not know.
    NewerVersion,
    /// Not a payload, or one that breaks a bound.
    Malformed,
}

impl Payload {
    pub(crate) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
        let Self { id, header_key, volumes, slots, keep, others, application } = self;
        if application.len() > APPLICATION_MAX {
            return Err(PayloadError::Malformed);
        }
        let mut map = MapWriter::new(8);
        map.unsigned(0, VERSION);
        map.bytes(1, &id.0);
        map.bytes(2, header_key.0.expose());
        map.list(3, volumes.len());
        for Grant { region, key } in volumes {
            map.pair(region.as_u8().into(), key.0.expose());
        }
        map.list(4, 2);
        map.item(slots[0].into());
        map.item(slots[1].into());
        map.unsigned(5, keep.bits().into());
        map.boolean(6, *others == Others::Refresh);
        map.bytes(7, application);
        pad(&map.finish(), PAYLOAD_LEN).ok_or(PayloadError::Malformed)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let map = unpad(bytes).and_then(MapReader::read).ok_or(PayloadError::Malformed)?;
        if map.unsigned(0).ok_or(PayloadError::Malformed)? != VERSION {
            return Err(PayloadError::NewerVersion);
        }
        Self::from_map(&map).ok_or(PayloadError::Malformed)
    }

    fn from_map(map: &MapReader) -> Option<Self> {
        let mut volumes: Vec<Grant> = Vec::new();
        for item in map.list(3, REGION_COUNT)? {
            let (region, key) = MapReader::pair(item)?;
            let region = RegionIndex::new(u8::try_from(region).ok()?)?;
            if volumes.iter().any(|grant| grant.region == region) {
                return None;
            }
            volumes.push(Grant { region, key: VolumeKey(Secret::guarded(|out| *out = *key)) });
        }
        let slots = slot_pair(map.list(4, 2)?)?;
        let header_key = map.array::<32>(2)?;
        let application = map.bytes(7)?;
        if volumes.is_empty() || application.len() > APPLICATION_MAX {
            return None;
        }
        Some(Self {
            id: PayloadId(*map.array(1)?),
            header_key: HeaderKey(Secret::guarded(|out| *out = *header_key)),
            volumes,
            slots,
            keep: SlotSet::from_bits(u16::try_from(map.unsigned(5)?).ok()?),
            others: if map.boolean(6)? { Others::Refresh } else { Others::Keep },
            application: Zeroizing::new(application.to_vec()),
        })
    }

    pub(crate) fn duplicate(&self) -> Self {
        let Self { id, header_key, volumes, slots, keep, others, application } = self;
        Self {
            id: *id,
            header_key: HeaderKey(header_key.0.duplicate()),
            volumes: volumes.iter().map(Grant::duplicate).collect(),
            slots: *slots,
            keep: *keep,
            others: *others,
            application: application.clone(),
        }
    }

    /// The grant of this volume, if the payload has it.
    pub(crate) fn grant(&self, id: VolumeId) -> Option<&Grant> {
        self.volumes.iter().find(|grant| grant.key.id() == id)
    }
}

/// Two different slot indexes.
pub(crate) fn slot_pair(items: &[ciborium::Value]) -> Option<[u8; 2]> {
    let [first, second] = items else { return None };
    let slot = |item: &ciborium::Value| {
        let slot = u8::try_from(item.as_integer()?).ok()?;
        (usize::from(slot) < SLOT_COUNT).then_some(slot)
    };
    let slots = [slot(first)?, slot(second)?];
    (slots[0] != slots[1]).then_some(slots)
}

/// Length, content, zeros: `len` bytes in all, or nothing when the content is too long.
pub(crate) fn pad(content: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
    let prefix = u16::try_from(content.len()).ok()?.to_le_bytes();
    if content.len() + prefix.len() > len {
        return None;
    }
    let mut out = Zeroizing::new(Vec::with_capacity(len));
    out.extend_from_slice(&prefix);
    out.extend_from_slice(content);
    out.resize(len, 0);
    Some(out)
}

/// The content that [`pad`] padded.
pub(crate) fn unpad(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<2>()?;
    let (content, padding) = rest.split_at_checked(u16::from_le_bytes(*prefix).into())?;
    padding.iter().all(|byte| *byte == 0).then_some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(regions: u8, keep: u16, refresh: bool, application: &[u8]) -> Payload {
        Payload {
            id: PayloadId([7; 16]),
            header_key: HeaderKey(Secret::filled(|out| out.fill(8))),
            volumes: (0..regions)
                .map(|region| Grant {
                    region: RegionIndex::new(region).unwrap(),
                    key: VolumeKey(Secret::filled(|out| out.fill(region))),
                })
                .collect(),
            slots: [3, 9],
            keep: SlotSet::from_bits(keep),
            others: if refresh { Others::Refresh } else { Others::Keep },
            application: Zeroizing::new(application.to_vec()),
        }
    }

    #[test]
    fn vlt_30_the_fullest_payload_fits_and_every_payload_has_one_size() {
        let full = payload(4, u16::MAX, true, &[0xff; APPLICATION_MAX]).encode().unwrap();
        let least = payload(1, 0, false, &[]).encode().unwrap();
        assert_eq!((full.len(), least.len()), (PAYLOAD_LEN, PAYLOAD_LEN));
        assert!(payload(1, 0, false, &[0; APPLICATION_MAX + 1]).encode().is_err());
    }

    #[test]
    fn unknown_version_is_named_and_no_volume_or_equal_slots_are_refused() {
        let bytes = payload(1, 0, false, b"x").encode().unwrap();
        // Length prefix 2, map head 1, key 1: the version follows.
        let mut newer = bytes.to_vec();
        assert_eq!(newer[4], 1);
        newer[4] = 2;
        assert_eq!(Payload::decode(&newer).err(), Some(PayloadError::NewerVersion));
        let none = payload(0, 0, false, b"x").encode().unwrap();
        assert_eq!(Payload::decode(&none).err(), Some(PayloadError::Malformed));
        let mut equal = payload(1, 0, false, b"x");
        equal.slots = [4, 4];
        assert_eq!(Payload::decode(&equal.encode().unwrap()).err(), Some(PayloadError::Malformed));
    }

    proptest! {
        #[test]
        fn round_trip(regions in 1u8..=4, keep: u16, refresh: bool, application in prop::collection::vec(any::<u8>(), 0..=APPLICATION_MAX)) {
            let bytes = payload(regions, keep, refresh, &application).encode().unwrap();
            let back = Payload::decode(&bytes).unwrap();
            prop_assert_eq!(back.volumes.len(), usize::from(regions));
            prop_assert_eq!(back.keep.bits(), keep);
            prop_assert_eq!(back.others == Others::Refresh, refresh);
            prop_assert_eq!(back.application.as_slice(), application.as_slice());
            prop_assert_eq!(back.encode().unwrap(), bytes);
        }

        #[test]
        fn mutated_payload_never_panics(at in 0usize..PAYLOAD_LEN, byte: u8) {
            let mut bytes = payload(2, 5, true, b"application").encode().unwrap().to_vec();
            bytes[at] = byte;
            let _decoded = Payload::decode(&bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..PAYLOAD_LEN)) {
            let _decoded = Payload::decode(&bytes);
        }
    }
}
