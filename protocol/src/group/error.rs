//! What can go wrong with a group, by what the caller can do about it.

use super::fork::ForkProof;

/// Why a group operation was refused. Nothing changed.
///
/// The texts name no group, member or key, so they may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Not of the expected form. Who wrote it is at fault; drop it.
    #[error("malformed group data")]
    Malformed,
    /// GRP-16: longer than its bound. Drop it.
    #[error("group data longer than allowed")]
    TooLong,
    /// GRP-19: a version or kind that this program does not know. The group stops here until it is updated: who
    /// cannot follow the membership must not encrypt to anyone.
    #[error("the group needs a newer version of this program")]
    NeedsNewerVersion,
    /// GRP-01: belongs to another group.
    #[error("this belongs to another group")]
    WrongGroup,
    /// GRP-02, GRP-10, GRP-17: not signed by the identity that it names.
    #[error("a signature is not valid")]
    BadSignature,
    /// GRP-05: the author is not, or no longer, a member.
    #[error("the author is not a member")]
    NotAMember,
    /// GRP-05, GRP-07, GRP-14: the author's role does not allow it.
    #[error("the author's role does not allow this")]
    NotAllowed,
    /// GRP-14: names another author than the member whose key opened it. Drop it.
    #[error("the message names another author")]
    WrongAuthor,
    /// GRP-14: names a roster that is not known here. Read on until the commits have come; if they are all here, its
    /// author follows another branch.
    #[error("the message names a roster that is not known here")]
    UnknownRoster,
    /// GRP-06: the member is in the group already.
    #[error("already a member")]
    AlreadyMember,
    /// GRP-06: another member has this name. See [`Roster::unique_name`](super::Roster::unique_name).
    #[error("another member has this name")]
    NameTaken,
    /// GRP-16: a name is empty, too long, or holds characters that no name has.
    #[error("a name is empty, too long, or has unprintable characters")]
    BadName,
    /// GRP-06: an identity or bundle is unusable, or they do not belong together.
    #[error("a member's keys are not valid")]
    BadMember,
    /// GRP-08: nobody with this id is in the group.
    #[error("nobody in the group has this id")]
    NoSuchMember,
    /// GRP-08: the owner is removed only with a signed wish to leave.
    #[error("the owner can be removed only after asking to leave")]
    OwnerStays,
    /// GRP-08: who removes himself would know the keys that are to exclude him. Sign a wish to leave instead.
    #[error("nobody removes himself; ask to leave")]
    RemovesItself,
    /// GRP-10: the wish to leave is another's, or of an earlier membership.
    #[error("the wish to leave does not fit the member")]
    BadLeave,
    /// GRP-09: the epoch is not the one that this commit must have.
    #[error("the commit names another epoch")]
    WrongEpoch,
    /// GRP-11: not the epoch keys that the chain names.
    #[error("these are not the keys that the group's chain names")]
    WrongKeys,
    /// GRP-03: commits are missing before this one, the first of them `expected`. Its signature could not be checked:
    /// anybody can cause this. Read on, and try it again after each merged commit; never wait for it.
    #[error("commits are missing before this one")]
    Gap {
        /// Number of the first missing commit.
        expected: u64,
    },
    /// GRP-03: continues another branch, whose forking point is earlier. Ask other members for their chain.
    #[error("the commit continues another branch of the group")]
    OtherBranch,
    /// GRP-03: is in the chain already. Drop it.
    #[error("the commit is known already")]
    Known,
    /// GRP-13: a second valid commit for a position that is taken. The proof convinces every member.
    #[error("two different commits for one position")]
    Fork(Box<ForkProof>),
    /// GRP-13: the two commits prove nothing: equal, of different positions, or not valid.
    #[error("this is no proof of a fork")]
    NoProof,
    /// GRP-20: the group is closed.
    #[error("the group is closed")]
    Closed,
    /// GRP-16: [`MAX_MEMBERS`](super::MAX_MEMBERS) are in it.
    #[error("the group is full")]
    Full,
    /// GRP-16: the chain is as long as it may be. Found a new group.
    #[error("the group's history is full; found a new group")]
    ChainFull,
    /// A staged commit no longer fits, because another was merged since. Stage it again.
    #[error("the group has changed since this was prepared")]
    Stale,
    /// GRP-18: an invitation's answer belongs to another invitation.
    #[error("the answer belongs to another invitation")]
    WrongInvitation,
    /// GRP-18: the chain lies in a blob that was not given. Fetch it.
    #[error("the group's history has to be fetched first")]
    ChainNeeded,
    /// The own identity could not sign. Its stored record is damaged.
    #[error("the own identity cannot sign")]
    CannotSign,
}
