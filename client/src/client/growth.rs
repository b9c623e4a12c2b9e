//! Space: what is nearly full, and a larger vault.
//!
//! Order of effects of growing: the volumes are closed; everything is copied to a second file and read back; that file takes
//! the vault's place; the old one is erased. Until it takes the place the vault is as it was; what a kill leaves
//! is cleared by the next unlock.

use std::{path::Path, sync::Arc};

use lapwing_vault::{ContainerSize, CreateError, GrowError, Replacement, VolumeError};

use super::{Client, fault, generator};
use crate::error::Error;

impl Client {
    /// Names of the compartments that are past four fifths of their space, and how full each is, in percent
    /// of what messages may take.
    #[must_use]
    pub fn crowded(&self) -> Vec<(String, u64)> {
        let usage = |base: &super::VolumeBase| base.volume().usage().ok();
        let named = self.compartments.iter().map(|compartment| compartment.name.clone());
        named
            .zip(&self.volumes)
            .filter_map(|(name, (_, base))| {
                let usage = usage(base)?;
                let percent = usage.used.saturating_mul(100) / usage.limit.max(1);
                (usage.used >= usage.warn_at).then(|| (name, percent.min(100)))
            })
            .collect()
    }

    /// Clears what a command that was killed while the vault grew left beside it.
    pub(super) fn clear_leftovers(&self, path: &Path) {
        // What fails here is tried again by the next command; the files are not used by anything.
        let _ = self.session.clear_leftovers(&Replacement::of(path), &mut generator());
    }

    /// Refuses a size that is not larger than the vault's.
    ///
    /// # Errors
    /// It is not larger; the file cannot be read.
    pub fn require_larger(&self, size: ContainerSize) -> Result<(), Error> {
        if self.session.size().map_err(|error| fault::grow(error.into()))? < size {
            return Ok(());
        }
        Err(fault::grow(GrowError::NotLarger))
    }

    /// Carries everything that this session opens over to a larger vault, in the same place, and erases the old one.
    /// Every passphrase stays as it is. `progress` is told bytes done and bytes in all.
    ///
    /// # Errors
    /// The size is not larger; there is no room for both; the file cannot be read or written. The vault is as it was,
    /// unless the answer says that it has grown.
    pub async fn grow(
        mut self,
        path: &Path,
        size: ContainerSize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Error> {
        self.require_larger(size)?;
        self.driver.close().await;
        let Self { session, compartments, volumes, .. } = self;
        drop(compartments);
        for (_, base) in volumes {
            let base = Arc::into_inner(base).ok_or_else(|| Error::bug("a compartment is in use"))?;
            match base.close() {
                // REC-03: where there was no room to write tables anew, the larger vault has it.
                Ok(()) | Err(VolumeError::Full) => {}
                Err(error) => return Err(fault::volume(error)),
            }
        }
        let files = Replacement::of(path);
        let backend = files.create().map_err(|error| match error {
            CreateError::Exists => fault::grow(GrowError::Exists),
            other => fault::create(other),
        })?;
        session.copy_into(backend, size, &mut generator(), progress).map_err(fault::grow)?;
        if let Err(error) = files.put() {
            let as_it_was = files.has_copy();
            // A second file that opens with every passphrase must not stay.
            let cleared = session.clear_leftovers(&files, &mut generator()).is_ok();
            if as_it_was || cleared {
                return Err(fault::grow(error.into()));
            }
        }
        let erased = session.erase(&mut generator()).is_ok() && files.finish().is_ok();
        if erased {
            return Ok(());
        }
        Err(Error::refused(
            "the vault is larger now, but the old one could not be erased",
            "the next command tries again; see that the disk can be written",
        ))
    }
}
