//! Segments of a backup: written and read as a stream, so that a backup of any size needs one segment of memory.
//!
//! Invariants: a segment's place and whether it is the last one are part of its nonce, so that segments cannot be
//! exchanged, left out or cut off; each file has a key of its own, so that nonces can be counted. Known gap: the length
//! tells how much there is, in whole MiB.

use std::io::{self, Read, Write};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInPlace};
use lapwing_vault::{Cost, DerivationError, Passphrase, Secret, stretch};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::{Item, ItemError, MAX_ITEM};
use crate::labels::{BACKUP_KEY, BACKUP_SEGMENT};

/// Bytes before the segments: like everything else a multiple of a disk's block.
const HEAD: usize = 4_096;
const SALT: usize = 32;
/// Bytes of a segment in the file.
pub const SEGMENT: usize = 65_536;
const TAG: usize = 16;
const CONTENT: usize = SEGMENT - TAG;
/// BAK-01: the file grows in steps of so many segments, one MiB: a length that tells less than the number of messages.
const STEP: u64 = 16;
const VERSION: u8 = 1;

/// Why a file is no backup that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFailure {
    /// Another length than a backup has: a foreign file, or one that was cut.
    #[error("this file is not a whole backup")]
    Length,
    /// The first segment does not open: another passphrase, another file, or its beginning is damaged.
    #[error("the passphrase does not open this file, or it is no backup")]
    Closed,
    /// BAK-02: a later segment does not open: it was changed, exchanged or cut off.
    #[error("the backup is damaged: a part of it was changed or is missing")]
    Damaged,
    /// BAK-03: a newer program made it.
    #[error("the backup was made by a newer version of lapwing")]
    Newer,
    /// The content is not what this format says.
    #[error("the backup's content cannot be read")]
    Content,
    /// The file failed.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// No memory for the derivation.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
}

impl From<ItemError> for ReadFailure {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Unknown => Self::Newer,
            ItemError::Malformed => Self::Content,
        }
    }
}

fn cipher(
    passphrase: &Passphrase,
    salt: &[u8; SALT],
    cost: Cost,
) -> Result<XChaCha20Poly1305, DerivationError> {
    let key: Secret<32> = stretch(passphrase, salt, cost, BACKUP_KEY)?;
    Ok(XChaCha20Poly1305::new(key.expose().into()))
}

fn nonce(number: u64, last: bool) -> XNonce {
    let mut nonce = [0; 24];
    nonce[0] = u8::from(last);
    nonce[16..].copy_from_slice(&number.to_be_bytes());
    nonce.into()
}

/// Writes a backup.
pub struct Writer<W> {
    file: W,
    cipher: XChaCha20Poly1305,
    content: Zeroizing<Vec<u8>>,
    number: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a backup: one derivation, and the head.
    ///
    /// # Errors
    /// The system's; none for want of memory, which is an [`io::ErrorKind::OutOfMemory`].
    pub fn begin(
        mut file: W,
        passphrase: &Passphrase,
        cost: Cost,
        rng: &mut impl CryptoRng,
    ) -> io::Result<Self> {
        let mut head = vec![0; HEAD];
        rng.fill_bytes(&mut head);
        let salt = head.first_chunk::<SALT>().ok_or(io::ErrorKind::InvalidInput)?;
        let cipher = cipher(passphrase, salt, cost)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        file.write_all(&head)?;
        let mut content = Zeroizing::new(Vec::with_capacity(CONTENT));
        content.push(VERSION);
        Ok(Self { file, cipher, content, number: 0 })
    }

    /// Adds an item.
    ///
    /// # Errors
    /// The system's, and [`io::ErrorKind::InvalidInput`] for an item above [`MAX_ITEM`].
    pub fn add(&mut self, item: &Item) -> io::Result<()> {
        let bytes = item.encode();
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_ITEM);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        self.push(&length.to_be_bytes())?;
        self.push(&bytes)
    }

    /// Ends the backup and answers the file, which the caller makes durable.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self) -> io::Result<W> {
        self.push(&0_u32.to_be_bytes())?;
        // BAK-01: zeros up to the next step. What `push` leaves is never empty and never more than one segment.
        while self.number % STEP != STEP - 1 {
            self.content.resize(CONTENT, 0);
            self.write_segment(false)?;
        }
        self.content.resize(CONTENT, 0);
        self.write_segment(true)?;
        self.file.flush()?;
        Ok(self.file)
    }

    /// A full segment is written when more follows: the last one must be known as such.
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.content.len() == CONTENT {
                self.write_segment(false)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(CONTENT - self.content.len()));
            self.content.extend_from_slice(now);
            bytes = rest;
        }
        Ok(())
    }

    fn write_segment(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.number, last);
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce, BACKUP_SEGMENT, &mut self.content)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        self.file.write_all(&self.content)?;
        self.file.write_all(&tag)?;
        self.content.zeroize();
        self.number += 1;
        Ok(())
    }
}

