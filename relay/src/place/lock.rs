//! Who uses the folder: one process at a time, and the kernel says which.
//!
//! ```text
//! DIR/relay.lock   0600   empty; locked as a whole (`fcntl`, not `flock`) by whoever has the key or the store in use
//! ```
//! Of a lock of this kind the kernel tells everybody who may open the file the very process that has it (`F_GETLK`), on every file
//! system and without a look at `/proc`. It goes with its process, however that ends, and with *any* of the process's handles of the
//! file: nothing but this module opens it, once in a process.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Place, PlaceError};

/// What an engine locks while a process has the store open: that of `fjall`, that of `sled`.
const OF_ENGINES: [&str; 2] = ["lock", "db"];

/// How often it is looked, in one try, whether the file that was locked is still the one that is there.
const LOOKS: usize = 16;

/// The folder's lock. Dropping it gives the folder free.
#[derive(Debug)]
#[must_use]
pub struct FolderLock {
    place: Place,
    file: File,
    is_taken: bool,
    of_engines: Vec<File>,
}

/// What became of the process that has the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// There is none, or none any more.
    Gone,
    /// It was told to end at once (SIGKILL).
    Ended,
    /// The system does not say which it is, as where it runs in another container. Nobody was ended.
    Unseen,
}

impl Place {
    /// Opens the folder's lock, which is not taken by that.
    ///
    /// # Errors
    /// [`PlaceError::Absent`] if there is no folder.
    pub fn lock(&self) -> Result<FolderLock, PlaceError> {
        let file = self.open_lock()?;
        Ok(FolderLock { place: self.clone(), file, is_taken: false, of_engines: Vec::new() })
    }

    /// Whether somebody else uses the folder, as far as it can be told. Not for a process that has it: a look at the file would give it free.
    pub fn is_in_use(&self) -> bool {
        let open = |path: PathBuf| match OpenOptions::new().read(true).write(true).open(path) {
            Err(reason) if is_no_file(reason.kind()) => Ok(None),
            opened => opened.map(Some),
        };
        let has_holder = || {
            Ok::<_, io::Error>(open(self.lock_file())?.is_some_and(|file| !matches!(holder(&file), Ok(None))))
        };
        let has_engine = |name| {
            let file = open(self.store().join(name))?;
            Ok::<_, io::Error>(
                file.is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock))),
            )
        };
        has_holder().unwrap_or(false) || OF_ENGINES.iter().any(|name| has_engine(name).unwrap_or(false))
    }

    /// Removes the lock's file, from a folder in which nothing was made after all.
    pub fn remove_lock(&self) {
        fs::remove_file(self.lock_file()).ok();
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.dir.join("relay.lock")
    }

    fn open_lock(&self) -> Result<File, PlaceError> {
        let path = self.lock_file();
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let failed = |reason: io::Error| match reason.kind() {
            ErrorKind::NotFound => PlaceError::Absent(self.dir.clone()),
            _ => PlaceError::Io { path: path.clone(), reason },
        };
        let file = match options.clone().create_new(true).open(&path) {
            Err(reason) if reason.kind() == ErrorKind::AlreadyExists => {
                return options.open(&path).map_err(failed);
            }
            made => made.map_err(failed)?,
        };
        // Root's wipe, which does not act as the owner, must not keep the owner out if it is cut off. A file that was there already may
        // be another name of somebody else's.
        if nix::unistd::Uid::effective().is_root()
            && let Ok(folder) = self.dir.metadata()
        {
            fchown(&file, Some(folder.uid()), Some(folder.gid())).ok();
        }
        Ok(file)
    }
}

