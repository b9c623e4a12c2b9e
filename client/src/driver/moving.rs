//! Moving a chat from one compartment to another: two records that no commit covers together.
//!
//! What each commit means is told in [`engine::moving`](crate::engine::moving). A process that dies between two of them
//! leaves what [`Driver::finish_moves`] finds; it runs at every unlock, before anything is sent, taken or shown.

use std::collections::BTreeMap;

use super::{Compartment, Driver, not_erased};
use crate::{
    engine::{
        Command, Event, Fault, Reply,
        moving::{self, Movable, MoveReply, MoveStep},
    },
    store::{ArrivalRow, ChatId, MoveId, StoreError, Unit},
};

/// Commits of one kind in a row: far more than any chat needs.
const MAX_STEPS: usize = 1_000_000;

impl Driver {
    /// Moves a chat with all that belongs to it, under `name` there, or its own. Nothing leaves yet.
    ///
    /// # Errors
    /// Why it cannot be moved, or that there is no room: then nothing was changed. [`Fault::NotErased`]: it is moved, and
    /// not all that it left is gone from the file. [`Fault::ArrivalWaits`] and what the files say: the next unlock finishes
    /// or undoes it.
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
        let source = moving::end(&id, &from.place);
        let step = MoveStep::Begin { id, from: chat, source, name: name.clone(), is_open };
        let MoveReply::Chat(arriving) = self.step(to, step).map_err(no_room_there)? else {
            return Err(Fault::Inconsistent("another reply was expected"));
        };
        if let Err(fault) = self.carry_over(from, to, chat, arriving, name) {
            // What fails here is done by the next unlock.
            let _ = self.undo(to, arriving);
            return Err(no_room_there(fault));
        }
        // MOV-01. Of a commit that failed nobody knows on which side of it the disk is: the next unlock sees.
        let target = moving::end(&id, &to.place);
        self.handle(from, Event::Command(Command::Moving(MoveStep::Depart { chat, id, target })))?;
        // It is shown nowhere now. What it left here is erased when it is shown there, which comes to far fewer writes.
        let taken = self.take_up(to, arriving).and_then(|()| self.step(from, MoveStep::Departed { id }));
        let swept = self.sweep(from).map_err(not_erased);
        taken?;
        swept.map(|_| ())
    }

    /// Whether a chat is on its way from or to a compartment, as far as the open ones tell: one that was decided would be
    /// lost with either end, and of one that was not the rest would never be undone.
    ///
    /// Of an end that is not open nothing is said (MOV-09), and nothing is kept from being erased for it.
    ///
    /// # Errors
    /// [`Fault::Store`].
    pub fn is_on_the_way(compartments: &[Compartment], end: &Compartment) -> Result<bool, Fault> {
        for to in compartments {
            for (_, arrival) in moving::arrivals(&Unit::new(&*to.base))? {
                let is_source = |from: &&Compartment| moving::end(&arrival.id, &from.place) == arrival.source;
                let Some(from) = compartments.iter().find(is_source) else { continue };
                // What is shown has let go of its source.
                if to.place == end.place || (from.place == end.place && !arrival.live) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The chats of this name that a source which is open has let go of, and that are not shown where they go: the numbers of
    /// those compartments, and the chats' ids there. They wait for room.
    ///
    /// # Errors
    /// [`Fault::Store`].
    pub fn waiting_arrivals(compartments: &[Compartment], name: &str) -> Result<Vec<(usize, ChatId)>, Fault> {
        let mut waiting = Vec::new();
        let mut departed = Vec::new();
        for from in compartments {
            departed.extend(moving::departures(&Unit::new(&*from.base))?.into_iter().map(|(id, _)| id));
        }
        for (number, to) in compartments.iter().enumerate() {
            let unit = Unit::new(&*to.base);
            for (chat, arrival) in moving::arrivals(&unit)? {
                let decided = !arrival.live && departed.contains(&arrival.id);
                if decided && moving::name_of_arrival(&unit, &chat)?.is_some_and(|known| known == name.trim())
                {
                    waiting.push((number, chat));
                }
            }
        }
        Ok(waiting)
    }

    /// Deletes such a chat with all that it holds; its mailboxes are closed.
    ///
    /// # Errors
    /// It was refused, and nothing was changed; [`Fault::NotErased`].
    pub fn delete_arrival(&mut self, to: &Compartment, chat: ChatId) -> Result<(), Fault> {
        self.step(to, MoveStep::Delete { chat }).map(|_| ())
    }

    /// MOV-01, MOV-02, MOV-09: finishes or undoes what was cut off, as far as the open compartments tell what became of it.
    ///
    /// # Errors
    /// The first [`Fault`]; the others were done. It is tried again by the next unlock.
    pub fn finish_moves(&mut self, compartments: &[Compartment]) -> Result<(), Fault> {
        let mut outcome = Ok(());
        for to in compartments {
            match moving::arrivals(&Unit::new(&*to.base)) {
                Ok(arrivals) => {
                    for (chat, arrival) in arrivals {
                        outcome = outcome.and(self.finish_arrival(compartments, to, chat, &arrival));
                    }
                }
                Err(fault) => outcome = outcome.and(Err(fault)),
            }
        }
        for from in compartments {
            outcome = outcome.and(self.finish_departures(compartments, from));
        }
        outcome
    }

    fn finish_arrival(
        &mut self,
        compartments: &[Compartment],
        to: &Compartment,
        chat: ChatId,
        arrival: &ArrivalRow,
    ) -> Result<(), Fault> {
        if arrival.live {
            return self.take_up(to, chat);
        }
        for from in compartments {
            let unit = Unit::new(&*from.base);
            if moving::departures(&unit)?.iter().any(|(id, _)| *id == arrival.id) {
                return self.take_up(to, chat);
            }
            // The source is open and knows of no departure: it was not decided, whatever became of the chat since.
            if moving::end(&arrival.id, &from.place) == arrival.source
                || moving::is_here(&unit, &arrival.from)?
            {
                return self.undo(to, chat);
            }
        }
        Ok(())
    }

    /// A departure is forgotten when its target is open and nothing is on its way there any more.
    fn finish_departures(&mut self, compartments: &[Compartment], from: &Compartment) -> Result<(), Fault> {
        for (id, departure) in moving::departures(&Unit::new(&*from.base))? {
            let target = compartments.iter().find(|to| moving::end(&id, &to.place) == departure.target);
            let Some(to) = target else { continue };
            if !moving::arrivals(&Unit::new(&*to.base))?.iter().any(|(_, arrival)| arrival.id == id) {
                self.step(from, MoveStep::Departed { id })?;
            }
        }
        Ok(())
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
        let mut after = None;
        loop {
            let marks = moving::marks(&Unit::new(&*from.base), chat, after)?;
            let Some((last, _)) = marks.last() else { break };
            after = Some(*last);
            self.step(to, MoveStep::Remember { chat: arriving, marks })?;
        }
        for operations in moving::operations(&Unit::new(&*from.base), chat, &places)? {
            self.step(to, MoveStep::Hold { chat: arriving, operations })?;
        }
        let rest = Box::new(moving::rest(&Unit::new(&*from.base), chat)?);
        self.step(to, MoveStep::Stage { chat: arriving, name, rest, places }).map(|_| ())
    }

    /// The source has let go of it: the target uses what it has. Each step is harmless where it was done before.
    fn take_up(&mut self, to: &Compartment, chat: ChatId) -> Result<(), Fault> {
        let taken = self
            .step(to, MoveStep::Live { chat })
            .and_then(|_| self.repeat(to, || MoveStep::Use { chat, carrying: false }))
            .and_then(|()| self.step(to, MoveStep::Succeed { chat }))
            .and_then(|_| self.repeat(to, || MoveStep::Use { chat, carrying: true }))
            .and_then(|()| self.step(to, MoveStep::Arrived { chat }));
        match taken {
            Ok(_) => Ok(()),
            Err(Fault::Store(StoreError::Full)) => Err(Fault::ArrivalWaits),
            Err(fault) => Err(fault),
        }
    }

    fn undo(&mut self, to: &Compartment, chat: ChatId) -> Result<(), Fault> {
        self.repeat(to, || MoveStep::Undo { chat })
    }

    fn repeat(&mut self, compartment: &Compartment, step: impl Fn() -> MoveStep) -> Result<(), Fault> {
        for _ in 0..MAX_STEPS {
            if !matches!(self.step(compartment, step())?, MoveReply::More) {
                return Ok(());
            }
        }
        Err(Fault::Inconsistent("a chat on its way has no end"))
    }

    fn step(&mut self, compartment: &Compartment, step: MoveStep) -> Result<MoveReply, Fault> {
        match self.command(compartment, Command::Moving(step))? {
            Reply::Moving(reply) => Ok(reply),
            _ => Err(Fault::Inconsistent("another reply was expected")),
        }
    }
}

fn no_room_there(fault: Fault) -> Fault {
    match fault {
        Fault::Store(StoreError::Full) => Fault::NoRoomThere,
        other => other,
    }
}
