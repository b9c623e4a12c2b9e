//! What a person asks for, and the answers.

use std::{fmt, time::Duration};

use lapwing_protocol::timer::Lifetime;
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::{Access, SecretKey},
    tripwire::{Status, Token},
};

use super::{
    Cx, Fault,
    checkin::{self, CheckinSpec, Standing},
    contact, conversation, drafts, erasing, expiry, export, files, group, moving,
    plan::{self, PlanSpec},
    relays, renewal, trust, vacate, voice,
};
use crate::backup::Item;
use crate::store::{ChatId, ContactRow, Order, PlanRow, RecordsRow, SettingsRow, Sink};

/// Something a person, or the program in his name, asks of one compartment.
#[non_exhaustive]
pub enum Command {
    /// Gives the compartment its name.
    Name {
        /// The name.
        name: String,
    },
    /// Leaves everything: the compartment is about to be deleted.
    Vacate,
    /// Adds a relay by its access ticket's text.
    AddRelay {
        /// The text.
        ticket: String,
    },
    /// Adds a relay by the parts of a ticket that another compartment has.
    ShareRelay {
        /// Where it is.
        relay: RelayAddress,
        /// The right to create mailboxes.
        access: SecretKey<Access>,
    },
    /// Removes a relay that no chat receives at.
    RemoveRelay {
        /// Which.
        relay: RelayKey,
    },
    /// Makes a ticket.
    Invite {
        /// Name of the chat.
        name: String,
        /// The relay to receive at; the first one by default.
        relay: Option<RelayKey>,
        /// How long the ticket can be used.
        validity: Duration,
    },
    /// Takes a ticket.
    Join {
        /// Its text.
        ticket: String,
        /// Name of the chat.
        name: String,
    },
    /// Renames a chat.
    Rename {
        /// Which.
        chat: String,
        /// To what.
        name: String,
    },
    /// Writes a message.
    Send {
        /// Which chat.
        chat: String,
        /// The text.
        text: String,
    },
    /// Writes a message for each file, the first one with the text.
    SendFiles {
        /// Which chat.
        chat: String,
        /// The text; may be empty.
        text: String,
        /// The files, at most [`MAX_FILES`](files::MAX_FILES).
        files: Vec<files::NewFile>,
    },
    /// The file of a message lies on the disk.
    Fetched {
        /// Which chat.
        chat: ChatId,
        /// Which message.
        order: Order,
    },
    /// Keeps a text for later.
    Draft {
        /// Which chat.
        chat: String,
        /// The text.
        text: String,
    },
    /// Removes a draft.
    DeleteDraft {
        /// Of which chat.
        chat: String,
    },
    /// Sends a draft; then it is none any more.
    SendDraft {
        /// Of which chat.
        chat: String,
    },
    /// Sets how long messages are kept once they were shown; tells the other side.
    SetTimer {
        /// In which chat.
        chat: String,
        /// How long; `None` for ever.
        lifetime: Option<Lifetime>,
    },
    /// Erases messages by their places; all or none.
    Erase {
        /// Of which chat.
        chat: String,
        /// Their places.
        orders: Vec<Order>,
    },
    /// Erases what a chat holds.
    Clear {
        /// Which chat.
        chat: String,
        /// Only what came longer ago.
        older: Option<Duration>,
    },
    /// Deletes a chat with all that it holds.
    Delete {
        /// Which chat.
        chat: String,
        /// Leaves the group first.
        leave: bool,
    },
    /// Remembers what was shown.
    MarkRead {
        /// Which chat.
        chat: ChatId,
        /// The last message that was shown.
        order: Order,
    },
    /// Remembers that safety numbers were compared, or takes it back.
    Verify {
        /// Which chat.
        chat: String,
        /// They are equal.
        equal: bool,
    },
    /// Blocks a chat, or undoes it.
    Block {
        /// Which chat.
        chat: String,
        /// From now on.
        blocked: bool,
    },
    /// Begins the session of a chat anew.
    Renew {
        /// Which chat.
        chat: String,
    },
    /// Takes items of a backup.
    Import(Vec<Item>),
    /// All items of a backup are here.
    EndImport,
    /// Asks a contact to be a trusted contact.
    TrustAdd {
        /// Which chat.
        chat: String,
    },
    /// Says yes to a contact who asked.
    TrustAccept {
        /// Which chat.
        chat: String,
    },
    /// Ends a trust, in both directions.
    TrustRemove {
        /// Which chat.
        chat: String,
    },
    /// Gives our voice in what a contact prepared to be set off from afar.
    Trigger {
        /// The contact's chat.
        chat: String,
    },
    /// Acknowledges an alert.
    AcknowledgeAlert {
        /// Which.
        alert: [u8; 16],
    },
    /// Remembers for good what was recorded beside the compartment.
    KeepRecords(RecordsRow),
    /// Begins a plan.
    PlanBegin(Box<PlanSpec>),
    /// The plan's cover is in the header.
    PlanFinish {
        /// Which.
        plan: [u8; 16],
    },
    /// The plan's cover is about to leave the header: from here on the header says whether the plan is in force.
    PlanUnfinish {
        /// Which.
        plan: [u8; 16],
    },
    /// Takes what a plan would end now, and arms it anew if that changed.
    PlanRefresh {
        /// Which.
        plan: [u8; 16],
        /// Mailboxes of what `destroy` ends.
        sinks: Vec<Sink>,
    },
    /// A compartment has another name: plans that show it follow.
    PlansRename {
        /// The old name.
        from: String,
        /// The new one.
        to: String,
    },
    /// Removes a plan.
    PlanRemove {
        /// Which.
        plan: [u8; 16],
    },
    /// Begins a check-in.
    CheckinBegin(Box<CheckinSpec>),
    /// A relay answered the token of a check-in.
    CheckinAnswered {
        /// Which.
        checkin: [u8; 16],
        /// Which relay.
        relay: RelayKey,
        /// What.
        status: Status,
    },
    /// A relay answered a token of our payload.
    TokenPresented {
        /// Which relay.
        relay: RelayKey,
        /// Which token.
        token: Token,
        /// What.
        status: Status,
    },
    /// A step of moving a chat to another compartment.
    Moving(moving::MoveStep),
    /// What groups do.
    Group(group::GroupCommand),
}

