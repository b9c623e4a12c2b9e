//! Carrying everything that a session knows over to a larger container.
//!
//! Invariants: the salt block and the slots are the same in both, so every passphrase that opens something keeps opening
//! it; volumes keep their region, their key and their pages (the database's own numbering does not depend on the
//! length of a region). The header is written last, after everything was read back and compared (VLT-71): until then
//! the copy opens for nobody. Nothing in the old container changes before [`Session::erase`].
//!
//! Known gaps: a volume of which this session does not know stays behind: sparing it would betray it, as when a volume
//! is created (VLT-44). While both files stand side by side, their equal first blocks tell that they belong together.

use std::{io, sync::Arc, time::Duration};

use rand_core::CryptoRng;

use super::Session;
use crate::{
    allocation::{AllocationUnits, StoreError, StoredUnits},
    backend::{Backend, Replacement},
    container::{Disk, FILL_CHUNK},
    error::{ChangeError, GrowError, VolumeError},
    geometry::{COPY_LEN, ContainerSize, Geometry, RegionIndex, SALT_BLOCK_LEN},
    header::Header,
    keytable::KeyTable,
    payload::Grant,
    sector::FillRng,
    units,
};

impl Session {
    /// The container's size.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn size(&self) -> io::Result<ContainerSize> {
        ContainerSize::new(self.disk.backend.len()?).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Makes a larger container of everything that this session knows, in an empty backend, and reads it back. When
    /// this returns, the copy is complete and synced, and opens with every passphrase that this session's container
    /// opens with; this session still works on the old one. Afterwards the caller lets the copy take the old one's
    /// place ([`Replacement`](crate::Replacement)) and calls [`Session::erase`].
    ///
    /// `progress` is told bytes done and bytes in all, many times a second.
    ///
    /// # Errors
    ///
    /// See [`GrowError`]. The old container is as it was; what was begun of the copy opens for nobody.
    pub fn copy_into(
        &self,
        backend: impl Backend + 'static,
        size: ContainerSize,
        rng: &mut impl CryptoRng,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), GrowError> {
        let rng: &mut dyn CryptoRng = rng;
        if size <= self.size()? {
            return Err(GrowError::NotLarger);
        }
        let grants = self.volumes_to_copy(rng)?;
        let (_, mut header) = self.disk.newest_header(&self.keys)?.ok_or(GrowError::SessionEnded)?;
        if !self.is_in(&header) {
            return Err(GrowError::SessionEnded);
        }
        if !backend.is_empty()? || !backend.lock(Duration::ZERO)? {
            return Err(GrowError::Exists);
        }
        let copy = Disk::new(Arc::new(backend), Geometry::new(size), self.disk.salt_block.clone());
        let volumes = grants.len() as u64;
        let total = size.bytes() + 2 * volumes * copy.geometry.region_len();
        let mut done = 0;
        let mut step = |bytes: u64| {
            done += bytes;
            progress(done.min(total), total);
        };
        let mut fill = FillRng::seeded(rng);
        // First: it tells a later command what the file is, if this one does not come to its end.
        copy.backend.write_at(0, copy.salt_block.as_slice())?;
        copy.backend.announce().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => GrowError::Exists,
            _ => error.into(),
        })?;
        copy.backend.reserve(size.bytes())?;
        let salt = SALT_BLOCK_LEN as u64;
        let mut filled = 0;
        copy.fill(salt, size.bytes() - salt, &mut fill, &mut |now| {
            step(now - filled);
            filled = now;
        })?;
        for grant in &grants {
            self.copy_volume(grant, &copy, &mut fill, &mut step)?;
        }
        copy.backend.sync()?;
        // VLT-71.
        for grant in &grants {
            self.compare_volume(grant, &copy, &mut fill, &mut step)?;
        }
        let finished = copy.write_header(1, &mut header, &self.keys, rng).map_err(GrowError::from);
        let finished = finished
            .and_then(|()| self.compare_header(&copy))
            .and_then(|()| Ok(copy.backend.finish_creation()?));
        if finished.is_err() {
            // It may open with every passphrase by now, and nobody will know of its blocks.
            let _ = erase_header(&*copy.backend, rng);
        }
        finished?;
        progress(total, total);
        Ok(())
    }

    /// Removes what a crash left of an earlier replacement of this container's file, and tells whether there was
    /// anything: a copy that was not complete, or the old container that was not erased.
    ///
    /// # Errors
    ///
    /// The system's error; the next call tries again.
    pub fn clear_leftovers(&self, files: &Replacement, rng: &mut impl CryptoRng) -> io::Result<bool> {
        files.clear(&self.disk.salt_block, rng)
    }

    /// Overwrites the container: the header first, which closes it to every passphrase, then everything but the salt
    /// block, which tells a later command what the file was if this does not come to its end. What follows is to remove
    /// the file.
    ///
    /// # Errors
    ///
    /// [`ChangeError::VolumeInUse`] while a volume is open, else the system's error.
    pub fn erase(self, rng: &mut impl CryptoRng) -> Result<(), ChangeError> {
        if RegionIndex::all().into_iter().any(|region| self.disk.is_open(region)) {
            return Err(ChangeError::VolumeInUse);
        }
        Ok(erase_all_but_salt(&*self.disk.backend, rng)?)
    }

    /// What this session can open, closed and scrubbed. No volume may be damaged: what cannot be carried over would be
    /// erased with the old container. Keys in units that do not open are no more to anybody who goes by the format
    /// (VLT-64): they must not keep the rest from growing. The caller tells people of them before
    /// ([`KeyTable::damaged_units`]).
    fn volumes_to_copy(&self, rng: &mut dyn CryptoRng) -> Result<Vec<Grant>, GrowError> {
        if self.payload.volumes.iter().any(|grant| self.region_of(grant.key.id()).is_none()) {
            return Err(GrowError::Damaged);
        }
        let mut grants = Vec::new();
        for units in self.regions.iter().flatten() {
            let mut fill = FillRng::seeded(rng);
            let whole = self.open_volume(units.grant.key.id(), &mut fill).and_then(|volume| {
                // Its keys are read only where they are asked for; VLT-64: those that do not open stay behind.
                volume.keys().damaged_units()?;
                volume.close()
            });
            match whole {
                Ok(()) => grants.push(units.grant.duplicate()),
                Err(VolumeError::Damaged) => return Err(GrowError::Damaged),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(grants)
    }

    fn copy_volume(
        &self,
        grant: &Grant,
        copy: &Disk,
        fill: &mut FillRng,
        step: &mut dyn FnMut(u64),
    ) -> Result<(), GrowError> {
        let units = self.regions[grant.region.as_usize()].as_ref().ok_or(VolumeError::Damaged)?;
        let mut records = AllocationUnits::empty(grant.duplicate(), fill);
        records.store(units.content.duplicate(), &*copy.backend, &copy.geometry, fill).map_err(|error| {
            match error {
                StoreError::Io(error) => GrowError::Io(error),
                StoreError::TooManyRecords => GrowError::Differs,
            }
        })?;
        let keys = self.key_table(grant, fill);
        keys.copy_to(&*copy.backend, &copy.geometry, grant, fill)?;
        units::copy(&self.disk, copy, grant, fill, step)?;
        Ok(())
    }

    fn compare_volume(
        &self,
        grant: &Grant,
        copy: &Disk,
        fill: &mut FillRng,
        step: &mut dyn FnMut(u64),
    ) -> Result<(), GrowError> {
        let known = self.regions[grant.region.as_usize()].as_ref().ok_or(VolumeError::Damaged)?;
        let stored = StoredUnits::read_all(&*copy.backend, &copy.geometry)?;
        let records = stored[grant.region.as_usize()].open(grant).ok_or(GrowError::Differs)?;
        let keys = self.key_table(grant, fill);
        let table_rng = FillRng::seeded(fill);
        let copied = KeyTable::new(Arc::clone(&copy.backend), copy.geometry, grant, table_rng);
        let equal = records.content.is_same(&known.content)
            && keys.is_same(&copied)?
            && units::is_same(&self.disk, copy, grant, step)?;
        if equal { Ok(()) } else { Err(GrowError::Differs) }
    }

    /// Both copies of the header are whole and hold what this session opened.
    fn compare_header(&self, copy: &Disk) -> Result<(), GrowError> {
        for (number, image) in copy.read_copies()?.iter().enumerate() {
            let header = Header::open(image, number, &copy.salt_block, &self.keys);
            if !header.is_some_and(|header| self.is_in(&header)) {
                return Err(GrowError::Differs);
            }
        }
        Ok(())
    }

    fn key_table(&self, grant: &Grant, fill: &mut FillRng) -> KeyTable {
        let backend = Arc::clone(&self.disk.backend);
        KeyTable::new(backend, self.disk.geometry, grant, FillRng::seeded(fill))
    }
}

/// Random bytes over the header, synced, then over everything else but the salt block, synced.
pub(crate) fn erase_all_but_salt(backend: &dyn Backend, rng: &mut dyn CryptoRng) -> io::Result<()> {
    erase_header(backend, rng)?;
    overwrite(backend, HEADER_END, backend.len()?, rng)
}

/// Random bytes over the header, synced: the container opens for nobody.
pub(crate) fn erase_header(backend: &dyn Backend, rng: &mut dyn CryptoRng) -> io::Result<()> {
    overwrite(backend, SALT_BLOCK_LEN as u64, HEADER_END.min(backend.len()?), rng)
}

const HEADER_END: u64 = (SALT_BLOCK_LEN + 2 * COPY_LEN) as u64;

fn overwrite(backend: &dyn Backend, start: u64, end: u64, rng: &mut dyn CryptoRng) -> io::Result<()> {
    let mut fill = FillRng::seeded(rng);
    let mut chunk = vec![0; FILL_CHUNK];
    let mut position = start;
    while position < end {
        let take = usize::try_from(end - position).unwrap_or(FILL_CHUNK).min(FILL_CHUNK);
        rand_core::RngCore::fill_bytes(&mut fill, &mut chunk[..take]);
        backend.write_at(position, &chunk[..take])?;
        position += take as u64;
    }
    backend.sync()
}
