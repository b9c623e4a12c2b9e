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
        self.dir.join("relay.toml")
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where a running relay listens for its operator.
    pub fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Whether nothing of a relay is there.
    pub fn is_empty(&self) -> bool {
        !self.key_file().exists() && !self.config().exists() && !store::is_in(&self.store())
    }

    /// Creates the folder with key, configuration and the relay's earlier keys.
    ///
    /// # Errors
    /// [`PlaceError::Exists`] if it holds a key; nothing is overwritten.
    pub fn create(
        &self,
        secret: &RelaySecret,
        config: &str,
        lineage: &[Succession],
    ) -> Result<(), PlaceError> {
        if self.key_file().exists() || self.config().exists() {
            return Err(PlaceError::Exists(self.dir.clone()));
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
    /// [`PlaceError::Absent`] if there is no relay.
    pub fn secret(&self) -> Result<RelaySecret, PlaceError> {
        let bytes = Zeroizing::new(self.read(&self.key_file())?);
        Ok(RelaySecret::from_bytes(&bytes)?)
    }

    /// The text of the configuration.
    ///
    /// # Errors
    /// [`PlaceError::Absent`] if there is no relay.
    pub fn config_text(&self) -> Result<String, PlaceError> {
        let path = self.config();
        let bytes = self.read(&path)?;
        String::from_utf8(bytes)
            .map_err(|_| PlaceError::Io { path, reason: io::Error::from(io::ErrorKind::InvalidData) })
    }

    /// The file of the key.
    pub fn key_file(&self) -> PathBuf {
        self.dir.join("relay.key")
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, PlaceError> {
        use std::io::Read;
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::NotFound => PlaceError::Absent(self.dir.clone()),
            _ => PlaceError::Io { path: path.to_path_buf(), reason },
        };
        let mut bytes = Vec::new();
        let file = OpenOptions::new().read(true).open(path).map_err(failed)?;
        file.take(MAX_CONFIG).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
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
    fn a_path_is_one_word_for_a_shell() {
        for path in ["/var/lib/lapwing-relay", "/my relay", "it's", "$HOME/`id`;x", "", "ä"] {
            let echo = format!("printf %s {}", quoted(Path::new(path)));
            let output = std::process::Command::new("sh").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path, "{echo}");
        }
        assert_eq!(quoted(Path::new("/var/lib/lapwing-relay")), "/var/lib/lapwing-relay");
    }
}
