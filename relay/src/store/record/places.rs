//! What is remembered of envelopes for retries, and when it goes.
//!
//! A place is remembered for as long as its envelope is there, and after that until the envelope's age is the retention or
//! [`REMEMBERED`] later ones came, whichever is first: who appends and takes again and again leaves a bounded number of them. Finding
//! those that outlived their use means walking over all of a mailbox's, so it is done when as many were taken, or when it was closed:
//! a record ([`Leftover`]) says of which, and how far it came.

use lapwing_wire::{
    frame::{Seq, Stored},
    ids::{EnvelopeId, RunningHash},
};

use super::{Born, Day, Reader, StoreError};

/// Numbers of a mailbox, up to the newest, that are remembered for retries also when their envelopes were taken. Whoever sends
/// again after more others came has it stored twice, and the reader's session drops the second.
pub(crate) const REMEMBERED: u32 = 4096;

/// What is remembered of an envelope for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) id: EnvelopeId,
    pub(crate) place: Stored,
    pub(crate) day: Day,
    pub(crate) length: u32,
}

impl Placed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { id, place: Stored { seq, hash }, day, length } = self;
        let mut out = Vec::with_capacity(80);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&seq.value().to_be_bytes());
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(&day.0.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(bytes);
        let placed = Self {
            id: EnvelopeId::from_bytes(rest.array()?),
            place: Stored { seq: Seq::new(rest.number()?), hash: RunningHash::from_bytes(rest.array()?) },
            day: Day(u32::from_be_bytes(rest.array()?)),
            length: u32::from_be_bytes(rest.array()?),
        };
        rest.end()?;
        Ok(placed)
    }

    /// Whether so many later ones came that it is not remembered when its envelope is gone.
    pub(crate) fn is_outlived(&self, newest: Seq) -> bool {
        self.place.seq.value().saturating_add(u64::from(REMEMBERED)) <= newest.value()
    }
}

/// Kind of the keys of [`Leftover`]s.
pub(crate) const LEFTOVERS: u8 = b'j';

/// How far the places of a mailbox were looked over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// Whether they are to be looked over once more, because more was taken meanwhile.
    pub(crate) is_again: bool,
    /// Later numbers than this are not looked at: in a sink they count what it would hold.
    pub(crate) limit: Seq,
    /// Part of the id of the last place that was looked at; empty at the beginning.
    pub(crate) upto: Vec<u8>,
}

impl Default for Leftover {
    fn default() -> Self {
        Self { is_again: false, limit: Seq::new(u64::MAX), upto: Vec::new() }
    }
}

impl Leftover {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { is_again, limit, upto } = self;
        [&[u8::from(*is_again)][..], &limit.value().to_be_bytes(), upto].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(bytes);
        let is_again = rest.flag()?;
        let limit = Seq::new(rest.number()?);
        if rest.0.len() > super::key::ID_PREFIX {
            return Err(StoreError::Damaged);
        }
        Ok(Self { is_again, limit, upto: rest.0.to_vec() })
    }
}

/// The key of a mailbox's leftover.
pub(crate) fn leftover_key(born: Born) -> Vec<u8> {
    [&[LEFTOVERS][..], &born.0.to_be_bytes()].concat()
}
