//! A log that is both: every group of changes is written to it and flushed, once, before anybody is answered; and the bodies
//! of large values stay where they were written, so that the index that sorts the keys never moves them.
//!
//! The index (an engine with an order of keys) is not flushed with each group. What it may have lost in a crash is read from the
//! log again, from the last checkpoint on (`checkpoint`). Rows say what a key's value is, not how it changes, so it makes no
//! difference how much of that the index had kept.
//!
//! ```text
//! values/checkpoint        `checkpoint`
//! values/0000000001        a segment: "LWVALUE1" | number u32 | 0 u32 | serial of its first record u64 | XXH3 of that u64
//!                          and records, one after the other (`record`)                         all integers big-endian
//! ```
//! Of the last segment the end may be torn. Whole records behind what is not whole, or a segment that does not begin where the
//! one before it ends, are no torn end: then the store is damaged, and nothing is changed.
//!
//! Invariant: a record is begun when the one before it is flushed. One thread writes at a time.

mod checkpoint;
mod record;

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use xxhash_rust::xxh3::xxh3_64;

use self::{checkpoint::Checkpoints, record::HEADER};
use super::{
    StoreError,
    engine::{io, sync_folder},
    inspect::unread,
};

pub(super) use self::{
    checkpoint::Point,
    record::{Body, Draft, Place, Record, Row, Rows},
};

const MAGIC: [u8; 8] = *b"LWVALUE1";
const SEGMENT_HEADER: u32 = 32;
/// Records whose memory is kept for others, and the most bytes of each of their two parts.
const SPARE: usize = 2;
const LARGEST_SPARE: usize = 2 << 20;

/// The file with the keys of the log's rows, in the store's folder.
pub const LOG_KEYS: &str = "values/checkpoint";

/// Segments by their numbers.
pub(super) type Files = BTreeMap<u32, Arc<File>>;

/// The log.
pub(super) struct ValueLog {
    folder: PathBuf,
    files: RwLock<Arc<Files>>,
    tail: Mutex<Tail>,
    checkpoints: Mutex<Checkpoints>,
    /// Memory of records that nobody needs any more.
    spare: Mutex<Vec<[Vec<u8>; 2]>>,
    /// Bytes after which another segment is begun.
    segment: u32,
}

/// Where the log ends.
struct Tail {
    end: Point,
    /// A write or a flush failed: how much of it is on the disk is found out when the log is opened again.
    is_broken: bool,
}

