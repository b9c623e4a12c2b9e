//! The client's logic: events in, effects out, nothing done in between.
//!
//! [`handle`] stages every change of state in a [`Unit`] and answers what is to be told to people. It reads no clock,
//! makes no randomness, opens no socket. Whoever drives it commits the unit and only then acts on the effects; an
//! error means that the unit is dropped and nothing happened (design 7). What a relay has to do is itself a record
//! ([`OpRow`](crate::store::OpRow)), so that it survives every crash between two steps.
//!
//! | module | what |
//! | --- | --- |
//! | [`command`] | what a person asks for, and the answers |
//! | `contact` | tickets, first messages, moving to fresh mailboxes |
//! | `conversation` | messages of a chat |
//! | `bodies` | texts at rest, and the keys that seal them |
//! | [`files`] | files of messages |
//! | `drafts` | texts that were not sent |
//! | `expiry` | messages that disappear |
//! | `erasing` | messages and chats that are erased |
//! | `retention` | records that have outlived their use |
//! | `inbox` | what a relay delivers |
//! | `answer` | what a relay answers |
//! | `outgoing` | operations for relays |
//! | [`copies`] | notices that a vault is used in two places |
//! | [`moving`] | a chat goes to another compartment |
//! | [`export`] | a compartment as the items of a backup, and back |
//! | [`renewal`] | beginning a session anew with somebody who is known |
//! | `trust` | trusted contacts and alerts |
//! | `vacate` | leaving a compartment that is to be deleted |
//! | [`plan`] | what a duress passphrase sets off |
//! | [`voice`] | what trusted contacts set off from afar |
//! | [`checkin`] | what silence sets off |
//! | [`group`] | groups |
//! | [`search`] | looking for a text |
//! | [`view`] | what is shown of all this |

pub mod checkin;
pub mod command;
pub mod copies;
pub mod event;
pub mod export;
pub mod fault;
pub mod files;
pub mod group;
pub mod moving;
pub mod plan;
pub mod renewal;
pub mod search;
pub mod view;
pub mod voice;

mod answer;
mod bodies;
mod contact;
mod conversation;
mod drafts;
mod erasing;
mod expiry;
mod inbox;
mod outgoing;
mod overdue;
mod relays;
mod retention;
mod trust;
mod vacate;

use std::time::{Duration, SystemTime};

use lapwing_wire::time::Timestamp;
use rand_core::CryptoRng;

pub use bodies::keys_without_answer;
pub use command::{Command, Reply};
pub use contact::{DEFAULT_VALIDITY, MAX_VALIDITY};
pub use event::{Effect, Event};
pub use expiry::next_due;
pub use fault::Fault;
pub use inbox::acknowledged_to;
pub use outgoing::{OpStep, Proof, request_of};
pub use relays::{busy_relays, connected_relays, default_relay, heirs, held_up, is_invitation_refused};

use crate::store::Unit;

/// What a handler works with: the unit of work, the time, randomness, and the effects so far.
pub(crate) struct Cx<'u, 'b, 'r> {
    pub(crate) unit: &'u mut Unit<'b>,
    pub(crate) now: Timestamp,
    pub(crate) rng: &'r mut dyn CryptoRng,
    pub(crate) effects: Vec<Effect>,
    /// The group that was looked at last: reading one takes as long as it has members.
    pub(crate) group: Option<(crate::store::ChatId, lapwing_protocol::group::Group)>,
}

impl Cx<'_, '_, '_> {
    /// The time as libsignal wants it.
    pub(crate) fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now.as_millis())
    }

    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    pub(crate) fn tell(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

/// Stages what `event` changes and answers what follows from it.
///
/// # Errors
/// [`Fault`]: the unit must be dropped; nothing has happened.
pub fn handle(
    unit: &mut Unit<'_>,
    event: Event,
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<Effect>, Fault> {
    let mut cx = Cx { unit, now, rng, effects: Vec::new(), group: None };
    match event {
        Event::Command(command) => {
            let reply = command::run(&mut cx, command)?;
            cx.tell(Effect::Reply(reply));
        }
        Event::Window { window, caught_up } => inbox::window(&mut cx, window, caught_up)?,
        Event::Answer { op, body } => answer::answer(&mut cx, op, body)?,
        Event::Obsolete { op } => answer::obsolete(&mut cx, op),
        Event::File { place, moved } => files::moved(&mut cx, place, moved)?,
        Event::Gone { mailbox } => relays::gone(&mut cx, &mailbox)?,
        Event::Heir { relay, heir } => relays::inherit(&mut cx, &relay, heir)?,
        Event::Tick { begins } => {
            contact::expire(&mut cx)?;
            renewal::tick(&mut cx)?;
            copies::tick(&mut cx, begins)?;
            if begins {
                // Whom no session reached when it was due.
                voice::tell(&mut cx)?;
            }
            group::tick(&mut cx)?;
        }
        Event::Mark => copies::leave_again(&mut cx)?,
        Event::Sweep => sweep(&mut cx)?,
    }
    Ok(cx.effects)
}

/// TMR-05, ERA-03: one commit's worth of what is to be erased.
fn sweep(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    expiry::follow_clock(cx)?;
    if expiry::erase_due(cx)? || erasing::go_on(cx)? || retention::sweep(cx)? {
        cx.tell(Effect::MoreToErase);
    }
    Ok(())
}
