//! What can be wrong with a relay's folder, and what to do about it.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

use crate::key::KeyError;

/// A folder that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// `init` found a relay there.
    #[error("there is a relay in {0} already")]
    Exists(PathBuf),
    /// No relay was made there.
    #[error("there is no relay in {0}")]
    Absent(PathBuf),
    /// The rest of a relay is there.
    #[error("{name} is missing in {dir}, where the rest of a relay is")]
    Missing {
        /// Which file.
        name: &'static str,
        /// The relay's folder.
        dir: PathBuf,
    },
    /// Something else lies where a folder belongs.
    #[error("this is no folder: {0}")]
    NoFolder(PathBuf),
    /// The system refused to read or write.
    #[error("cannot use {path}: {reason}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Root, and may not act as the owner of the folder: files of root's would lock the relay out.
    #[error("the folder belongs to another user: {0}")]
    Owner(PathBuf),
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file of earlier keys is not what was written.
    #[error("the file of the relay's earlier keys is damaged: {0}")]
    Lineage(PathBuf),
    /// Clients follow no further.
    #[error("this relay has changed its key as often as people's programs follow")]
    TooManyKeys,
}

impl PlaceError {
    /// What an operator does about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists(_) => "choose another folder with --dir; nothing was changed",
            Self::Absent(_) => {
                "make one with `lapwing-relay init --host NAME`, or name its folder with --dir"
            }
            Self::Missing { name: "relay.key", dir: _ } => {
                "restore relay.key and relay.lineage from your backup; without them this is another relay, which `lapwing-relay init` makes in another folder"
            }
            Self::Missing { name: "store", dir: _ } => {
                "restore a backup in another folder; or start the relay, which makes an empty one: people's programs create their mailboxes anew, tripwires have to be armed again"
            }
            Self::Missing { .. } => {
                "restore relay.toml from your backup, or write it again with network.host and network.port as they were; if a wipe was cut off, wipe again"
            }
            Self::NoFolder(_) => {
                "choose another folder with --dir, or move that file away; nothing was changed"
            }
            Self::Owner(_) => "run it as that user: runuser -u lapwing-relay -- lapwing-relay ...",
            Self::Key(_) => "restore relay.key from your backup; without it this is another relay",
            Self::Lineage(_) => {
                "restore relay.lineage from your backup; without it people's programs do not find the new key by themselves"
            }
            Self::TooManyKeys => "make a new relay with `lapwing-relay init` and hand out new access tickets",
            Self::Io { reason, path: _ } => match reason.kind() {
                ErrorKind::PermissionDenied => {
                    "run it as root or as the user of the relay, to whom all of its folder must belong: chown -R lapwing-relay: DIR"
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk, then try again",
                ErrorKind::ReadOnlyFilesystem => {
                    "the disk is mounted read-only; see the system's own log for the reason"
                }
                ErrorKind::InvalidInput => {
                    "choose a folder with a shorter path: that of its socket has at most 107 bytes"
                }
                _ => "check owner and mode of the folder",
            },
        }
    }
}