impl FolderLock {
    /// Takes the lock, if nobody has it. `false` if somebody has, or if its file is another one each time: a wipe is at work, or the file
    /// system has no lasting numbers of files.
    ///
    /// # Errors
    /// [`PlaceError::Absent`] if the folder is gone; the system's.
    pub fn try_take(&mut self) -> Result<bool, PlaceError> {
        for _ in 0..LOOKS {
            if self.is_taken {
                break;
            }
            match fcntl(&self.file, FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) => {}
                Err(Errno::EACCES | Errno::EAGAIN) => return Ok(false),
                Err(reason) => return Err(self.failed(reason.into())),
            }
            // A wipe may have removed the file since it was opened, and somebody made another.
            self.is_taken = self.has_name();
            if !self.is_taken {
                self.file = self.place.open_lock()?;
            }
        }
        Ok(self.is_taken)
    }

    /// Takes the locks of the engines too, which the folder's lock does not keep from others: from a program before `relay.lock`. `false`
    /// if somebody has one.
    ///
    /// # Errors
    /// The system's: what cannot be looked at counts as in use.
    pub fn try_take_engines(&mut self) -> Result<bool, PlaceError> {
        let mut taken = Vec::new();
        for name in OF_ENGINES {
            let path = self.place.store().join(name);
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                // No engine has locked what is not there or no file.
                Err(reason) if is_no_file(reason.kind()) => continue,
                opened => opened.map_err(|reason| PlaceError::Io { path: path.clone(), reason })?,
            };
            match file.try_lock() {
                Ok(()) => taken.push(file),
                Err(TryLockError::WouldBlock) => return Ok(false),
                // Some file systems have no such locks; then no engine has one either.
                Err(TryLockError::Error(reason)) if reason.kind() == ErrorKind::Unsupported => {}
                Err(TryLockError::Error(reason)) => return Err(PlaceError::Io { path, reason }),
            }
        }
        self.of_engines = taken;
        Ok(true)
    }

    /// Whether this process has it.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }

    /// Keeps it as long as this process lives: an engine that was dropped works on for a while, and what hangs in the disk may hang
    /// for longer.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Ends the process at once that has the lock.
    ///
    /// # Errors
    /// The system's, where the process may not be ended.
    pub fn end_holder(&self) -> io::Result<Holder> {
        match holder(&self.file)? {
            None => Ok(Holder::Gone),
            // Of another process space, or of another machine.
            Some(process) if process <= 0 => Ok(Holder::Unseen),
            Some(process) => self.end(process, open_process(process)),
        }
    }

    /// With a handle it is this process that is meant, whoever gets its number later; so the kernel is asked again when it is open.
    fn end(&self, process: i32, handle: io::Result<Handle>) -> io::Result<Holder> {
        let is_same = holder(&self.file)? == Some(process);
        let ended = match handle {
            _ if !is_same => return Ok(Holder::Gone),
            Ok(handle) => send_kill(&handle),
            Err(reason) => Err(reason),
        };
        match ended {
            // Some kernels and sandboxes have no handles. The number was that of the holder a moment ago.
            Err(reason)
                if matches!(
                    Errno::from_raw(reason.raw_os_error().unwrap_or(0)),
                    Errno::ENOSYS | Errno::EPERM
                ) =>
            {
                match kill(Pid::from_raw(process), Signal::SIGKILL) {
                    Err(Errno::ESRCH) => Ok(Holder::Gone),
                    sent => Ok(sent.map(|()| Holder::Ended)?),
                }
            }
            Err(reason) if reason.raw_os_error() == Some(libc::ESRCH) => Ok(Holder::Gone),
            sent => sent.map(|()| Holder::Ended),
        }
    }

    fn has_name(&self) -> bool {
        let same = |found: &fs::Metadata, there: &fs::Metadata| {
            (found.dev(), found.ino()) == (there.dev(), there.ino())
        };
        let there = self.place.lock_file().symlink_metadata();
        self.file.metadata().is_ok_and(|found| there.is_ok_and(|there| same(&found, &there)))
    }

    fn failed(&self, reason: io::Error) -> PlaceError {
        PlaceError::Io { path: self.place.lock_file(), reason }
    }
}

/// Who has a file locked as a whole; 0 or less where the kernel has no number for it here. `None` if nobody, or this process.
fn holder(file: &File) -> io::Result<Option<i32>> {
    let mut asked = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut asked))?;
    Ok((asked.l_type != short(libc::F_UNLCK)).then_some(asked.l_pid))
}

fn is_no_file(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// As the C library has them in that structure.
fn short(number: i32) -> i16 {
    i16::try_from(number).unwrap_or_default()
}

#[cfg(target_os = "linux")]
type Handle = std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
fn open_process(process: i32) -> io::Result<Handle> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let process = Pid::from_raw(process).ok_or(Errno::ESRCH)?;
    Ok(pidfd_open(process, PidfdFlags::empty())?)
}

#[cfg(target_os = "linux")]
fn send_kill(handle: &Handle) -> io::Result<()> {
    use rustix::process::{Signal, pidfd_send_signal};
    Ok(pidfd_send_signal(handle, Signal::KILL)?)
}

/// Other systems have none.
#[cfg(not(target_os = "linux"))]
type Handle = std::convert::Infallible;

#[cfg(not(target_os = "linux"))]
fn open_process(_process: i32) -> io::Result<Handle> {
    Err(Errno::ENOSYS.into())
}