/// Reads a backup, segment by segment. Which one is the last follows from the file's length.
pub struct Reader<R> {
    file: R,
    cipher: XChaCha20Poly1305,
    content: Zeroizing<Vec<u8>>,
    at: usize,
    number: u64,
    segments: u64,
}

impl<R: Read> Reader<R> {
    /// Opens a backup of `length` bytes: one derivation, whatever the file is, if it has a backup's length.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub fn open(mut file: R, length: u64, passphrase: &Passphrase, cost: Cost) -> Result<Self, ReadFailure> {
        let segments = segments_of(length)?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let salt = head.first_chunk::<SALT>().ok_or(ReadFailure::Length)?;
        let cipher = cipher(passphrase, salt, cost)?;
        let content = Zeroizing::new(Vec::with_capacity(SEGMENT));
        let mut reader = Self { file, cipher, content, at: 0, number: 0, segments };
        reader.read_segment().map_err(|failure| match failure {
            ReadFailure::Damaged => ReadFailure::Closed,
            other => other,
        })?;
        reader.read_version()?;
        Ok(reader)
    }

    /// The next item. `None` after the last one, when everything behind it is as it should be.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub fn next_item(&mut self) -> Result<Option<Item>, ReadFailure> {
        let mut length = [0; 4];
        self.take(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| ReadFailure::Content)?;
        if length == 0 {
            self.read_rest()?;
            return Ok(None);
        }
        if length > MAX_ITEM {
            return Err(ReadFailure::Content);
        }
        let mut bytes = Zeroizing::new(vec![0; length]);
        self.take(&mut bytes)?;
        Ok(Some(Item::decode(&bytes)?))
    }

    /// Begins again, with the same key: the file stands at its beginning again.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub fn again(self, mut file: R) -> Result<Self, ReadFailure> {
        let Self { cipher, segments, mut content, .. } = self;
        file.read_exact(&mut [0; HEAD])?;
        content.zeroize();
        let mut reader = Self { file, cipher, content, at: 0, number: 0, segments };
        reader.read_segment()?;
        reader.read_version()?;
        Ok(reader)
    }

    /// How many segments were read, and how many there are.
    #[must_use]
    pub const fn progress(&self) -> (u64, u64) {
        (self.number, self.segments)
    }

    fn read_version(&mut self) -> Result<(), ReadFailure> {
        let mut version = [0];
        self.take(&mut version)?;
        if version == [VERSION] { Ok(()) } else { Err(ReadFailure::Newer) }
    }

    fn take(&mut self, mut out: &mut [u8]) -> Result<(), ReadFailure> {
        while !out.is_empty() {
            if self.at == self.content.len() {
                self.read_segment()?;
            }
            let here = self.content.get(self.at..).unwrap_or_default();
            let count = here.len().min(out.len());
            let (now, rest) = out.split_at_mut(count);
            now.copy_from_slice(&here[..count]);
            self.at += count;
            out = rest;
        }
        Ok(())
    }

    /// The padding: whole, authentic and zero.
    fn read_rest(&mut self) -> Result<(), ReadFailure> {
        loop {
            if self.content.get(self.at..).unwrap_or_default().iter().any(|byte| *byte != 0) {
                return Err(ReadFailure::Content);
            }
            self.at = self.content.len();
            if self.number == self.segments {
                return Ok(());
            }
            self.read_segment()?;
        }
    }

    fn read_segment(&mut self) -> Result<(), ReadFailure> {
        if self.number >= self.segments {
            return Err(ReadFailure::Content);
        }
        self.content.zeroize();
        self.content.resize(SEGMENT, 0);
        self.file.read_exact(&mut self.content).map_err(|error| match error.kind() {
            // It was as long as a backup when it was opened.
            io::ErrorKind::UnexpectedEof => ReadFailure::Damaged,
            _ => ReadFailure::File(error),
        })?;
        let (content, tag) = self.content.split_at_mut(CONTENT);
        let nonce = nonce(self.number, self.number + 1 == self.segments);
        self.cipher
            .decrypt_in_place_detached(&nonce, BACKUP_SEGMENT, content, (&*tag).into())
            .map_err(|_| ReadFailure::Damaged)?;
        self.content.truncate(CONTENT);
        self.at = 0;
        self.number += 1;
        Ok(())
    }
}

