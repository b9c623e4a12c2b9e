//! Files that are sent with messages: what the message says of one, and how the file itself is sealed.
//!
//! ```text
//! body = CBOR map { "r": relay, "h": blob hash 32, "k": key 32, "s": size, "n": name, "m": media type or null, "t": text }
//! ```
//! The file lies at the relay as a blob of sealed chunks ([`Chunks`]); the message holds what names and opens it.
//!
//! | module | what |
//! | --- | --- |
//! | here | the reference inside a message |
//! | `chunks` | sealing and opening, one chunk at a time |
//! | `name` | names of files, made harmless |
//!
//! Invariants: a name is harmless on both sides, whoever wrote it (ATT-05); a size that no blob can have is refused
//! before anything is fetched (ATT-03).
//! Known gap: size, name, media type and text are what the sender says. Only size and bytes are checked by opening.

use std::fmt;

use lapwing_wire::{address::RelayAddress, codec, ids::BlobHash};
use serde::{Deserialize, Serialize};

mod chunks;
mod name;

pub use chunks::{AttachmentKey, CHUNK, ChunkError, Chunks, MAX_FILE, MAX_PLAIN, ladder};
pub use name::{FileName, MAX_FILE_NAME};

use crate::{
    content::{ContentError, MAX_TEXT},
    seal::RawSecret,
    secret::SecretBytes,
};

/// Longest media type, in bytes. The longest that is registered and in use has 73.
pub const MAX_MEDIA_TYPE: usize = 80;

/// Longest name that is read at all, in bytes, before it is made harmless: the longest that a file system allows.
const MAX_RAW_NAME: usize = 255;

/// Longest stored form, in bytes: the longest text, with room for the rest.
const MAX_STORED: usize = MAX_TEXT + 1024;

/// What a message says of a file.
pub struct Attachment {
    /// Where the blob lies.
    pub relay: RelayAddress,
    /// The blob's name.
    pub hash: BlobHash,
    /// Opens it.
    pub key: AttachmentKey,
    /// Bytes of the file, at most [`MAX_FILE`].
    pub size: u64,
    /// What the sender calls it. Harmless, and untrusted like every text of a peer.
    pub name: FileName,
    /// What the sender says that it is, for showing only: never decide by it.
    pub media: Option<MediaType>,
    /// Text that goes with it, at most [`MAX_TEXT`] bytes; as a rule empty. Untrusted.
    pub text: String,
}

/// A media type (RFC 6838) in lower case, without parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    /// The type with this text; `None` where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-._".contains(&b))
        };
        let (kind, sort) = text.split_once('/')?;
        (text.len() <= MAX_MEDIA_TYPE && is_name(kind) && is_name(sort)).then(|| Self(text.to_owned()))
    }

    /// The text: ASCII letters, digits and `+-._/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawAttachment {
    r: RelayAddress,
    h: BlobHash,
    k: RawSecret,
    s: u64,
    n: String,
    m: Option<String>,
    t: String,
}

impl Attachment {
    /// The chunks of its blob.
    #[must_use]
    pub fn chunks(&self) -> Option<Chunks> {
        Chunks::new(&self.key, self.size)
    }

