//! What can go wrong with a store, and what to do about it.

/// A store that could not do what it was asked; nothing of the change was made, or it cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open. Stop it, or talk to it.
    #[error("the store is open in another process")]
    Locked,
    /// The store was written by another version of this program.
    #[error("the store was written by another version of this program")]
    Version,
    /// The store was written by another engine. Choose that one in the configuration.
    #[error("the store was written by another engine")]
    Engine,
    /// There is a store already. Choose another folder; nothing was changed.
    #[error("there is a store in that folder already")]
    Exists,
    /// This program was built without the engine that the configuration names.
    #[error("this program was built without that store engine")]
    Unbuilt,
    /// The disk is full. Nothing new is taken; the store goes on by itself when there is room.
    #[error("the disk is full")]
    Full,
    /// The disk refused a read or a write. The store takes no more changes until it is opened again.
    #[error("the disk refused to read or write")]
    Disk,
    /// A record does not have the shape that was written. The disk or another program changed it.
    #[error("the store is damaged")]
    Damaged,
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What an operator does about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Locked => "another lapwing-relay uses this folder; stop it, or wait until it answers",
            Self::Version => {
                "use the version of lapwing-relay that wrote it; nothing was changed. See \"Upgrades\" in docs/relay-operation.md"
            }
            Self::Engine => {
                "set storage.engine in relay.toml to the engine of this store; nothing was changed"
            }
            Self::Exists => "choose another folder with --dir, or move that one away; nothing was changed",
            Self::Unbuilt => "set storage.engine to \"fjall\", or build lapwing-relay with `--features sled`",
            Self::Full => "make room on the disk; what was acknowledged is kept",
            Self::Damaged => "restore the folder from a backup; see docs/relay-operation.md",
            Self::Disk | Self::Closed => {
                "check free space and the disk's health, then start the relay again: what it acknowledged is kept"
            }
        }
    }
}
