//! The database in a volume: full regions, damaged units, keys, and what is left of deleted rows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use lapwing_vault::{
    testing::{self, RecordingBackend},
    *,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use redb::ReadableTable;
use world::*;

fn volume(seed: u64) -> (World, Session, Volume) {
    let mut world = World::new(seed);
    let session = world.create("real");
    let volume = session.open_volume(session.volumes()[0], &mut world.rng).unwrap();
    (world, session, volume)
}

fn try_put(volume: &Volume, key: u64, value: &str) -> Result<(), VolumeError> {
    let write = volume.begin_write()?;
    write.open_table(TABLE)?.insert(key, value)?;
    write.commit()
}

#[test]
fn vlt_56_full_volume_says_so_loses_nothing_and_goes_on_after_deleting() {
    let (_world, _session, volume) = volume(50);
    let value = "x".repeat(3000);
    let mut stored = 0;
    let error = loop {
        match try_put(&volume, stored, &value) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, VolumeError::Full), "{error:?}");
    let usage = volume.usage().unwrap();
    assert!(usage.used >= usage.limit && usage.used < usage.capacity, "{usage:?}");
    assert!(usage.limit * 10 >= usage.capacity * 8, "{usage:?}");
    assert!(matches!(volume.begin_write(), Err(VolumeError::Full)));
    for key in 0..stored {
        assert_eq!(get(&volume, key).unwrap().len(), 3000);
    }
    for key in 0..stored / 2 {
        let cleanup = volume.begin_cleanup().unwrap();
        cleanup.open_table(TABLE).unwrap().remove(key).unwrap();
        cleanup.commit().unwrap();
    }
    for key in 0..stored / 4 {
        try_put(&volume, key, &value).unwrap();
    }
    assert_eq!(get(&volume, stored - 1).unwrap().len(), 3000);
}

#[test]
fn transaction_that_does_not_fit_is_undone_and_the_volume_goes_on() {
    let (_world, _session, volume) = volume(51);
    put(&volume, 1, "kept");
    let huge = "x".repeat(3 << 20);
    for _ in 0..2 {
        assert!(matches!(try_put(&volume, 2, &huge), Err(VolumeError::Full)));
        assert_eq!(get(&volume, 1).as_deref(), Some("kept"));
        assert_eq!(get(&volume, 2), None);
        put(&volume, 3, "after");
    }
    // Most of the region in one transaction, which doubling alone would not reach.
    let large = "y".repeat(500 << 10);
    put(&volume, 4, &large);
    put(&volume, 5, &large);
    assert_eq!(get(&volume, 5).unwrap().len(), large.len());
}

#[test]
fn full_disk_is_an_error_and_what_was_committed_stays() {
    let mut world = World::new(52);
    drop(world.create("real"));
    let recording = RecordingBackend::with_image(world.backend.image());
    let session = unlock(recording.clone(), "real", &mut world.rng).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut world.rng).unwrap();
    put(&volume, 1, "kept");
    recording.set_full(true);
    assert!(try_put(&volume, 2, "lost").is_err());
    assert!(volume.keys().get_or_create(KeyName([1; 16])).is_err());
    assert_eq!(get(&volume, 1).as_deref(), Some("kept"), "reading goes on");
    recording.set_full(false);
    assert_eq!(get(&volume, 1).as_deref(), Some("kept"));
    assert_eq!(volume.keys().get(KeyName([1; 16])).unwrap().map(|key| *key.expose()), None);
    put(&volume, 2, "stored");
    volume.keys().get_or_create(KeyName([1; 16])).unwrap();
    drop((volume, session));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let session = unlock(MemoryBackend::with_image(recording.image()), "real", &mut rng).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
    assert_eq!(get(&volume, 2).as_deref(), Some("stored"));
    assert_eq!(volume.keys().len().unwrap(), 1);
}

