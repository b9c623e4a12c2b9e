//! Who has the store open, and the end of that process. The kernel's list of locks names it, where it does nothing itself any more.

use std::{
    fs::{self, OpenOptions},
    io,
};

use super::Place;

/// What an engine locks while a process has the store open: that of `fjall`, that of `sled`.
const LOCKED: [&str; 2] = ["lock", "db"];

/// What became of the process that has the store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It was told to end at once (SIGKILL).
    Ended,
    /// It is not the one that was asked for, or not this program. It was left alone.
    Stranger,
    /// The system does not say which it is, as where it runs in another container. Nobody was ended.
    Unseen,
}

impl Place {
    /// Whether a process has the store open.
    pub fn is_in_use(&self) -> bool {
        LOCKED.iter().any(|name| {
            let opened = OpenOptions::new().read(true).write(true).open(self.store().join(name));
            opened.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
        })
    }

    /// Ends the process at once that the kernel names as the one that has the store open: the one that listens for the operator, if
    /// anybody does; otherwise one that runs this program.
    ///
    /// # Errors
    /// The system's, where it may not be asked or the process not be ended.
    #[cfg(target_os = "linux")]
    pub fn kill_holder(&self, listening: Option<i32>) -> io::Result<Holder> {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        for name in LOCKED {
            let path = self.store().join(name);
            let Some(process) = kernel::holder(&path)? else { continue };
            let Some(id) = Pid::from_raw(process) else { continue };
            // From here on it is this process that is meant, whoever gets its number later; so it is looked at again.
            let handle = pidfd_open(id, PidfdFlags::empty())?;
            if kernel::holder(&path)? != Some(process) {
                continue;
            }
            let is_meant = listening.map_or_else(|| kernel::runs_this_program(process), |one| one == process);
            if !is_meant {
                return Ok(Holder::Stranger);
            }
            pidfd_send_signal(handle, Signal::KILL)?;
            return Ok(Holder::Ended);
        }
        Ok(Holder::Unseen)
    }

    /// Other systems have no such list.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn kill_holder(&self, _listening: Option<i32>) -> io::Result<Holder> {
        Ok(Holder::Unseen)
    }
}

/// What the kernel says of locks and processes.
#[cfg(target_os = "linux")]
mod kernel {
    use std::{
        fs::{self, File},
        io,
        path::Path,
    };

    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
    };

    /// The byte by which this process knows its own lock in the list again.
    const MARK: i64 = 0x4c61_7077;

    /// Who has a file locked, as `flock` does, and shown by this process's own numbers.
    ///
    /// Which file a line of the list speaks of is told by a number and a device, and some file systems (btrfs, overlay) tell programs
    /// another device. So this process locks a byte of the file, in the other way that does not meet `flock`'s, and looks what
    /// stands at its own line. Where that line is absent, the list is that of other process numbers.
    pub(super) fn holder(path: &Path) -> io::Result<Option<i32>> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        let byte = libc::flock {
            l_type: i16::try_from(libc::F_RDLCK).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: MARK,
            l_len: 1,
            l_pid: 0,
        };
        // Held until the file is closed.
        fcntl(&file, FcntlArg::F_SETLK(&byte))?;
        let locks = fs::read_to_string("/proc/locks")?;
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        Ok(holder_in(&locks, own))
    }

    /// The lines: number, kind, "ADVISORY", "WRITE", process, device and file, begin, end. Who waits for a lock has an arrow.
    pub(super) fn holder_in(locks: &str, own: i32) -> Option<i32> {
        let lines = || locks.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
        let (process, byte) = (own.to_string(), MARK.to_string());
        let file = lines().find_map(|line| match line.as_slice() {
            ["POSIX", _, "READ", of, file, begin, _] if *of == process && *begin == byte => Some(*file),
            _ => None,
        })?;
        let holder = lines().find_map(|line| match line.as_slice() {
            ["FLOCK", _, "WRITE", of, locked, ..] if *locked == file => of.parse().ok(),
            _ => None,
        });
        holder.filter(|holder| *holder > 0 && *holder != own)
    }

    /// By its name: relays forbid others a look at their file.
    pub(super) fn runs_this_program(process: i32) -> bool {
        let name_of = |process: &str| fs::read_to_string(format!("/proc/{process}/comm"));
        match (name_of(&process.to_string()), name_of("self")) {
            (Ok(name), Ok(own)) => name == own,
            _ => false,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "tests leave files as somebody else would")]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_names_who_has_locked_a_file() {
        let locks = "1: POSIX  ADVISORY  READ 600 00:2b:42 1281454199 1281454199\n\
                     2: FLOCK  ADVISORY  WRITE 701 fe:00:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 702 00:2b:42 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 703 00:2b:42 0 EOF\n\
                     4: POSIX  ADVISORY  READ 601 fe:00:42 0 EOF\n\
                     5: POSIX  ADVISORY  READ 602 00:2b:43 1281454199 1281454199\n\
                     6: FLOCK  ADVISORY  READ 704 00:2b:43 0 EOF\n7: garbage";
        assert_eq!(
            kernel::holder_in(locks, 600),
            Some(702),
            "a file of that number on another device is not it"
        );
        assert_eq!(kernel::holder_in(locks, 601), None, "no line of our own");
        assert_eq!(kernel::holder_in(locks, 602), None, "nobody has it alone");
        for hidden in ["0", "-1", "600"] {
            assert_eq!(kernel::holder_in(&locks.replace("702", hidden), 600), None, "{hidden}");
        }
    }

    #[test]
    fn who_holds_the_store_and_is_not_this_program_is_found_and_left_alone() {
        use std::{
            io::Read,
            process::{Command, Stdio},
        };
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().to_path_buf()));
        fs::create_dir(place.store()).unwrap();
        let path = place.store().join("lock");
        fs::File::create(&path).unwrap();
        assert_eq!(place.kill_holder(None).unwrap(), Holder::Unseen);
        let mut other = Command::new("flock")
            .args(["--no-fork", "-x"])
            .arg(&path)
            .args(["sh", "-c", "echo; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        other.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let id = i32::try_from(other.id()).unwrap();
        assert!(place.is_in_use());
        assert_eq!(kernel::holder(&path).unwrap(), Some(id));
        let own = i32::try_from(std::process::id()).unwrap();
        for listening in [None, Some(own), Some(0)] {
            assert_eq!(place.kill_holder(listening).unwrap(), Holder::Stranger);
        }
        assert_eq!(other.try_wait().unwrap(), None, "it lives");
        assert_eq!(place.kill_holder(Some(id)).unwrap(), Holder::Ended, "it listens for the operator");
        other.wait().unwrap();
        assert!(!place.is_in_use());
    }
}
