//! What can go wrong, what to do about it, and the exit code.

use std::{io::ErrorKind, path::PathBuf};

use lapwing_wire::address::AddressError;

use crate::{
    archive::ArchiveError, config::ConfigError, key::KeyError, place::PlaceError, server::ServerError,
    store::StoreError,
};

/// A command that was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The relay's folder.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host given to `init`.
    #[error("{host} is no host under which others reach a relay: {why}")]
    Host {
        /// What was given.
        host: String,
        /// Why not.
        why: &'static str,
    },
    /// The address that is made of host and port.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The control socket.
    #[error("cannot use the control socket: {0}")]
    Control(#[source] std::io::Error),
    /// The configuration file, which says how much a ticket allows.
    #[error(transparent)]
    NoDefaults(ConfigError),
    /// What was tried on the relay's folder, with no relay running, failed.
    #[error("{message}")]
    Undone {
        /// Why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A relay that was asked refused.
    #[error("the relay could not answer: {message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// `access revoke` with a name that is not listed.
    #[error("there is no access ticket of that name")]
    NoSuchTicket,
    /// A ticket needs an address and the port is not known.
    #[error("the relay has no fixed port and does not run, so it has no address")]
    NoAddress,
    /// The disk failed while the relay ran.
    #[error("the disk refused to read or write, so the relay stopped")]
    DiskFailed,
    /// The port for monitoring.
    #[error("cannot listen for monitoring: {0}")]
    Metrics(#[source] std::io::Error),
    /// A backup.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file that would be replaced.
    #[error("there is a file already: {0}")]
    FileExists(PathBuf),
    /// Somebody writes to the file.
    #[error("another backup is being written: {0}")]
    BackupRuns(PathBuf),
    /// A recovery key that others can read.
    #[error("others can read the file of the recovery key: {0}")]
    OpenKey(PathBuf),
    /// The file that is to hold the recovery key.
    #[error("cannot read the file of the recovery key, {path}: {reason}")]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The running relay ended in the middle of a backup.
    #[error("the running relay ended the backup before it was whole: {0}")]
    CutShort(#[source] std::io::Error),
    /// The relay that runs on the folder did not stop.
    #[error("a process that uses this folder does not end")]
    StillRuns,
    /// The relay that runs on the folder did not stop, and the system does not say which process it is.
    #[error("a process that cannot be seen from here uses this folder")]
    Unseen,
    /// The person who was asked did not agree.
    #[error("nothing was done")]
    NotConfirmed,
    /// `doctor` found what needs care.
    #[error("something needs care")]
    NeedsCare,
    /// The operating system.
    #[error("the system refused: {0}")]
    System(#[source] std::io::Error),
}

/// What to do about an answer that makes no sense.
pub(super) const OTHER_VERSION: &str =
    "is another version of lapwing-relay running? Start it again with this one";

impl CliError {
    /// What to do.
    pub(super) fn hint(&self) -> &str {
        match self {
            Self::Place(error) => error.hint(),
            Self::Key(_) => "restore relay.key from your backup; without it this is another relay",
            Self::Config(_) => {
                "correct relay.toml; `lapwing-relay init` in an empty folder writes a fresh example"
            }
            Self::Host { .. } => "give --host the name or IP address under which people reach this machine",
            Self::Address(_) => "check network.host and network.port in relay.toml",
            Self::Store(error) => error.hint(),
            Self::DiskFailed => StoreError::Disk.hint(),
            Self::Server(ServerError::Listen(reason)) => match reason.kind() {
                ErrorKind::AddrInUse => {
                    "another program has this UDP port (`ss -ulpn` shows which): stop it, or choose another network.port"
                }
                ErrorKind::PermissionDenied => {
                    "ports below 1024 need a right: use the systemd unit, or choose a network.port above"
                }
                ErrorKind::AddrNotAvailable => {
                    "network.listen is no address of this machine; `::` listens on all"
                }
                _ => "choose another network.port or network.listen in relay.toml",
            },
            Self::Server(_) => "check [network] in relay.toml",
            Self::Control(reason) => match reason.kind() {
                ErrorKind::PermissionDenied => {
                    "run it as the user of the relay: runuser -u lapwing-relay -- lapwing-relay ..."
                }
                ErrorKind::TimedOut => {
                    "the running relay does not answer: its disk may hang; see its own messages"
                }
                ErrorKind::InvalidInput => "the folder's path must be shorter than 90 letters",
                _ => OTHER_VERSION,
            },
            Self::Metrics(_) => "choose a free port in metrics.listen of relay.toml, or leave it empty",
            Self::Refused { message: _, hint } | Self::Undone { message: _, hint } => hint,
            Self::NoDefaults(_) => "correct relay.toml, or give both --size and --mailboxes",
            Self::NoSuchTicket => "see `lapwing-relay access list`",
            Self::NoAddress => "start it with `lapwing-relay serve`, or set network.port in relay.toml",
            Self::Archive(ArchiveError::Io(_)) => {
                "check the path, its rights and the free space there; no backup was made or used"
            }
            Self::Archive(ArchiveError::Form) => "give the file that `lapwing-relay backup` wrote",
            Self::Archive(ArchiveError::Sealed) => {
                "give the recovery key that was shown when this very backup was made, or try another copy of the file"
            }
            Self::Archive(ArchiveError::Key(_)) => {
                "it begins with lapwing-backup: and was shown when the backup was made"
            }
            Self::FileExists(_) => "choose another name, or remove that file; nothing was changed",
            Self::BackupRuns(_) => "wait until it is made, or choose another name; nothing was changed",
            Self::OpenKey(_) => "chmod 600 it; whoever read it can open the backups made with it",
            Self::KeyFile { .. } => {
                "name the file in which you put the key that `backup` printed; a first backup is made without --key-file"
            }
            Self::CutShort(_) => "see the relay's own messages: a full disk ends a backup; then try again",
            Self::StillRuns => {
                "end the process that uses it (`fuser DIR/relay.lock DIR/store/lock`), or wait for the disk if it was ended, then wipe again; nothing was destroyed yet"
            }
            Self::Unseen => {
                "it runs in another container, or on another machine: end it there, then wipe again; nothing was destroyed yet"
            }
            Self::NotConfirmed => "type the word `wipe`, or give --yes",
            Self::NeedsCare => "do what stands behind each finding, then look again",
            Self::System(_) => "check the limits of this user on processes and files",
        }
    }

    /// A stable name for scripts.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Place(PlaceError::Exists(_)) => "exists",
            Self::Place(PlaceError::Absent(_)) => "absent",
            Self::Place(PlaceError::Missing { .. }) => "incomplete",
            Self::Place(_) | Self::Control(_) | Self::System(_) => "system",
            Self::Config(_) | Self::NoDefaults(_) => "config",
            Self::Host { .. } | Self::Address(_) => "address",
            Self::Store(StoreError::Locked) => "locked",
            Self::Store(_) | Self::DiskFailed => "store",
            Self::Server(_) | Self::Metrics(_) => "listen",
            Self::Key(_) => "key",
            Self::Refused { .. } | Self::Undone { .. } => "refused",
            Self::NoSuchTicket => "no_such_ticket",
            Self::NoAddress => "no_address",
            Self::Archive(_) | Self::CutShort(_) => "backup",
            Self::FileExists(_) | Self::BackupRuns(_) => "exists",
            Self::OpenKey(_) => "open_key",
            Self::KeyFile { .. } => "key_file",
            Self::StillRuns | Self::Unseen => "running",
            Self::NotConfirmed => "not_confirmed",
            Self::NeedsCare => "needs_care",
        }
    }

    /// The process's exit code: 1 negative answer, 2 usage, 4 relay unreachable, 5 refused.
    pub(super) fn exit(&self) -> u8 {
        match self {
            Self::NoSuchTicket | Self::NotConfirmed | Self::NeedsCare => 1,
            Self::Config(_) | Self::NoDefaults(_) | Self::Host { .. } | Self::Address(_) => 2,
            Self::Store(StoreError::Locked) | Self::NoAddress | Self::StillRuns | Self::Unseen => 4,
            Self::Place(_)
            | Self::Store(_)
            | Self::DiskFailed
            | Self::Server(_)
            | Self::Control(_)
            | Self::Metrics(_)
            | Self::Refused { .. }
            | Self::Undone { .. }
            | Self::Archive(_)
            | Self::FileExists(_)
            | Self::BackupRuns(_)
            | Self::OpenKey(_)
            | Self::KeyFile { .. }
            | Self::CutShort(_)
            | Self::System(_) => 5,
            Self::Key(_) => 70,
        }
    }
}
