//! Beginning a session anew with a contact who is known: after a restored backup, a copied vault, a moved chat.
//!
//! ```text
//! A                                              B
//!          <== tickets, inside the session ==>       each keeps the other's newest one
//! ...      the session is gone, or used twice
//! makes a fresh mailbox A'
//!          ---- B: first message, renewal{A'} --->   same identity: same chat
//!          <--------- A': renewal_ticket ---------   a new session, a new ticket
//! gives a new ticket
//! ```
//!
//! Rules (docs/protocol-renewal.md): RNW-01 tickets are given inside the session and renewed monthly; RNW-02 a ticket
//! is its giver's own; RNW-03 it is good for one handshake, which closes all tickets that were given to that peer;
//! RNW-04 only the identity that is pinned may use it, and only a `renewal` begins; RNW-05 the session before is only
//! read, for thirty days; RNW-06 a handshake with a used ticket is refused in a way that only the ticket's other end
//! can make or read; RNW-07 while no answer has come the first message is sent again once a day; RNW-08 what waited is
//! encrypted anew, and what comes twice is shown once, also if it was erased in between.
//!
//! | module | what |
//! | --- | --- |
//! | `tickets` | giving, taking |
//! | `begin` | our own handshake, and its end |
//! | `accept` | the peer's handshake |
//! | `succession` | another identity goes on, ours or the peer's |
//! | `refusal` | what is refused, on both sides |
//! | `view` | what is shown |

mod accept;
mod begin;
mod refusal;
mod succession;
mod tickets;
mod view;

use std::time::Duration;

use lapwing_protocol::{
    content::{Body, Content, MessageId},
    identity::IdentityKey,
    session::Session,
};
use lapwing_wire::{ids::MailboxId, time::Timestamp};
use serde_bytes::ByteBuf;

pub(super) use accept::{accept, repeated};
pub(super) use begin::{answered, begin};
pub(super) use refusal::refused;
pub(super) use succession::{sealed_as_of, succeed, succeeded};
pub(super) use tickets::{enrol, received};
pub use view::{RenewalView, carried, renewals};
pub(super) use view::{is_waiting, names_successor, waiting};

use super::{
    Cx, Fault, conversation, files,
    outgoing::{self, DIRECT, local_identity, seed},
    retention,
};
use crate::store::{
    ChatId, ContactRow, MailboxRow, MessageRow, MessageState, OpKind, OpRow, Order, Purpose, RenewalDueRow,
    RenewalRow, UploadRow, Writer,
};

/// How long a session that was replaced is still read, and the mailbox that it was read at is kept: as long as a
/// relay keeps what nobody fetches.
const FORMER: Duration = Duration::from_secs(30 * 24 * 3600);

/// RNW-07: how often an unanswered handshake is sent again. A relay may have lost it.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// RNW-07: for how long. Then libsignal gives the session up, and the relay what was not fetched.
const PATIENCE: Duration = Duration::from_secs(29 * 24 * 3600);

/// RNW-08: messages that are looked at for one that came before. More than anybody writes while a relay is away.
const RECENT: usize = 256;

/// Whom a chat is with, as pinned.
fn peer_of(contact: &ContactRow, row: &RenewalRow) -> Result<IdentityKey, Fault> {
    if let Some(session) = &contact.session {
        return Ok(*Session::import(session)?.peer());
    }
    let pinned = row.peer.as_ref().ok_or(Fault::NotEstablished)?;
    IdentityKey::from_bytes(seed(pinned)?).map_err(|_| Fault::Inconsistent("an identity cannot be read"))
}

/// Stores the record, to be looked at again at `due`.
fn put(cx: &mut Cx<'_, '_, '_>, chat: ChatId, mut row: RenewalRow, due: Option<Timestamp>) {
    if let Some(before) = row.due.take() {
        cx.unit.delete::<RenewalDueRow>(&(before, chat));
    }
    if let Some(due) = due {
        cx.unit.put(&(due, chat), &RenewalDueRow {});
    }
    row.due = due;
    cx.unit.put(&chat, &row);
}

