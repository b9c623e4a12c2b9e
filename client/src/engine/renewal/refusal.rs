//! RNW-06: a ticket is used a second time, by another copy of the same backup or vault.

use lapwing_protocol::{
    renewal::{self, RefusalIn, TicketSecret},
    route::Route,
    session::{Handshake, Session},
};
use serde_bytes::ByteBuf;

use super::{
    super::{
        Cx, Effect, Fault, conversation,
        outgoing::{self, seed},
    },
    put,
};
use crate::store::{
    ChatId, ContactRow, ContactState, MessageRow, MessageState, RenewalRow, WaitingRenewal, Writer,
};

/// Refused handshakes that are told and answered, until the next renewal: whoever can write to the mailbox could make
/// us write for ever otherwise.
const TOLD: usize = 8;

/// Refuses a handshake of the peer, and tells both ends of it.
pub(super) fn refuse(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    mut row: RenewalRow,
    contact: &ContactRow,
    secret: &[u8],
    handshake: &Handshake,
) -> Result<(), Fault> {
    if !note_base(&mut row, &handshake.base) {
        return Ok(());
    }
    let refusal = renewal::refuse(&TicketSecret::from_bytes(seed(secret)?), &handshake.base);
    // Who holds the other copy reads at one of these; the honest one too, and learns of it.
    let routes = [contact.route.clone(), row.old_route.clone()];
    let due = row.due;
    put(cx, chat, row, due);
    for route in routes.into_iter().flatten() {
        let route = Route::import(&route).map_err(|_| Fault::Inconsistent("a route cannot be read"))?;
        outgoing::append(cx, &route, chat, &refusal, None, None)?;
    }
    conversation::note(
        cx,
        chat,
        "tried to renew the session with what was used up before, and was refused: somebody may use a copy of this \
         person's backup; ask them in another way, and compare safety numbers",
    )?;
    Ok(())
}

/// The peer refuses a handshake: ours, or that of somebody with a copy of what we have. `false` if it is not genuine.
pub(in super::super) fn refused(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    refusal: &RefusalIn,
) -> Result<bool, Fault> {
    let Some(mut row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(false) };
    let mut genuine = false;
    for secret in &row.spent {
        genuine |= refusal.is_genuine(&TicketSecret::from_bytes(seed(secret)?));
    }
    if !genuine || !note_base(&mut row, refusal.base()) {
        return Ok(genuine);
    }
    let is_own = row.begun.iter().any(|base| base.as_ref() == refusal.base().as_slice());
    let ours = if is_hopeless(&row)? { row.waiting.take() } else { None };
    let due = row.due.filter(|_| ours.is_none());
    put(cx, chat, row, due);
    match ours {
        Some(waiting) => ended(cx, chat, &waiting)?,
        // Another one of ours was accepted, or may be.
        None if is_own => {}
        None => {
            conversation::note(
                cx,
                chat,
                "somebody tried to renew this session with a copy of your backup or vault, and was refused; if that \
                 was not you, warn this person and make a new vault",
            )?;
        }
    }
    Ok(true)
}

/// Whether our handshake is refused, and with it the one before, if that was not answered either: the peer may have
/// accepted that one.
fn is_hopeless(row: &RenewalRow) -> Result<bool, Fault> {
    let is_refused = |base: &[u8]| row.refused.iter().any(|known| known.as_ref() == base);
    let Some(waiting) = &row.waiting else { return Ok(false) };
    if !is_refused(&waiting.base) {
        return Ok(false);
    }
    match row.former.as_ref().filter(|former| former.unanswered) {
        Some(former) => Ok(Session::import(&former.session)?
            .first_handshake()
            .is_none_or(|base| is_refused(base.as_slice()))),
        None => Ok(true),
    }
}

/// Whether this is the first time; remembers it.
fn note_base(row: &mut RenewalRow, base: &[u8; 32]) -> bool {
    let known = row.refused.iter().any(|known| known.as_ref() == base.as_slice());
    if known || row.refused.len() >= TOLD {
        return false;
    }
    row.refused.push(ByteBuf::from(base.to_vec()));
    true
}

/// Our handshake is refused for good: nothing that was written since can be read.
fn ended(cx: &mut Cx<'_, '_, '_>, chat: ChatId, waiting: &WaitingRenewal) -> Result<(), Fault> {
    let mut contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    contact.state = ContactState::Failed;
    contact.verified = false;
    cx.unit.put(&chat, &contact);
    for ((_, order), message) in cx.unit.range::<MessageRow>(chat.as_bytes(), None, usize::MAX, true)? {
        if message.stored < waiting.since {
            break;
        }
        if message.writer == Writer::Me && message.state != MessageState::Failed {
            conversation::set_state(cx, chat, order, MessageState::Failed)?;
            cx.tell(Effect::Undelivered { chat, order });
        }
    }
    conversation::note(
        cx,
        chat,
        "the session cannot be renewed: what this vault has for it was used before, by another copy of the backup or \
         vault; compare in person and invite anew, in a new chat",
    )?;
    Ok(())
}
