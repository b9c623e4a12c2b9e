//! Destroying a relay: keys first, so that what is left of the rest opens for nobody.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rand_core::CryptoRng;

use super::{FolderLock, Place, PlaceError, sync_folder};
use crate::store::{ANCHOR_KEYS, LOG_KEYS};

impl Place {
    /// Destroys the relay. When it returns, its keys are overwritten and everything that it had made is removed; a crash in
    /// between leaves no key that was reached. Other files in the folder stay, and then the folder.
    ///
    /// Nobody else may use the folder: `held` is its lock, taken.
    ///
    /// # Errors
    /// [`PlaceError::Absent`] if nothing of a relay is there; [`PlaceError::Io`]: every key that could be reached is overwritten; call it
    /// again.
    pub fn wipe(&self, held: &FolderLock, rng: &mut impl CryptoRng) -> Result<(), PlaceError> {
        debug_assert!(held.is_taken());
        // Where not everything can be looked at, what can be reached is destroyed.
        if matches!(self.is_empty(), Ok(true)) {
            // Whoever opened the lock made its file.
            self.remove_lock();
            return Err(PlaceError::Absent(self.dir.clone()));
        }
        let of_store = [ANCHOR_KEYS, "store.keys", LOG_KEYS].map(|name| self.store().join(name));
        // A file that cannot be overwritten or removed saves no key in another.
        let mut done = Ok(());
        let mut note = |path: &Path, now: io::Result<()>| {
            if let (Err(reason), Ok(())) = (now, &done) {
                done = Err(PlaceError::Io { path: path.to_path_buf(), reason });
            }
        };
        // Before a key is touched: a wipe that is cut off leaves nothing that whoever starts relays, as systemd does, could begin, and
        // any 32 bytes are a key.
        note(&self.config(), remove(&self.config()));
        sync_folder(&self.dir).ok();
        for path in [self.key_file(), self.next_key_file()].into_iter().chain(of_store) {
            note(&path, overwrite(&path, rng));
        }
        done?;
        let store = self.store();
        match fs::remove_dir_all(&store) {
            Err(reason) if reason.kind() != io::ErrorKind::NotFound => {
                return Err(PlaceError::Io { path: store, reason });
            }
            _ => {}
        }
        // The key after all that is the relay's: as long as it has a name, this can be done again. Then the lock: who waits for it finds
        // that its file is gone.
        let files =
            [self.lineage_file(), self.control(), self.next_key_file(), self.key_file(), self.lock_file()];
        for path in files {
            remove(&path).map_err(|reason| PlaceError::Io { path: path.clone(), reason })?;
        }
        sync_folder(&self.dir)?;
        // Not if it holds what is not ours.
        fs::remove_dir(&self.dir).ok();
        Ok(())
    }
}

fn remove(path: &PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes random bytes over a file, wherever it lies, and flushes. A link is not followed.
fn overwrite(path: &Path, rng: &mut impl CryptoRng) -> io::Result<()> {
    let mut file: File = match OpenOptions::new().write(true).custom_flags(nix::libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut left = file.metadata()?.len();
    let mut bytes = vec![0; 64 << 10];
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let piece = bytes.get_mut(..count).unwrap_or_default();
        rng.fill_bytes(piece);
        file.write_all(piece)?;
        left -= u64::try_from(count).unwrap_or(left);
    }
    file.sync_all()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests leave files as somebody else would")]
mod tests {
    use super::*;
    use crate::key::RelaySecret;

    fn wipe(place: &Place) -> Result<(), PlaceError> {
        let mut lock = place.lock()?;
        assert!(lock.try_take()?);
        place.wipe(&lock, &mut rand::rng())
    }

    #[test]
    fn a_key_file_that_cannot_be_overwritten_saves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().join("relay")));
        place.create(&RelaySecret::generate(&mut rand::rng()), "# nothing\n", &[]).unwrap();
        // Somebody keeps the key on a stick.
        let stick = dir.path().join("stick");
        fs::rename(place.key_file(), &stick).unwrap();
        std::os::unix::fs::symlink(&stick, place.key_file()).unwrap();
        fs::create_dir_all(place.store().join("values")).unwrap();
        for name in [ANCHOR_KEYS, "store.keys", LOG_KEYS] {
            fs::write(place.store().join(name), [5; 10_000]).unwrap();
        }
        let told = wipe(&place).unwrap_err();
        assert!(matches!(told, PlaceError::Io { path, .. } if path == place.key_file()));
        for name in [ANCHOR_KEYS, "store.keys", LOG_KEYS] {
            let bytes = fs::read(place.store().join(name)).unwrap();
            assert!(bytes.len() == 10_000 && bytes.windows(16).all(|window| window != [5; 16]), "{name}");
        }
        assert!(!place.config().exists() && !place.is_empty().unwrap());
    }

    #[test]
    fn a_wipe_overwrites_keys_where_they_lie_and_leaves_what_is_not_the_relays() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().join("relay")));
        assert!(matches!(wipe(&place), Err(PlaceError::Absent(_))));
        let secret = RelaySecret::generate(&mut rand::rng());
        place.create(&secret, "# nothing\n", &[]).unwrap();
        place.rotate(&mut rand::rng()).unwrap();
        let secret = place.secret().unwrap();
        fs::create_dir(place.store()).unwrap();
        fs::write(place.store().join("store.keys"), [5; 100_000]).unwrap();
        fs::write(place.dir().join("notes"), "mine").unwrap();
        fs::create_dir(place.store().join("values")).unwrap();
        fs::write(place.store().join(LOG_KEYS), [5; 5_000]).unwrap();
        let opened = [place.key_file(), place.store().join("store.keys"), place.store().join(LOG_KEYS)]
            .map(|path| File::open(path).unwrap());
        wipe(&place).unwrap();
        let left: Vec<_> =
            fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes"]);
        let [key, keys, of_log] = opened.map(|mut file| {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            bytes
        });
        assert_eq!((key.len(), keys.len()), (32, 100_000));
        assert_ne!(key, secret.expose());
        assert_eq!(of_log.len(), 5_000);
        assert!(keys.windows(16).chain(of_log.windows(16)).all(|window| window != [5; 16]));
        fs::remove_file(place.dir().join("notes")).unwrap();
        place.create(&secret, "# nothing\n", &[]).unwrap();
        wipe(&place).unwrap();
        assert!(!place.dir().exists());
    }
}
