//! The power fails at every write and every sync, and unsynced sectors are kept, lost or garbled: what comes
//! up afterwards is the state before or after, never between, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::collections::BTreeSet;

use lapwing_vault::{
    testing::{self, Call, RecordingBackend, power_cut},
    *,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

/// Torn images per cut.
const SEEDS: u64 = 2;

/// Runs `operation` on a session of `passphrase`, cuts the power at every call, and shows each image to
/// `check` with the number of the last header copy that was synced before the cut.
fn cut_everywhere(
    base: &[u8],
    passphrase: &str,
    operation: impl FnOnce(Session, &mut ChaCha20Rng),
    mut check: impl FnMut(&MemoryBackend, usize, &mut ChaCha20Rng),
) {
    let mut rng = ChaCha20Rng::seed_from_u64(77);
    let recording = RecordingBackend::with_image(base.to_vec());
    let session = unlock(recording.clone(), passphrase, &mut rng).unwrap();
    operation(session, &mut rng);
    let calls: Vec<Call> =
        recording.take_calls().into_iter().filter(|call| !matches!(call, Call::Read { .. })).collect();
    let tail = calls.len().saturating_sub(EDGE_CALLS);
    let middle = (EDGE_CALLS..tail).step_by((tail / 12).max(1));
    let cuts: BTreeSet<usize> =
        (0..=EDGE_CALLS.min(calls.len())).chain(middle).chain(tail..=calls.len()).collect();
    for cut in cuts {
        for seed in 0..SEEDS {
            let mut torn = ChaCha20Rng::seed_from_u64(cut as u64 * 100 + seed);
            let image = power_cut(base, &calls, cut, &mut torn);
            let synced_headers = synced_header_copies(&calls[..cut]);
            check(&MemoryBackend::with_image(image), synced_headers, &mut rng);
        }
    }
}

/// Operations of more than twice as many calls are cut at each of their first and last, and a few times in
/// between, where they only fill a region.
const EDGE_CALLS: usize = 9;

fn synced_header_copies(calls: &[Call]) -> usize {
    let mut pending = 0;
    let mut synced = 0;
    for call in calls {
        match call {
            Call::Write { bytes, .. } if bytes.len() == 69_632 => pending += 1,
            Call::Sync => synced += std::mem::take(&mut pending),
            Call::Write { .. } | Call::Read { .. } => {}
        }
    }
    synced
}

fn owner_with_cover(seed: u64, others: Others) -> (World, VolumeId, VolumeId, PayloadId) {
    let mut world = World::new(seed);
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    put(&session.open_volume(private, &mut world.rng).unwrap(), 1, "the plan");
    put(&session.open_volume(family, &mut world.rng).unwrap(), 1, "dinner");
    let spec =
        Spec { volumes: &[family], others, spare: &[], application: b"before", label: b"c", home: private };
    let cover = session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    (world, family, private, cover)
}

fn opens(backend: &MemoryBackend, passphrase: &str, rng: &mut ChaCha20Rng) -> Option<Session> {
    match unlock(backend.another_handle(), passphrase, rng) {
        Ok(session) => Some(session),
        Err(UnlockError::NotUnlocked) => None,
        Err(other) => panic!("{passphrase}: {other}"),
    }
}

#[test]
fn vlt_23_unlock_cut_anywhere_leaves_every_passphrase_opening() {
    let (world, _, private, _) = owner_with_cover(20, Others::Keep);
    cut_everywhere(
        &world.backend.image(),
        "real",
        |session, _| drop(session),
        |backend, _, rng| {
            assert_eq!(opens(backend, "cover", rng).unwrap().volumes().len(), 1);
            let session = opens(backend, "real", rng).unwrap();
            let volume = session.open_volume(private, rng).unwrap();
            assert_eq!(get(&volume, 1).as_deref(), Some("the plan"));
        },
    );
}

#[test]
fn vlt_26_destruction_that_reached_the_disk_is_never_undone() {
    let (world, family, _, _) = owner_with_cover(21, Others::Refresh);
    let mut outcomes = [0; 2];
    cut_everywhere(
        &world.backend.image(),
        "cover",
        |session, _| drop(session),
        |backend, synced, rng| {
            let before = backend.image();
            let alive = opens(backend, "real", rng).is_some();
            outcomes[usize::from(alive)] += 1;
            assert!(!alive || synced == 0, "the first synced copy decides");
            if !alive {
                // The answer to the dead passphrase overwrote the copy in which it still opened: cut there too.
                let recording = RecordingBackend::with_image(before.clone());
                assert!(unlock(recording.clone(), "real", rng).is_err());
                let calls = recording.take_calls();
                for cut in 0..=calls.len() {
                    let image = power_cut(&before, &calls, cut, rng);
                    assert!(opens(&MemoryBackend::with_image(image), "real", rng).is_none());
                }
            }
            let session = opens(backend, "cover", rng).unwrap();
            assert_eq!(get(&session.open_volume(family, rng).unwrap(), 1).as_deref(), Some("dinner"));
            drop(session);
            assert!(opens(backend, "real", rng).is_none());
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn adding_a_passphrase_is_all_or_nothing() {
    let (world, family, private, _) = owner_with_cover(22, Others::Keep);
    let mut outcomes = [0; 2];
    cut_everywhere(
        &world.backend.image(),
        "real",
        |mut session, rng| {
            let spec = Spec {
                volumes: &[family],
                others: Others::Keep,
                spare: &[],
                application: b"new",
                label: b"new",
                home: private,
            };
            session.add_passphrase(&Passphrase::new("new"), &spec, rng).unwrap();
        },
        |backend, synced, rng| {
            let added = opens(backend, "new", rng).is_some();
            outcomes[usize::from(added)] += 1;
            // Two copies belong to the unlock, two to the addition.
            assert!(added || synced < 3);
            let session = opens(backend, "real", rng).unwrap();
            assert_eq!(session.entries().len(), if added { 2 } else { 1 });
            drop(session);
            // The owner's payload keeps it, or its slots are as free as before.
            assert_eq!(opens(backend, "new", rng).is_some(), added);
            assert!(opens(backend, "cover", rng).is_some());
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn vlt_46_passphrase_for_less_moves_records_and_order_all_or_nothing() {
    let (world, family, private, cover) = owner_with_cover(33, Others::Keep);
    let mut rng = ChaCha20Rng::seed_from_u64(34);
    let mut session = opens(&world.backend, "real", &mut rng).unwrap();
    let work = session.create_volume(private, b"work", &mut rng).unwrap();
    let spec = |volumes| Spec {
        volumes,
        others: Others::Keep,
        spare: &[],
        application: b"",
        label: b"c",
        home: private,
    };
    // Nobody else opens `family` alone, so `work` may be named there until the addition.
    session.remove_entry(cover, &mut rng).unwrap();
    let (both, less) = ([family, work], [family]);
    session.add_passphrase(&Passphrase::new("both"), &spec(&both), &mut rng).unwrap();
    drop(session);
    assert_eq!(opens(&world.backend, "both", &mut rng).unwrap().volumes(), both);
    let mut outcomes = [0; 2];
    cut_everywhere(
        &world.backend.image(),
        "real",
        |mut session, rng| {
            session.add_passphrase(&Passphrase::new("less"), &spec(&less), rng).unwrap();
        },
        |backend, synced, rng| {
            let session = opens(backend, "both", rng).unwrap();
            let moved = session.volumes() == [work, family];
            assert!(moved || session.volumes() == both);
            assert!(session.found_volumes().is_empty());
            drop(session);
            // The other's order changes with the header that brings the passphrase, or not at all.
            let session = opens(backend, "less", rng);
            assert_eq!(session.is_some(), moved);
            assert!(moved || synced < 3);
            assert!(session.is_none_or(|session| session.found_volumes().is_empty()));
            outcomes[usize::from(moved)] += 1;
            assert_eq!(opens(backend, "real", rng).unwrap().volumes(), [family, private, work]);
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn changing_the_passphrase_leaves_exactly_one_that_opens() {
    let (world, family, private, cover) = owner_with_cover(23, Others::Keep);
    let mut outcomes = [0; 2];
    cut_everywhere(
        &world.backend.image(),
        "real",
        |mut session, rng| session.change_passphrase(&Passphrase::new("new"), private, rng).unwrap(),
        |backend, _, rng| {
            let old = opens(backend, "real", rng).is_some();
            let new = opens(backend, "new", rng).is_some();
            assert!(old != new, "{old} {new}");
            outcomes[usize::from(new)] += 1;
            let mut session = opens(backend, if new { "new" } else { "real" }, rng).unwrap();
            assert_eq!(session.volumes(), [family, private]);
            assert_eq!(session.entries()[0].id(), cover);
            // VLT-47: the record of the move stays in both copies if it counts, else in none.
            session.complete_records(rng).unwrap();
            let texts = testing::plaintexts(&session, private);
            let windows = texts.iter().flat_map(|text| text.windows(16));
            let records = windows.filter(|window| window == session.id().as_bytes()).count();
            assert_eq!(records, if new { 2 } else { 0 });
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn sealing_again_and_removing_are_all_or_nothing() {
    let (world, family, private, cover) = owner_with_cover(24, Others::Keep);
    let mut outcomes = [0; 2];
    cut_everywhere(
        &world.backend.image(),
        "real",
        |mut session, rng| {
            let spec = Spec {
                volumes: &[family],
                others: Others::Keep,
                spare: &[],
                application: b"after",
                label: b"c",
                home: private,
            };
            session.reseal(cover, &spec, rng).unwrap();
        },
        |backend, _, rng| {
            let session = opens(backend, "cover", rng).unwrap();
            let after = session.application() == b"after";
            assert!(after || session.application() == b"before");
            outcomes[usize::from(after)] += 1;
            drop(session);
            let session = opens(backend, "real", rng).unwrap();
            assert_eq!(session.entries()[0].application() == b"after", after);
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");

    cut_everywhere(
        &world.backend.image(),
        "real",
        |mut session, rng| session.remove_entry(cover, rng).unwrap(),
        |backend, synced, rng| {
            let there = opens(backend, "cover", rng).is_some();
            assert!(!there || synced < 3);
            assert_eq!(opens(backend, "real", rng).unwrap().entries().len(), usize::from(there));
        },
    );
}

#[test]
fn creating_and_deleting_a_volume_are_all_or_nothing() {
    let (world, family, private, _) = owner_with_cover(25, Others::Keep);
    // The label stands in the record that holds the volume's key.
    let recorded = |session: &Session| {
        let volumes = session.volumes();
        let texts = volumes.iter().flat_map(|volume| testing::plaintexts(session, *volume));
        texts.filter(|text| text.windows(5).any(|window| window == b"third")).count()
    };
    let mut outcomes = [0; 2];
    let mut after = Vec::new();
    cut_everywhere(
        &world.backend.image(),
        "real",
        |mut session, rng| {
            session.create_volume(private, b"third", rng).unwrap();
        },
        |backend, _, rng| {
            let session = opens(backend, "real", rng).unwrap();
            let volumes = session.volumes();
            assert!(volumes[..2] == [family, private] && volumes.len() <= 3);
            outcomes[volumes.len() - 2] += 1;
            for volume in &volumes {
                session.open_volume(*volume, rng).unwrap().begin_read().unwrap();
            }
            if volumes.len() == 3 {
                drop(session);
                after = backend.image();
            } else {
                // What was left can be reclaimed.
                let mut session = session;
                for found in session.found_volumes() {
                    session.delete_volume(found, rng).unwrap();
                }
                assert!(session.found_volumes().is_empty());
                session.complete_records(rng).unwrap();
                assert_eq!(recorded(&session), 0);
            }
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");

    let mut outcomes = [0; 2];
    cut_everywhere(
        &after,
        "real",
        |mut session, rng| {
            let third = session.volumes()[2];
            assert_eq!(recorded(&session), 2);
            session.delete_volume(third, rng).unwrap();
            assert_eq!(recorded(&session), 0);
        },
        |backend, _, rng| {
            let mut session = opens(backend, "real", rng).unwrap();
            for volume in session.volumes() {
                session.open_volume(volume, rng).unwrap().begin_read().unwrap();
            }
            for found in session.found_volumes() {
                session.delete_volume(found, rng).unwrap();
            }
            assert!(session.found_volumes().is_empty());
            let there = session.volumes().len() == 3;
            session.complete_records(rng).unwrap();
            outcomes[usize::from(there)] += 1;
            // Both copies, whatever the power left of the first.
            assert_eq!(recorded(&session), if there { 2 } else { 0 });
        },
    );
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn container_whose_creation_was_cut_opens_nothing_or_everything() {
    let mut rng = ChaCha20Rng::seed_from_u64(26);
    let recording = RecordingBackend::with_image(Vec::new());
    let passphrase = Passphrase::new("real");
    let created =
        Container::create(recording.clone(), ContainerSize::MIN, &passphrase, TINY, &mut rng, &mut |_, _| {});
    drop(created.unwrap());
    let calls: Vec<Call> =
        recording.take_calls().into_iter().filter(|call| !matches!(call, Call::Read { .. })).collect();
    for cut in calls.len() - 8..=calls.len() {
        let backend = MemoryBackend::with_image(power_cut(&[], &calls, cut, &mut rng));
        if Container::open(backend.another_handle()).is_err() {
            continue;
        }
        if let Some(session) = opens(&backend, "real", &mut rng) {
            session.open_volume(session.volumes()[0], &mut rng).unwrap().begin_read().unwrap();
        } else {
            assert!(cut < calls.len());
        }
    }
}

#[test]
fn vlt_50_no_commit_is_lost_and_none_is_half() {
    let mut world = World::new(27);
    let session = world.create("real");
    let id = session.volumes()[0];
    drop(session);
    let base = world.backend.image();
    let recording = RecordingBackend::with_image(base.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(28);
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    // Two rows a commit: both are there or neither. Long values make the database grow and shrink.
    let mut acknowledged = vec![(recording.call_count(), 0)];
    for n in 1..=12u64 {
        let write = volume.begin_write().unwrap();
        {
            let mut table = write.open_table(TABLE).unwrap();
            let value = n.to_string().repeat(if n % 3 == 0 { 100_000 } else { 100 });
            table.insert(1, value.as_str()).unwrap();
            table.insert(2, value.as_str()).unwrap();
        }
        write.commit().unwrap();
        acknowledged.push((recording.call_count(), n));
    }
    drop((volume, session));
    let calls = recording.take_calls();
    let mut cuts = 0;
    // At every sync, and at some of the many writes between.
    let step = calls.len() / 40;
    for cut in acknowledged[0].0..=calls.len() {
        let at_sync = calls.get(cut).is_none_or(|call| *call == Call::Sync);
        if !at_sync && cut % step != 0 {
            continue;
        }
        cuts += 1;
        let backend = MemoryBackend::with_image(power_cut(&base, &calls, cut, &mut rng));
        let session = opens(&backend, "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        let (one, two) = (get(&volume, 1), get(&volume, 2));
        assert!(one == two, "half a commit at {cut}");
        let durable = acknowledged.iter().rfind(|(at, _)| *at <= cut).unwrap().1;
        let allowed: Vec<Option<String>> = [durable, (durable + 1).min(12)]
            .into_iter()
            .map(|n| (n > 0).then(|| n.to_string().repeat(if n % 3 == 0 { 100_000 } else { 100 })))
            .collect();
        assert!(allowed.contains(&two), "lost or invented at {cut}");
    }
    assert!(cuts > 40, "{cuts}");
}

#[test]
fn vlt_57_scrubbing_cut_anywhere_loses_no_row() {
    let mut world = World::new(31);
    let session = world.create("real");
    let id = session.volumes()[0];
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    for key in 0..40 {
        put(&volume, key, &key.to_string().repeat(900));
    }
    for key in (0..40).step_by(2) {
        let cleanup = volume.begin_cleanup().unwrap();
        cleanup.open_table(TABLE).unwrap().remove(key).unwrap();
        cleanup.commit().unwrap();
    }
    drop((volume, session));
    let base = world.backend.image();
    let recording = RecordingBackend::with_image(base.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(32);
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    let start = recording.call_count();
    volume.compact_and_scrub().unwrap();
    drop((volume, session));
    let calls = recording.take_calls();
    let step = (calls.len() - start) / 30;
    for cut in start..=calls.len() {
        let at_sync = calls.get(cut).is_none_or(|call| *call == Call::Sync);
        if !at_sync && cut % step != 0 {
            continue;
        }
        let backend = MemoryBackend::with_image(power_cut(&base, &calls, cut, &mut rng));
        let session = opens(&backend, "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        for key in 0..40u64 {
            let expected = (key % 2 == 1).then(|| key.to_string().repeat(900));
            assert!(get(&volume, key) == expected, "row {key} at {cut}");
        }
        volume.compact_and_scrub().unwrap();
    }
}

#[test]
fn vlt_60_keys_are_durable_before_they_are_used_and_gone_when_destroyed() {
    let mut world = World::new(29);
    let session = world.create("real");
    let id = session.volumes()[0];
    drop(session);
    let base = world.backend.image();
    let recording = RecordingBackend::with_image(base.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(30);
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    let name = |n: u8| KeyName([n; 16]);
    let mut made = Vec::new();
    let mut destroyed = Vec::new();
    for n in 0..4 {
        let key = *volume.keys().get_or_create(name(n)).unwrap().expose();
        made.push((recording.call_count(), n, key));
    }
    let destroying = recording.call_count();
    volume.keys().destroy(&[name(1), name(2)]).unwrap();
    destroyed.push(recording.call_count());
    drop((volume, session));
    let calls = recording.take_calls();
    for cut in made[0].0..=destroyed[0] {
        if cut < calls.len() && matches!(calls[cut], Call::Read { .. }) {
            continue;
        }
        let backend = MemoryBackend::with_image(power_cut(&base, &calls, cut, &mut rng));
        let session = opens(&backend, "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        for (at, n, key) in &made {
            let found = volume.keys().get(name(*n)).unwrap().map(|key| *key.expose());
            let doomed = [1, 2].contains(n);
            match found {
                Some(found) => assert!(found == *key && !(doomed && cut >= destroyed[0])),
                None => {
                    assert!(*at > cut || doomed && cut > destroying, "{n} lost at {cut}");
                    // VLT-62: nor is it in the other copy, although nothing but the table was ever written.
                    assert_eq!(testing::key_units_containing(&session, id, key), 0, "{n} at {cut}");
                }
            }
        }
    }
}

#[test]
fn vlt_60_prepared_keys_are_there_whenever_a_commit_after_them_counts() {
    let mut world = World::new(33);
    let session = world.create("real");
    let id = session.volumes()[0];
    drop(session);
    let base = world.backend.image();
    let recording = RecordingBackend::with_image(base.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(34);
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    let name = |row: u64, n: u64| {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&(row * 1_000 + n).to_le_bytes());
        KeyName(name)
    };
    const EACH: u64 = 20;
    let mut keys = Vec::new();
    let start = recording.call_count();
    for row in 0..3 {
        let made: Vec<[u8; 32]> =
            (0..EACH).map(|n| *volume.keys().prepare(name(row, n)).unwrap().expose()).collect();
        assert_eq!(*volume.keys().get(name(row, 0)).unwrap().unwrap().expose(), made[0]);
        let before = recording.call_count();
        put(&volume, row, "sealed under them");
        keys.push((before, made));
    }
    // Never committed, so never written.
    volume.keys().prepare(name(9, 0)).unwrap();
    drop((volume, session));
    let calls = recording.take_calls();
    let syncs = |from: usize, to: usize| calls[from..to].iter().filter(|call| **call == Call::Sync).count();
    assert_eq!(syncs(keys[1].0, keys[2].0), 3, "one for all keys of a commit, and two for the commit");
    for cut in start..=calls.len() {
        if cut < calls.len() && matches!(calls[cut], Call::Read { .. }) {
            continue;
        }
        let backend = MemoryBackend::with_image(power_cut(&base, &calls, cut, &mut rng));
        let session = opens(&backend, "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        for (row, (_, made)) in (0..).zip(&keys) {
            if get(&volume, row).is_some() {
                for (n, key) in (0..).zip(made) {
                    assert_eq!(
                        volume.keys().get(name(row, n)).unwrap().unwrap().expose(),
                        key,
                        "{row} {n} {cut}"
                    );
                }
            }
        }
        assert!(volume.keys().get(name(9, 0)).unwrap().is_none());
    }
}
