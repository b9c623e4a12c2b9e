//! How a file is sealed: in chunks of one size, each by itself, so that neither side ever holds more than a few.
//!
//! ```text
//! blob      = chunk 0 | chunk 1 | ... | chunk n-1                    n by the ladder, from the file's size alone
//! chunk     = nonce 12 | ChaCha20-Poly1305 of 65,508 bytes | tag 16                                65,536 bytes
//! plaintext = the file's bytes from 65,508 * index on, then zeros
//! bound     = "lapwing/1 chunk of a file" 00 | index u32 | n u32 | size u64
//! keys      = HKDF-SHA256(no salt, ikm = key 32, info = "lapwing/1 keys of a file", 64 bytes): sealing key | nonce key
//! nonce     = first 12 bytes of HMAC-SHA256(nonce key, bound | plaintext)
//! ```
//! Integers are big-endian.
//!
//! Invariants: ATT-01 a chunk that was changed, or stands in another place, in a blob of another length, or belongs to a
//! file of another size does not open, and nothing of it is handed out; ATT-02 the blob's length is one of the ladder's;
//! ATT-04 sealing is a function of key, size and bytes: what was cut off is sealed again to the same bytes, and a file
//! that changed in between meets another nonce, so that no two plaintexts share one.
//!
//! The key is fresh for each sending, so twelve bytes of nonce are enough: at most 1,600 chunks, a few versions of each.
//!
//! Known gap: who holds the key can make another file for it. Authorship is what the message proves that names the hash.
//!
//! Source: RFC 8439, RFC 5869, RFC 2104; the nonce by a keyed hash as in RFC 5297 (SIV).

use std::fmt;

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use hkdf::Hkdf;
use lapwing_wire::limits::MAX_BLOB_PART;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::{labels, seal::symmetric_key};

/// Bytes of a sealed chunk: one part of a blob, so that what is asked for by its offset is a chunk.
pub const CHUNK: usize = MAX_BLOB_PART;

const NONCE: usize = 12;
const TAG: usize = 16;

/// Most bytes of a file in one chunk.
pub const MAX_PLAIN: usize = CHUNK - NONCE - TAG;

/// Most chunks: what the largest blob holds.
const MAX_CHUNKS: u32 = 1_600;

/// Largest file, in bytes: 28 bytes of each of the largest blob's 1,600 chunks are not the file's.
pub const MAX_FILE: u64 = MAX_CHUNKS as u64 * MAX_PLAIN as u64;

symmetric_key! {
    /// Opens one attachment. Fresh for each sending, also of the same file.
    AttachmentKey
}

/// ATT-02: how many chunks a blob for so many bytes has: 1, 2, 3, 4, then four steps to each doubling, at most a quarter
/// more than needed, and the largest blob as the last step. `None` for more than [`MAX_FILE`].
#[must_use]
pub const fn ladder(size: u64) -> Option<u32> {
    let mut needed = size.div_ceil(MAX_PLAIN as u64);
    if needed > MAX_CHUNKS as u64 {
        return None;
    }
    if needed == 0 {
        needed = 1;
    }
    let mut step = 1;
    while needed > 8 * step {
        step *= 2;
    }
    let rounded = needed.div_ceil(step) * step;
    #[expect(clippy::cast_possible_truncation, reason = "at most 2,048")]
    let rounded = rounded as u32;
    Some(if rounded > MAX_CHUNKS { MAX_CHUNKS } else { rounded })
}

/// A chunk that is not one of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// ATT-01: changed, cut, moved, of another file; or the sender put something else than zeros behind the end. The relay
    /// or the sender is at fault; nothing of it may be used.
    #[error("a part of the file is not what the sender sealed")]
    NotGenuine,
    /// A caller's mistake: no such chunk, or bytes of another length than the chunk has.
    #[error("there is no such part of the file")]
    NoSuchChunk,
}

/// The chunks of one file.
pub struct Chunks {
    size: u64,
    count: u32,
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

impl Chunks {
    /// Those of a file of `size` bytes. `None` for more than [`MAX_FILE`].
    #[must_use]
    pub fn new(key: &AttachmentKey, size: u64) -> Option<Self> {
        let count = ladder(size)?;
        let mut keys = [0; 64];
        Hkdf::<Sha256>::new(None, key.expose()).expand(labels::FILE_KEYS.as_bytes(), &mut keys).ok()?;
        let (sealing, nonces) = keys.split_at(32);
        let cipher = UnboundKey::new(&CHACHA20_POLY1305, sealing).ok().map(LessSafeKey::new);
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, nonces);
        keys.zeroize();
        Some(Self { size, count, cipher: cipher?, nonces })
    }

