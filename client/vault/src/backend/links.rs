//! Names of a file beside its first, which some file systems do not know and some systems forbid.

use std::io;

use nix::libc;

/// Whether files may have names beside their first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    AsTheSystemSays,
    /// As a policy of the system forbids them: for tests.
    Refused,
}

impl Links {
    /// Makes a name, where there may be one.
    pub(super) fn make(self, link: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::AsTheSystemSays => link(),
            Self::Refused => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Whether the file system knows no names beside the first, or has no more of them, or the system forbids them. A disk
/// that is full or fails says nothing about that.
pub(super) fn are_forbidden(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported, io::ErrorKind::TooManyLinks];
    let numbers = [libc::EXDEV, libc::EOPNOTSUPP, libc::ENOSYS];
    kinds.contains(&error.kind()) || error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

/// As [`are_forbidden`], where a file gets its first name by way of `/proc`, which may not be there.
pub(super) fn is_late_name_forbidden(error: &io::Error) -> bool {
    are_forbidden(error) || error.raw_os_error() == Some(libc::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_speak_of_names_are_taken_for_a_refusal_of_names() {
        let said = |number| are_forbidden(&io::Error::from_raw_os_error(number));
        let names = [libc::EPERM, libc::EACCES, libc::EMLINK, libc::EXDEV, libc::EOPNOTSUPP, libc::ENOSYS];
        assert!(names.into_iter().all(said));
        let others = [
            libc::EIO,
            libc::ENOSPC,
            libc::EDQUOT,
            libc::EROFS,
            libc::ENOENT,
            libc::ENAMETOOLONG,
            libc::EEXIST,
            libc::EINTR,
        ];
        assert!(!others.into_iter().any(said));
        assert!(is_late_name_forbidden(&io::Error::from_raw_os_error(libc::ENOENT)));
    }
}
