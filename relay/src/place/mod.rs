//! The relay's folder: the only place where this program creates files.
//!
//! ```text
//! DIR/             0700
//! DIR/relay.key    0600   the seed of the relay's key
//! DIR/relay.lineage 0600  which keys it had before, each vouching for the next
//! DIR/relay.toml   0600   configuration
//! DIR/control.sock 0600   while `serve` runs
//! DIR/relay.lock   0600   locked by the process that uses the folder
//! DIR/store/       0700
//! ```

mod error;
mod lock;
mod owner;
mod rotation;
mod wipe;

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use lapwing_wire::succession::Succession;
use zeroize::Zeroizing;

pub use self::{
    error::PlaceError,
    lock::{FolderLock, Holder},
    owner::AsOwner,
};
use crate::{key::RelaySecret, store};

const KEY: &str = "relay.key";
const CONFIG: &str = "relay.toml";
const STORE: &str = "store";

/// Largest configuration file that is read.
const MAX_CONFIG: u64 = 1 << 20;

/// A relay's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// The folder `dir`, or the default: `$XDG_STATE_HOME/lapwing-relay`, else `~/.local/state/lapwing-relay`,
    /// else `./lapwing-relay`.
    pub fn new(dir: Option<PathBuf>) -> Self {
        let dir = dir.unwrap_or_else(|| {
            let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
            let state = absolute("XDG_STATE_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")));
            state.map_or_else(|| PathBuf::from("lapwing-relay"), |state| state.join("lapwing-relay"))
        });
        Self { dir }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.dir.join(STORE)
    }

    /// Where a running relay listens for its operator.
    pub fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Whether nothing of a relay is there.
    ///
    /// # Errors
    /// [`PlaceError::Io`] if nothing was seen, and not everywhere could be looked: a relay may be there.
    pub fn is_empty(&self) -> Result<bool, PlaceError> {
        let files = [self.key_file(), self.next_key_file(), self.config()].map(|path| is_there(&path));
        let of_store =
            store::is_in(&self.store()).map_err(|reason| PlaceError::Io { path: self.store(), reason });
        let mut is_empty = Ok(true);
        for seen in files.into_iter().chain([of_store]) {
            match seen {
                Ok(true) => return Ok(false),
                Ok(false) => {}
                Err(unseen) => is_empty = Err(unseen),
            }
        }
        is_empty
    }

    /// Whether there is a relay that can be begun, as far as its configuration tells: `wipe` removes that first.
    ///
    /// # Errors
    /// [`PlaceError::Absent`], [`PlaceError::Missing`], [`PlaceError::Io`].
    pub fn check_config(&self) -> Result<(), PlaceError> {
        if is_there(&self.config())? { Ok(()) } else { Err(self.without(CONFIG)) }
    }

    /// Whether there is a store: who opens what is not there makes an empty one.
    ///
    /// # Errors
    /// [`PlaceError::Absent`], [`PlaceError::Missing`], [`PlaceError::Io`].
    pub fn check_store(&self) -> Result<(), PlaceError> {
        match store::is_in(&self.store()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.without(STORE)),
            Err(reason) => Err(PlaceError::Io { path: self.store(), reason }),
        }
    }

    /// What it means that a file is not there without which no relay is.
    fn without(&self, name: &'static str) -> PlaceError {
        match self.is_empty() {
            Ok(true) => PlaceError::Absent(self.dir.clone()),
            Ok(false) => PlaceError::Missing { name, dir: self.dir.clone() },
            Err(unseen) => unseen,
        }
    }

    /// Creates the folder with key, configuration and the relay's earlier keys.
    ///
    /// # Errors
    /// [`PlaceError::Exists`] or [`PlaceError::Missing`] if it holds a key or a configuration; nothing is overwritten.
    pub fn create(
        &self,
        secret: &RelaySecret,
        config: &str,
        lineage: &[Succession],
    ) -> Result<(), PlaceError> {
        match (is_there(&self.key_file())?, is_there(&self.config())?) {
            (true, true) => return Err(PlaceError::Exists(self.dir.clone())),
            (true, false) => return Err(self.without(CONFIG)),
            (false, true) => return Err(self.without(KEY)),
            (false, false) => {}
        }
        self.check_kinds()?;
        // Before anything is made: a relay whose socket cannot be bound could not be served.
        std::os::unix::net::SocketAddr::from_pathname(self.control())
            .map_err(|reason| PlaceError::Io { path: self.control(), reason })?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|reason| PlaceError::Io { path: self.dir.clone(), reason })?;
        write_new(&self.config(), config.as_bytes())?;
        if !lineage.is_empty() {
            self.write_lineage(lineage)?;
        }
        // Last: a folder with a key is a whole relay.
        write_new(&self.key_file(), secret.expose())?;
        sync_folder(&self.dir)
    }

    /// Whether the relay's folders can be made or used.
    ///
    /// # Errors
    /// [`PlaceError::NoFolder`] if something else lies there.
    pub fn check_kinds(&self) -> Result<(), PlaceError> {
        let folders = [self.dir.clone(), self.store()];
        match folders.into_iter().find(|path| path.symlink_metadata().is_ok() && !path.is_dir()) {
            Some(path) => Err(PlaceError::NoFolder(path)),
            None => Ok(()),
        }
    }

    /// The relay's key.
    ///
    /// # Errors
    /// [`PlaceError::Absent`] if there is no relay; [`PlaceError::Missing`] if there is all but this of one.
    pub fn secret(&self) -> Result<RelaySecret, PlaceError> {
        let bytes = Zeroizing::new(self.read(KEY)?);
        Ok(RelaySecret::from_bytes(&bytes)?)
    }

    /// The text of the configuration.
    ///
    /// # Errors
    /// As of [`Place::secret`].
    pub fn config_text(&self) -> Result<String, PlaceError> {
        let path = self.config();
        let bytes = self.read(CONFIG)?;
        String::from_utf8(bytes)
            .map_err(|_| PlaceError::Io { path, reason: io::Error::from(io::ErrorKind::InvalidData) })
    }

    /// The file of the key.
    pub fn key_file(&self) -> PathBuf {
        self.dir.join(KEY)
    }

    fn read(&self, name: &'static str) -> Result<Vec<u8>, PlaceError> {
        use std::io::Read;
        let path = self.dir.join(name);
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::NotFound => self.without(name),
            _ => PlaceError::Io { path: path.clone(), reason },
        };
        let mut bytes = Vec::new();
        let file = OpenOptions::new().read(true).open(&path).map_err(failed)?;
        file.take(MAX_CONFIG).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// Whether something lies there. `Path::exists` calls absent whatever this user may not look at.
