//! Whether a disk that was full has room again.
//!
//! Asking the system how much is free does not tell of quotas and limits, so a file of some size is written, flushed
//! and deleted.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use super::{StoreError, engine};

/// What must be free before a store is opened again: room for what opening itself may write.
const NEEDED: u64 = 160 << 20;
/// What is written to find out.
const PROBE: usize = 1 << 20;
const NAME: &str = "room.probe";

/// Whether a write fails for want of room now.
pub(super) fn is_full(folder: &Path) -> bool {
    probe(folder) == Err(StoreError::Full)
}

/// Whether there is room to go on.
pub(super) fn is_there(folder: &Path) -> bool {
    engine::free_bytes(folder).is_ok_and(|free| free >= NEEDED) && probe(folder).is_ok()
}

fn probe(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(NAME);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&vec![0; PROBE]).and_then(|()| file.sync_all()));
    let removed = std::fs::remove_file(&path);
    written.map_err(|error| engine::io(&error))?;
    removed.map_err(|error| engine::io(&error))
}