#[test]
fn vlt_51_unreadable_volume_is_never_taken_for_an_empty_one() {
    let (mut world, session, volume) = volume(53);
    put(&volume, 1, "kept");
    let id = volume.id();
    drop((volume, session));
    let image = world.backend.image();
    // Geometry of the smallest container: superblocks after 16 KiB of allocation units and 56 KiB of keys.
    let region_len = (8u64 << 20).saturating_sub(143_360) / 4 / 4096 * 4096;
    let mut damaged = 0;
    for region in 0..4 {
        let superblocks = usize::try_from(143_360 + region * region_len).unwrap() + 16_384 + 57_344;
        let mut image = image.clone();
        image[superblocks + 100] ^= 1;
        image[superblocks + 8192 + 100] ^= 1;
        let session = unlock(MemoryBackend::with_image(image), "real", &mut world.rng).unwrap();
        match session.open_volume(id, &mut world.rng) {
            Ok(volume) => assert_eq!(get(&volume, 1).as_deref(), Some("kept")),
            Err(VolumeError::Damaged) => damaged += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(damaged, 1);
}

#[test]
fn vlt_51_volume_without_allocation_units_is_damaged_and_its_region_stays_reserved() {
    let (mut world, session, volume) = volume(54);
    let id = volume.id();
    drop((volume, session));
    let mut image = world.backend.image();
    let region_len = ((8 << 20) - 143_360) / 4 / 4096 * 4096;
    for region in 0..4 {
        for copy in 0..2 {
            image[143_360 + region * region_len + copy * 8192] ^= 1;
        }
    }
    let mut session = unlock(MemoryBackend::with_image(image), "real", &mut world.rng).unwrap();
    assert_eq!(session.volumes(), [id]);
    assert!(matches!(session.open_volume(id, &mut world.rng), Err(VolumeError::Damaged)));
    assert!(matches!(session.create_volume(id, b"x", &mut world.rng), Err(ChangeError::UnknownVolume)));
}

#[test]
fn flipped_bit_in_a_page_is_an_error_and_never_other_content() {
    let (mut world, session, volume) = volume(55);
    let id = volume.id();
    put(&volume, 1, &"z".repeat(200_000));
    drop((volume, session));
    let clean = world.backend.image();
    let mut failures = 0;
    for at in (300_000..clean.len()).step_by(61_441) {
        let mut image = clean.clone();
        image[at] ^= 0x40;
        let Ok(session) = unlock(MemoryBackend::with_image(image), "real", &mut world.rng) else { continue };
        let Ok(volume) = session.open_volume(id, &mut world.rng) else {
            failures += 1;
            continue;
        };
        let read = volume.begin_read().unwrap();
        match read.open_table(TABLE).map(|table| table.get(1).map(|value| value.unwrap().value().to_owned()))
        {
            Ok(Ok(value)) => assert!(value == "z".repeat(200_000)),
            _ => failures += 1,
        }
    }
    assert!(failures > 0);
}

#[test]
fn vlt_57_deleted_rows_are_nowhere_after_compacting_even_with_the_key() {
    let (world, session, volume) = volume(56);
    let marker = "the-marker-that-must-disappear";
    for key in 0..60u64 {
        put(&volume, key, &format!("{} {marker} {key}", "x".repeat(usize::try_from(key * 40).unwrap())));
    }
    put(&volume, 1000, "this one stays");
    assert!(testing::pages_containing(&session, volume.id(), marker.as_bytes()) > 0);
    for key in 0..60 {
        let cleanup = volume.begin_cleanup().unwrap();
        cleanup.open_table(TABLE).unwrap().remove(key).unwrap();
        cleanup.commit().unwrap();
    }
    assert!(testing::pages_containing(&session, volume.id(), marker.as_bytes()) > 0);
    let read = volume.begin_read().unwrap();
    assert!(matches!(volume.compact_and_scrub(), Err(VolumeError::InUse)));
    drop(read);
    volume.compact_and_scrub().unwrap();
    assert_eq!(testing::pages_containing(&session, volume.id(), marker.as_bytes()), 0);
    assert_eq!(get(&volume, 1000).as_deref(), Some("this one stays"));
    put(&volume, 1, "and it goes on");
    drop((volume, session, world));
}

#[test]
fn vlt_57_scrubbing_holds_when_rows_stay_between_deleted_ones() {
    let (_world, session, volume) = volume(57);
    let marker = "gone-for-good";
    for round in 0..5u64 {
        let write = volume.begin_write().unwrap();
        {
            let mut table = write.open_table(TABLE).unwrap();
            for key in 0..80u64 {
                let kept = key % 4 == 0;
                let text = if kept { "stays" } else { marker };
                table.insert(round * 100 + key, format!("{text} {}", "y".repeat(700)).as_str()).unwrap();
            }
        }
        write.commit().unwrap();
    }
    let write = volume.begin_cleanup().unwrap();
    write.open_table(TABLE).unwrap().retain(|_, value| !value.starts_with(marker)).unwrap();
    write.commit().unwrap();
    volume.compact_and_scrub().unwrap();
    assert_eq!(testing::pages_containing(&session, volume.id(), marker.as_bytes()), 0);
    let read = volume.begin_read().unwrap();
    assert_eq!(read.open_table(TABLE).unwrap().iter().unwrap().count(), 100);
}

#[test]
fn vlt_57_volume_at_its_limit_can_be_compacted() {
    let (_world, session, volume) = volume(60);
    let text = |key: u64| if key.is_multiple_of(2) { "doomed-text " } else { "kept-text " }.repeat(200);
    let mut stored = 0;
    while try_put(&volume, stored, &text(stored)).is_ok() {
        stored += 1;
    }
    // Half of it stays: more than packing has room for, as it doubles the length of what is in use.
    for key in (0..stored).step_by(2) {
        let cleanup = volume.begin_cleanup().unwrap();
        cleanup.open_table(TABLE).unwrap().remove(key).unwrap();
        cleanup.commit().unwrap();
    }
    let doomed = |session: &Session| testing::pages_containing(session, volume.id(), b"doomed-text");
    assert!(doomed(&session) > 0);
    volume.compact_and_scrub().unwrap();
    assert_eq!(doomed(&session), 0);
    volume.compact_and_scrub().unwrap();
    let read = volume.begin_read().unwrap();
    assert_eq!(read.open_table(TABLE).unwrap().iter().unwrap().count() as u64, stored / 2);
    drop(read);
    put(&volume, 0, "and it goes on");
    let id = volume.id();
    drop(volume);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    assert_eq!(get(&session.open_volume(id, &mut rng).unwrap(), 0).as_deref(), Some("and it goes on"));
}

#[test]
fn keys_fill_the_table_survive_and_are_destroyed() {
    let (mut world, session, volume) = volume(58);
    let name = |n: usize| {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&(n as u64).to_le_bytes());
        KeyName(name)
    };
    let capacity = volume.keys().capacity();
    assert_eq!(capacity, 574);
    let keys: Vec<[u8; 32]> =
        (0..capacity).map(|n| *volume.keys().get_or_create(name(n)).unwrap().expose()).collect();
    assert!(matches!(volume.keys().get_or_create(name(capacity)), Err(VolumeError::KeyTableFull)));
    assert_eq!(*volume.keys().get_or_create(name(7)).unwrap().expose(), keys[7]);
    let id = volume.id();
    drop((volume, session));
    let session = world.unlock("real").unwrap();
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(volume.keys().get(name(n)).unwrap().unwrap().expose(), key);
    }
    let doomed: Vec<KeyName> = (0..capacity).filter(|n| n % 2 == 0).map(name).collect();
    volume.keys().destroy(&doomed).unwrap();
    volume.keys().destroy(&doomed).unwrap();
    assert_eq!(volume.keys().len().unwrap(), capacity / 2);
    let fresh = *volume.keys().get_or_create(name(0)).unwrap().expose();
    assert_ne!(fresh, keys[0]);
    // No copy of a destroyed key is in any unit of the table, not even with the volume's key.
    for n in (0..capacity).step_by(20) {
        assert_eq!(testing::key_units_containing(&session, id, &keys[n]), 0, "{n}");
    }
    assert_eq!(testing::key_units_containing(&session, id, &keys[1]), 2);
}