    /// A second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let Self { relay, hash, key, size, name, media, text } = self;
        Self {
            relay: relay.clone(),
            hash: *hash,
            key: key.duplicate(),
            size: *size,
            name: name.clone(),
            media: media.clone(),
            text: text.clone(),
        }
    }

    /// Stored form. Secret.
    ///
    /// # Errors
    /// [`ContentError::TooLong`] for a file or text above its bound.
    pub fn export(&self) -> Result<SecretBytes, ContentError> {
        Ok(SecretBytes::new(codec::encode(&self.raw()?)))
    }

    /// Reads what [`export`](Self::export) wrote.
    ///
    /// # Errors
    /// [`ContentError`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, ContentError> {
        Self::from_raw(codec::decode(bytes, MAX_STORED)?)
    }

    /// # Errors
    /// [`ContentError::TooLong`] for a file or text above its bound.
    pub(crate) fn raw(&self) -> Result<RawAttachment, ContentError> {
        let Self { relay, hash, key, size, name, media, text } = self;
        if *size > MAX_FILE || text.len() > MAX_TEXT {
            return Err(ContentError::TooLong);
        }
        Ok(RawAttachment {
            r: relay.clone(),
            h: *hash,
            k: key.raw(),
            s: *size,
            n: name.as_str().to_owned(),
            m: media.as_ref().map(|media| media.0.clone()),
            t: text.clone(),
        })
    }

    /// # Errors
    /// [`ContentError::Malformed`] for a size, name or text above its bound.
    pub(crate) fn from_raw(raw: RawAttachment) -> Result<Self, ContentError> {
        let RawAttachment { r, h, k, s, n, m, t } = raw;
        // ATT-03, CNT-03.
        if s > MAX_FILE || n.len() > MAX_RAW_NAME || t.len() > MAX_TEXT {
            return Err(ContentError::Malformed);
        }
        Ok(Self {
            relay: r,
            hash: h,
            key: AttachmentKey::from_raw(&k),
            size: s,
            // ATT-05.
            name: FileName::of(&n),
            // A type that is none is only not shown: nothing depends on it.
            media: m.as_deref().and_then(MediaType::parse),
            text: t,
        })
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relay: _, hash: _, key: _, size: _, name: _, media: _, text: _ } = self;
        f.write_str("Attachment(..)")
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("MediaType(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn attachment() -> Attachment {
        Attachment {
            relay: testing::relay(),
            hash: BlobHash::from_bytes([1; 32]),
            key: AttachmentKey::from_bytes([2; 32]),
            size: 1000,
            name: FileName::of("a.jpg"),
            media: MediaType::parse("image/jpeg"),
            text: "look".to_owned(),
        }
    }

    #[test]
    fn att_03_sizes_that_no_blob_can_have_are_neither_sent_nor_read() {
        let at_most = Attachment { size: MAX_FILE, ..attachment() };
        assert_eq!(Attachment::from_raw(at_most.raw().unwrap()).unwrap().size, MAX_FILE);
        let above = Attachment { size: MAX_FILE + 1, ..attachment() };
        assert!(matches!(above.raw(), Err(ContentError::TooLong)));
        for size in [MAX_FILE + 1, u64::MAX] {
            let raw = RawAttachment { s: size, ..attachment().raw().unwrap() };
            assert_eq!(Attachment::from_raw(raw).unwrap_err(), ContentError::Malformed);
        }
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let stored = attachment().export().unwrap();
        let back = Attachment::import(stored.expose()).unwrap();
        assert_eq!(back.export().unwrap().expose(), stored.expose());
        assert_eq!((back.name.as_str(), back.text.as_str(), back.size), ("a.jpg", "look", 1000));
        assert!(Attachment::import(&stored.expose()[1..]).is_err());
    }

    #[test]
    fn att_05_names_are_made_harmless_when_they_are_read() {
        for (sent, read) in [("../../etc/passwd", "passwd"), ("a\u{202e}gpj.exe", "agpj.exe"), ("", "file")] {
            let raw = RawAttachment { n: sent.to_owned(), ..attachment().raw().unwrap() };
            assert_eq!(Attachment::from_raw(raw).unwrap().name.as_str(), read);
        }
        let raw = RawAttachment { n: "n".repeat(256), ..attachment().raw().unwrap() };
        assert_eq!(Attachment::from_raw(raw).unwrap_err(), ContentError::Malformed);
    }

    #[test]
    fn media_types_are_types_or_nothing() {
        for text in ["image/jpeg", "application/vnd.oasis.opendocument.text", "text/plain"] {
            assert_eq!(MediaType::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "/", "image", "image/", "a/b/c", "text/plain; charset=x", "IMAGE/PNG", "a/\u{1b}[2J"]
        {
            assert!(MediaType::parse(text).is_none(), "{text}");
        }
        let raw = RawAttachment { m: Some("not a type".to_owned()), ..attachment().raw().unwrap() };
        assert!(Attachment::from_raw(raw).unwrap().media.is_none());
    }

    #[test]
    fn debug_shows_nothing() {
        let attachment = attachment();
        assert_eq!(format!("{attachment:?}"), "Attachment(..)");
        assert_eq!(format!("{:?}", attachment.key), "AttachmentKey(..)");
        assert_eq!(format!("{:?}", attachment.name), "FileName(..)");
        assert_eq!(format!("{:?}", attachment.media), "Some(MediaType(..))");
    }
}
