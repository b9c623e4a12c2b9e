//! Messages of a chat: written, taken, shown.

use lapwing_protocol::{
    content::{Body, Content, MAX_TEXT, MessageId},
    timer::Lifetime,
};
use lapwing_wire::time::Timestamp;
use zeroize::Zeroizing;

use super::{Cx, Effect, Fault, bodies, contact, expiry, files, group, outgoing, renewal, trust, voice};
use crate::store::{
    ChatId, ChatKind, ChatRow, ContactRow, ContactState, Counter, MessageRow, MessageState, OpKind, Order,
    Unit, Writer,
};

/// Messages looked at in one go while counting.
const PAGE: usize = 256;

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
    let sealed = bodies::seal(cx, chat, order, message.text)?;
    let lives = expiry::begin(cx, (chat, order), message.writer)?;
    let row = MessageRow {
        id: message.id,
        writer: message.writer,
        sent: message.sent,
        stored: cx.now,
        state: message.state,
        lives: lives.map(Lifetime::as_secs),
        key: sealed.key,
        body: sealed.body,
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

/// Remembers what was shown. TMR-04: the time of messages that disappear runs from here.
pub(super) fn mark_read(cx: &mut Cx<'_, '_, '_>, chat: ChatId, order: Order) -> Result<(), Fault> {
    let mut row = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    if row.read_to >= order {
        return Ok(());
    }
    let mut after = (chat, row.read_to);
    row.read_to = order;
    row.unread = 0;
    loop {
        let page = cx.unit.range::<MessageRow>(chat.as_bytes(), Some(&after), PAGE, false)?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (place, message) in page {
            if place.1 <= order {
                expiry::shown(cx, place, &message)?;
            } else {
                row.unread = row.unread.saturating_add(u64::from(message.writer != Writer::Me));
            }
        }
    }
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
    bodies::open(unit, chat, order, &row.key, &row.body)
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

/// Whether messages can be written into a chat, and what sort of chat it is.
pub(super) fn require_writable(unit: &Unit<'_>, chat: ChatId) -> Result<ChatKind, Fault> {
    let row = unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    if row.blocked {
        return Err(Fault::Blocked);
    }
    if row.kind == ChatKind::Group {
        return group::require_writable(unit, chat).map(|()| ChatKind::Group);
    }
    let contact = unit.get::<ContactRow>(&chat)?.ok_or(Fault::Inconsistent("a contact is missing"))?;
    match contact.state {
        ContactState::Invited => Err(Fault::NotJoined),
        ContactState::Joining => Err(Fault::NotEstablished),
        ContactState::Failed => Err(Fault::ContactFailed),
        ContactState::Joined | ContactState::Established => Ok(ChatKind::Direct),
    }
}

/// Writes a message into a chat and records that it has to be sent.
pub(super) fn send(cx: &mut Cx<'_, '_, '_>, chat: ChatId, text: &str) -> Result<Order, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::EmptyText);
    }
    if text.len() > MAX_TEXT {
        return Err(Fault::TextTooLong);
    }
    if require_writable(cx.unit, chat)? == ChatKind::Group {
        return group::send(cx, chat, text);
    }
    let contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::Inconsistent("a contact is missing"))?;
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
        Body::Text(_) | Body::File(_) if renewal::is_repeated(cx, chat, id)? => {}
        Body::Text(text) => {
            let message =
                NewMessage { id, writer: Writer::Peer, sent, state: MessageState::Received, text: &text };
            let order = store(cx, chat, &message)?;
            cx.tell(Effect::Message { chat, order });
        }
        Body::File(attachment) => {
            let text = &attachment.text;
            let message = NewMessage { id, writer: Writer::Peer, sent, state: MessageState::Received, text };
            let order = store(cx, chat, &message)?;
            files::keep(cx, (chat, order), &attachment)?;
            cx.tell(Effect::Message { chat, order });
        }
        // A second introduction changes nothing; `Ready` did its work by arriving.
        Body::Hello(_) | Body::Ready => {}
        Body::Timer(timer) => expiry::received(cx, chat, timer)?,
        Body::Route(route) => contact::moved(cx, chat, &route)?,
        Body::RenewalTicket(ticket) => renewal::received(cx, chat, &ticket)?,
        Body::Successor(successor) => renewal::succeeded(cx, chat, &successor, false)?,
        Body::Renewal(route) => renewal::repeated(cx, chat, &route)?,
        Body::TrustRequest(request) => trust::requested(cx, chat, &request)?,
        Body::TrustAccept(answer) => trust::accepted(cx, chat, &answer)?,
        Body::TrustRemove(answer) => trust::removed(cx, chat, &answer)?,
        Body::AlertAck(ack) => trust::acknowledged(cx, chat, &ack)?,
        Body::Voices(voices) => voice::received(cx, chat, &voices)?,
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
