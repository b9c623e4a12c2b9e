//! Replays the fuzzers' corpus: what once was interesting input stays tested without a fuzzer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::{fs, path::Path};

use lapwing_vault::{testing, *};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<Vec<u8>> =
        fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn decoders_survive_their_corpus() {
    for bytes in corpus("decode") {
        testing::decode_everything(&bytes);
    }
}

#[test]
fn unlocking_survives_damage_at_the_places_of_the_corpus() {
    let mut world = World::new(60);
    drop(world.create("real"));
    let image = world.backend.image();
    for bytes in corpus("unlock") {
        let damaged = testing::damage(&image, &bytes);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let backend = MemoryBackend::with_image(damaged.clone());
        match unlock(backend.another_handle(), "real", &mut rng) {
            Ok(session) => {
                let volume = session.open_volume(session.volumes()[0], &mut rng);
                assert!(matches!(volume, Ok(_) | Err(VolumeError::Damaged)));
            }
            Err(UnlockError::NotUnlocked | UnlockError::Damaged) => assert!(backend.image() == damaged),
            Err(other) => panic!("{other}"),
        }
    }
}
