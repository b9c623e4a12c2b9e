//! What is left of deleted and replaced rows, for who has the volume's key and the image: nothing, once the volume was
//! closed, or opened again after a session that did not end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use lapwing_vault::{
    redb::TableDefinition,
    testing::{self, Call, RecordingBackend, power_cut},
    *,
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};
use world::*;

const BYTES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("bytes");
const FIXED: TableDefinition<'static, u64, [u8; 40]> = TableDefinition::new("fixed");
const TOKEN: &[u8] = b"canary-";
const TOKEN_LEN: usize = 7 + 8;

fn token(number: u64) -> Vec<u8> {
    [TOKEN, format!("{number:08}").as_bytes()].concat()
}

/// Numbers of all whole tokens in what the volume's key opens.
fn planted(session: &Session, volume: VolumeId) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let zeros = [0; 8192];
    // Comparing is quick where windows are not, and most units hold zeros.
    for plaintext in testing::plaintexts(session, volume).iter().filter(|text| ***text != zeros[..text.len()])
    {
        for at in plaintext.windows(TOKEN_LEN).filter(|window| window.starts_with(TOKEN)) {
            found.extend(
                std::str::from_utf8(&at[TOKEN.len()..]).ok().and_then(|digits| digits.parse::<u64>().ok()),
            );
        }
    }
    found
}

/// Rows by table and key, as they should be.
type Model = BTreeMap<(u8, u64), u64>;

struct Planter {
    rng: ChaCha20Rng,
    next: u64,
    rows: Model,
}

impl Planter {
    fn new(seed: u64) -> Self {
        Self { rng: ChaCha20Rng::seed_from_u64(seed), next: 1, rows: Model::new() }
    }

