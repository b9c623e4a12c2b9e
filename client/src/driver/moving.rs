//! Moving a chat from one compartment to another: two records that no commit covers together.
//!
//! What each commit means is told in [`engine::moving`](crate::engine::moving). A process that dies between two of them
//! leaves what [`Driver::finish_moves`] finds; it runs at every unlock, before anything is sent, taken or shown.

use std::collections::BTreeMap;

use super::{Compartment, Driver};
use crate::{
    engine::{
        Command, Fault, Reply,
        moving::{self, Movable, MoveReply, MoveStep},
    },
    store::{ArrivalRow, ChatId, MoveId, StoreError, Unit},
};

impl Driver {
    /// Moves a chat with all that belongs to it, under `name` there, or its own. Nothing leaves yet.
    ///
    /// # Errors
    /// Why it cannot be moved, or that there is no room: then nothing was changed. Where a file fails in the middle, the
    /// next unlock finishes or undoes it.
    pub fn move_chat(
        &mut self,
        from: &Compartment,
        to: &Compartment,
        chat: &str,
        name: Option<&str>,
    ) -> Result<(), Fault> {
        moving::movable(&Unit::new(&*from.base), chat)?;
        // What is due, or is being erased, does not travel.
        self.sweep(from)?;
        let Movable { chat, name: own, is_open } = moving::movable(&Unit::new(&*from.base), chat)?;
        let mut id: MoveId = [0; 16];
        self.rng().fill_bytes(&mut id);
        let name = name.unwrap_or(&own).to_owned();
        let step = MoveStep::Begin { id, from: chat, name: name.clone(), is_open };
        let MoveReply::Chat(arriving) = self.step(to, step)? else {
            return Err(Fault::Inconsistent("another reply was expected"));
        };
        if let Err(fault) = self.carry_over(from, to, chat, arriving, name) {
            // What fails here is done by the next unlock.
            let _ = self.step(to, MoveStep::Undo { chat: arriving });
            return Err(match fault {
                Fault::Store(StoreError::Full) => Fault::NoRoomThere,
                other => other,
            });
        }
        self.let_go(from, to, &Arrival { id, from: chat, chat: arriving })
    }

    /// MOV-01, MOV-02: finishes or undoes what was cut off. A moving whose other end is not open is left as it is.
    ///
    /// # Errors
    /// [`Fault`]: it is tried again by the next unlock.
    pub fn finish_moves(&mut self, compartments: &[Compartment]) -> Result<(), Fault> {
        let mut open: Vec<MoveId> = Vec::new();
        for to in compartments {
            for (chat, ArrivalRow { id, from, whole }) in moving::arrivals(&Unit::new(&*to.base))? {
                let arrival = Arrival { id, from, chat };
                if !whole {
                    self.step(to, MoveStep::Undo { chat })?;
                } else if !self.finish(compartments, to, &arrival)? {
                    open.push(id);
                }
            }
        }
        for from in compartments {
            for id in moving::departures(&Unit::new(&*from.base))? {
                if !open.contains(&id) {
                    self.step(from, MoveStep::Departed { id })?;
                }
            }
        }
        Ok(())
    }

    /// Whether the other end was found.
    fn finish(
        &mut self,
        compartments: &[Compartment],
        to: &Compartment,
        arrival: &Arrival,
    ) -> Result<bool, Fault> {
        for from in compartments {
            let unit = Unit::new(&*from.base);
            if moving::is_here(&unit, &arrival.from)? || moving::departures(&unit)?.contains(&arrival.id) {
                self.let_go(from, to, arrival)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn carry_over(
        &mut self,
        from: &Compartment,
        to: &Compartment,
        chat: ChatId,
        arriving: ChatId,
        name: String,
    ) -> Result<(), Fault> {
        let mut places = BTreeMap::new();
        let mut after = 0;
        while let Some((messages, last)) = moving::messages(&Unit::new(&*from.base), chat, after)? {
            after = last;
            let step = MoveStep::Take { chat: arriving, messages };
            let MoveReply::Places(more) = self.step(to, step)? else {
                return Err(Fault::Inconsistent("another reply was expected"));
            };
            places.extend(more);
        }
        let rest = Box::new(moving::rest(&Unit::new(&*from.base), chat)?);
        self.step(to, MoveStep::End { chat: arriving, name, rest, places }).map(|_| ())
    }

    /// The source lets go of what the target has. Each step is harmless where it was done before.
    fn let_go(&mut self, from: &Compartment, to: &Compartment, arrival: &Arrival) -> Result<(), Fault> {
        let Arrival { id, from: chat, chat: arrived } = *arrival;
        if moving::is_here(&Unit::new(&*from.base), &chat)? {
            self.step(from, MoveStep::Depart { chat, id })?;
        }
        self.step(to, MoveStep::Arrived { chat: arrived })?;
        self.step(from, MoveStep::Departed { id })?;
        Ok(())
    }

    fn step(&mut self, compartment: &Compartment, step: MoveStep) -> Result<MoveReply, Fault> {
        match self.command(compartment, Command::Moving(step))? {
            Reply::Moving(reply) => Ok(reply),
            _ => Err(Fault::Inconsistent("another reply was expected")),
        }
    }
}

/// A chat that came: which moving, its id there and here.
struct Arrival {
    id: MoveId,
    from: ChatId,
    chat: ChatId,
}
