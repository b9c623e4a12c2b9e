//! From where the index must be brought up to date, and the keys of what is written since.
//!
//! ```text
//! file     two copies, at 0 and at 4096
//! copy     count u64 | segment u32 | offset u32 | serial u64 | epoch u32 | key of the epoch before 32 | key of the epoch 32
//!          | SHA-256 of what is before it                                                    all integers big-endian
//! ```
//! Of the two copies the whole one with the greater count is valid. A change writes the other one and flushes it, then this one in the same
//! way. So the key of an epoch is gone with the second checkpoint after it; then nobody reads the rows of its records any more. Where
//! nothing is being written it is gone with the first.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    super::{
        StoreError,
        engine::{io, sync_folder},
        inspect::unread,
    },
    record::Place,
};

const NAME: &str = "checkpoint";
const KEY: usize = 32;
const CONTENT: usize = 8 + 4 + 4 + 8 + 4 + 2 * KEY;
const COPY: usize = CONTENT + 32;
const DISTANCE: u64 = 4096;

/// What rows are enciphered under until the next checkpoint.
#[derive(Clone)]
pub(super) struct Epoch {
    pub(super) number: u32,
    pub(super) key: Zeroizing<[u8; KEY]>,
}

impl Epoch {
    fn after(before: &Self) -> Self {
        let mut key = Zeroizing::new([0; KEY]);
        rand::rng().fill_bytes(&mut *key);
        Self { number: before.number.wrapping_add(1), key }
    }
}

/// A point of the log: what comes before it is durable in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Point {
    /// Where the next record begins.
    pub(in super::super) place: Place,
    /// Serial of the last record before it; 0 for none.
    pub(in super::super) serial: u64,
}

/// The file.
pub(super) struct Checkpoints {
    file: File,
    count: u64,
    copy: u64,
    point: Point,
    /// The last epoch and the one before it, of which a record may still have been on its way.
    epochs: [Epoch; 2],
}

impl Checkpoints {
    /// Makes the file; durable, with its name, when it returns.
    pub(super) fn create(folder: &Path, point: Point) -> Result<Self, StoreError> {
        let file = open(folder, true)?;
        let none = Epoch { number: 0, key: Zeroizing::new([0; KEY]) };
        let first = Epoch::after(&none);
        let mut made = Self { file, count: 0, copy: 1, point, epochs: [none, first] };
        made.write(point, made.epochs.clone())?;
        sync_folder(folder)?;
        Ok(made)
    }

    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(NAME).exists()
    }

    /// Opens the file; `None` if there is none.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, StoreError> {
        if !Self::is_in(folder) {
            return Ok(None);
        }
        let found = Self::read(open(folder, false)?)?;
        // Whoever wrote it may have been killed before it was flushed, or the flush have failed: then it is in the memory of the
        // system only, which a flush alone might take for written.
        let bytes = encode(found.count, found.point, &found.epochs);
        let done =
            found.file.write_all_at(&bytes, found.copy * DISTANCE).and_then(|()| found.file.sync_all());
        done.map_err(|error| io(&error))?;
        Ok(Some(found))
    }

    /// The point that the file says, which is opened for reading only.
    pub(super) fn inspect(folder: &Path) -> Result<Point, StoreError> {
        let file = File::open(folder.join(NAME)).map_err(|error| unread(&error))?;
        Self::read(file).map(|found| found.point)
    }

    /// The whole copy with the greater count.
    fn read(file: File) -> Result<Self, StoreError> {
        let mut found: Option<Self> = None;
        for copy in [0, 1] {
            let mut bytes = Zeroizing::new([0; COPY]);
            if file.read_exact_at(&mut *bytes, copy * DISTANCE).is_err() {
                continue;
            }
            let Some((count, point, epochs)) = decode(&*bytes) else { continue };
            if found.as_ref().is_none_or(|found| count > found.count) {
                let file = file.try_clone().map_err(|error| io(&error))?;
                found = Some(Self { file, count, copy, point, epochs });
            }
        }
        found.ok_or(StoreError::Damaged)
    }

    pub(super) fn point(&self) -> Point {
        self.point
    }

    /// The one that records are written under.
    pub(super) fn epoch(&self) -> &Epoch {
        let [_, last] = &self.epochs;
        last
    }

    /// The epoch of a number.
    pub(super) fn epoch_of(&self, number: u32) -> Option<&Epoch> {
        self.epochs.iter().find(|epoch| epoch.number == number && *epoch.key != [0; KEY])
    }

    /// Moves the point, and begins another epoch; durable when it returns.
    pub(super) fn advance(&mut self, point: Point) -> Result<(), StoreError> {
        let [_, last] = &self.epochs;
        self.write_both(point, [last.clone(), Epoch::after(last)])
    }

    /// As `advance`, where no record is on its way: the keys of all that was written are gone when it returns.
    pub(super) fn advance_and_forget(&mut self, point: Point) -> Result<(), StoreError> {
        let [_, last] = &self.epochs;
        let epochs = [Epoch { number: last.number, key: Zeroizing::new([0; KEY]) }, Epoch::after(last)];
        self.write_both(point, epochs)
    }

    fn write_both(&mut self, point: Point, epochs: [Epoch; 2]) -> Result<(), StoreError> {
        self.write(point, epochs.clone())?;
        self.write(point, epochs)
    }

    fn write(&mut self, point: Point, epochs: [Epoch; 2]) -> Result<(), StoreError> {
        let (count, copy) = (self.count + 1, 1 - self.copy);
        let bytes = encode(count, point, &epochs);
        let done = self.file.write_all_at(&bytes, copy * DISTANCE).and_then(|()| self.file.sync_data());
        done.map_err(|error| io(&error))?;
        (self.count, self.copy, self.point, self.epochs) = (count, copy, point, epochs);
        Ok(())
    }
}

