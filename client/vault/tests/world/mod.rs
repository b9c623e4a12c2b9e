//! A container in memory, a seeded generator, and short words for what the tests do with them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use lapwing_vault::{redb::TableDefinition, *};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

pub const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
pub const TABLE: TableDefinition<'static, u64, &str> = TableDefinition::new("test");

pub struct World {
    pub backend: MemoryBackend,
    pub rng: ChaCha20Rng,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self { backend: MemoryBackend::new(), rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    pub fn create(&mut self, passphrase: &str) -> Session {
        let backend = self.backend.another_handle();
        let passphrase = Passphrase::new(passphrase);
        Container::create(backend, ContainerSize::MIN, &passphrase, TINY, &mut self.rng, &mut |_, _| {})
            .unwrap()
    }

    pub fn unlock(&mut self, passphrase: &str) -> Result<Session, UnlockError> {
        unlock(self.backend.another_handle(), passphrase, &mut self.rng)
    }
}

pub fn unlock(
    backend: impl Backend + 'static,
    passphrase: &str,
    rng: &mut ChaCha20Rng,
) -> Result<Session, UnlockError> {
    Container::open(backend).unwrap().unlock(&Passphrase::new(passphrase), TINY, rng, Duration::ZERO)
}

pub fn put(volume: &Volume, key: u64, value: &str) {
    let write = volume.begin_write().unwrap();
    write.open_table(TABLE).unwrap().insert(key, value).unwrap();
    write.commit().unwrap();
}

pub fn get(volume: &Volume, key: u64) -> Option<String> {
    let read = volume.begin_read().unwrap();
    let table = read.open_table(TABLE).ok()?;
    Some(table.get(key).unwrap()?.value().to_owned())
}
