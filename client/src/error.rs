//! The error that every operation of this crate ends with: what happened and what to do, in two lines.
//!
//! # Security
//! The two texts are for the person at the terminal. Logs take [`Error::kind`] and nothing else; `Debug` shows no more.

use std::{borrow::Cow, fmt};

use crate::net::{ConnectError, LinkError};

/// What sort of failure it is. Scripts see it as the exit code, and as `code` in `--json` where no finer one is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The question was answered, and the answer is no: no such chat, numbers that do not match.
    Negative,
    /// The command line or an answer to a question is not usable.
    Usage,
    /// The vault was not unlocked. One kind for a wrong passphrase and everything that must look like it.
    NotUnlocked,
    /// No relay could be reached, or none answered. What was to be sent is kept.
    Unreachable,
    /// It was understood and not done: against a rule, damaged input, a full disk, a relay that says no.
    Refused,
    /// The person said stop.
    Interrupted,
    /// Whoever read the output has gone; for a program in a pipeline that is an end like any other.
    ReaderGone,
    /// This program contradicts itself.
    Bug,
}

impl Kind {
    /// The name of the kind in `--json`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Usage => "usage",
            Self::NotUnlocked => "not_unlocked",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
            Self::ReaderGone => "reader_gone",
            Self::Bug => "bug",
        }
    }
}

/// Whether doing the same again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// Not before something else has changed.
    Never,
    /// Later, with growing pauses.
    Later,
}

/// A failure: its kind, what happened (lower case, no full stop), what to do about it.
pub struct Error {
    kind: Kind,
    retry: Retry,
    code: &'static str,
    message: Cow<'static, str>,
    hint: Cow<'static, str>,
}

impl Error {
    fn new(kind: Kind, message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        let retry = if kind == Kind::Unreachable { Retry::Later } else { Retry::Never };
        Self { kind, retry, code: kind.code(), message: message.into(), hint: hint.into() }
    }

    /// The answer is no.
    pub fn negative(message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Negative, message, hint)
    }

    /// What was typed is not usable.
    pub fn usage(message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Usage, message, hint)
    }

    /// The vault was not unlocked. It takes no words: one text for every reason.
    pub fn not_unlocked() -> Self {
        Self::new(
            Kind::NotUnlocked,
            "the vault was not unlocked",
            "check the passphrase, the keyboard layout and the path of the vault",
        )
    }

    /// No relay answered. Retryable.
    pub fn unreachable(message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unreachable, message, hint)
    }

    /// It was not done.
    pub fn refused(message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Refused, message, hint)
    }

    /// The person said stop.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted", "nothing was changed by the step that was interrupted")
    }

    /// Nobody reads the output any more.
    pub fn reader_gone() -> Self {
        Self::new(Kind::ReaderGone, "the reader of the output has gone", "nothing needs to be done")
    }

    /// This program contradicts itself; `what` names the contradiction without any data of the person.
    pub fn bug(what: &'static str) -> Self {
        Self::new(
            Kind::Bug,
            format!("this should not happen: {what}"),
            "please report it with what you did; leave out names, texts and addresses",
        )
    }

    /// Gives the failure a finer code for scripts than its kind's, in `snake_case`. Codes are stable once released.
    #[must_use]
    pub const fn with_code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// Says whether the same again can help, where the kind says otherwise.
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What sort of failure it is. The only part that logs may have.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same again can help.
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// The code for scripts.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, retry, code, message: _, hint: _ } = self;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("retry", retry)
            .field("code", code)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable => Self::unreachable(
                "the relay cannot be reached",
                "check the network; what is waiting is sent when the relay answers",
            ),
            ConnectError::Slow => Self::unreachable(
                "the relay did not do in time all that was asked",
                "what is waiting is kept; try again: lapwing sync",
            )
            .with_retry(Retry::Later),
            ConnectError::WrongKey => Self::refused(
                "the relay shows another key than its address names",
                "somebody may stand in between: ask the operator, face to face or by telephone, for the address",
            )
            .with_code("wrong_relay_key"),
            ConnectError::Protocol => Self::unreachable(
                "what answers at the relay's address does not speak this protocol",
                "check host and port with the operator, and the versions of both programs",
            )
            .with_code("not_a_relay")
            .with_retry(Retry::Never),
        }
    }
}

impl From<LinkError> for Error {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Closed => Self::unreachable(
                "the connection to the relay has ended",
                "try again; what is waiting is sent when the relay answers",
            ),
            LinkError::Timeout => Self::unreachable(
                "the relay did not answer in time",
                "try again; what is waiting is sent when the relay answers",
            ),
            LinkError::Malformed => Self::refused(
                "the relay sent an answer that makes no sense",
                "ask the operator whether the relay is damaged or of another version",
            )
            .with_code("relay_misbehaved"),
            LinkError::TooLarge => {
                Self::refused("it is too large to send", "send it in smaller parts").with_code("too_large")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_word_of_the_texts() {
        let error = Error::refused("no chat called Mira", "look at Mira's list").with_code("no_chat");
        assert_eq!(format!("{error:?}"), "Error { kind: Refused, retry: Never, code: \"no_chat\", .. }");
    }

    #[test]
    fn the_texts_of_each_failure_of_the_network_are_pinned() {
        let all = [
            Error::from(ConnectError::Unreachable),
            Error::from(ConnectError::Slow),
            Error::from(ConnectError::WrongKey),
            Error::from(ConnectError::Protocol),
            Error::from(LinkError::Closed),
            Error::from(LinkError::Timeout),
            Error::from(LinkError::Malformed),
            Error::from(LinkError::TooLarge),
        ];
        let told: Vec<_> = all.iter().map(|e| (e.code(), e.retry(), e.message())).collect();
        assert_eq!(
            told,
            [
                ("unreachable", Retry::Later, "the relay cannot be reached"),
                ("unreachable", Retry::Later, "the relay did not do in time all that was asked"),
                ("wrong_relay_key", Retry::Never, "the relay shows another key than its address names"),
                (
                    "not_a_relay",
                    Retry::Never,
                    "what answers at the relay's address does not speak this protocol"
                ),
                ("unreachable", Retry::Later, "the connection to the relay has ended"),
                ("unreachable", Retry::Later, "the relay did not answer in time"),
                ("relay_misbehaved", Retry::Never, "the relay sent an answer that makes no sense"),
                ("too_large", Retry::Never, "it is too large to send"),
            ]
        );
        for error in all {
            assert!(error.message().starts_with(char::is_lowercase) && !error.message().ends_with('.'));
            assert!(!error.hint().is_empty() && !error.hint().contains('\n'));
        }
    }

    #[test]
    fn a_vault_that_stays_shut_says_one_thing() {
        let error = Error::not_unlocked();
        assert_eq!(error.message(), "the vault was not unlocked");
        assert_eq!(error.hint(), "check the passphrase, the keyboard layout and the path of the vault");
        assert_eq!((error.kind(), error.retry()), (Kind::NotUnlocked, Retry::Never));
    }
}
