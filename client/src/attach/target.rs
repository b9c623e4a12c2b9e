//! A file that was fetched, on its way to the disk.
//!
//! Invariants: ATT-08 it appears under its name whole and synced, or not at all; it never replaces anything; nobody else may
//! read it (mode 0600). Where the file system can, it has no name until then: whatever kills the program leaves nothing.
//! Elsewhere it lies beside its place under a name that begins with `.lapwing-`, which every failure removes and only a
//! killed program leaves.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Why a file does not appear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Something has the name already.
    #[error("something exists at this path already")]
    Exists,
    /// There is no such folder.
    #[error("there is no folder at this path")]
    NoFolder,
    /// The system does not let us.
    #[error("you may not write there")]
    Denied,
    /// No room.
    #[error("the disk is full")]
    Full,
    /// The disk fails.
    #[error("the file cannot be written")]
    Unwritable,
}

impl From<io::Error> for TargetError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoFolder,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Unwritable,
        }
    }
}

/// A file that is not there yet. Dropping it leaves nothing.
pub struct Target {
    file: File,
    path: PathBuf,
    folder: PathBuf,
    /// Its name until it is complete, where it needs one.
    partial: Option<PathBuf>,
}

impl Target {
    /// A file for this path, `random` making the name that it may need until it is complete.
    ///
    /// # Errors
    /// [`TargetError`]; nothing is left then.
    pub fn create(path: &Path, random: [u8; 8]) -> Result<Self, TargetError> {
        Self::create_as(path, random, nameless)
    }

    fn create_as(
        path: &Path,
        random: [u8; 8],
        nameless: fn(&Path) -> io::Result<Option<File>>,
    ) -> Result<Self, TargetError> {
        if path.symlink_metadata().is_ok() {
            return Err(TargetError::Exists);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        if let Some(file) = nameless(&folder)? {
            return Ok(Self { file, path: path.to_owned(), folder, partial: None });
        }
        let partial = folder.join(format!(".lapwing-{:016x}.part", u64::from_be_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        Ok(Self { file, path: path.to_owned(), folder, partial: Some(partial) })
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TargetError> {
        Ok(self.file.write_all(bytes)?)
    }

    /// ATT-08: everything is written: it gets its name.
    ///
    /// # Errors
    /// [`TargetError`]; nothing is left then.
    pub fn finish(mut self) -> Result<(), TargetError> {
        self.file.sync_all()?;
        match &self.partial {
            None => name(&self.file, &self.path)?,
            Some(partial) => {
                publish(partial, &self.path)?;
                // Gone if it was renamed; else it has two names now.
                let _ = fs::remove_file(partial);
                self.partial = None;
            }
        }
        // The file is there; that its name survives a power cut is the folder's part.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Only what this process made: `create_new` refuses an existing path.
            let _ = fs::remove_file(partial);
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file: _, path: _, folder: _, partial: _ } = self;
        f.write_str("Target(..)")
    }
}

/// A file without a name. `None` where the file system has no such thing, or no name could be given to it later.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> io::Result<Option<File>> {
    use nix::{errno::Errno, fcntl::OFlag};

    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits());
    match options.open(folder) {
        Ok(file) if own_path(&file).symlink_metadata().is_ok() => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Where the system shows an open file.
fn own_path(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Gives a file without a name its name, unless something has it.
fn name(file: &File, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    let own = own_path(file);
    nix::unistd::linkat(AT_FDCWD, &own, AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).map_err(io::Error::from)
}

/// Gives a file another name, unless something has it.
fn publish(partial: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(partial, path) {
        // FAT has no second names.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            rename(partial, path).map_err(|_| error)
        }
        linked => linked,
    }
}

#[cfg(target_os = "linux")]
fn rename(partial: &Path, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    renameat2(AT_FDCWD, partial, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
fn rename(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    type Nameless = fn(&Path) -> io::Result<Option<File>>;

    const WAYS: [Nameless; 2] = [nameless, |_| Ok(None)];

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn att_08_a_file_appears_whole_for_its_owner_alone() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.txt");
            let mut target = Target::create_as(&path, [1; 8], way).unwrap();
            target.write(b"at the ").unwrap();
            assert!(!path.exists());
            target.write(b"ford").unwrap();
            target.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"at the ford");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(names(folder.path()), ["a.txt"]);
        }
    }

    #[test]
    fn att_08_what_is_given_up_leaves_nothing() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let mut target = Target::create_as(&folder.path().join("a"), [1; 8], way).unwrap();
            target.write(b"half").unwrap();
            drop(target);
            assert!(names(folder.path()).is_empty());
        }
    }

    #[test]
    fn att_08_nothing_is_replaced_not_even_what_came_meanwhile() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let mut target = Target::create_as(&path, [1; 8], way).unwrap();
            target.write(b"ours").unwrap();
            std::os::unix::fs::symlink("/nowhere", &path).unwrap();
            assert_eq!(target.finish().unwrap_err(), TargetError::Exists);
            assert_eq!(Target::create_as(&path, [2; 8], way).unwrap_err(), TargetError::Exists);
            assert_eq!(names(folder.path()), ["a"]);
            assert!(path.is_symlink());
        }
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        for way in WAYS {
            let none = Path::new("/nowhere/at/all/a");
            assert_eq!(Target::create_as(none, [1; 8], way).unwrap_err(), TargetError::NoFolder);
            let below_a_file = Path::new("/dev/null/a");
            assert_eq!(Target::create_as(below_a_file, [1; 8], way).unwrap_err(), TargetError::NoFolder);
        }
        assert_eq!(TargetError::from(io::Error::from(io::ErrorKind::StorageFull)), TargetError::Full);
    }
}