    /// How many.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the blob.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.count as u64 * CHUNK as u64
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where in the file a chunk begins, and how many bytes of the file it holds: as a rule [`MAX_PLAIN`], none behind the
    /// file's end. `None` for a number that no chunk has.
    #[must_use]
    pub fn span(&self, index: u32) -> Option<(u64, usize)> {
        if index >= self.count {
            return None;
        }
        let start = (u64::from(index) * MAX_PLAIN as u64).min(self.size);
        let length = usize::try_from(self.size - start).unwrap_or(usize::MAX).min(MAX_PLAIN);
        Some((start, length))
    }

    /// Seals the bytes of a chunk into `out`, in place of what that held.
    ///
    /// # Errors
    /// [`ChunkError::NoSuchChunk`] where `plain` is not as long as [`span`](Self::span) says.
    pub fn seal(&self, index: u32, plain: &[u8], out: &mut Vec<u8>) -> Result<(), ChunkError> {
        let (_, length) = self.span(index).ok_or(ChunkError::NoSuchChunk)?;
        if plain.len() != length {
            return Err(ChunkError::NoSuchChunk);
        }
        let bound = self.bound(index);
        out.clear();
        out.resize(CHUNK, 0);
        let (nonce, rest) = out.split_first_chunk_mut::<NONCE>().ok_or(ChunkError::NoSuchChunk)?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(ChunkError::NoSuchChunk)?;
        let (bytes, _) = text.split_at_mut(length);
        bytes.copy_from_slice(plain);
        // ATT-04.
        let mut hash = hmac::Context::with_key(&self.nonces);
        hash.update(&bound);
        hash.update(text);
        let hash = hash.sign();
        let (first, _) = hash.as_ref().split_first_chunk::<NONCE>().ok_or(ChunkError::NoSuchChunk)?;
        *nonce = *first;
        let sealed = self.cipher.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(bound),
            text,
        );
        tag.copy_from_slice(sealed.map_err(|_| ChunkError::NoSuchChunk)?.as_ref());
        Ok(())
    }

    /// ATT-01: opens a chunk in place and answers the file's bytes in it.
    ///
    /// # Errors
    /// [`ChunkError`]; nothing of `chunk` may be used then.
    pub fn open<'c>(&self, index: u32, chunk: &'c mut [u8]) -> Result<&'c [u8], ChunkError> {
        let (_, length) = self.span(index).ok_or(ChunkError::NoSuchChunk)?;
        if chunk.len() != CHUNK {
            return Err(ChunkError::NotGenuine);
        }
        let (nonce, sealed) = chunk.split_first_chunk_mut::<NONCE>().ok_or(ChunkError::NotGenuine)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self
            .cipher
            .open_in_place(nonce, Aad::from(self.bound(index)), sealed)
            .map_err(|_| ChunkError::NotGenuine)?;
        let (bytes, padding) = text.split_at(length);
        // What is not zero would be a place for something that nobody sees.
        if padding.iter().any(|byte| *byte != 0) { Err(ChunkError::NotGenuine) } else { Ok(bytes) }
    }

    fn bound(&self, index: u32) -> Vec<u8> {
        let Self { size, count, cipher: _, nonces: _ } = self;
        let mut bound = labels::FILE_CHUNK.as_bytes().to_vec();
        bound.push(0);
        bound.extend_from_slice(&index.to_be_bytes());
        bound.extend_from_slice(&count.to_be_bytes());
        bound.extend_from_slice(&size.to_be_bytes());
        bound
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size: _, count: _, cipher: _, nonces: _ } = self;
        f.write_str("Chunks(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(size: u64) -> Chunks {
        Chunks::new(&AttachmentKey::from_bytes([7; 32]), size).unwrap()
    }

    fn file(size: usize) -> Vec<u8> {
        (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    fn sealed(chunks: &Chunks, file: &[u8]) -> Vec<Vec<u8>> {
        let seal = |index| {
            let (start, length) = chunks.span(index).unwrap();
            let start = usize::try_from(start).unwrap();
            let mut out = Vec::new();
            chunks.seal(index, &file[start..start + length], &mut out).unwrap();
            out
        };
        (0..chunks.count()).map(seal).collect()
    }

    #[test]
    fn files_of_every_length_come_back() {
        for size in [0, 1, MAX_PLAIN - 1, MAX_PLAIN, MAX_PLAIN + 1, 3 * MAX_PLAIN, 9 * MAX_PLAIN + 5] {
            let (chunks, file) = (chunks(size.try_into().unwrap()), file(size));
            let sealed = sealed(&chunks, &file);
            assert!(sealed.iter().all(|chunk| chunk.len() == CHUNK));
            let mut back = Vec::new();
            for (index, mut chunk) in (0..).zip(sealed) {
                back.extend_from_slice(chunks.open(index, &mut chunk).unwrap());
            }
            assert_eq!(back, file);
        }
    }

    #[test]
    fn att_01_changed_moved_cut_and_foreign_chunks_are_refused() {
        let size = 3 * MAX_PLAIN as u64 + 9;
        let (ours, file) = (chunks(size), file(3 * MAX_PLAIN + 9));
        let sealed = sealed(&ours, &file);
        let refused = |chunks: &Chunks, index: u32, chunk: &[u8]| {
            assert_eq!(chunks.open(index, &mut chunk.to_vec()).unwrap_err(), ChunkError::NotGenuine);
        };
        for at in [0, NONCE, CHUNK / 2, CHUNK - 1] {
            let mut changed = sealed[1].clone();
            changed[at] ^= 1;
            refused(&ours, 1, &changed);
        }
        refused(&ours, 0, &sealed[1]);
        refused(&ours, 1, &sealed[0]);
        refused(&ours, 1, &sealed[1][..CHUNK - 1]);
        refused(&ours, 1, &[]);
        // The same chunk in a shorter file, a longer one, one of another size in as many chunks, under another key.
        refused(&chunks(2 * MAX_PLAIN as u64), 1, &sealed[1]);
        refused(&chunks(20 * MAX_PLAIN as u64), 1, &sealed[1]);
        refused(&chunks(size + 1), 1, &sealed[1]);
        refused(&Chunks::new(&AttachmentKey::from_bytes([8; 32]), size).unwrap(), 1, &sealed[1]);
        assert_eq!(ours.open(4, &mut sealed[1].clone()).unwrap_err(), ChunkError::NoSuchChunk);
        assert!(ours.open(1, &mut sealed[1].clone()).is_ok());
    }

    #[test]
    fn att_01_what_hides_behind_the_end_is_refused() {
        // As a sender would who does not keep to the format: a chunk of the same place whose padding is not zero.
        let chunks = chunks(10);
        let bound = chunks.bound(0);
        let mut chunk = vec![1; MAX_PLAIN];
        let tag = chunks
            .cipher
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::from(bound), &mut chunk)
            .unwrap();
        let mut chunk = [&[0; NONCE][..], &chunk, tag.as_ref()].concat();
        assert_eq!(chunks.open(0, &mut chunk).unwrap_err(), ChunkError::NotGenuine);
    }

    #[test]
    fn att_02_lengths_are_those_of_the_ladder() {
        let full = MAX_PLAIN as u64;
        let mut steps: Vec<u32> = Vec::new();
        for needed in 1..=u64::from(MAX_CHUNKS) {
            let count = ladder(needed * full).unwrap();
            assert_eq!(ladder(needed * full - full + 1), Some(count));
            assert!(u64::from(count) >= needed);
            assert!(needed <= 4 || u64::from(count) * 4 <= needed * 5, "{needed} becomes {count}");
            if steps.last() != Some(&count) {
                steps.push(count);
            }
        }
        assert!(steps.is_sorted());
        assert_eq!((steps.len(), steps.last()), (39, Some(&MAX_CHUNKS)));
        assert_eq!(ladder(0), Some(1));
        assert_eq!(
            (ladder(MAX_FILE), ladder(MAX_FILE + 1), ladder(u64::MAX)),
            (Some(MAX_CHUNKS), None, None)
        );
        assert_eq!(u64::from(MAX_CHUNKS) * CHUNK as u64, lapwing_wire::limits::MAX_BLOB);
    }

    #[test]
    fn att_04_the_same_bytes_are_sealed_alike_and_others_under_another_nonce() {
        let chunks = chunks(9);
        let seal = |plain: &[u8]| {
            let mut out = Vec::new();
            chunks.seal(0, plain, &mut out).unwrap();
            out
        };
        assert_eq!(seal(b"nine byte"), seal(b"nine byte"));
        assert_ne!(seal(b"nine byte")[..NONCE], seal(b"nine bits")[..NONCE]);
        let mut out = Vec::new();
        assert_eq!(chunks.seal(0, b"eight by", &mut out).unwrap_err(), ChunkError::NoSuchChunk);
        assert_eq!(chunks.seal(1, b"", &mut out).unwrap_err(), ChunkError::NoSuchChunk);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", chunks(9)), "Chunks(..)");
    }
}
