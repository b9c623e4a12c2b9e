//! Several images of one container, compared as somebody does who has no passphrase: which parts changed.
//!
//! This is what a container does not hide (docs/threat-model.md, A8): whoever has images from several moments sees which
//! regions were written to between them.

use std::fmt;

use serde::Serialize;

use super::blocks::{Geometry, Place};

/// What changed in one region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Copies of its allocation units.
    pub allocation: usize,
    /// Copies of units of its key table.
    pub keys: usize,
    /// Copies of its superblock.
    pub superblocks: usize,
    /// Data units.
    pub units: usize,
}

impl Region {
    /// Whether anything of it changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        *self != Self::default()
    }
}

/// What changed between two images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The salt block, which never may.
    pub salt: bool,
    /// Copies of the header.
    pub headers: usize,
    /// The four regions.
    pub regions: [Region; 4],
}

impl Change {
    /// Numbers of the regions that changed.
    #[must_use]
    pub fn touched(&self) -> Vec<usize> {
        (0..4).filter(|region| self.regions[*region].changed()).collect()
    }
}

/// Compares each image with the one before. `None` if they are not of one container's size.
#[must_use]
pub fn compare(images: &[Vec<u8>]) -> Option<Vec<Change>> {
    let size = images.first()?.len();
    if images.iter().any(|image| image.len() != size) {
        return None;
    }
    let geometry = Geometry::of(u64::try_from(size).ok()?)?;
    Some(images.windows(2).map(|pair| change(&geometry, &pair[0], &pair[1])).collect())
}

fn change(geometry: &Geometry, before: &[u8], after: &[u8]) -> Change {
    let mut change = Change::default();
    for (place, start, len) in geometry.places() {
        let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(start + len)) else { continue };
        if before.get(from..to) == after.get(from..to) {
            continue;
        }
        match *place {
            Place::Salt => change.salt = true,
            Place::Header(_) => change.headers += 1,
            Place::Allocation(region, _) => change.regions[usize::from(region)].allocation += 1,
            Place::KeyTable(region, _, _) => change.regions[usize::from(region)].keys += 1,
            Place::Superblock(region, _) => change.regions[usize::from(region)].superblocks += 1,
            Place::Unit(region, _) => change.regions[usize::from(region)].units += 1,
        }
    }
    change
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.salt {
            return f.write_str("these are not images of one container");
        }
        match self.headers {
            0 => f.write_str("not opened")?,
            copies => write!(f, "opened (header: {copies} of 2 copies)")?,
        }
        for region in self.touched() {
            let Region { allocation, keys, superblocks, units } = self.regions[region];
            write!(
                f,
                "; region {region}: {units} data units, {superblocks} superblocks, {keys} of keys, {allocation} of \
                 allocation"
            )?;
        }
        if self.touched().is_empty() {
            f.write_str("; no region written to")?;
        }
        Ok(())
    }
}
