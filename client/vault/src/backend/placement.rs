//! A container that gets its name when it is complete.
//!
//! Invariants: nothing is at the path before all of the container is on the disk, and what is at the path is never
//! replaced. Where the file system knows files without a name, a container that was not completed leaves nothing; where
//! it does not, or no file may have a second name (as on Android), a kill leaves a file that ends in `.unfinished`, which a
//! person has to remove: no file is removed that this process did not make.
//!
//! Known gaps: where the file system has neither files without a name nor second names for a file, a crash in the change
//! of names can leave an empty file at the path.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{
    FileBackend,
    file::{is_at, link_at},
    links::{Links, are_forbidden, is_late_name_forbidden},
    sync_folder_of,
};
use crate::error::CreateError;

/// The files that take part when a container is made that must not be seen half filled.
pub struct Placement {
    path: PathBuf,
    partial: PathBuf,
    with_name: bool,
    links: Links,
    made: OnceLock<Made>,
}

/// A second handle of the file that is being filled.
enum Made {
    Nameless(File),
    Partial(File),
}

impl Placement {
    /// Of a container that will be at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let partial = Self::other_name(path);
        Self {
            path: path.to_owned(),
            partial,
            with_name: false,
            links: Links::AsTheSystemSays,
            made: OnceLock::new(),
        }
    }

    /// As it is done where the file system knows no files without a name: for who was told
    /// [`CreateError::NoLateName`].
    #[must_use]
    pub fn with_a_name(path: &Path) -> Self {
        Self { with_name: true, ..Self::of(path) }
    }

    /// As it is where a policy forbids second names.
    #[doc(hidden)]
    #[must_use]
    pub fn refusing_links(self) -> Self {
        Self { links: Links::Refused, ..self }
    }

    /// A file beside `path` that has the other name of the container there and is not that container itself: what a kill
    /// left, or somebody's. Nothing here removes it.
    #[must_use]
    pub fn unfinished_beside(path: &Path) -> Option<PathBuf> {
        let other = Self::other_name(path);
        let there = other.symlink_metadata().ok()?;
        let same =
            path.symlink_metadata().is_ok_and(|one| (one.dev(), one.ino()) == (there.dev(), there.ino()));
        (!same).then_some(other)
    }

    /// Creates the file. It has no name, or where that is not possible its other name.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] if there is anything at the path, [`CreateError::InTheWay`] if the other name is needed
    /// and taken, else the system's error.
    pub fn create(&self) -> Result<FileBackend, CreateError> {
        if self.path.symlink_metadata().is_ok() {
            return Err(CreateError::Exists);
        }
        let nameless = if self.with_name { None } else { FileBackend::nameless(&self.path)? };
        let (backend, made) = if let Some(backend) = nameless {
            let backend = backend.named_by_others();
            let made = Made::Nameless(backend.second_handle()?);
            (backend, made)
        } else {
            let backend = FileBackend::create_with_a_name(&self.partial).map_err(|error| match error {
                CreateError::Exists => CreateError::InTheWay,
                other => other,
            })?;
            let made = Made::Partial(backend.second_handle()?);
            (backend, made)
        };
        // A second call finds the path or the other name taken, or fills a file that is never put.
        let _ = self.made.set(made);
        Ok(backend)
    }

    /// Gives the complete container its name, durably. Only while it is locked.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] if something came to the path meanwhile, [`CreateError::NoLateName`] if the system forbids to
    /// name a file that had no name, else the system's error. Then nothing is at the path that was not there, unless making
    /// its new name durable failed where a file has no second names.
    pub fn put(&self) -> Result<(), CreateError> {
        let linked = match self.made.get() {
            Some(Made::Nameless(file)) => self.links.make(|| link_at(file, &self.path)),
            Some(Made::Partial(_)) => self.links.make(|| fs::hard_link(&self.partial, &self.path)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match (linked, self.made.get()) {
            (Ok(()), made) => {
                sync_folder_of(&self.path).inspect_err(|_| {
                    let _ = fs::remove_file(&self.path);
                })?;
                if let Some(Made::Partial(_)) = made {
                    // The container has its name; the other one is removed by the next unlock, if not here.
                    let _ = fs::remove_file(&self.partial);
                }
                Ok(())
            }
            (Err(error), Some(Made::Partial(_))) if are_forbidden(&error) => {
                Ok(self.put_without_second_name()?)
            }
            (Err(error), Some(Made::Nameless(_))) if is_late_name_forbidden(&error) => {
                Err(CreateError::NoLateName)
            }
            (Err(error), _) => Err(error.into()),
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

    /// Removes the container that did not become complete, and nothing that this placement did not make.
    pub fn discard(&self) {
        if let Some(Made::Partial(file)) = self.made.get()
            && is_at(file, &self.partial).unwrap_or(false)
        {
            // What fails here is told by the next attempt, which finds it in the way.
            let _ = fs::remove_file(&self.partial);
        }
    }

    /// The name under which the container at `path` is filled where it must have one.
    pub(super) fn other_name(path: &Path) -> PathBuf {
        let mut name = OsString::from(path);
        name.push(".unfinished");
        name.into()
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Placement(..)")
    }
}
