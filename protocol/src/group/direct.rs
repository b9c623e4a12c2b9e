//! What one member tells another about the group, inside their pairwise session.
//!
//! ```text
//! body = CBOR map { "k": kind, "b": CBOR of the body, as bytes }
//!
//! kind          body
//! "sender_key"  { "d": distribution message, "e": epoch }
//! "new_epoch"   { "k": epoch keys, "h": hash of the commit that begins the epoch }
//!
//! session context = "group" | group id 32
//! ```
//!
//! Invariants: both travel inside the session of two members only, whose context names the group (GRP-21); what a
//! peer says of an epoch is held against the chain before it is used: [`Group::check_keys`](super::Group::check_keys).

use std::fmt;

use lapwing_wire::codec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

use super::{
    epoch::{EpochKeys, RawEpochKeys},
    error::GroupError,
    id::{CommitHash, GroupId},
};
use crate::{content::MAX_KIND, secret::SecretBytes, session::MAX_DISTRIBUTION};

/// Longest encoded body in bytes.
pub const MAX_DIRECT_BODY: usize = 4 << 10;

/// What one member tells another about the group.
#[non_exhaustive]
pub enum DirectBody {
    /// Opens the sender's messages from now on.
    SenderKey {
        /// The distribution message: see [`PeerSenderKey::accept`](crate::session::PeerSenderKey::accept).
        distribution: SecretBytes,
        /// The epoch for which the key was made; it serves no other.
        epoch: u64,
    },
    /// A removal has begun an epoch.
    NewEpoch {
        /// Its keys.
        keys: EpochKeys,
        /// The removal.
        head: CommitHash,
    },
    /// A kind that this version does not know: skipped.
    Unsupported {
        /// The kind's name as sent; untrusted text.
        kind: String,
    },
}

#[derive(Serialize, Deserialize)]
struct RawDirect {
    k: String,
    b: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct RawSenderKey {
    d: ByteBuf,
    e: u64,
}

#[derive(Serialize, Deserialize)]
struct RawNewEpoch {
    k: RawEpochKeys,
    h: CommitHash,
}

/// GRP-21: the context of sessions and sender keys in a group, for [`Context`](crate::session::Context).
#[must_use]
pub fn context(group: &GroupId) -> Vec<u8> {
    [b"group", group.as_bytes().as_slice()].concat()
}

impl DirectBody {
    /// The body's bytes, to be encrypted in the session with the member.
    ///
    /// # Errors
    /// [`GroupError::TooLong`] for a distribution that is none, [`GroupError::NeedsNewerVersion`] for
    /// [`DirectBody::Unsupported`].
    pub fn encode(&self) -> Result<SecretBytes, GroupError> {
        let (kind, body) = match self {
            Self::SenderKey { distribution, epoch } => {
                if distribution.expose().len() > MAX_DISTRIBUTION {
                    return Err(GroupError::TooLong);
                }
                let mut raw = RawSenderKey { d: ByteBuf::from(distribution.expose()), e: *epoch };
                let body = codec::encode(&raw);
                raw.d.as_mut_slice().zeroize();
                ("sender_key", body)
            }
            Self::NewEpoch { keys, head } => {
                ("new_epoch", codec::encode(&RawNewEpoch { k: keys.raw(), h: *head }))
            }
            Self::Unsupported { kind: _ } => return Err(GroupError::NeedsNewerVersion),
        };
        let mut raw = RawDirect { k: kind.to_owned(), b: ByteBuf::from(body) };
        let bytes = SecretBytes::new(codec::encode(&raw));
        raw.b.as_mut_slice().zeroize();
        Ok(bytes)
    }

    /// Reads what a member said.
    ///
    /// # Errors
    /// [`GroupError::Malformed`] and [`GroupError::TooLong`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GroupError> {
        if bytes.len() > MAX_DIRECT_BODY {
            return Err(GroupError::TooLong);
        }
        let RawDirect { k, b } = part(bytes)?;
        let b = SecretBytes::new(b.into_vec());
        Ok(match k.as_str() {
            "sender_key" => {
                let RawSenderKey { d, e } = part(b.expose())?;
                if d.len() > MAX_DISTRIBUTION {
                    return Err(GroupError::Malformed);
                }
                Self::SenderKey { distribution: SecretBytes::new(d.into_vec()), epoch: e }
            }
            "new_epoch" => {
                let RawNewEpoch { k, h } = part(b.expose())?;
                Self::NewEpoch { keys: EpochKeys::from_raw(k), head: h }
            }
            _ if k.len() > MAX_KIND => return Err(GroupError::Malformed),
            _ => Self::Unsupported { kind: k },
        })
    }
}

impl fmt::Debug for DirectBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectBody(..)")
    }
}

fn part<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, GroupError> {
    codec::decode(bytes, MAX_DIRECT_BODY).map_err(|_| GroupError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vectors;

    #[test]
    fn bodies_round_trip() {
        for body in vectors::direct_bodies() {
            let bytes = body.encode().unwrap();
            let back = DirectBody::decode(bytes.expose()).unwrap();
            assert!(!matches!(back, DirectBody::Unsupported { .. }));
            assert_eq!(back.encode().unwrap().expose(), bytes.expose());
            assert_eq!(format!("{back:?}"), "DirectBody(..)");
        }
    }

    #[test]
    fn unknown_kinds_survive_and_bounds_hold() {
        let raw = |kind: &str, body: &[u8]| {
            codec::encode(&RawDirect { k: kind.to_owned(), b: ByteBuf::from(body) })
        };
        let read = DirectBody::decode(&raw("poll", &[0xff])).unwrap();
        assert!(matches!(&read, DirectBody::Unsupported { kind } if kind == "poll"));
        assert_eq!(read.encode().unwrap_err(), GroupError::NeedsNewerVersion);
        for kind in ["sender_key", "new_epoch"] {
            assert_eq!(DirectBody::decode(&raw(kind, &[0xf6])).unwrap_err(), GroupError::Malformed);
        }
        let long = RawSenderKey { d: ByteBuf::from(vec![0; MAX_DISTRIBUTION + 1]), e: 0 };
        let long = raw("sender_key", &codec::encode(&long));
        assert_eq!(DirectBody::decode(&long).unwrap_err(), GroupError::Malformed);
        assert_eq!(DirectBody::decode(&vec![0; MAX_DIRECT_BODY + 1]).unwrap_err(), GroupError::TooLong);
    }

    #[test]
    fn grp_21_the_context_names_the_group() {
        let context = context(&GroupId::from_bytes([7; 32]));
        assert_eq!(context.len(), 37);
        assert!(context.starts_with(b"group") && context.ends_with(&[7; 32]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn changed_bodies_never_panic(which in 0usize..2, at: prop::sample::Index, byte: u8) {
            let bodies = vectors::direct_bodies();
            let mut bytes = bodies[which].encode().unwrap().expose().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = DirectBody::decode(&bytes) {
                prop_assert!(read.encode().is_ok() || matches!(read, DirectBody::Unsupported { .. }), "written again");
            }
        }
    }
}