/// The record of a chat that came from another compartment; it is looked at soon.
pub(super) fn arrived(cx: &mut Cx<'_, '_, '_>, chat: ChatId, mut row: RenewalRow, succeeds: bool) {
    row.due = None;
    row.succeeds = succeeds;
    let now = cx.now;
    put(cx, chat, row, Some(now));
}

/// The owner compared safety numbers, as they are now.
pub(super) fn compared(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    if let Some(mut row) = cx.unit.get::<RenewalRow>(&chat)?.filter(|row| row.carried) {
        row.carried = false;
        cx.unit.put(&chat, &row);
    }
    Ok(())
}

/// Closes the mailboxes of a chat that a renewal has left.
pub(super) fn close_left(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    for (mailbox, _) in left(cx, chat)? {
        outgoing::close_mailbox(cx, &mailbox)?;
    }
    Ok(())
}

/// Mailboxes of a chat that are read and that the peer should not write to any more.
fn left(cx: &Cx<'_, '_, '_>, chat: ChatId) -> Result<Vec<(MailboxId, MailboxRow)>, Fault> {
    let current = cx.unit.get::<ContactRow>(&chat)?.and_then(|contact| contact.inbox);
    let all = cx.unit.scan::<MailboxRow>(&[])?;
    let of_chat =
        |(id, row): &(MailboxId, MailboxRow)| row.purpose == Purpose::Direct(chat) && Some(*id) != current;
    Ok(all.into_iter().filter(of_chat).collect())
}

/// Whatever is due by now.
pub(super) fn tick(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    for ((at, chat), _) in cx.unit.scan::<RenewalDueRow>(&[])? {
        if at > cx.now {
            break;
        }
        // One chat that cannot be attended to must not keep the others waiting.
        cx.unit.savepoint();
        match attend(cx, chat, at) {
            Ok(()) => {}
            Err(fault @ Fault::Store(_)) => return Err(fault),
            Err(_) => {
                cx.unit.roll_back();
                if let Some(row) = cx.unit.get::<RenewalRow>(&chat)? {
                    let later = cx.now.plus(AGAIN);
                    put(cx, chat, row, Some(later));
                }
            }
        }
    }
    Ok(())
}

fn attend(cx: &mut Cx<'_, '_, '_>, chat: ChatId, at: Timestamp) -> Result<(), Fault> {
    let (Some(mut row), Some(contact)) =
        (cx.unit.get::<RenewalRow>(&chat)?, cx.unit.get::<ContactRow>(&chat)?)
    else {
        cx.unit.delete::<RenewalDueRow>(&(at, chat));
        return Ok(());
    };
    // RNW-05. While the peer does not know the successor, only the session before can name it.
    let names = row.waiting.as_ref().is_some_and(|waiting| waiting.first.is_some());
    if !names && row.former.as_ref().is_some_and(|former| former.until <= cx.now) {
        row.former = None;
    }
    if row.waiting.is_some() {
        return begin::again(cx, chat, row);
    }
    if row.succeeds && succeed(cx, chat)? {
        return Ok(());
    }
    tickets::give_when_due(cx, chat, row, &contact)
}

