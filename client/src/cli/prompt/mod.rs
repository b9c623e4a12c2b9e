//! Questions to the person, whoever answers them: a terminal, a file descriptor, a test.
//!
//! Commands ask only what no flag has answered. A passphrase is never echoed, never taken from an argument or the
//! environment, and lives in [`TypedPassphrase`] until it has been used.

mod descriptor;
mod passphrase;
mod scripted;
mod terminal;

pub(in crate::cli) use descriptor::standard_input;
pub use descriptor::{Descriptors, FromDescriptors};
pub use passphrase::{MAX_PASSPHRASE, PassphraseError, TypedPassphrase};
pub use scripted::{Answer, Scripted};
pub use terminal::Terminal;

use crate::error::Error;

/// Tries that a person has at a question before the command gives up.
const TRIES: usize = 3;

/// Longest answer to a question, in bytes: a ticket pasted into a prompt fits several times.
const MAX_ANSWER: usize = 8 << 10;

/// A question and the flag that answers it for scripts.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    text: &'a str,
    flag: &'a str,
}

impl<'a> Question<'a> {
    /// `text` without a colon or question mark's trailing space; `flag` as it is typed, such as `--plan`.
    pub const fn new(text: &'a str, flag: &'a str) -> Self {
        Self { text, flag }
    }

    /// What is asked.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The flag that answers it.
    pub const fn flag(&self) -> &'a str {
        self.flag
    }
}

/// Asks.
pub trait Prompt: Send {
    /// A passphrase that exists already, asked for once; `what` names it: `passphrase`.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError>;

    /// A passphrase to be set: a person types it twice and is told its strength. Whether it is strong enough is the
    /// caller's decision.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn new_passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError>;

    /// Yes or no. There is no default: what is asked here has consequences.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn confirm(&mut self, question: Question<'_>) -> Result<bool, PromptError>;

    /// One of several options, as an index.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn choose(&mut self, question: Question<'_>, options: &[&str]) -> Result<usize, PromptError>;

    /// Standard input is about to be read to its end by something else: what of it answers a later question is taken
    /// now, so that a passphrase on its first line is never mistaken for a part of what follows.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn before_input(&mut self) -> Result<(), PromptError> {
        Ok(())
    }

    /// A line of text, without the white space around it; it may be empty.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn text(&mut self, question: Question<'_>) -> Result<String, PromptError>;
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// There is nobody to ask: no terminal.
    #[error("there is no terminal to ask at")]
    NoTerminal {
        /// The flag that would answer.
        flag: String,
    },
    /// The person said stop (Ctrl-C, Ctrl-D).
    #[error("interrupted")]
    Interrupted,
    /// The passphrases that were to be the same were not, or no answer was one of those offered, too often.
    #[error("the answers did not fit")]
    GaveUp {
        /// The flag that would answer.
        flag: String,
    },
    /// The descriptor of `--passphrase-fd` or `--new-passphrase-fd` is not readable.
    #[error("the file descriptor cannot be read")]
    Descriptor {
        /// The flag that named it.
        flag: &'static str,
    },
    /// It is a terminal, on which the passphrase would be seen.
    #[error("the file descriptor is a terminal")]
    DescriptorIsTerminal {
        /// The flag that named it.
        flag: &'static str,
    },
    /// It has no line left.
    #[error("the file descriptor holds no passphrase")]
    DescriptorIsEmpty {
        /// The flag that named it.
        flag: &'static str,
    },
    /// What was typed or read is no passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// The terminal went away or failed.
    #[error("the terminal cannot be read")]
    Failed,
}

impl From<PromptError> for Error {
    fn from(error: PromptError) -> Self {
        let message = error.to_string();
        match error {
            PromptError::Interrupted => Self::interrupted(),
            PromptError::NoTerminal { flag } => {
                Self::usage(message, format!("run it in a terminal, or answer with {flag}"))
                    .with_code("no_terminal")
            }
            PromptError::GaveUp { flag } => {
                Self::usage(message, format!("start again, or answer with {flag}"))
            }
            PromptError::Descriptor { flag } => Self::usage(
                message,
                format!("open it for reading before the command: {flag} 3 3< FILE, or 3< <(COMMAND)"),
            ),
            PromptError::DescriptorIsTerminal { flag } => Self::usage(
                message,
                format!("leave {flag} out: the passphrase is then asked for without an echo"),
            ),
            PromptError::DescriptorIsEmpty { flag } => {
                Self::usage(message, format!("{flag} takes one line for each passphrase it is to answer"))
            }
            PromptError::Passphrase(error) => Self::usage(message, error.hint()),
            PromptError::Failed => Self::usage(message, "run it in a terminal that stays open"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::exit::Exit, error::Kind};

    #[test]
    fn each_failure_says_what_to_do() {
        let all = [
            PromptError::NoTerminal { flag: "--plan".into() },
            PromptError::GaveUp { flag: "--yes".into() },
            PromptError::Descriptor { flag: "--passphrase-fd" },
            PromptError::DescriptorIsTerminal { flag: "--passphrase-fd" },
            PromptError::DescriptorIsEmpty { flag: "--new-passphrase-fd" },
            PromptError::Passphrase(PassphraseError::Empty),
            PromptError::Failed,
        ];
        for error in all {
            let shown = Error::from(error.clone());
            assert_eq!(shown.kind(), Kind::Usage, "{error:?}");
            assert_eq!(shown.message(), error.to_string());
            assert!(!shown.hint().is_empty());
        }
        let error = Error::from(PromptError::NoTerminal { flag: "--plan".into() });
        assert_eq!(error.hint(), "run it in a terminal, or answer with --plan");
        assert_eq!(Exit::from(&Error::from(PromptError::Interrupted)).code(), 130);
    }
}
