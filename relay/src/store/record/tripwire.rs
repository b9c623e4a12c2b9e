//! Tripwires as they are kept.
//!
//! A deadline is a point of the relay's own running time ([`Running`]), which moves while the relay runs and by nothing else.

use lapwing_wire::{
    capability::{Access, PublicKey, TripwireOwner},
    ids::{AnchorId, TripwireId},
    sharing::Share,
    tripwire::{Came, Lookup, Voice},
};
use serde::{Deserialize, Serialize};

use super::{Day, Reader, StoreError};

/// Where the running time is kept.
pub(crate) const RUNNING: &[u8] = b"u";
/// Where a walk over all tripwires is kept, as long as there is one: their deadlines are in them too.
pub(crate) const WALK: &[u8] = b"uw";
const DUE: u8 = b'q';
pub(crate) const LIST: u8 = b'l';
const LINK: u8 = b'o';

/// The relay's running time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// Milliseconds.
    pub(crate) now: u64,
    /// What was to come until then has come: whoever looks begins here, and never walks over what is gone.
    pub(crate) done: u64,
    /// Deadlines that have not come.
    pub(crate) waiting: u64,
}

impl Running {
    pub(crate) fn encode(self) -> Vec<u8> {
        let Self { now, done, waiting } = self;
        [now, done, waiting].map(u64::to_be_bytes).concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(bytes);
        let running = Self { now: rest.number()?, done: rest.number()?, waiting: rest.number()? };
        rest.end()?;
        Ok(running)
    }
}

/// A walk: until when what it looks for was to come, and where it goes on.
pub(crate) fn encode_walk(upto: u64, is_damaged: bool, next: &[u8]) -> Vec<u8> {
    [&upto.to_be_bytes()[..], &[u8::from(is_damaged)], next].concat()
}

pub(crate) fn decode_walk(bytes: &[u8]) -> Result<(u64, bool, Vec<u8>), StoreError> {
    let mut rest = Reader(bytes);
    Ok((rest.number()?, rest.flag()?, rest.0.to_vec()))
}

/// What sets off one of a tripwire's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    Token,
    Alerting,
    Destroying,
    Quorum,
    Frozen,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] =
        [Self::Token, Self::Alerting, Self::Destroying, Self::Quorum, Self::Frozen];

    const fn byte(self) -> u8 {
        match self {
            Self::Token => 0,
            Self::Alerting => 1,
            Self::Destroying => 2,
            Self::Quorum => 3,
            Self::Frozen => 4,
        }
    }
}

/// A tripwire's state; its records and its lists have keys of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tripwire {
    pub(crate) owner: PublicKey<TripwireOwner>,
    pub(crate) serial: u64,
    #[serde(with = "serde_bytes")]
    pub(crate) digest: [u8; 32],
    /// Whether a token set off its list.
    pub(crate) fired: bool,
    /// Which other causes came.
    pub(crate) came: Came,
    /// In the order of their keys; `None` once a record has fired and is deleted.
    pub(crate) records: Vec<Option<Lookup>>,
    /// Deadlines that have not come.
    pub(crate) dues: Vec<Due>,
    pub(crate) quorum: Option<Voices>,
    /// The anchor whose freezing it tells, until it has.
    pub(crate) anchor: Option<AnchorId>,
    /// Lists that were not run, and what each costs.
    pub(crate) lists: Vec<(Cause, u64)>,
    pub(crate) charged: u64,
    pub(crate) access: Option<PublicKey<Access>>,
}

/// A deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Due {
    pub(crate) cause: Cause,
    /// Milliseconds that the owner's token may stay away.
    pub(crate) after: u64,
    /// When it comes, in running time.
    pub(crate) at: u64,
}

/// A quorum: who may speak, and who has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Voices {
    pub(crate) threshold: u8,
    pub(crate) voices: Vec<Voice>,
    pub(crate) raised: Vec<Raised>,
}

/// A voice that was raised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Raised {
    pub(crate) voice: Voice,
    pub(crate) share: Share,
    pub(crate) day: Day,
}

/// Keys: `l` tripwire 32 | cause u8.
pub(crate) fn list_key(id: &TripwireId, cause: Cause) -> Vec<u8> {
    [&[LIST][..], id.as_bytes(), &[cause.byte()]].concat()
}

/// Keys: `q` running time u64 | tripwire 32 | cause u8.
pub(crate) fn due_key(at: u64, id: &TripwireId, cause: Cause) -> Vec<u8> {
    [&[DUE][..], &at.to_be_bytes(), id.as_bytes(), &[cause.byte()]].concat()
}

/// First and last possible key of deadlines that come from one time to another, both included.
pub(crate) fn dues_between(from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
    ([&[DUE][..], &from.to_be_bytes()].concat(), [&[DUE][..], &to.to_be_bytes(), &[0xff; 34]].concat())
}

/// What a deadline's key says.
pub(crate) fn due_in(key: &[u8]) -> Result<(u64, TripwireId, Cause), StoreError> {
    let parse = || {
        let (at, rest) = key.get(1..)?.split_first_chunk::<8>()?;
        let (id, cause) = rest.split_first_chunk::<32>()?;
        let cause = Cause::ALL.into_iter().find(|known| cause == [known.byte()])?;
        Some((u64::from_be_bytes(*at), TripwireId::from_bytes(*id), cause))
    };
    parse().ok_or(StoreError::Damaged)
}

/// Keys: `o` anchor 32 | tripwire 32.
pub(crate) fn link_key(anchor: &AnchorId, id: &TripwireId) -> Vec<u8> {
    [&[LINK][..], anchor.as_bytes(), id.as_bytes()].concat()
}

/// First and last possible key of the tripwires that tell when an anchor freezes.
pub(crate) fn links_of(anchor: &AnchorId) -> (Vec<u8>, Vec<u8>) {
    let first = [&[LINK][..], anchor.as_bytes()].concat();
    let last = [&first[..], &[0xff; 33]].concat();
    (first, last)
}

/// The tripwire in such a key.
pub(crate) fn linked_in(key: &[u8]) -> Result<TripwireId, StoreError> {
    let id = key.get(33..65).and_then(|id| id.try_into().ok()).ok_or(StoreError::Damaged)?;
    Ok(TripwireId::from_bytes(id))
}
