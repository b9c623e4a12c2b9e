//! Changing the relay's key on the disk.
//!
//! ```text
//! DIR/relay.key.next   0600   the next key, until it takes the place of the old one
//! DIR/relay.lineage    0600   successions (lapwing-wire), CBOR; nothing secret
//! ```
//! Order: next key durable, old key's word for it durable, next key in the place of the old one, old key overwritten. A
//! crash before the word leaves the old key and nothing else; after it, the next start finishes the change. The old key is
//! gone when it is done: its word is all that clients need.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use lapwing_wire::{codec, limits::MAX_LINEAGE, succession::Succession};
use rand_core::CryptoRng;

use super::{Place, PlaceError, sync_folder, write_new};
use crate::key::RelaySecret;

/// Longest file of successions that is read: each has some 150 bytes.
const MAX_LINEAGE_FILE: usize = 64 << 10;

impl Place {
    /// All changes of the key so far; none if the key is the first one.
    ///
    /// # Errors
    /// [`PlaceError::Lineage`] if the file is damaged.
    pub fn lineage(&self) -> Result<Vec<Succession>, PlaceError> {
        let path = self.lineage_file();
        let bytes = match fs::read(&path) {
            Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(reason) => return Err(PlaceError::Io { path, reason }),
            Ok(bytes) => bytes,
        };
        codec::decode(&bytes, MAX_LINEAGE_FILE).map_err(|_| PlaceError::Lineage(path))
    }

    /// Gives the relay another key, for which the old one vouches; the old one is overwritten. First finishes a change that
    /// a crash cut off, and then that was it.
    ///
    /// # Errors
    /// [`PlaceError::Lineage`] if the relay has changed its key as often as clients follow. After an error the key is the
    /// old one or the next one, and clients that know the old one find it.
    pub fn rotate(&self, rng: &mut impl CryptoRng) -> Result<RelaySecret, PlaceError> {
        let _alone = self.alone()?;
        if let Some(next) = self.finish()? {
            return Ok(next);
        }
        let (old, next) = (self.secret()?, RelaySecret::generate(rng));
        let mut lineage = self.lineage()?;
        let own = old.public()?;
        // A change that came to nothing, as in a copy of the folder: a key is left once.
        lineage.retain(|step| step.claimed_by() != own);
        if lineage.len() >= MAX_LINEAGE {
            return Err(PlaceError::TooManyKeys);
        }
        lineage.push(old.name_successor(&next)?);
        write_new(&self.next_key_file(), next.expose())?;
        sync_folder(&self.dir)?;
        self.write_lineage(&lineage)?;
        self.take_next()?;
        Ok(next)
    }

