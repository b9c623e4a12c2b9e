//! Moving a chat to another compartment.

use super::{Client, refused_by_engine};
use crate::error::Error;

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

    /// MOV-09: finishes what a killed command left of a moving, or remembers why that failed.
    pub(super) fn finish_moves(&mut self) {
        self.unfinished_move = self.driver.finish_moves(&self.compartments).err();
    }
}
