//! What a killed command left of a compartment that it was making.

use std::sync::Arc;

use super::{Client, FIRST_COMPARTMENT, generator};
use crate::{
    engine::{Command, view},
    error::Error,
};

impl Client {
    /// A compartment gets its name in the command that makes it. One without a name is what a kill left: the first is
    /// named now, any other was never used and is taken away again.
    ///
    /// # Errors
    /// The file cannot be written; the next unlock tries again.
    pub(super) fn settle_compartments(&mut self) -> Result<(), Error> {
        let mut nameless = Vec::new();
        for number in 0..self.compartments.len() {
            if self.read(number, view::name)?.is_none()
                && self.read(number, view::chats)?.is_empty()
                && self.relay_rows(number)?.is_empty()
            {
                nameless.push(number);
            }
        }
        for number in nameless.into_iter().rev() {
            if number == 0 {
                self.command(0, Command::Name { name: FIRST_COMPARTMENT.to_owned() })?;
                continue;
            }
            let (id, base) = self.volumes.remove(number);
            drop(self.compartments.remove(number));
            // The volume is closed with its last holder, and only then can it be deleted.
            drop(Arc::into_inner(base));
            if self.session.delete_volume(id, &mut generator()).is_err() {
                self.open_volume(id)?;
            }
        }
        self.name_compartments()
    }
}
