//! What is shown of groups.

use std::collections::BTreeMap;

use lapwing_protocol::group::{MemberId, Op, Role};

use super::{
    super::{Fault, view::ChatState},
    state::Loaded,
};
use crate::{
    store::{ChatId, ChatRow, GroupRow, InvitationRow, Unit, UnsealedRow},
    untrusted::Untrusted,
};

/// Names of all who are or were in a group.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<MemberId, String>);

impl Names {
    /// The names of a chat's group; none for a direct chat.
    ///
    /// # Errors
    /// [`Fault::Store`].
    pub fn of(unit: &Unit<'_>, chat: &ChatId) -> Result<Self, Fault> {
        let loaded = match Loaded::of(unit, *chat) {
            Ok(loaded) => loaded,
            Err(Fault::NotAGroup | Fault::GroupNotReady) => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut names = BTreeMap::new();
        for signed in loaded.group.history() {
            match &signed.op {
                Op::Create { founder: member, .. } | Op::Add { member } => {
                    names.insert(member.id(), member.name.clone());
                }
                _ => {}
            }
        }
        Ok(Self(names))
    }

    /// A member's name.
    #[must_use]
    pub fn get(&self, member: &MemberId) -> Option<String> {
        self.0.get(member).cloned()
    }
}

/// A group.
#[derive(Debug)]
pub struct GroupView {
    /// Its name, as its founder chose it.
    pub name: Untrusted<String>,
    /// Number of the epoch: how often somebody was removed.
    pub epoch: u64,
    /// First characters of the head's hash, for comparing by voice.
    pub head: String,
    /// Our role.
    pub role: Option<Role>,
    /// We are out of it, or it ended.
    pub ended: bool,
    /// A removal is known whose keys have not arrived yet.
    pub waiting_for_keys: bool,
    /// The members.
    pub members: Vec<MemberView>,
    /// The log's relay.
    pub relay: Option<lapwing_wire::address::RelayAddress>,
}

/// A member.
#[derive(Debug)]
pub struct MemberView {
    /// Name in the group.
    pub name: Untrusted<String>,
    /// Role.
    pub role: Role,
    /// It is us.
    pub me: bool,
    /// Chat that he was invited through, where it was ours.
    pub chat: Option<String>,
}

/// All that is shown of one group.
///
/// # Errors
/// [`Fault::NotAGroup`], [`Fault::GroupNotReady`].
pub fn group_view(unit: &Unit<'_>, chat: &ChatId) -> Result<GroupView, Fault> {
    let loaded = Loaded::of(unit, *chat)?;
    let keys = loaded.keys()?;
    let mut through: BTreeMap<MemberId, String> = BTreeMap::new();
    for (_, row) in unit.scan::<InvitationRow>(&[])? {
        if let (true, Some(member), Some(known)) =
            (row.chat == Some(*chat), row.member, unit.get::<ChatRow>(&row.through)?)
        {
            through.insert(member, known.name);
        }
    }
    let me = loaded.me();
    let members = loaded
        .group
        .roster()
        .iter()
        .map(|(id, entry)| MemberView {
            name: Untrusted::new(entry.name.clone()),
            role: entry.role,
            me: *id == me,
            chat: through.get(id).cloned(),
        })
        .collect();
    let head = loaded.group.head().as_bytes().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(GroupView {
        name: Untrusted::new(loaded.group.name().to_owned()),
        epoch: loaded.group.epoch(),
        head,
        role: loaded.role(),
        ended: loaded.row.ended || loaded.group.is_closed(),
        waiting_for_keys: keys.is_none() && !loaded.row.ended,
        members,
        relay: keys.map(|keys| keys.relay),
    })
}

/// The relay of a group's log, as far as it is known.
///
/// # Errors
/// [`Fault::Store`].
pub(in super::super) fn log_relay(
    unit: &Unit<'_>,
    chat: ChatId,
) -> Result<Option<lapwing_wire::address::RelayAddress>, Fault> {
    if unit.get::<GroupRow>(&chat)?.is_none() {
        return Ok(None);
    }
    Ok(Loaded::of(unit, chat)?.keys()?.map(|keys| keys.relay))
}

/// Where the chat of a group stands.
///
/// # Errors
/// [`Fault::Store`].
pub fn state(unit: &Unit<'_>, chat: &ChatId) -> Result<ChatState, Fault> {
    Ok(match unit.get::<GroupRow>(chat)? {
        Some(row) if row.ended => ChatState::Ended,
        Some(row) if row.epoch.is_some() => ChatState::Open,
        Some(_) => ChatState::Joining,
        None => ChatState::Failed,
    })
}

/// Messages of ours that wait to be sealed.
///
/// # Errors
/// [`Fault::Store`].
pub fn unsealed(unit: &Unit<'_>, chat: &ChatId) -> Result<usize, Fault> {
    Ok(unit.scan::<UnsealedRow>(chat.as_bytes())?.len())
}

/// Names of the chats of groups in which this contact is, whom we invited.
///
/// # Errors
/// [`Fault::Store`].
pub fn shared_with(unit: &Unit<'_>, contact: &ChatId) -> Result<Vec<String>, Fault> {
    let mut groups = Vec::new();
    for (_, row) in unit.scan::<InvitationRow>(&[])? {
        let (Some(chat), Some(member)) = (row.chat, row.member) else { continue };
        if row.through != *contact {
            continue;
        }
        let Ok(loaded) = Loaded::of(unit, chat) else { continue };
        if loaded.group.member(&member).is_some()
            && !loaded.row.ended
            && let Some(known) = unit.get::<ChatRow>(&chat)?
        {
            groups.push(known.name);
        }
    }
    groups.sort();
    Ok(groups)
}
