//! A chat goes to another compartment of the same vault.
//!
//! ```text
//! source                                    target
//!                                           arrival begun                      nothing of it is shown
//! read, not changed                         messages, under keys made here
//!                                           the chat itself, arrival whole     from here on it is the target's
//! deleted, departure noted
//!                                           arrival forgotten
//! departure forgotten
//! ```
//!
//! Rules (docs/protocol-client.md): MOV-01 one commit of the target decides; before it the chat is the source's, after it
//! the target's, and whoever opens both next goes on from there before anything else. MOV-02 what came of a moving that was
//! not decided is erased at the target. MOV-03 nothing is sealed with what the source had: texts lie under keys, numbers
//! and a chat id that the target makes. MOV-04 nobody's safety and no group is left behind. MOV-05 to MOV-08 are in
//! `renewal::succession`: the peer gets another identity.

use std::collections::BTreeMap;

use lapwing_wire::ids::MailboxId;
use zeroize::Zeroizing;

use super::{
    Cx, Fault, bodies, contact, conversation, drafts, erasing, expiry,
    files::{self, MovedFile},
    relays, renewal,
};
use crate::store::{
    AlertRow, ArrivalRow, ChatId, ChatKind, ChatRow, ContactRow, ContactState, Counter, DeadlineRow,
    DepartureRow, DraftRow, ErasingRow, GroupRow, InvitationRow, MailboxRow, MailboxState, MessageRow,
    MoveId, NameRow, OpKind, OpRow, Order, Purpose, RenewalRow, TakenTicketRow, TimerRow, Unit, UploadRow,
};

/// Messages carried in one commit: with the longest texts two megabytes.
const PAGE: usize = 128;

