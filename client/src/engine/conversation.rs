//! Messages of a chat: written, taken, shown.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use lapwing_protocol::content::{Body, Content, MAX_TEXT, MessageId};
use lapwing_vault::{NONCE_LEN, TAG_LEN, XChaCha};
use lapwing_wire::{ids::labelled_hash, time::Timestamp};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::{Cx, Effect, Fault, contact, group, outgoing, renewal, trust};
use crate::store::{
    BodyKeyName, ChatId, ChatKind, ChatRow, ContactRow, ContactState, Counter, MessageRow, MessageState,
    OpKind, Order, StoreError, Unit, Writer,
};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Messages looked at in one go while counting.
const PAGE: usize = 256;
use crate::labels::MESSAGE_BODY as BODY_LABEL;

/// Name of the key that seals a chat's bodies of one day, so that they can be made unreadable together.
fn body_key_name(chat: &ChatId, stored: Timestamp) -> BodyKeyName {
    let day = stored.as_millis() / DAY_MS;
    let hash = labelled_hash(BODY_LABEL, &[chat.as_bytes(), &day.to_be_bytes()]);
    let mut name = [0; 16];
    name.copy_from_slice(&hash[..16]);
    name
}

/// Name of the key for bodies of all chats, where the table has no room for another key. It is made with the first
/// message, while there is room.
fn spare_key_name() -> BodyKeyName {
    let mut name = [0; 16];
    name.copy_from_slice(&labelled_hash(BODY_LABEL, &[])[..16]);
    name
}

/// The key for a body of today, and its name. The table of a volume holds some thousand keys; a message that cannot
/// have one of its own day is worth more than none.
fn body_key(cx: &Cx<'_, '_, '_>, chat: &ChatId) -> Result<(BodyKeyName, Zeroizing<[u8; 32]>), Fault> {
    let spare = spare_key_name();
    let spare_key = cx.unit.make_body_key(&spare)?;
    let name = body_key_name(chat, cx.now);
    match cx.unit.make_body_key(&name) {
        Ok(key) => Ok((name, key)),
        Err(StoreError::Full) => Ok((spare, spare_key)),
        Err(error) => Err(error.into()),
    }
}

/// What a body is bound to: label, chat, place.
fn associated(chat: &ChatId, order: Order) -> [u8; BODY_LABEL.len() + 16 + 8] {
    let mut data = [0; BODY_LABEL.len() + 16 + 8];
    let (label, place) = data.split_at_mut(BODY_LABEL.len());
    label.copy_from_slice(BODY_LABEL);
    let (of, at) = place.split_at_mut(16);
    of.copy_from_slice(chat.as_bytes());
    at.copy_from_slice(&order.to_be_bytes());
    data
}

/// A message to be stored.
pub(super) struct NewMessage<'a> {
    pub(super) id: MessageId,
    pub(super) writer: Writer,
    pub(super) sent: Timestamp,
    pub(super) state: MessageState,
    pub(super) text: &'a str,
}

/// Stores a message; its text is sealed.
pub(super) fn store(cx: &mut Cx<'_, '_, '_>, chat: ChatId, message: &NewMessage<'_>) -> Result<Order, Fault> {
    let order = cx.unit.next(Counter::Order)?;
    let (name, key) = body_key(cx, &chat)?;
    let nonce: [u8; NONCE_LEN] = cx.random();
    let cipher = XChaCha20Poly1305::new((&*key).into());
    let payload = Payload { msg: message.text.as_bytes(), aad: &associated(&chat, order) };
    let sealed = cipher
        .encrypt(XNonce::from_slice(&nonce), payload)
        .map_err(|_| Fault::Inconsistent("a message cannot be sealed"))?;
    let row = MessageRow {
        id: message.id,
        writer: message.writer,
        sent: message.sent,
        stored: cx.now,
        state: message.state,
        key: name,
        body: ByteBuf::from([nonce.as_slice(), &sealed].concat()),
    };
    cx.unit.put(&(chat, order), &row);
    if let Some(mut shown) = cx.unit.get::<ChatRow>(&chat)? {
        shown.last = Some(cx.now);
        shown.unread = shown.unread.saturating_add(u64::from(message.writer != Writer::Me));
        shown.waiting = shown.waiting.saturating_add(u64::from(message.state == MessageState::Waiting));
        cx.unit.put(&chat, &shown);
    }
    Ok(order)
}

/// Remembers what was shown.
pub(super) fn mark_read(cx: &mut Cx<'_, '_, '_>, chat: ChatId, order: Order) -> Result<(), Fault> {
    let mut row = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    if row.read_to >= order {
        return Ok(());
    }
    row.read_to = order;
    let mut unread = 0;
    let mut after = (chat, order);
    loop {
        let page = cx.unit.range::<MessageRow>(chat.as_bytes(), Some(&after), PAGE, false)?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        unread += page.iter().filter(|(_, message)| message.writer != Writer::Me).count();
    }
    row.unread = u64::try_from(unread).unwrap_or(u64::MAX);
    cx.unit.put(&chat, &row);
    Ok(())
}

/// The text of a stored message. `None` if its key is gone.
pub(super) fn text_of(
    unit: &Unit<'_>,
    chat: &ChatId,
    order: Order,
    row: &MessageRow,
) -> Result<Option<Zeroizing<String>>, Fault> {
    let Some(key) = unit.body_key(&row.key)? else { return Ok(None) };
    let mut text = Zeroizing::new(Vec::new());
    let opened = open_body(&key, chat, order, &row.body, &mut text);
    Ok(opened.then(|| String::from_utf8(std::mem::take(&mut *text)).ok().map(Zeroizing::new)).flatten())
}