fn open(folder: &Path, is_new: bool) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(is_new).truncate(is_new).mode(0o600);
    options.open(folder.join(NAME)).map_err(|error| io(&error))
}

fn encode(count: u64, point: Point, epochs: &[Epoch; 2]) -> Zeroizing<Vec<u8>> {
    let Point { place: Place { segment, offset }, serial } = point;
    let [before, last] = epochs;
    let mut out = Zeroizing::new(Vec::with_capacity(COPY));
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&segment.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&serial.to_be_bytes());
    out.extend_from_slice(&last.number.to_be_bytes());
    out.extend_from_slice(&*before.key);
    out.extend_from_slice(&*last.key);
    let sum = Sha256::digest(&**out);
    out.extend_from_slice(&sum);
    out
}

fn decode(bytes: &[u8]) -> Option<(u64, Point, [Epoch; 2])> {
    let (content, sum) = bytes.split_at_checked(CONTENT)?;
    if *sum != *Sha256::digest(content) {
        return None;
    }
    let (count, rest) = content.split_first_chunk()?;
    let (segment, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (serial, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (before, rest) = rest.split_first_chunk::<KEY>()?;
    let last = rest.first_chunk::<KEY>()?;
    let number = u32::from_be_bytes(*number);
    let place = Place { segment: u32::from_be_bytes(*segment), offset: u32::from_be_bytes(*offset) };
    let epoch = |number, key: &[u8; KEY]| Epoch { number, key: Zeroizing::new(*key) };
    Some((
        u64::from_be_bytes(*count),
        Point { place, serial: u64::from_be_bytes(*serial) },
        [epoch(number.wrapping_sub(1), before), epoch(number, last)],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(serial: u64) -> Point {
        Point { place: Place { segment: 1, offset: 32 }, serial }
    }

    #[test]
    fn keys_are_gone_with_the_second_checkpoint_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Checkpoints::create(dir.path(), point(0)).unwrap();
        let first = made.epoch().clone();
        let has = |epoch: &Epoch| {
            let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
            bytes.windows(KEY).any(|window| window == *epoch.key)
        };
        made.advance(point(1)).unwrap();
        assert!(has(&first) && made.epoch().key != first.key);
        made.advance(point(2)).unwrap();
        assert!(!has(&first) && has(made.epoch()));
        let opened = Checkpoints::open(dir.path()).unwrap().unwrap();
        assert_eq!(opened.point(), point(2));
        assert_eq!(opened.epoch().number, 3);
        assert!(opened.epoch_of(2).is_some() && opened.epoch_of(1).is_none());
    }

    #[test]
    fn where_nothing_is_written_all_keys_are_gone_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Checkpoints::create(dir.path(), point(0)).unwrap();
        let first = made.epoch().clone();
        made.advance(point(1)).unwrap();
        let second = made.epoch().clone();
        made.advance_and_forget(point(2)).unwrap();
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        for (epoch, is_there) in [(&first, false), (&second, false), (made.epoch(), true)] {
            assert_eq!(bytes.windows(KEY).any(|window| window == *epoch.key), is_there, "{}", epoch.number);
        }
        let opened = Checkpoints::open(dir.path()).unwrap().unwrap();
        assert_eq!((opened.point(), opened.epoch().number), (point(2), 3));
        assert!(opened.epoch_of(2).is_none(), "its key is gone");
        assert_eq!(opened.epoch().key, made.epoch().key);
    }

    #[test]
    fn a_torn_copy_leaves_the_other_and_two_torn_ones_are_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Checkpoints::open(dir.path()).unwrap().is_none());
        let mut made = Checkpoints::create(dir.path(), point(0)).unwrap();
        made.advance(point(1)).unwrap();
        made.file.write_all_at(&[1], DISTANCE + 100).unwrap();
        let mut opened = Checkpoints::open(dir.path()).unwrap().unwrap();
        assert_eq!((opened.point(), opened.epoch().number), (point(1), 2), "either has all of it");
        opened.write(point(2), opened.epochs.clone()).unwrap();
        made.file.write_all_at(&[1], DISTANCE + 100).unwrap();
        assert_eq!(Checkpoints::open(dir.path()).unwrap().unwrap().point(), point(1));
        made.file.write_all_at(&[1], 100).unwrap();
        assert!(matches!(Checkpoints::open(dir.path()), Err(StoreError::Damaged)));
    }
}
