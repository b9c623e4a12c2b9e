//! How two people find each other: tickets, first messages, fresh mailboxes (design 6.1).
//!
//! ```text
//! inviter                                   joiner
//! invite: bundle blob, ticket mailbox T
//!            ---------- ticket ----------->
//!                                           join: fetches the bundle, makes mailbox J
//!            <--- T: Hello{route to J} ----
//! makes I    ---- J: Route{route to I} --->
//!                                           re-seals what waited for T
//!            <--------- I: Ready ----------
//! closes T
//! ```
//! Invariants: CON-01 the ticket is consumed by the commit that accepts the first message; CON-02 until an authentic
//! message arrives on I, each authentic message on T is answered by the same Route; CON-03 T is closed only when all
//! that came into it is taken; CON-04 nobody is told a mailbox that its relay has not confirmed.

use std::time::Duration;

use lapwing_protocol::{
    content::{Body, Content, Hello},
    envelope::EnvelopeKey,
    renewal::RefusalIn,
    route::Route,
    session::{self, BundleUse, LocalIdentity, Session},
    ticket::{self, Ticket, TicketError},
};
use lapwing_wire::{
    address::RelayKey,
    capability::SecretKey,
    frame::{BlobPart, MailboxKind, ResponseBody},
    ids::{BlobHash, MailboxId},
};
use serde_bytes::ByteBuf;

use super::{
    Cx, Effect, Fault, conversation, expiry, files,
    outgoing::{self, DIRECT, local_identity, seed},
    relays, renewal, retention,
};
use crate::store::{
    ChatId, ChatKind, ChatRow, ContactRow, ContactState, JoiningRow, MailboxRow, NameRow, OpId, OpKind,
    OpRow, Purpose, TakenTicketRow, Unit,
};

/// How long a ticket can be used unless its maker says otherwise: long enough to meet, short enough to be forgotten.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest validity: the relay forgets the bundle after thirty days.
pub const MAX_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest name of a chat, in characters.
pub(super) const MAX_NAME: usize = 64;

/// A name as it may be stored: trimmed, printable, 1 to 64 characters.
pub(super) fn checked_name(name: &str) -> Result<String, Fault> {
    let name = name.trim();
    let printable = name.chars().all(|c| !c.is_control() && c != '\u{2028}' && c != '\u{2029}');
    if name.is_empty() || name.chars().count() > MAX_NAME || !printable {
        return Err(Fault::BadName);
    }
    Ok(name.to_owned())
}

/// The chat with this name.
pub(super) fn find(cx: &Cx<'_, '_, '_>, name: &str) -> Result<(ChatId, ChatRow), Fault> {
    let chat = id_of(cx.unit, name)?;
    let row = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    Ok((chat, row))
}

/// The id of the chat with this name.
pub(super) fn id_of(unit: &Unit<'_>, name: &str) -> Result<ChatId, Fault> {
    let named = unit.get::<NameRow>(&name.trim().to_owned())?;
    named.map(|row| row.chat).ok_or(Fault::UnknownChat)
}

/// Gives a chat another name.
pub(super) fn rename(cx: &mut Cx<'_, '_, '_>, chat: &str, name: &str) -> Result<(), Fault> {
    let (id, mut row) = find(cx, chat)?;
    let name = checked_name(name)?;
    if cx.unit.get::<NameRow>(&name)?.is_some_and(|named| named.chat != id) {
        return Err(Fault::NameTaken);
    }
    cx.unit.delete::<NameRow>(&row.name);
    cx.unit.put(&name, &NameRow { chat: id });
    row.name = name;
    cx.unit.put(&id, &row);
    Ok(())
}

/// Makes a chat under a name that is free.
pub(super) fn new_chat(cx: &mut Cx<'_, '_, '_>, name: &str, kind: ChatKind) -> Result<ChatId, Fault> {
    let name = checked_name(name)?;
    if cx.unit.get::<NameRow>(&name)?.is_some() {
        return Err(Fault::NameTaken);
    }
    let chat = ChatId::from_bytes(cx.random());
    cx.unit.put(&name, &NameRow { chat });
    let row = ChatRow {
        name,
        kind,
        created: cx.now,
        blocked: false,
        read_to: 0,
        unread: 0,
        waiting: 0,
        last: None,
    };
    cx.unit.put(&chat, &row);
    Ok(chat)
}

