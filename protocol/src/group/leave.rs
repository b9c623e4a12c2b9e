//! A member's signed wish to leave, which an admin's client answers with a removal.
//!
//! ```text
//! signed wish = CBOR map { "s": statement, "g": signature 64 }      label "lapwing/1 leaving"
//! statement   = CBOR map { "v": 1, "g": group id 32, "m": member id 32, "n": number of the commit that added the member }
//! ```
//!
//! Invariants: it is signed by who leaves and holds for one membership: added again, the member stays (GRP-10).

use lapwing_wire::codec;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    chain::Group,
    error::GroupError,
    id::{GroupId, MemberId},
    member::Roster,
};
use crate::{labels, session::LocalIdentity, signing::Signature};

/// Longest signed wish in bytes.
pub const MAX_LEAVE: usize = 512;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Signed {
    s: ByteBuf,
    g: ByteArray<64>,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    v: u8,
    g: GroupId,
    m: MemberId,
    n: u64,
}

impl Group {
    /// GRP-10: the own wish to leave, to be put into the log as [`Entry::Leave`](super::Entry::Leave).
    ///
    /// # Errors
    /// [`GroupError::NotAMember`] for an identity that is not in the group.
    pub fn wish_to_leave<R: CryptoRng>(
        &self,
        me: &LocalIdentity,
        rng: &mut R,
    ) -> Result<Vec<u8>, GroupError> {
        let member = MemberId::of(me.public());
        let since = self.roster().since(&member).ok_or(GroupError::NotAMember)?;
        let statement = codec::encode(&Statement { v: VERSION, g: self.id(), m: member, n: since });
        let signature = me.sign(labels::LEAVE, &statement, rng).map_err(|_| GroupError::CannotSign)?;
        Ok(codec::encode(&Signed { s: ByteBuf::from(statement), g: ByteArray::new(*signature.as_bytes()) }))
    }

    /// GRP-10: who wishes to leave; an admin's client answers with
    /// [`stage_remove`](Group::stage_remove), passing `bytes` on.
    ///
    /// # Errors
    /// [`GroupError::BadLeave`] for somebody who is not a member or was added again since,
    /// [`GroupError::BadSignature`], [`GroupError::WrongGroup`], [`GroupError::Malformed`].
    pub fn verify_leave(&self, bytes: &[u8]) -> Result<MemberId, GroupError> {
        verify(self.id(), self.roster(), bytes)
    }
}

pub(super) fn verify(group: GroupId, roster: &Roster, bytes: &[u8]) -> Result<MemberId, GroupError> {
    let Signed { s, g } = codec::decode(bytes, MAX_LEAVE).map_err(|_| GroupError::Malformed)?;
    let Statement { v, g: named, m, n } = codec::decode(&s, MAX_LEAVE).map_err(|_| GroupError::Malformed)?;
    if v != VERSION {
        return Err(GroupError::NeedsNewerVersion);
    }
    if named != group {
        return Err(GroupError::WrongGroup);
    }
    let entry = roster.get(&m).ok_or(GroupError::BadLeave)?;
    if roster.since(&m) != Some(n) {
        return Err(GroupError::BadLeave);
    }
    Signature::from_bytes(*g)
        .verify(&entry.identity, labels::LEAVE, &s)
        .map_err(|_| GroupError::BadSignature)?;
    Ok(m)
}
