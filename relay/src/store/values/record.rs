//! What lies in a segment: one record for each group of changes.
//!
//! ```text
//! record   "LWR1" | epoch u32 | serial u64 | length of the bodies u32 | of the rows u32 | check u64 | bodies | rows, enciphered
//! row      what u8 | length of the key u16 | length of the value u32 | key | value
//! what     0 a value of the bulk space, 1 of the state space; and 2 if the key is deleted
//! ```
//! All integers are big-endian. `check` is XXH3 (64 bits) of all of the record but itself. The rows are enciphered with
//! `ChaCha20` under the key of their epoch (`checkpoint`), the nonce being the serial in twelve bytes; no serial comes
//! twice under one key. The values of rows are those of the index (`index`).

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    super::{StoreError, tables::Space},
    checkpoint::Epoch,
};

const MAGIC: [u8; 4] = *b"LWR1";
/// Bytes of a record before its bodies.
pub(super) const HEADER: usize = 32;
const CHECKED: usize = 24;
const STATE: u8 = 1;
const DELETED: u8 = 2;

/// Where something lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place {
    pub(in super::super) segment: u32,
    pub(in super::super) offset: u32,
}

impl Place {
    /// So many bytes further on.
    pub(super) fn after(self, bytes: usize) -> Result<Self, StoreError> {
        let bytes = u32::try_from(bytes).map_err(|_| StoreError::Disk)?;
        let offset = self.offset.checked_add(bytes).ok_or(StoreError::Disk)?;
        Ok(Self { offset, ..self })
    }
}

/// A body that lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Body {
    pub(in super::super) place: Place,
    pub(in super::super) length: u32,
    /// The low half of its XXH3.
    pub(in super::super) check: u32,
}

/// What tells a body that is whole from one that is not.
pub(super) fn check_of(body: &[u8]) -> u32 {
    let [low @ .., _, _, _, _] = xxh3_64(body).to_le_bytes();
    u32::from_le_bytes(low)
}

/// One change of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Row<'a> {
    pub(in super::super) space: Space,
    pub(in super::super) key: &'a [u8],
    /// Nothing, if the key is deleted.
    pub(in super::super) value: Option<&'a [u8]>,
}

/// The rows of a record.
#[derive(Clone, Default)]
pub(in super::super) struct Rows(Vec<u8>);

impl Rows {
    pub(in super::super) fn push(&mut self, row: Row<'_>) -> Result<(), StoreError> {
        let Row { space, key, value } = row;
        let what = u8::from(space == Space::State) * STATE + u8::from(value.is_none()) * DELETED;
        let value = value.unwrap_or_default();
        let too_long = |_| StoreError::Damaged;
        self.0.push(what);
        self.0.extend_from_slice(&u16::try_from(key.len()).map_err(too_long)?.to_be_bytes());
        self.0.extend_from_slice(&u32::try_from(value.len()).map_err(too_long)?.to_be_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
        Ok(())
    }

    /// In the order in which they were pushed.
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = Result<Row<'_>, StoreError>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let row = take_row(&mut rest).ok_or(StoreError::Damaged);
            if row.is_err() {
                rest = &[];
            }
            Some(row)
        })
    }
}

fn take_row<'a>(rest: &mut &'a [u8]) -> Option<Row<'a>> {
    let what = *rest.split_off_first()?;
    let key = usize::from(u16::from_be_bytes(*rest.split_off(..2)?.first_chunk()?));
    let value = usize::try_from(u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?)).ok()?;
    let key = rest.split_off(..key)?;
    let value = rest.split_off(..value)?;
    let space = if what & STATE == 0 { Space::Bulk } else { Space::State };
    let is_deleted = what & DELETED != 0;
    (what <= (STATE | DELETED) && (!is_deleted || value.is_empty())).then_some(Row {
        space,
        key,
        value: (!is_deleted).then_some(value),
    })
}

/// A record that is being put together, for one place.
pub(in super::super) struct Draft {
    place: Place,
    bytes: Vec<u8>,
    rows: Rows,
}

impl Draft {
    /// In memory that is there already, or none.
    pub(super) fn new(place: Place, [mut bytes, mut rows]: [Vec<u8>; 2]) -> Self {
        bytes.clear();
        bytes.resize(HEADER, 0);
        rows.clear();
        Self { place, bytes, rows: Rows(rows) }
    }