impl ValueLog {
    /// Makes an empty log in a folder of a store; what lies in its place is not needed by anybody.
    pub(super) fn create(store: &Path, segment: u32) -> Result<Self, StoreError> {
        let folder = folder_in(store);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|error| io(&error))?;
        }
        super::engine::create_folder(&folder)?;
        let place = Place { segment: 1, offset: SEGMENT_HEADER };
        let first = create_segment(&folder, 1, 1)?;
        let point = Point { place, serial: 0 };
        let checkpoints = Checkpoints::create(&folder, point)?;
        Ok(Self::new(folder, Files::from([(1, Arc::new(first))]), checkpoints, segment))
    }

    /// Whether a folder of a store has a log that was ever whole.
    pub(super) fn is_in(store: &Path) -> bool {
        Checkpoints::is_in(&folder_in(store))
    }

    /// Whether a log can be opened, as far as that is seen by reading its checkpoint and the segment to which that leads.
    pub(super) fn inspect(store: &Path) -> Result<(), StoreError> {
        let folder = folder_in(store);
        let Place { segment, offset } = Checkpoints::inspect(&folder)?.place;
        let file = File::open(path_of(&folder, segment)).map_err(|error| unread(&error))?;
        let length = file.metadata().map_err(|error| io(&error))?.len();
        match first_serial(&file, segment)? {
            Some(_) if length >= offset.into() => Ok(()),
            _ => Err(StoreError::Damaged),
        }
    }

    /// The serial that the checkpoint of a store says is durable in its index; 0 if it has none.
    pub(super) fn durable_serial(store: &Path) -> Result<u64, StoreError> {
        Ok(Checkpoints::open(&folder_in(store))?.map_or(0, |found| found.point().serial))
    }

    /// Whether anything was ever written to the log of a store.
    pub(super) fn has_records(store: &Path) -> Result<bool, StoreError> {
        let folder = folder_in(store);
        if !folder.exists() {
            return Ok(false);
        }
        for entry in std::fs::read_dir(&folder).map_err(|error| io(&error))? {
            let entry = entry.map_err(|error| io(&error))?;
            let number: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let length = entry.metadata().map_err(|error| io(&error))?.len();
            if number.is_some_and(|number| number > 1 || length > u64::from(SEGMENT_HEADER)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens a log. Before anything else it wants `replay`.
    pub(super) fn open(store: &Path, segment: u32) -> Result<Self, StoreError> {
        let folder = folder_in(store);
        let checkpoints = Checkpoints::open(&folder)?.ok_or(StoreError::Damaged)?;
        let mut files = Files::new();
        for entry in std::fs::read_dir(&folder).map_err(|error| io(&error))? {
            let entry = entry.map_err(|error| io(&error))?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let file = OpenOptions::new().read(true).write(true).open(entry.path());
            files.insert(number, Arc::new(file.map_err(|error| io(&error))?));
        }
        Ok(Self::new(folder, files, checkpoints, segment))
    }

    fn new(folder: PathBuf, files: Files, checkpoints: Checkpoints, segment: u32) -> Self {
        let tail = Tail { end: checkpoints.point(), is_broken: false };
        Self {
            folder,
            files: RwLock::new(Arc::new(files)),
            tail: Mutex::new(tail),
            checkpoints: Mutex::new(checkpoints),
            spare: Mutex::default(),
            segment,
        }
    }

    /// What the checkpoint says.
    pub(super) fn point(&self) -> Point {
        self.checkpoints().point()
    }

    /// Where the log ends.
    pub(super) fn end(&self) -> Point {
        self.tail().end
    }

    /// Shows the rows of every record after the checkpoint, and cuts a torn end off; what it showed is durable when it returns.
    /// The next thing is a checkpoint that forgets, because what is written next must not come under the same keys.
    pub(super) fn replay(
        &self,
        each: &mut dyn FnMut(&Rows, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut end = self.point();
        let files = self.files();
        // Where what was written last begins.
        let last = loop {
            let Place { segment, offset: _ } = end.place;
            let file = files.get(&segment).ok_or(StoreError::Damaged)?;
            let last;
            (last, end) = self.replay_segment(file, end, each)?;
            let length = file.metadata().map_err(|error| io(&error))?.len();
            if length < end.place.offset.into() {
                return Err(StoreError::Damaged);
            }
            let Some((next, file)) = files.range(segment.saturating_add(1)..).next() else {
                if length > u64::from(end.place.offset) {
                    if has_later(file, end, length)? {
                        return Err(StoreError::Damaged);
                    }
                    tracing::warn!(
                        "the power failed during a commit; what was being written then is dropped"
                    );
                    file.set_len(end.place.offset.into()).map_err(|error| io(&error))?;
                }
                break last;
            };
            match first_serial(file, *next)? {
                Some(first) if first == end.serial + 1 && *next == segment + 1 => {
                    end.place = Place { segment: *next, offset: SEGMENT_HEADER };
                }
                // It was being made, and is the last: nothing was written to it.
                None if files.range(next.saturating_add(1)..).next().is_none() => {
                    self.change_files(|files| drop(files.remove(next)));
                    break last;
                }
                _ => return Err(StoreError::Damaged),
            }
        };
        // The last thing that was written may never have been flushed. Where its flush failed the system takes it for written: so
        // it is written again.
        if let Some(file) = files.get(&end.place.segment) {
            let begin = if end.place.offset == SEGMENT_HEADER { 0 } else { last.offset };
            let length =
                usize::try_from(end.place.offset.saturating_sub(begin)).map_err(|_| StoreError::Damaged)?;
            let bytes = read_at_most(file, begin, length)?;
            file.write_all_at(&bytes, begin.into())
                .and_then(|()| file.sync_all())
                .map_err(|error| io(&error))?;
        }
        sync_folder(&self.folder)?;
        self.tail().end = end;
        Ok(())
    }

    /// Where the last record begins, and where it ends.
    fn replay_segment(
        &self,
        file: &File,
        begin: Point,
        each: &mut dyn FnMut(&Rows, u64) -> Result<(), StoreError>,
    ) -> Result<(Place, Point), StoreError> {
        let (mut last, mut end) = (begin.place, begin);
        loop {
            let bytes = read_record(file, end.place.offset)?;
            let Some(found) = record::find(&bytes).filter(|found| found.serial == end.serial + 1) else {
                return Ok((last, end));
            };
            let rows = {
                let checkpoints = self.checkpoints();
                found.rows(checkpoints.epoch_of(found.epoch).ok_or(StoreError::Damaged)?)
            };
            each(&rows, found.serial)?;
            last = end.place;
            end = Point { place: end.place.after(found.length)?, serial: found.serial };
        }
    }

    /// A record for where the log ends; begins another segment if this one is full.
    pub(super) fn draft(&self) -> Result<Draft, StoreError> {
        let Point { place, serial } = self.end();
        let memory = self.spare().pop().unwrap_or_default();
        if place.offset < self.segment {
            return Ok(Draft::new(place, memory));
        }
        let number = place.segment.checked_add(1).ok_or(StoreError::Disk)?;
        let file = create_segment(&self.folder, number, serial + 1)?;
        self.change_files(|files| drop(files.insert(number, Arc::new(file))));
        let place = Place { segment: number, offset: SEGMENT_HEADER };
        self.tail().end.place = place;
        Ok(Draft::new(place, memory))
    }

    /// Nobody needs a record any more: its memory is for another. The allocator gives large pieces back to the system, and tidies up
    /// whenever it gets one.
    pub(super) fn give_back(&self, record: Record) {
        let memory = record.into_memory();
        let mut spare = self.spare();
        if spare.len() < SPARE && memory.iter().all(|bytes| bytes.capacity() <= LARGEST_SPARE) {
            spare.push(memory);
        }
    }

    pub(super) fn finish(&self, draft: Draft) -> Result<Record, StoreError> {
        draft.finish(self.checkpoints().epoch(), self.end().serial + 1)
    }

    /// Writes a record at the end of the log; it is durable when this returns.
    pub(super) fn write(&self, record: &Record) -> Result<(), StoreError> {
        let Point { place, serial } = {
            let mut tail = self.tail();
            if std::mem::replace(&mut tail.is_broken, true) {
                return Err(StoreError::Disk);
            }
            tail.end
        };
        if place != record.place || serial + 1 != record.serial {
            return Err(StoreError::Disk);
        }
        let files = self.files();
        let file = files.get(&place.segment).ok_or(StoreError::Disk)?;
        file.write_all_at(&record.bytes, place.offset.into())
            .and_then(|()| file.sync_data())
            .map_err(|error| io(&error))?;
        let mut tail = self.tail();
        tail.end = Point { place: record.end()?, serial: record.serial };
        tail.is_broken = false;
        Ok(())
    }

    /// Says that the index has everything before a point, durably.
    pub(super) fn checkpoint(&self, point: Point) -> Result<(), StoreError> {
        self.checkpoints().advance(point)
    }

    /// The same, where no record is on its way: nobody reads the rows of what was written any more.
    pub(super) fn checkpoint_and_forget(&self, point: Point) -> Result<(), StoreError> {
        self.checkpoints().advance_and_forget(point)
    }

    /// The segments before the checkpoint's, and their bytes.
    pub(super) fn ended(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let begin = self.point().place.segment;
        let files = self.files();
        let ended = files.range(..begin);
        ended
            .map(|(number, file)| Ok((*number, file.metadata().map_err(|error| io(&error))?.len())))
            .collect()
    }

    /// Deletes segments before the checkpoint's of which nothing is needed. Who still reads in one of them goes on.
    pub(super) fn drop_segments(&self, is_needed: &dyn Fn(u32) -> bool) -> Result<(), StoreError> {
        let begin = self.point().place.segment;
        let ended = self.files();
        for number in ended.range(..begin).map(|(number, _)| *number).filter(|number| !is_needed(*number)) {
            std::fs::remove_file(path_of(&self.folder, number)).map_err(|error| io(&error))?;
            self.change_files(|files| drop(files.remove(&number)));
        }
        Ok(())
    }

    /// The segments that there are now.
    pub(super) fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends a body to a value's head. `files` are those of when the value was seen: a segment may be deleted since.
    pub(super) fn read(&self, files: &Files, body: Body, head: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let Body { place, length, check } = body;
        let file = files.get(&place.segment).cloned();
        // Or begun since.
        let file = file.or_else(|| self.files().get(&place.segment).cloned()).ok_or(StoreError::Damaged)?;
        let mut value = head;
        let begin = value.len();
        value.resize(begin + usize::try_from(length).map_err(|_| StoreError::Damaged)?, 0);
        let bytes = value.get_mut(begin..).ok_or(StoreError::Damaged)?;
        file.read_exact_at(bytes, place.offset.into()).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => StoreError::Damaged,
            _ => io(&error),
        })?;
        if record::check_of(bytes) == check { Ok(value) } else { Err(StoreError::Damaged) }
    }

    /// One thread begins segments while another deletes some.
    pub(super) fn change_files(&self, change: impl FnOnce(&mut Files)) {
        change(Arc::make_mut(&mut self.files.write().unwrap_or_else(PoisonError::into_inner)));
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<[Vec<u8>; 2]>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn folder_in(store: &Path) -> PathBuf {
    store.join("values")
}

fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}"))
}

/// Makes a segment; durable, with its name, when it returns. One of that number may have been begun before.
fn create_segment(folder: &Path, number: u32, first: u64) -> Result<File, StoreError> {
    let mut header = [&MAGIC[..], &number.to_be_bytes(), &[0; 4], &first.to_be_bytes()].concat();
    let check = xxh3_64(&header);
    header.extend_from_slice(&check.to_be_bytes());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path_of(folder, number)).map_err(|error| io(&error))?;
    file.write_all_at(&header, 0).and_then(|()| file.sync_all()).map_err(|error| io(&error))?;
    sync_folder(folder)?;
    Ok(file)
}

