//! Loading and storing what a member holds of a group.

use lapwing_protocol::{
    group::{EpochKeys, Group, GroupError, MemberId, Role},
    session::LocalIdentity,
};
use serde_bytes::ByteBuf;

use super::super::{Cx, Effect, Fault, contact, conversation, retention};
use crate::store::{ChainRow, ChatId, ChatKind, GroupRow, KeptEpoch, MailboxRow, Unit};

/// A group, loaded for one unit of work.
pub(super) struct Loaded {
    pub(super) chat: ChatId,
    pub(super) row: GroupRow,
    pub(super) group: Group,
    pub(super) local: LocalIdentity,
    /// Commits that the stored chain has: it is long, and written only when it has grown.
    stored: u64,
}

impl Loaded {
    /// The group of a chat whose history is here.
    pub(super) fn of(unit: &Unit<'_>, chat: ChatId) -> Result<Self, Fault> {
        let row = unit.get::<GroupRow>(&chat)?.ok_or(Fault::NotAGroup)?;
        let chain = unit.get::<ChainRow>(&chat)?.ok_or(Fault::GroupNotReady)?;
        let group = Group::import(&chain.state).map_err(|_| Fault::Inconsistent("a group cannot be read"))?;
        Self::with(chat, row, group)
    }

    /// As [`Loaded::of`], taking over the group if it was the last that was looked at.
    pub(super) fn taken(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<Self, Fault> {
        match cx.group.take() {
            Some((of, group)) if of == chat => {
                let row = cx.unit.get::<GroupRow>(&chat)?.ok_or(Fault::NotAGroup)?;
                Self::with(chat, row, group)
            }
            _ => Self::of(cx.unit, chat),
        }
    }

    /// Leaves the group for the next look at it. All that changed must be staged.
    pub(super) fn leave_for(self, cx: &mut Cx<'_, '_, '_>) {
        if self.stored == self.group.next_number() {
            cx.group = Some((self.chat, self.group));
        }
    }

    fn with(chat: ChatId, row: GroupRow, group: Group) -> Result<Self, Fault> {
        let local = LocalIdentity::import(&row.local)?;
        let stored = group.next_number();
        Ok(Self { chat, row, group, local, stored })
    }

    /// The group of a chat by its name, if we are in it.
    pub(super) fn named(cx: &Cx<'_, '_, '_>, name: &str) -> Result<Self, Fault> {
        let (chat, row) = contact::find(cx, name)?;
        if row.kind != ChatKind::Group {
            return Err(Fault::NotAGroup);
        }
        let loaded = Self::of(cx.unit, chat)?;
        if loaded.row.ended || loaded.group.is_closed() { Err(Fault::GroupEnded) } else { Ok(loaded) }
    }

    /// Who we are in it.
    pub(super) fn me(&self) -> MemberId {
        MemberId::of(self.local.public())
    }

    /// Our role in it.
    pub(super) fn role(&self) -> Option<Role> {
        self.group.member(&self.me()).map(|entry| entry.role)
    }

    /// Refuses who is no admin.
    pub(super) fn require_admin(&self) -> Result<(), Fault> {
        if self.role().is_some_and(Role::may_commit) { Ok(()) } else { Err(Fault::NotAdmin) }
    }

    /// The keys of the epoch that we write to, if they are those of the chain's epoch.
    pub(super) fn keys(&self) -> Result<Option<EpochKeys>, Fault> {
        let Some(epoch) = &self.row.epoch else { return Ok(None) };
        let keys =
            EpochKeys::import(&epoch.keys).map_err(|_| Fault::Inconsistent("an epoch cannot be read"))?;
        Ok(self.group.check_keys(&keys).is_ok().then_some(keys))
    }

    /// Stages the row, and the chain if it has grown.
    pub(super) fn put(&mut self, cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
        self.row.local = ByteBuf::from(self.local.export()?.expose().to_vec());
        cx.unit.put(&self.chat, &self.row);
        if self.stored != self.group.next_number() {
            cx.unit.put(&self.chat, &ChainRow { state: ByteBuf::from(self.group.export()) });
            self.stored = self.group.next_number();
        }
        Ok(())
    }

    /// Writes to the log of these keys from now on; the one before is still read.
    pub(super) fn enter(&mut self, cx: &mut Cx<'_, '_, '_>, keys: &EpochKeys) {
        if let Some(mut old) = self.row.epoch.take() {
            old.left = Some(cx.now);
            self.row.older.push(old);
        }
        self.row.epoch = Some(KeptEpoch {
            keys: ByteBuf::from(keys.export().expose().to_vec()),
            mailbox: keys.mailbox,
            left: None,
        });
        // A new epoch needs a new sender key, which only its members get.
        self.drop_sender_key();
        self.row.coming = None;
    }

    /// The next message is written under a new sender key.
    pub(super) fn drop_sender_key(&mut self) {
        self.row.sender = None;
        self.row.sender_made = None;
        self.row.given_to.clear();
    }

    /// Somebody else put an end to it: what was sealed for the group and has not left never will.
    pub(super) fn end_from_outside(&mut self, cx: &mut Cx<'_, '_, '_>, text: &str) -> Result<(), Fault> {
        super::writing::give_up_sealed(cx, self.chat)?;
        self.end(cx, text)
    }

    /// Nothing more is read or written: we left, were removed, or the group ended. Its messages stay.
    pub(super) fn end(&mut self, cx: &mut Cx<'_, '_, '_>, text: &str) -> Result<(), Fault> {
        self.row.ended = true;
        let logs: Vec<_> = self.row.epoch.take().into_iter().chain(self.row.older.drain(..)).collect();
        for log in logs {
            // Who made the log leaves it to its age: others have to read that it ended.
            cx.unit.delete::<MailboxRow>(&log.mailbox);
        }
        self.drop_sender_key();
        self.row.coming = None;
        // RET-05
        retention::forget_members(cx, &self.chat)?;
        super::writing::give_up(cx, self.chat)?;
        self.put(cx)?;
        conversation::note(cx, self.chat, text)?;
        cx.tell(Effect::Group { chat: self.chat });
        Ok(())
    }

    /// The name that a member has, or had.
    pub(super) fn name_of(&self, member: &MemberId) -> String {
        self.group.member(member).map_or_else(|| "a former member".to_owned(), |entry| entry.name.clone())
    }
}

/// A refusal of the protocol, in words for people.
pub(super) fn refused(error: &GroupError) -> Fault {
    match error {
        GroupError::NotAllowed => Fault::NotAdmin,
        GroupError::NoSuchMember => Fault::UnknownMember,
        GroupError::Closed => Fault::GroupEnded,
        other => Fault::Group(other.to_string()),
    }
}

/// Makes the chat of a group under a free name close to `wanted`, which a peer may have chosen.
pub(super) fn new_chat(cx: &mut Cx<'_, '_, '_>, wanted: &str, exact: bool) -> Result<ChatId, Fault> {
    if exact {
        return contact::new_chat(cx, wanted, ChatKind::Group);
    }
    let shown: String =
        crate::untrusted::Untrusted::new(wanted.to_owned()).line().to_string().chars().take(48).collect();
    let base = if shown.trim().is_empty() { "group".to_owned() } else { shown };
    let mut name = base.clone();
    let mut count = 1u32;
    while contact::id_of(cx.unit, &name).is_ok() {
        count = count.saturating_add(1);
        name = format!("{base} {count}");
    }
    contact::new_chat(cx, &name, ChatKind::Group)
}
