//! Check-ins: an alert that leaves when nothing is heard of the owner.
//!
//! Order of effects: the pending record, the deadline armed at its relays, the record final. What a crash leaves pending is
//! undone by the next unlock; a relay that was told already is told again that it is over.

use std::time::Duration;

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    tripwire::Token,
};

use super::{Client, TOKEN_WAIT, generator, plans::ARM_WAIT, refused_by_engine};
use crate::{
    engine::{
        Command, Fault, Reply,
        checkin::{self, CheckinSpec, CheckinView, Standing},
        plan::alert_relays,
    },
    error::{Error, Retry},
    store::PlanState,
};

/// What the owner decided about a check-in.
pub struct CheckinRequest {
    /// The silence after which the alert leaves, 10 minutes to 400 days.
    pub after: Duration,
    /// Chats of the trusted contacts to alert.
    pub alert: Vec<String>,
    /// What the alert says.
    pub text: String,
    /// Last known place.
    pub place: Option<String>,
    /// What the contacts are asked to do.
    pub instructions: Option<String>,
}

/// What to do about a relay that does not do what it should.
const LOOK: &str = "see: lapwing relay list; then try again";

/// What each relay of a check-in said to a word: nothing where it could not be asked.
pub type Heard = Vec<(RelayAddress, Option<Standing>)>;

impl Client {
    /// The check-ins of all compartments, with the number of the compartment that holds each.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn checkins(&self) -> Result<Vec<(usize, CheckinView)>, Error> {
        let mut all = Vec::new();
        for number in 0..self.compartments.len() {
            all.extend(self.read(number, checkin::of)?.map(|checkin| (number, checkin)));
        }
        Ok(all)
    }

    /// Begins a check-in in a compartment, by number.
    ///
    /// # Errors
    /// One is running there; nobody is there to be alerted; a relay cannot be reached or refuses. Nothing is set up then; a
    /// relay that was asked and did not answer is told so with the next settling.
    pub async fn start_checkin(&mut self, number: usize, request: CheckinRequest) -> Result<(), Error> {
        let CheckinRequest { after, alert, text, place, instructions } = request;
        let relays = self.read(number, |unit| alert_relays(unit, &alert))?;
        let known = self.relay_rows(number)?;
        if relays.iter().any(|relay| known.iter().all(|row| row.address.key() != relay.key())) {
            return Err(refused_by_engine(&Fault::NoCommonRelay));
        }
        let tokens = relays.into_iter().map(|relay| (relay, Token::generate(&mut generator()))).collect();
        let spec = CheckinSpec { after, alert, text, place, instructions, tokens };
        let Reply::Plan(plan) = self.command(number, Command::CheckinBegin(Box::new(spec)))? else {
            return Err(Error::bug("another reply was expected"));
        };
        let report = self.settle(ARM_WAIT).await;
        if self.read(number, checkin::of)?.is_some_and(|checkin| checkin.armed) {
            self.command(number, Command::PlanFinish { plan })?;
            return Ok(());
        }
        self.command(number, Command::PlanRemove { plan })?;
        self.settle(Duration::from_secs(5)).await;
        // Its answer may have been lost, and not what it was asked.
        let (message, hint) = if self.is_checkin_ending(number)? {
            (
                "the relay that has to keep the alert does not answer; nothing is set up here, but it may have begun there",
                "tell it before the time of the check-in is over: lapwing sync --wait 30; then try again",
            )
        } else if report.trouble.is_empty() {
            ("the relay did not accept the check-in; nothing was set up", LOOK)
        } else {
            ("the relay that has to keep the alert cannot be reached; nothing was set up", LOOK)
        };
        Err(Error::unreachable(message, hint).with_retry(Retry::Later))
    }

    /// Gives the word of the check-in in a compartment: its time begins anew at every relay that answers.
    ///
    /// # Errors
    /// None is running there.
    pub async fn check_in(&mut self, number: usize) -> Result<Heard, Error> {
        let running = self.read(number, checkin::of)?.filter(|checkin| checkin.state == PlanState::Armed);
        let Some(CheckinView { id, tokens, .. }) = running else {
            return Err(refused_by_engine(&Fault::NoCheckin));
        };
        let answers = self.driver.present(&tokens, TOKEN_WAIT).await;
        let mut heard = Vec::new();
        for (relay, _) in tokens {
            let said = |key: &RelayKey| answers.iter().find(|(answered, _)| answered == key);
            let standing = match said(relay.key()).map(|(_, status)| status.clone()) {
                None => None,
                Some(status) => {
                    let command = Command::CheckinAnswered { checkin: id, relay: *relay.key(), status };
                    let Reply::Checkin(standing) = self.command(number, command)? else {
                        return Err(Error::bug("another reply was expected"));
                    };
                    Some(standing)
                }
            };
            heard.push((relay, standing));
        }
        Ok(heard)
    }

    /// Ends the check-in of a compartment; no alert leaves any more once its relays know.
    ///
    /// # Errors
    /// None is running there.
    pub fn stop_checkin(&mut self, number: usize) -> Result<(), Error> {
        let running = self.read(number, checkin::of)?;
        let plan = running.ok_or_else(|| refused_by_engine(&Fault::NoCheckin))?.id;
        self.command(number, Command::PlanRemove { plan })?;
        Ok(())
    }

    /// Whether a relay has still to be told of a check-in that was ended, in a compartment.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn is_checkin_ending(&self, number: usize) -> Result<bool, Error> {
        self.read(number, checkin::is_ending)
    }

    /// Undoes a check-in that a killed command left half set up.
    pub(super) fn settle_checkins(&mut self) -> Result<(), Error> {
        for (number, checkin) in self.checkins()? {
            if checkin.state == PlanState::Pending {
                self.command(number, Command::PlanRemove { plan: checkin.id })?;
            }
        }
        Ok(())
    }
}
