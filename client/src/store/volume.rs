//! Records of a compartment in a volume of the vault: tables of redb, body keys in the volume's key table.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::atomic::{AtomicU64, Ordering},
};

use lapwing_vault::{
    KeyName, ReadTransaction, Volume, VolumeError, WriteTransaction,
    redb::{self, ReadableTable as _, TableDefinition},
};
use lapwing_wire::codec;
use zeroize::Zeroizing;

use super::{
    base::{Base, BodyKeyName, Record, StoreError, Visitor},
    measure::measure,
    rows::{ChatRow, DoomedKeyRow, ErasingRow, GroupRow, MessageRow, PlanRow, TrustRow},
    tables::{self, Place, REMOVED_FROM},
    unit::{Changes, Row},
};

/// Most bytes of a commit without messages that may go past the limit: a ratchet state and a few rows.
const SMALL_COMMIT: usize = 32 << 10;

/// Kinds of records that erasing makes for itself, and takes away again: how far it has come, which keys are doomed. They
/// do not count for what stays.
const PASSING: [u8; 3] = [0x00, ErasingRow::TABLE, DoomedKeyRow::TABLE];

/// Kinds of records whose end may leave words for relays: there are only as many ends as there were things.
const ENDING: [u8; 4] = [ChatRow::TABLE, GroupRow::TABLE, PlanRow::TABLE, TrustRow::TABLE];

/// Most bytes of such words.
const WORDS_OF_AN_END: usize = 4 << 10;

/// Longest number in a record.
const COUNT_LEN: usize = 9;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

impl Place {
    const fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }
}

/// A volume as the base of a compartment.
pub struct VolumeBase {
    volume: Volume,
    /// Bits of the tables that are known to be there.
    there: AtomicU64,
}

impl VolumeBase {
    /// Takes over an open volume.
    #[must_use]
    pub const fn new(volume: Volume) -> Self {
        Self { volume, there: AtomicU64::new(0) }
    }

    /// Writes anew what keys of removed records may be left in (REC-03), and overwrites what was deleted or replaced: see
    /// [`Volume::scrub`].
    ///
    /// # Errors
    ///
    /// The volume's error; it can be repeated.
    pub fn scrub(&self) -> Result<(), VolumeError> {
        let packed = self.pack();
        self.volume.scrub().and(packed)
    }

    /// Scrubs and closes the volume. Dropping it does the same, and cannot tell whether that worked.
    ///
    /// # Errors
    ///
    /// The volume's error.
    pub fn close(self) -> Result<(), VolumeError> {
        self.scrub()
    }

    /// Deleting must work where there is no room for anything new (VLT-56): it may use the last page, and nothing else may,
    /// however small. What keeps a vault usable, such as alerts and invitations, has a part of the room beyond the limit.
    /// Messages and what comes in bulk stop at the limit; a line that tells of messages which the same commit removes is no
    /// more than they were. Numbers are counted at their longest: that a message was read is noted, and nothing grows by it
    /// twice.
    fn begin_past_the_limit(
        &self,
        removes: &[Vec<u8>],
        puts: &[Record],
    ) -> Result<WriteTransaction, StoreError> {
        let is_message = |key: &Vec<u8>| key.first() == Some(&MessageRow::TABLE);
        let more = puts.iter().filter(|(key, _)| is_message(key)).count();
        let fewer = removes.iter().filter(|key| is_message(key)).count();
        if more > fewer {
            return Err(StoreError::Full);
        }
        let lasting = puts.iter().filter(|(key, _)| !is_of(key, &PASSING));
        let (mut put, mut gone, mut ends) = (0, 0, false);
        for (key, value) in lasting {
            put += key.len() + measure(value);
            gone += self.measure_of(key)?.unwrap_or(0);
        }
        for key in removes {
            let there = self.measure_of(key)?;
            gone += there.unwrap_or(0);
            ends = ends || there.is_some() && is_of(key, &ENDING);
        }
        let write = if put <= gone + if ends { WORDS_OF_AN_END } else { 0 } {
            self.volume.begin_cleanup()
        } else if put <= gone + SMALL_COMMIT {
            self.volume.begin_small()
        } else {
            Err(VolumeError::Full)
        };
        write.map_err(of_volume)
    }

