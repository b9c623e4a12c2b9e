//! What is kept, as types and as bytes.
//!
//! ```text
//! space  key                                        value
//! bulk   'e' born u64 | seq u64                     slot u32 | nonce 12 | day u32 | running hash 32 | sealed envelope
//! bulk   'b' blob 32 | offset u64                   slot u32 | nonce 12 | sealed part
//! state  'm' mailbox 32                             keys 96 | kind | sink | born u64 | slot u32 | access key 0 or 32
//! state  'n' born u64                               head u64 | newest u64 | running hash 32 | bytes u64 | reserved u64 | taken u32
//! state  'i' born u64 | envelope id 11              envelope id 32 | seq u64 | running hash 32 | day u32 | length u32
//! state  'j' born u64                               again 0 or 1 | limit u64 | up to envelope id 0 to 11: places to be looked over
//! state  's' born u64                               mailbox 32, for sinks only
//! state  'a' access key 32                          CBOR Ticket
//! state  'h' blob 32                                CBOR Blob
//! state  'w' tripwire 32                            CBOR Tripwire
//! bulk   'l' tripwire 32 | cause u8                 slot u32 | nonce 12 | sealed list, or sealed CBOR [ACTION]
//! state  'q' running time u64 | tripwire 32 | cause u8   a deadline
//! state  'u'                                        running time u64, in milliseconds | done u64 | waiting u64
//! state  'u' 'w'                                    running time u64 | damaged | key: deadlines until then are looked for in tripwires, from there
//! state  'o' anchor 32 | tripwire 32                the tripwire tells when the anchor freezes
//! state  'x' anchor 32                              CBOR Anchor
//! state  'y'                                        slots of anchors ever used u32
//! state  'y' 'n'                                    free slots of anchors u32; not there before one was freed
//! state  'y' 'f' place u32                          free slot of an anchor u32: a stack
//! state  'y' 't' anchor 32                          not all tripwires could tell that the anchor froze
//! bulk   'k' anchor 32 | version u64                slot u32 | nonce 12 | sealed CBOR Secrets
//! bulk   'r' lookup 32 | tripwire 32 | index u8     slot u32 | nonce 12 | sealed record
//! state  'c'                                        CBOR RetentionClock
//! state  'g'                                        slots ever used u32 | free slots u32
//! state  'f' place u32                              free slot u32: a stack
//! state  'd' slot u32                               number u64: keys before it are to be forgotten; all for the greatest
//! state  'v'                                        the version of the engine's store
//! state  'z'                                        32 random bytes, rewritten with every token and trigger
//! ```
//! All integers are big-endian. The moving part 'n' is written with every change but most appends: whoever loads it goes
//! on over the envelopes above its newest number (`Mailbox::pass`), at most `MAX_UNWRITTEN` and 64 KiB of them.
//!
//! Slots are those of the key file (`keys`); a store in memory seals nothing. What lies in the bulk space is sealed (`sealed`).
//!
//! The keys that every append writes have at most 20 bytes: the engine keeps such keys
//! inside the nodes of its index, which saves a cache miss at each comparison. `born`, which is random and belongs to one
//! life of one mailbox, stands for its id there.

mod anchor;
mod places;
mod sealed;
mod ticket;
mod tripwire;

use std::time::Duration;

use lapwing_wire::{
    capability::{Access, Admin, PublicKey, Read, Write},
    codec,
    frame::{MailboxKind, Seq},
    ids::{BlobHash, EnvelopeId, MailboxId, RunningHash, TripwireId},
    limits::MAX_ACTION_LIST,
    time::Timestamp,
    tripwire::{Action, Lookup},
};
use serde::{Deserialize, Serialize};

use super::{StoreError, keys::Slot, tables::Value};

pub use anchor::is_of_an_anchor;
pub(crate) use anchor::{
    ANCHOR_SLOTS, ANCHORS, Anchor, Evaluation, FREE_ANCHOR_SLOTS, Secrets, Shown, Staged, anchor_key,
    free_anchor_key, free_anchor_keys, secrets_key, untold_key, version_in,
};
pub(crate) use places::{LEFTOVERS, Leftover, Placed, REMEMBERED, leftover_key};
pub(crate) use sealed::{
    ENVELOPE_HEAD, SEAL_HEAD, Seal, UNSEALED, decode_envelope, decode_part, encode_envelope, encode_part,
    set_nonce, slot_in,
};
pub use ticket::Ticket;
pub(crate) use tripwire::{
    Cause, Due, RUNNING, Raised, Running, Tripwire, Voices, WALK, decode_walk, due_in, due_key, dues_between,
    encode_walk, link_key, linked_in, links_of, list_key,
};