fn is_there(path: &Path) -> Result<bool, PlaceError> {
    store::is_there(path).map_err(|reason| PlaceError::Io { path: path.to_path_buf(), reason })
}

/// A path as a shell takes it for one word.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), PlaceError> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    written.map_err(|reason| PlaceError::Io { path: path.to_path_buf(), reason })
}

fn sync_folder(path: &Path) -> Result<(), PlaceError> {
    let synced = OpenOptions::new().read(true).open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|reason| PlaceError::Io { path: path.to_path_buf(), reason })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_relay_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().join("relay")));
        assert!(matches!(place.secret(), Err(PlaceError::Absent(_))));
        let secret = RelaySecret::generate(&mut rand::rng());
        place.create(&secret, "# nothing\n", &[]).unwrap();
        assert_eq!(place.secret().unwrap().expose(), secret.expose());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(place.dir()), 0o700);
        assert_eq!(mode(&place.key_file()), 0o600);
        assert_eq!(mode(&place.config()), 0o600);
        assert!(matches!(place.create(&secret, "", &[]), Err(PlaceError::Exists(_))));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests leave files as somebody else would")]
    fn what_cannot_be_looked_at_is_not_absent_and_what_is_seen_beside_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().join("relay")));
        std::fs::create_dir_all(place.store()).unwrap();
        assert!(place.is_empty().unwrap());
        // A ring of links stops root too.
        for path in
            [place.key_file(), place.next_key_file(), place.config(), place.store().join("store.keys")]
        {
            std::os::unix::fs::symlink(&path, &path).unwrap();
            let told = place.is_empty().unwrap_err();
            assert!(matches!(&told, PlaceError::Io { path: of, .. } if path.starts_with(of)), "{told}");
            assert!(matches!(place.check_config(), Err(PlaceError::Io { .. })));
            std::fs::write(place.store().join("anchor.keys"), "keys").unwrap();
            assert!(!place.is_empty().unwrap(), "{}", path.display());
            std::fs::remove_file(place.store().join("anchor.keys")).unwrap();
            std::fs::remove_file(&path).unwrap();
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(Place::new(Some(file)).is_empty().unwrap(), "nothing lies in what is no folder");
    }

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        for path in ["/var/lib/lapwing-relay", "/my relay", "it's", "$HOME/`id`;x", "", "ä"] {
            let echo = format!("printf %s {}", quoted(Path::new(path)));
            let output = std::process::Command::new("sh").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path, "{echo}");
        }
        assert_eq!(quoted(Path::new("/var/lib/lapwing-relay")), "/var/lib/lapwing-relay");
    }
}
