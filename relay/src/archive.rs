//! A backup as a file.
//!
//! ```text
//! file   = "lapwing-relay backup 2" 0a | nonce prefix 16 | piece*
//! piece  = length u32 BE (at most MAX_PIECE) | XChaCha20-Poly1305(key; prefix | number u64 BE with its top bit set in the last)
//! pieces = CBOR Head | CBOR list of rows ...          the last list may be empty
//! key    = 32 random bytes; as text "lapwing-backup:" and armoured
//! ```
//! Invariants: nothing of a file is believed before its piece was opened; a file without its last piece is not whole; one key may
//! seal any number of files, because each has a random prefix.
//!
//! # Security
//! Whoever has file and key has the relay: its key, its tickets, and every envelope that waited then, also those that were
//! taken since. Envelopes are sealed by their senders and stay so. Without the key the file is noise: burning the key burns
//! every backup that was made with it.

use std::io::{self, Read, Write};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{AeadInPlace, generic_array::GenericArray},
};
use lapwing_wire::{
    armor::{self, ArmorError},
    codec,
    succession::Succession,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use crate::store::{EngineName, Row};

const MAGIC: &[u8] = b"lapwing-relay backup 2\n";
/// Of the version before, whose rows are read too: stores of format 7 and older made it.
const BEFORE: &[u8] = b"lapwing-relay backup 1\n";
const _: () = assert!(MAGIC.len() == BEFORE.len());
const KEY_PREFIX: &str = "lapwing-backup";
const PREFIX: usize = 16;
/// Longest sealed piece: a quarter of a mebibyte of rows, one of the largest and a tag, with room.
const MAX_PIECE: usize = 1 << 20;
/// Set in the number of the last piece.
const LAST: u64 = 1 << 63;

/// A backup that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The system refused.
    #[error("cannot read or write the backup: {0}")]
    Io(#[from] io::Error),
    /// Another kind of file, or of another version.
    #[error("this file is not a backup of a relay")]
    Form,
    /// The key is of another backup, or the file is damaged or cut short.
    #[error("the recovery key does not open this backup, or the file is damaged")]
    Sealed,
    /// The text of a recovery key is damaged.
    #[error("this is not a recovery key: {0}")]
    Key(ArmorError),
}

/// Whether a file that begins like this is a backup, whole or cut short.
pub fn is_begun(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(BEFORE)
}

/// What opens a backup.
pub struct ArchiveKey(Zeroizing<[u8; 32]>);

impl ArchiveKey {
    /// A new one.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut());
        Self(key)
    }

    /// The text that an operator keeps.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(armor::encode(KEY_PREFIX, self.0.as_ref()))
    }

    /// From its text.
    ///
    /// # Errors
    /// [`ArchiveError::Key`].
    pub fn from_text(text: &str) -> Result<Self, ArchiveError> {
        let bytes = Zeroizing::new(armor::decode(KEY_PREFIX, text.trim()).map_err(ArchiveError::Key)?);
        let key = bytes.as_slice().try_into().map_err(|_| ArchiveError::Key(ArmorError::Damaged))?;
        Ok(Self(Zeroizing::new(key)))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(GenericArray::from_slice(self.0.as_ref()))
    }
}

impl std::fmt::Debug for ArchiveKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(_) = self;
        f.write_str("ArchiveKey(..)")
    }
}

/// What a backup has beside the store.
#[derive(Serialize, Deserialize)]
pub struct Head {
    /// The relay's key.
    pub seed: ByteBuf,
    /// The keys that it had before.
    pub lineage: Vec<Succession>,
    /// The text of its configuration.
    pub config: String,
    /// What kept the store, and keeps the next one.
    pub engine: EngineName,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed: _, lineage: _, config: _, engine: _ } = self;
        f.write_str("Head(..)")
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut *self.seed);
    }
}

