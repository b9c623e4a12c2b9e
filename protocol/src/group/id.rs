//! Names in a group: each a hash, or random, each of its own type.

use std::fmt;

use lapwing_wire::ids::labelled_hash;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::{identity::IdentityKey, labels};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;

            /// With these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

id! {
    /// GRP-01: a group: the hash of its first commit, so that an id belongs to one chain only.
    GroupId, 32
}
id! {
    /// GRP-04: a member: the hash of the identity that the person has in this group and nowhere else.
    MemberId, 32
}
id! {
    /// GRP-03: a commit: the hash of its signed statement.
    CommitHash, 32
}
id! {
    /// GRP-12: who is in the group with which role, in one epoch.
    RosterHash, 32
}
id! {
    /// GRP-11: the keys of one epoch.
    KeysHash, 32
}
id! {
    /// GRP-14: a message in a group.
    MessageHash, 32
}
id! {
    /// One invitation: random, made by who invites, repeated by every answer to it.
    InvitationId, 16
}

impl GroupId {
    /// What stands for the group in its first commit, which cannot know its own hash.
    pub(crate) const NONE: Self = Self([0; 32]);
}

impl MemberId {
    /// The member with this identity.
    #[must_use]
    pub fn of(identity: &IdentityKey) -> Self {
        Self(labelled_hash(labels::MEMBER_ID.as_bytes(), &[identity.as_bytes()]))
    }
}

impl CommitHash {
    /// What the first commit names as its predecessor.
    pub(crate) const NONE: Self = Self([0; 32]);
}

impl MessageHash {
    /// What an author's first message names as its predecessor.
    pub const NONE: Self = Self([0; 32]);
}

impl InvitationId {
    /// A new invitation.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}
