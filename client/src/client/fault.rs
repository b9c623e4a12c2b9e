//! What the vault and the engine refuse, in two lines for people.

use std::io::ErrorKind;

use lapwing_vault::{ChangeError, CreateError, GrowError, OpenError, UnlockError, VolumeError};

use crate::{
    engine::Fault,
    error::{Error, Retry},
    store::StoreError,
};

pub(super) fn create(error: CreateError) -> Error {
    let message = error.to_string();
    match error {
        CreateError::Exists => {
            Error::refused(message, "choose another path with --vault; nothing was changed")
        }
        CreateError::InTheWay => Error::refused(
            message,
            "what was ended while it made a vault here leaves such a file: see what it is and remove it; nothing was changed",
        ),
        CreateError::NameTooLong => Error::refused(
            message,
            "give the file a shorter name: files with a longer one lie beside it for a while; nothing was changed",
        ),
        CreateError::DiskFull => {
            Error::refused(message, "free some space or choose a smaller --size; nothing was left behind")
        }
        CreateError::Derivation(_) => {
            Error::refused(message, "lapwing needs about 300 MiB of free memory to unlock")
        }
        _ => Error::refused(message, "check that the folder exists and can be written"),
    }
}

pub(super) fn grow(error: GrowError) -> Error {
    let message = error.to_string();
    match error {
        GrowError::NotLarger => {
            Error::usage(message, "a vault only grows; see its size with: ls -l, and give a larger --size")
        }
        GrowError::DiskFull => Error::refused(message, "free some space; the vault is as it was"),
        GrowError::Exists => Error::refused(
            message,
            "a file that ends in .growing or .outgrown is not this vault's: move it away; the vault is as it was",
        ),
        GrowError::SessionEnded => Error::refused(message, "unlock again; the vault is as it was"),
        GrowError::Damaged => Error::refused(
            message,
            "see: lapwing compartment list; make a backup of the others with: lapwing backup create; the vault is as it was",
        ),
        GrowError::Differs => {
            Error::refused(message, "the disk may be failing: copy the vault to another one; it is as it was")
        }
        _ => Error::refused(message, "check the disk; the vault is as it was"),
    }
}

pub(super) fn open(error: OpenError) -> Error {
    let message = error.to_string();
    match error {
        OpenError::NotFound => {
            Error::refused(message, "make a vault with: lapwing init; or say where it is with --vault PATH")
        }
        OpenError::NotAFile | OpenError::NotAContainer => {
            Error::refused(message, "say where the vault is with --vault PATH; this file was not changed")
        }
        OpenError::Forbidden => Error::refused(message, "check who owns the file and its permissions"),
        OpenError::Io(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Error::refused(
            "the vault lies on a read-only file system and cannot be opened for writing",
            "make the file system writable: every unlock writes, and reading notes what was read",
        ),
        _ => Error::refused(message, "check the disk"),
    }
}

pub(super) fn unlock(error: UnlockError) -> Error {
    let message = error.to_string();
    match error {
        UnlockError::NotUnlocked => Error::not_unlocked(),
        UnlockError::Busy { .. } => {
            Error::refused(message, "end the other lapwing command, or try again in a moment")
                .with_retry(Retry::Later)
        }
        UnlockError::Damaged => {
            Error::refused(message, "nothing was written; try a copy of the file, if there is one")
        }
        UnlockError::NewerVersion => Error::refused(message, "update lapwing"),
        UnlockError::Derivation(_) => {
            Error::refused(message, "lapwing needs about 300 MiB of free memory to unlock")
        }
        _ => Error::refused(message, "check the disk"),
    }
}

pub(super) fn change(error: &ChangeError) -> Error {
    let message = error.to_string();
    match error {
        ChangeError::AlreadyOpens => Error::refused(message, "choose a passphrase that opens nothing yet"),
        ChangeError::NoFreeSlot => {
            Error::refused(message, "remove one you do not need; see: lapwing passphrase list")
        }
        ChangeError::NoFreeRegion => Error::refused(message, "a vault has room for four compartments"),
        ChangeError::SessionEnded => Error::refused(message, "unlock the vault again"),
        ChangeError::WouldExpose => Error::refused(
            message,
            "remove the other passphrase first (lapwing passphrase list), or make a compartment for this: lapwing compartment create NAME",
        ),
        ChangeError::ApplicationTooLong => {
            Error::refused(message, "remove a relay first; see: lapwing relay list")
        }
        _ => Error::refused(message, "nothing was changed; run: lapwing doctor"),
    }
}

pub(super) fn volume(error: VolumeError) -> Error {
    let message = error.to_string();
    match error {
        VolumeError::Full | VolumeError::KeyTableFull => Error::refused(
            message,
            "what is there can still be read; for more room: lapwing grow --size SIZE",
        ),
        _ => Error::refused(message, "nothing was changed; run: lapwing doctor"),
    }
}

/// A refusal of the engine.
#[must_use]
pub fn refused_by_engine(fault: &Fault) -> Error {
    let message = fault.to_string();
    match fault {
        Fault::Inconsistent(what) => Error::bug(what),
        Fault::Store(StoreError::Record) => Error::refused(message, "update lapwing"),
        // Asked for something that is not there: the answer is no.
        Fault::UnknownChat => Error::negative(message, fault.hint()).with_code("unknown_chat"),
        Fault::UnknownRelay => Error::negative(message, fault.hint()).with_code("unknown_relay"),
        Fault::UnknownMember => Error::negative(message, fault.hint()).with_code("unknown_member"),
        Fault::UnknownPlan => Error::negative(message, fault.hint()).with_code("unknown_plan"),
        Fault::NoVoice => Error::negative(message, fault.hint()).with_code("no_voice"),
        Fault::UnknownAlert => Error::negative(message, fault.hint()).with_code("unknown_alert"),
        Fault::UnknownMessage => Error::negative(message, fault.hint()).with_code("unknown_message"),
        Fault::NoFile => Error::negative(message, fault.hint()).with_code("no_file"),
        Fault::NoDraft => Error::negative(message, fault.hint()).with_code("no_draft"),
        Fault::NoInvitation => Error::negative(message, fault.hint()).with_code("no_invitation"),
        // The other side's answer is on its way.
        Fault::GroupNotReady | Fault::NotEstablished | Fault::MailboxWaits | Fault::InvitationWaits => {
            Error::refused(message, fault.hint()).with_code("not_ready").with_retry(Retry::Later)
        }
        // What a script may want to tell apart.
        Fault::NotATicket => Error::refused(message, fault.hint()).with_code("not_a_ticket"),
        Fault::NotErased(_) => {
            Error::refused(message, fault.hint()).with_code("not_erased").with_retry(Retry::Later)
        }
        Fault::DamagedTicket => Error::refused(message, fault.hint()).with_code("damaged_ticket"),
        Fault::ExpiredTicket => Error::refused(message, fault.hint()).with_code("expired_ticket"),
        Fault::TicketUsedHere => Error::refused(message, fault.hint()).with_code("used_ticket"),
        Fault::OwnTicket => Error::refused(message, fault.hint()).with_code("own_ticket"),
        other => Error::refused(message, other.hint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_file_system_is_not_taken_for_a_disk_that_fails() {
        let told = open(OpenError::Io(ErrorKind::ReadOnlyFilesystem.into()));
        assert!(told.message().contains("read-only file system"), "{}", told.message());
        assert_eq!(open(OpenError::Io(ErrorKind::Other.into())).hint(), "check the disk");
    }
}
