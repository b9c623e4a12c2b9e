//! Another identity of ours goes on with a chat that was moved, and the peer's takes over ours.
//!
//! ```text
//! A, in another compartment                        B
//! makes an identity A* and a mailbox, and a session with B's ticket
//!          ---- old session: successor{A*, first} --->   first = renewal{mailbox}, the first message of A*'s session
//!          <------ A*'s session: renewal_ticket -----    from now on the chat is with A*
//! ```
//!
//! Rules: MOV-05 only the session that is in use names a successor, or the one before while our own handshake waits;
//! MOV-06 the first message is a handshake of the successor with a ticket that was given in this chat; MOV-07 of two who
//! move at once the handshake with the lower base key goes on, and the other identity is succeeded once that is done;
//! MOV-08 the mailbox of the identity before is read for as long as its session, and left, not closed.

use std::time::{Duration, SystemTime};

use lapwing_protocol::{
    content::{Body, Content, MessageId},
    renewal::Successor,
    session::{self, Handshake, LocalIdentity, Session},
};
use lapwing_wire::frame::MailboxKind;
use serde_bytes::ByteBuf;

use super::{
    super::{
        Cx, Fault, conversation,
        outgoing::{self, DIRECT, local_identity},
    },
    AGAIN, FORMER,
    accept::{self, Renewed},
    begin, encrypt_waiting_anew, peer_of, put, send_anew_since, tickets,
};
use crate::store::{
    ChatId, ChatRow, ContactRow, ContactState, FormerSession, MailboxRow, Purpose, RenewalRow, WaitingRenewal,
};

/// Begins the succession of a chat that was moved, if it can begin now; otherwise it stays due. `true` if it began.
pub(in super::super) fn succeed(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<bool, Fault> {
    let Some(row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(false) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(false) };
    let blocked = cx.unit.get::<ChatRow>(&chat)?.is_none_or(|shown| shown.blocked);
    // RNW-03: one that was used is closed over there, whether or not the next one has come.
    let unused = row.ticket.is_some() && {
        let ticket = begin::ticket_of(&row)?;
        !row.spent.iter().any(|known| known.as_slice() == ticket.secret.expose())
    };
    let ready = row.succeeds && row.waiting.is_none() && unused;
    let reachable = contact.state == ContactState::Established && contact.route.is_some() && !blocked;
    if !ready || !reachable {
        return Ok(false);
    }
    hand_over(cx, chat, row, contact)
}

fn hand_over(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    mut row: RenewalRow,
    mut contact: ContactRow,
) -> Result<bool, Fault> {
    let Some(before) = contact.session.take() else { return Ok(false) };
    let ticket = begin::ticket_of(&row)?;
    let peer = *Session::import(&before)?.peer();
    let Ok(bundle) = ticket.bundle_of(&peer) else { return Ok(false) };
    let relay = begin::relay_of(cx, &contact)?;
    let old = tickets::keys(&contact, &row)?;
    let local = LocalIdentity::generate(&mut cx.rng)?;
    let now = cx.system_time();
    let mut session = Session::initiate(&local, &bundle, now, &mut cx.rng)?;
    let base = *session.first_handshake().ok_or(Fault::Inconsistent("a session without a handshake"))?;
    // MOV-08.
    if let Some(left) = contact.inbox
        && let Some(mut mailbox) = cx.unit.get::<MailboxRow>(&left)?
    {
        mailbox.admin = None;
        cx.unit.put(&left, &mailbox);
    }
    let inbox = outgoing::new_mailbox(cx, &relay, Purpose::Direct(chat), MailboxKind::Queue)?;
    let body = Body::Renewal(outgoing::route_to(cx, &inbox)?);
    let first = Content { id: MessageId::from_bytes(cx.random()), sent: cx.now, body };
    let first = first.encode().map_err(|_| Fault::Inconsistent("a route is too long"))?;
    let first = session.encrypt(first.expose(), DIRECT, now, &mut cx.rng)?;
    begin::spend(&mut row, &ticket);
    begin::remember(&mut row, &base);
    row.succeeds = false;
    row.carried |= contact.verified;
    row.waiting = Some(WaitingRenewal {
        since: cx.now,
        told: cx.now,
        base: ByteBuf::from(base.to_vec()),
        first: Some(ByteBuf::from(first.into_bytes())),
    });
    row.former = Some(FormerSession {
        session: before,
        local: Some(ByteBuf::from(old.export()?.expose().to_vec())),
        unanswered: false,
        until: cx.now.plus(FORMER),
    });
    row.keys = ByteBuf::new();
    contact.local = ByteBuf::from(local.export()?.expose().to_vec());
    contact.session = Some(ByteBuf::from(session.export()?.expose().to_vec()));
    contact.inbox = Some(inbox);
    cx.unit.put(&chat, &contact);
    let due = cx.now.plus(AGAIN);
    put(cx, chat, row, Some(due));
    tell(cx, chat)?;
    encrypt_waiting_anew(cx, chat)?;
    Ok(true)
}

/// Names the successor inside the session before; RNW-07 the same one each time.
pub(super) fn tell(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(()) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    let first = row.waiting.as_ref().and_then(|waiting| waiting.first.clone());
    let (Some(first), Some(former), Some(route)) = (first, &mut row.former, &contact.route) else {
        return Ok(());
    };
    let route = lapwing_protocol::route::Route::import(route)
        .map_err(|_| Fault::Inconsistent("a route cannot be read"))?;
    let successor = Successor { identity: *local_identity(&contact)?.public(), first: first.into_vec() };
    let id = MessageId::from_bytes(cx.random());
    let content = Content { id, sent: cx.now, body: Body::Successor(successor) };
    let plain = content.encode().map_err(|_| Fault::Inconsistent("a first message is too long"))?;
    let mut session = Session::import(&former.session)?;
    let now = cx.system_time();
    let message = session.encrypt(plain.expose(), DIRECT, now, &mut cx.rng)?;
    former.session = ByteBuf::from(session.export()?.expose().to_vec());
    let due = row.due;
    put(cx, chat, row, due);
    outgoing::append(cx, &route, chat, message.as_bytes(), None, contact.inbox)?;
    Ok(())
}

/// The time by which a message to a peer who does not know the successor yet is sealed. libsignal gives a session up that
/// nobody answered for thirty days, as the pre-keys may be gone; those of a ticket are not, and the announcement is repeated.
pub(in super::super) fn sealed_as_of(
    cx: &Cx<'_, '_, '_>,
    chat: &ChatId,
) -> Result<Option<SystemTime>, Fault> {
    let waiting = cx.unit.get::<RenewalRow>(chat)?.and_then(|row| row.waiting);
    let since = waiting.filter(|waiting| waiting.first.is_some()).map(|waiting| waiting.since);
    Ok(since.map(|since| SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis())))
}

