//! Where the bytes of a container lie. Everything above this trait is pure: it opens no file, sleeps nowhere
//! and reads no clock.

mod file;
mod links;
mod memory;
mod placement;
mod replacement;

use std::{io, time::Duration};

pub use file::{FileBackend, sync_folder_of};
pub use memory::MemoryBackend;
pub use placement::Placement;
pub use replacement::Replacement;

/// How often a process that waits for the lock looks again. Short against a person's patience, long against
/// the cost of a system call.
pub(crate) const LOCK_POLL: Duration = Duration::from_millis(10);

/// Storage of one container.
///
/// All offsets and lengths are bytes. Writes that were not synced may be lost, kept or torn at any sector of
/// 512 bytes when the power fails, in any order; what was synced stays.
pub trait Backend: Send + Sync {
    /// The size now. Zero means that nothing was created yet.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn len(&self) -> io::Result<u64>;

    /// Whether nothing was created yet.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reserves `size` bytes for a container that is about to be written, where the storage can tell in
    /// advance that there is no room.
    ///
    /// # Errors
    ///
    /// `StorageFull` when there is no room, else the system's error.
    fn reserve(&self, size: u64) -> io::Result<()>;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` beyond the end, else the system's error.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// What is read next is to come from the disk itself, where the storage keeps copies that may have gone bad meanwhile.
    /// Best effort: it may do nothing, and what was written and not synced may stay in the copy.
    fn forget_copy(&self) {}

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// The system's error; part of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Puts everything written before on the disk. Callers use [`Backend::sync`].
    ///
    /// # Errors
    ///
    /// The system's error.
    fn flush(&self) -> io::Result<()>;

    /// Returns when everything written before is on the disk.
    ///
    /// # Errors
    ///
    /// The system's error. What was not synced before must then be taken for lost. The system may go on showing it, from
    /// a copy that it takes for good; so the copy is forgotten, and what is read next is what the disk has (VLT-66).
    fn sync(&self) -> io::Result<()> {
        self.flush().inspect_err(|_| self.forget_copy())
    }

    /// Makes everything written so far durable, and from then on lets what a crash leaves of this container be found by
    /// whoever clears it: what lies in a file gets a name. Called where the bytes tell what they are, before there is
    /// anything in them that must not be left behind.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when the name is taken, else the system's error.
    fn announce(&self) -> io::Result<()> {
        self.sync()
    }

    /// Declares the creation finished: everything is synced, the entry in the directory too, and dropping
    /// the backend no longer removes it.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn finish_creation(&self) -> io::Result<()>;

    /// Takes the exclusive lock, and asks whoever holds it to finish. Returns `false` when it was not to be
    /// had within `wait`.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn lock(&self, wait: Duration) -> io::Result<bool>;

    /// Gives the lock back. Dropping the backend does so too, and so does the end of the process.
    fn unlock(&self);

    /// Whether somebody is waiting for the lock that this backend holds.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn lock_requested(&self) -> io::Result<bool>;

    /// Whether whoever opens the same place finds this container: a file may be moved, deleted or replaced while it is open.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn is_at_its_path(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// Tries `attempt` at once and then every [`LOCK_POLL`] until `wait` is over. Counts its naps instead of
/// reading a clock.
pub(crate) fn poll_lock(wait: Duration, mut attempt: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    let naps = wait.as_millis() / LOCK_POLL.as_millis().max(1);
    for nap in 0..=naps {
        if attempt()? {
            return Ok(true);
        }
        if nap < naps {
            std::thread::sleep(LOCK_POLL);
        }
    }
    Ok(false)
}
