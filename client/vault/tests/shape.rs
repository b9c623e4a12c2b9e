//! What can be seen from outside: the same calls for every passphrase, and nothing but random bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::collections::HashSet;

use lapwing_vault::{
    testing::{Call, RecordingBackend, power_cut},
    *,
};
use rand_chacha::rand_core::SeedableRng;
use world::*;

/// An owner with two covers, in the geometry of the smallest container.
fn world_with_covers() -> World {
    let mut world = World::new(40);
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    put(&session.open_volume(private, &mut world.rng).unwrap(), 1, "the plan");
    for (name, others) in [("hide", Others::Keep), ("destroy", Others::Refresh)] {
        let spec = Spec {
            volumes: &[family],
            others,
            spare: &[],
            application: b"relays",
            label: name.as_bytes(),
            home: private,
        };
        session.add_passphrase(&Passphrase::new(name), &spec, &mut world.rng).unwrap();
    }
    world
}

/// Calls as an observer of the disk sees them: kind, offset, length, order.
fn observed(calls: &[Call]) -> Vec<String> {
    calls.iter().map(|call| format!("{call:?}")).collect()
}

#[test]
fn vlt_13_every_passphrase_makes_the_same_reads_and_writes() {
    let world = world_with_covers();
    let image = world.backend.image();
    let mut seen: Vec<(&str, Vec<String>)> = Vec::new();
    for passphrase in ["real", "hide", "destroy"] {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let recording = RecordingBackend::with_image(image.clone());
        drop(unlock(recording.clone(), passphrase, &mut rng).unwrap());
        seen.push((passphrase, observed(&recording.take_calls())));
    }
    let (_, real) = &seen[0];
    for (passphrase, calls) in &seen {
        assert_eq!(calls, real, "{passphrase}");
    }
    let writes: Vec<&String> = real.iter().filter(|call| !call.starts_with("read")).collect();
    assert_eq!(
        writes,
        ["sync", "write 69632 at 73728", "sync", "write 69632 at 4096", "sync"],
        "a sync, the older copy, a sync, the other, a sync"
    );
    assert_eq!(real.iter().filter(|call| call.starts_with("read 16384 at")).count(), 4);
}

#[test]
fn vlt_47_unlock_after_a_power_cut_makes_the_same_calls_and_the_rest_waits_for_the_end() {
    let world = world_with_covers();
    let image = world.backend.image();
    let recording = RecordingBackend::with_image(image.clone());
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(3);
    let mut session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let private = session.volumes()[1];
    recording.take_calls();
    let unlocked = recording.image();
    session.change_passphrase(&Passphrase::new("new"), private, &mut rng).unwrap();
    let calls: Vec<Call> =
        recording.take_calls().into_iter().filter(|call| !matches!(call, Call::Read { .. })).collect();
    let mut finished = 0;
    for cut in 0..=calls.len() {
        let cut_image = power_cut(&unlocked, &calls, cut, &mut rng);
        let mut seen = Vec::new();
        for passphrase in ["real", "new", "hide"] {
            let recording = RecordingBackend::with_image(cut_image.clone());
            let Ok(mut session) = unlock(recording.clone(), passphrase, &mut rng) else { continue };
            let shape = observed(&recording.take_calls());
            // Which copy is the older one depends on the image, not on the passphrase.
            seen.push(shape);
            session.complete_records(&mut rng).unwrap();
            let did = recording.take_calls();
            let wrote = did.iter().any(|call| matches!(call, Call::Write { .. }));
            finished += usize::from(wrote);
            // The header was written before: what is left is in the units of the records.
            assert!(did.iter().all(|call| !matches!(call, Call::Write { bytes, .. } if bytes.len() != 8192)));
            session.complete_records(&mut rng).unwrap();
            assert!(recording.take_calls().is_empty(), "once is enough: cut {cut}, {passphrase}");
        }
        assert_eq!(seen.len(), 2, "one of the owner's two, and the cover");
        assert_eq!(seen[0], seen[1], "cut {cut}");
    }
    assert!(finished > 2, "{finished}");
}

#[test]
fn vlt_12_wrong_passphrase_reads_the_header_and_writes_nothing() {
    let world = world_with_covers();
    let recording = RecordingBackend::with_image(world.backend.image());
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(2);
    assert!(unlock(recording.clone(), "wrong", &mut rng).is_err());
    assert_eq!(
        observed(&recording.take_calls()),
        ["read 4096 at 0", "read 69632 at 4096", "read 69632 at 73728"]
    );
}

#[test]
fn vlt_01_whole_image_passes_a_chi_square_test_and_repeats_no_block() {
    let world = world_with_covers();
    let image = world.backend.image();
    assert_eq!(image.len(), 8 << 20);
    // Whole, and each part on its own: 255 degrees of freedom, mean 255, deviation 22.6. The bounds are five
    // deviations wide, and the seed is fixed.
    let parts = [0..image.len(), 0..4096, 4096..73_728, 73_728..143_360, 143_360..image.len()];
    for part in parts {
        let bytes = &image[part.clone()];
        let mut counts = [0u32; 256];
        for byte in bytes {
            counts[usize::from(*byte)] += 1;
        }
        let expected = bytes.len() as f64 / 256.0;
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        assert!((142.0..368.0).contains(&chi), "{part:?}: {chi}");
    }
    let blocks: HashSet<&[u8]> = image.chunks_exact(16).collect();
    assert_eq!(blocks.len(), image.len() / 16);
}

#[test]
fn vlt_20_both_header_copies_are_rewritten_whole_and_share_no_bytes() {
    let mut world = world_with_covers();
    let before = world.backend.image();
    drop(world.unlock("hide").unwrap());
    let after = world.backend.image();
    // Every 16 bytes of both copies are new, and no two places of old and new headers agree.
    let headers = 4096..143_360;
    for (one, other) in before[headers.clone()].chunks(16).zip(after[headers.clone()].chunks(16)) {
        assert_ne!(one, other);
    }
    assert!(before[..4096] == after[..4096] && before[143_360..] == after[143_360..]);
    let mut windows = HashSet::new();
    for bytes in [&before[headers.clone()], &after[headers]] {
        for window in bytes.chunks_exact(8) {
            assert!(windows.insert(window.to_vec()));
        }
    }
}

#[test]
fn vlt_21_taking_the_outer_layer_off_needs_a_passphrase() {
    // With the outer key in the open, anyone could decrypt both copies and find equal inner layers. It is
    // boxed per slot, so whatever 32 bytes of a copy's head are tried as the key, the copies differ.
    use chacha20::cipher::{KeyIvInit, StreamCipher};
    let world = world_with_covers();
    let image = world.backend.image();
    let peel = |copy: usize, key: &[u8], slot: usize| {
        let stored = &image[copy + 4096 + slot * 4096..][..4096];
        let mut inner = stored[536..600].to_vec();
        let key: &[u8; 32] = key.try_into().unwrap();
        let nonce: &[u8; 24] = stored[512..536].try_into().unwrap();
        chacha20::XChaCha20::new(key.into(), nonce.into()).apply_keystream(&mut inner);
        inner
    };
    for at in (0..1784 - 32).step_by(8) {
        let one = peel(4096, &image[4096 + at..][..32], 3);
        let other = peel(73_728, &image[73_728 + at..][..32], 3);
        assert_ne!(one, other, "{at}");
    }
}
