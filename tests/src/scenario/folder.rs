//! A folder of a scenario's own, removed with everything in it when the scenario ends.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Folders made by this process so far: a name is never used twice.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The folder.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder that only this user may enter.
    #[expect(clippy::new_without_default, reason = "it changes the disk; a default would hide that")]
    #[must_use]
    pub fn new() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lapwing-scenario-{}-{number}", process::id()));
        DirBuilder::new().mode(0o700).create(&path).expect("a folder for the scenario");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a file into it.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a new file");
        file.write_all(bytes).expect("its bytes");
        path
    }

    /// Names of what lies in it, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the scenario's folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that fails over what it tests must not fail over the tidying too.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