/// One step of a moving, at either end.
pub enum MoveStep {
    /// Target: a chat is coming.
    Begin {
        /// Which moving.
        id: MoveId,
        /// The chat's id at the source.
        from: ChatId,
        /// Its name here.
        name: String,
        /// Its peer is to be told of a new mailbox, which needs a relay.
        is_open: bool,
    },
    /// Target: messages of it.
    Take {
        /// The chat's id here.
        chat: ChatId,
        /// In their order.
        messages: Vec<MovedMessage>,
    },
    /// Target: all the rest. From here on the chat is this compartment's.
    End {
        /// The chat's id here.
        chat: ChatId,
        /// Its name here.
        name: String,
        /// The rest.
        rest: Box<MovedChat>,
        /// What the messages are called here, by what the source calls them.
        places: BTreeMap<Order, Order>,
    },
    /// Target: nothing of it is to stay.
    Undo {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Source: it is the target's now, and goes here.
    Depart {
        /// The chat's id here.
        chat: ChatId,
        /// Which moving.
        id: MoveId,
    },
    /// Target: the source does not have it any more.
    Arrived {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Source: the target knows that.
    Departed {
        /// Which moving.
        id: MoveId,
    },
}

/// What a step answers.
pub enum MoveReply {
    /// It is done.
    Done,
    /// The id of a chat that is coming.
    Chat(ChatId),
    /// What messages are called here, by what the source calls them.
    Places(Vec<(Order, Order)>),
}

/// A message on its way.
pub struct MovedMessage {
    order: Order,
    row: MessageRow,
    text: Zeroizing<String>,
    file: Option<MovedFile>,
    deadline: Option<DeadlineRow>,
}

/// What a chat consists of beside its messages.
pub struct MovedChat {
    shown: ChatRow,
    contact: ContactRow,
    renewal: Option<RenewalRow>,
    timer: Option<TimerRow>,
    draft: Option<(Zeroizing<String>, DraftRow)>,
    mailboxes: Vec<(MailboxId, MailboxRow)>,
    operations: Vec<OpRow>,
    tickets: Vec<(MailboxId, TakenTicketRow)>,
    alerts: Vec<([u8; 16], AlertRow)>,
}

/// A chat that may be moved.
pub struct Movable {
    /// Its id.
    pub chat: ChatId,
    /// Its name.
    pub name: String,
    /// Its peer is to be told of a new mailbox.
    pub is_open: bool,
}

/// MOV-04: whether a chat may be moved.
///
/// # Errors
/// [`Fault::UnknownChat`], or why not. Nothing was changed.
pub fn movable(unit: &Unit<'_>, name: &str) -> Result<Movable, Fault> {
    let chat = contact::id_of(unit, name)?;
    let shown = unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    if shown.kind == ChatKind::Group {
        return Err(Fault::GroupStays);
    }
    erasing::require_unused(unit, &chat)?;
    let contact = unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    match contact.state {
        ContactState::Invited => return Err(Fault::NotJoined),
        ContactState::Joining | ContactState::Joined => return Err(Fault::NotEstablished),
        ContactState::Established | ContactState::Failed => {}
    }
    let mut mailboxes = mailboxes(unit, &chat)?.into_iter();
    if mailboxes.any(|(_, row)| row.state == MailboxState::Creating) {
        return Err(Fault::MailboxWaits);
    }
    for (_, invitation) in unit.scan::<InvitationRow>(&[])? {
        if invitation.through == chat && !is_over(unit, &invitation)? {
            return Err(Fault::InvitationWaits);
        }
    }
    if !unit.range::<UploadRow>(chat.as_bytes(), None, 1, false)?.is_empty() {
        return Err(Fault::FileWaits);
    }
    let is_open = contact.state == ContactState::Established && !shown.blocked;
    Ok(Movable { chat, name: shown.name, is_open })
}

/// Whether an invitation needs the chat no more: the contact is a member, or we are.
fn is_over(unit: &Unit<'_>, invitation: &InvitationRow) -> Result<bool, Fault> {
    if invitation.ours {
        return Ok(invitation.member.is_some());
    }
    let Some(group) = invitation.chat else { return Ok(false) };
    Ok(unit.get::<GroupRow>(&group)?.is_none_or(|held| held.ended || held.epoch.is_some()))
}

fn mailboxes(unit: &Unit<'_>, chat: &ChatId) -> Result<Vec<(MailboxId, MailboxRow)>, Fault> {
    let of_chat = |purpose| matches!(purpose, Purpose::Ticket(of) | Purpose::Direct(of) if of == *chat);
    Ok(unit.scan::<MailboxRow>(&[])?.into_iter().filter(|(_, row)| of_chat(row.purpose)).collect())
}

/// A page of a chat's messages, from beyond `after`, and the last one that was looked at. What cannot be opened any more is
/// left out: it is erased.
///
/// # Errors
/// [`Fault::Store`].
pub fn messages(
    unit: &Unit<'_>,
    chat: ChatId,
    after: Order,
) -> Result<Option<(Vec<MovedMessage>, Order)>, Fault> {
    let page = unit.range::<MessageRow>(chat.as_bytes(), Some(&(chat, after)), PAGE, false)?;
    let Some(((_, last), _)) = page.last() else { return Ok(None) };
    let last = *last;
    let mut found = Vec::new();
    for ((_, order), row) in page {
        let Some(text) = conversation::text_of(unit, &chat, order, &row)? else { continue };
        let file = files::to_move(unit, (chat, order), &row)?;
        let deadline = unit.get::<DeadlineRow>(&(chat, order))?;
        found.push(MovedMessage { order, row, text, file, deadline });
    }
    Ok(Some((found, last)))
}

/// Everything else of a chat.
///
/// # Errors
/// [`Fault::Store`]; [`Fault::UnknownChat`].
pub fn rest(unit: &Unit<'_>, chat: ChatId) -> Result<MovedChat, Fault> {
    let operations = unit.scan::<OpRow>(&[])?.into_iter().map(|(_, row)| row);
    let tickets = unit.scan::<TakenTicketRow>(&[])?.into_iter();
    let alerts = unit.scan::<AlertRow>(&[])?.into_iter();
    let draft = match unit.get::<DraftRow>(&chat)? {
        Some(row) => drafts::of(unit, &chat)?.map(|(text, _)| (text, row)),
        None => None,
    };
    Ok(MovedChat {
        shown: unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?,
        contact: unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?,
        renewal: unit.get::<RenewalRow>(&chat)?,
        timer: unit.get::<TimerRow>(&chat)?,
        draft,
        mailboxes: mailboxes(unit, &chat)?,
        operations: operations
            .filter(|row| matches!(&row.kind, OpKind::Append { chat: of, .. } if *of == chat))
            .collect(),
        tickets: tickets.filter(|(_, row)| row.chat == chat).collect(),
        alerts: alerts.filter(|(_, row)| row.chat == chat).collect(),
    })
}

/// Chats that came here or are coming, by their ids here.
///
/// # Errors
/// [`Fault::Store`].
pub fn arrivals(unit: &Unit<'_>) -> Result<Vec<(ChatId, ArrivalRow)>, Fault> {
    Ok(unit.scan::<ArrivalRow>(&[])?)
}

/// Movings of which a chat has left this compartment.
///
/// # Errors
/// [`Fault::Store`].
pub fn departures(unit: &Unit<'_>) -> Result<Vec<MoveId>, Fault> {
    Ok(unit.scan::<DepartureRow>(&[])?.into_iter().map(|(id, DepartureRow {})| id).collect())
}

/// Whether a chat with this id is here.
///
/// # Errors
/// [`Fault::Store`].
pub fn is_here(unit: &Unit<'_>, chat: &ChatId) -> Result<bool, Fault> {
    Ok(unit.get::<ChatRow>(chat)?.is_some())
}

pub(super) fn run(cx: &mut Cx<'_, '_, '_>, step: MoveStep) -> Result<MoveReply, Fault> {
    match step {
        MoveStep::Begin { id, from, name, is_open } => {
            begin(cx, id, from, &name, is_open).map(MoveReply::Chat)
        }
        MoveStep::Take { chat, messages } => take(cx, chat, messages).map(MoveReply::Places),
        MoveStep::End { chat, name, rest, places } => {
            end(cx, chat, &name, *rest, &places).map(|()| MoveReply::Done)
        }
        MoveStep::Undo { chat } => undo(cx, chat).map(|()| MoveReply::Done),
        MoveStep::Depart { chat, id } => {
            erasing::departed(cx, &chat)?;
            cx.unit.put(&id, &DepartureRow {});
            Ok(MoveReply::Done)
        }
        MoveStep::Arrived { chat } => {
            cx.unit.delete::<ArrivalRow>(&chat);
            Ok(MoveReply::Done)
        }
        MoveStep::Departed { id } => {
            cx.unit.delete::<DepartureRow>(&id);
            Ok(MoveReply::Done)
        }
    }
}

fn begin(
    cx: &mut Cx<'_, '_, '_>,
    id: MoveId,
    from: ChatId,
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
    cx.unit.put(&chat, &ArrivalRow { id, from, whole: false });
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

fn take(
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

/// MOV-01: the commit that decides.
fn end(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    name: &str,
    rest: MovedChat,
    places: &BTreeMap<Order, Order>,
) -> Result<(), Fault> {
    let MovedChat { shown, contact, renewal, timer, draft, mailboxes, operations, tickets, alerts } = rest;
    let name = contact::checked_name(name)?;
    let mut arrival = cx.unit.get::<ArrivalRow>(&chat)?.ok_or(Fault::UnknownChat)?;
    arrival.whole = true;
    cx.unit.put(&chat, &arrival);
    cx.unit.put(&name, &NameRow { chat });
    let read_to = places.range(..=shown.read_to).next_back().map_or(0, |(_, order)| *order);
    let succeeds = contact.state == ContactState::Established && contact.session.is_some();
    cx.unit.put(&chat, &ChatRow { name, read_to, ..shown });
    cx.unit.put(&chat, &contact);
    if let Some(timer) = timer {
        cx.unit.put(&chat, &timer);
    }
    if let Some((text, row)) = draft {
        let number = cx.unit.next(Counter::Order)?;
        let sealed = seal_as_of(cx, chat, number, &text, row.stored)?;
        cx.unit.put(&chat, &DraftRow { number, key: sealed.key, body: sealed.body, ..row });
    }
    for (mailbox, row) in mailboxes {
        let purpose = match row.purpose {
            Purpose::Ticket(_) => Purpose::Ticket(chat),
            _ => Purpose::Direct(chat),
        };
        cx.unit.put(&mailbox, &MailboxRow { purpose, ..row });
    }
    for row in operations {
        let OpKind::Append { mailbox, write, key, envelope, chat: _, order: before } = row.kind else {
            continue;
        };
        let order = before.and_then(|order| places.get(&order).copied());
        // What it carries was erased meanwhile.
        if before.is_some() && order.is_none() {
            continue;
        }
        let op = cx.unit.next(Counter::Op)?;
        let kind = OpKind::Append { mailbox, write, key, envelope, chat, order };
        cx.unit.put(&op, &OpRow { kind, refused: None, ..row });
    }
    for (mailbox, row) in tickets {
        cx.unit.put(&mailbox, &TakenTicketRow { chat, ..row });
    }
    for (id, row) in alerts {
        cx.unit.put(&id, &AlertRow { chat, ..row });
    }
    renewal::arrived(cx, chat, renewal.unwrap_or_default(), succeeds);
    renewal::succeed(cx, chat)?;
    Ok(())
}

/// MOV-02
fn undo(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    if cx.unit.get::<ArrivalRow>(&chat)?.is_none_or(|arrival| arrival.whole) {
        return Ok(());
    }
    bodies::release_all(cx, &chat)?;
    cx.unit.put(&chat, &ErasingRow { upto: Order::MAX, before: None, after: 0, whole: true });
    cx.unit.delete::<ArrivalRow>(&chat);
    cx.tell(super::Effect::Erased);
    Ok(())
}