/// Writes a backup.
pub struct Writer<W> {
    to: W,
    cipher: XChaCha20Poly1305,
    prefix: [u8; PREFIX],
    number: u64,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn new(
        mut to: W,
        key: &ArchiveKey,
        head: &Head,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ArchiveError> {
        let mut prefix = [0; PREFIX];
        rng.fill_bytes(&mut prefix);
        to.write_all(MAGIC)?;
        to.write_all(&prefix)?;
        let mut writer = Self { to, cipher: key.cipher(), prefix, number: 0 };
        writer.piece(codec::encode(head), false)?;
        Ok(writer)
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn rows(&mut self, rows: &[Row]) -> Result<(), ArchiveError> {
        self.piece(codec::encode(&rows), false)
    }

    /// Ends it. A backup that was not ended does not open.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.piece(codec::encode::<[Row; 0]>(&[]), true)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn piece(&mut self, mut bytes: Vec<u8>, is_last: bool) -> Result<(), ArchiveError> {
        let nonce = nonce(&self.prefix, self.number, is_last);
        self.number += 1;
        self.cipher.encrypt_in_place(&nonce.into(), b"", &mut bytes).map_err(|_| ArchiveError::Sealed)?;
        let length = u32::try_from(bytes.len()).map_err(|_| ArchiveError::Form)?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(&bytes)?;
        Ok(())
    }
}

/// Reads a backup.
pub struct Reader<R> {
    from: R,
    cipher: XChaCha20Poly1305,
    prefix: [u8; PREFIX],
    number: u64,
    is_ended: bool,
}

impl<R: Read> Reader<R> {
    /// Opens one.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn new(mut from: R, key: &ArchiveKey) -> Result<(Self, Head), ArchiveError> {
        let (mut magic, mut prefix) = ([0; MAGIC.len()], [0; PREFIX]);
        from.read_exact(&mut magic).map_err(whole(ArchiveError::Form))?;
        if magic != MAGIC && magic != BEFORE {
            return Err(ArchiveError::Form);
        }
        from.read_exact(&mut prefix).map_err(whole(ArchiveError::Form))?;
        let mut reader = Self { from, cipher: key.cipher(), prefix, number: 0, is_ended: false };
        let head = Zeroizing::new(reader.piece()?);
        let head = codec::decode(&head, MAX_PIECE).map_err(|_| ArchiveError::Form)?;
        Ok((reader, head))
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// [`ArchiveError`]; what was read until then is a part of a backup and no backup.
    pub fn rows(&mut self) -> Result<Option<Vec<Row>>, ArchiveError> {
        if self.is_ended {
            return Ok(None);
        }
        let bytes = self.piece()?;
        codec::decode(&bytes, MAX_PIECE).map(Some).map_err(|_| ArchiveError::Form)
    }

    fn piece(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).map_err(whole(ArchiveError::Sealed))?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_PIECE {
            return Err(ArchiveError::Sealed);
        }
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes).map_err(whole(ArchiveError::Sealed))?;
        let open = |is_last| {
            let mut bytes = bytes.clone();
            let nonce = nonce(&self.prefix, self.number, is_last);
            self.cipher.decrypt_in_place(&nonce.into(), b"", &mut bytes).ok().map(|()| bytes)
        };
        let opened = match open(false) {
            Some(opened) => opened,
            None => {
                let opened = open(true).ok_or(ArchiveError::Sealed)?;
                self.is_ended = true;
                opened
            }
        };
        self.number += 1;
        Ok(opened)
    }
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer(..)")
    }
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader(..)")
    }
}

fn nonce(prefix: &[u8; PREFIX], number: u64, is_last: bool) -> [u8; 24] {
    let number = if is_last { number | LAST } else { number };
    let mut nonce = [0; 24];
    nonce[..PREFIX].copy_from_slice(prefix);
    nonce[PREFIX..].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// A file that ends early is not what it should be; other failures are the system's.
fn whole(cut: ArchiveError) -> impl FnOnce(io::Error) -> ArchiveError {
    move |error| if error.kind() == io::ErrorKind::UnexpectedEof { cut } else { ArchiveError::Io(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(key: &ArchiveKey) -> Vec<u8> {
        let head = Head {
            seed: ByteBuf::from(vec![7; 32]),
            lineage: Vec::new(),
            config: "# nothing".into(),
            engine: EngineName::Fjall,
        };
        let writer = Writer::new(Vec::new(), key, &head, &mut rand::rng()).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8], key: &ArchiveKey) -> Result<usize, ArchiveError> {
        let (mut reader, head) = Reader::new(bytes, key)?;
        assert_eq!((head.seed.as_slice(), head.config.as_str()), (&[7; 32][..], "# nothing"));
        let mut count = 0;
        while let Some(rows) = reader.rows()? {
            count += rows.len();
        }
        Ok(count)
    }

    #[test]
    fn a_backup_of_the_version_before_is_read_and_one_of_a_later_is_not() {
        let key = ArchiveKey::generate(&mut rand::rng());
        let mut bytes = made(&key);
        let version = MAGIC.len() - 2;
        assert_eq!(bytes[version], b'2');
        for (number, is_read) in [(b'1', true), (b'3', false)] {
            bytes[version] = number;
            assert_eq!((is_begun(&bytes), read(&bytes, &key).is_ok()), (is_read, is_read));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let key = ArchiveKey::generate(&mut rand::rng());
        let whole = made(&key);
        assert_eq!(read(&whole, &key).unwrap(), 0);
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            assert!(read(&bent, &key).is_err(), "{at}");
            assert!(read(&whole[..at], &key).is_err(), "{at}");
        }
        assert!(matches!(read(b"something else entirely, and long enough", &key), Err(ArchiveError::Form)));
        let other = ArchiveKey::generate(&mut rand::rng());
        assert!(matches!(read(&whole, &other), Err(ArchiveError::Sealed)));
    }

    #[test]
    fn a_key_survives_its_text_and_shows_nothing() {
        let key = ArchiveKey::generate(&mut rand::rng());
        let again = ArchiveKey::from_text(&format!(" {}\n", *key.to_text())).unwrap();
        assert_eq!(read(&made(&key), &again).unwrap(), 0);
        assert!(matches!(ArchiveKey::from_text("lapwing-backup:nonsense"), Err(ArchiveError::Key(_))));
        assert_eq!(format!("{key:?}"), "ArchiveKey(..)");
    }
}
