//! What lies in a group's log: one entry per envelope.
//!
//! ```text
//! entry = CBOR map { "k": kind, "b": CBOR of the body, as bytes }              sealed under the epoch's key
//!
//! kind       body
//! "commit"   signed commit, bytes
//! "directs"  [ { "t": to 32, "f": from 32, "m": session message } ]            one or many
//! "message"  { "f": from 32, "d": distribution 16, "m": sender-key message }
//! "leave"    signed wish to leave, bytes
//! ```
//!
//! Everybody with the epoch's keys can write any entry in any name: `from` only says which key to try. Who wrote it is
//! told by the signature, the session or the sender key inside.

use std::fmt;

use lapwing_wire::codec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use super::{error::GroupError, id::MemberId};
use crate::{content::MAX_KIND, envelope::MAX_CONTENT};

/// GRP-16: most direct messages in one entry; the envelope's size is met first by first messages of sessions.
pub const MAX_DIRECTS: usize = 256;

/// Room around the direct messages of an entry.
const ENTRY_OVERHEAD: usize = 32;
/// Room around one direct message: two ids of 32 bytes, three names, lengths.
const DIRECT_OVERHEAD: usize = 2 * (2 + 34) + 2 + 5 + 1;

/// One entry of a group's log.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// A signed commit: see [`Group::verify`](super::Group::verify).
    Commit(Vec<u8>),
    /// One pairwise message between two members.
    Direct {
        /// For whom.
        to: MemberId,
        /// From whom.
        from: MemberId,
        /// A session message.
        message: Vec<u8>,
    },
    /// Several pairwise messages in one envelope.
    Directs(Vec<Direct>),
    /// A message for all.
    Message {
        /// From whom.
        from: MemberId,
        /// Which of the author's sender keys.
        distribution: [u8; 16],
        /// A sender-key message; inside it [`GroupContent`](super::GroupContent).
        message: Vec<u8>,
    },
    /// A member's signed wish to leave: see [`Group::verify_leave`](super::Group::verify_leave).
    Leave(Vec<u8>),
    /// A kind that this version does not know: skipped, never an error.
    Unsupported {
        /// The kind's name as sent; untrusted text.
        kind: String,
    },
}

/// One pairwise message between two members.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direct {
    /// For whom.
    #[serde(rename = "t")]
    pub to: MemberId,
    /// From whom.
    #[serde(rename = "f")]
    pub from: MemberId,
    /// A session message.
    #[serde(rename = "m", with = "serde_bytes")]
    pub message: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct RawEntry {
    k: String,
    b: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct RawMessage {
    f: MemberId,
    #[serde(with = "serde_bytes")]
    d: [u8; 16],
    m: ByteBuf,
}

impl Entry {
    /// The entry's bytes, to be sealed with [`EpochKeys::seal`](super::EpochKeys::seal).
    ///
    /// # Errors
    /// [`GroupError::TooLong`] if it does not fit one envelope, [`GroupError::NeedsNewerVersion`] for
    /// [`Entry::Unsupported`].
    pub fn encode(&self) -> Result<Vec<u8>, GroupError> {
        let (kind, body) = match self {
            Self::Commit(signed) => ("commit", codec::encode(&ByteBuf::from(signed.as_slice()))),
            Self::Direct { to, from, message } => {
                let one = Direct { to: *to, from: *from, message: message.clone() };
                ("directs", codec::encode(&[one]))
            }
            Self::Directs(directs) => {
                if directs.len() > MAX_DIRECTS || directs.is_empty() {
                    return Err(GroupError::TooLong);
                }
                ("directs", codec::encode(directs))
            }
            Self::Message { from, distribution, message } => {
                let raw = RawMessage { f: *from, d: *distribution, m: ByteBuf::from(message.as_slice()) };
                ("message", codec::encode(&raw))
            }
            Self::Leave(signed) => ("leave", codec::encode(&ByteBuf::from(signed.as_slice()))),
            Self::Unsupported { kind: _ } => return Err(GroupError::NeedsNewerVersion),
        };
        let bytes = codec::encode(&RawEntry { k: kind.to_owned(), b: ByteBuf::from(body) });
        if bytes.len() > MAX_CONTENT { Err(GroupError::TooLong) } else { Ok(bytes) }
    }

    /// Reads an entry. One direct message comes back as [`Entry::Direct`], several as [`Entry::Directs`].
    ///
    /// # Errors
    /// [`GroupError::Malformed`] and [`GroupError::TooLong`].
    pub fn decode(bytes: &[u8]) -> Result<Self, GroupError> {
        if bytes.len() > MAX_CONTENT {
            return Err(GroupError::TooLong);
        }
        let RawEntry { k, b } = part(bytes)?;
        Ok(match k.as_str() {
            "commit" => Self::Commit(part::<ByteBuf>(&b)?.into_vec()),
            "directs" => {
                let mut directs: Vec<Direct> = part(&b)?;
                if directs.is_empty() || directs.len() > MAX_DIRECTS {
                    return Err(GroupError::Malformed);
                }
                match (directs.pop(), directs.is_empty()) {
                    (Some(Direct { to, from, message }), true) => Self::Direct { to, from, message },
                    (last, _) => {
                        directs.extend(last);
                        Self::Directs(directs)
                    }
                }
            }
            "message" => {
                let RawMessage { f, d, m } = part(&b)?;
                Self::Message { from: f, distribution: d, message: m.into_vec() }
            }
            "leave" => Self::Leave(part::<ByteBuf>(&b)?.into_vec()),
            _ if k.len() > MAX_KIND => return Err(GroupError::Malformed),
            // GRP-19: an entry is skipped where a commit would stop the chain.
            _ => Self::Unsupported { kind: k },
        })
    }

    /// Packs direct messages into as few entries as hold them, in order.
    ///
    /// # Errors
    /// [`GroupError::TooLong`] for a message that no entry holds.
    pub fn pack(directs: Vec<Direct>) -> Result<Vec<Self>, GroupError> {
        let mut entries = Vec::new();
        let mut open: Vec<Direct> = Vec::new();
        let mut size = ENTRY_OVERHEAD;
        for direct in directs {
            let need = DIRECT_OVERHEAD + direct.message.len();
            if ENTRY_OVERHEAD + need > MAX_CONTENT {
                return Err(GroupError::TooLong);
            }
            if size + need > MAX_CONTENT || open.len() >= MAX_DIRECTS {
                entries.push(Self::Directs(std::mem::take(&mut open)));
                size = ENTRY_OVERHEAD;
            }
            size += need;
            open.push(direct);
        }
        if !open.is_empty() {
            entries.push(Self::Directs(open));
        }
        Ok(entries)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry(..)")
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to: _, from: _, message: _ } = self;
        f.write_str("Direct(..)")
    }
}