/// RNW-05: a message under the session before. What it says of mailboxes is over; the rest is taken.
pub(super) fn open_former(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    message: &[u8],
) -> Result<Option<Content>, Fault> {
    let Some(mut row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(None) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(None) };
    let Some(former) = &mut row.former else { return Ok(None) };
    if former.until <= cx.now && row.waiting.is_none() {
        return Ok(None);
    }
    let mut session = Session::import(&former.session)?;
    let mut local = match &former.local {
        Some(local) => lapwing_protocol::session::LocalIdentity::import(local)?,
        None => local_identity(&contact)?,
    };
    let Ok(plaintext) = session.decrypt(&mut local, message, DIRECT, &mut cx.rng) else { return Ok(None) };
    former.session = ByteBuf::from(session.export()?.expose().to_vec());
    if former.unanswered && row.waiting.is_some() {
        begin::adopt(cx, chat, row)?;
        return Ok(Content::decode(plaintext.expose()).ok());
    }
    let due = row.due;
    put(cx, chat, row, due);
    let Ok(content) = Content::decode(plaintext.expose()) else { return Ok(None) };
    match &content.body {
        Body::Route(route) => {
            begin::redirected(cx, chat, route)?;
            Ok(None)
        }
        Body::Successor(successor) => {
            succeeded(cx, chat, successor, true)?;
            Ok(None)
        }
        Body::Renewal(_) | Body::RenewalTicket(_) | Body::Ready | Body::Hello(_) => Ok(None),
        _ => Ok(Some(content)),
    }
}

/// RNW-08: whether this message of the peer is here already, or was until it was erased: he may not have known that it had left.
pub(super) fn is_repeated(cx: &Cx<'_, '_, '_>, chat: ChatId, id: MessageId) -> Result<bool, Fault> {
    let recent = |renewed: Timestamp| cx.now.since(renewed) < FORMER;
    let Some(row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(false) };
    if !row.renewed.is_some_and(recent) {
        return Ok(false);
    }
    let last = cx.unit.range::<MessageRow>(chat.as_bytes(), None, RECENT, true)?;
    Ok(last.iter().any(|(_, message)| message.id == id && message.writer == Writer::Peer)
        || retention::was_erased(cx, chat, &id)?)
}

/// RNW-08: what a person wrote and no relay has is encrypted anew for the session as it is now.
fn encrypt_waiting_anew(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    for order in drop_waiting(cx, chat)? {
        encrypt_anew(cx, chat, order)?;
    }
    Ok(())
}

/// As [`encrypt_waiting_anew`], with what was sent since then as well.
fn send_anew_since(cx: &mut Cx<'_, '_, '_>, chat: ChatId, since: Timestamp) -> Result<(), Fault> {
    drop_waiting(cx, chat)?;
    let mut last = cx.unit.range::<MessageRow>(chat.as_bytes(), None, RECENT, true)?;
    last.reverse();
    for ((_, order), message) in last {
        if message.stored >= since && message.writer == Writer::Me && message.state != MessageState::Failed {
            conversation::set_state(cx, chat, order, MessageState::Waiting)?;
            encrypt_anew(cx, chat, order)?;
        }
    }
    Ok(())
}

/// Drops the operations that carry messages of a person, and answers which.
fn drop_waiting(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<Vec<Order>, Fault> {
    let mut orders = Vec::new();
    for (op, pending) in cx.unit.scan::<OpRow>(&[])? {
        let OpKind::Append { chat: of, order: Some(order), .. } = &pending.kind else { continue };
        if *of == chat {
            cx.unit.delete::<OpRow>(&op);
            orders.push(*order);
        }
    }
    Ok(orders)
}

pub(super) fn encrypt_anew(cx: &mut Cx<'_, '_, '_>, chat: ChatId, order: Order) -> Result<(), Fault> {
    let Some(message) = cx.unit.get::<MessageRow>(&(chat, order))? else { return Ok(()) };
    // ATT-07: it leaves when its relay has all of the file.
    if cx.unit.get::<UploadRow>(&(chat, order))?.is_some() {
        return Ok(());
    }
    let Some(body) = files::body_of(cx.unit, (chat, order), &message)? else {
        return conversation::set_state(cx, chat, order, MessageState::Failed);
    };
    let inbox = cx.unit.get::<ContactRow>(&chat)?.and_then(|contact| contact.inbox);
    outgoing::send_content_as(cx, chat, message.id, body, Some(order), inbox)
}