/// Makes a ticket and the chat that its user will be in.
pub(super) fn invite(
    cx: &mut Cx<'_, '_, '_>,
    name: &str,
    relay: Option<&RelayKey>,
    validity: Duration,
) -> Result<(ChatId, String), Fault> {
    let relay = relays::default_relay(cx.unit, relay)?.address;
    let chat = new_chat(cx, name, ChatKind::Direct)?;
    let mut local = LocalIdentity::generate(&mut cx.rng)?;
    let now = cx.system_time();
    let bundle = local.new_bundle(BundleUse::Once, now, &mut cx.rng)?.encode()?;
    let mailbox = outgoing::new_mailbox(cx, &relay, Purpose::Ticket(chat), MailboxKind::Queue)?;
    let expires = cx.now.plus(validity.min(MAX_VALIDITY));
    let mut row = cx.unit.get::<MailboxRow>(&mailbox)?.ok_or(Fault::Inconsistent("a mailbox is missing"))?;
    row.closes = Some(expires);
    cx.unit.put(&mailbox, &row);
    let route = outgoing::route_to(cx, &mailbox)?;
    let blob = ticket::seal_bundle(&route.key, &bundle, &mut cx.rng)
        .map_err(|_| Fault::Inconsistent("a bundle is too long"))?;
    let hash = BlobHash::of(&blob);
    outgoing::push(cx, &relay, OpKind::PutBlob { hash, bytes: ByteBuf::from(blob), offset: 0 }, None)?;
    let contact = ContactRow {
        state: ContactState::Invited,
        local: ByteBuf::from(local.export()?.expose().to_vec()),
        session: None,
        route: None,
        inbox: None,
        ticket_mailbox: Some(mailbox),
        ticket: None,
        verified: false,
    };
    cx.unit.put(&chat, &contact);
    let text = Ticket { route, bundle: hash, expires, reusable: false }.to_text();
    Ok((chat, text))
}

/// Takes a ticket: begins the chat and records that its bundle has to be fetched.
pub(super) fn join(cx: &mut Cx<'_, '_, '_>, text: &str, name: &str) -> Result<ChatId, Fault> {
    let ticket = Ticket::from_text(text, cx.now).map_err(|error| match error {
        TicketError::NotATicket => Fault::NotATicket,
        TicketError::Expired => Fault::ExpiredTicket,
        TicketError::Version => Fault::NewerTicket,
        _ => Fault::DamagedTicket,
    })?;
    relays::default_relay(cx.unit, None)?;
    if cx.unit.get::<MailboxRow>(&ticket.route.mailbox)?.is_some() {
        return Err(Fault::OwnTicket);
    }
    if let Some(taken) = cx.unit.get::<TakenTicketRow>(&ticket.route.mailbox)?
        && cx.unit.get::<ContactRow>(&taken.chat)?.is_some_and(|known| known.state != ContactState::Failed)
    {
        return Err(Fault::TicketUsedHere);
    }
    let chat = new_chat(cx, name, ChatKind::Direct)?;
    cx.unit.put(&ticket.route.mailbox, &TakenTicketRow { chat, until: Some(ticket.expires) });
    cx.unit.put(&chat, &JoiningRow { until: ticket.expires });
    let local = LocalIdentity::generate(&mut cx.rng)?;
    let contact = ContactRow {
        state: ContactState::Joining,
        local: ByteBuf::from(local.export()?.expose().to_vec()),
        session: None,
        route: None,
        inbox: None,
        ticket_mailbox: None,
        ticket: Some(ByteBuf::from(text.trim().as_bytes().to_vec())),
        verified: false,
    };
    cx.unit.put(&chat, &contact);
    outgoing::push(cx, &ticket.route.relay, OpKind::GetBundle { hash: ticket.bundle, chat }, None)?;
    Ok(chat)
}