/// What a segment's header says; nothing, if it is not whole.
fn first_serial(file: &File, number: u32) -> Result<Option<u64>, StoreError> {
    let mut header = [0; 32];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map_err(|error| io(&error))?,
    }
    let [content @ .., _, _, _, _, _, _, _, _] = &header;
    let is_whole = header.ends_with(&xxh3_64(content).to_be_bytes())
        && content.starts_with(&[&MAGIC[..], &number.to_be_bytes()].concat());
    let first = content.last_chunk().map(|first| u64::from_be_bytes(*first));
    Ok(first.filter(|_| is_whole))
}

/// The bytes of the record at an offset, as far as there are any: its header says how many.
fn read_record(file: &File, offset: u32) -> Result<Vec<u8>, StoreError> {
    let mut bytes = read_at_most(file, offset, HEADER)?;
    if let Some(length) = record::length_in(&bytes) {
        let left = file.metadata().map_err(|error| io(&error))?.len().saturating_sub(offset.into());
        let length = length.min(usize::try_from(left).map_err(|_| StoreError::Damaged)?);
        bytes = read_at_most(file, offset, length)?;
    }
    Ok(bytes)
}

fn read_at_most(file: &File, offset: u32, most: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; most];
    let mut length = 0;
    while length < most {
        match file.read_at(bytes.get_mut(length..).unwrap_or_default(), u64::from(offset) + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(&error)),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether what lies behind the end was ever more than the last record being written.
fn has_later(file: &File, end: Point, length: u64) -> Result<bool, StoreError> {
    let left =
        usize::try_from(length.saturating_sub(end.place.offset.into())).map_err(|_| StoreError::Damaged)?;
    let bytes = read_at_most(file, end.place.offset, left)?;
    Ok(record::has_later(&bytes, end.serial + 1))
}

#[cfg(test)]
mod tests;
