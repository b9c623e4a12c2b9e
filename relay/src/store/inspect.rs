//! What can be seen of a store that nobody has open, without opening it: an engine that opens replays, cuts and writes.
//!
//! Nothing is changed, and no file is opened for writing. Seen are the marks of engine and version, every key under which values are
//! sealed, and that the log begins where its checkpoint says. Not seen: the version of this store's own format, and values and rows,
//! which only an open store reads.

use std::{fmt, fs, path::Path};

use super::{
    ANCHOR_KEYS, LOG_KEYS, StoreError,
    engine::{EngineName, SLED_HAS, is_in},
    fjall::KEYSPACES,
    keys::{KEYS, KeyFile},
    values::ValueLog,
};

/// The mark of `fjall`'s own format, which it compares at opening: its name and the version.
const FJALL_MARK: (&str, &[u8]) = ("version", b"FJL\x03");

/// A file of a store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its name in the store's folder.
    pub file: &'static str,
    /// What is wrong.
    pub error: StoreError,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, error } = self;
        let said = match error {
            StoreError::Damaged => "it is damaged or missing",
            StoreError::Version => "it was written by another version, or is damaged",
            other => return write!(f, "{file}: {other}"),
        };
        write!(f, "{file}: {said}")
    }
}

/// Looks at the store in a folder, of this engine or, where none is named, of the one whose marks it has; `false` if there is none.
///
/// # Errors
/// The first file that cannot be used.
pub fn inspect(folder: &Path, engine: Option<EngineName>) -> Result<bool, Fault> {
    if !is_in(folder).map_err(|error| Fault { file: "store", error: super::engine::io(&error) })? {
        return Ok(false);
    }
    let has = |name: &str| folder.join(name).exists();
    let engine = engine.unwrap_or_else(|| engine_of(folder));
    let (other, foreign) = match engine {
        EngineName::Fjall => (SLED_HAS, has(SLED_HAS)),
        EngineName::Sled => (KEYSPACES, has(KEYSPACES)),
    };
    if foreign {
        return Err(Fault { file: other, error: StoreError::Engine });
    }
    if engine == EngineName::Fjall {
        // The keys come last when a store is made: before, the next start begins it anew.
        if !has(KEYS) && !ValueLog::is_in(folder) {
            return Ok(false);
        }
        let (file, mark) = FJALL_MARK;
        let found = fs::read(folder.join(file)).map_err(|error| Fault { file, error: unread(&error) })?;
        if !found.starts_with(mark) {
            return Err(Fault { file, error: StoreError::Version });
        }
        ValueLog::inspect(folder).map_err(|error| Fault { file: LOG_KEYS, error })?;
    }
    let [keys, anchors] = KeyFile::inspect(folder);
    keys.map_err(|error| Fault { file: KEYS, error })?;
    anchors.map_err(|error| Fault { file: ANCHOR_KEYS, error })?;
    Ok(true)
}

/// The engine whose marks a store has.
pub fn engine_of(folder: &Path) -> EngineName {
    if folder.join(SLED_HAS).exists() { EngineName::Sled } else { EngineName::Fjall }
}

/// A file that is not there was taken away: the store has all of them since it was made.
pub(super) fn unread(error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::Damaged,
        _ => super::engine::io(error),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests damage files")]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

    use super::{
        super::{StoreOptions, keys::Chain, keys::Slot},
        *,
    };

    fn made(engine: EngineName) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        assert_eq!(inspect(&path, Some(engine)), Ok(false));
        drop(engine.open(&StoreOptions::at(&path)).unwrap());
        let keys = KeyFile::open(&path).unwrap();
        let mut rng = rand::rng();
        for _ in 0..2 {
            let new: BTreeMap<_, _> = (0..200).map(|n| (Slot(n), Chain::random(&mut rng))).collect();
            keys.add(&new).unwrap();
        }
        (dir, path)
    }

    /// Every file with its bytes and when they were written.
    fn image(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
        let mut image = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                image.extend(self::image(&path));
            } else {
                let written = path.metadata().unwrap().modified().unwrap();
                image.insert(path.clone(), (fs::read(&path).unwrap(), written));
            }
        }
        image
    }

    #[test]
    fn a_whole_store_is_seen_and_nothing_of_it_is_changed() {
        for engine in [EngineName::Fjall, EngineName::Sled] {
            let (_dir, path) = made(engine);
            let before = image(&path);
            assert_eq!(inspect(&path, Some(engine)), Ok(true), "{engine}");
            assert_eq!(inspect(&path, None), Ok(true), "{engine}");
            assert!(image(&path) == before, "{engine}");
            engine.open(&StoreOptions::at(&path)).unwrap();
        }
    }

    #[test]
    fn each_damage_is_told_with_its_file_and_nothing_is_changed() {
        let cut = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(3).unwrap();
        let spoil = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            fs::write(path, bytes).unwrap();
        };
        let remove = |path: &Path| fs::remove_file(path).unwrap();
        let (version, damaged) = (StoreError::Version, StoreError::Damaged);
        type Harm<'a> = &'a dyn Fn(&Path);
        let harms: [(&str, Harm<'_>, &str, StoreError); 9] = [
            ("version", &spoil, "version", version),
            ("version", &cut, "version", version),
            ("version", &remove, "version", damaged),
            (LOG_KEYS, &spoil, LOG_KEYS, damaged),
            (LOG_KEYS, &remove, LOG_KEYS, damaged),
            ("values/0000000001", &spoil, LOG_KEYS, damaged),
            ("values/0000000001", &remove, LOG_KEYS, damaged),
            (KEYS, &spoil, KEYS, damaged),
            (ANCHOR_KEYS, &remove, ANCHOR_KEYS, damaged),
        ];
        for (name, harm, file, error) in harms {
            let (_dir, path) = made(EngineName::Fjall);
            harm(&path.join(name));
            let before = image(&path);
            assert_eq!(inspect(&path, Some(EngineName::Fjall)), Err(Fault { file, error }), "{name}");
            assert!(image(&path) == before, "{name}");
        }
        let (_dir, path) = made(EngineName::Sled);
        let found = inspect(&path, Some(EngineName::Fjall)).unwrap_err();
        assert_eq!(found.error, StoreError::Engine);
        remove(&path.join(KEYS));
        assert_eq!(inspect(&path, Some(EngineName::Sled)).unwrap_err().file, KEYS);
    }
}