/// The relay answered the request for a ticket's bundle.
pub(super) fn bundle_answer(
    cx: &mut Cx<'_, '_, '_>,
    op: OpId,
    chat: ChatId,
    body: ResponseBody,
) -> Result<(), Fault> {
    let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)? else {
        cx.unit.delete::<OpRow>(&op);
        return Ok(());
    };
    let text = contact.ticket.as_deref().map(|t| String::from_utf8_lossy(t).into_owned()).unwrap_or_default();
    let Ok(ticket) = Ticket::from_text(&text, cx.now) else {
        return fail(cx, op, chat, contact);
    };
    let part = match body {
        ResponseBody::BlobPart(part) => part,
        // The inviter may not have been online yet: asked again until the ticket expires.
        ResponseBody::Refused(refusal) => {
            if let Some(mut row) = cx.unit.get::<OpRow>(&op)? {
                row.refused = Some(refusal);
                cx.unit.put(&op, &row);
            }
            return Ok(());
        }
        _ => return fail(cx, op, chat, contact),
    };
    let BlobPart { total: _, bytes } = part;
    let Ok(bundle) = ticket.open_bundle(&bytes) else { return fail(cx, op, chat, contact) };
    cx.unit.delete::<OpRow>(&op);
    let local = local_identity(&contact)?;
    let now = cx.system_time();
    let Ok(session) = Session::initiate(&local, &bundle, now, &mut cx.rng) else {
        return fail(cx, op, chat, contact);
    };
    let relay = relays::default_relay(cx.unit, None)?.address;
    let inbox = outgoing::new_mailbox(cx, &relay, Purpose::Direct(chat), MailboxKind::Queue)?;
    contact.session = Some(ByteBuf::from(session.export()?.expose().to_vec()));
    contact.route = Some(ByteBuf::from(ticket.route.export().expose().to_vec()));
    contact.inbox = Some(inbox);
    contact.state = ContactState::Joined;
    cx.unit.put(&chat, &contact);
    // The inviter may have been away until then, and take it when he is back.
    cx.unit.put(&chat, &JoiningRow { until: ticket.expires.plus(MAX_VALIDITY) });
    let hello = Hello { route: outgoing::route_to(cx, &inbox)?, alias: None };
    outgoing::send_content(cx, chat, Body::Hello(hello), None, Some(inbox))?;
    expiry::announce(cx, chat)
}

fn fail(cx: &mut Cx<'_, '_, '_>, op: OpId, chat: ChatId, contact: ContactRow) -> Result<(), Fault> {
    cx.unit.delete::<OpRow>(&op);
    failed(cx, chat, contact)
}

/// A contact came to nothing.
pub(super) fn failed(cx: &mut Cx<'_, '_, '_>, chat: ChatId, mut contact: ContactRow) -> Result<(), Fault> {
    contact.state = ContactState::Failed;
    retention::forget_session(&mut contact);
    cx.unit.delete::<JoiningRow>(&chat);
    if let Some(inbox) = contact.inbox.take() {
        outgoing::close_mailbox(cx, &inbox)?;
    }
    cx.unit.put(&chat, &contact);
    files::give_up(cx, chat)?;
    cx.tell(Effect::Contact { chat });
    Ok(())
}

/// A message on the mailbox of our ticket. `false` if it was refused.
pub(super) fn on_ticket_mailbox(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    message: &[u8],
) -> Result<bool, Fault> {
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(false) };
    if contact.session.is_none() {
        return first_message(cx, chat, contact, message);
    }
    let Some(content) = open(cx, chat, contact, message)? else { return Ok(false) };
    // CON-02
    answer_with_route(cx, chat)?;
    conversation::take(cx, chat, content)?;
    Ok(true)
}

