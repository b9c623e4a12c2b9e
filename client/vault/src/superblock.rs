//! Superblocks: the one page of the database that is rewritten in place, and its length.
//!
//! ```text
//! superblock, 4,160 bytes = nonce 24 | XChaCha20-Poly1305(superblock key, plaintext 4,120) | tag 16
//! plaintext               = generation 8 | virtual length 8 | scrubbed 8: 0 or 1 | page 0 of the database 4,096
//! ```
//!
//! Integers are little-endian.
//!
//! Invariants: two copies; a change goes to the copy that is not the last synced one, and the roles change
//! only when a sync came back (VLT-50); generations start anywhere (VLT-45); the newest that authenticates counts;
//! if neither does, the volume is damaged, never empty (VLT-51). Scrubbed means that every unit holds zeros to which
//! no tree leads (VLT-57).
//!
//! Known gaps: an older pair put back with all its units opens as it was then.

use std::io;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    btree::{self, HeaderPage},
    generation::{GENERATION_LEN, Generation},
    geometry::{Geometry, PAGE_LEN, RegionIndex},
    kdf::subkey,
    labels,
    memory::Secret,
    payload::Grant,
    sector::{self, Place, SEAL_OVERHEAD},
};

const PLAIN_LEN: usize = GENERATION_LEN + 8 + 8 + PAGE_LEN;
/// Bytes of a superblock as stored.
pub(crate) const STORED_LEN: usize = PLAIN_LEN + SEAL_OVERHEAD;

/// What a superblock says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    pub(crate) generation: Generation,
    pub(crate) len: u64,
    pub(crate) scrubbed: bool,
    pub(crate) page: Box<[u8; PAGE_LEN]>,
}

impl Superblock {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Self { generation, len, scrubbed, page } = self;
        let mut out = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
        out.extend_from_slice(&generation.to_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&u64::from(*scrubbed).to_le_bytes());
        out.extend_from_slice(page.as_slice());
        out
    }

    /// `capacity` bounds the virtual length, in bytes.
    pub(crate) fn decode(plaintext: &[u8], capacity: u64) -> Option<Self> {
        let (generation, rest) = plaintext.split_first_chunk::<GENERATION_LEN>()?;
        let (len, rest) = rest.split_first_chunk::<8>()?;
        let (scrubbed, page) = rest.split_first_chunk::<8>()?;
        let len = u64::from_le_bytes(*len);
        if len > capacity || !len.is_multiple_of(PAGE_LEN as u64) {
            return None;
        }
        let scrubbed = match u64::from_le_bytes(*scrubbed) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let page: &[u8; PAGE_LEN] = page.try_into().ok()?;
        let generation = Generation::from_bytes(*generation);
        Some(Self { generation, len, scrubbed, page: Box::new(*page) })
    }
}

/// The pair of superblocks of one region.
pub(crate) struct SuperblockPair {
    region: RegionIndex,
    key: Secret<32>,
    /// As the database sees it now.
    pub(crate) current: Superblock,
    synced_copy: usize,
    /// Not written yet.
    changed: bool,
    /// Written, and not synced yet.
    written: bool,
}

