//! Allocation units: what the sessions of a volume allocated or changed, so that no session overwrites or
//! resurrects what another one did.
//!
//! ```text
//! unit, 8,192 bytes = nonce 24 | XChaCha20-Poly1305(allocation key, plaintext 8,152) | tag 16
//! plaintext         = generation 8 (little-endian) | length of the CBOR 2 | CBOR map | zeros
//! CBOR map          = 0: version
//!                     1: [[payload id 16, slot, slot, slot key 32, slot key 32, label]; 0..=24]
//!                     2: [[region, volume key 32, label]; 0..=8]
//! ```
//!
//! Invariants: two copies, A and B, at the start of the region; the newer one that opens counts; a change
//! replaces the older, syncs, replaces the other, syncs, so that what was removed is gone from both (VLT-41).
//! Generations start anywhere (VLT-45): a count would show changes that the records do not explain. A record is written before the header that depends on it; a record whose slots do not open with its keys
//! means nothing (VLT-40).

use std::io;

use ciborium::Value;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    generation::{GENERATION_LEN, Generation},
    geometry::{ALLOCATION_LEN, Geometry, RegionIndex},
    kdf::{SlotKey, subkey},
    labels,
    map::{MapReader, MapWriter},
    memory::Secret,
    payload::{Grant, PayloadId, VolumeKey, pad, slot_pair, unpad},
    sector::{self, Place, SEAL_OVERHEAD},
    slot::SlotSet,
};

/// The longest label of a record, in bytes.
pub const LABEL_MAX: usize = 64;

const VERSION: u64 = 1;
const PLAIN_LEN: usize = ALLOCATION_LEN - SEAL_OVERHEAD;
/// Twice the payloads that can exist, and then half as many: while one moves, its old record stays.
const PAYLOAD_RECORDS_MAX: usize = 24;
/// Twice the regions, for the same reason.
const VOLUME_RECORDS_MAX: usize = 8;

/// Where a payload lies, and the keys to seal it again without its passphrase.
pub(crate) struct PayloadRecord {
    pub(crate) id: PayloadId,
    pub(crate) slots: [u8; 2],
    pub(crate) keys: [SlotKey; 2],
    pub(crate) label: Zeroizing<Vec<u8>>,
}

impl PayloadRecord {
    pub(crate) fn slot_set(&self) -> SlotSet {
        SlotSet::of(self.slots)
    }

    pub(crate) fn duplicate(&self) -> Self {
        let Self { id, slots, keys, label } = self;
        Self {
            id: *id,
            slots: *slots,
            keys: [SlotKey(keys[0].0.duplicate()), SlotKey(keys[1].0.duplicate())],
            label: label.clone(),
        }
    }
}

/// A volume that was created from this one.
pub(crate) struct VolumeRecord {
    pub(crate) grant: Grant,
    pub(crate) label: Zeroizing<Vec<u8>>,
}

impl VolumeRecord {
    pub(crate) fn duplicate(&self) -> Self {
        let Self { grant, label } = self;
        Self { grant: grant.duplicate(), label: label.clone() }
    }
}

/// The content of a volume's allocation units.
#[derive(Default)]
pub(crate) struct Allocation {
    pub(crate) payloads: Vec<PayloadRecord>,
    pub(crate) volumes: Vec<VolumeRecord>,
}

/// The records do not fit into one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyRecords;

impl Allocation {
    pub(crate) fn duplicate(&self) -> Self {
        Self {
            payloads: self.payloads.iter().map(PayloadRecord::duplicate).collect(),
            volumes: self.volumes.iter().map(VolumeRecord::duplicate).collect(),
        }
    }

    /// Whether both hold the same records in the same order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let any = Generation::from_bytes([0; GENERATION_LEN]);
        match (self.encode(any), other.encode(any)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }

    fn encode(&self, generation: Generation) -> Result<Zeroizing<Vec<u8>>, TooManyRecords> {
        if self.payloads.len() > PAYLOAD_RECORDS_MAX || self.volumes.len() > VOLUME_RECORDS_MAX {
            return Err(TooManyRecords);
        }
        let mut map = MapWriter::new(3);
        map.unsigned(0, VERSION);
        map.list(1, self.payloads.len());
        for PayloadRecord { id, slots, keys, label } in &self.payloads {
            map.inner_list(6);
            map.item_bytes(id.as_bytes());
            map.item(slots[0].into());
            map.item(slots[1].into());
            map.item_bytes(keys[0].0.expose());
            map.item_bytes(keys[1].0.expose());
            map.item_bytes(label);
        }
        map.list(2, self.volumes.len());
        for VolumeRecord { grant, label } in &self.volumes {
            map.inner_list(3);
            map.item(grant.region.as_u8().into());
            map.item_bytes(grant.key.0.expose());
            map.item_bytes(label);
        }
        let padded = pad(&map.finish(), PLAIN_LEN - GENERATION_LEN).ok_or(TooManyRecords)?;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
        plaintext.extend_from_slice(&generation.to_bytes());
        plaintext.extend_from_slice(&padded);
        Ok(plaintext)
    }

