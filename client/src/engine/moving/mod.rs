//! A chat goes to another compartment of the same vault.
//!
//! ```text
//! source                                    target
//!                                           arrival begun                      nothing of it is shown, sent or taken
//! read, not changed                         messages, under keys made here
//!                                           all the rest, staged
//! deleted, departure noted                                                     from here on it is the target's
//!                                           the chat is shown; what waits is used, page by page
//!                                           arrival forgotten
//! departure forgotten
//! what it left is erased
//! ```
//!
//! Rules (docs/protocol-client.md): MOV-01 one commit of the source decides; before it the chat is the source's, after it
//! the target's, and no session is ever at work at both. MOV-02 what came of a moving that was not decided is erased at the
//! target as soon as the source is open too. MOV-03 nothing is sealed with what the source had: texts lie under keys,
//! numbers and a chat id that the target makes. MOV-04 nobody's safety and no group is left behind. MOV-05 to MOV-08 are in
//! `renewal::succession`: the peer gets another identity. MOV-09 what was decided is finished by whoever opens both ends,
//! and each end forgets the moving only when it has seen the other one done. MOV-10 a chat is moved whole or not at all:
//! what does not open at the source keeps it there.

mod arriving;

use std::collections::BTreeMap;

use lapwing_protocol::content::MessageId;
use lapwing_wire::ids::{MailboxId, labelled_hash};
use zeroize::Zeroizing;

use super::{
    Cx, Fault, contact, conversation, drafts, erasing,
    files::{self, MovedFile},
};
use crate::{
    labels::MOVE_END,
    store::{
        AlertRow, ArrivalRow, ChatId, ChatKind, ChatRow, ContactRow, ContactState, DeadlineRow, DepartureRow,
        DraftRow, GroupRow, InvitationRow, MailboxRow, MailboxState, MessageRow, MoveEnd, MoveId, OpId,
        OpKind, OpRow, Order, Purpose, RenewalRow, SeenRow, TakenTicketRow, TimerRow, Unit, UploadRow,
    },
};

/// Messages carried in one commit: with the longest texts two megabytes.
const PAGE: usize = 128;

/// Bytes of waiting envelopes that are staged in one commit.
const STAGE: usize = 256 << 10;

/// Marks that are carried, staged records that are removed, or messages that are counted, at once.
const STEP: usize = 500;

