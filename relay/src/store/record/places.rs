//! What is remembered of envelopes for retries, and when it goes.
//!
//! A place is remembered for as long as its envelope is there, and after that until the envelope's age is the retention or
//! [`REMEMBERED`] later ones came, whichever is first: who appends and takes again and again leaves a bounded number of them. Finding
//! those that outlived their use means walking over all of a mailbox's, so it is done when as many were taken, or when it was closed:
//! a record ([`Leftover`]) says of which.

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

/// Why the places of a mailbox are to be walked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// Many envelopes were taken.
    Taken,
    /// It is not there any more.
    Closed,
}

impl Leftover {
    pub(crate) fn encode(self) -> Vec<u8> {
        vec![match self {
            Self::Taken => 0,
            Self::Closed => 1,
        }]
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        match bytes {
            [0] => Ok(Self::Taken),
            [1] => Ok(Self::Closed),
            _ => Err(StoreError::Damaged),
        }
    }
}

/// The key of a mailbox's leftover.
pub(crate) fn leftover_key(born: Born) -> Vec<u8> {
    [&[LEFTOVERS][..], &born.0.to_be_bytes()].concat()
}