    pub(crate) fn decode(plaintext: &[u8]) -> Option<(Generation, Self)> {
        let (generation, padded) = plaintext.split_first_chunk::<GENERATION_LEN>()?;
        let map = MapReader::read(unpad(padded)?)?;
        if map.unsigned(0)? != VERSION {
            return None;
        }
        let payloads = map.list(1, PAYLOAD_RECORDS_MAX)?.iter().map(payload_record).collect::<Option<_>>()?;
        let volumes = map.list(2, VOLUME_RECORDS_MAX)?.iter().map(volume_record).collect::<Option<_>>()?;
        Some((Generation::from_bytes(*generation), Self { payloads, volumes }))
    }
}

fn payload_record(item: &Value) -> Option<PayloadRecord> {
    let [id, slot_a, slot_b, key_a, key_b, label] = item.as_array()?.as_slice() else { return None };
    let key = |value: &Value| {
        let bytes: &[u8; 32] = value.as_bytes()?.as_slice().try_into().ok()?;
        Some(SlotKey(Secret::guarded(|out| *out = *bytes)))
    };
    Some(PayloadRecord {
        id: PayloadId::from_bytes(id.as_bytes()?.as_slice().try_into().ok()?),
        slots: slot_pair(&[slot_a.clone(), slot_b.clone()])?,
        keys: [key(key_a)?, key(key_b)?],
        label: label_of(label)?,
    })
}

fn volume_record(item: &Value) -> Option<VolumeRecord> {
    let [region, key, label] = item.as_array()?.as_slice() else { return None };
    let region = RegionIndex::new(u8::try_from(region.as_integer()?).ok()?)?;
    let bytes: &[u8; 32] = key.as_bytes()?.as_slice().try_into().ok()?;
    let key = VolumeKey(Secret::guarded(|out| *out = *bytes));
    Some(VolumeRecord { grant: Grant { region, key }, label: label_of(label)? })
}

fn label_of(value: &Value) -> Option<Zeroizing<Vec<u8>>> {
    let label = value.as_bytes()?;
    (label.len() <= LABEL_MAX).then(|| Zeroizing::new(label.clone()))
}

/// Both copies of a region's allocation unit as stored.
pub(crate) struct StoredUnits(Vec<u8>);

impl StoredUnits {
    /// Reads the units of all four regions: the same reads for every passphrase (VLT-42).
    pub(crate) fn read_all(backend: &dyn Backend, geometry: &Geometry) -> io::Result<Vec<Self>> {
        RegionIndex::all()
            .into_iter()
            .map(|region| {
                let mut bytes = vec![0; 2 * ALLOCATION_LEN];
                backend.read_at(geometry.allocation(region, 0), &mut bytes)?;
                Ok(Self(bytes))
            })
            .collect()
    }

    /// Opens the newer copy that authenticates, if any does.
    pub(crate) fn open(&self, grant: &Grant) -> Option<AllocationUnits> {
        let key = subkey(&grant.key.0, labels::ALLOCATION);
        let mut newest: Option<AllocationUnits> = None;
        let mut opened: Vec<Allocation> = Vec::new();
        for (copy, stored) in self.0.chunks_exact(ALLOCATION_LEN).enumerate() {
            let place = Place::copy_of(grant.region.as_u8().into(), copy);
            let Some(plaintext) = sector::open(&key, place, stored) else { continue };
            let Some((generation, content)) = Allocation::decode(&plaintext) else { continue };
            opened.push(content.duplicate());
            if newest.as_ref().is_none_or(|units| generation.is_newer_than(units.generation)) {
                newest = Some(AllocationUnits {
                    interrupted: false,
                    grant: grant.duplicate(),
                    key: key.duplicate(),
                    generation,
                    newest_copy: copy,
                    content,
                });
            }
        }
        let alike = matches!(opened.as_slice(), [one, other] if one.is_same(other));
        newest.map(|units| AllocationUnits { interrupted: !alike, ..units })
    }
}

/// The allocation units of a region whose key is known.
pub(crate) struct AllocationUnits {
    pub(crate) grant: Grant,
    key: Secret<32>,
    generation: Generation,
    newest_copy: usize,
    /// The copies did not hold the same: a change was not finished, and what it removed is in the older one.
    interrupted: bool,
    pub(crate) content: Allocation,
}

impl AllocationUnits {
    /// For a new volume: no records yet. [`store`](Self::store) writes both copies.
    pub(crate) fn empty(grant: Grant, rng: &mut dyn CryptoRng) -> Self {
        let key = subkey(&grant.key.0, labels::ALLOCATION);
        Self {
            grant,
            key,
            generation: Generation::random(rng),
            newest_copy: 1,
            interrupted: false,
            content: Allocation::default(),
        }
    }

