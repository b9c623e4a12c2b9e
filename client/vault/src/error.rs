//! One small error enum per operation. No text names a path, a size, a passphrase or a number of anything.

use std::io;

/// The size is outside the bounds or not a multiple of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container's size is a multiple of 4 KiB from 8 MiB to 16 GiB")]
pub struct SizeError;

/// Why a passphrase could not be turned into keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DerivationError {
    /// The cost is outside what Argon2id allows: the caller is wrong.
    #[error("the cost of the key derivation is not allowed by Argon2id")]
    Cost,
    /// The memory that the cost asks for could not be had. Close other programs and try again.
    #[error("there is not enough memory to derive the key")]
    OutOfMemory,
}

/// Why a container was not created. Nothing is left behind: a file that was begun is removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is something already, and nothing is ever overwritten. Choose another path.
    #[error("something exists at this path already")]
    Exists,
    /// The name under which the container is filled, where the file system knows no files without one, is taken.
    #[error("a file that ends in .unfinished is in the way")]
    InTheWay,
    /// The file was filled without a name, and the system does not let it have one afterwards. It can be filled again under
    /// a name ([`Placement::with_a_name`](crate::Placement::with_a_name)).
    #[error("the system forbids to give a finished file its name")]
    NoLateName,
    /// The file's name, or one that has to lie beside it, is longer than the file system allows. Nothing was changed: give it
    /// a shorter name.
    #[error("the file's name is too long")]
    NameTooLong,
    /// The disk has no room for the whole container.
    #[error("the disk is full: the container's whole size is needed at once")]
    DiskFull,
    /// See [`DerivationError`].
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// The database of the first volume could not be made.
    #[error("the first volume could not be made")]
    Volume(#[source] VolumeError),
    /// The system refused.
    #[error("the container could not be written")]
    Io(#[source] io::Error),
}

impl From<io::Error> for CreateError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::InvalidFilename => Self::NameTooLong,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

/// Why a file was not opened, before any passphrase.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no file at this path.
    #[error("there is no file at this path")]
    NotFound,
    /// A directory, a symbolic link, a device: only regular files are opened, and links are never followed.
    #[error("this is not a regular file")]
    NotAFile,
    /// The size is not one that a container can have: it was cut off, or is something else.
    #[error("this file is truncated, or is not a container")]
    NotAContainer,
    /// The file may not be read and written by this user.
    #[error("this file may not be read and written")]
    Forbidden,
    /// The system refused.
    #[error("the file could not be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::IsADirectory => Self::NotAFile,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Io(error),
        }
    }
}

/// The application field of a payload that could be opened and not yet held. Wiped when dropped, shown by nothing.
pub struct HeldField(pub(crate) zeroize::Zeroizing<Vec<u8>>);

impl HeldField {
    /// The field's bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for HeldField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldField(..)")
    }
}

/// Why a container was not unlocked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// The passphrase opens nothing. One answer for a wrong passphrase, an empty slot, a damaged slot and a
    /// destroyed one (VLT-12).
    #[error("this passphrase does not unlock anything")]
    NotUnlocked,
    /// The passphrase is right, but no header copy is whole: the file was damaged or altered. Nothing was
    /// written; restore the file from a copy.
    #[error("the container is damaged")]
    Damaged,
    /// Another process has the container open and did not finish in time.
    #[error("the container is in use by another process")]
    Busy {
        /// The application field of the payload that the passphrase opens: what has to be told to others can be told
        /// while another process holds the container. Nothing was destroyed or written.
        application: HeldField,
    },
    /// What the passphrase opens was written by a newer version of this program.
    #[error("the container was written by a newer version")]
    NewerVersion,
    /// See [`DerivationError`].
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// The passphrase is right, and the system refused what every unlock reads and writes.
    #[error("the container could not be read or written")]
    Refused {
        /// What the system says.
        error: io::Error,
        /// As in [`UnlockError::Busy`]: what has to be told to others can be told from a disk that fails. What was to be
        /// destroyed may be there, or not.
        application: HeldField,
    },
    /// The system refused.
    #[error("the container could not be read or written")]
    Io(#[from] io::Error),
}