/// One step of a moving, at either end.
pub enum MoveStep {
    /// Target: a chat is coming.
    Begin {
        /// Which moving.
        id: MoveId,
        /// The chat's id at the source.
        from: ChatId,
        /// The source.
        source: MoveEnd,
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
    /// Target: marks of its erased messages (RNW-08).
    Remember {
        /// The chat's id here.
        chat: ChatId,
        /// The marks, and their days.
        marks: Vec<(MessageId, SeenRow)>,
    },
    /// Target: what waits for relays.
    Hold {
        /// The chat's id here.
        chat: ChatId,
        /// What waits, by its number at the source.
        operations: Vec<(OpId, OpRow)>,
    },
    /// Target: all the rest. It is not used yet.
    Stage {
        /// The chat's id here.
        chat: ChatId,
        /// Its name here.
        name: String,
        /// The rest.
        rest: Box<MovedChat>,
        /// What the messages are called here, by what the source calls them.
        places: BTreeMap<Order, Order>,
    },
    /// Target: a part of it goes, and nothing is to stay.
    Undo {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Source: from here on it is the target's.
    Depart {
        /// The chat's id here.
        chat: ChatId,
        /// Which moving.
        id: MoveId,
        /// The target.
        target: MoveEnd,
    },
    /// Target: the source has let go of it.
    Live {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Target: a part of what waits for relays is put to use; before the peer is told of another identity, or after.
    Use {
        /// The chat's id here.
        chat: ChatId,
        /// What carries messages of a person.
        carrying: bool,
    },
    /// Target: another identity begins, if it can begin now.
    Succeed {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Target: the source has let go of it, and it is deleted before it is in use.
    Delete {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Target: all of it is in use.
    Arrived {
        /// The chat's id here.
        chat: ChatId,
    },
    /// Source: the target has it.
    Departed {
        /// Which moving.
        id: MoveId,
    },
}

/// What a step answers.
pub enum MoveReply {
    /// It is done.
    Done,
    /// There is more of it.
    More,
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

/// A page of a chat's messages, from beyond `after`, and the last one that was looked at.
///
/// # Errors
/// [`Fault::Store`]; [`Fault::DoesNotOpen`] (MOV-10). What was erased has no record any more when a sweep is done, which is
/// before anything is read here: a text that has one and does not open lies under a key that is damaged, and a key that
/// cannot be read now may be read later.
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
        let text = conversation::text_of(unit, &chat, order, &row)?.ok_or(Fault::DoesNotOpen)?;
        let file = files::to_move(unit, (chat, order), &row)?;
        let deadline = unit.get::<DeadlineRow>(&(chat, order))?;
        found.push(MovedMessage { order, row, text, file, deadline });
    }
    Ok(Some((found, last)))
}

/// A page of the marks of a chat's erased messages (RNW-08), from beyond `after`. Empty at their end.
///
/// # Errors
/// [`Fault::Store`].
pub fn marks(
    unit: &Unit<'_>,
    chat: ChatId,
    after: Option<MessageId>,
) -> Result<Vec<(MessageId, SeenRow)>, Fault> {
    let after = after.map(|mark| (chat, mark));
    let page = unit.range::<SeenRow>(chat.as_bytes(), after.as_ref(), STEP, false)?;
    Ok(page.into_iter().map(|((_, mark), row)| (mark, row)).collect())
}

/// Everything else of a chat.
///
/// # Errors
/// [`Fault::Store`]; [`Fault::UnknownChat`]; [`Fault::DoesNotOpen`]: its draft (MOV-10).
pub fn rest(unit: &Unit<'_>, chat: ChatId) -> Result<MovedChat, Fault> {
    let tickets = unit.scan::<TakenTicketRow>(&[])?.into_iter();
    let alerts = unit.scan::<AlertRow>(&[])?.into_iter();
    let draft = match unit.get::<DraftRow>(&chat)? {
        Some(row) => Some((drafts::of(unit, &chat)?.ok_or(Fault::DoesNotOpen)?.0, row)),
        None => None,
    };
    Ok(MovedChat {
        shown: unit.get::<ChatRow>(&chat)?.ok_or(Fault::UnknownChat)?,
        contact: unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?,
        renewal: unit.get::<RenewalRow>(&chat)?,
        timer: unit.get::<TimerRow>(&chat)?,
        draft,
        mailboxes: mailboxes(unit, &chat)?,
        tickets: tickets.filter(|(_, row)| row.chat == chat).collect(),
        alerts: alerts.filter(|(_, row)| row.chat == chat).collect(),
    })
}

/// What of a chat waits for relays, in parts of one commit each. `places`: what its messages are called at the target.
///
/// # Errors
/// [`Fault::Store`].
pub fn operations(
    unit: &Unit<'_>,
    chat: ChatId,
    places: &BTreeMap<Order, Order>,
) -> Result<Vec<Vec<(OpId, OpRow)>>, Fault> {
    let mut parts: Vec<Vec<(OpId, OpRow)>> = Vec::new();
    let mut len = usize::MAX;
    for (op, mut row) in unit.scan::<OpRow>(&[])? {
        let OpKind::Append { chat: of, order, envelope, .. } = &mut row.kind else { continue };
        if *of != chat {
            continue;
        }
        if let Some(before) = order {
            match places.get(before) {
                Some(place) => *order = Some(*place),
                // What it carries was erased meanwhile.
                None => continue,
            }
        }
        len = len.saturating_add(envelope.len());
        if len > STAGE {
            len = envelope.len();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push((op, row));
        }
    }
    Ok(parts)
}

/// What stands for a compartment in one moving. Only who has `place`, which names the compartment, can tell.
#[must_use]
pub fn end(id: &MoveId, place: &[u8; 16]) -> MoveEnd {
    let hash = labelled_hash(MOVE_END, &[id, place]);
    let mut end = [0; 16];
    end.copy_from_slice(&hash[..16]);
    end
}

/// Chats that are coming, by their ids here.
///
/// # Errors
/// [`Fault::Store`].
pub fn arrivals(unit: &Unit<'_>) -> Result<Vec<(ChatId, ArrivalRow)>, Fault> {
    Ok(unit.scan::<ArrivalRow>(&[])?)
}

/// What a chat that is coming will be called here, once all of it is here and as long as it is not shown.
///
/// # Errors
/// [`Fault::Store`].
pub fn name_of_arrival(unit: &Unit<'_>, chat: &ChatId) -> Result<Option<String>, Fault> {
    arriving::staged_name(unit, chat)
}

/// Movings in which a chat has left this compartment.
///
/// # Errors
/// [`Fault::Store`].
pub fn departures(unit: &Unit<'_>) -> Result<Vec<(MoveId, DepartureRow)>, Fault> {
    Ok(unit.scan::<DepartureRow>(&[])?)
}

/// Whether a chat with this id is here.
///
/// # Errors
/// [`Fault::Store`].
pub fn is_here(unit: &Unit<'_>, chat: &ChatId) -> Result<bool, Fault> {
    Ok(unit.get::<ChatRow>(chat)?.is_some())
}

pub(super) fn run(cx: &mut Cx<'_, '_, '_>, step: MoveStep) -> Result<MoveReply, Fault> {
    let more = |more: bool| if more { MoveReply::More } else { MoveReply::Done };
    let done = |()| MoveReply::Done;
    match step {
        MoveStep::Begin { id, from, source, name, is_open } => {
            let arrival = ArrivalRow { id, from, source, live: false };
            arriving::begin(cx, &arrival, &name, is_open).map(MoveReply::Chat)
        }
        MoveStep::Take { chat, messages } => arriving::take(cx, chat, messages).map(MoveReply::Places),
        MoveStep::Remember { chat, marks } => {
            for (mark, row) in marks {
                cx.unit.put(&(chat, mark), &row);
            }
            Ok(MoveReply::Done)
        }
        MoveStep::Hold { chat, operations } => {
            arriving::hold(cx, chat, operations);
            Ok(MoveReply::Done)
        }
        MoveStep::Stage { chat, name, rest, places } => {
            arriving::stage(cx, chat, &name, *rest, &places).map(done)
        }
        MoveStep::Undo { chat } => arriving::undo(cx, chat).map(more),
        MoveStep::Depart { chat, id, target } => depart(cx, &chat, &id, target).map(done),
        MoveStep::Live { chat } => arriving::live(cx, chat).map(done),
        MoveStep::Use { chat, carrying } => arriving::put_to_use(cx, chat, carrying).map(more),
        MoveStep::Succeed { chat } => arriving::succeed(cx, chat).map(done),
        MoveStep::Delete { chat } => arriving::delete(cx, chat).map(done),
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

/// MOV-01: the commit that decides.
fn depart(cx: &mut Cx<'_, '_, '_>, chat: &ChatId, id: &MoveId, target: MoveEnd) -> Result<(), Fault> {
    erasing::departed(cx, chat)?;
    cx.unit.put(id, &DepartureRow { target });
    Ok(())
}
