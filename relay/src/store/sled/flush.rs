//! Flushes what sled wrote.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    StoreError,
    engine::{io, sync_folder},
};

/// Sled's files, opened once more for flushing.
pub(super) struct Files {
    log: File,
    /// Pages larger than a segment lie here, one in a file.
    pages: PathBuf,
    flushed: Mutex<BTreeSet<OsString>>,
}

impl Files {
    /// After sled has made them: their names become durable.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let log =
            OpenOptions::new().read(true).write(true).open(path.join("db")).map_err(|error| io(&error))?;
        for name in ["db", "conf"] {
            File::open(path.join(name)).and_then(|file| file.sync_all()).map_err(|error| io(&error))?;
        }
        let files = Self { log, pages: path.join("blobs"), flushed: Mutex::default() };
        files.flush()?;
        sync_folder(path)?;
        Ok(files)
    }

    /// Makes everything durable that sled has written.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.flush_pages()?;
        self.log.sync_data().map_err(|error| io(&error))
    }

    fn flush_pages(&self) -> Result<(), StoreError> {
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there = BTreeSet::new();
        let mut is_new = false;
        for entry in std::fs::read_dir(&self.pages).map_err(|error| io(&error))? {
            let entry = entry.map_err(|error| io(&error))?;
            let name = entry.file_name();
            if !flushed.contains(&name) {
                match File::open(entry.path()).and_then(|file| file.sync_all()) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    done => done.map_err(|error| io(&error))?,
                }
                is_new = true;
            }
            there.insert(name);
        }
        if is_new {
            sync_folder(&self.pages)?;
        }
        *flushed = there;
        Ok(())
    }
}
