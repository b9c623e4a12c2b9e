//! Values that are sealed at rest: all of the bulk space.
//!
//! ```text
//! value    slot u32 | nonce 12 | what is not sealed | what is sealed
//! ```
//! The nonce is drawn anew whenever a value is sealed. A number comes again after a commit that failed, or after a crash:
//! under one key and one nonce the engine's files could then hold two values whose difference is that of their contents.

use lapwing_wire::frame::Seq;

use super::{Day, Reader, RunningHash, Slot, StoreError, key, version_in};

const NONCE: usize = 12;
/// Head of every value that is sealed.
pub(crate) const SEAL_HEAD: usize = 4 + NONCE;
/// Head of a stored envelope: everything but its bytes.
pub(crate) const ENVELOPE_HEAD: usize = SEAL_HEAD + 4 + 32;

/// Drawn for each sealing.
pub(crate) type Nonce = [u8; NONCE];

/// The nonce of what is not sealed yet; none is ever drawn like it.
pub(crate) const UNSEALED: Nonce = [0; NONCE];

/// What a value is sealed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Where its keys lie.
    pub(crate) slot: Slot,
    /// Which of them.
    pub(crate) number: u64,
    pub(crate) nonce: Nonce,
    /// Where what is sealed begins.
    pub(crate) head: usize,
}

impl Seal {
    /// As a value and its key say.
    pub(crate) fn of(name: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(value);
        let slot = Slot(u32::from_be_bytes(rest.array()?));
        let nonce = rest.array()?;
        let (number, head) = if key::is_envelope(name) {
            (key::seq_in(name).map(Seq::value).ok_or(StoreError::Damaged)?, ENVELOPE_HEAD)
        } else {
            (version_in(name).unwrap_or(0), SEAL_HEAD)
        };
        if value.len() < head {
            return Err(StoreError::Damaged);
        }
        Ok(Self { slot, number, nonce, head })
    }
}

/// Puts the nonce into a value's head.
pub(crate) fn set_nonce(value: &mut [u8], nonce: &Nonce) -> Result<(), StoreError> {
    value.get_mut(4..SEAL_HEAD).ok_or(StoreError::Damaged)?.copy_from_slice(nonce);
    Ok(())
}

pub(crate) fn encode_envelope(slot: Slot, day: Day, hash: &RunningHash, envelope: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENVELOPE_HEAD + envelope.len());
    out.extend_from_slice(&slot.0.to_be_bytes());
    out.extend_from_slice(&UNSEALED);
    out.extend_from_slice(&day.0.to_be_bytes());
    out.extend_from_slice(hash.as_bytes());
    out.extend_from_slice(envelope);
    out
}

pub(crate) fn decode_envelope(bytes: &[u8]) -> Result<(Day, RunningHash, &[u8]), StoreError> {
    let mut rest = Reader(bytes);
    rest.array::<SEAL_HEAD>()?;
    let day = Day(u32::from_be_bytes(rest.array()?));
    let hash = RunningHash::from_bytes(rest.array()?);
    Ok((day, hash, rest.0))
}

/// A value of which everything is sealed.
pub(crate) fn encode_part(slot: Slot, part: &[u8]) -> Vec<u8> {
    [&slot.0.to_be_bytes()[..], &UNSEALED, part].concat()
}

pub(crate) fn decode_part(bytes: &[u8]) -> Result<&[u8], StoreError> {
    bytes.get(SEAL_HEAD..).ok_or(StoreError::Damaged)
}

/// The slot of a sealed value.
pub(crate) fn slot_in(value: &[u8]) -> Result<Slot, StoreError> {
    Ok(Slot(u32::from_be_bytes(Reader(value).array()?)))
}