/// Longest CBOR record.
const MAX_RECORD: usize = 16 << 10;
/// Kinds of what has a slot of its own in the bulk space, and no record that says so.
pub(crate) const ALONE: [u8; 2] = [tripwire::LIST, key::RECORDS];
const DAY_MS: u64 = 24 * 3600 * 1000;
/// By how many days one tick moves the retention clock at most: a clock that jumps, as it does on a board without
/// a battery, must not expire everything at once. A relay that was off for longer keeps things for longer.
const MAX_TICK_DAYS: u32 = 2;
/// Looks, of which there is one an hour and two at each start, at which a wall clock that went back is believed: until then its
/// coming right again is no time that has passed. Such a board starts in the past whenever its power fails.
const MAX_BEHIND: u8 = 100;

/// A day of the relay's own retention clock. Nothing finer is kept about when something came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(u32);

impl Day {
    /// Day `n`.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// This day moved back by a span, rounded up to whole days; stays at the first day.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let days = span.as_millis().div_ceil(u128::from(DAY_MS));
        Self(self.0.saturating_sub(u32::try_from(days).unwrap_or(u32::MAX)))
    }
}

/// Tells a mailbox from an earlier one with the same id. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Born(u64);

impl Born {
    /// With this number.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The number.
    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

/// The three keys of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxKeys {
    /// Closes; its hash is the id.
    pub admin: PublicKey<Admin>,
    /// Reads and acknowledges.
    pub read: PublicKey<Read>,
    /// Appends.
    pub write: PublicKey<Write>,
}

/// A mailbox's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Its keys.
    pub keys: MailboxKeys,
    /// Queue or log.
    pub kind: MailboxKind,
    /// Answers as before and keeps nothing.
    pub sink: bool,
    /// Tells it from an earlier one of the same id.
    pub born: Born,
    /// No live envelope has a lower number; reads start here, and walk over no more of what was deleted than a selective
    /// acknowledgement reaches.
    pub head: Seq,
    /// Number of the newest envelope.
    pub newest: Seq,
    /// Running hash after it.
    pub hash: RunningHash,
    /// Bytes of envelopes that are charged to it.
    pub bytes: u64,
    /// Bytes of its reserve that are in use.
    pub reserved: u64,
    /// Envelopes that were taken since its places were last to be looked over.
    pub(crate) taken: u32,
    /// The access ticket whose quota it uses.
    pub access: Option<PublicKey<Access>>,
    /// Where its keys lie.
    pub(crate) slot: Slot,
}

impl Mailbox {
    /// What is set at creation, and `sink`.
    pub(crate) fn encode_fixed(&self) -> Vec<u8> {
        let Self {
            keys,
            kind,
            sink,
            born,
            slot,
            access,
            head: _,
            newest: _,
            hash: _,
            bytes: _,
            reserved: _,
            taken: _,
        } = self;
        let MailboxKeys { admin, read, write } = keys;
        let mut out = Vec::with_capacity(143);
        out.extend_from_slice(admin.as_bytes());
        out.extend_from_slice(read.as_bytes());
        out.extend_from_slice(write.as_bytes());
        out.push(match kind {
            MailboxKind::Queue => 0,
            MailboxKind::Log => 1,
        });
        out.push(u8::from(*sink));
        out.extend_from_slice(&born.0.to_be_bytes());
        out.extend_from_slice(&slot.0.to_be_bytes());
        out.push(u8::from(access.is_some()));
        if let Some(key) = access {
            out.extend_from_slice(key.as_bytes());
        }
        out
    }

