//! Our own handshake: begun, sent again while it is not answered, ended by the first answer.

use lapwing_protocol::{content::Body, renewal::RenewalTicket, route::Route, session::Session};
use lapwing_wire::{frame::MailboxKind, time::Timestamp};
use serde_bytes::ByteBuf;

use super::{
    super::{
        Cx, Fault, conversation,
        outgoing::{self, local_identity},
        relays,
    },
    AGAIN, FORMER, PATIENCE, encrypt_waiting_anew, left, peer_of, put, send_anew_since, succession,
};
use crate::store::{
    ChatId, ChatRow, ContactRow, ContactState, FormerSession, MailboxRow, Purpose, RenewalRow, WaitingRenewal,
};

/// Used tickets and begun handshakes that are remembered.
const SPENT: usize = 4;

/// Begins the session of a direct chat anew, with the ticket that the peer gave.
pub(in super::super) fn begin(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let shown = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    let mut contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    if shown.blocked {
        return Err(Fault::Blocked);
    }
    if !matches!(contact.state, ContactState::Established | ContactState::Failed) {
        return Err(Fault::NotEstablished);
    }
    let mut row = cx.unit.get::<RenewalRow>(&chat)?.unwrap_or_default();
    // A successor is announced until it is known: there is nothing else to begin with.
    let goes_on =
        |waiting: &WaitingRenewal| waiting.first.is_some() || cx.now.since(waiting.since) < PATIENCE;
    if row.waiting.as_ref().is_some_and(goes_on) {
        return Err(Fault::RenewalWaits);
    }
    if row.succeeds && contact.session.is_some() {
        // Whoever is to be succeeded begins nothing anew under the old name.
        return if succession::succeed(cx, chat)? { Ok(()) } else { Err(Fault::NoRenewalTicket) };
    }
    if contact.route.is_none() {
        return Err(Fault::NoRenewalTicket);
    }
    let ticket = ticket_of(&row)?;
    let peer = peer_of(&contact, &row)?;
    let bundle = ticket.bundle_of(&peer).map_err(|_| Fault::NoRenewalTicket)?;
    let local = local_identity(&contact)?;
    let now = cx.system_time();
    let session = Session::initiate(&local, &bundle, now, &mut cx.rng)?;
    let base = session.first_handshake().ok_or(Fault::Inconsistent("a session without a handshake"))?;
    spend(&mut row, &ticket);
    let unanswered = row.waiting.is_some();
    remember(&mut row, base);
    row.waiting =
        Some(WaitingRenewal { since: cx.now, told: cx.now, base: ByteBuf::from(base.to_vec()), first: None });
    // RNW-05.
    let until = cx.now.plus(FORMER);
    if let Some(session) = contact.session.take() {
        row.former = Some(FormerSession { session, local: None, unanswered, until });
    }
    let relay = relay_of(cx, &contact)?;
    let inbox = outgoing::new_mailbox(cx, &relay, Purpose::Direct(chat), MailboxKind::Queue)?;
    contact.inbox = Some(inbox);
    contact.session = Some(ByteBuf::from(session.export()?.expose().to_vec()));
    contact.state = ContactState::Established;
    cx.unit.put(&chat, &contact);
    let due = cx.now.plus(AGAIN);
    put(cx, chat, row, Some(due));
    let route = outgoing::route_to(cx, &inbox)?;
    outgoing::send_content(cx, chat, Body::Renewal(route), None, Some(inbox))?;
    encrypt_waiting_anew(cx, chat)
}

/// The peer's newest ticket.
pub(super) fn ticket_of(row: &RenewalRow) -> Result<RenewalTicket, Fault> {
    let bytes = row.ticket.as_ref().ok_or(Fault::NoRenewalTicket)?;
    RenewalTicket::import(bytes).map_err(|_| Fault::Inconsistent("a renewal ticket cannot be read"))
}

pub(super) fn remember(row: &mut RenewalRow, base: &[u8; 32]) {
    row.begun.push(ByteBuf::from(base.to_vec()));
    let surplus = row.begun.len().saturating_sub(SPENT);
    row.begun.drain(..surplus);
}

pub(super) fn spend(row: &mut RenewalRow, ticket: &RenewalTicket) {
    let secret = ByteBuf::from(ticket.secret.expose().to_vec());
    row.spent.retain(|known| *known != secret);
    row.spent.push(secret);
    let surplus = row.spent.len().saturating_sub(SPENT);
    row.spent.drain(..surplus);
}