/// The answer to a command.
#[non_exhaustive]
pub enum Reply {
    /// It is done.
    Done,
    /// A ticket and the chat that its user will be in.
    Ticket {
        /// The chat.
        chat: ChatId,
        /// The text.
        text: String,
    },
    /// A chat was begun.
    Chat(ChatId),
    /// A message was written.
    Message {
        /// The chat.
        chat: ChatId,
        /// Its place.
        order: Order,
    },
    /// Messages were written.
    Messages {
        /// The chat.
        chat: ChatId,
        /// Their places.
        orders: Vec<Order>,
    },
    /// Messages were erased.
    Erased {
        /// How many of them had not left, and do not leave any more.
        withdrawn: u64,
    },
    /// A relay was added.
    Relay(RelayAddress),
    /// A trust was begun.
    Trust([u8; 16]),
    /// A plan was begun.
    Plan([u8; 16]),
    /// What a relay holds of a check-in.
    Checkin(Standing),
    /// What a step of a moving answered.
    Moving(moving::MoveReply),
    /// What a group answered.
    Group(group::GroupReply),
}

/// Commands hold texts, tickets and tokens.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command(..)")
    }
}

/// Answers hold tickets.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

pub(super) fn run(cx: &mut Cx<'_, '_, '_>, command: Command) -> Result<Reply, Fault> {
    match command {
        Command::Name { name } => {
            let name = contact::checked_name(&name)?;
            cx.unit.put(&(), &SettingsRow { name, leaving: false });
            Ok(Reply::Done)
        }
        Command::Vacate => vacate::vacate(cx).map(|()| Reply::Done),
        Command::AddRelay { ticket } => relays::add(cx, &ticket).map(Reply::Relay),
        Command::ShareRelay { relay, access } => relays::add_ticket(cx, &relay, &access).map(Reply::Relay),
        Command::RemoveRelay { relay } => relays::remove(cx, &relay).map(|()| Reply::Done),
        Command::Invite { name, relay, validity } => {
            let (chat, text) = contact::invite(cx, &name, relay.as_ref(), validity)?;
            Ok(Reply::Ticket { chat, text })
        }
        Command::Join { ticket, name } => contact::join(cx, &ticket, &name).map(Reply::Chat),
        Command::Rename { chat, name } => {
            contact::rename(cx, &chat, &name)?;
            Ok(Reply::Done)
        }
        Command::Send { chat, text } => {
            let (chat, _) = contact::find(cx, &chat)?;
            let order = conversation::send(cx, chat, &text)?;
            Ok(Reply::Message { chat, order })
        }
        Command::SendFiles { chat, text, files } => {
            let (chat, orders) = files::send(cx, &chat, &text, files)?;
            Ok(Reply::Messages { chat, orders })
        }
        Command::Fetched { chat, order } => files::fetched(cx, chat, order).map(|()| Reply::Done),
        Command::Draft { chat, text } => drafts::keep(cx, &chat, &text).map(|()| Reply::Done),
        Command::DeleteDraft { chat } => drafts::delete(cx, &chat).map(|()| Reply::Done),
        Command::SendDraft { chat } => {
            let (chat, order) = drafts::send(cx, &chat)?;
            Ok(Reply::Message { chat, order })
        }
        Command::SetTimer { chat, lifetime } => expiry::set(cx, &chat, lifetime).map(|()| Reply::Done),
        Command::Erase { chat, orders } => {
            let withdrawn = erasing::messages(cx, &chat, &orders)?;
            Ok(Reply::Erased { withdrawn })
        }
        Command::Clear { chat, older } => erasing::clear(cx, &chat, older).map(|()| Reply::Done),
        Command::Delete { chat, leave } => erasing::chat(cx, &chat, leave).map(|()| Reply::Done),
        Command::MarkRead { chat, order } => {
            conversation::mark_read(cx, chat, order)?;
            Ok(Reply::Done)
        }
        Command::Verify { chat, equal } => {
            let (id, _) = contact::find(cx, &chat)?;
            let mut row = cx.unit.get::<ContactRow>(&id)?.ok_or(Fault::NotDirect)?;
            if row.session.is_none() {
                return Err(Fault::NotEstablished);
            }
            row.verified = equal;
            cx.unit.put(&id, &row);
            renewal::compared(cx, id)?;
            Ok(Reply::Done)
        }
        Command::Block { chat, blocked } => {
            let (id, _) = contact::find(cx, &chat)?;
            if blocked { contact::block(cx, id) } else { contact::unblock(cx, id) }.map(|()| Reply::Done)
        }
        Command::Renew { chat } => {
            let (id, _) = contact::find(cx, &chat)?;
            renewal::begin(cx, id).map(|()| Reply::Done)
        }
        Command::Import(items) => export::import(cx, items).map(|()| Reply::Done),
        Command::EndImport => export::end_import(cx).map(|()| Reply::Done),
        Command::TrustAdd { chat } => trust::add(cx, &chat).map(Reply::Trust),
        Command::TrustAccept { chat } => trust::accept(cx, &chat).map(|()| Reply::Done),
        Command::TrustRemove { chat } => trust::remove(cx, &chat).map(|()| Reply::Done),
        Command::Trigger { chat } => voice::raise(cx, &chat).map(|()| Reply::Done),
        Command::AcknowledgeAlert { alert } => trust::acknowledge(cx, &alert).map(|()| Reply::Done),
        Command::KeepRecords(row) => {
            cx.unit.put(&(), &row);
            Ok(Reply::Done)
        }
        Command::PlanBegin(spec) => plan::begin(cx, *spec).map(Reply::Plan),
        Command::PlanFinish { plan } => plan::finish(cx, &plan).map(|()| Reply::Done),
        Command::PlanUnfinish { plan } => plan::unfinish(cx, &plan).map(|()| Reply::Done),
        Command::PlanRefresh { plan, sinks } => plan::refresh(cx, &plan, sinks).map(|()| Reply::Done),
        Command::PlansRename { from, to } => {
            for (id, mut row) in cx.unit.scan::<PlanRow>(&[])? {
                if row.shows.contains(&from) {
                    row.shows.iter_mut().filter(|name| **name == from).for_each(|name| name.clone_from(&to));
                    cx.unit.put(&id, &row);
                }
            }
            Ok(Reply::Done)
        }
        Command::PlanRemove { plan } => plan::remove(cx, &plan).map(|()| Reply::Done),
        Command::CheckinBegin(spec) => checkin::begin(cx, *spec).map(Reply::Plan),
        Command::CheckinAnswered { checkin, relay, status } => {
            checkin::answered(cx, &checkin, &relay, &status).map(Reply::Checkin)
        }
        Command::TokenPresented { relay, token, status } => {
            plan::token_answer(cx, &relay, &token, &status)?;
            Ok(Reply::Done)
        }
        Command::Moving(step) => moving::run(cx, step).map(Reply::Moving),
        Command::Group(command) => group::run(cx, command).map(Reply::Group),
    }
}