    /// What moves with every append.
    pub(crate) fn encode_moving(&self) -> Vec<u8> {
        let Self {
            head,
            newest,
            hash,
            bytes,
            reserved,
            taken,
            keys: _,
            kind: _,
            sink: _,
            born: _,
            slot: _,
            access: _,
        } = self;
        let mut out = Vec::with_capacity(68);
        out.extend_from_slice(&head.value().to_be_bytes());
        out.extend_from_slice(&newest.value().to_be_bytes());
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(&bytes.to_be_bytes());
        out.extend_from_slice(&reserved.to_be_bytes());
        out.extend_from_slice(&taken.to_be_bytes());
        out
    }

    /// The birth in a fixed part: it leads to the moving part.
    pub(crate) fn born_in(fixed: &[u8]) -> Result<Born, StoreError> {
        let bytes = fixed.get(98..106).and_then(|bytes| bytes.try_into().ok()).ok_or(StoreError::Damaged)?;
        Ok(Born(u64::from_be_bytes(bytes)))
    }

    pub(crate) fn decode(fixed: &[u8], moving: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(fixed);
        let keys = MailboxKeys {
            admin: PublicKey::from_bytes(rest.array()?),
            read: PublicKey::from_bytes(rest.array()?),
            write: PublicKey::from_bytes(rest.array()?),
        };
        let kind = match rest.array::<1>()? {
            [0] => MailboxKind::Queue,
            [1] => MailboxKind::Log,
            _ => return Err(StoreError::Damaged),
        };
        let sink = rest.flag()?;
        let born = Born(rest.number()?);
        let slot = Slot(u32::from_be_bytes(rest.array()?));
        let access = if rest.flag()? { Some(PublicKey::from_bytes(rest.array()?)) } else { None };
        rest.end()?;
        let mut rest = Reader(moving);
        let head = Seq::new(rest.number()?);
        let newest = Seq::new(rest.number()?);
        let hash = RunningHash::from_bytes(rest.array()?);
        let bytes = rest.number()?;
        let reserved = rest.number()?;
        // Formats before 8 did not count it.
        let taken = if rest.0.is_empty() { 0 } else { u32::from_be_bytes(rest.array()?) };
        rest.end()?;
        Ok(Self { keys, kind, sink, born, head, newest, hash, bytes, reserved, taken, access, slot })
    }

    /// Head and newest number in a moving part.
    pub(crate) fn bounds_in(moving: &[u8]) -> Result<(Seq, Seq), StoreError> {
        let mut rest = Reader(moving);
        Ok((Seq::new(rest.number()?), Seq::new(rest.number()?)))
    }

    /// As it was made, where what moves cannot be read.
    pub(crate) fn of_fixed(fixed: &[u8]) -> Result<Self, StoreError> {
        let (head, newest, hash) = (Seq::START.next(), Seq::START, RunningHash::START);
        let moving =
            [&head.value().to_be_bytes()[..], &newest.value().to_be_bytes(), hash.as_bytes(), &[0; 16]];
        Self::decode(fixed, &moving.concat())
    }

    /// Goes on over all numbers that may have been given since the moving part was written, where that cannot be read.
    pub(crate) fn pass_all_unwritten(&mut self) {
        let written = self.newest.value() / MAX_UNWRITTEN;
        self.newest = Seq::new(written.saturating_add(1).saturating_mul(MAX_UNWRITTEN).saturating_sub(1));
    }

    /// Whether the moving part is written with the append that made it what it is. A sink keeps no envelope from which it
    /// could be found.
    pub(crate) fn is_written(&self, length: u64) -> bool {
        self.sink || length > MAX_UNWRITTEN_BYTES || self.newest.value().is_multiple_of(MAX_UNWRITTEN)
    }

    /// Goes on over a stored envelope above the newest number.
    pub(crate) fn pass(&mut self, key: &[u8], value: &Value<'_>) -> Result<(), StoreError> {
        let (_, hash, _) = decode_envelope(value.head())?;
        self.newest = key::seq_in(key).ok_or(StoreError::Damaged)?;
        self.hash = hash;
        self.bytes = self.bytes.saturating_add(envelope_length(value.length()));
        Ok(())
    }
}

/// Bytes of the envelope in a stored value of a length.
pub(crate) fn envelope_length(value: usize) -> u64 {
    u64::try_from(value.saturating_sub(ENVELOPE_HEAD)).unwrap_or(u64::MAX)
}

/// Every so many appends write the moving part, and every append of more bytes than the second: together they bound what
/// loading a mailbox reads.
const MAX_UNWRITTEN: u64 = 16;
const MAX_UNWRITTEN_BYTES: u64 = 4096;

