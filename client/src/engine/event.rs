//! What happens to the engine, and what it answers.

use lapwing_wire::{
    address::RelayKey,
    frame::{ResponseBody, Window},
    ids::MailboxId,
};

use super::{
    Fault,
    command::{Command, Reply},
    files::Moved,
};
use crate::store::{ChatId, OpId, Order};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A person asks for something.
    Command(Command),
    /// A relay delivered envelopes of one mailbox.
    Window {
        /// What it delivered.
        window: Window,
        /// Nothing was waiting behind it.
        caught_up: bool,
    },
    /// A relay answered an operation.
    Answer {
        /// Which.
        op: OpId,
        /// What.
        body: ResponseBody,
    },
    /// An operation has nothing left to do: see [`OpStep::Obsolete`](super::OpStep::Obsolete).
    Obsolete {
        /// Which.
        op: OpId,
    },
    /// A file got on its way to a relay, or did not.
    File {
        /// Of which message.
        place: (ChatId, Order),
        /// What became of it.
        moved: Moved,
    },
    /// A relay says that it has no mailbox of ours that it had confirmed.
    Gone {
        /// Which.
        mailbox: MailboxId,
    },
    /// SUC-02: a relay showed another key, and the one that is pinned vouches for it.
    Heir {
        /// The relay, by the key under which this vault knows it.
        relay: RelayKey,
        /// The key that it has now.
        heir: RelayKey,
    },
    /// Time has passed: whatever is due by now.
    Tick {
        /// The first of this session.
        begins: bool,
    },
    /// CPY-06: something was taken or sent since this session left its last mark, and it is time for another one: it goes on
    /// for long, or ends.
    Mark,
    /// What is due to be erased, or was left to be erased, goes: a part of it, see [`Effect::MoreToErase`].
    Sweep,
}

/// Something to tell. Effects change nothing; all changes are in the unit of work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Effect {
    /// The answer to the command.
    Reply(Reply),
    /// A message came into a chat.
    Message {
        /// The chat.
        chat: ChatId,
        /// Its place there.
        order: Order,
    },
    /// A message of ours reached its relay.
    Delivered {
        /// The chat.
        chat: ChatId,
        /// Its place there.
        order: Order,
    },
    /// A message of ours will not be delivered.
    Undelivered {
        /// The chat.
        chat: ChatId,
        /// Its place there.
        order: Order,
    },
    /// A contact is established, or came to nothing.
    Contact {
        /// The chat.
        chat: ChatId,
    },
    /// An alert came for the first time.
    Alert {
        /// Its id.
        alert: [u8; 16],
    },
    /// Somebody asks us to be a trusted contact, or answered.
    Trust {
        /// Which trust.
        trust: [u8; 16],
    },
    /// Somebody who had a voice in a plan of ours is no trusted contact any more.
    Voices,
    /// An invitation to a group came, or an answer to one.
    Invitation {
        /// Which invitation.
        invitation: [u8; 16],
    },
    /// A group changed.
    Group {
        /// Its chat.
        chat: ChatId,
    },
    /// Something was erased.
    Erased,
    /// There is more to erase than fits one commit: sweep again.
    MoreToErase,
    /// This compartment is used in two places.
    Copied,
    /// A relay contradicted itself.
    Inconsistent,
    /// Something arrived that was refused; there is nothing to do.
    Refused,
    /// Something arrived that a defect of ours kept us from taking. It was passed over, as what is refused.
    Defect(Fault),
}
