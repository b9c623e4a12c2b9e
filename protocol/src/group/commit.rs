//! Commits: the signed steps of a group's membership.
//!
//! ```text
//! signed commit = CBOR map { "s": statement, "g": signature 64 }
//! signature     = XEdDSA by the author's identity, label "lapwing/1 signed commit"        signing.rs
//! statement     = CBOR map { "v": 1, "g": group id 32 (zeros in the first), "n": number, "p": hash of the previous 32,
//!                 "e": epoch that holds after it, "a": author's member id 32, "t": made, ms since 1970,
//!                 "k": kind, "b": CBOR of the body, as bytes }
//! commit hash   = SHA-256( "lapwing/1 hash of a commit" 00 | length u32 BE | statement )
//! group id      = SHA-256( "lapwing/1 group id" 00 | length u32 BE | first statement )
//!
//! kind      body
//! "create"  { "name": text, "founder": member, "settings": { "announcement": bool }, "keys": hash 32, "salt": 16 }
//! "add"     { "member": member }
//! "remove"  { "member": id 32, "leave": signed wish to leave, or null, "keys": hash 32 }
//! "close"   null
//! ```
//!
//! The statement's bytes are kept as they came: they are what is signed and hashed, never an encoding of ours.
//!
//! Invariants: a commit is hashed by its statement and not by its signature, of which there are many (GRP-03); a kind
//! or version that is not known here stops the chain, if who may commit has signed it (GRP-19): every version keeps the
//! statement's fields. The kinds "role" and "settings" are left free.

use std::fmt;

use lapwing_wire::{codec, ids::labelled_hash, time::Timestamp};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    error::GroupError,
    id::{CommitHash, GroupId, KeysHash, MemberId},
    member::{MemberEntry, RawMember, check_name},
};
use crate::{identity::IdentityKey, labels, session::LocalIdentity, signing::Signature};

/// GRP-16: longest signed commit in bytes: a bundle of 4 KiB, and room.
pub const MAX_COMMIT: usize = 8 << 10;

const VERSION: u8 = 1;

/// What members of a group agree on besides who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether only owner and admins write: newcomers are then added as readers.
    pub announcement: bool,
}

/// One step of a group's membership.
#[derive(Clone, PartialEq, Eq)]
pub struct Commit {
    /// The group; zeros in the first commit.
    pub group: GroupId,
    /// 0, 1, 2, ...
    pub number: u64,
    /// The commit before it; zeros in the first.
    pub previous: CommitHash,
    /// The epoch that holds after it.
    pub epoch: u64,
    /// Who made it.
    pub author: MemberId,
    /// When, as its author says. Decides nothing.
    pub made: Timestamp,
    /// What it does.
    pub op: Op,
}

/// What a commit does.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Founds the group.
    Create {
        /// The group's name.
        name: String,
        /// Its owner.
        founder: MemberEntry,
        /// Its settings.
        settings: Settings,
        /// The keys of epoch 0.
        keys: KeysHash,
        /// Random: two groups never share an id.
        salt: [u8; 16],
    },
    /// Adds a member, in the same epoch.
    Add {
        /// Whom.
        member: MemberEntry,
    },
    /// Removes a member; the next epoch begins.
    Remove {
        /// Whom.
        member: MemberId,
        /// The member's signed wish to leave, where there is one.
        leave: Option<Vec<u8>>,
        /// The keys of the epoch that begins.
        keys: KeysHash,
    },
    /// Ends the group. Nothing follows.
    Close,
    /// GRP-19: of a kind or version that this program does not know. Never staged; from who may commit, it stops the
    /// chain.
    Unsupported {
        /// The kind's name as sent; untrusted text.
        kind: String,
        /// Its body.
        body: Vec<u8>,
    },
}