fn first_message(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    mut contact: ContactRow,
    message: &[u8],
) -> Result<bool, Fault> {
    let mut local = local_identity(&contact)?;
    let Ok(accepted) = session::accept_first(&mut local, None, message, DIRECT, &mut cx.rng) else {
        return Ok(false);
    };
    // CON-01: only an introduction consumes the ticket.
    let Ok(Content { id: _, sent: _, body: Body::Hello(Hello { route, alias: _ }) }) =
        Content::decode(accepted.plaintext.expose())
    else {
        return Ok(false);
    };
    let ticket_mailbox = match contact.ticket_mailbox {
        Some(mailbox) => cx.unit.get::<MailboxRow>(&mailbox)?.map(|row| (mailbox, row)),
        None => None,
    };
    let relay = match ticket_mailbox {
        Some((mailbox, mut row)) => {
            let relay = row.relay.clone();
            // CON-02: it stays open for as long as the joiner may know no other.
            row.closes = None;
            cx.unit.put(&mailbox, &row);
            relay
        }
        None => relays::default_relay(cx.unit, None)?.address,
    };
    let inbox = outgoing::new_mailbox(cx, &relay, Purpose::Direct(chat), MailboxKind::Queue)?;
    contact.local = ByteBuf::from(local.export()?.expose().to_vec());
    contact.session = Some(ByteBuf::from(accepted.session.export()?.expose().to_vec()));
    contact.route = Some(ByteBuf::from(route.export().expose().to_vec()));
    contact.inbox = Some(inbox);
    contact.state = ContactState::Established;
    cx.unit.put(&chat, &contact);
    answer_with_route(cx, chat)?;
    expiry::announce(cx, chat)?;
    cx.tell(Effect::Contact { chat });
    Ok(true)
}

fn answer_with_route(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    let Some(inbox) = contact.inbox else { return Ok(()) };
    let route = outgoing::route_to(cx, &inbox)?;
    outgoing::send_content(cx, chat, Body::Route(route), None, Some(inbox))?;
    Ok(())
}

/// A message on our mailbox for a contact. `false` if it was refused.
pub(super) fn on_direct_mailbox(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    message: &[u8],
) -> Result<bool, Fault> {
    if let Some(refusal) = RefusalIn::parse(message) {
        return renewal::refused(cx, chat, &refusal);
    }
    if let Some(taken) = renewal::accept(cx, chat, message)? {
        return Ok(taken);
    }
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(false) };
    let ticket_mailbox = contact.ticket_mailbox;
    let established = contact.state == ContactState::Established;
    let Some(content) = open(cx, chat, contact, message)? else {
        let Some(content) = renewal::open_former(cx, chat, message)? else { return Ok(false) };
        conversation::take(cx, chat, content)?;
        return Ok(true);
    };
    if established {
        renewal::enrol(cx, chat)?;
        renewal::answered(cx, chat)?;
    }
    // CON-03: from now on the ticket's mailbox closes as soon as it is empty.
    if let Some(mailbox) = ticket_mailbox
        && let Some(mut row) = cx.unit.get::<MailboxRow>(&mailbox)?
        && row.closes.is_none_or(|closes| closes > cx.now)
    {
        row.closes = Some(cx.now);
        cx.unit.put(&mailbox, &row);
    }
    conversation::take(cx, chat, content)?;
    Ok(true)
}

/// Decrypts for a contact and stages the advanced session. `None` for what is refused.
fn open(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    mut contact: ContactRow,
    message: &[u8],
) -> Result<Option<Content>, Fault> {
    let Some(stored) = contact.session.as_ref() else { return Ok(None) };
    let mut session = Session::import(stored)?;
    let mut local = local_identity(&contact)?;
    let Ok(plaintext) = session.decrypt(&mut local, message, DIRECT, &mut cx.rng) else { return Ok(None) };
    contact.session = Some(ByteBuf::from(session.export()?.expose().to_vec()));
    contact.local = ByteBuf::from(local.export()?.expose().to_vec());
    cx.unit.put(&chat, &contact);
    Ok(Content::decode(plaintext.expose()).ok())
}

/// The peer named the mailbox that he reads from now on.
pub(super) fn moved(cx: &mut Cx<'_, '_, '_>, chat: ChatId, route: &Route) -> Result<(), Fault> {
    let mut contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    let was_established = contact.state == ContactState::Established;
    // What the ticket could do is not kept.
    contact.ticket = None;
    cx.unit.delete::<JoiningRow>(&chat);
    let known = contact.route.as_ref().and_then(|r| Route::import(r).ok()).map(|r| r.mailbox);
    contact.state = ContactState::Established;
    contact.route = Some(ByteBuf::from(route.export().expose().to_vec()));
    cx.unit.put(&chat, &contact);
    if known == Some(route.mailbox) {
        return Ok(());
    }
    outgoing::reroute(cx, chat, route)?;
    outgoing::send_content(cx, chat, Body::Ready, None, None)?;
    renewal::enrol(cx, chat)?;
    if !was_established {
        cx.tell(Effect::Contact { chat });
    }
    Ok(())
}