    /// Adds a body, and says where it will lie.
    pub(in super::super) fn body(&mut self, body: &[u8]) -> Result<Body, StoreError> {
        let place = self.place.after(self.bytes.len())?;
        let length = u32::try_from(body.len()).map_err(|_| StoreError::Damaged)?;
        self.bytes.extend_from_slice(body);
        Ok(Body { place, length, check: check_of(body) })
    }

    pub(in super::super) fn row(&mut self, row: Row<'_>) -> Result<(), StoreError> {
        self.rows.push(row)
    }

    /// The record, and its rows as they are.
    pub(super) fn finish(self, epoch: &Epoch, serial: u64) -> Result<Record, StoreError> {
        let Self { place, mut bytes, rows } = self;
        let (bodies, end) = (bytes.len() - HEADER, bytes.len());
        bytes.extend_from_slice(&rows.0);
        encipher(epoch, serial, bytes.get_mut(end..).unwrap_or_default());
        let header = Header { epoch: epoch.number, serial, bodies, rows: rows.0.len() };
        let head = bytes.get_mut(..HEADER).ok_or(StoreError::Damaged)?;
        head.copy_from_slice(&header.encode()?);
        let check = check(&bytes);
        bytes.get_mut(CHECKED..HEADER).ok_or(StoreError::Damaged)?.copy_from_slice(&check.to_be_bytes());
        Ok(Record { place, serial, bytes, rows })
    }
}

/// A record, ready for its place.
pub(crate) struct Record {
    pub(super) place: Place,
    pub(in super::super) serial: u64,
    pub(super) bytes: Vec<u8>,
    pub(in super::super) rows: Rows,
}

impl Record {
    /// Bytes of all of it.
    pub(in super::super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Its memory, for another.
    pub(super) fn into_memory(self) -> [Vec<u8>; 2] {
        [self.bytes, self.rows.0]
    }

    /// Where the next one begins.
    pub(in super::super) fn end(&self) -> Result<Place, StoreError> {
        self.place.after(self.bytes.len())
    }
}

struct Header {
    epoch: u32,
    serial: u64,
    bodies: usize,
    rows: usize,
}

impl Header {
    fn encode(&self) -> Result<[u8; HEADER], StoreError> {
        let Self { epoch, serial, bodies, rows } = self;
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| StoreError::Damaged);
        let mut out = [0; HEADER];
        let parts: [&[u8]; 5] = [
            &MAGIC,
            &epoch.to_be_bytes(),
            &serial.to_be_bytes(),
            &length(*bodies)?.to_be_bytes(),
            &length(*rows)?.to_be_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.get(..CHECKED)?.split_first_chunk::<4>()?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (serial, rest) = rest.split_first_chunk::<8>()?;
        let (bodies, rest) = rest.split_first_chunk::<4>()?;
        let length = |bytes: &[u8; 4]| usize::try_from(u32::from_be_bytes(*bytes)).ok();
        (*magic == MAGIC).then_some(Self {
            epoch: u32::from_be_bytes(*epoch),
            serial: u64::from_be_bytes(*serial),
            bodies: length(bodies)?,
            rows: length(rest.first_chunk()?)?,
        })
    }
}

/// A record that was read.
pub(super) struct Found<'a> {
    pub(super) epoch: u32,
    pub(super) serial: u64,
    /// Bytes of all of it.
    pub(super) length: usize,
    rows: &'a [u8],
}

impl Found<'_> {
    pub(super) fn rows(&self, epoch: &Epoch) -> Rows {
        let mut rows = self.rows.to_vec();
        encipher(epoch, self.serial, &mut rows);
        Rows(rows)
    }
}

/// The record at the beginning of some bytes, if there is a whole one.
pub(super) fn find(bytes: &[u8]) -> Option<Found<'_>> {
    let Header { epoch, serial, bodies, rows } = Header::decode(bytes)?;
    let begin = HEADER.checked_add(bodies)?;
    let length = begin.checked_add(rows)?;
    let record = bytes.get(..length)?;
    let told = u64::from_be_bytes(*record.get(CHECKED..HEADER)?.first_chunk()?);
    (told == check(record)).then_some(Found { epoch, serial, length, rows: record.get(begin..)? })
}

