//! Groups: one log per epoch, one append per message, membership by signed commits.
//!
//! | module | what |
//! | --- | --- |
//! | `state` | loading and storing what a member holds |
//! | `joining` | invitations, requests, welcomes |
//! | `members` | adding, removing, leaving; new epochs |
//! | `entries` | what the log delivers |
//! | `writing` | sealing what waits, once the log was read to its end |
//! | `shown` | read models |

mod entries;
mod joining;
mod members;
mod shown;
mod state;
mod writing;

use lapwing_wire::{address::RelayKey, time::Timestamp};

pub use shown::{GroupView, MemberView, Names, group_view, shared_with, state, unsealed};

pub(super) use entries::{caught_up, entry};
pub(super) use joining::{chain_answer, declined, empty, invited, join_requested, welcomed};
pub(super) use shown::log_relay;
pub(super) use writing::{announce_timer, require_writable, send};

use lapwing_protocol::group::Role;

use super::{Cx, Fault, outgoing};
use crate::store::{ChatId, GroupRow, MailboxRow, Unit};

/// What a person asks of groups.
#[derive(Debug)]
pub enum GroupCommand {
    /// Founds a group.
    Create {
        /// Its name, which all members see; also the chat's name here.
        name: String,
        /// Our name in it.
        alias: String,
        /// The relay of its log; the first one by default.
        relay: Option<RelayKey>,
    },
    /// Invites a contact.
    Invite {
        /// The group's chat.
        group: String,
        /// The contact's chat.
        chat: String,
    },
    /// Says yes: to an invitation that came, or to somebody who asks to be let in.
    Approve {
        /// Name of the group, or of the chat it came through.
        what: String,
        /// Our name in the group.
        alias: String,
        /// Name of the chat here; the group's name by default.
        name: Option<String>,
    },
    /// Says no to it.
    Decline {
        /// Name of the group, or of the chat it came through.
        what: String,
    },
    /// Removes a member: by the name in the group, or by the name of the chat that he was invited through.
    Remove {
        /// The group's chat.
        group: String,
        /// Who.
        member: String,
    },
    /// Leaves, or ends the group for everybody.
    Leave {
        /// The group's chat.
        group: String,
        /// Ends it, where we own it.
        end: bool,
    },
}

/// What a group answers.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupReply {
    /// It is done, or on its way.
    Done,
    /// The group's chat.
    Chat(ChatId),
    /// Somebody was removed; messages from now on are closed to him.
    Removed {
        /// His name in the group.
        name: String,
    },
}

pub(super) fn run(cx: &mut Cx<'_, '_, '_>, command: GroupCommand) -> Result<GroupReply, Fault> {
    match command {
        GroupCommand::Create { name, alias, relay } => {
            joining::create(cx, &name, &alias, relay.as_ref()).map(GroupReply::Chat)
        }
        GroupCommand::Invite { group, chat } => joining::invite(cx, &group, &chat).map(|()| GroupReply::Done),
        GroupCommand::Approve { what, alias, name } => {
            joining::approve(cx, &what, &alias, name.as_deref()).map(GroupReply::Chat)
        }
        GroupCommand::Decline { what } => joining::decline(cx, &what).map(|()| GroupReply::Done),
        GroupCommand::Remove { group, member } => {
            members::remove(cx, &group, &member).map(|name| GroupReply::Removed { name })
        }
        GroupCommand::Leave { group, end } => members::leave(cx, &group, end).map(|()| GroupReply::Done),
    }
}

/// Leaves a group.
pub(super) fn leave(cx: &mut Cx<'_, '_, '_>, group: &str) -> Result<(), Fault> {
    members::leave(cx, group, false)
}

/// Our role in the group of a chat; none where we are not in it.
pub(super) fn role(unit: &Unit<'_>, chat: &ChatId) -> Result<Option<Role>, Fault> {
    match state::Loaded::of(unit, *chat) {
        Ok(loaded) if loaded.row.ended => Ok(None),
        Ok(loaded) => Ok(loaded.role()),
        Err(Fault::NotAGroup | Fault::GroupNotReady) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long the log of an epoch that ended is still read: as long as the relay keeps it, so that whoever was away
/// finds the way to the next one.
const OLD_LOG_MS: u64 = 30 * 24 * 3600 * 1000;

/// Forgets the logs of epochs that ended long ago.
pub(super) fn tick(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    let over = |left: Option<Timestamp>, now: Timestamp| {
        left.is_some_and(|left| now.as_millis() >= left.as_millis().saturating_add(OLD_LOG_MS))
    };
    for (chat, mut row) in cx.unit.scan::<GroupRow>(&[])? {
        if !row.older.iter().any(|epoch| over(epoch.left, cx.now)) {
            continue;
        }
        let (gone, kept): (Vec<_>, Vec<_>) =
            row.older.into_iter().partition(|epoch| over(epoch.left, cx.now));
        row.older = kept;
        cx.unit.put(&chat, &row);
        for epoch in gone {
            forget_log(cx, &epoch.mailbox)?;
        }
    }
    Ok(())
}

/// Ends our part in a log: closes it where we made it, otherwise only forgets it.
fn forget_log(cx: &mut Cx<'_, '_, '_>, mailbox: &lapwing_wire::ids::MailboxId) -> Result<(), Fault> {
    match cx.unit.get::<MailboxRow>(mailbox)? {
        Some(row) if row.admin.is_some() => outgoing::close_mailbox(cx, mailbox),
        _ => {
            cx.unit.delete::<MailboxRow>(mailbox);
            Ok(())
        }
    }
}
