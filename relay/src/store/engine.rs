//! What a store on disk needs from an embedded database, and how one is opened.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ANCHOR_KEYS, KeptStore, LOG_KEYS, StoreError,
    export::{self, NextRow},
    fjall::{Fjall, FjallStore, KEYSPACES},
    keys::KEYS,
    tables::{Tables, Writes},
};

/// Which embedded database keeps a relay's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// The default.
    #[default]
    Fjall,
    /// Only in programs built with the feature `sled`.
    Sled,
}

impl EngineName {
    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Unbuilt`] if this program was built without the engine.
    pub fn open(self, options: &StoreOptions) -> Result<Arc<dyn KeptStore>, StoreError> {
        match self {
            Self::Fjall => Ok(Arc::new(FjallStore::open(options)?)),
            #[cfg(feature = "sled")]
            Self::Sled => Ok(Arc::new(super::sled::SledStore::open(options)?)),
            #[cfg(not(feature = "sled"))]
            Self::Sled => Err(StoreError::Unbuilt),
        }
    }
}

impl EngineName {
    /// Makes a store of the records of a backup, in a folder that does not exist.
    ///
    /// # Errors
    /// [`StoreError`]; what was made of the store until then is left.
    pub fn fill(self, options: &StoreOptions, next: &mut NextRow<'_>) -> Result<(), StoreError> {
        match self {
            Self::Fjall => export::fill::<Fjall>(options, next),
            #[cfg(feature = "sled")]
            Self::Sled => export::fill::<super::sled::Sled<true>>(options, next),
            #[cfg(not(feature = "sled"))]
            Self::Sled => Err(StoreError::Unbuilt),
        }
    }
}

impl std::fmt::Display for EngineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        })
    }
}

/// See [`StoreOptions::forget_after`]. Operators are promised ten seconds: one of them is for the writing.
const FORGET_AFTER: Duration = Duration::from_secs(9);
/// What only the folder of a store of `sled` has; each engine refuses the other's.
pub(super) const SLED_HAS: &str = "conf";
/// See [`StoreOptions::memory`].
pub const MEMORY: u64 = 128 << 20;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Folder; created with mode 0700 if absent.
    pub path: PathBuf,
    /// Bytes that stay free on the file system: below, everything new is refused with `busy`. 0 switches it off.
    pub reserve: u64,
    /// Bytes of memory for what was used lately: half of it for records and keys of mailboxes (`cache`), half for what the engine
    /// has read. As much as a half at most is added for what says which envelopes are new. What the engine has not written to its
    /// tables yet, and what the system keeps of files, is not in it.
    pub memory: u64,
    /// How long keys of what was deleted may stay before they are overwritten: every time costs some flushes.
    pub forget_after: Duration,
    /// Slept after each flush, to model slower disks in measurements. Zero in service.
    pub extra_flush: Duration,
}

impl StoreOptions {
    /// The store at `path`, without a reserve.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            reserve: 0,
            memory: MEMORY,
            forget_after: FORGET_AFTER,
            extra_flush: Duration::ZERO,
        }
    }
}

/// Whether a folder holds a store, or what an interrupted removal left of one: only a store has such files.
///
/// # Errors
/// The system's, if none was seen and not all could be looked for.
pub fn is_in(folder: &Path) -> std::io::Result<bool> {
    let mut found = Ok(false);
    for name in [KEYS, ANCHOR_KEYS, LOG_KEYS, KEYSPACES, SLED_HAS] {
        match is_there(&folder.join(name)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            unseen => found = unseen,
        }
    }
    found
}

/// Whether something lies there.
///
/// # Errors
/// The system's. Nothing lies in what is no folder.
pub fn is_there(path: &Path) -> std::io::Result<bool> {
    match path.try_exists() {
        Err(reason) if reason.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        looked => looked,
    }
}

/// An embedded database with two ordered spaces.
///
/// # Contract
/// 1. A group is prepared, committed and settled, in this order, and groups in the order in which they are prepared. One thread at a
///    time prepares or commits, one settles; who prepares knows that the group before is committed.
/// 2. `commit` returns after all of its writes are on stable storage; after a crash all of them are there or none.
/// 3. `view` shows every group whose `settle` had returned when it was called, none whose `settle` had not begun, and never changes.
/// 4. `direct` shows every group that is settled, and may show parts of one that is being settled: whoever reads by it
///    knows what that writes.
/// 5. After `settle` failed, the engine has to be opened anew: then it shows all groups that were committed.
pub(crate) trait Engine: Clone + Send + Sync + Sized + 'static {
    /// What is on disk at one moment.
    type View: Tables;
    /// What is on disk now.
    type Direct<'a>: Tables;
    /// Threads that write: two where one may read by `direct` while the other commits, at no risk.
    const WRITERS: usize;
    /// What one commit writes, as the engine wants it.
    type Group;

    /// Opens or creates the database in a folder that exists; keeps so many bytes of what it read.
    fn open(path: &Path, cache: u64) -> Result<Self, StoreError>;

    fn view(&self) -> Self::View;

    fn direct(&self) -> Self::Direct<'_>;

    /// Bytes of the disk that it may need for a time, beside what it is given to keep.
    fn needs(&self) -> u64 {
        0
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> Result<Self::Group, StoreError>;

    fn commit(&self, group: &Self::Group) -> Result<(), StoreError>;

    fn settle(&self, group: Self::Group) -> Result<(), StoreError>;

    /// Leaves as little as possible to be done when the store is opened again, and nothing to be read of what is deleted. Nothing may be
    /// prepared, committed or settled meanwhile.
    fn rest(&self) -> Result<(), StoreError>;

    /// Gives room back to the disk, a bounded step of it, under the conditions of `rest`; `true` if there is more to do.
    fn tidy(&self) -> Result<bool, StoreError>;

    fn write(&self, bulk: &Writes, state: &Writes) -> Result<(), StoreError> {
        let group = self.prepare(bulk, state)?;
        self.commit(&group)?;
        // It is durable and not shown, whatever stood in the way: nothing more may be staged on what is shown.
        self.settle(group)
            .map_err(|failure| if failure == StoreError::Full { failure } else { StoreError::Disk })
    }
}

/// Bytes that the files of a folder take on the disk, holes not counted.
///
/// Asks the file system, not the engine: an engine may wait for a commit that hangs, and then of all times an operator
/// wants to know.
pub(crate) fn folder_bytes(path: &Path) -> Result<u64, StoreError> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0u64;
    let mut left = vec![path.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| io(&error))? {
            let entry = entry.map_err(|error| io(&error))?;
            // An engine may delete a file meanwhile.
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                left.push(entry.path());
            }
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
        }
    }
    Ok(bytes)
}

/// Bytes that an unprivileged process may still write to the file system of `path`.
///
/// # Errors
/// [`StoreError::Disk`].
pub fn free_bytes(path: &Path) -> Result<u64, StoreError> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|_| StoreError::Disk)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

pub(crate) fn create_folder(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| io(&error))?;
    // The folder's own name must survive a power cut as its files do.
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    std::fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| io(&error))
}

/// Which failure the system's is.
pub(crate) fn io(error: &std::io::Error) -> StoreError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::Full,
        _ => StoreError::Disk,
    }
}