/// The peer named another identity of his. `former`: under the session before.
pub(in super::super) fn succeeded(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    successor: &Successor,
    former: bool,
) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(()) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    let Ok(Some(handshake)) = session::claimed_handshake(&successor.first) else { return Ok(()) };
    if handshake.sender != successor.identity {
        return Ok(());
    }
    if let Some(stored) = &contact.session
        && Session::import(stored)?.knows_handshake(&handshake.base)
    {
        // He does not know our answer yet.
        outgoing::send_content(cx, chat, Body::Ready, None, contact.inbox)?;
        return Ok(());
    }
    // MOV-05.
    if former && row.waiting.is_none() {
        return Ok(());
    }
    // MOV-06.
    if !row.given.iter().any(|given| given.open && given.set == handshake.set)
        || handshake.sender == peer_of(&contact, &row)?
    {
        return Ok(());
    }
    // MOV-07.
    let ours = row.waiting.as_ref().filter(|waiting| waiting.first.is_some());
    if ours.is_some_and(|waiting| waiting.base.as_slice() < handshake.base.as_slice()) {
        return Ok(());
    }
    take_over(cx, chat, row, contact, &handshake, &successor.first)
}

fn take_over(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    mut row: RenewalRow,
    mut contact: ContactRow,
    handshake: &Handshake,
    first: &[u8],
) -> Result<(), Fault> {
    row.carried |= contact.verified;
    let both = row.waiting.as_ref().map(|waiting| (waiting.since, waiting.first.is_some()));
    let mut keys = match row.former.as_ref().and_then(|former| former.local.as_ref()) {
        // The ticket was given by the identity that ours was to succeed.
        Some(local) if both.is_some_and(|(_, moved)| moved) => LocalIdentity::import(local)?,
        _ => tickets::keys(&contact, &row)?,
    };
    let peer = Some(&handshake.sender);
    let Ok(accepted) = session::accept_first(&mut keys, peer, first, DIRECT, &mut cx.rng) else {
        return Ok(());
    };
    let Ok(Content { id: _, sent: _, body: Body::Renewal(route) }) =
        Content::decode(accepted.plaintext.expose())
    else {
        return Ok(());
    };
    if let Some((since, moved)) = both {
        // Our own handshake comes to nothing; the session before it is the one that both have read.
        if let Some(former) = &mut row.former {
            former.local = None;
            former.unanswered = false;
            contact.session = Some(former.session.clone());
        }
        if moved {
            let mut local = LocalIdentity::import(keys.export()?.expose())?;
            local.retire_all_bundles();
            contact.local = ByteBuf::from(local.export()?.expose().to_vec());
            row.succeeds = true;
        }
        row.waiting = None;
        let renewed = Renewed { session: accepted.session, route, keys, keeps_former: false };
        accept::take_over(cx, chat, row, contact, renewed)?;
        let inbox = cx.unit.get::<ContactRow>(&chat)?.and_then(|contact| contact.inbox);
        if let Some(inbox) = inbox {
            let route = outgoing::route_to(cx, &inbox)?;
            outgoing::send_content(cx, chat, Body::Route(route), None, Some(inbox))?;
        }
        send_anew_since(cx, chat, since)?;
    } else {
        let renewed = Renewed { session: accepted.session, route, keys, keeps_former: false };
        accept::take_over(cx, chat, row, contact, renewed)?;
        encrypt_waiting_anew(cx, chat)?;
    }
    conversation::note(
        cx,
        chat,
        "renewed the session, with a new key: the safety number is another one; compare it if this surprises you",
    )?;
    Ok(())
}