#[test]
fn vlt_63_key_is_found_in_its_place_whatever_became_of_the_rest_of_the_table() {
    let (world, session, volume) = volume(66);
    let name = |n: u8| KeyName([n; 16]);
    let keys: Vec<[u8; 32]> =
        (0..30).map(|n| *volume.keys().get_or_create(name(n)).unwrap().expose()).collect();
    let id = volume.id();
    let units: Vec<u64> = testing::key_unit_offsets(&session, id);
    drop((volume, session));
    let image = world.backend.image();
    let mut rng = ChaCha20Rng::seed_from_u64(67);
    let (mut found, mut unknown) = (0, 0);
    for unit in &units {
        let mut rotten = image.clone();
        let at = usize::try_from(*unit).unwrap();
        [at + 50, at + 4096 + 50].into_iter().for_each(|at| rotten[at] ^= 1);
        let session = unlock(MemoryBackend::with_image(rotten), "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        for (n, key) in (0..).zip(&keys) {
            match volume.keys().get(name(n)) {
                Ok(Some(known)) => {
                    assert_eq!(known.expose(), key);
                    found += 1;
                }
                // Where it should be is damaged: that it is nowhere else does not mean that it never was.
                Err(VolumeError::Damaged) => unknown += 1,
                other => panic!("{other:?}"),
            }
        }
        // A name that nobody used may lie there just as well.
        assert!(matches!(volume.keys().get(name(99)), Err(VolumeError::Damaged)));
        // What is known is destroyed, and it says so.
        let there = (0..30).find(|n| matches!(volume.keys().get(name(*n)), Ok(Some(_)))).unwrap();
        volume.keys().destroy(&[name(there)]).unwrap();
        assert_eq!(testing::key_units_containing(&session, id, &keys[usize::from(there)]), 0);
        // VLT-64: the unit that does not open stays as it is, and might have had it too.
        assert!(matches!(volume.keys().get(name(there)), Err(VolumeError::Damaged)));
    }
    // Each key lies in one of the units.
    assert_eq!((found, unknown), (keys.len() * (units.len() - 1), keys.len()));
}

