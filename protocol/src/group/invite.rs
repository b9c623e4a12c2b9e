//! How somebody comes into a group: four messages inside the session of two contacts.
//!
//! ```text
//! "group_invite"   { "g": group id 32, "n": name, "i": invitation 16 }                          admin to contact
//! "group_join"     { "g", "i", "m": member, "p": signature 64 }                                contact to admin
//! "group_welcome"  { "g", "i", "c": [ signed commit ] or null, "l": chain blob or null, "k": epoch keys, "s": cursor }
//! "group_decline"  { "g", "i" }                                                                 either way
//! chain blob       { "h": blob hash 32, "t": total bytes, "k": key 32, "r": relay address }
//!
//! join statement = CBOR map { "v": 1, "g", "i", "m": identity 32, "n": name, "b": SHA-256 of the bundle }
//!                  label "lapwing/1 joining"
//! sealed chain   = nonce 24 | XChaCha20-Poly1305( CBOR [ signed commit ] | 80 | 00 ... ) | tag 16    multiple of 16 KiB
//! ```
//!
//! Between join and welcome the admin commits the addition, so that the welcome's chain names the newcomer.
//!
//! Invariants: an identity is added only if its owner asked for this group by this invitation (GRP-17); a newcomer
//! believes no admin but verifies the chain from the first commit, that it is the chain of the group in the invitation,
//! that he stands in it, and that the keys are those it names (GRP-18).

use std::fmt;

use lapwing_wire::{address::RelayAddress, codec, frame::Seq, ids::BlobHash, padding};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    chain::{Group, MAX_CHAIN, MAX_CHAIN_BYTES},
    commit::MAX_COMMIT,
    epoch::{EpochKeys, RawEpochKeys},
    error::GroupError,
    id::{GroupId, InvitationId, MemberId},
    member::{MemberEntry, RawMember},
};
use crate::{
    labels,
    seal::{self, RawSecret, symmetric_key},
    session::LocalIdentity,
    signing::Signature,
};

symmetric_key! {
    /// Seals a chain that is too long for a welcome.
    ChainKey
}

/// Longest chain inside a welcome, in bytes: some 18 members. With keys and session overhead the welcome stays within
/// the largest envelope; a longer chain goes into a blob.
pub const MAX_INLINE_CHAIN: usize = 40 << 10;

/// A sealed chain's length is a multiple of this, so that it tells little of the group's size.
const CHAIN_STEP: usize = 16 << 10;

/// Most bytes of a sealed chain: commits, their lengths, padding.
pub const MAX_SEALED_CHAIN: usize = MAX_CHAIN_BYTES + 2 * CHAIN_STEP;

const VERSION: u8 = 1;

/// Asks a contact to join a group.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInvite {
    /// The group.
    #[serde(rename = "g")]
    pub group: GroupId,
    /// Its name. Untrusted text.
    #[serde(rename = "n")]
    pub name: String,
    /// This invitation.
    #[serde(rename = "i")]
    pub invitation: InvitationId,
}

/// A contact wants to be added.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupJoin {
    /// The group.
    pub group: GroupId,
    /// The invitation that this answers.
    pub invitation: InvitationId,
    /// The newcomer's entry. The role in it is a wish; the admin decides.
    pub member: MemberEntry,
    /// By the entry's identity.
    pub proof: Signature,
}

/// A newcomer has been added.
pub struct GroupWelcome {
    /// The group.
    pub group: GroupId,
    /// The invitation that led here.
    pub invitation: InvitationId,
    /// The group's chain, or where it lies.
    pub chain: Chain,
    /// The keys of the epoch that holds.
    pub keys: EpochKeys,
    /// Where to begin reading the log.
    pub cursor: Seq,
}

/// A group's chain, or where it lies.
pub enum Chain {
    /// Here.
    Inline(Vec<Vec<u8>>),
    /// In a blob.
    Blob(ChainBlob),
}

/// A sealed chain on a relay.
pub struct ChainBlob {
    /// The blob's name.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub total: u64,
    /// Opens it.
    pub key: ChainKey,
    /// Where it lies.
    pub relay: RelayAddress,
}

/// An invitation comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDecline {
    /// The group.
    #[serde(rename = "g")]
    pub group: GroupId,
    /// The invitation.
    #[serde(rename = "i")]
    pub invitation: InvitationId,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawJoin {
    g: GroupId,
    i: InvitationId,
    m: RawMember,
    p: ByteArray<64>,
}

#[derive(Serialize)]
struct JoinStatement<'a> {
    v: u8,
    g: GroupId,
    i: InvitationId,
    m: ByteArray<32>,
    n: &'a str,
    b: ByteArray<32>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawWelcome {
    g: GroupId,
    i: InvitationId,
    c: Option<Vec<ByteBuf>>,
    l: Option<RawBlob>,
    k: RawEpochKeys,
    s: Seq,
}