fn part<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, GroupError> {
    codec::decode(bytes, MAX_CONTENT).map_err(|_| GroupError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vectors;

    #[test]
    fn every_kind_round_trips() {
        for entry in vectors::entries() {
            assert_eq!(Entry::decode(&entry.encode().unwrap()), Ok(entry));
        }
    }

    #[test]
    fn grp_19_unknown_entries_are_skipped_and_known_ones_must_have_their_form() {
        let raw =
            |kind: &str, body: &[u8]| codec::encode(&RawEntry { k: kind.to_owned(), b: ByteBuf::from(body) });
        let read = Entry::decode(&raw("poll", &[0xff])).unwrap();
        assert_eq!(read, Entry::Unsupported { kind: "poll".to_owned() });
        assert_eq!(read.encode(), Err(GroupError::NeedsNewerVersion));
        for kind in ["commit", "directs", "message", "leave"] {
            assert_eq!(Entry::decode(&raw(kind, &[0xf6])), Err(GroupError::Malformed), "{kind}");
        }
        assert_eq!(Entry::decode(&raw("directs", &[0x80])), Err(GroupError::Malformed));
        assert_eq!(Entry::decode(&raw(&"k".repeat(MAX_KIND + 1), &[])), Err(GroupError::Malformed));
        assert_eq!(Entry::decode(&vec![0; MAX_CONTENT + 1]), Err(GroupError::TooLong));
        assert_eq!(Entry::Commit(vec![0; MAX_CONTENT]).encode(), Err(GroupError::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn packed_messages_fit_and_keep_their_order(lengths in prop::collection::vec(0usize..9_000, 0..60)) {
            let directs: Vec<Direct> = lengths
                .iter()
                .enumerate()
                .map(|(i, len)| Direct {
                    to: MemberId::from_bytes([u8::try_from(i).unwrap(); 32]),
                    from: MemberId::from_bytes([0xff; 32]),
                    message: vec![7; *len],
                })
                .collect();
            let mut back = Vec::new();
            for entry in Entry::pack(directs.clone()).unwrap() {
                prop_assert!(entry.encode().is_ok());
                let Entry::Directs(part) = entry else { panic!("directs") };
                back.extend(part);
            }
            prop_assert_eq!(back, directs);
        }

        #[test]
        fn changed_entries_never_panic(which in 0usize..5, at: prop::sample::Index, byte: u8) {
            let mut bytes = vectors::entries()[which].encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Entry::decode(&bytes) {
                prop_assert!(read.encode().is_ok() || matches!(read, Entry::Unsupported { .. }), "written again");
            }
        }
    }

    #[test]
    fn a_message_that_fits_no_entry_is_refused() {
        let id = MemberId::from_bytes([1; 32]);
        let directs = vec![Direct { to: id, from: id, message: vec![0; MAX_CONTENT] }];
        assert_eq!(Entry::pack(directs).unwrap_err(), GroupError::TooLong);
        let full = vec![Direct { to: id, from: id, message: Vec::new() }; 600];
        let packed = Entry::pack(full).unwrap();
        assert_eq!(packed.len(), 3);
        assert!(packed.iter().all(|entry| entry.encode().is_ok()));
    }
}
