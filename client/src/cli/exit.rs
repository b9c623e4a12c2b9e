//! What a command tells the shell when it ends.

use std::process::ExitCode;

use crate::error::{Error, Kind};

/// Exit codes; scripts rely on them, so they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the answer is yes.
    Done = 0,
    /// The answer is no.
    Negative = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The vault was not unlocked.
    NotUnlocked = 3,
    /// No relay could be reached.
    Unreachable = 4,
    /// It was understood and not done.
    Refused = 5,
    /// A bug (`EX_SOFTWARE` of sysexits).
    Bug = 70,
    /// Interrupted: 128 and the number of SIGINT, as shells count it.
    Interrupted = 130,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::ReaderGone => Self::Done,
            Kind::Negative => Self::Negative,
            Kind::Usage => Self::Usage,
            Kind::NotUnlocked => Self::NotUnlocked,
            Kind::Unreachable => Self::Unreachable,
            Kind::Refused => Self::Refused,
            Kind::Interrupted => Self::Interrupted,
            Kind::Bug => Self::Bug,
        }
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        error.kind().into()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_pinned() {
        let kinds = [
            (Kind::ReaderGone, 0),
            (Kind::Negative, 1),
            (Kind::Usage, 2),
            (Kind::NotUnlocked, 3),
            (Kind::Unreachable, 4),
            (Kind::Refused, 5),
            (Kind::Bug, 70),
            (Kind::Interrupted, 130),
        ];
        for (kind, number) in kinds {
            assert_eq!(Exit::from(kind).code(), number, "{kind:?}");
        }
        assert_eq!(Exit::from(&Error::interrupted()), Exit::Interrupted);
    }
}