#[derive(Serialize, Deserialize)]
struct Signed {
    s: ByteBuf,
    g: ByteArray<64>,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    v: u8,
    g: GroupId,
    n: u64,
    p: CommitHash,
    e: u64,
    a: MemberId,
    t: Timestamp,
    k: String,
    b: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct CreateBody {
    name: String,
    founder: RawMember,
    settings: Settings,
    keys: KeysHash,
    #[serde(with = "serde_bytes")]
    salt: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct AddBody {
    member: RawMember,
}

#[derive(Serialize, Deserialize)]
struct RemoveBody {
    member: MemberId,
    leave: Option<ByteBuf>,
    keys: KeysHash,
}

/// A commit as decoded: of known form, nothing more. The group it claims to belong to decides whether it holds.
#[derive(Clone)]
pub(super) struct CommitIn {
    pub(super) commit: Commit,
    pub(super) hash: CommitHash,
    statement: Vec<u8>,
    signature: Signature,
}

impl Commit {
    /// Signs the commit.
    pub(super) fn sign<R: CryptoRng>(self, me: &LocalIdentity, rng: &mut R) -> Result<CommitIn, GroupError> {
        let statement = self.statement();
        let signature = me.sign(labels::COMMIT, &statement, rng).map_err(|_| GroupError::CannotSign)?;
        Ok(CommitIn { commit: self, hash: hash(&statement), statement, signature })
    }

    fn statement(&self) -> Vec<u8> {
        let Self { group, number, previous, epoch, author, made, op } = self;
        let (kind, body) = op.encode();
        codec::encode(&Statement {
            v: VERSION,
            g: *group,
            n: *number,
            p: *previous,
            e: *epoch,
            a: *author,
            t: *made,
            k: kind.to_owned(),
            b: ByteBuf::from(body),
        })
    }
}

impl Op {
    fn encode(&self) -> (&str, Vec<u8>) {
        match self {
            Self::Create { name, founder, settings, keys, salt } => {
                let body = CreateBody {
                    name: name.clone(),
                    founder: founder.raw(),
                    settings: *settings,
                    keys: *keys,
                    salt: *salt,
                };
                ("create", codec::encode(&body))
            }
            Self::Add { member } => ("add", codec::encode(&AddBody { member: member.raw() })),
            Self::Remove { member, leave, keys } => {
                let leave = leave.clone().map(ByteBuf::from);
                ("remove", codec::encode(&RemoveBody { member: *member, leave, keys: *keys }))
            }
            Self::Close => ("close", codec::encode(&())),
            Self::Unsupported { kind, body } => (kind, body.clone()),
        }
    }

    fn decode(kind: String, body: ByteBuf) -> Result<Self, GroupError> {
        let body = body.into_vec();
        Ok(match kind.as_str() {
            "create" => {
                let CreateBody { name, founder, settings, keys, salt } = part(&body)?;
                check_name(&name)?;
                Self::Create { name, founder: MemberEntry::from_raw(founder)?, settings, keys, salt }
            }
            "add" => {
                let AddBody { member } = part(&body)?;
                Self::Add { member: MemberEntry::from_raw(member)? }
            }
            "remove" => {
                let RemoveBody { member, leave, keys } = part(&body)?;
                Self::Remove { member, leave: leave.map(ByteBuf::into_vec), keys }
            }
            "close" => {
                let () = part(&body)?;
                Self::Close
            }
            _ => Self::Unsupported { kind, body },
        })
    }

    /// GRP-09: whether an epoch begins with it.
    #[must_use]
    pub const fn begins_epoch(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Remove { .. })
    }
}

impl CommitIn {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, GroupError> {
        if bytes.len() > MAX_COMMIT {
            return Err(GroupError::TooLong);
        }
        let Signed { s, g } = part(bytes)?;
        let Statement { v, g: group, n, p, e, a, t, k, b } = part(&s)?;
        // GRP-19: what is not known here is no error yet: whether it stops the chain depends on who made it.
        let op = match v {
            VERSION => Op::decode(k, b)?,
            _ => Op::Unsupported { kind: k, body: b.into_vec() },
        };
        let commit = Commit { group, number: n, previous: p, epoch: e, author: a, made: t, op };
        let statement = s.into_vec();
        Ok(Self { commit, hash: hash(&statement), statement, signature: Signature::from_bytes(*g) })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(&Signed {
            s: ByteBuf::from(self.statement.as_slice()),
            g: ByteArray::new(*self.signature.as_bytes()),
        })
    }

    /// GRP-02.
    pub(super) fn verify_signature(&self, author: &IdentityKey) -> Result<(), GroupError> {
        self.signature.verify(author, labels::COMMIT, &self.statement).map_err(|_| GroupError::BadSignature)
    }

    /// GRP-01: the id of the group that this commit founds.
    pub(super) fn founded(&self) -> GroupId {
        GroupId::from_bytes(labelled_hash(labels::GROUP_ID.as_bytes(), &[&self.statement]))
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commit(..)")
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Op(..)")
    }
}

impl fmt::Debug for CommitIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommitIn(..)")
    }
}

/// GRP-03.
fn hash(statement: &[u8]) -> CommitHash {
    CommitHash::from_bytes(labelled_hash(labels::COMMIT_HASH.as_bytes(), &[statement]))
}

fn part<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, GroupError> {
    codec::decode(bytes, MAX_COMMIT).map_err(|_| GroupError::Malformed)
}