#[derive(Serialize, Deserialize)]
struct RawBlob {
    h: BlobHash,
    t: u64,
    k: RawSecret,
    r: RelayAddress,
}

impl GroupJoin {
    /// Answers an invitation. `entry` is `me`'s own.
    ///
    /// # Errors
    /// [`GroupError::BadMember`] for an entry of another identity, [`GroupError::BadName`].
    pub fn new<R: CryptoRng>(
        me: &LocalIdentity,
        group: GroupId,
        invitation: InvitationId,
        entry: MemberEntry,
        rng: &mut R,
    ) -> Result<Self, GroupError> {
        if entry.identity != *me.public() {
            return Err(GroupError::BadMember);
        }
        super::member::check_name(&entry.name)?;
        let statement = statement(group, invitation, &entry);
        let proof = me.sign(labels::JOIN, &statement, rng).map_err(|_| GroupError::CannotSign)?;
        Ok(Self { group, invitation, member: entry, proof })
    }

    /// GRP-17: the newcomer's entry, if it asks for this group by this invitation and its keys are valid. Before it is
    /// committed, the admin sets role and a free name ([`Roster::unique_name`](super::Roster::unique_name)).
    ///
    /// # Errors
    /// [`GroupError::WrongGroup`], [`GroupError::WrongInvitation`], [`GroupError::BadSignature`],
    /// [`GroupError::BadMember`].
    pub fn verify(&self, group: GroupId, invitation: InvitationId) -> Result<&MemberEntry, GroupError> {
        let Self { group: named, invitation: answered, member, proof } = self;
        if *named != group {
            return Err(GroupError::WrongGroup);
        }
        if *answered != invitation {
            return Err(GroupError::WrongInvitation);
        }
        proof
            .verify(&member.identity, labels::JOIN, &statement(group, invitation, member))
            .map_err(|_| GroupError::BadSignature)?;
        member.verified_bundle()?;
        Ok(member)
    }

    pub(crate) fn raw(&self) -> RawJoin {
        let Self { group, invitation, member, proof } = self;
        RawJoin { g: *group, i: *invitation, m: member.raw(), p: ByteArray::new(*proof.as_bytes()) }
    }

    pub(crate) fn from_raw(raw: RawJoin) -> Result<Self, GroupError> {
        let RawJoin { g, i, m, p } = raw;
        let member = MemberEntry::from_raw(m)?;
        Ok(Self { group: g, invitation: i, member, proof: Signature::from_bytes(*p) })
    }
}

fn statement(group: GroupId, invitation: InvitationId, entry: &MemberEntry) -> Vec<u8> {
    let MemberEntry { identity, bundle, name, role: _ } = entry;
    codec::encode(&JoinStatement {
        v: VERSION,
        g: group,
        i: invitation,
        m: ByteArray::new(*identity.as_bytes()),
        n: name,
        b: ByteArray::new(Sha256::digest(bundle).into()),
    })
}

impl GroupWelcome {
    /// Welcomes a newcomer to `group` as it is now; `cursor` is where reading the log of `keys` begins. A chain too
    /// long for the message comes back as a blob, to be stored on `keys.relay` before the welcome is sent.
    ///
    /// # Errors
    /// [`GroupError::WrongEpoch`] and [`GroupError::WrongKeys`] for keys that are not the group's.
    pub fn new(
        group: &Group,
        invitation: InvitationId,
        keys: &EpochKeys,
        cursor: Seq,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Option<Vec<u8>>), GroupError> {
        group.check_keys(keys)?;
        let (chain, blob) = if group.chain_bytes() <= MAX_INLINE_CHAIN {
            (Chain::Inline(group.commits().map(<[u8]>::to_vec).collect()), None)
        } else {
            let (place, blob) = ChainBlob::seal(group, &keys.relay, rng)?;
            (Chain::Blob(place), Some(blob))
        };
        let welcome = Self { group: group.id(), invitation, chain, keys: keys.duplicate(), cursor };
        Ok((welcome, blob))
    }