/// A blob's state; its parts lie in the bulk space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) total: u64,
    pub(crate) stored: u64,
    pub(crate) complete: bool,
    pub(crate) day: Day,
    pub(crate) access: Option<PublicKey<Access>>,
    pub(crate) slot: Slot,
}

/// How slots are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Numbers below were used.
    pub(crate) used: u32,
    /// Height of the stack of free ones.
    pub(crate) free: u32,
}

impl Slots {
    pub(crate) fn encode(self) -> Vec<u8> {
        let Self { used, free } = self;
        [used.to_be_bytes(), free.to_be_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(bytes);
        let used = u32::from_be_bytes(rest.array()?);
        let free = u32::from_be_bytes(rest.array()?);
        rest.end()?;
        Ok(Self { used, free })
    }
}

/// The number of a `y` or `yn` record.
pub(crate) fn decode_count(bytes: &[u8]) -> Result<u32, StoreError> {
    let mut rest = Reader(bytes);
    let count = u32::from_be_bytes(rest.array()?);
    rest.end()?;
    Ok(count)
}

/// The number of a `d` record: keys before it are to be forgotten.
pub(crate) fn decode_due(bytes: &[u8]) -> Result<u64, StoreError> {
    Reader(bytes).number()
}

/// The relay's own count of days, moved by ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetentionClock {
    wall_day: u64,
    day: Day,
    /// Looks at a wall clock that stood before `wall_day`.
    #[serde(default)]
    behind: u8,
}

impl RetentionClock {
    pub(crate) const fn start(now: Timestamp) -> Self {
        Self { wall_day: now.as_millis() / DAY_MS, day: Day(1), behind: 0 }
    }

    pub(crate) const fn day(&self) -> Day {
        self.day
    }

    /// The clock after a look at the wall: it never goes back, and forward by a bounded step.
    pub(crate) fn tick(self, now: Timestamp) -> Self {
        let wall_day = now.as_millis() / DAY_MS;
        if wall_day < self.wall_day && self.behind < MAX_BEHIND {
            return Self { wall_day: self.wall_day, day: self.day, behind: self.behind + 1 };
        }
        let passed = u32::try_from(wall_day.saturating_sub(self.wall_day)).unwrap_or(u32::MAX);
        let day = Day(self.day.0.saturating_add(passed.min(MAX_TICK_DAYS)));
        // A board that is started anew every few days, in the same past, may never see a later day: its looks go on being counted.
        let behind = if passed > 0 || wall_day < self.wall_day { 0 } else { self.behind };
        Self { wall_day, day, behind }
    }
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes, MAX_RECORD).map_err(|_| StoreError::Damaged)
}

/// A list that the relay reads.
pub(crate) fn decode_list(bytes: &[u8]) -> Result<Vec<Action>, StoreError> {
    codec::decode(bytes, MAX_ACTION_LIST).map_err(|_| StoreError::Damaged)
}

/// Keys of the table above.
pub(crate) mod key {
    use super::{Access, BlobHash, Born, EnvelopeId, Lookup, MailboxId, PublicKey, Seq, Slot, TripwireId};

    pub(crate) const CLOCK: &[u8] = b"c";
    pub(crate) const VERSION: &[u8] = b"v";
    pub(crate) const FILLER: &[u8] = b"z";
    pub(crate) const SLOTS: &[u8] = b"g";
    pub(crate) const DUE: u8 = b'd';
    pub(crate) const MAILBOXES: u8 = b'm';
    const MOVING: u8 = b'n';
    pub(crate) const PLACES: u8 = b'i';
    /// Bytes of an envelope's id in its key; the value has all of it.
    pub(super) const ID_PREFIX: usize = 11;
    pub(crate) const TICKETS: u8 = b'a';
    pub(crate) const BLOBS: u8 = b'h';
    pub(crate) const RECORDS: u8 = b'r';
    pub(crate) const TRIPWIRES: u8 = b'w';

    fn joined(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        out.push(kind);
        for part in parts {
            out.extend_from_slice(part);
        }
        out
    }

    pub(crate) fn envelope(born: Born, seq: Seq) -> Vec<u8> {
        joined(b'e', &[&born.0.to_be_bytes(), &seq.value().to_be_bytes()])
    }

