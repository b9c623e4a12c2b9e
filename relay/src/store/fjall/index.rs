//! Values of the index: small ones as they are, of large ones the head and where the rest lies.
//!
//! ```text
//! bulk space    0 | value                                              small
//!               1 | segment u32 | offset u32 | length u32 | check u32 | head      large: the rest lies in `values`
//!               'p' segment u32  ->  0 | bytes of the segment that are needed u64
//! state space   value
//! ```

use super::super::{
    StoreError,
    record::{ENVELOPE_HEAD, SEAL_HEAD, key},
    values::{Body, Draft, Place},
};

/// Least bytes that are worth a place of their own: the index moves what it holds again and again.
const LARGE: usize = 256;
const WHOLE: u8 = 0;
const APART: u8 = 1;
const BODY: usize = 1 + 16;
const NEEDED: u8 = b'p';

/// A value of the bulk space as the index has it.
pub(super) enum Indexed<'a> {
    Whole(&'a [u8]),
    Apart { head: &'a [u8], body: Body },
}

/// Puts a value's body into a record, if it is large; what the index is to have.
pub(super) fn encode(draft: &mut Draft, name: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
    let head = if key::is_envelope(name) { ENVELOPE_HEAD } else { SEAL_HEAD };
    match value.split_at_checked(head) {
        Some((head, rest)) if rest.len() >= LARGE => {
            let Body { place: Place { segment, offset }, length, check } = draft.body(rest)?;
            let mut out = Vec::with_capacity(BODY + head.len());
            out.push(APART);
            for number in [segment, offset, length, check] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(head);
            Ok(out)
        }
        _ => Ok([&[WHOLE], value].concat()),
    }
}

pub(super) fn decode(value: &[u8]) -> Result<Indexed<'_>, StoreError> {
    match value.split_first() {
        Some((&WHOLE, value)) => Ok(Indexed::Whole(value)),
        Some((&APART, rest)) => {
            let (numbers, head) = rest.split_first_chunk::<{ BODY - 1 }>().ok_or(StoreError::Damaged)?;
            let mut numbers = numbers.as_chunks::<4>().0.iter().map(|number| u32::from_be_bytes(*number));
            let mut next = || numbers.next().ok_or(StoreError::Damaged);
            let place = Place { segment: next()?, offset: next()? };
            Ok(Indexed::Apart { head, body: Body { place, length: next()?, check: next()? } })
        }
        _ => Err(StoreError::Damaged),
    }
}

/// The body that a value of the index names.
pub(super) fn body_in(value: &[u8]) -> Result<Option<Body>, StoreError> {
    match decode(value)? {
        Indexed::Whole(_) => Ok(None),
        Indexed::Apart { head: _, body } => Ok(Some(body)),
    }
}

/// Where it says how much of a segment is needed.
pub(super) fn needed_key(segment: u32) -> [u8; 5] {
    let [a, b, c, d] = segment.to_be_bytes();
    [NEEDED, a, b, c, d]
}

/// First and last possible key of those.
pub(super) const ALL_NEEDED: ([u8; 5], [u8; 5]) = ([NEEDED, 0, 0, 0, 0], [NEEDED, 0xff, 0xff, 0xff, 0xff]);

pub(super) fn encode_needed(bytes: u64) -> Vec<u8> {
    [&[WHOLE][..], &bytes.to_be_bytes()].concat()
}

pub(super) fn decode_needed(key: &[u8], value: &[u8]) -> Result<(u32, u64), StoreError> {
    let number = key.get(1..).and_then(|number| number.try_into().ok()).ok_or(StoreError::Damaged)?;
    let bytes = value.get(1..).and_then(|bytes| bytes.try_into().ok()).ok_or(StoreError::Damaged)?;
    Ok((u32::from_be_bytes(number), u64::from_be_bytes(bytes)))
}
