//! A group as its chain of commits has made it.
//!
//! Every member holds the whole chain and verifies it from the first commit, so that nobody (no relay, no single
//! admin's word) decides who is a member. A commit passes [`Group::verify`] or one of the `stage_*` functions, which
//! end in the same check; [`Group::merge`] then applies it. Nothing changes before.
//!
//! One order of commits is taken: the one that this client saw first. A second valid commit for a position that is
//! taken becomes a [`ForkProof`]. Number and previous hash are the place where a later version settles concurrent
//! commits of several admins by rule (seniority, then hash), never by clock or by a relay's order.
//!
//! Invariants: GRP-01 to GRP-13, GRP-16, GRP-19, GRP-20 of docs/protocol-groups.md, each named where it is checked.

use std::{collections::BTreeMap, fmt};

use lapwing_wire::{codec, time::Timestamp};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    commit::{Commit, CommitIn, Op, Settings},
    epoch::EpochKeys,
    error::GroupError,
    fork::ForkProof,
    id::{CommitHash, GroupId, KeysHash, MemberId, RosterHash},
    member::{MemberEntry, Role, Roster, check_name},
};
use crate::{identity::IdentityKey, session::LocalIdentity};

/// GRP-16: most commits of a chain: a group of 500 whose members each left and came back three times. Then a new
/// group is founded.
pub const MAX_CHAIN: u64 = 4_096;

/// GRP-16: most bytes of a chain, all signed commits together. A newcomer downloads and verifies all of it.
pub const MAX_CHAIN_BYTES: usize = 8 << 20;

/// Room that the stored form needs around its commits.
const STATE_OVERHEAD: usize = 32 << 10;

const VERSION: u8 = 1;

/// A group, verified from its first commit on.
pub struct Group {
    pub(super) id: GroupId,
    pub(super) name: String,
    pub(super) settings: Settings,
    pub(super) roster: Roster,
    /// Everybody's memberships, past ones too: who may sign something that is worth a closer look.
    pub(super) terms: BTreeMap<MemberId, Vec<Term>>,
    pub(super) epoch: u64,
    pub(super) keys: KeysHash,
    pub(super) closed: bool,
    pub(super) chain: Vec<Link>,
    pub(super) bytes: usize,
    /// GRP-14: the roster hashes of this epoch and the one before, as messages may name them.
    pub(super) recent: Vec<(u64, RosterHash)>,
}

/// One commit of the chain.
pub(super) struct Link {
    pub(super) hash: CommitHash,
    pub(super) signed: Vec<u8>,
}

/// One membership of one person.
pub(super) struct Term {
    pub(super) identity: IdentityKey,
    pub(super) role: Role,
    /// Number of the commit that began it.
    pub(super) from: u64,
    /// Number of the commit that ended it.
    pub(super) to: Option<u64>,
}

/// A commit that fits a group and waits for [`Group::merge`].
#[must_use = "a staged commit does nothing until it is merged"]
pub struct Staged {
    commit: CommitIn,
    signed: Vec<u8>,
}

/// Whether signatures and bundles are checked, or were before the chain was stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Outside,
    Vault,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    chain: Vec<ByteBuf>,
}