    fn live(&self) -> BTreeSet<u64> {
        self.rows.values().copied().collect()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// Changes rows in one transaction, and commits it or not.
    fn change(&mut self, volume: &Volume, steps: u64) {
        let write = volume.begin_cleanup().unwrap();
        let before = self.rows.clone();
        for _ in 0..steps {
            let (table, key) = (u8::try_from(self.below(3)).unwrap(), self.below(60));
            if self.below(3) == 0 {
                match table {
                    0 => drop(write.open_table(BYTES).unwrap().remove(row_key(key).as_slice()).unwrap()),
                    1 => drop(write.open_table(FIXED).unwrap().remove(key).unwrap()),
                    _ => drop(write.open_table(TABLE).unwrap().remove(key).unwrap()),
                }
                self.rows.remove(&(table, key));
                continue;
            }
            let number = self.next;
            self.next += 1;
            // Mostly short, shorter and longer than before; now and then over several pages.
            let repeat = match self.below(20) {
                0 => 200 + self.below(900),
                1..5 => 20 + self.below(80),
                _ => 1 + self.below(12),
            };
            let value = token(number).repeat(usize::try_from(repeat).unwrap());
            match table {
                0 => {
                    let mut rows = write.open_table(BYTES).unwrap();
                    rows.insert(row_key(key).as_slice(), value.as_slice()).unwrap();
                }
                1 => {
                    let mut fixed = [b'.'; 40];
                    fixed[..TOKEN_LEN].copy_from_slice(&value[..TOKEN_LEN]);
                    write.open_table(FIXED).unwrap().insert(key, fixed).unwrap();
                }
                _ => {
                    let value = std::str::from_utf8(&value).unwrap();
                    write.open_table(TABLE).unwrap().insert(key, value).unwrap();
                }
            }
            self.rows.insert((table, key), number);
        }
        if self.below(15) == 0 {
            write.delete_table(FIXED).unwrap();
            self.rows.retain(|(table, _), _| *table != 1);
        }
        if self.below(8) == 0 {
            write.abort().unwrap();
            self.rows = before;
        } else {
            write.commit().unwrap();
        }
    }
}

fn row_key(key: u64) -> Vec<u8> {
    [b"row".as_slice(), &(key * 0x0123_4567_89ab_cdef).to_be_bytes(), &[7; 9]].concat()
}

fn rows_of(volume: &Volume) -> Model {
    let read = volume.begin_read().unwrap();
    let number = |value: &[u8]| {
        let digits = &value[TOKEN.len()..TOKEN_LEN];
        std::str::from_utf8(digits).unwrap().parse::<u64>().unwrap()
    };
    let mut rows = Model::new();
    for key in 0..60 {
        if let Ok(table) = read.open_table(BYTES)
            && let Some(value) = table.get(row_key(key).as_slice()).unwrap()
        {
            rows.insert((0, key), number(value.value()));
        }
        if let Ok(table) = read.open_table(FIXED)
            && let Some(value) = table.get(key).unwrap()
        {
            rows.insert((1, key), number(&value.value()));
        }
        if let Ok(table) = read.open_table(TABLE)
            && let Some(value) = table.get(key).unwrap()
        {
            rows.insert((2, key), number(value.value().as_bytes()));
        }
    }
    rows
}

#[test]
fn vlt_57_59_after_closing_no_unit_holds_what_was_deleted_replaced_or_undone() {
    let mut left_behind = 0;
    for seed in 0..6 {
        let mut world = World::new(100 + seed);
        let session = world.create("real");
        let id = session.volumes()[0];
        let mut planter = Planter::new(seed);
        for round in 0..8 {
            let volume = session.open_volume(id, &mut world.rng).unwrap();
            for _ in 0..=planter.below(6) {
                let steps = 1 + planter.below(40);
                planter.change(&volume, steps);
            }
            let live = planter.live();
            left_behind += planted(&session, id).difference(&live).count();
            match round % 3 {
                0 => volume.scrub().unwrap(),
                1 => volume.compact_and_scrub().unwrap(),
                _ => volume.close().unwrap(),
            }
            assert_eq!(planted(&session, id), live, "seed {seed}, round {round}");
        }
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert_eq!(rows_of(&volume), planter.rows);
    }
    assert!(left_behind > 100, "there was nothing to scrub: {left_behind}");
}

#[test]
fn vlt_57_session_that_did_not_end_is_scrubbed_by_the_next_opening() {
    let mut world = World::new(120);
    let session = world.create("real");
    let id = session.volumes()[0];
    let mut planter = Planter::new(7);
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    let mut left_behind = 0;
    for _ in 0..6 {
        planter.change(&volume, 30);
        // As a killed process leaves the disk.
        let killed = MemoryBackend::with_image(world.backend.image());
        let session = unlock(killed.another_handle(), "real", &mut world.rng).unwrap();
        left_behind += planted(&session, id).difference(&planter.live()).count();
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert_eq!(planted(&session, id), planter.live());
        assert_eq!(rows_of(&volume), planter.rows);
    }
    assert!(left_behind > 10, "{left_behind}");
    // What was never committed is not left either.
    let write = volume.begin_write().unwrap();
    let huge = token(99_999_999).repeat(400_000);
    assert!(write.open_table(BYTES).unwrap().insert(&b"x"[..], huge.as_slice()).is_err());
    drop(write);
    let write = volume.begin_write().unwrap();
    let text = token(99_999_999).repeat(30_000);
    write.open_table(BYTES).unwrap().insert(&b"x"[..], text.as_slice()).unwrap();
    write.abort().unwrap();
    volume.close().unwrap();
    assert_eq!(planted(&session, id), planter.live());
}

#[test]
fn vlt_58_reading_writes_nothing_to_the_region() {
    let mut world = World::new(121);
    let session = world.create("real");
    let id = session.volumes()[0];
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    put(&volume, 1, "here");
    drop((volume, session));
    let before = world.backend.image();
    let recording = RecordingBackend::with_image(before.clone());
    let session = unlock(recording.clone(), "real", &mut world.rng).unwrap();
    let _unlock = recording.take_calls();
    for _ in 0..3 {
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert_eq!(get(&volume, 1).as_deref(), Some("here"));
        assert!(volume.usage().unwrap().used > 0);
        volume.begin_write().unwrap().abort().unwrap();
        volume.scrub().unwrap();
        assert_eq!(get(&volume, 1).as_deref(), Some("here"));
        volume.close().unwrap();
    }
    let calls = recording.take_calls();
    assert!(calls.iter().all(|call| matches!(call, Call::Read { .. })), "{calls:?}");
    assert_eq!(recording.image()[143_360..], before[143_360..]);
}

/// What the newest superblock says: whether the region is scrubbed, and whether the database was closed.
fn superblock(session: &Session, volume: VolumeId) -> (bool, bool) {
    const PLAIN_LEN: usize = 8 + 8 + 8 + 4096;
    const FLAGS_AT: usize = 24 + 9;
    let number = |text: &[u8], at: usize| u64::from_le_bytes(text[at..at + 8].try_into().unwrap());
    let texts = testing::plaintexts(session, volume);
    let pair: Vec<&[u8]> =
        texts.iter().map(|text| text.as_slice()).filter(|text| text.len() == PLAIN_LEN).collect();
    let newest = match pair[..] {
        [one, other] if number(other, 0).wrapping_sub(number(one, 0)) < 1 << 63 => other,
        [one, ..] => one,
        [] => panic!("no superblock opens"),
    };
    (number(newest, 16) == 1, newest[FLAGS_AT] & 2 == 0)
}

/// A session after it that reads alone is no exception.
#[test]
fn vlt_57_58_after_a_kill_the_opening_says_scrubbed_of_a_closed_database_and_nothing_else_is_written() {
    let mut world = World::new(125);
    let session = world.create("real");
    let id = session.volumes()[0];
    assert_eq!(superblock(&session, id), (true, true));
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    assert_eq!(superblock(&session, id), (true, true));
    put(&volume, 1, "here");
    assert_eq!(superblock(&session, id), (false, false));
    let killed = world.backend.image();
    volume.close().unwrap();
    assert_eq!(superblock(&session, id), (true, true));
    drop(session);

    let recording = RecordingBackend::with_image(killed);
    let session = unlock(recording.clone(), "real", &mut world.rng).unwrap();
    session.open_volume(id, &mut world.rng).unwrap().close().unwrap();
    assert_eq!(superblock(&session, id), (true, true));
    let _opening = recording.take_calls();
    for _ in 0..2 {
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert_eq!(get(&volume, 1).as_deref(), Some("here"));
        volume.close().unwrap();
    }
    drop(session);
    let calls = recording.take_calls();
    assert!(calls.iter().all(|call| matches!(call, Call::Read { .. })), "{calls:?}");
    let session = unlock(recording.clone(), "real", &mut world.rng).unwrap();
    assert_eq!(superblock(&session, id), (true, true));
}

#[test]
fn vlt_57_scrub_costs_what_was_written_and_not_the_region() {
    let mut world = World::new(122);
    let session = world.create("real");
    let id = session.volumes()[0];
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    for key in 0..200 {
        put(&volume, key, &"x".repeat(3000));
    }
    drop((volume, session));
    let recording = RecordingBackend::with_image(world.backend.image());
    let session = unlock(recording.clone(), "real", &mut world.rng).unwrap();
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    put(&volume, 7, "short");
    let before = recording.take_calls().iter().filter(|call| matches!(call, Call::Sync)).count();
    volume.close().unwrap();
    let calls = recording.take_calls();
    let count = |of: fn(&Call) -> bool| calls.iter().filter(|call| of(call)).count();
    let [reads, writes, syncs] = [
        count(|call| matches!(call, Call::Read { .. })),
        count(|call| matches!(call, Call::Write { .. })),
        count(|call| matches!(call, Call::Sync)),
    ];
    // Three for the unlock, one to say that the region is not scrubbed, two for the commit.
    assert_eq!(before, 6);
    assert!(reads < 40 && writes < 40 && syncs == 4, "{reads} {writes} {syncs}");
}

#[test]
fn vlt_54_first_phase_of_a_commit_writes_pages_alone_and_the_second_page_0_alone() {
    const SUPERBLOCK_LEN: usize = 4160;
    let mut world = World::new(124);
    let session = world.create("real");
    let id = session.volumes()[0];
    drop(session);
    let recording = RecordingBackend::with_image(world.backend.image());
    let session = unlock(recording.clone(), "real", &mut world.rng).unwrap();
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    // The first page since the opening is preceded by the word that the region is not scrubbed.
    put(&volume, 1, "first");
    let _before = recording.take_calls();
    for key in 2..5 {
        put(&volume, key, "another");
        let calls = recording.take_calls();
        let writes: Vec<Vec<bool>> = calls
            .split(|call| *call == Call::Sync)
            .map(|phase| {
                let of_page_0 = |call: &Call| match call {
                    Call::Write { bytes, .. } => Some(bytes.len() == SUPERBLOCK_LEN),
                    _ => None,
                };
                phase.iter().filter_map(of_page_0).collect()
            })
            .collect();
        let [pages, page_0, rest] = &writes[..] else { panic!("{writes:?}") };
        assert!(!pages.is_empty() && pages.iter().all(|of_page_0| !of_page_0), "{writes:?}");
        assert!(*page_0 == [true] && rest.is_empty(), "{writes:?}");
    }
}

/// Cuts the power at every write-side call of `operation`, which works on `base`, and lets `check` see each image.
fn cut_at_every_call(
    base: &[u8],
    id: VolumeId,
    operation: impl FnOnce(Volume),
    mut check: impl FnMut(&MemoryBackend, usize, &mut ChaCha20Rng),
) -> usize {
    let mut rng = ChaCha20Rng::seed_from_u64(78);
    let recording = RecordingBackend::with_image(base.to_vec());
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    let start = recording.call_count();
    operation(volume);
    drop(session);
    let calls = recording.take_calls();
    let writing = |cut: &usize| calls.get(*cut).is_none_or(|call| !matches!(call, Call::Read { .. }));
    let cuts: Vec<usize> = (start..=calls.len()).filter(writing).collect();
    for cut in &cuts {
        let mut torn = ChaCha20Rng::seed_from_u64(*cut as u64);
        let image = power_cut(base, &calls, *cut, &mut torn);
        check(&MemoryBackend::with_image(image), *cut, &mut rng);
    }
    cuts.len()
}

#[test]
fn vlt_57_power_cut_at_every_call_of_deleting_closing_and_packing_loses_and_leaves_nothing() {
    let mut world = World::new(123);
    let session = world.create("real");
    let id = session.volumes()[0];
    let mut planter = Planter::new(9);
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    for _ in 0..4 {
        planter.change(&volume, 25);
    }
    drop((volume, session));
    let base = world.backend.image();
    let (before, after) = (planter.rows.clone(), {
        let mut rows = planter.rows.clone();
        rows.retain(|(_, key), _| key % 2 == 1);
        rows
    });
    let delete = |volume: &Volume| {
        let write = volume.begin_cleanup().unwrap();
        for key in (0..60).step_by(2) {
            write.open_table(BYTES).unwrap().remove(row_key(key).as_slice()).unwrap();
            write.open_table(FIXED).unwrap().remove(key).unwrap();
            write.open_table(TABLE).unwrap().remove(key).unwrap();
        }
        write.commit().unwrap();
    };
    let live = |rows: &Model| rows.values().copied().collect::<BTreeSet<u64>>();
    let mut outcomes = [0; 2];
    let mut check = |backend: &MemoryBackend, cut: usize, rng: &mut ChaCha20Rng| {
        let session = unlock(backend.another_handle(), "real", rng).unwrap();
        let volume = session.open_volume(id, rng).unwrap();
        let rows = rows_of(&volume);
        assert!(rows == before || rows == after, "between at {cut}");
        outcomes[usize::from(rows == after)] += 1;
        assert_eq!(planted(&session, id), live(&rows), "left at {cut}");
        assert_eq!(superblock(&session, id), (true, true), "at {cut}");
        volume.close().unwrap();
        assert_eq!(planted(&session, id), live(&rows), "left at {cut} after closing");
    };
    let cuts = cut_at_every_call(&base, id, |volume| delete(&volume), &mut check);
    let packed = cut_at_every_call(
        &base,
        id,
        |volume| {
            delete(&volume);
            volume.compact_and_scrub().unwrap();
            put(&volume, 1000, "and on");
        },
        &mut check,
    );
    assert!(cuts > 20 && packed > 40, "{cuts} {packed}");
    assert!(outcomes.iter().all(|count| *count > 5), "{outcomes:?}");

    // The opening after a crash writes too: cut there as well.
    let recording = RecordingBackend::with_image(base.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(79);
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    delete(&volume);
    let crashed = recording.image();
    drop((volume, session));
    let cuts = cut_at_every_opening(&crashed, id, |backend, cut, rng| {
        let session = unlock(backend.another_handle(), "real", rng).unwrap();
        let volume = session.open_volume(id, rng).unwrap();
        assert!(rows_of(&volume) == after, "lost at {cut}");
        assert_eq!(planted(&session, id), live(&after), "left at {cut}");
    });
    assert!(cuts > 10, "{cuts}");
}

/// Cuts the power at every write-side call of opening a volume and closing it again.
fn cut_at_every_opening(
    base: &[u8],
    id: VolumeId,
    mut check: impl FnMut(&MemoryBackend, usize, &mut ChaCha20Rng),
) -> usize {
    let mut rng = ChaCha20Rng::seed_from_u64(80);
    let recording = RecordingBackend::with_image(base.to_vec());
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let start = recording.call_count();
    session.open_volume(id, &mut rng).unwrap().close().unwrap();
    drop(session);
    let calls = recording.take_calls();
    let writing = |cut: &usize| calls.get(*cut).is_none_or(|call| !matches!(call, Call::Read { .. }));
    let cuts: Vec<usize> = (start..=calls.len()).filter(writing).collect();
    for cut in &cuts {
        let mut torn = ChaCha20Rng::seed_from_u64(*cut as u64);
        check(&MemoryBackend::with_image(power_cut(base, &calls, *cut, &mut torn)), *cut, &mut rng);
    }
    cuts.len()
}