    /// What the record with this key may come to, if there is one.
    fn measure_of(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        Ok(self.get(key)?.map(|value| key.len() + measure(&value)))
    }

    /// The volume, for what concerns space and erasure.
    #[must_use]
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }

    /// REC-03. Where there is no room for all of it, what has room is done: the note tells the next session of the rest, and
    /// the error whoever asked.
    fn pack(&self) -> Result<(), VolumeError> {
        let read = self.volume.begin_read()?;
        let noted = match read.open_table(Place::Shared.definition()) {
            Ok(table) => number(table.get(REMOVED_FROM.as_slice())?)?,
            Err(redb::TableError::TableDoesNotExist(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        drop(read);
        let places = Place::noted(noted);
        if places.is_empty() {
            return Ok(());
        }
        match self.write_anew(&places) {
            Err(VolumeError::Full) => {}
            done => return done,
        }
        let mut outcome = Ok(());
        for place in &places {
            match self.write_anew(std::slice::from_ref(place)) {
                Err(VolumeError::Full) => outcome = Err(VolumeError::Full),
                done => done?,
            }
        }
        outcome
    }

    /// REC-04: before the first record of a kind is written to its table, those that an older program left follow.
    /// Answers what is to be written anew for that.
    fn move_in(&self, write: &WriteTransaction, place: Place) -> Result<u64, StoreError> {
        let Place::Own(kind, _) = place else { return Ok(0) };
        if self.there.load(Ordering::Relaxed) & place.bit() != 0 {
            return Ok(0);
        }
        let read = self.volume.begin_read().map_err(of_volume)?;
        match read.open_table(place.definition()) {
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Ok(_) => return Ok(0),
            Err(error) => return Err(of_redb(error)),
        }
        let Some(old) = table_of(&read, Place::Shared)? else { return Ok(0) };
        let mut shared = write.open_table(Place::Shared.definition()).map_err(of_redb)?;
        let mut own = write.open_table(place.definition()).map_err(of_redb)?;
        let mut moved = 0;
        for row in old.range([kind].as_slice()..[kind + 1].as_slice()).map_err(of_redb)? {
            let (key, value) = row.map_err(of_redb)?;
            own.insert(key.value(), value.value()).map_err(of_redb)?;
            shared.remove(key.value()).map_err(of_redb)?;
            moved = Place::Shared.bit();
        }
        Ok(moved)
    }

    /// Copies the rows that live into tables of the same names, and lets the old ones go. All of it or nothing.
    fn write_anew(&self, places: &[Place]) -> Result<(), VolumeError> {
        // First: nobody else commits until this one is through.
        let write = self.volume.begin_cleanup()?;
        let read = self.volume.begin_read()?;
        let mut done = 0;
        for place in places {
            done |= place.bit();
            let old = match read.open_table(place.definition()) {
                Ok(old) => old,
                Err(redb::TableError::TableDoesNotExist(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            write.delete_table(place.definition())?;
            let mut new = write.open_table(place.definition())?;
            for row in old.iter()? {
                let (key, value) = row?;
                new.insert(key.value(), value.value())?;
            }
        }
        {
            let mut shared = write.open_table(Place::Shared.definition())?;
            let noted = number(shared.get(REMOVED_FROM.as_slice())?)?;
            note(&mut shared, noted & !done)?;
        }
        write.commit()
    }
}

impl Drop for VolumeBase {
    fn drop(&mut self) {
        // Nobody can be told. The note stays, and the next session does it.
        let _failed = self.pack();
    }
}

/// The number in a record; 0 if there is none.
fn number(value: Option<redb::AccessGuard<'_, &'static [u8]>>) -> Result<u64, VolumeError> {
    value.map_or(Ok(0), |value| codec::decode(value.value(), COUNT_LEN).map_err(|_| VolumeError::Damaged))
}

/// REC-02
fn note(
    shared: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    removed_from: u64,
) -> Result<(), redb::StorageError> {
    if removed_from == 0 {
        shared.remove(REMOVED_FROM.as_slice())?;
    } else {
        shared.insert(REMOVED_FROM.as_slice(), codec::encode(&removed_from).as_slice())?;
    }
    Ok(())
}

fn of_volume(error: VolumeError) -> StoreError {
    match error {
        VolumeError::Full | VolumeError::KeyTableFull => StoreError::Full,
        other => StoreError::Vault(other.to_string()),
    }
}

fn of_redb(error: impl Into<redb::Error>) -> StoreError {
    of_volume(VolumeError::from(error.into()))
}

/// Whether a record with this key is of one of these kinds.
fn is_of(key: &[u8], kinds: &[u8]) -> bool {
    key.first().is_some_and(|kind| kinds.contains(kind))
}

/// Messages of one chat from which on they are put as a run.
const RUN_MIN: usize = 4;

/// Whether these are records of one kind about one thing, but for the number at the end: messages of one chat.
fn is_run(one: &[u8], other: &[u8]) -> bool {
    let place = |key: &[u8]| key.len().checked_sub(NUMBER_LEN);
    match (place(one), place(other)) {
        (Some(at), Some(end)) => {
            at == end && one.first() == Some(&MessageRow::TABLE) && one[..at] == other[..end]
        }
        _ => false,
    }
}

/// Bytes of the number with which the key of a message ends.
const NUMBER_LEN: usize = 8;

/// Puts records in the order of their keys into the gap where the first belongs: pages are left full, where putting
/// them one by one would halve each page that overflows. What is there already, or lies beyond the gap, is put alone.
fn put_run(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    run: &[(Vec<u8>, Zeroizing<Vec<u8>>)],
) -> Result<(), StoreError> {
    let mut rest = run;
    while let Some(((first, _), _)) = rest.split_first() {
        let mut gap = table.upper_bound_mut(Bound::Excluded(first.as_slice())).map_err(of_redb)?;
        let mut put = 0;
        for (key, value) in rest {
            match gap.insert_before(key.as_slice(), value.as_slice()) {
                Ok(()) => put += 1,
                Err(redb::CursorError::UnorderedKey) => break,
                Err(redb::CursorError::Storage(error)) => return Err(of_redb(error)),
                Err(other) => return Err(StoreError::Vault(other.to_string())),
            }
        }
        gap.close().map_err(of_redb)?;
        rest = rest.get(put..).unwrap_or_default();
        if put == 0
            && let Some(((key, value), others)) = rest.split_first()
        {
            table.insert(key.as_slice(), value.as_slice()).map_err(of_redb)?;
            rest = others;
        }
    }
    Ok(())
}

/// REC-04: where a kind has no table yet, what there is of it is in the one for all.
fn table_of(read: &ReadTransaction, place: Place) -> Result<Option<ReadTable>, StoreError> {
    match read.open_table(place.definition()) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) if place == Place::Shared => Ok(None),
        Err(redb::TableError::TableDoesNotExist(_)) => table_of(read, Place::Shared),
        Err(error) => Err(of_redb(error)),
    }
}

type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

type Found<'a> = (redb::AccessGuard<'a, &'static [u8]>, redb::AccessGuard<'a, &'static [u8]>);

/// Lends what was found until `see` breaks off, and tells whether it did.
fn lend<'a>(
    mut found: impl Iterator<Item = Result<Found<'a>, redb::StorageError>>,
    see: &mut Visitor<'_>,
) -> Result<ControlFlow<()>, StoreError> {
    let ended = found.try_for_each(|pair| match pair {
        Ok((key, value)) => see(key.value(), value.value()).map_break(Ok),
        Err(error) => ControlFlow::Break(Err(error)),
    });
    match ended {
        ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
        ControlFlow::Break(Ok(())) => Ok(ControlFlow::Break(())),
        ControlFlow::Break(Err(error)) => Err(of_redb(error)),
    }
}

impl Base for VolumeBase {
    fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let read = self.volume.begin_read().map_err(of_volume)?;
        let Some(table) = table_of(&read, Place::of(key))? else { return Ok(None) };
        let value = table.get(key).map_err(of_redb)?;
        Ok(value.map(|value| Zeroizing::new(value.value().to_vec())))
    }

    fn visit(
        &self,
        from: &[u8],
        to: &[u8],
        backwards: bool,
        see: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        let read = self.volume.begin_read().map_err(of_volume)?;
        let mut pieces = tables::pieces(from, to);
        if backwards {
            pieces.reverse();
        }
        for (place, from, to) in pieces {
            let Some(table) = table_of(&read, place)? else { continue };
            let found = table.range(from..to).map_err(of_redb)?;
            if (if backwards { lend(found.rev(), see) } else { lend(found, see) })?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        match self.volume.keys().get(KeyName(*name)) {
            // VLT-64: what it sealed opens as little as under a key that was destroyed. People are told of it when they
            // unlock.
            Err(VolumeError::Damaged) => Ok(None),
            key => Ok(key.map_err(of_volume)?.map(|key| Zeroizing::new(*key.expose()))),
        }
    }

    fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let key = self.volume.keys().prepare(KeyName(*name)).map_err(of_volume)?;
        Ok(Zeroizing::new(*key.expose()))
    }

    fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError> {
        let names: Vec<KeyName> = names.iter().copied().map(KeyName).collect();
        self.volume.keys().destroy(&names).map_err(of_volume)
    }

    fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let mut removes = Vec::new();
        let mut puts = Vec::new();
        for (key, value) in changes.into_records() {
            match value {
                Some(value) => puts.push((key, value)),
                None => removes.push(key),
            }
        }
        let write = match self.volume.begin_write() {
            Err(VolumeError::Full) => self.begin_past_the_limit(&removes, &puts),
            other => other.map_err(of_volume),
        }?;
        let mut by_place: BTreeMap<Place, (Vec<Vec<u8>>, Vec<Record>)> = BTreeMap::new();
        for key in removes {
            by_place.entry(Place::of(&key)).or_default().0.push(key);
        }
        for (key, value) in puts {
            by_place.entry(Place::of(&key)).or_default().1.push((key, value));
        }
        let mut removed_from = 0;
        let mut there = 0;
        for (place, (removes, puts)) in by_place {
            removed_from |= self.move_in(&write, place)?;
            there |= place.bit();
            let mut table = write.open_table(place.definition()).map_err(of_redb)?;
            for key in removes {
                if table.remove(key.as_slice()).map_err(of_redb)?.is_some() && place != Place::Shared {
                    removed_from |= place.bit();
                }
            }
            for run in puts.chunk_by(|(one, _), (other, _)| is_run(one, other)) {
                if run.len() < RUN_MIN {
                    for (key, value) in run {
                        table.insert(key.as_slice(), value.as_slice()).map_err(of_redb)?;
                    }
                } else {
                    put_run(&mut table, run)?;
                }
            }
        }
        if removed_from != 0 {
            let mut shared = write.open_table(Place::Shared.definition()).map_err(of_redb)?;
            let noted = number(shared.get(REMOVED_FROM.as_slice()).map_err(of_redb)?).map_err(of_volume)?;
            if noted | removed_from != noted {
                note(&mut shared, noted | removed_from).map_err(of_redb)?;
            }
        }
        write.commit().map_err(of_volume)?;
        self.there.fetch_or(there, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