/// The relay that a contact's new mailbox is made at: where the last one is, while we use it.
pub(super) fn relay_of(
    cx: &Cx<'_, '_, '_>,
    contact: &ContactRow,
) -> Result<lapwing_wire::address::RelayAddress, Fault> {
    if let Some(inbox) = contact.inbox
        && let Some(row) = cx.unit.get::<MailboxRow>(&inbox)?
        && let Ok(known) = relays::default_relay(cx.unit, Some(row.relay.key()))
    {
        return Ok(known.address);
    }
    Ok(relays::default_relay(cx.unit, None)?.address)
}

/// RNW-07: nobody has answered yet.
pub(super) fn again(cx: &mut Cx<'_, '_, '_>, chat: ChatId, mut row: RenewalRow) -> Result<(), Fault> {
    let contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    let Some(waiting) = &mut row.waiting else { return Ok(()) };
    if waiting.first.is_none() && cx.now.since(waiting.since) >= PATIENCE {
        // The person decides: see `begin`.
        put(cx, chat, row, None);
        return Ok(());
    }
    waiting.told = cx.now;
    let due = cx.now.plus(AGAIN);
    let succeeds = waiting.first.is_some();
    put(cx, chat, row, Some(due));
    if succeeds { succession::tell(cx, chat) } else { tell(cx, chat, &contact) }
}

fn tell(cx: &mut Cx<'_, '_, '_>, chat: ChatId, contact: &ContactRow) -> Result<(), Fault> {
    let inbox = contact.inbox.ok_or(Fault::Inconsistent("a mailbox is missing"))?;
    let route = outgoing::route_to(cx, &inbox)?;
    outgoing::send_content(cx, chat, Body::Renewal(route), None, Some(inbox))?;
    Ok(())
}

/// The peer moved before our handshake reached him: it goes where he reads now.
pub(super) fn redirected(cx: &mut Cx<'_, '_, '_>, chat: ChatId, route: &Route) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(()) };
    let Some(waiting) = row.waiting else { return Ok(()) };
    let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    contact.route = Some(ByteBuf::from(route.export().expose().to_vec()));
    cx.unit.put(&chat, &contact);
    outgoing::reroute(cx, chat, route)?;
    if waiting.first.is_some() { succession::tell(cx, chat) } else { tell(cx, chat, &contact) }
}

/// The peer has accepted an earlier handshake than our last one: its session goes on, and what was written under the
/// last one is sent under it. What he has already he shows once (RNW-08).
pub(super) fn adopt(cx: &mut Cx<'_, '_, '_>, chat: ChatId, mut row: RenewalRow) -> Result<(), Fault> {
    let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    let (Some(former), Some(waiting)) = (row.former.take(), row.waiting.take()) else { return Ok(()) };
    contact.session = Some(former.session);
    cx.unit.put(&chat, &contact);
    settle(cx, chat, &mut row)?;
    let now = cx.now;
    put(cx, chat, row, Some(now));
    if let Some(inbox) = contact.inbox {
        let route = outgoing::route_to(cx, &inbox)?;
        outgoing::send_content(cx, chat, Body::Route(route), None, Some(inbox))?;
    }
    send_anew_since(cx, chat, waiting.since)?;
    conversation::note(cx, chat, "the session is renewed: messages go both ways again")?;
    Ok(())
}

/// The peer wrote inside the new session: he has accepted it.
pub(in super::super) fn answered(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(()) };
    let Some(waiting) = row.waiting.clone() else { return Ok(()) };
    if waiting.first.is_some() {
        // Tickets that the identity before gave are of no use any more.
        row.given.clear();
        row.keys = ByteBuf::new();
    }
    settle(cx, chat, &mut row)?;
    // Our own next ticket belongs to the new session.
    let now = cx.now;
    put(cx, chat, row, Some(now));
    if waiting.first.is_some() && waiting.told > waiting.since {
        // The first try may have been lost, and with it what came behind it. What he has he shows once (RNW-08).
        send_anew_since(cx, chat, waiting.since)?;
    }
    conversation::note(cx, chat, "the session is renewed: messages go both ways again")?;
    Ok(())
}

/// A handshake of ours came to its end: the mailboxes it left are read for some time and then closed.
pub(super) fn settle(cx: &mut Cx<'_, '_, '_>, chat: ChatId, row: &mut RenewalRow) -> Result<(), Fault> {
    row.waiting = None;
    row.renewed = Some(cx.now);
    let closes: Timestamp = cx.now.plus(FORMER);
    for (mailbox, mut known) in left(cx, chat)? {
        if known.closes.is_none() {
            known.closes = Some(closes);
            cx.unit.put(&mailbox, &known);
        }
    }
    Ok(())
}
