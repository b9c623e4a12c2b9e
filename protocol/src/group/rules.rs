//! What a commit may do, and who may do it.
//!
//! Every commit goes through here: what this client stages, what it reads from the log, what a newcomer replays.

use std::collections::BTreeMap;

use super::{
    chain::{Group, Link, MAX_CHAIN, MAX_CHAIN_BYTES, Origin, Term},
    commit::{Commit, CommitIn, Op},
    error::GroupError,
    id::{CommitHash, GroupId, KeysHash, MemberId},
    leave,
    member::{MAX_MEMBERS, MemberEntry, Role, Roster},
};

impl Group {
    /// The group that a first commit founds.
    pub(super) fn found(first: CommitIn, origin: Origin) -> Result<Self, GroupError> {
        let Commit { group, number, previous, epoch, author, made: _, op } = &first.commit;
        let (name, founder, settings, keys) = match op {
            Op::Create { name, founder, settings, keys, salt: _ } => (name, founder, settings, keys),
            Op::Unsupported { .. } => return Err(GroupError::NeedsNewerVersion),
            _ => return Err(GroupError::Malformed),
        };
        if *group != GroupId::NONE || *number != 0 || *previous != CommitHash::NONE {
            return Err(GroupError::Malformed);
        }
        if *epoch != 0 {
            return Err(GroupError::WrongEpoch);
        }
        // GRP-07: a group is founded by its owner.
        if *author != founder.id() {
            return Err(GroupError::NotAMember);
        }
        if founder.role != Role::Owner {
            return Err(GroupError::NotAllowed);
        }
        if origin == Origin::Outside {
            first.verify_signature(&founder.identity)?;
            founder.verified_bundle()?;
        }
        let mut roster = Roster::default();
        roster.insert(founder.clone(), 0);
        let recent = vec![(0, roster.hash(0))];
        let signed = first.encode();
        Ok(Self {
            id: first.founded(),
            name: name.clone(),
            settings: *settings,
            terms: BTreeMap::from([(
                *author,
                vec![Term { identity: founder.identity, role: founder.role, from: 0, to: None }],
            )]),
            roster,
            epoch: 0,
            keys: *keys,
            closed: false,
            bytes: signed.len(),
            chain: vec![Link { hash: first.hash, signed }],
            recent,
        })
    }

    /// Whether a commit of this group holds as the next one.
    pub(super) fn check(&self, incoming: &CommitIn, origin: Origin) -> Result<(), GroupError> {
        let Commit { group: _, number, previous, epoch, author, made: _, op } = &incoming.commit;
        // GRP-03.
        if *number != self.next_number() || *previous != self.head() {
            return Err(GroupError::OtherBranch);
        }
        // GRP-05: a member, at this moment, whose signature holds and whose role allows it.
        let entry = self.roster.get(author).ok_or(GroupError::NotAMember)?;
        if origin == Origin::Outside {
            incoming.verify_signature(&entry.identity)?;
        }
        if self.closed {
            return Err(GroupError::Closed);
        }
        if !entry.role.may_commit() {
            return Err(GroupError::NotAllowed);
        }
        // GRP-19: by now it is known to come from somebody who may stop the chain.
        if matches!(op, Op::Unsupported { .. }) {
            return Err(GroupError::NeedsNewerVersion);
        }
        // GRP-16.
        if self.next_number() >= MAX_CHAIN || self.bytes + incoming.encode().len() > MAX_CHAIN_BYTES {
            return Err(GroupError::ChainFull);
        }
        // GRP-09.
        if *epoch != self.epoch_after(op)? {
            return Err(GroupError::WrongEpoch);
        }
        match op {
            Op::Create { .. } => Err(GroupError::Malformed),
            Op::Unsupported { .. } => Err(GroupError::NeedsNewerVersion),
            Op::Add { member } => self.check_add(entry.role, member, origin),
            Op::Remove { member, leave, keys } => {
                self.check_remove(author, member, leave.as_deref(), keys, origin)
            }
            Op::Close => Ok(()),
        }
    }

    fn check_add(&self, by: Role, member: &MemberEntry, origin: Origin) -> Result<(), GroupError> {
        // GRP-06: nobody twice, no name twice.
        if self.roster.contains(&member.id()) {
            return Err(GroupError::AlreadyMember);
        }
        if self.roster.by_name(&member.name).is_some() {
            return Err(GroupError::NameTaken);
        }
        // GRP-07: one owner, who alone makes admins.
        let allowed = match member.role {
            Role::Owner => false,
            Role::Admin => by == Role::Owner,
            Role::Member | Role::Reader => true,
        };
        if !allowed {
            return Err(GroupError::NotAllowed);
        }
        if self.roster.len() >= MAX_MEMBERS {
            return Err(GroupError::Full);
        }
        if origin == Origin::Outside {
            member.verified_bundle()?;
        }
        Ok(())
    }

    fn check_remove(
        &self,
        author: &MemberId,
        member: &MemberId,
        leave: Option<&[u8]>,
        keys: &KeysHash,
        origin: Origin,
    ) -> Result<(), GroupError> {
        let entry = self.roster.get(member).ok_or(GroupError::NoSuchMember)?;
        // GRP-08.
        if author == member {
            return Err(GroupError::RemovesItself);
        }
        if entry.role == Role::Owner && leave.is_none() {
            return Err(GroupError::OwnerStays);
        }
        if let Some(leave) = leave
            && origin == Origin::Outside
            && leave::verify(self.id, &self.roster, leave)? != *member
        {
            // GRP-10: somebody else's wish.
            return Err(GroupError::BadLeave);
        }
        // GRP-11: the keys of the ended epoch exclude nobody.
        if *keys == self.keys { Err(GroupError::WrongKeys) } else { Ok(()) }
    }

    /// GRP-09: the epoch after a commit: a removal begins the next one.
    pub(super) fn epoch_after(&self, op: &Op) -> Result<u64, GroupError> {
        if op.begins_epoch() {
            self.epoch.checked_add(1).ok_or(GroupError::WrongEpoch)
        } else {
            Ok(self.epoch)
        }
    }

    /// GRP-13: what can be told of a commit for a taken position without going back there: that it follows the commit
    /// before it, and that its author was there at the time with the right to commit.
    pub(super) fn check_past(&self, incoming: &CommitIn) -> Result<(), GroupError> {
        let Commit { group: _, number, previous, epoch: _, author, made: _, op: _ } = &incoming.commit;
        let before = number.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let before = before.and_then(|at| self.chain.get(at)).ok_or(GroupError::Malformed)?;
        if before.hash != *previous {
            return Err(GroupError::OtherBranch);
        }
        let terms = self.terms.get(author).ok_or(GroupError::NotAMember)?;
        let there = |term: &&Term| term.from < *number && term.to.is_none_or(|to| *number <= to);
        let term = terms.iter().find(there).ok_or(GroupError::NotAMember)?;
        incoming.verify_signature(&term.identity)?;
        if term.role.may_commit() { Ok(()) } else { Err(GroupError::NotAllowed) }
    }
}
