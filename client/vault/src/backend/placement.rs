//! A container that gets its name when it is complete.
//!
//! ```text
//! vault.restoring    the container that is being filled
//! ```
//!
//! Invariants: whatever is at the path itself is never touched; nothing is at the path before all of the container is on
//! the disk. What a kill left under the other name is removed by the next attempt, if it can be one: a regular file of
//! whole pages that nobody has locked. It is removed and never written to: it may be a second name of a finished one.
//!
//! Known gaps: where the file system has no second names for a file, a crash in the change of names can leave an empty
//! file at the path.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Backend, FileBackend, sync_folder_of};
use crate::error::{CreateError, OpenError};

/// Lengths of what a kill leaves are multiples of this.
const PAGE: u64 = 4096;

/// The files that take part when a container is made that must not be seen half filled.
pub struct Placement {
    path: PathBuf,
    partial: PathBuf,
}

impl Placement {
    /// Of a container that will be at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), partial: Self::other_name(path) }
    }

    /// Creates the file under its other name, after removing what a killed attempt left there.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] if there is anything at the path, [`CreateError::InTheWay`] if the other name is taken by
    /// something else or by an attempt that is under way, else the system's error.
    pub fn create(&self) -> Result<FileBackend, CreateError> {
        if self.path.symlink_metadata().is_ok() {
            return Err(CreateError::Exists);
        }
        self.clear()?;
        FileBackend::create(&self.partial).map_err(|error| match error {
            CreateError::Exists => CreateError::InTheWay,
            other => other,
        })
    }

    /// Gives the container its name, durably. Only while it is locked.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] if something came to the path meanwhile, else the system's error. Then nothing is at the
    /// path that was not there, unless making its new name durable failed where a file has no second names.
    pub fn put(&self) -> Result<(), CreateError> {
        match fs::hard_link(&self.partial, &self.path) {
            Ok(()) => {
                sync_folder_of(&self.path).inspect_err(|_| {
                    let _ = fs::remove_file(&self.path);
                })?;
                // The container has its name; the other one is removed by the next unlock, if not here.
                let _ = fs::remove_file(&self.partial);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error.into()),
            Err(_) => Ok(self.put_without_second_name()?),
        }
    }

    /// Renaming replaces what is there: so it has to be an empty file that this call made.
    fn put_without_second_name(&self) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        fs::rename(&self.partial, &self.path).inspect_err(|_| {
            let _ = fs::remove_file(&self.path);
        })?;
        sync_folder_of(&self.path)
    }

    /// Removes the container that did not become complete, after it was closed: one that is locked stays.
    pub fn discard(&self) {
        // What fails here is removed by the next attempt.
        let _ = self.clear();
    }

    fn clear(&self) -> Result<(), CreateError> {
        match FileBackend::open(&self.partial) {
            Ok(left) => {
                // Whoever fills the file holds its lock; with the lock it is certain to be the one of this name.
                if left.len()? % PAGE != 0 || !left.lock(Duration::ZERO)? {
                    return Err(CreateError::InTheWay);
                }
                Ok(fs::remove_file(&self.partial)?)
            }
            Err(OpenError::NotFound) => Ok(()),
            Err(OpenError::Io(error)) => Err(error.into()),
            Err(_) => Err(CreateError::InTheWay),
        }
    }

    /// The name under which the container at `path` was filled.
    pub(super) fn other_name(path: &Path) -> PathBuf {
        let mut name = OsString::from(path);
        name.push(".restoring");
        name.into()
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Placement(..)")
    }
}
