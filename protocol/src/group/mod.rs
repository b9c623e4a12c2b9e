//! Groups: a signed chain of membership, epochs with their own log and keys, and messages bound to both.
//!
//! | module | what |
//! | --- | --- |
//! | `id` | names: group, member, commit, roster, keys, message, invitation |
//! | `member` | members, roles, the roster |
//! | `commit` | the signed steps of membership |
//! | `chain` | the group that they make: verify, stage, merge |
//! | `rules` | what a commit may do, and who may do it |
//! | `leave` | a member's signed wish to leave |
//! | `fork` | two commits for one position, as a proof |
//! | `epoch` | what members hold of an epoch |
//! | `entry` | what lies in the log |
//! | `direct` | what one member tells another about the group |
//! | `message` | what a group message says of itself; how its author is held to it |
//! | `invite` | how somebody comes in |
//! | `error` | what can go wrong, by remedy |
//!
//! The rules are numbered `GRP-01` to `GRP-21` in `docs/protocol-groups.md`.
//!
//! The order of things: before anything is encrypted to anyone, every commit that the log holds has been verified and
//! merged. A removal begins an epoch: the remover makes a new log and its [`EpochKeys`], puts their hash into the
//! commit, appends the commit to the old log, and tells the keys to each remaining member inside their session
//! ([`DirectBody::NewEpoch`]). Everybody then makes a new sender key and tells it the same way.

mod chain;
mod commit;
mod direct;
mod entry;
mod epoch;
mod error;
mod fork;
mod id;
mod invite;
mod leave;
mod member;
mod message;
mod rules;
#[cfg(test)]
mod tests;

pub use chain::{Group, MAX_CHAIN, MAX_CHAIN_BYTES, Staged};
pub use commit::{Commit, MAX_COMMIT, Op, Settings};
pub use direct::{DirectBody, MAX_DIRECT_BODY, context};
pub use entry::{Direct, Entry, MAX_DIRECTS};
pub use epoch::{EpochKeys, MAX_EPOCH_KEYS};
pub use error::GroupError;
pub use fork::{Fork, ForkProof, MAX_FORK_PROOF};
pub use id::{CommitHash, GroupId, InvitationId, KeysHash, MemberId, MessageHash, RosterHash};
pub use invite::{
    Chain, ChainBlob, ChainKey, GroupDecline, GroupInvite, GroupJoin, GroupWelcome, MAX_INLINE_CHAIN,
    MAX_SEALED_CHAIN,
};
pub use leave::MAX_LEAVE;
pub use member::{MAX_MEMBERS, MAX_NAME, MemberEntry, Role, Roster};
pub use message::{AuthorTrack, Checked, GroupContent, MAX_TRACK, MessageBinding, TRACK_WINDOW, TrackError};