/// Opens a body into `out`, in place of what that held. Returns whether it is authentic; if not, `out` is empty.
pub(super) fn open_body(
    key: &[u8; 32],
    chat: &ChatId,
    order: Order,
    body: &[u8],
    out: &mut Zeroizing<Vec<u8>>,
) -> bool {
    out.clear();
    let Some((nonce, sealed)) = body.split_first_chunk::<NONCE_LEN>() else { return false };
    let Some((sealed, tag)) = sealed.split_last_chunk::<TAG_LEN>() else { return false };
    out.resize(sealed.len(), 0);
    let opened = XChaCha::new(key).open(nonce, &associated(chat, order), sealed, tag, out);
    if !opened {
        out.clear();
    }
    opened
}

/// A line of the program's own in a chat.
pub(super) fn note(cx: &mut Cx<'_, '_, '_>, chat: ChatId, text: &str) -> Result<Order, Fault> {
    let id = MessageId::from_bytes(cx.random());
    let message =
        NewMessage { id, writer: Writer::Program, sent: cx.now, state: MessageState::Received, text };
    let order = store(cx, chat, &message)?;
    cx.tell(Effect::Message { chat, order });
    Ok(order)
}

/// Writes a message into a chat and records that it has to be sent.
pub(super) fn send(cx: &mut Cx<'_, '_, '_>, chat: ChatId, text: &str) -> Result<Order, Fault> {
    let row = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    if text.trim().is_empty() {
        return Err(Fault::EmptyText);
    }
    if text.len() > MAX_TEXT {
        return Err(Fault::TextTooLong);
    }
    if row.blocked {
        return Err(Fault::Blocked);
    }
    if row.kind == ChatKind::Group {
        return group::send(cx, chat, text);
    }
    let contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::Inconsistent("a contact is missing"))?;
    match contact.state {
        ContactState::Invited => return Err(Fault::NotJoined),
        ContactState::Joining => return Err(Fault::NotEstablished),
        ContactState::Failed => return Err(Fault::ContactFailed),
        ContactState::Joined | ContactState::Established => {}
    }
    let id = MessageId::from_bytes(cx.random());
    let message = NewMessage { id, writer: Writer::Me, sent: cx.now, state: MessageState::Waiting, text };
    let order = store(cx, chat, &message)?;
    // A first message must not overtake the introduction, which waits for our own mailbox.
    outgoing::send_content_as(cx, chat, id, Body::Text(text.to_owned()), Some(order), contact.inbox)?;
    Ok(order)
}

/// Takes authentic content of a contact.
pub(super) fn take(cx: &mut Cx<'_, '_, '_>, chat: ChatId, content: Content) -> Result<(), Fault> {
    let Content { id, sent, body } = content;
    match body {
        Body::Text(_) if renewal::is_repeated(cx, chat, id)? => {}
        Body::Text(text) => {
            let message =
                NewMessage { id, writer: Writer::Peer, sent, state: MessageState::Received, text: &text };
            let order = store(cx, chat, &message)?;
            cx.tell(Effect::Message { chat, order });
        }
        // A second introduction changes nothing; `Ready` did its work by arriving.
        Body::Hello(_) | Body::Ready => {}
        Body::Route(route) => contact::moved(cx, chat, &route)?,
        Body::RenewalTicket(ticket) => renewal::received(cx, chat, &ticket)?,
        Body::Renewal(route) => renewal::repeated(cx, chat, &route)?,
        Body::TrustRequest(request) => trust::requested(cx, chat, &request)?,
        Body::TrustAccept(answer) => trust::accepted(cx, chat, &answer)?,
        Body::TrustRemove(answer) => trust::removed(cx, chat, &answer)?,
        Body::AlertAck(ack) => trust::acknowledged(cx, chat, &ack)?,
        Body::GroupInvite(invite) => group::invited(cx, chat, &invite)?,
        Body::GroupJoin(join) => group::join_requested(cx, chat, &join)?,
        Body::GroupWelcome(welcome) => group::welcomed(cx, chat, welcome)?,
        Body::GroupDecline(decline) => group::declined(cx, chat, &decline)?,
        // Kinds that this version's protocol crate may learn before the engine does are told like unknown ones.
        _ => {
            note(cx, chat, "a message arrived that this version of lapwing does not understand")?;
        }
    }
    Ok(())
}

/// What an operation carried will not be delivered.
pub(super) fn undelivered(cx: &mut Cx<'_, '_, '_>, kind: &OpKind) -> Result<(), Fault> {
    let OpKind::Append { chat, order: Some(order), mailbox: _, write: _, key: _, envelope: _ } = kind else {
        return Ok(());
    };
    set_state(cx, *chat, *order, MessageState::Failed)?;
    cx.tell(Effect::Undelivered { chat: *chat, order: *order });
    Ok(())
}

/// Records where a message is.
pub(super) fn set_state(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    order: Order,
    state: MessageState,
) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<MessageRow>(&(chat, order))? else { return Ok(()) };
    let waited = u64::from(row.state == MessageState::Waiting);
    row.state = state;
    cx.unit.put(&(chat, order), &row);
    if let Some(mut shown) = cx.unit.get::<ChatRow>(&chat)? {
        let waits = u64::from(state == MessageState::Waiting);
        shown.waiting = shown.waiting.saturating_add(waits).saturating_sub(waited);
        cx.unit.put(&chat, &shown);
    }
    Ok(())
}