#[test]
fn session_and_volume_can_be_sent_to_another_thread() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let (mut world, session, volume) = volume(59);
    let session = sendable(session);
    let volume = sendable(volume);
    let id = volume.id();
    std::thread::spawn(move || put(&volume, 1, "from elsewhere")).join().unwrap();
    assert_eq!(get(&session.open_volume(id, &mut world.rng).unwrap(), 1).as_deref(), Some("from elsewhere"));
}

#[test]
fn vlt_56_reserve_is_enough_to_delete_whatever_was_stored_and_to_close() {
    for (seed, len) in [(61, 40), (62, 700), (63, 3000), (64, 9000), (65, 60_000)] {
        let (mut world, session, volume) = volume(seed);
        let id = volume.id();
        let value = "x".repeat(len);
        let mut stored = 0u64;
        loop {
            // Many rows at once as long as there is room, so that small ones do not take minutes.
            let write = match volume.begin_write() {
                Ok(write) => write,
                Err(VolumeError::Full) => break,
                Err(other) => panic!("{other}"),
            };
            let batch = (40_000 / len as u64).max(1);
            {
                let mut table = write.open_table(TABLE).unwrap();
                for key in stored..stored + batch {
                    table.insert(key, value.as_str()).unwrap();
                }
            }
            write.commit().unwrap();
            stored += batch;
        }
        let full = volume.usage().unwrap();
        assert!(full.used >= full.limit && full.used <= full.capacity, "{full:?}");
        // Small necessary changes go on for a while.
        for n in 0..20 {
            let write = volume.begin_cleanup().unwrap();
            write.open_table(TABLE).unwrap().insert(u64::MAX - n, "a mark").unwrap();
            write.commit().unwrap();
        }
        volume.close().unwrap();
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert!(matches!(volume.begin_write(), Err(VolumeError::Full)));
        // Here and there first, which copies a page for every row; then one after another, in bulk.
        let mut left: Vec<u64> = (0..stored).collect();
        for batch in [1, 1, 2, 7, 10] {
            let write = volume.begin_cleanup().unwrap();
            for n in 0..batch.min(left.len() / 2) {
                let key = left.remove((n * 37 + 11) % left.len());
                assert!(write.open_table(TABLE).unwrap().remove(key).unwrap().is_some());
            }
            write.commit().unwrap();
        }
        for keys in left.chunks(50) {
            let write = volume.begin_cleanup().unwrap();
            for key in keys {
                assert!(write.open_table(TABLE).unwrap().remove(key).unwrap().is_some());
            }
            write.commit().unwrap();
        }
        assert!(volume.usage().unwrap().used * 4 < full.used, "{len}");
        volume.close().unwrap();
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert_eq!(get(&volume, u64::MAX).as_deref(), Some("a mark"));
        put(&volume, 5, &value);
    }
}