fn segments_of(length: u64) -> Result<u64, ReadFailure> {
    let (head, segment) = (HEAD as u64, SEGMENT as u64);
    let body = length.checked_sub(head).ok_or(ReadFailure::Length)?;
    let whole = body > 0 && body.is_multiple_of(STEP * segment);
    if whole { Ok(body / segment) } else { Err(ReadFailure::Length) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    const MIB: usize = 1 << 20;

    fn words(text: &str) -> Passphrase {
        Passphrase::new(text)
    }

    fn item(byte: u8, length: usize) -> Item {
        Item::Record { table: 7, key: vec![byte; 3].into(), value: vec![byte; length].into() }
    }

    fn backup(items: &[Item]) -> Vec<u8> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut writer = Writer::begin(Vec::new(), &words("reed marsh"), TINY, &mut rng).unwrap();
        for item in items {
            writer.add(item).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8], passphrase: &str) -> Result<Vec<Item>, ReadFailure> {
        let mut reader = Reader::open(bytes, bytes.len() as u64, &words(passphrase), TINY)?;
        let mut items = Vec::new();
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
        let mut again = reader.again(bytes)?;
        assert_eq!(again.next_item()?.as_ref().map(Item::encode), items.first().map(Item::encode));
        Ok(items)
    }

    fn encoded(items: &[Item]) -> Vec<Vec<u8>> {
        items.iter().map(|item| item.encode().to_vec()).collect()
    }

    #[test]
    fn bak_01_a_backup_is_whole_mebibytes_of_random_bytes() {
        let bytes = backup(&[item(1, 10)]);
        assert_eq!(bytes.len(), HEAD + MIB);
        assert_eq!(backup(&[item(1, MIB)]).len(), HEAD + 2 * MIB);
        let mut counts = [0_u32; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let expected = bytes.len() as f64 / 256.0;
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        assert!((150.0..400.0).contains(&chi), "{chi}");
    }

    #[test]
    fn every_length_of_content_is_read_back() {
        for length in
            [0, 1, CONTENT - 30, CONTENT - 20, CONTENT, CONTENT + 1, 15 * CONTENT, 16 * CONTENT - 40]
        {
            let items = [item(1, length), item(2, 3)];
            assert_eq!(encoded(&read(&backup(&items), "reed marsh").unwrap()), encoded(&items), "{length}");
        }
        assert!(read(&backup(&[]), "reed marsh").unwrap().is_empty());
    }

    #[test]
    fn bak_02_whatever_was_changed_cut_or_exchanged_is_refused() {
        let good = backup(&[item(1, MIB), item(2, 5)]);
        assert!(matches!(read(&good, "another"), Err(ReadFailure::Closed)));
        for at in [0, 31, HEAD, HEAD + 7, HEAD + SEGMENT - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(read(&bad, "reed marsh"), Err(ReadFailure::Closed)), "byte {at}");
        }
        for at in [HEAD + SEGMENT, HEAD + MIB - 1, good.len() - 1, good.len() - SEGMENT] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(read(&bad, "reed marsh"), Err(ReadFailure::Damaged)), "byte {at}");
        }
        // What is random in the head is nobody's business.
        let mut same = good.clone();
        same[100] ^= 1;
        assert!(read(&same, "reed marsh").is_ok());
        for length in [0, 1, 4_095, HEAD, HEAD + 1, HEAD + SEGMENT, good.len() - 1, good.len() + 1] {
            let mut cut = good.clone();
            cut.resize(length, 0);
            assert!(matches!(read(&cut, "reed marsh"), Err(ReadFailure::Length)), "{length}");
        }
        assert!(
            matches!(read(&good[..HEAD + MIB], "reed marsh"), Err(ReadFailure::Damaged)),
            "a MiB is missing"
        );
        let mut longer = good.clone();
        longer.extend_from_slice(&good[HEAD..HEAD + MIB]);
        assert!(matches!(read(&longer, "reed marsh"), Err(ReadFailure::Damaged)));
        let mut exchanged = good.clone();
        exchanged[HEAD + SEGMENT..HEAD + 3 * SEGMENT].rotate_left(SEGMENT);
        assert!(matches!(read(&exchanged, "reed marsh"), Err(ReadFailure::Damaged)));
    }

    /// A backup with any content under the right passphrase.
    fn with_content(content: &[u8]) -> Vec<u8> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut writer = Writer::begin(Vec::new(), &words("reed marsh"), TINY, &mut rng).unwrap();
        writer.content.clear();
        writer.push(content).unwrap();
        writer.content.resize(CONTENT, 0);
        while writer.number % STEP != STEP - 1 {
            writer.content.resize(CONTENT, 0);
            writer.write_segment(false).unwrap();
        }
        writer.content.resize(CONTENT, 0);
        writer.write_segment(true).unwrap();
        writer.file
    }

    #[test]
    fn bak_03_another_version_and_other_content_are_told_apart() {
        assert!(matches!(read(&with_content(&[2]), "reed marsh"), Err(ReadFailure::Newer)));
        assert!(matches!(
            read(&with_content(&[1, 0, 0, 0, 1, 0xff]), "reed marsh"),
            Err(ReadFailure::Content)
        ));
        assert!(matches!(read(&with_content(&[1, 0xff, 0, 0, 0]), "reed marsh"), Err(ReadFailure::Content)));
        assert!(matches!(read(&with_content(&[1, 0, 0, 0, 0, 9]), "reed marsh"), Err(ReadFailure::Content)));
        // An item that claims more than there is.
        assert!(matches!(
            read(&with_content(&[1, 0, 0x80, 0, 0, 0xa0]), "reed marsh"),
            Err(ReadFailure::Content)
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_content_is_refused_or_read_without_a_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let content = [&[1], content.as_slice()].concat();
            let _ = read(&with_content(&content), "reed marsh");
        }
    }
}