/// How long the record is whose header some bytes begin with.
pub(super) fn length_in(bytes: &[u8]) -> Option<usize> {
    let Header { bodies, rows, .. } = Header::decode(bytes)?;
    HEADER.checked_add(bodies)?.checked_add(rows)
}

/// Whether a whole record of a greater serial lies anywhere in some bytes.
pub(super) fn has_later(bytes: &[u8], serial: u64) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.windows(MAGIC.len()).position(|window| window == MAGIC) {
        rest = rest.get(at..).unwrap_or_default();
        if find(rest).is_some_and(|found| found.serial > serial) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn check(record: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(record.get(..CHECKED).unwrap_or_default());
    hasher.update(record.get(HEADER..).unwrap_or_default());
    hasher.digest()
}

fn encipher(epoch: &Epoch, serial: u64, rows: &mut [u8]) {
    let mut nonce = [0; 12];
    let (_, low) = nonce.split_at_mut(4);
    low.copy_from_slice(&serial.to_be_bytes());
    ChaCha20::new((&*epoch.key).into(), &nonce.into()).apply_keystream(rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { segment: 3, offset: 100 };

    fn epoch(number: u32) -> Epoch {
        Epoch { number, key: zeroize::Zeroizing::new([7; 32]) }
    }

    fn record(serial: u64) -> (Record, Body) {
        let mut draft = Draft::new(PLACE, Default::default());
        draft.body(b"one").unwrap();
        let body = draft.body(&[9; 2000]).unwrap();
        draft.row(Row { space: Space::Bulk, key: b"key", value: Some(b"value") }).unwrap();
        draft.row(Row { space: Space::State, key: b"gone", value: None }).unwrap();
        draft.row(Row { space: Space::State, key: b"", value: Some(b"") }).unwrap();
        (draft.finish(&epoch(5), serial).unwrap(), body)
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_its_rows_are_not_in_it() {
        let (record, body) = record(8);
        assert_eq!(body.place, Place { segment: 3, offset: 100 + 32 + 3 });
        let at = usize::try_from(body.place.offset - PLACE.offset).unwrap();
        assert_eq!(record.bytes[at..][..2000], [9; 2000]);
        assert_eq!(body.check, check_of(&[9; 2000]));
        assert!(!record.bytes.windows(3).any(|window| window == b"key"));
        let long = [&record.bytes[..], b"more"].concat();
        let found = find(&long).unwrap();
        assert_eq!((found.epoch, found.serial, found.length), (5, 8, record.bytes.len()));
        let rows = found.rows(&epoch(5));
        let rows: Vec<Row<'_>> = rows.iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(
            rows,
            [
                Row { space: Space::Bulk, key: b"key", value: Some(b"value") },
                Row { space: Space::State, key: b"gone", value: None },
                Row { space: Space::State, key: b"", value: Some(b"") },
            ]
        );
        assert_eq!(record.rows.iter().count(), 3);
        assert_eq!(record.end().unwrap(), PLACE.after(record.bytes.len()).unwrap());
    }

    #[test]
    fn a_record_with_one_changed_bit_or_a_missing_end_is_none() {
        let (record, _) = record(8);
        for at in 0..record.bytes.len() {
            for bit in [1, 0x80] {
                let mut bytes = record.bytes.clone();
                bytes[at] ^= bit;
                assert!(find(&bytes).is_none(), "{at}");
            }
            assert!(find(&record.bytes[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn a_later_record_is_found_behind_rubbish() {
        let (record, _) = record(8);
        let bytes = [&[1, 2, b'L', b'W'][..], &MAGIC, &record.bytes, &[0; 50]].concat();
        assert!(has_later(&bytes, 7));
        assert!(!has_later(&bytes, 8));
        assert!(!has_later(&bytes[..bytes.len() - 60], 7));
    }

    #[test]
    fn rows_that_do_not_add_up_are_damaged_and_end() {
        for bytes in [&[0][..], &[0, 0, 1, 0, 0, 0, 0], &[4, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 1, 9]] {
            let rows: Vec<_> = Rows(bytes.to_vec()).iter().map(|row| row.is_err()).collect();
            assert_eq!(rows, [true]);
        }
    }
}