    /// GRP-18: the group, verified, for the newcomer `me` who accepted this invitation. `blob` is what was fetched for
    /// [`Chain::Blob`].
    ///
    /// # Errors
    /// [`GroupError::ChainNeeded`] if the blob is missing; [`GroupError::WrongGroup`],
    /// [`GroupError::WrongInvitation`], [`GroupError::NotAMember`], [`GroupError::WrongKeys`],
    /// [`GroupError::WrongEpoch`], or what does not hold in the chain.
    pub fn open(
        &self,
        group: GroupId,
        invitation: InvitationId,
        me: &MemberId,
        blob: Option<&[u8]>,
    ) -> Result<Group, GroupError> {
        if self.group != group {
            return Err(GroupError::WrongGroup);
        }
        if self.invitation != invitation {
            return Err(GroupError::WrongInvitation);
        }
        let verified = match &self.chain {
            Chain::Inline(commits) => Group::from_chain(commits)?,
            Chain::Blob(place) => Group::from_chain(&place.open(blob.ok_or(GroupError::ChainNeeded)?)?)?,
        };
        if verified.id() != group {
            return Err(GroupError::WrongGroup);
        }
        if !verified.roster().contains(me) {
            return Err(GroupError::NotAMember);
        }
        verified.check_keys(&self.keys)?;
        Ok(verified)
    }

    pub(crate) fn raw(&self) -> RawWelcome {
        let Self { group, invitation, chain, keys, cursor } = self;
        let (c, l) = match chain {
            Chain::Inline(commits) => {
                (Some(commits.iter().map(|signed| ByteBuf::from(signed.as_slice())).collect()), None)
            }
            Chain::Blob(ChainBlob { hash, total, key, relay }) => {
                (None, Some(RawBlob { h: *hash, t: *total, k: key.raw(), r: relay.clone() }))
            }
        };
        RawWelcome { g: *group, i: *invitation, c, l, k: keys.raw(), s: *cursor }
    }

    pub(crate) fn from_raw(raw: RawWelcome) -> Result<Self, GroupError> {
        let RawWelcome { g, i, c, l, k, s } = raw;
        let chain = match (c, l) {
            (Some(commits), None) => {
                let commits: Vec<Vec<u8>> = commits.into_iter().map(ByteBuf::into_vec).collect();
                if commits.iter().map(Vec::len).sum::<usize>() > MAX_INLINE_CHAIN {
                    return Err(GroupError::TooLong);
                }
                Chain::Inline(commits)
            }
            (None, Some(RawBlob { h, t, k, r })) => {
                if usize::try_from(t).map_or(true, |total| total > MAX_SEALED_CHAIN) {
                    return Err(GroupError::TooLong);
                }
                Chain::Blob(ChainBlob { hash: h, total: t, key: ChainKey::from_raw(&k), relay: r })
            }
            _ => return Err(GroupError::Malformed),
        };
        Ok(Self { group: g, invitation: i, chain, keys: EpochKeys::from_raw(k), cursor: s })
    }
}

impl ChainBlob {
    /// Seals a chain under a fresh key; the blob's bytes are the second value.
    fn seal(
        group: &Group,
        relay: &RelayAddress,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Vec<u8>), GroupError> {
        let commits: Vec<ByteBuf> = group.commits().map(ByteBuf::from).collect();
        let plain = codec::encode(&commits);
        let total = (plain.len() + seal::OVERHEAD + 1).next_multiple_of(CHAIN_STEP);
        let padded = padding::pad(plain, total - seal::OVERHEAD).map(Zeroizing::new);
        let padded = padded.ok_or(GroupError::ChainFull)?;
        let key = ChainKey::generate(rng);
        let blob = seal::seal(key.expose(), &padded, labels::SEALED_CHAIN.as_bytes(), rng);
        let total = u64::try_from(blob.len()).map_err(|_| GroupError::ChainFull)?;
        Ok((Self { hash: BlobHash::of(&blob), total, key, relay: relay.clone() }, blob))
    }

    /// The signed commits in a fetched blob, still to be verified.
    ///
    /// # Errors
    /// [`GroupError::Malformed`] for another blob.
    pub fn open(&self, blob: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        if blob.len() > MAX_SEALED_CHAIN || BlobHash::of(blob) != self.hash {
            return Err(GroupError::Malformed);
        }
        let padded = seal::open(self.key.expose(), blob, labels::SEALED_CHAIN.as_bytes())
            .map_err(|_| GroupError::Malformed)?;
        let plain = padding::unpad(padded.expose().to_vec()).ok_or(GroupError::Malformed)?;
        let commits: Vec<ByteBuf> =
            codec::decode(&plain, MAX_SEALED_CHAIN).map_err(|_| GroupError::Malformed)?;
        let few = u64::try_from(commits.len()).is_ok_and(|count| count <= MAX_CHAIN);
        if !few || commits.iter().any(|signed| signed.len() > MAX_COMMIT) {
            return Err(GroupError::TooLong);
        }
        Ok(commits.into_iter().map(ByteBuf::into_vec).collect())
    }
}

macro_rules! redacted {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}
redacted!(GroupInvite, GroupJoin, GroupWelcome, Chain, ChainBlob);
