//! A whole container, damaged as the input says, unlocked and opened.
//! `cargo fuzz run --sanitizer none unlock`

#![no_main]

use std::{sync::OnceLock, time::Duration};

use lapwing_vault::{Container, ContainerSize, Cost, MemoryBackend, Passphrase, UnlockError, testing};
use libfuzzer_sys::fuzz_target;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const COST: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();

fuzz_target!(|script: &[u8]| {
    let passphrase = Passphrase::new("real");
    let image = IMAGE.get_or_init(|| {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let backend = MemoryBackend::new();
        let file = backend.another_handle();
        let size = ContainerSize::MIN;
        Container::create(backend, size, &passphrase, COST, &mut rng, &mut |_, _| {}).unwrap();
        file.image()
    });
    let damaged = testing::damage(image, script);
    let backend = MemoryBackend::with_image(damaged.clone());
    let file = backend.another_handle();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    match Container::open(backend).unwrap().unlock(&passphrase, COST, &mut rng, Duration::ZERO) {
        Ok(session) => {
            let _volume = session.open_volume(session.volumes()[0], &mut rng);
        }
        Err(UnlockError::NotUnlocked | UnlockError::Damaged) => assert!(file.image() == damaged),
        Err(other) => panic!("{other}"),
    }
});
