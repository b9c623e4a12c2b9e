//! Data units as they lie on the disk.

use std::{io, sync::Arc};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    btree::{PageRef, Source},
    geometry::{Geometry, PAGE_LEN},
    kdf::subkey,
    labels,
    memory::{Secret, Wiped},
    payload::Grant,
    sector::{self, Place, SEAL_OVERHEAD},
};

const UNIT_LEN: usize = PAGE_LEN + SEAL_OVERHEAD;

/// The data units of one region, and the key that seals them.
pub(super) struct SealedUnits {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) geometry: Geometry,
    pub(super) grant: Grant,
    key: Secret<32>,
}

impl SealedUnits {
    pub(super) fn new(backend: Arc<dyn Backend>, geometry: Geometry, grant: Grant) -> Self {
        Self { key: subkey(&grant.key.0, labels::UNITS), backend, geometry, grant }
    }

    pub(super) fn read(&self, unit: u64, out: &mut [u8]) -> io::Result<()> {
        let mut stored = [0; UNIT_LEN];
        self.backend.read_at(self.geometry.unit(self.grant.region, unit), &mut stored)?;
        if sector::open_into(&self.key, Place::single(unit), &stored, out) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a unit does not authenticate"))
        }
    }

    pub(super) fn write(&self, unit: u64, page: &[u8], rng: &mut dyn CryptoRng) -> io::Result<()> {
        let mut stored = [0; UNIT_LEN];
        if !sector::seal_into(&self.key, Place::single(unit), page, &mut stored, rng) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.backend.write_at(self.geometry.unit(self.grant.region, unit), &stored)
    }

    /// Seals zeros over a unit.
    pub(super) fn wipe(&self, unit: u64, rng: &mut dyn CryptoRng) -> io::Result<()> {
        self.write(unit, &[0; PAGE_LEN], rng)
    }

    /// Seals zeros over a unit, unless it holds zeros already. A power cut may have left it torn: one that does not
    /// open is overwritten as well.
    pub(super) fn wipe_unless_zeros(&self, unit: u64, rng: &mut dyn CryptoRng) -> io::Result<()> {
        let mut page = Zeroizing::new([0; PAGE_LEN]);
        match self.read(unit, page.as_mut_slice()) {
            Ok(()) if page.iter().all(|byte| *byte == 0) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
            Ok(()) | Err(_) => self.wipe(unit, rng),
        }
    }
}

/// Whole pages, from the disk alone.
impl Source for &SealedUnits {
    fn read(&mut self, page: PageRef) -> io::Result<Wiped> {
        let mut bytes = whole_page(page, self.geometry.unit_count())?;
        for (unit, part) in page.units().zip(bytes.chunks_exact_mut(PAGE_LEN)) {
            SealedUnits::read(self, unit, part)?;
        }
        Ok(bytes)
    }
}

/// Room for the bytes of a page, if the region has all of its units.
pub(super) fn whole_page(page: PageRef, unit_count: u64) -> io::Result<Wiped> {
    let inside = page.first.checked_add(page.count).is_some_and(|end| end <= unit_count);
    let count = usize::try_from(page.count).ok().filter(|_| inside);
    Ok(Wiped::zeros(count.ok_or(io::ErrorKind::InvalidData)? * PAGE_LEN))
}