impl SuperblockPair {
    /// Writes both copies of an empty volume; the caller syncs.
    pub(crate) fn create(
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<()> {
        Self::create_with(0, Box::new([0; PAGE_LEN]), backend, geometry, grant, rng)
    }

    /// As [`create`](Self::create), of a scrubbed volume with this length and page 0.
    pub(crate) fn create_with(
        len: u64,
        page: Box<[u8; PAGE_LEN]>,
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<()> {
        let current = Superblock { generation: Generation::random(rng), len, scrubbed: true, page };
        let key = subkey(&grant.key.0, labels::SUPERBLOCK);
        let region = grant.region;
        let mut pair = Self { region, key, current, synced_copy: 1, changed: false, written: false };
        for _ in 0..2 {
            pair.changed = true;
            pair.write(backend, geometry, rng)?;
            pair.synced();
        }
        Ok(())
    }

    /// VLT-51: `None` when neither copy authenticates.
    pub(crate) fn open(
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        capacity: u64,
    ) -> io::Result<Option<Self>> {
        let key = subkey(&grant.key.0, labels::SUPERBLOCK);
        let mut newest: Option<(usize, Superblock)> = None;
        for copy in 0..2 {
            let mut stored = vec![0; STORED_LEN];
            backend.read_at(geometry.superblock(grant.region, copy), &mut stored)?;
            let place = Place::copy_of(grant.region.as_u8().into(), copy);
            let Some(plaintext) = sector::open(&key, place, &stored) else { continue };
            let Some(superblock) = Superblock::decode(&plaintext, capacity) else { continue };
            if newest.as_ref().is_none_or(|(_, other)| superblock.generation.is_newer_than(other.generation))
            {
                newest = Some((copy, superblock));
            }
        }
        Ok(newest.map(|(synced_copy, current)| Self {
            region: grant.region,
            key,
            current,
            synced_copy,
            changed: false,
            written: false,
        }))
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.changed |= self.current.len != len;
        self.current.len = len;
    }

    pub(crate) fn set_scrubbed(&mut self, scrubbed: bool) {
        self.changed |= self.current.scrubbed != scrubbed;
        self.current.scrubbed = scrubbed;
    }

    /// What a scrubbed volume says of its database.
    pub(crate) fn set_closed(&mut self) {
        self.changed |= !HeaderPage(&self.current.page).is_closed();
        btree::set_closed(&mut self.current.page);
    }

    /// Changes page 0.
    pub(crate) fn edit_page<E>(
        &mut self,
        edit: impl FnOnce(&mut [u8; PAGE_LEN]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.changed = true;
        edit(&mut self.current.page)
    }

    pub(crate) fn write_page(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let Some(target) =
            offset.checked_add(bytes.len()).and_then(|end| self.current.page.get_mut(offset..end))
        else {
            return false;
        };
        target.copy_from_slice(bytes);
        self.changed = true;
        true
    }

    /// Writes the current state over the copy that is not the last synced one, if it changed, and tells whether it
    /// did. Until [`synced`](Self::synced) every further write goes to the same copy (VLT-50).
    pub(crate) fn write(
        &mut self,
        backend: &dyn Backend,
        geometry: &Geometry,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<bool> {
        if !self.changed {
            return Ok(false);
        }
        let copy = 1 - self.synced_copy;
        let generation = self.current.generation.next();
        let Superblock { generation: _, len, scrubbed, page } = self.current.clone();
        let next = Superblock { generation, len, scrubbed, page };
        let place = Place::copy_of(self.region.as_u8().into(), copy);
        let stored = sector::seal(&self.key, place, &next.encode(), rng);
        backend.write_at(geometry.superblock(self.region, copy), &stored)?;
        self.changed = false;
        self.written = true;
        Ok(true)
    }

    /// Everything written is on the disk now.
    pub(crate) fn synced(&mut self) {
        if self.written {
            self.written = false;
            self.synced_copy = 1 - self.synced_copy;
            self.current.generation = self.current.generation.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::{backend::MemoryBackend, geometry::ContainerSize, payload::VolumeKey};

    #[test]
    fn vlt_45_superblocks_of_new_volumes_start_anywhere_and_follow_each_other() {
        let geometry = Geometry::new(ContainerSize::MIN);
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let backend = MemoryBackend::with_image(vec![0; 8 << 20]);
        let grant = Grant { region: RegionIndex::all()[1], key: VolumeKey(Secret::random(&mut rng)) };
        let mut starts = Vec::new();
        for _ in 0..4 {
            SuperblockPair::create(&backend, &geometry, &grant, &mut rng).unwrap();
            let pair = SuperblockPair::open(&backend, &geometry, &grant, u64::MAX).unwrap().unwrap();
            assert_eq!(pair.synced_copy, 1);
            starts.push(pair.current.generation.to_bytes());
        }
        assert!((0..GENERATION_LEN).all(|byte| starts.iter().any(|start| start[byte] != starts[0][byte])));
    }

    proptest! {
        #[test]
        fn round_trip(generation: u64, pages in 0u64..100, scrubbed: bool, byte: u8) {
            let generation = Generation::from_bytes(generation.to_le_bytes());
            let one = Superblock { generation, len: pages * 4096, scrubbed, page: Box::new([byte; PAGE_LEN]) };
            prop_assert_eq!(Superblock::decode(&one.encode(), 100 * 4096), Some(one));
        }

        #[test]
        fn length_beyond_the_region_or_odd_is_refused(len: u64) {
            let generation = Generation::from_bytes([1; 8]);
            let one = Superblock { generation, len, scrubbed: true, page: Box::new([0; PAGE_LEN]) };
            let fits = len <= 50 * 4096 && len.is_multiple_of(4096);
            prop_assert_eq!(Superblock::decode(&one.encode(), 50 * 4096).is_some(), fits);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..PLAIN_LEN + 2)) {
            let _decoded = Superblock::decode(&bytes, u64::MAX);
        }
    }
}