/// Why a change to passphrases, payloads or volumes was not made. Unless said otherwise the container is as
/// it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This session's own slots are gone: another process ended it. End the program.
    #[error("this session has been ended from elsewhere")]
    SessionEnded,
    /// The passphrase opens something already; two things under one passphrase would be unreachable or
    /// destroyed. Choose another.
    #[error("this passphrase is in use already")]
    AlreadyOpens,
    /// All slots that this session may use are taken: eight passphrases at most.
    #[error("there is no room for another passphrase")]
    NoFreeSlot,
    /// All four regions are taken.
    #[error("there is no room for another volume")]
    NoFreeRegion,
    /// The session does not have this volume.
    #[error("no such volume in this session")]
    UnknownVolume,
    /// The session knows no such payload.
    #[error("no such passphrase entry in this session")]
    UnknownEntry,
    /// A payload must open one to four different volumes.
    #[error("a passphrase must open one to four different volumes")]
    VolumeCount,
    /// The volume that is to keep the record is opened by a passphrase that may not learn of it. Name a
    /// volume that no such passphrase opens, or create one.
    #[error("the record would be visible to a passphrase that must not see it")]
    WouldExpose,
    /// Another passphrase opens this volume, it is open now, or it is the session's last one.
    #[error("the volume is in use")]
    VolumeInUse,
    /// The application field is limited to [`APPLICATION_MAX`](crate::APPLICATION_MAX) bytes.
    #[error("the application field is too long")]
    ApplicationTooLong,
    /// A label is limited to [`LABEL_MAX`](crate::LABEL_MAX) bytes.
    #[error("the label is too long")]
    LabelTooLong,
    /// The allocation unit of the volume that is to keep the record is full.
    #[error("the volume has no room for another record")]
    RecordsFull,
    /// The header or a unit that was whole at unlocking is not any more.
    #[error("the container is damaged")]
    Damaged,
    /// The database of the new volume could not be made.
    #[error("the volume could not be made")]
    Volume(#[source] VolumeError),
    /// See [`DerivationError`].
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// The system refused. What was being changed is either as before or as asked for, never between: the
    /// next unlock shows which. End the session.
    #[error("the container could not be read or written")]
    Io(#[from] io::Error),
}

/// Why a volume operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The session does not have this volume.
    #[error("no such volume in this session")]
    Unknown,
    /// The volume is open already, or transactions of it are still alive.
    #[error("the volume is in use")]
    InUse,
    /// The volume has reached its soft limit (80 %), or the transaction did not fit. Nothing was changed.
    /// Reading goes on; delete something with [`Volume::begin_cleanup`](crate::Volume::begin_cleanup).
    #[error("the volume is full")]
    Full,
    /// The key table holds no more keys. Destroy keys that are no longer needed.
    #[error("the key table is full")]
    KeyTableFull,
    /// Neither copy of a unit authenticates: damaged, or destroyed by another session. An unreadable volume
    /// is never treated as an empty one.
    #[error("the volume is damaged or was destroyed")]
    Damaged,
    /// The database refused; also a wrong use of tables.
    #[error("the volume's database failed")]
    Database(#[source] Box<redb::Error>),
    /// The system refused.
    #[error("the volume could not be read or written")]
    Io(#[from] io::Error),
}

/// Why a container was not carried over to a larger one. The old one is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrowError {
    /// A container only grows.
    #[error("the new size is not larger than the container's size now")]
    NotLarger,
    /// There is something already where the copy was to be made.
    #[error("something exists already where the larger container was to be made")]
    Exists,
    /// The disk has no room for the copy beside the old container.
    #[error("the disk is full: until the old container is erased, both need room")]
    DiskFull,
    /// This session's own slots are gone: another process ended it.
    #[error("this session has been ended from elsewhere")]
    SessionEnded,
    /// A volume of this session does not open: it would be erased with the old container.
    #[error("a compartment is damaged and could not be carried over")]
    Damaged,
    /// What was read back is not what was written. The disk is failing.
    #[error("the copy differs from the container")]
    Differs,
    /// A volume could not be closed or read; close the volumes that are open.
    #[error("a volume could not be read")]
    Volume(#[from] VolumeError),
    /// The system refused.
    #[error("the container could not be read, or the copy not written")]
    Io(#[source] io::Error),
}

impl From<io::Error> for GrowError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

impl VolumeError {
    /// Sorts a database error: full and damaged are told apart from the rest, whatever redb wrapped them in.
    pub(crate) fn from_database(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => Self::Full,
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Damaged,
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::Corrupted(_) => Self::Damaged,
            other => Self::Database(Box::new(other)),
        }
    }
}