    pub(crate) fn mailbox(id: &MailboxId) -> Vec<u8> {
        joined(MAILBOXES, &[id.as_bytes()])
    }

    pub(crate) fn moving(born: Born) -> Vec<u8> {
        joined(MOVING, &[&born.0.to_be_bytes()])
    }

    pub(crate) fn sink(born: Born) -> Vec<u8> {
        joined(b's', &[&born.0.to_be_bytes()])
    }

    pub(crate) fn place(born: Born, id: &EnvelopeId) -> Vec<u8> {
        let prefix = id.as_bytes().get(..ID_PREFIX).unwrap_or_default();
        joined(PLACES, &[&born.0.to_be_bytes(), prefix])
    }

    /// First and last possible key of a mailbox's places, behind one whose part of the id is `after`.
    pub(crate) fn places(born: Born, after: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let first = joined(PLACES, &[&born.0.to_be_bytes(), after]);
        let last = joined(PLACES, &[&born.0.to_be_bytes(), &[0xff; ID_PREFIX]]);
        (if after.is_empty() { first } else { super::super::damage::after(&first) }, last)
    }

    /// The part of the id in the key of a place.
    pub(crate) fn id_prefix_in(key: &[u8]) -> &[u8] {
        key.get(9..).unwrap_or_default()
    }

    pub(crate) fn ticket(key: &PublicKey<Access>) -> Vec<u8> {
        joined(TICKETS, &[key.as_bytes()])
    }

    pub(crate) fn blob(hash: &BlobHash) -> Vec<u8> {
        joined(BLOBS, &[hash.as_bytes()])
    }

    pub(crate) fn part(hash: &BlobHash, offset: u64) -> Vec<u8> {
        joined(b'b', &[hash.as_bytes(), &offset.to_be_bytes()])
    }

    pub(crate) fn free(place: u32) -> Vec<u8> {
        joined(b'f', &[&place.to_be_bytes()])
    }

    pub(crate) fn due(slot: Slot) -> Vec<u8> {
        joined(DUE, &[&slot.0.to_be_bytes()])
    }

    /// The slot in the key of a `d` record.
    pub(crate) fn slot_in(key: &[u8]) -> Option<Slot> {
        Some(Slot(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)))
    }

    pub(crate) fn tripwire(id: &TripwireId) -> Vec<u8> {
        joined(TRIPWIRES, &[id.as_bytes()])
    }

    pub(crate) fn record(lookup: &Lookup, id: &TripwireId, index: u8) -> Vec<u8> {
        joined(RECORDS, &[lookup.as_bytes(), id.as_bytes(), &[index]])
    }

    /// First and last possible key of a token's records.
    pub(crate) fn records(lookup: &Lookup) -> (Vec<u8>, Vec<u8>) {
        (joined(RECORDS, &[lookup.as_bytes()]), joined(RECORDS, &[lookup.as_bytes(), &[0xff; 34]]))
    }

    /// First and last possible key of a kind.
    pub(crate) fn all(kind: u8) -> (Vec<u8>, Vec<u8>) {
        (vec![kind], joined(kind, &[&[0xff; 80]]))
    }

    /// The 32 bytes after the kind.
    pub(crate) fn id_in(key: &[u8]) -> Option<[u8; 32]> {
        key.get(1..33)?.try_into().ok()
    }

    /// Whether it is the key of an envelope, not of a blob's part.
    pub(crate) fn is_envelope(key: &[u8]) -> bool {
        key.first() == Some(&b'e')
    }

    /// The birth in the key of an envelope or a place.
    pub(crate) fn born_in(key: &[u8]) -> Option<Born> {
        Some(Born(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?)))
    }

    /// The number at the end of an envelope's key.
    pub(crate) fn seq_in(key: &[u8]) -> Option<Seq> {
        Some(Seq::new(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?)))
    }

    /// The offset at the end of a part's key.
    pub(crate) fn offset_in(key: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(key.get(33..41)?.try_into().ok()?))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(StoreError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool, StoreError> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(StoreError::Damaged),
        }
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.0.is_empty() { Ok(()) } else { Err(StoreError::Damaged) }
    }
}

#[cfg(test)]
mod tests;
