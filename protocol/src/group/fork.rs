//! Two different valid commits for one position.
//!
//! ```text
//! proof = CBOR map { "g": group id 32, "a": signed commit, "b": signed commit }
//! ```
//!
//! Invariants: a proof is checked against the chain before the position, which every member has, and against nothing
//! else: it convinces who was offline, and who follows either branch (GRP-13).
//! A fork is no proof of malice: two admins may have acted at once. Two commits of one author for one position are.

use std::fmt;

use lapwing_wire::codec;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    chain::Group,
    commit::{CommitIn, MAX_COMMIT},
    error::GroupError,
    id::{GroupId, MemberId},
};

/// Longest encoded proof in bytes.
pub const MAX_FORK_PROOF: usize = 2 * MAX_COMMIT + 256;

/// Two signed commits that exclude each other.
#[derive(Clone, PartialEq, Eq)]
pub struct ForkProof {
    group: GroupId,
    first: Vec<u8>,
    second: Vec<u8>,
}

/// What a checked proof says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The position.
    pub number: u64,
    /// The authors of the two commits.
    pub authors: (MemberId, MemberId),
}

#[derive(Serialize, Deserialize)]
struct RawProof {
    g: GroupId,
    a: ByteBuf,
    b: ByteBuf,
}

impl ForkProof {
    pub(super) const fn new(group: GroupId, first: Vec<u8>, second: Vec<u8>) -> Self {
        Self { group, first, second }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The two signed commits.
    #[must_use]
    pub fn commits(&self) -> (&[u8], &[u8]) {
        (&self.first, &self.second)
    }

    /// GRP-13: checks the proof with any chain of the group that reaches its position.
    ///
    /// # Errors
    /// [`GroupError::NoProof`] if it proves nothing, [`GroupError::Gap`] if the chain is too short to tell,
    /// [`GroupError::WrongGroup`], [`GroupError::OtherBranch`] if the branches parted earlier.
    pub fn verify(&self, group: &Group) -> Result<Fork, GroupError> {
        let Self { group: id, first, second } = self;
        let (first, second) = (CommitIn::decode(first)?, CommitIn::decode(second)?);
        let number = first.commit.number;
        if *id != group.id() || first.commit.group != *id || second.commit.group != *id {
            return Err(GroupError::WrongGroup);
        }
        if second.commit.number != number || first.hash == second.hash || number == 0 {
            return Err(GroupError::NoProof);
        }
        let before = group.at(number)?;
        for commit in [&first, &second] {
            before.check_successor(commit).map_err(|error| match error {
                GroupError::OtherBranch => GroupError::OtherBranch,
                _ => GroupError::NoProof,
            })?;
        }
        Ok(Fork { number, authors: (first.commit.author, second.commit.author) })
    }

    /// The proof's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { group, first, second } = self;
        codec::encode(&RawProof {
            g: *group,
            a: ByteBuf::from(first.as_slice()),
            b: ByteBuf::from(second.as_slice()),
        })
    }

    /// Reads a proof; [`ForkProof::verify`] tells what it is worth.
    ///
    /// # Errors
    /// [`GroupError::Malformed`] and [`GroupError::TooLong`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GroupError> {
        if bytes.len() > MAX_FORK_PROOF {
            return Err(GroupError::TooLong);
        }
        let RawProof { g, a, b } = codec::decode(bytes, MAX_FORK_PROOF).map_err(|_| GroupError::Malformed)?;
        Ok(Self { group: g, first: a.into_vec(), second: b.into_vec() })
    }
}

impl Fork {
    /// The author, if both commits are of one: proof that this member told different things to different people.
    #[must_use]
    pub fn equivocator(&self) -> Option<MemberId> {
        (self.authors.0 == self.authors.1).then_some(self.authors.0)
    }
}

impl fmt::Debug for ForkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForkProof(..)")
    }
}