impl Group {
    /// Founds a group. `founder` is the own entry, its role [`Role::Owner`]; `keys` are those of epoch 0.
    /// The commit is the first of [`Group::commits`].
    ///
    /// # Errors
    /// [`GroupError`] for a bad name, an entry that is not `me`'s, or keys of another epoch.
    pub fn create<R: CryptoRng>(
        me: &LocalIdentity,
        founder: MemberEntry,
        name: &str,
        settings: Settings,
        keys: &EpochKeys,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<Self, GroupError> {
        if founder.identity != *me.public() {
            return Err(GroupError::BadMember);
        }
        if keys.epoch != 0 {
            return Err(GroupError::WrongKeys);
        }
        check_name(name)?;
        check_name(&founder.name)?;
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let author = founder.id();
        let op = Op::Create { name: name.to_owned(), founder, settings, keys: keys.hash(), salt };
        let commit = Commit {
            group: GroupId::NONE,
            number: 0,
            previous: CommitHash::NONE,
            epoch: 0,
            author,
            made: now,
            op,
        };
        Self::found(commit.sign(me, rng)?, Origin::Outside)
    }

    /// Verifies a whole chain, as a newcomer does. Whether it is the chain of the group that was meant is told by
    /// [`Group::id`]; [`GroupWelcome::open`](super::GroupWelcome::open) checks that too.
    ///
    /// # Errors
    /// [`GroupError`] of the first commit that does not hold.
    pub fn from_chain<B: AsRef<[u8]>>(commits: &[B]) -> Result<Self, GroupError> {
        Self::replay(commits.iter().map(AsRef::as_ref), Origin::Outside)
    }

    /// Stages the addition of `member`.
    ///
    /// # Errors
    /// [`GroupError`]: what every other member would say to it.
    pub fn stage_add<R: CryptoRng>(
        &self,
        me: &LocalIdentity,
        member: MemberEntry,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<Staged, GroupError> {
        check_name(&member.name)?;
        self.stage(me, Op::Add { member }, now, rng)
    }

    /// Stages a removal. `keys` are those of the epoch that begins, on a fresh log; `leave` is the member's signed
    /// wish, where there is one, and is needed for the owner.
    ///
    /// # Errors
    /// [`GroupError`]: what every other member would say to it; [`GroupError::WrongKeys`] for keys of another epoch.
    pub fn stage_remove<R: CryptoRng>(
        &self,
        me: &LocalIdentity,
        member: &MemberId,
        leave: Option<&[u8]>,
        keys: &EpochKeys,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<Staged, GroupError> {
        // GRP-09, GRP-11: keys that were in use before exclude nobody.
        if Some(keys.epoch) != self.epoch.checked_add(1) || keys.hash() == self.keys {
            return Err(GroupError::WrongKeys);
        }
        let op = Op::Remove { member: *member, leave: leave.map(<[u8]>::to_vec), keys: keys.hash() };
        self.stage(me, op, now, rng)
    }

    /// Stages the end of the group.
    ///
    /// # Errors
    /// [`GroupError`]: what every other member would say to it.
    pub fn stage_close<R: CryptoRng>(
        &self,
        me: &LocalIdentity,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<Staged, GroupError> {
        self.stage(me, Op::Close, now, rng)
    }

    /// Checks a commit read from the log.
    ///
    /// # Errors
    /// [`GroupError`]; among them [`GroupError::Known`] for one that is in the chain, [`GroupError::Gap`] if others are
    /// missing before it, and [`GroupError::Fork`] with the proof for a second valid one at a taken position.
    pub fn verify(&self, signed: &[u8]) -> Result<Staged, GroupError> {
        let incoming = CommitIn::decode(signed)?;
        // GRP-01: a first commit is of the group that it founds.
        let founds = incoming.commit.number == 0;
        let group = if founds { incoming.founded() } else { incoming.commit.group };
        if group != self.id {
            return Err(GroupError::WrongGroup);
        }
        let next = self.next_number();
        let number = incoming.commit.number;
        if number > next {
            return Err(GroupError::Gap { expected: next });
        }
        if let Some(link) = usize::try_from(number).ok().and_then(|at| self.chain.get(at)) {
            if link.hash == incoming.hash {
                return Err(GroupError::Known);
            }
            // GRP-13: it counts only if it would have held at its position. To look that up is costly, so that only
            // who could have made a commit there makes us do it.
            self.check_past(&incoming)?;
            self.at(number)?.check(&incoming, Origin::Outside)?;
            let proof = ForkProof::new(self.id, link.signed.clone(), incoming.encode());
            return Err(GroupError::Fork(Box::new(proof)));
        }
        self.check(&incoming, Origin::Outside)?;
        Ok(Staged { signed: incoming.encode(), commit: incoming })
    }

    /// Applies a staged commit.
    ///
    /// # Errors
    /// [`GroupError::Stale`] if another was merged since, or the commit was staged for another group.
    pub fn merge(&mut self, staged: Staged) -> Result<(), GroupError> {
        let Staged { commit, signed } = staged;
        if commit.commit.group != self.id
            || commit.commit.number != self.next_number()
            || commit.commit.previous != self.head()
        {
            return Err(GroupError::Stale);
        }
        self.apply(commit, signed);
        Ok(())
    }

    /// The group's id.
    #[must_use]
    pub const fn id(&self) -> GroupId {
        self.id
    }

    /// The group's name. Untrusted text.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The group's settings.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The epoch that holds.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last commit.
    #[must_use]
    pub fn head(&self) -> CommitHash {
        self.chain.last().map_or(CommitHash::NONE, |link| link.hash)
    }

    /// Number that the next commit gets; so many are in the chain.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        u64::try_from(self.chain.len()).unwrap_or(u64::MAX)
    }

    /// Who is in the group.
    #[must_use]
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// GRP-12: the roster's hash in this epoch, which every message names.
    #[must_use]
    pub fn roster_hash(&self) -> RosterHash {
        self.roster.hash(self.epoch)
    }

    /// One member.
    #[must_use]
    pub fn member(&self, id: &MemberId) -> Option<&MemberEntry> {
        self.roster.get(id)
    }

    /// GRP-20: whether the group has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// All signed commits, the first one first: what [`Group::from_chain`] takes.
    pub fn commits(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.chain.iter().map(|link| link.signed.as_slice())
    }

    /// The commits from the first to the newest, as statements: who was a member, and who let whom in.
    pub fn history(&self) -> impl Iterator<Item = Commit> {
        self.chain
            .iter()
            .filter_map(|link| CommitIn::decode(&link.signed).ok().map(|incoming| incoming.commit))
    }

    /// Bytes of all signed commits together.
    #[must_use]
    pub const fn chain_bytes(&self) -> usize {
        self.bytes
    }

    /// GRP-11: whether these are the keys of the epoch that holds.
    ///
    /// # Errors
    /// [`GroupError::WrongEpoch`] and [`GroupError::WrongKeys`].
    pub fn check_keys(&self, keys: &EpochKeys) -> Result<(), GroupError> {
        if keys.epoch != self.epoch {
            return Err(GroupError::WrongEpoch);
        }
        if keys.hash() == self.keys { Ok(()) } else { Err(GroupError::WrongKeys) }
    }

    /// The chain, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let chain = self.commits().map(ByteBuf::from).collect();
        codec::encode(&Stored { v: VERSION, chain })
    }

    /// Reads what [`Group::export`] wrote. Rules are applied again; signatures and bundles, which were checked before
    /// the chain was stored, are not: the vault authenticates what it returns.
    ///
    /// # Errors
    /// [`GroupError::Malformed`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, GroupError> {
        let Stored { v, chain } =
            codec::decode(bytes, MAX_CHAIN_BYTES + STATE_OVERHEAD).map_err(|_| GroupError::Malformed)?;
        if v != VERSION {
            return Err(GroupError::NeedsNewerVersion);
        }
        Self::replay(chain.iter().map(|signed| signed.as_slice()), Origin::Vault)
    }

    /// GRP-14: whether messages of `epoch` may name this roster: it was the group's during that epoch, which is this
    /// one or the one before.
    pub(super) fn had_roster(&self, epoch: u64, roster: &RosterHash) -> bool {
        self.recent.contains(&(epoch, *roster))
    }

    /// The group as it was before commit `number`.
    pub(super) fn at(&self, number: u64) -> Result<Self, GroupError> {
        let count = usize::try_from(number).map_err(|_| GroupError::Malformed)?;
        let past = self.chain.get(..count).ok_or(GroupError::Gap { expected: self.next_number() })?;
        Self::replay(past.iter().map(|link| link.signed.as_slice()), Origin::Vault)
    }

    /// GRP-13: checks a commit as the successor of the last one.
    pub(super) fn check_successor(&self, incoming: &CommitIn) -> Result<(), GroupError> {
        self.check(incoming, Origin::Outside)
    }

    fn stage<R: CryptoRng>(
        &self,
        me: &LocalIdentity,
        op: Op,
        now: Timestamp,
        rng: &mut R,
    ) -> Result<Staged, GroupError> {
        let commit = Commit {
            group: self.id,
            number: self.next_number(),
            previous: self.head(),
            epoch: self.epoch_after(&op)?,
            author: MemberId::of(me.public()),
            made: now,
            op,
        };
        let commit = commit.sign(me, rng)?;
        // What we send obeys the rules that we hold others to.
        self.check(&commit, Origin::Outside)?;
        Ok(Staged { signed: commit.encode(), commit })
    }

    fn replay<'a>(commits: impl Iterator<Item = &'a [u8]>, origin: Origin) -> Result<Self, GroupError> {
        let mut commits = commits.map(CommitIn::decode);
        let mut group = Self::found(commits.next().ok_or(GroupError::Malformed)??, origin)?;
        for commit in commits {
            let commit = commit?;
            if commit.commit.group != group.id {
                return Err(GroupError::WrongGroup);
            }
            group.check(&commit, origin)?;
            let signed = commit.encode();
            group.apply(commit, signed);
        }
        Ok(group)
    }