#[cfg(not(target_os = "linux"))]
fn send_kill(handle: &Handle) -> io::Result<()> {
    match *handle {}
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests leave files as somebody else would")]
mod tests {
    use std::{
        io::{Read, Write},
        path::Path,
        process::{Child, Command, Stdio},
    };

    use super::*;

    const FOLDER: &str = "LAPWING_TEST_FOLDER";

    fn place(base: &Path, name: &str) -> Place {
        let place = Place::new(Some(base.join(name)));
        fs::create_dir_all(place.store()).unwrap();
        place
    }

    /// This program once more, which takes the lock of a folder and keeps it until its input ends.
    fn other_process(place: &Place) -> Child {
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "place::lock::tests::takes_a_folder", "--ignored", "--nocapture"])
            .env(FOLDER, place.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut said, out) = (Vec::new(), other.stdout.as_mut().unwrap());
        while !said.ends_with(b"taken") {
            let mut byte = [0];
            out.read_exact(&mut byte).expect("it takes the lock");
            said.extend(byte);
        }
        other
    }

    #[test]
    #[ignore = "the other process of the tests below"]
    fn takes_a_folder() {
        let place = Place::new(Some(std::env::var_os(FOLDER).unwrap().into()));
        let mut lock = place.lock().unwrap();
        assert!(lock.try_take().unwrap());
        io::stdout().write_all(b"taken").unwrap();
        io::stdout().flush().unwrap();
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }

    #[test]
    fn the_process_that_has_the_folder_is_ended_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (meant, elsewhere) = (place(dir.path(), "meant"), place(dir.path(), "elsewhere"));
        let (mut one, mut two) = (other_process(&meant), other_process(&elsewhere));
        let mut lock = meant.lock().unwrap();
        assert!(!lock.try_take().unwrap() && meant.is_in_use());
        assert_eq!(holder(&lock.file).unwrap(), Some(i32::try_from(one.id()).unwrap()));
        // Neither by its number alone, where the kernel names another.
        let other = i32::try_from(two.id()).unwrap();
        assert_eq!(lock.end(other, open_process(other)).unwrap(), Holder::Gone);
        assert_eq!(lock.end(other, Err(Errno::ENOSYS.into())).unwrap(), Holder::Gone);
        assert_eq!(lock.end_holder().unwrap(), Holder::Ended);
        one.wait().unwrap();
        assert_eq!(lock.end_holder().unwrap(), Holder::Gone);
        assert!(lock.try_take().unwrap());
        assert_eq!(two.try_wait().unwrap(), None, "it lives");
        two.kill().unwrap();
        two.wait().unwrap();
    }

    #[test]
    fn a_system_without_handles_of_processes_ends_it_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), "relay");
        for reason in [Errno::ENOSYS, Errno::EPERM] {
            let mut other = other_process(&place);
            let lock = place.lock().unwrap();
            let process = i32::try_from(other.id()).unwrap();
            assert_eq!(lock.end(process, Err(reason.into())).unwrap(), Holder::Ended, "{reason}");
            other.wait().unwrap();
        }
    }

    #[test]
    fn who_ends_by_itself_meanwhile_leaves_the_folder_free() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), "relay");
        let mut other = other_process(&place);
        let mut lock = place.lock().unwrap();
        let process = i32::try_from(other.id()).unwrap();
        let handle = open_process(process);
        drop(other.stdin.take());
        // Not reaped: it has its number still.
        while holder(&lock.file).unwrap().is_some() {
            std::thread::yield_now();
        }
        assert_eq!(lock.end(process, handle).unwrap(), Holder::Gone);
        other.wait().unwrap();
        assert_eq!(lock.end_holder().unwrap(), Holder::Gone);
        assert!(lock.try_take().unwrap());
    }

    #[test]
    fn a_lock_of_a_removed_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), "relay");
        let mut late = place.lock().unwrap();
        fs::remove_file(place.lock_file()).unwrap();
        let mut other = other_process(&place);
        assert!(!late.try_take().unwrap(), "somebody has the file that is there now");
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(late.try_take().unwrap());
        fs::remove_dir_all(place.dir()).unwrap();
        assert!(matches!(place.lock(), Err(PlaceError::Absent(_))));
    }

    #[test]
    fn an_engine_that_somebody_has_or_that_cannot_be_looked_at_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), "relay");
        let mut lock = place.lock().unwrap();
        assert!(lock.try_take().unwrap() && lock.try_take_engines().unwrap(), "there is none");
        for name in OF_ENGINES {
            let path = place.store().join(name);
            let held = File::create(&path).unwrap();
            held.lock().unwrap();
            assert!(!lock.try_take_engines().unwrap(), "{name}");
            assert!(place.is_in_use(), "{name}");
            drop(held);
            assert!(!place.is_in_use(), "{name}");
            assert!(lock.try_take_engines().unwrap(), "{name}");
            let taken = File::open(&path).unwrap();
            assert!(matches!(taken.try_lock(), Err(TryLockError::WouldBlock)), "{name}: taken by this now");
            lock.of_engines.clear();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
            assert!(matches!(lock.try_take_engines(), Err(PlaceError::Io { .. })), "{name}: a ring of links");
            fs::remove_file(&path).unwrap();
        }
    }
}
