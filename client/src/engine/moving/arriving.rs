//! The target's side: what comes is staged, and used once the source has let go of it.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::{
    super::{Cx, Effect, Fault, bodies, contact, erasing, expiry, files, relays, renewal},
    MovedChat, MovedMessage, STEP,
};
use crate::store::{
    AlertRow, ArrivalRow, ChatId, ChatRow, ContactState, Counter, DraftRow, ErasingRow, MailboxRow,
    MessageRow, MessageState, NameRow, OpId, OpKind, OpRow, Order, Purpose, StagedChat, StagedRow,
    TakenTicketRow, Unit, Writer,
};

/// Bytes of waiting envelopes that are put to use in one commit: so few go into the room that a full compartment keeps.
const USE: usize = 48 << 10;

/// Number of the staged chat.
const CHAT: u64 = 0;

/// What carries messages of a person is staged from this number on, after all else: with another identity they are
/// encrypted anew, and the rest leaves before the peer is told of it.
const CARRYING: u64 = 1 << 63;

pub(super) fn begin(
    cx: &mut Cx<'_, '_, '_>,
    arrival: &ArrivalRow,
    name: &str,
    is_open: bool,
) -> Result<ChatId, Fault> {
    let name = contact::checked_name(name)?;
    if cx.unit.get::<NameRow>(&name)?.is_some() {
        return Err(Fault::NameTakenThere);
    }
    if is_open {
        relays::default_relay(cx.unit, None).map_err(|fault| match fault {
            Fault::NoRelay => Fault::NoRelayThere,
            other => other,
        })?;
    }
    let chat = ChatId::from_bytes(cx.random());
    cx.unit.put(&chat, arrival);
    Ok(chat)
}

/// MOV-03. The key of a text is that of the day on which it came, as everywhere.
fn seal_as_of(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    order: Order,
    text: &str,
    stored: lapwing_wire::time::Timestamp,
) -> Result<bodies::Sealed, Fault> {
    let now = std::mem::replace(&mut cx.now, stored);
    let sealed = bodies::seal(cx, chat, order, text);
    cx.now = now;
    sealed
}

pub(super) fn take(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    messages: Vec<MovedMessage>,
) -> Result<Vec<(Order, Order)>, Fault> {
    let mut places = Vec::with_capacity(messages.len());
    for MovedMessage { order: before, row, text, file, deadline } in messages {
        let order = cx.unit.next(Counter::Order)?;
        let sealed = seal_as_of(cx, chat, order, &text, row.stored)?;
        cx.unit.put(&(chat, order), &MessageRow { key: sealed.key, body: sealed.body, ..row });
        if let Some(file) = file {
            files::moved_here(cx, (chat, order), &file)?;
        }
        if let Some(deadline) = deadline {
            expiry::carried_over(cx, (chat, order), deadline)?;
        }
        places.push((before, order));
    }
    Ok(places)
}

pub(super) fn hold(cx: &mut Cx<'_, '_, '_>, chat: ChatId, operations: Vec<(OpId, OpRow)>) {
    for (op, mut row) in operations {
        let OpKind::Append { chat: of, order, .. } = &mut row.kind else { continue };
        *of = chat;
        let number = op.saturating_add(1) | if order.is_some() { CARRYING } else { 0 };
        row.refused = None;
        cx.unit.put(&(chat, number), &StagedRow { op: Some(Box::new(row)), chat: None });
    }
}

