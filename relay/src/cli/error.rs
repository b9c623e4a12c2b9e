//! What can go wrong, what to do about it, and the exit code.

use lapwing_wire::address::AddressError;

use crate::{config::ConfigError, key::KeyError, place::PlaceError, server::ServerError, store::StoreError};

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
    /// The host or port given for the address.
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
    /// A running relay refused.
    #[error("the relay could not answer: {0}")]
    Refused(String),
    /// `access revoke` with a name that is not listed.
    #[error("there is no access ticket of that name")]
    NoSuchTicket,
    /// A ticket needs an address and the port is not known.
    #[error("the relay has no fixed port and does not run, so it has no address")]
    NoAddress,
    /// The disk failed while the relay ran.
    #[error("the disk refused to read or write, so the relay stopped")]
    DiskFailed,
    /// The operating system.
    #[error("the system refused: {0}")]
    System(#[source] std::io::Error),
}

impl CliError {
    /// What to do.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Place(PlaceError::Exists(_)) => "choose another folder with --dir; nothing was changed",
            Self::Place(PlaceError::Absent(_)) => {
                "make one with `lapwing-relay init --host NAME`, or name its folder with --dir"
            }
            Self::Place(PlaceError::Key(_)) | Self::Key(_) => {
                "restore relay.key from your backup; without it this is another relay"
            }
            Self::Place(_) => "check owner and mode of the folder",
            Self::Config(_) => {
                "correct relay.toml; `lapwing-relay init` in an empty folder writes a fresh example"
            }
            Self::Address(_) => "give --host a name or IP address and --port a number from 1 to 65535",
            Self::Store(StoreError::Locked) => {
                "another lapwing-relay uses this folder; stop it, or wait until it answers"
            }
            Self::Store(StoreError::Version) => {
                "use the version of lapwing-relay that wrote it; nothing was changed. See \"Upgrades\" in docs/relay-operation.md"
            }
            Self::Store(StoreError::Engine) => {
                "set storage.engine in relay.toml to the engine of this store; nothing was changed"
            }
            Self::Store(StoreError::Unbuilt) => {
                "set storage.engine to \"fjall\", or build lapwing-relay with `--features sled`"
            }
            Self::Store(StoreError::Full) => "make room on the disk; what was acknowledged is kept",
            Self::Store(StoreError::Damaged) => {
                "restore the folder from a backup; see docs/relay-operation.md"
            }
            Self::Store(_) | Self::DiskFailed => {
                "check free space and the disk's health, then start the relay again: what it acknowledged is kept"
            }
            Self::Server(ServerError::Listen(_)) => {
                "choose a free port (network.port in relay.toml); ports below 1024 need the right to bind them"
            }
            Self::Server(_) => "check [network] in relay.toml",
            Self::Control(_) => "the folder's path must be shorter than 90 letters and writable",
            Self::Refused(_) => "see the relay's own messages",
            Self::NoSuchTicket => "see `lapwing-relay access list`",
            Self::NoAddress => "start it with `lapwing-relay serve`, or set network.port in relay.toml",
            Self::System(_) => "check the limits of this user on processes and files",
        }
    }

    /// A stable name for scripts.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Place(PlaceError::Exists(_)) => "exists",
            Self::Place(PlaceError::Absent(_)) => "absent",
            Self::Place(_) | Self::Control(_) | Self::System(_) => "system",
            Self::Config(_) => "config",
            Self::Address(_) => "address",
            Self::Store(StoreError::Locked) => "locked",
            Self::Store(_) | Self::DiskFailed => "store",
            Self::Server(_) => "listen",
            Self::Key(_) => "key",
            Self::Refused(_) => "refused",
            Self::NoSuchTicket => "no_such_ticket",
            Self::NoAddress => "no_address",
        }
    }

    /// The process's exit code: 1 negative answer, 2 usage, 4 relay unreachable, 5 refused.
    pub(super) fn exit(&self) -> u8 {
        match self {
            Self::NoSuchTicket => 1,
            Self::Config(_) | Self::Address(_) => 2,
            Self::Store(StoreError::Locked) | Self::NoAddress => 4,
            Self::Place(_)
            | Self::Store(_)
            | Self::DiskFailed
            | Self::Server(_)
            | Self::Control(_)
            | Self::Refused(_)
            | Self::System(_) => 5,
            Self::Key(_) => 70,
        }
    }
}