/// A mailbox that is to be closed holds nothing more.
pub(super) fn drained(cx: &mut Cx<'_, '_, '_>, mailbox: &MailboxId, purpose: Purpose) -> Result<(), Fault> {
    outgoing::close_mailbox(cx, mailbox)?;
    if let Purpose::Ticket(chat) = purpose
        && let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)?
    {
        contact.ticket_mailbox = None;
        // The private keys of the ticket have no use any more.
        let mut local = local_identity(&contact)?;
        local.retire_all_bundles();
        contact.local = ByteBuf::from(local.export()?.expose().to_vec());
        if contact.state == ContactState::Invited {
            return failed(cx, chat, contact);
        }
        cx.unit.put(&chat, &contact);
    }
    Ok(())
}

/// Ends joinings that nobody will answer any more.
pub(super) fn expire(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    for (chat, row) in cx.unit.scan::<JoiningRow>(&[])? {
        if row.until > cx.now {
            continue;
        }
        cx.unit.delete::<JoiningRow>(&chat);
        let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { continue };
        drop_operations(cx, chat)?;
        failed(cx, chat, contact)?;
    }
    Ok(())
}

/// What waits for a contact will not leave.
fn drop_operations(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    for (op, pending) in cx.unit.scan::<OpRow>(&[])? {
        let of_chat = match &pending.kind {
            OpKind::Append { chat: target, .. } | OpKind::GetBundle { chat: target, .. } => *target == chat,
            _ => false,
        };
        if of_chat {
            cx.unit.delete::<OpRow>(&op);
            conversation::undelivered(cx, &pending.kind)?;
        }
    }
    Ok(())
}

/// Blocks a chat: its mailboxes end, nothing is taken or sent any more.
pub(super) fn block(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let mut row = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)? else { return Err(Fault::NotDirect) };
    row.blocked = true;
    cx.unit.put(&chat, &row);
    for mailbox in [contact.inbox.take(), contact.ticket_mailbox.take()].into_iter().flatten() {
        outgoing::close_mailbox(cx, &mailbox)?;
    }
    cx.unit.put(&chat, &contact);
    cx.unit.delete::<JoiningRow>(&chat);
    renewal::close_left(cx, chat)?;
    files::give_up(cx, chat)?;
    drop_operations(cx, chat)
}

/// Undoes [`block`]: a fresh mailbox, told to the peer.
pub(super) fn unblock(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let mut row = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)? else { return Err(Fault::NotDirect) };
    if !row.blocked {
        return Ok(());
    }
    row.blocked = false;
    cx.unit.put(&chat, &row);
    if contact.session.is_none() || contact.route.is_none() {
        contact.state = ContactState::Failed;
        cx.unit.put(&chat, &contact);
        return Ok(());
    }
    if renewal::succeed(cx, chat)? {
        return expiry::announce(cx, chat);
    }
    let relay = relays::default_relay(cx.unit, None)?.address;
    let inbox = outgoing::new_mailbox(cx, &relay, Purpose::Direct(chat), MailboxKind::Queue)?;
    contact.inbox = Some(inbox);
    cx.unit.put(&chat, &contact);
    answer_with_route(cx, chat)?;
    expiry::announce(cx, chat)
}

/// The keys that read a mailbox.
pub(super) fn read_key(row: &MailboxRow) -> Result<Option<SecretKey<lapwing_wire::capability::Read>>, Fault> {
    row.read.as_ref().map(|bytes| Ok(SecretKey::from_seed(seed(bytes)?))).transpose()
}

/// The key that opens a mailbox's envelopes.
pub(super) fn envelope_key(row: &MailboxRow) -> Result<EnvelopeKey, Fault> {
    Ok(EnvelopeKey::from_bytes(seed(&row.key)?))
}