    /// Applies a commit that passed [`Self::check`].
    fn apply(&mut self, commit: CommitIn, signed: Vec<u8>) {
        let hash = commit.hash;
        let Commit { group: _, number, previous: _, epoch, author: _, made: _, op } = commit.commit;
        match op {
            // Refused by `check`; a first commit is applied by `found`.
            Op::Create { .. } | Op::Unsupported { .. } => {}
            Op::Add { member } => {
                let term = Term { identity: member.identity, role: member.role, from: number, to: None };
                self.terms.entry(member.id()).or_default().push(term);
                self.roster.insert(member, number);
            }
            Op::Remove { member, leave: _, keys } => {
                self.roster.remove(&member);
                if let Some(term) = self.terms.get_mut(&member).and_then(|terms| terms.last_mut()) {
                    term.to = Some(number);
                }
                self.keys = keys;
                // GRP-14: this epoch and the one before.
                self.recent.retain(|(of, _)| of.saturating_add(1) >= epoch);
            }
            Op::Close => self.closed = true,
        }
        self.epoch = epoch;
        let roster = (epoch, self.roster.hash(epoch));
        if !self.recent.contains(&roster) {
            self.recent.push(roster);
        }
        self.bytes += signed.len();
        self.chain.push(Link { hash, signed });
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Group(..)")
    }
}

impl Staged {
    /// The signed commit, to be put into the log as [`Entry::Commit`](super::Entry::Commit).
    #[must_use]
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// What it does.
    #[must_use]
    pub const fn commit(&self) -> &Commit {
        &self.commit.commit
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> CommitHash {
        self.commit.hash
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staged(..)")
    }
}
