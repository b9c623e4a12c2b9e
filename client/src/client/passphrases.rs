//! Changing the passphrase of this session.

use lapwing_vault::Passphrase;

use super::{Client, fault, generator};
use crate::{
    cli::{prompt::TypedPassphrase, strength::too_close},
    error::Error,
};

impl Client {
    /// Replaces the passphrase that opened this session.
    ///
    /// # Errors
    /// The new one opens something already; the file cannot be written. The old one stays then.
    pub fn change_passphrase(&mut self, new: &TypedPassphrase) -> Result<(), Error> {
        let home = self.private_volume();
        self.session
            .change_passphrase(&Passphrase::new(new.expose()), home, &mut generator())
            .map_err(|error| fault::change(&error))
    }
}

/// Refuses a second passphrase that a slip of the finger, or stopping early, would make of the first.
///
/// # Errors
/// They are within three edits, or one begins the other.
pub fn require_distinct(one: &TypedPassphrase, other: &TypedPassphrase) -> Result<(), Error> {
    if too_close(one.expose(), other.expose()) {
        return Err(Error::refused(
            "the two passphrases are too much alike: a slip of the finger would turn one into the other",
            "choose one that differs in more than three places and does not begin like the other",
        ));
    }
    Ok(())
}
