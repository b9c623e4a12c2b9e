//! Sealing and opening of everything that lies on the disk.
//!
//! ```text
//! sealed = nonce 24 | XChaCha20-Poly1305 ciphertext, as long as the plaintext | tag 16
//! ```
//!
//! Invariants: every sealing draws a fresh random 24-byte nonce, so equal contents never look equal; the
//! associated data names what lies where, so a unit moved elsewhere does not open; nothing is handed out
//! before the tag is verified.
//!
//! Known gaps: an old unit put back in its own place opens (roll-back of a region is not detected).

use chacha20::{
    XChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

pub(crate) use crate::xchacha::{NONCE_LEN, TAG_LEN};
use crate::{memory::Secret, work, xchacha::XChaCha};

/// What sealing adds.
pub(crate) const SEAL_OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// What a sealed thing is bound to: its index, and which of the two copies it is. The purpose is bound by
/// the key, which is derived per purpose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) copy: u8,
}

impl Place {
    /// Copy marker of things that exist once, or whose copies are the same bytes.
    pub(crate) const SINGLE: u8 = 0xff;

    pub(crate) fn single(index: u64) -> Self {
        Self { index, copy: Self::SINGLE }
    }

    pub(crate) fn copy_of(index: u64, copy: usize) -> Self {
        Self { index, copy: u8::try_from(copy).unwrap_or(Self::SINGLE) }
    }

    fn associated_data(self) -> [u8; 9] {
        let mut data = [0; 9];
        data[..8].copy_from_slice(&self.index.to_le_bytes());
        data[8] = self.copy;
        data
    }
}

/// Seals `plaintext` into `out`, which must be [`SEAL_OVERHEAD`] bytes longer. Returns whether it fitted.
#[must_use]
pub(crate) fn seal_into(
    key: &Secret<32>,
    place: Place,
    plaintext: &[u8],
    out: &mut [u8],
    rng: &mut dyn CryptoRng,
) -> bool {
    if out.len() != plaintext.len() + SEAL_OVERHEAD {
        return false;
    }
    let Some((nonce, rest)) = out.split_first_chunk_mut::<NONCE_LEN>() else { return false };
    let (body, tag_out) = rest.split_at_mut(plaintext.len());
    work::sealed(plaintext.len());
    rng.fill_bytes(nonce);
    body.copy_from_slice(plaintext);
    match XChaCha::new(key.expose()).seal(nonce, &place.associated_data(), body) {
        Some(tag) => {
            tag_out.copy_from_slice(&tag);
            true
        }
        None => {
            // Beyond the cipher's length limit (256 GiB): no plaintext may stay in the output.
            rng.fill_bytes(body);
            false
        }
    }
}

/// Seals `plaintext` into a new buffer.
pub(crate) fn seal(key: &Secret<32>, place: Place, plaintext: &[u8], rng: &mut dyn CryptoRng) -> Vec<u8> {
    let mut out = vec![0; plaintext.len() + SEAL_OVERHEAD];
    let sealed = seal_into(key, place, plaintext, &mut out, rng);
    debug_assert!(sealed);
    out
}

/// Opens `sealed` into `out`, which must be [`SEAL_OVERHEAD`] bytes shorter. On failure `out` holds zeros.
#[must_use]
pub(crate) fn open_into(key: &Secret<32>, place: Place, sealed: &[u8], out: &mut [u8]) -> bool {
    if sealed.len() != out.len() + SEAL_OVERHEAD {
        out.fill(0);
        return false;
    }
    let parts = sealed.split_first_chunk::<NONCE_LEN>().and_then(|(nonce, rest)| {
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        Some((nonce, body, tag))
    });
    let Some((nonce, body, tag)) = parts else { return false };
    work::opened(body.len());
    XChaCha::new(key.expose()).open(nonce, &place.associated_data(), body, tag, out)
}

/// Opens `sealed` into a new buffer that is wiped on drop, or tells nothing.
pub(crate) fn open(key: &Secret<32>, place: Place, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(vec![0; sealed.len().checked_sub(SEAL_OVERHEAD)?]);
    open_into(key, place, sealed, &mut out).then_some(out)
}

/// Applies the tagless outer keystream to `bytes`, in place: its own inverse.
pub(crate) fn apply_keystream(key: &Secret<32>, nonce: &[u8; NONCE_LEN], bytes: &mut [u8]) {
    work::layered(bytes.len());
    XChaCha20::new(key.expose().into(), nonce.into()).apply_keystream(bytes);
}

/// Random bytes from a seed: an XChaCha20 keystream. For the many nonces of a volume, whose database calls
/// back without a generator, and for filling a container three times faster than the system's generator.
pub(crate) struct FillRng(XChaCha20);

impl FillRng {
    /// Draws the seed from `rng`; the seed is wiped.
    pub(crate) fn seeded(rng: &mut dyn CryptoRng) -> Self {
        let key = Secret::<32>::filled(|bytes| rng.fill_bytes(bytes));
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        Self(XChaCha20::new(key.expose().into(), &nonce.into()))
    }
}

impl RngCore for FillRng {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(0);
        // The stream is 256 GiB long: sixteen of the largest containers, or the nonces of 40 TiB of pages.
        self.0.apply_keystream(out);
    }
}

impl CryptoRng for FillRng {}

/// A random index below `bound`, without bias. `bound` is small and not zero.
pub(crate) fn random_below(bound: usize, rng: &mut dyn CryptoRng) -> usize {
    let bound = u32::try_from(bound).unwrap_or(u32::MAX).max(1);
    let limit = u32::MAX - u32::MAX % bound;
    loop {
        let drawn = rng.next_u32();
        if drawn < limit {
            return usize::try_from(drawn % bound).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn key() -> Secret<32> {
        Secret::filled(|bytes| bytes.fill(3))
    }

    #[test]
    fn sealed_bytes_open_only_in_their_place() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let sealed = seal(&key(), Place::copy_of(5, 1), b"hello", &mut rng);
        assert_eq!(open(&key(), Place::copy_of(5, 1), &sealed).unwrap().as_slice(), b"hello");
        assert!(open(&key(), Place::copy_of(5, 0), &sealed).is_none());
        assert!(open(&key(), Place::copy_of(6, 1), &sealed).is_none());
        assert!(open(&key(), Place::single(5), &sealed).is_none());
        assert!(open(&Secret::filled(|bytes| bytes.fill(4)), Place::copy_of(5, 1), &sealed).is_none());
    }

    #[test]
    fn any_flipped_bit_is_refused_and_leaves_no_plaintext() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let sealed = seal(&key(), Place::single(0), b"hello", &mut rng);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut out = [9; 5];
            assert!(!open_into(&key(), Place::single(0), &damaged, &mut out));
            assert_eq!(out, [0; 5]);
        }
        assert!(open(&key(), Place::single(0), &sealed[..39]).is_none());
        assert!(open(&key(), Place::single(0), &[]).is_none());
    }

    #[test]
    fn equal_contents_never_look_equal() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let one = seal(&key(), Place::single(0), &[0; 64], &mut rng);
        let two = seal(&key(), Place::single(0), &[0; 64], &mut rng);
        assert_ne!(one[NONCE_LEN..], two[NONCE_LEN..]);
    }

    #[test]
    fn draws_below_a_bound_reach_every_value_and_no_other() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[random_below(5, &mut rng)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 130), "{seen:?}");
    }
}
