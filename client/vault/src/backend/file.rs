//! A container in a file.
//!
//! Invariants: a file is created by this process alone (`O_EXCL`) with mode 0600 and removed again unless its
//! creation finished; symbolic links are never followed; locks lie on the file itself, belong to the open
//! file description and vanish with the process, so no second file ever stands beside the container.
//!
//! Known gaps: the locks are advisory, and a network file system may not honour them.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::libc;

use super::{Backend, poll_lock};
use crate::error::{CreateError, OpenError};

/// The byte whose lock means "I am using this container".
const MAIN_LOCK: i64 = 0;
/// The byte whose lock means "please finish": a waiter takes it, the holder looks at it.
const REQUEST_LOCK: i64 = 1;

/// A file, open for reading and writing.
pub struct FileBackend {
    file: File,
    /// Where the file was opened.
    path: PathBuf,
    unfinished: AtomicBool,
}

impl FileBackend {
    /// Creates an empty file of mode 0600. It is removed on drop, until the container in it is complete.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] when there is anything at `path`, a dangling link included; else the
    /// system's error.
    pub fn create(path: &Path) -> Result<Self, CreateError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        Ok(Self { file, path: path.to_owned(), unfinished: AtomicBool::new(true) })
    }

    /// Opens an existing file.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; symbolic links, directories and devices are refused.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // O_NONBLOCK: opening a named pipe must fail below, not wait here for a writer.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => OpenError::NotAFile,
                _ => error.into(),
            })?;
        if !file.metadata()?.is_file() {
            return Err(OpenError::NotAFile);
        }
        Ok(Self { file, path: path.to_owned(), unfinished: AtomicBool::new(false) })
    }

    fn is_at_its_path(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes or gives back the lock on one byte. `false` when somebody else has it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn set_lock(&self, byte: i64, lock_type: libc::c_int) -> io::Result<bool> {
        use nix::fcntl::{FcntlArg, fcntl};
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&byte_range(byte, lock_type)?)) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Other systems have no locks that belong to a file description and a byte: the whole file is locked,
    /// and a waiter cannot make itself known.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn set_lock(&self, byte: i64, lock_type: libc::c_int) -> io::Result<bool> {
        if byte != MAIN_LOCK {
            return Ok(true);
        }
        if lock_type == libc::F_UNLCK {
            return self.file.unlock().map(|()| true);
        }
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn byte_range(byte: i64, lock_type: libc::c_int) -> io::Result<libc::flock> {
    let narrow = |value: libc::c_int| {
        libc::c_short::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    Ok(libc::flock {
        l_type: narrow(lock_type)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    })
}

impl Backend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use nix::{errno::Errno, fcntl};
            let size = i64::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
            match fcntl::fallocate(&self.file, fcntl::FallocateFlags::empty(), 0, size) {
                // A file system without this call tells about a full disk while writing.
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            self.file.set_len(size)
        }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn finish_creation(&self) -> io::Result<()> {
        self.file.sync_all()?;
        sync_folder_of(&self.path)?;
        self.unfinished.store(false, Ordering::Release);
        Ok(())
    }

    fn lock(&self, wait: Duration) -> io::Result<bool> {
        let mut requested = false;
        let locked = poll_lock(wait, || {
            if self.set_lock(MAIN_LOCK, libc::F_WRLCK)? {
                return Ok(true);
            }
            // Several waiters share the request: one of them holds it at a time.
            requested = requested || self.set_lock(REQUEST_LOCK, libc::F_WRLCK)?;
            Ok(false)
        });
        if requested {
            self.set_lock(REQUEST_LOCK, libc::F_UNLCK)?;
        }
        // While this one waited, another container may have taken the file's place: who writes here now writes to
        // what is about to be erased. The caller opens the path anew.
        if locked? && self.is_at_its_path()? {
            return Ok(true);
        }
        self.unlock();
        Ok(false)
    }

    fn unlock(&self) {
        // Failing here means that the file is gone or closed; the lock goes with it.
        let _gone = self.set_lock(MAIN_LOCK, libc::F_UNLCK);
    }

    fn lock_requested(&self) -> io::Result<bool> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use nix::fcntl::{FcntlArg, fcntl};
            let mut range = byte_range(REQUEST_LOCK, libc::F_WRLCK)?;
            fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range))?;
            Ok(i32::from(range.l_type) != libc::F_UNLCK)
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            Ok(false)
        }
    }
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        if !self.unfinished.load(Ordering::Acquire) {
            return;
        }
        // Only the file that was created here is removed, not one that took its place meanwhile.
        let ours = self.file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let there = std::fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        if let (Ok(ours), Ok(there)) = (ours, there)
            && ours == there
        {
            let _already_gone = std::fs::remove_file(&self.path);
        }
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileBackend(..)")
    }
}

/// Makes durable which names the folder of this path holds: a file that was created, renamed or removed may otherwise
/// come back, or be gone, after a power cut.
///
/// # Errors
///
/// The system's error.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    // "" is the parent of a bare file name.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
