//! What a backup consists of.
//!
//! CBOR, one map with one key, the kind:
//!
//! ```text
//! { "backup":      { "made": ms since 1970 } }                              first
//! { "compartment": { "name": text } }                                       begins a compartment
//! { "record":      { "t": table, "k": key, "v": value } }                   a record as docs/records-format.md has it
//! { "text":        { "chat": id 16, "order": number, "text": text } }       what a message says; after its record
//! { "file":        { "chat": id 16, "order": number, "file": bytes } }      what names and opens its file; after its text
//! { "draft":       { "chat": id 16, "text": text, "stored": ms } }          a text that was not sent
//! ```

use lapwing_wire::{
    codec::{self, DecodeError},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, Zeroizing};

use super::MAX_ITEM;
use crate::store::{ChatId, Order};

/// A part of a backup's content.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// When the backup was made. The first item.
    Backup {
        /// Then.
        made: Timestamp,
    },
    /// What follows belongs to this compartment.
    Compartment {
        /// Its name.
        name: String,
    },
    /// A record.
    Record {
        /// Its table.
        #[serde(rename = "t")]
        table: u8,
        /// Its key.
        #[serde(rename = "k")]
        key: ByteBuf,
        /// Its value.
        #[serde(rename = "v")]
        value: ByteBuf,
    },
    /// What a message says.
    Text {
        /// Its chat.
        chat: ChatId,
        /// Its place.
        order: Order,
        /// The text.
        text: String,
    },
    /// What names and opens the file of a message.
    File {
        /// Its chat.
        chat: ChatId,
        /// Its place.
        order: Order,
        /// The reference.
        file: ByteBuf,
    },
    /// What was not sent.
    Draft {
        /// Its chat.
        chat: ChatId,
        /// The text.
        text: String,
        /// When it was last changed.
        stored: Timestamp,
    },
}

/// Bytes are no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// BAK-06: a kind of a newer version.
    #[error("an item of an unknown kind")]
    Unknown,
    /// Something else.
    #[error("a malformed item")]
    Malformed,
}

impl Item {
    /// The item's bytes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(codec::encode(self))
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Backup { .. } => 0,
            Self::Compartment { name } => name.len(),
            Self::Record { table: _, key, value } => key.len() + value.len(),
            Self::Text { text, .. } | Self::Draft { text, .. } => text.len(),
            Self::File { file, .. } => file.len(),
        }
    }

    /// Reads what [`Item::encode`] wrote.
    ///
    /// # Errors
    /// [`ItemError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ItemError> {
        codec::decode(bytes, MAX_ITEM).map_err(|_| {
            let kind: Result<Kind, DecodeError> = codec::decode(bytes, MAX_ITEM);
            match kind {
                Ok(Kind(kinds)) if kinds.len() == 1 && !kinds.keys().any(|kind| KINDS.contains(&&**kind)) => {
                    ItemError::Unknown
                }
                _ => ItemError::Malformed,
            }
        })
    }
}

const KINDS: [&str; 6] = ["backup", "compartment", "record", "text", "file", "draft"];

/// An item of which only the kind is looked at.
#[derive(Deserialize)]
#[serde(transparent)]
struct Kind(std::collections::BTreeMap<String, serde::de::IgnoredAny>);

impl Drop for Item {
    fn drop(&mut self) {
        match self {
            Self::Backup { .. } => {}
            Self::Compartment { name } => name.zeroize(),
            Self::Record { table: _, key: _, value } => value.as_mut_slice().zeroize(),
            Self::Text { text, .. } | Self::Draft { text, .. } => text.zeroize(),
            Self::File { chat: _, order: _, file } => file.as_mut_slice().zeroize(),
        }
    }
}

/// Items hold keys and texts.
impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Item> {
        let chat = ChatId::from_bytes([1; 16]);
        vec![
            Item::Backup { made: Timestamp::from_millis(1) },
            Item::Compartment { name: "main".into() },
            Item::Record { table: 3, key: vec![1, 2].into(), value: vec![0xa0].into() },
            Item::Text { chat, order: 7, text: "привет".into() },
            Item::File { chat, order: 9, file: vec![1, 2].into() },
            Item::Draft { chat, text: "not yet".into(), stored: Timestamp::from_millis(2) },
        ]
    }

    /// The bytes are frozen: a change is a new version of the format.
    #[test]
    fn items_have_their_frozen_bytes() {
        let frozen = [
            "a1666261636b7570a1646d61646501",
            "a16b636f6d706172746d656e74a1646e616d65646d61696e",
            "a1667265636f7264a3617403616b420102617641a0",
            concat!(
                "a16474657874a364636861745001010101010101010101010101010101656f726465720764746578",
                "746cd0bfd180d0b8d0b2d0b5d182"
            ),
            "a16466696c65a364636861745001010101010101010101010101010101656f72646572096466696c65420102",
            concat!(
                "a1656472616674a3646368617450010101010101010101010101010101016474657874676e6f7420",
                "7965746673746f72656402"
            ),
        ];
        for (item, frozen) in all().iter().zip(frozen) {
            let hex: String = item.encode().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, frozen);
            assert_eq!(*Item::decode(&item.encode()).unwrap().encode(), *item.encode());
        }
    }

    #[test]
    fn bak_06_an_unknown_kind_is_told_from_a_malformed_one() {
        assert_eq!(
            Item::decode(&codec::encode(
                &[("poll", 1)].into_iter().collect::<std::collections::BTreeMap<_, _>>()
            ))
            .unwrap_err(),
            ItemError::Unknown
        );
        for bytes in [&[][..], &[0xff], &[0xa0], &[0xa1, 0x64, b't', b'e', b'x', b't', 0x01]] {
            assert_eq!(Item::decode(bytes).unwrap_err(), ItemError::Malformed, "{bytes:x?}");
        }
        for item in all() {
            let bytes = item.encode();
            for at in 0..bytes.len() {
                let _ = Item::decode(&bytes[..at]);
                let mut changed = bytes.to_vec();
                changed[at] ^= 0x41;
                let _ = Item::decode(&changed);
            }
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", all()[3]), "Item(..)");
    }
}