    /// Whether a change was not finished, so that one copy may hold what it removed. Storing anything ends that.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// VLT-41: replaces the older copy, syncs, replaces the other, syncs. The content changes here only
    /// after both.
    pub(crate) fn store(
        &mut self,
        content: Allocation,
        backend: &dyn Backend,
        geometry: &Geometry,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), StoreError> {
        for _ in 0..2 {
            let generation = self.generation.next();
            let copy = 1 - self.newest_copy;
            let plaintext =
                content.encode(generation).map_err(|TooManyRecords| StoreError::TooManyRecords)?;
            let place = Place::copy_of(self.grant.region.as_u8().into(), copy);
            let sealed = sector::seal(&self.key, place, &plaintext, rng);
            // Until both copies are written.
            self.interrupted = true;
            backend
                .write_at(geometry.allocation(self.grant.region, copy), &sealed)
                .map_err(StoreError::Io)?;
            backend.sync().map_err(StoreError::Io)?;
            self.generation = generation;
            self.newest_copy = copy;
        }
        self.interrupted = false;
        self.content = content;
        Ok(())
    }
}

/// Why allocation units were not written.
pub(crate) enum StoreError {
    TooManyRecords,
    Io(io::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::{backend::MemoryBackend, geometry::ContainerSize};

    fn key(byte: u8) -> Secret<32> {
        Secret::filled(|out| out.fill(byte))
    }

    fn record(byte: u8, label: &[u8]) -> PayloadRecord {
        PayloadRecord {
            id: PayloadId::from_bytes([byte; 16]),
            slots: [byte % 16, (byte + 1) % 16],
            keys: [SlotKey(key(byte)), SlotKey(key(byte + 1))],
            label: Zeroizing::new(label.to_vec()),
        }
    }

    fn grant(region: u8) -> Grant {
        Grant { region: RegionIndex::new(region).unwrap(), key: VolumeKey(key(region)) }
    }

    fn full() -> Allocation {
        Allocation {
            payloads: (0..24).map(|byte| record(byte, &[9; LABEL_MAX])).collect(),
            volumes: (0..8)
                .map(|i| VolumeRecord { grant: grant(i % 4), label: Zeroizing::new(vec![8; LABEL_MAX]) })
                .collect(),
        }
    }

    #[test]
    fn the_fullest_unit_fits_and_one_record_more_is_refused() {
        let mut allocation = full();
        let generation = Generation::from_bytes([1; 8]);
        assert_eq!(allocation.encode(generation).unwrap().len(), PLAIN_LEN);
        allocation.payloads.push(record(1, b""));
        assert_eq!(allocation.encode(generation).err(), Some(TooManyRecords));
    }

    #[test]
    fn vlt_41_what_was_removed_is_gone_from_both_copies_and_the_newer_copy_counts() {
        let geometry = Geometry::new(ContainerSize::MIN);
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let backend = MemoryBackend::with_image(vec![0; 8 << 20]);
        let mut units = AllocationUnits::empty(grant(2), &mut rng);
        let start = units.generation;
        units.store(full(), &backend, &geometry, &mut rng).ok().unwrap();
        units.store(Allocation::default(), &backend, &geometry, &mut rng).ok().unwrap();
        for copy in 0..2 {
            let mut one = StoredUnits::read_all(&backend, &geometry).unwrap().remove(2);
            one.0[copy * ALLOCATION_LEN] ^= 1;
            assert!(one.open(&grant(2)).unwrap().content.payloads.is_empty());
        }
        let stored = StoredUnits::read_all(&backend, &geometry).unwrap();
        assert_eq!(stored[2].open(&grant(2)).unwrap().generation, start.next().next().next().next());
        assert!(stored[1].open(&grant(1)).is_none());
    }

    #[test]
    fn vlt_45_units_of_new_volumes_start_anywhere() {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let starts: Vec<_> =
            (0..4).map(|_| AllocationUnits::empty(grant(1), &mut rng).generation.to_bytes()).collect();
        // No byte of the count is the same in all.
        assert!((0..GENERATION_LEN).all(|byte| starts.iter().any(|start| start[byte] != starts[0][byte])));
    }

    proptest! {
        #[test]
        fn round_trip(count in 0u8..=16, label in prop::collection::vec(any::<u8>(), 0..=LABEL_MAX), generation: u64) {
            let allocation = Allocation {
                payloads: (0..count).map(|byte| record(byte, &label)).collect(),
                volumes: vec![VolumeRecord { grant: grant(count % 4), label: Zeroizing::new(label.clone()) }],
            };
            let generation = Generation::from_bytes(generation.to_le_bytes());
            let bytes = allocation.encode(generation).unwrap();
            let (back_generation, back) = Allocation::decode(&bytes).unwrap();
            prop_assert_eq!(back_generation, generation);
            prop_assert_eq!(back.encode(generation).unwrap(), bytes);
        }

        #[test]
        fn mutated_unit_never_panics(at in 0usize..2000, byte: u8) {
            let mut bytes = full().encode(Generation::from_bytes([3; 8])).unwrap().to_vec();
            bytes[at] = byte;
            let _decoded = Allocation::decode(&bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _decoded = Allocation::decode(&bytes);
        }
    }
}
