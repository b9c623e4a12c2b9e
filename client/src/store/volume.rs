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

/// Bytes by which a record that is there may grow in such a commit: what was read, and how far, are numbers, and a larger one
/// is longer.
const GROWTH: usize = 16;

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
    /// more than they were.
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
        let lasting: Vec<_> =
            puts.iter().filter(|(key, _)| !key.first().is_some_and(|kind| PASSING.contains(kind))).collect();
        let put = lasting.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let (replaced, before) = self.bytes_of(lasting.iter().map(|(key, _)| key))?;
        let gone = before + self.bytes_of(removes.iter())?.1;
        let ends = removes.iter().any(|key| key.first().is_some_and(|kind| ENDING.contains(kind)));
        let more = match (ends, replaced == lasting.len()) {
            (true, _) => WORDS_OF_AN_END,
            (false, true) => replaced * GROWTH,
            (false, false) => 0,
        };
        let write = if put <= gone.saturating_add(more) {
            self.volume.begin_cleanup()
        } else if put <= gone.saturating_add(SMALL_COMMIT) {
            self.volume.begin_small()
        } else {
            Err(VolumeError::Full)
        };
        write.map_err(of_volume)
    }

    /// How many of those records are there, and their bytes.
    fn bytes_of<'a>(&self, keys: impl Iterator<Item = &'a Vec<u8>>) -> Result<(usize, usize), StoreError> {
        let (mut found, mut bytes) = (0, 0);
        for key in keys {
            if let Some(value) = self.get(key)? {
                found += 1;
                bytes += key.len() + value.len();
            }
        }
        Ok((found, bytes))
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
mod tests {
    use std::time::Duration;

    use lapwing_vault::{Container, ContainerSize, Cost, MemoryBackend, Passphrase, Session};
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::{super::base::MemoryBase, *};

    const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn volume(rng: &mut ChaCha20Rng) -> (MemoryBackend, Session, VolumeBase) {
        let backend = MemoryBackend::new();
        let (size, passphrase) = (ContainerSize::MIN, Passphrase::new("copper lantern"));
        let handle = backend.another_handle();
        let session = Container::create(handle, size, &passphrase, TINY, rng, &mut |_, _| {}).unwrap();
        let base = VolumeBase::new(session.open_volume(session.volumes()[0], rng).unwrap());
        (backend, session, base)
    }

    fn unlocked(backend: &MemoryBackend, rng: &mut ChaCha20Rng) -> (Session, VolumeBase) {
        let locked = Container::open(backend.another_handle()).unwrap();
        let session = locked.unlock(&Passphrase::new("copper lantern"), TINY, rng, Duration::ZERO).unwrap();
        let base = VolumeBase::new(session.open_volume(session.volumes()[0], rng).unwrap());
        (session, base)
    }

    fn key(chat: u8, order: u64) -> Vec<u8> {
        [&[MessageRow::TABLE][..], &[chat; 16], &order.to_be_bytes()].concat()
    }

    fn all(base: &dyn Base) -> Vec<(Vec<u8>, Zeroizing<Vec<u8>>)> {
        base.range(&[], &[0xff; 64], usize::MAX, false).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn runs_of_messages_are_put_like_any_other_records(
            seed: u64,
            commits in prop::collection::vec(
                prop::collection::vec((0u8..3, 0u64..80, 0usize..900, 0u8..8), 1..40), 1..12),
        ) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let (_backend, _session, base) = volume(&mut rng);
            let reference = MemoryBase::default();
            for commit in commits {
                let changes: Vec<_> = commit
                    .into_iter()
                    .map(|(chat, order, len, kind)| match kind {
                        // Another kind of record between them, a deletion, or a message.
                        0 => (vec![0x03, chat], Some(Zeroizing::new(vec![kind; len]))),
                        1 => (key(chat, order), None),
                        _ => (key(chat, order), Some(Zeroizing::new(vec![kind; len]))),
                    })
                    .collect();
                base.commit(changes.iter().cloned().collect()).unwrap();
                reference.commit(changes.into_iter().collect()).unwrap();
                prop_assert_eq!(all(&base), all(&reference));
            }
        }
    }

    #[test]
    fn messages_of_one_commit_leave_their_pages_full() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (_backend, _session, base) = volume(&mut rng);
        const LEN: usize = 400;
        for round in 0..10 {
            let of = |chat| (round * 20..(round + 1) * 20).map(move |order| key(chat, order));
            let messages = (0..4).flat_map(of).map(|key| (key, Some(Zeroizing::new(vec![7; LEN]))));
            base.commit(messages.collect()).unwrap();
        }
        let bytes = all(&base).iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64;
        let read = base.volume.begin_read().unwrap();
        let stats = redb::ReadableTableMetadata::stats(&read.open_table(Place::Shared.definition()).unwrap())
            .unwrap();
        // One after the other they would fill 57 of a hundred bytes.
        assert!(stats.leaf_pages() * 4096 * 75 < bytes * 100, "{} pages, {bytes} bytes", stats.leaf_pages());
    }

    #[test]
    fn what_does_not_fit_says_so_and_changes_nothing() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let (_backend, _session, base) = volume(&mut rng);
        base.commit([(key(1, 1), Some(Zeroizing::new(vec![1])))].into_iter().collect()).unwrap();
        let before = all(&base);
        let messages = (2..400).map(|order| (key(1, order), Some(Zeroizing::new(vec![7; 16 << 10]))));
        assert!(matches!(base.commit(messages.collect()), Err(StoreError::Full)));
        assert_eq!(all(&base), before);
    }

    #[test]
    fn what_takes_the_place_of_other_records_fits_where_nothing_else_does() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let (_backend, _session, base) = volume(&mut rng);
        let value = |len: usize| Some(Zeroizing::new(vec![5; len]));
        let other = |number: u8| vec![0x35, number];
        base.commit([(other(0), value(60 << 10))].into_iter().collect()).unwrap();
        let mut order = 0;
        let full = loop {
            order += 1;
            match base.commit([(key(1, order), value(8 << 10))].into_iter().collect()) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StoreError::Full));
        let big = [(other(1), value(60 << 10))];
        assert!(matches!(base.commit(big.iter().cloned().collect()), Err(StoreError::Full)));
        base.commit([(other(0), None)].into_iter().chain(big).collect()).unwrap();
        assert_eq!(
            (base.get(&other(0)).unwrap(), base.get(&other(1)).unwrap().map(|v| v.len())),
            (None, Some(60 << 10))
        );
    }

    #[test]
    fn key_of_a_unit_that_is_committed_is_there_after_an_unlock_and_that_of_another_is_not() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (backend, session, base) = volume(&mut rng);
        let made = base.make_body_key(&[1; 16]).unwrap();
        assert_eq!(base.make_body_key(&[1; 16]).unwrap(), made);
        assert_eq!(base.body_key(&[1; 16]).unwrap(), Some(made.clone()));
        base.commit([(key(1, 1), Some(Zeroizing::new(vec![1])))].into_iter().collect()).unwrap();
        base.make_body_key(&[2; 16]).unwrap();
        drop((base, session));
        let (_session, base) = unlocked(&backend, &mut rng);
        assert_eq!(base.body_key(&[1; 16]).unwrap(), Some(made));
        assert_eq!(base.body_key(&[2; 16]).unwrap(), None);
    }
}
