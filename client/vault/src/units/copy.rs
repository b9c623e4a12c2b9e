//! Units of a volume in another container: page for page, since the numbers by which the database finds its pages do not
//! depend on how many of them a region has.

use std::{io, sync::Arc};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{SealedUnits, capacity};
use crate::{
    btree::HeaderPage,
    container::Disk,
    geometry::{Geometry, PAGE_LEN, UNIT_STRIDE},
    payload::Grant,
    superblock::{Superblock, SuperblockPair},
};

fn sealed(disk: &Disk, grant: &Grant) -> SealedUnits {
    SealedUnits::new(Arc::clone(&disk.backend), disk.geometry, grant.duplicate())
}

/// What the superblocks of a volume that was closed and scrubbed say.
fn superblock(disk: &Disk, grant: &Grant) -> io::Result<Superblock> {
    let pair = SuperblockPair::open(&*disk.backend, &disk.geometry, grant, capacity(&disk.geometry))?;
    let current = pair.ok_or(io::ErrorKind::InvalidData)?.current;
    if current.scrubbed && HeaderPage(&current.page).is_closed() {
        Ok(current)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The page of a unit; zeros beyond the end of the region.
fn page(units: &SealedUnits, geometry: &Geometry, unit: u64) -> io::Result<Zeroizing<[u8; PAGE_LEN]>> {
    let mut page = Zeroizing::new([0; PAGE_LEN]);
    if unit < geometry.unit_count() {
        units.read(unit, page.as_mut_slice())?;
    }
    Ok(page)
}

/// Writes the units and superblocks of a closed volume to the same region of a larger container; the caller syncs.
pub(crate) fn copy(
    from: &Disk,
    to: &Disk,
    grant: &Grant,
    rng: &mut dyn CryptoRng,
    step: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let Superblock { generation: _, len, scrubbed: _, page: page_0 } = superblock(from, grant)?;
    let (old, new) = (sealed(from, grant), sealed(to, grant));
    for unit in 0..to.geometry.unit_count() {
        new.write(unit, page(&old, &from.geometry, unit)?.as_slice(), rng)?;
        step(UNIT_STRIDE);
    }
    SuperblockPair::create_with(len, page_0, &*to.backend, &to.geometry, grant, rng)
}

/// Whether every unit of both opens and holds the same.
pub(crate) fn is_same(from: &Disk, to: &Disk, grant: &Grant, step: &mut dyn FnMut(u64)) -> io::Result<bool> {
    let (one, other) = (superblock(from, grant)?, superblock(to, grant)?);
    if one.len != other.len || one.page != other.page {
        return Ok(false);
    }
    let (old, new) = (sealed(from, grant), sealed(to, grant));
    for unit in 0..to.geometry.unit_count() {
        if *page(&old, &from.geometry, unit)? != *page(&new, &to.geometry, unit)? {
            return Ok(false);
        }
        step(UNIT_STRIDE);
    }
    Ok(true)
}