pub(super) fn stage(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    name: &str,
    rest: MovedChat,
    places: &BTreeMap<Order, Order>,
) -> Result<(), Fault> {
    let MovedChat { shown, contact, renewal, timer, draft, mailboxes, tickets, alerts } = rest;
    let name = contact::checked_name(name)?;
    let read_to = places.range(..=shown.read_to).next_back().map_or(0, |(_, order)| *order);
    let draft = match draft {
        Some((text, row)) => {
            let number = cx.unit.next(Counter::Order)?;
            let sealed = seal_as_of(cx, chat, number, &text, row.stored)?;
            Some(DraftRow { number, key: sealed.key, body: sealed.body, ..row })
        }
        None => None,
    };
    let here = |row: MailboxRow| {
        let purpose = match row.purpose {
            Purpose::Ticket(_) => Purpose::Ticket(chat),
            _ => Purpose::Direct(chat),
        };
        MailboxRow { purpose, ..row }
    };
    let staged = StagedChat {
        shown: ChatRow { name, read_to, ..shown },
        contact,
        renewal,
        timer,
        draft,
        mailboxes: mailboxes.into_iter().map(|(id, row)| (id, here(row))).collect(),
        tickets: tickets.into_iter().map(|(id, row)| (id, TakenTicketRow { chat, ..row })).collect(),
        alerts: alerts
            .into_iter()
            .map(|(id, row)| (ByteBuf::from(id.to_vec()), AlertRow { chat, ..row }))
            .collect(),
    };
    cx.unit.put(&(chat, CHAT), &StagedRow { chat: Some(Box::new(staged)), op: None });
    Ok(())
}

/// MOV-01: the source has let go, and the chat is shown here.
pub(super) fn live(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let mut arrival = cx.unit.get::<ArrivalRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    if arrival.live {
        return Ok(());
    }
    let Some(staged) = cx.unit.get::<StagedRow>(&(chat, CHAT))?.and_then(|row| row.chat) else {
        return Err(Fault::Inconsistent("a chat that came is not whole"));
    };
    cx.unit.delete::<StagedRow>(&(chat, CHAT));
    arrival.live = true;
    cx.unit.put(&chat, &arrival);
    let StagedChat { shown, contact, renewal, timer, draft, mailboxes, tickets, alerts } = *staged;
    let shown = counted(cx, chat, shown)?;
    let name = free_name(cx, &shown.name)?;
    cx.unit.put(&name, &NameRow { chat });
    cx.unit.put(&chat, &ChatRow { name, ..shown });
    let succeeds = contact.state == ContactState::Established && contact.session.is_some();
    cx.unit.put(&chat, &contact);
    if let Some(timer) = timer {
        cx.unit.put(&chat, &timer);
    }
    if let Some(draft) = draft {
        cx.unit.put(&chat, &draft);
    }
    for (mailbox, row) in mailboxes {
        cx.unit.put(&mailbox, &row);
    }
    for (mailbox, row) in tickets {
        cx.unit.put(&mailbox, &row);
    }
    for (id, row) in alerts {
        let id = id.as_slice().try_into().map_err(|_| Fault::Inconsistent("an alert has another id"))?;
        cx.unit.put(&id, &row);
    }
    renewal::arrived(cx, chat, renewal.unwrap_or_default(), succeeds);
    Ok(())
}

pub(super) fn staged_name(unit: &Unit<'_>, chat: &ChatId) -> Result<Option<String>, Fault> {
    let staged = unit.get::<StagedRow>(&(*chat, CHAT))?.and_then(|row| row.chat);
    Ok(staged.map(|staged| staged.shown.name))
}

/// The source has let go of it, and nobody wants it here: it is shown and deleted in one commit, which leaves less than there
/// was and so has room where the chat has none (VLT-56, ERA-05, ERA-06).
pub(super) fn delete(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    live(cx, chat)?;
    let name = cx.unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?.name;
    erasing::chat(cx, &name, false)?;
    // What was to be sent is not sent (ERA-04). All at once: one after the other they might be left half gone.
    for (place, _) in cx.unit.scan::<StagedRow>(chat.as_bytes())? {
        cx.unit.delete::<StagedRow>(&place);
    }
    cx.unit.delete::<ArrivalRow>(&chat);
    Ok(())
}

/// While the chat was on its way, messages may have been erased that were due.
fn counted(cx: &Cx<'_, '_, '_>, chat: ChatId, mut shown: ChatRow) -> Result<ChatRow, Fault> {
    (shown.unread, shown.waiting, shown.last) = (0, 0, None);
    let mut after = None;
    loop {
        let page = cx.unit.range::<MessageRow>(chat.as_bytes(), after.as_ref(), STEP, false)?;
        let Some((last, _)) = page.last() else { return Ok(shown) };
        after = Some(*last);
        for ((_, order), row) in page {
            shown.unread += u64::from(row.writer != Writer::Me && order > shown.read_to);
            shown.waiting += u64::from(row.state == MessageState::Waiting);
            shown.last = Some(row.stored);
        }
    }
}

