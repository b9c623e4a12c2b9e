//! A container in a file.
//!
//! Invariants: a file is created by this process alone with mode 0600; where the file system can, it has no name until
//! it is complete or announced, so whatever ends the process before leaves nothing; elsewhere it is created with its name
//! (`O_EXCL`). It is removed again unless its creation finished. No other file is ever replaced or removed. Symbolic links are never
//! followed; locks lie on the file itself, belong to the open file description and vanish with the process, so no
//! second file ever stands beside the container.
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
    /// Where the file was opened, or will be.
    path: PathBuf,
    /// There is an entry in the folder.
    named: AtomicBool,
    /// To be removed on drop, if it has a name.
    unfinished: AtomicBool,
    /// Somebody else gives it its name.
    named_by_others: bool,
}

impl FileBackend {
    /// Creates an empty file of mode 0600, which is at `path` once the container in it is complete, or announced. If it is
    /// dropped before it is complete, nothing of it stays. Where the file system knows no files without a name, it is at `path` from the start.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] when there is anything at `path`, a dangling link included; else the
    /// system's error.
    pub fn create(path: &Path) -> Result<Self, CreateError> {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(CreateError::Exists);
        }
        match Self::nameless(path)? {
            Some(file) => Ok(file),
            None => Self::create_with_a_name(path),
        }
    }

    /// As [`create`](Self::create) does where the file system knows no files without a name.
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(hidden)]
    pub fn create_with_a_name(path: &Path) -> Result<Self, CreateError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        Ok(Self::made(file, path, true))
    }

    /// An empty file without a name in the folder of `path`. `None` where there is no such thing.
    pub(super) fn nameless(path: &Path) -> io::Result<Option<Self>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let made = OpenOptions::new()
                .read(true)
                .write(true)
                .mode(0o600)
                .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
                .open(folder_of(path));
            let file = match made {
                Ok(file) => file,
                // The file system, or the system, does not know it.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOSYS)
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            // Without this it could not be given a name.
            let ours = file.metadata()?;
            let can_be_named = std::fs::metadata(way_to(&file)).is_ok_and(|found| found.ino() == ours.ino());
            Ok(can_be_named.then(|| Self::made(file, path, false)))
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = path;
            Ok(None)
        }
    }

    fn made(file: File, path: &Path, named: bool) -> Self {
        Self {
            file,
            path: path.to_owned(),
            named: AtomicBool::new(named),
            unfinished: AtomicBool::new(true),
            named_by_others: false,
        }
    }

    /// The caller gives the file its name, once it is complete.
    pub(super) fn named_by_others(mut self) -> Self {
        self.named_by_others = true;
        self
    }

    /// The same open file.
    pub(super) fn second_handle(&self) -> io::Result<File> {
        self.file.try_clone()
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
        Ok(Self {
            file,
            path: path.to_owned(),
            named: AtomicBool::new(true),
            unfinished: AtomicBool::new(false),
            named_by_others: false,
        })
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

    fn forget_copy(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
            // All of the file: the system keeps bytes in pieces of its own size, and keeps a piece of which only a part
            // is named. Where it is refused, the next reading sees what this one saw.
            let _best_effort = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn announce(&self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.named_by_others {
            return Ok(());
        }
        if !self.named.load(Ordering::Acquire) {
            // Never in the place of another file.
            link_at(&self.file, &self.path)?;
            self.named.store(true, Ordering::Release);
        }
        sync_folder_of(&self.path)
    }

    fn finish_creation(&self) -> io::Result<()> {
        self.announce()?;
        if !self.named_by_others {
            self.unfinished.store(false, Ordering::Release);
        }
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

    /// A file without a name is nobody else's.
    fn is_at_its_path(&self) -> io::Result<bool> {
        Ok(!self.named.load(Ordering::Acquire) || is_at(&self.file, &self.path)?)
    }
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        let leaves = self.unfinished.load(Ordering::Acquire) && self.named.load(Ordering::Acquire);
        // Only the file that was created here is removed, not one that took its place meanwhile.
        if leaves && is_at(&self.file, &self.path).unwrap_or(false) {
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
    File::open(folder_of(path))?.sync_all()
}

/// "" is the parent of a bare file name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Whether this file is the one that the path leads to, without following a link that is there.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file without a name its first one. Refused if there is anything at the path.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn link_at(file: &File, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    nix::unistd::linkat(AT_FDCWD, &way_to(file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
        .map_err(io::Error::from)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn link_at(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How the system names an open file.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn way_to(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
