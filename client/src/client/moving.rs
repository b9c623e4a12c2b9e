//! Moving a chat to another compartment.

use super::{Client, refused_by_engine};
use crate::{driver::Driver, error::Error, store::ChatId};

impl Client {
    /// Moves a chat to another compartment, under `name` or its own. The next settling tells its peer.
    ///
    /// # Errors
    /// There is no such compartment, or it is there already; why it cannot be moved: nothing was changed. That it waits for
    /// room, or that not all that it left is erased: the next unlock goes on.
    pub fn move_chat(&mut self, from: usize, chat: &str, to: &str, name: Option<&str>) -> Result<(), Error> {
        let to = self.compartment(Some(to))?;
        if to == from {
            return Err(Error::refused(
                "the chat is in that compartment already",
                "name another one; see: lapwing compartment list",
            )
            .with_code("same_compartment"));
        }
        let (Some(source), Some(target)) = (self.compartments.get(from), self.compartments.get(to)) else {
            return Err(Error::bug("no such compartment"));
        };
        let moved = self.driver.move_chat(source, target, chat, name);
        // Also where it is decided, and something of it is left to be done.
        let refreshed = self.refresh_plans();
        moved.and(refreshed).map_err(|fault| refused_by_engine(&fault))
    }

    /// A chat of this name on its way to a compartment, to the one of that name if one is named, which waits for room there
    /// and is shown nowhere: the compartment's number, and the chat's id.
    ///
    /// # Errors
    /// A compartment cannot be read; there is none of that name; several of them wait, and which is meant was not said.
    pub fn waiting_arrival(
        &self,
        compartment: Option<&str>,
        chat: &str,
    ) -> Result<Option<(usize, ChatId)>, Error> {
        let wanted = compartment.map(|name| self.compartment(Some(name))).transpose()?;
        let found = Driver::waiting_arrivals(&self.compartments, chat);
        let mut found = found.map_err(|fault| refused_by_engine(&fault))?;
        found.retain(|(number, _)| wanted.is_none_or(|wanted| wanted == *number));
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            [(first, _), .., (last, _)] if first != last => Err(Error::refused(
                "in several compartments a chat of that name waits for room",
                "say which with --compartment NAME",
            )),
            // One after the other: nothing else tells them apart.
            [first, ..] => Ok(Some(*first)),
        }
    }

    /// Deletes such a chat with all that it holds, as [`Client::delete_chat`] does one that is here.
    ///
    /// # Errors
    /// It was refused; nothing was changed.
    pub fn delete_arrival(&mut self, compartment: usize, chat: ChatId) -> Result<(), Error> {
        let to = self.compartments.get(compartment).ok_or_else(|| Error::bug("no such compartment"))?;
        let deleted = self.driver.delete_arrival(to, chat);
        // What it left at its source, and why it had not come.
        self.finish_moves();
        deleted.and(self.refresh_plans()).map_err(|fault| refused_by_engine(&fault))
    }

    /// MOV-09: finishes what a killed command left of a moving, or remembers why that failed.
    pub(super) fn finish_moves(&mut self) {
        self.unfinished_move = self.driver.finish_moves(&self.compartments).err();
    }
}