    /// Finishes a change of the key that a crash cut off; `None` if none was begun.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn finish_rotation(&self) -> Result<Option<RelaySecret>, PlaceError> {
        let _alone = self.alone()?;
        self.finish()
    }

    /// One change at a time, whoever asks: of two at once the one's key could be named and the other's stay.
    fn alone(&self) -> Result<File, PlaceError> {
        let failed = |reason| match reason {
            reason if std::io::Error::kind(&reason) == std::io::ErrorKind::NotFound => {
                PlaceError::Absent(self.dir.clone())
            }
            reason => PlaceError::Io { path: self.dir.clone(), reason },
        };
        let folder = File::open(&self.dir).map_err(failed)?;
        folder.lock().map_err(failed)?;
        Ok(folder)
    }

    fn finish(&self) -> Result<Option<RelaySecret>, PlaceError> {
        let path = self.next_key_file();
        let bytes = match fs::read(&path) {
            Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(reason) => return Err(PlaceError::Io { path, reason }),
            Ok(bytes) => zeroize::Zeroizing::new(bytes),
        };
        let old = self.secret()?.public()?;
        let named = self.lineage()?.last().is_some_and(|last| {
            RelaySecret::from_bytes(&bytes)
                .and_then(|next| next.public())
                .is_ok_and(|next| last.claimed_by() == old && *last.claimed_next() == next)
        });
        if !named {
            // Nobody was told of it.
            fs::remove_file(&path).map_err(|reason| PlaceError::Io { path, reason })?;
            sync_folder(&self.dir)?;
            return Ok(None);
        }
        self.take_next()?;
        Ok(Some(RelaySecret::from_bytes(&bytes)?))
    }

    pub(super) fn write_lineage(&self, lineage: &[Succession]) -> Result<(), PlaceError> {
        let path = self.dir.join("relay.lineage.new");
        let failed = |reason| PlaceError::Io { path: path.clone(), reason };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(&codec::encode(&lineage)).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&path, self.lineage_file()).map_err(failed)?;
        sync_folder(&self.dir)
    }

    fn take_next(&self) -> Result<(), PlaceError> {
        let path = self.key_file();
        let failed = |reason| PlaceError::Io { path: path.clone(), reason };
        // Held while its name goes: what lies on the disk is overwritten, not only forgotten.
        let mut old = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        fs::rename(self.next_key_file(), &path).map_err(failed)?;
        sync_folder(&self.dir)?;
        old.rewind().and_then(|()| old.write_all(&[0; 32])).and_then(|()| old.sync_all()).map_err(failed)
    }

    pub(super) fn lineage_file(&self) -> PathBuf {
        self.dir.join("relay.lineage")
    }

    pub(super) fn next_key_file(&self) -> PathBuf {
        self.dir.join("relay.key.next")
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests leave files as somebody else would")]
mod tests {
    use lapwing_wire::succession::leads;

    use super::*;

    fn made() -> (tempfile::TempDir, Place, RelaySecret) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().join("relay")));
        let secret = RelaySecret::generate(&mut rand::rng());
        place.create(&secret, "# nothing\n", &[]).unwrap();
        (dir, place, secret)
    }

    #[test]
    fn suc_01_each_key_vouches_for_the_next_and_is_gone_then() {
        let (_dir, place, first) = made();
        let old = fs::File::open(place.key_file()).unwrap();
        let second = place.rotate(&mut rand::rng()).unwrap();
        let third = place.rotate(&mut rand::rng()).unwrap();
        assert_eq!(place.secret().unwrap().expose(), third.expose());
        let lineage = place.lineage().unwrap();
        let name = |secret: &RelaySecret| secret.public().unwrap();
        assert!(leads(&lineage, &name(&first), &name(&third)));
        assert!(leads(&lineage, &name(&second), &name(&third)));
        assert!(!leads(&lineage, &name(&third), &name(&first)));
        let mut left = Vec::new();
        std::io::Read::read_to_end(&mut { old }, &mut left).unwrap();
        assert_eq!(left, [0; 32], "the first key's own blocks");
        assert!(!place.next_key_file().exists());
    }

    #[test]
    fn a_change_that_was_cut_off_is_finished_or_never_was() {
        let (_dir, place, first) = made();
        let next = RelaySecret::generate(&mut rand::rng());
        fs::write(place.next_key_file(), next.expose()).unwrap();
        assert!(place.finish_rotation().unwrap().is_none(), "nobody was told of it");
        assert_eq!(place.secret().unwrap().expose(), first.expose());
        fs::write(place.next_key_file(), next.expose()).unwrap();
        place.write_lineage(&[first.name_successor(&next).unwrap()]).unwrap();
        assert_eq!(place.rotate(&mut rand::rng()).unwrap().expose(), next.expose(), "that was it");
        assert_eq!(place.secret().unwrap().expose(), next.expose());
        assert!(place.finish_rotation().unwrap().is_none());
    }

    /// Two operators, or one who is impatient.
    #[test]
    fn of_two_changes_at_once_clients_find_the_key_that_stays() {
        for round in 0..20 {
            let (_dir, place, first) = made();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| place.rotate(&mut rand::rng()).is_ok());
                }
            });
            place.finish_rotation().unwrap();
            let (lineage, last) = (place.lineage().unwrap(), place.secret().unwrap());
            assert!(leads(&lineage, &first.public().unwrap(), &last.public().unwrap()), "round {round}");
        }
    }

    #[test]
    fn there_is_an_end_to_what_clients_follow_and_damage_is_told() {
        let (_dir, place, _) = made();
        for _ in 0..MAX_LINEAGE {
            place.rotate(&mut rand::rng()).unwrap();
        }
        let last = place.secret().unwrap();
        assert!(matches!(place.rotate(&mut rand::rng()), Err(PlaceError::TooManyKeys)));
        assert_eq!(place.secret().unwrap().expose(), last.expose());
        fs::write(place.lineage_file(), b"nonsense").unwrap();
        assert!(matches!(place.lineage(), Err(PlaceError::Lineage(_))));
    }
}