#[test]
fn vlt_56_volume_that_is_full_to_the_last_page_still_closes_opens_and_deletes() {
    let (mut world, session, volume) = volume(66);
    let id = volume.id();
    let value = "x".repeat(3000);
    let mut stored = 0;
    loop {
        let write = volume.begin_cleanup().unwrap();
        let inserted = write.open_table(TABLE).unwrap().insert(stored, value.as_str()).map(|_| ());
        if inserted.is_err() || write.commit().is_err() {
            break;
        }
        stored += 1;
    }
    assert_eq!(get(&volume, stored - 1).unwrap().len(), 3000);
    let usage = volume.usage().unwrap();
    assert!(usage.used * 100 > usage.capacity * 95, "{usage:?}");
    // Whether there is room to close in order or not, nothing is lost.
    let _closed = volume.close();
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    assert_eq!(get(&volume, 0).unwrap().len(), 3000);
    for key in 0..stored {
        let write = volume.begin_cleanup().unwrap();
        write.open_table(TABLE).unwrap().remove(key).unwrap();
        write.commit().unwrap();
    }
    volume.close().unwrap();
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    put(&volume, 1, "and on");
}

/// What a commit replaced waits for the next one to be freed: after a large one there is room for deleting all the same.
#[test]
fn vlt_56_a_large_commit_leaves_room_for_deleting() {
    let mut seen = [0; 3];
    for (rows, then) in (64..88).step_by(4).flat_map(|rows| [(rows, 0), (rows, 1), (rows, 2)]) {
        let mut world = World::new(56);
        let session = world.create("real");
        let volume = session.open_volume(session.volumes()[0], &mut world.rng).unwrap();
        let percent = |usage: Usage| usage.used * 100 / usage.capacity;
        let mut count = 0;
        while percent(volume.usage().unwrap()) < 79 {
            put(&volume, count, &"x".repeat(3900));
            count += 1;
        }
        let write = volume.begin_write().unwrap();
        let replaced = (|| {
            let mut table = write.open_table(TABLE)?;
            (0..rows)
                .try_for_each(|n| table.insert(n * count / rows, "y".repeat(3900).as_str()).map(drop))
                .map_err(redb::TableError::from)
        })();
        if replaced.is_err() || write.commit().is_err() {
            continue;
        }
        seen[then] += 1;
        // Nothing happens in between; somebody asks how full it is; it is killed, and then somebody asks.
        let (_session, volume) = if then == 2 {
            let image = MemoryBackend::with_image(world.backend.image());
            drop((volume, session));
            let session = unlock(image, "real", &mut world.rng).unwrap();
            let volume = session.open_volume(session.volumes()[0], &mut world.rng).unwrap();
            (session, volume)
        } else {
            (session, volume)
        };
        if then > 0 {
            volume.usage().unwrap();
        }
        let write = volume.begin_cleanup().unwrap();
        let mut table = write.open_table(TABLE).unwrap();
        (0..40).for_each(|n| drop(table.remove(n * 7).unwrap()));
        drop(table);
        write.commit().unwrap_or_else(|error| panic!("after {rows} of {count} rows, {then}: {error}"));
        volume.close().unwrap();
    }
    assert!(seen.iter().all(|seen| *seen > 2), "{seen:?}");
}