/// The name was free when the chat set out. If it is not any more, the chat gets a number.
fn free_name(cx: &Cx<'_, '_, '_>, name: &str) -> Result<String, Fault> {
    let mut free = name.to_owned();
    for number in 2_u64.. {
        if cx.unit.get::<NameRow>(&free)?.is_none() {
            break;
        }
        let suffix = format!(" {number}");
        let room = contact::MAX_NAME.saturating_sub(suffix.chars().count());
        let kept: String = name.chars().take(room).collect();
        free = format!("{}{suffix}", kept.trim_end());
    }
    Ok(free)
}

/// A part of what waits for relays, as it is; what carries messages is encrypted anew for another identity that was named.
/// `true` if there is more.
pub(super) fn put_to_use(cx: &mut Cx<'_, '_, '_>, chat: ChatId, carrying: bool) -> Result<bool, Fault> {
    let (after, end) = if carrying { (CARRYING, u64::MAX) } else { (CHAT, CARRYING) };
    let named = renewal::names_successor(cx.unit, &chat)?;
    let (mut used, mut last) = (0, (chat, after));
    loop {
        let next = cx.unit.range::<StagedRow>(chat.as_bytes(), Some(&last), 1, false)?;
        let Some((place @ (_, number), row)) = next.into_iter().next() else { return Ok(false) };
        if number > end {
            return Ok(false);
        }
        let row = row.op.ok_or(Fault::Inconsistent("something else was staged"))?;
        let OpKind::Append { envelope, order, .. } = &row.kind else {
            return Err(Fault::Inconsistent("something else was staged"));
        };
        if used > 0 && used + envelope.len() > USE {
            return Ok(true);
        }
        used += envelope.len();
        last = place;
        cx.unit.delete::<StagedRow>(&place);
        use_one(cx, chat, *order, &row, named)?;
    }
}

fn use_one(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    order: Option<Order>,
    row: &OpRow,
    named: bool,
) -> Result<(), Fault> {
    if let Some(order) = order {
        // What it carries was erased meanwhile.
        if cx.unit.get::<MessageRow>(&(chat, order))?.is_none() {
            return Ok(());
        }
        if named {
            cx.unit.savepoint();
            match renewal::encrypt_anew(cx, chat, order) {
                Ok(()) => return Ok(()),
                Err(fault @ Fault::Store(_)) => return Err(fault),
                Err(_) => cx.unit.roll_back(),
            }
        }
    }
    let op = cx.unit.next(Counter::Op)?;
    cx.unit.put(&op, row);
    Ok(())
}

/// MOV-05: begins with what is here; what cannot begin now stays due.
pub(super) fn succeed(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    cx.unit.savepoint();
    match renewal::succeed(cx, chat) {
        Ok(_) => {}
        Err(fault @ Fault::Store(_)) => return Err(fault),
        Err(_) => cx.unit.roll_back(),
    }
    Ok(())
}

/// MOV-02: `true` if there is more.
pub(super) fn undo(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<bool, Fault> {
    if cx.unit.get::<ArrivalRow>(&chat)?.is_none_or(|arrival| arrival.live) {
        return Ok(false);
    }
    let staged = cx.unit.range::<StagedRow>(chat.as_bytes(), None, STEP, false)?;
    let more = staged.len() == STEP;
    for (place, row) in staged {
        cx.unit.delete::<StagedRow>(&place);
        // A key of all chats counts what lies under it; it dies with the last, wherever that is.
        if let Some(draft) = row.chat.and_then(|staged| staged.draft) {
            bodies::release(cx, chat, draft.stored, &draft.key)?;
        }
    }
    if more {
        return Ok(true);
    }
    bodies::release_all(cx, &chat)?;
    cx.unit.put(&chat, &ErasingRow { upto: Order::MAX, before: None, after: 0, whole: true });
    cx.unit.delete::<ArrivalRow>(&chat);
    cx.tell(Effect::Erased);
    Ok(false)
}
