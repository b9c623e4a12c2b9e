//! Containers, made by the real library from seeds.
//!
//! The two populations differ in what must not show: whether anybody but the owner has a passphrase, and what it does.
//! Within each, the number of compartments and what has happened since is spread evenly.

use std::time::Duration;

use lapwing_vault::{
    ChangeError, Container, ContainerSize, Cost, CreateError, MemoryBackend, Others, Passphrase, Session,
    Spec, UnlockError, VolumeError, VolumeId,
    redb::{self, TableDefinition},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;

use crate::layout::SIZE;

/// The cheapest derivation: what is compared is what lies in the file, and the cost does not show in it.
const COST: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
const OWNER: &str = "heron orbit velvet candle";
const COVER: &str = "marsh plough ember ribbon";

/// What a container is an example of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The owner's passphrase only.
    Plain,
    /// A second passphrase that shows a part and leaves the rest.
    Hide,
    /// A second passphrase that shows a part and ends the rest.
    Destroy,
}

/// What has happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, and nothing since.
    Fresh,
    /// Used by its owner: unlocked again, written to, scrubbed.
    Used,
    /// Opened with the second passphrase; of those that have none, by the owner once more.
    Opened,
    /// Opened with it and used: written to, a compartment made.
    OpenedAndUsed,
}

const PHASES: [Phase; 4] = [Phase::Fresh, Phase::Used, Phase::Opened, Phase::OpenedAndUsed];

/// The library refused something that it should have done.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the step that it names")]
pub enum MakeError {
    #[error("creating: {0}")]
    Create(#[from] CreateError),
    #[error("unlocking: {0}")]
    Unlock(#[from] UnlockError),
    #[error("changing: {0}")]
    Change(#[from] ChangeError),
    #[error("a volume: {0}")]
    Volume(#[from] VolumeError),
    #[error("opening: {0}")]
    Open(#[from] lapwing_vault::OpenError),
    #[error("the database: {0}")]
    Database(#[from] redb::Error),
    #[error("the size: {0}")]
    Size(#[from] lapwing_vault::SizeError),
}

/// One container to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// What it is an example of.
    pub kind: Kind,
    /// Compartments, 1 to 4; with a second passphrase at least 2.
    pub compartments: usize,
    /// What has happened to it.
    pub phase: Phase,
    /// Where its randomness comes from.
    pub seed: u64,
}

/// The `number`-th container with a second passphrase, or without one.
#[must_use]
pub fn recipe(with_second: bool, number: usize, seed: u64) -> Recipe {
    let phase = PHASES[number % 4];
    let round = number / 4;
    let (kind, compartments) = match (with_second, round % 2) {
        (false, _) => (Kind::Plain, 1 + round % 4),
        (true, 0) => (Kind::Hide, 2 + round / 2 % 3),
        (true, _) => (Kind::Destroy, 2 + round / 2 % 3),
    };
    Recipe { kind, compartments, phase, seed: seed.wrapping_add(number as u64) }
}

/// The bytes of the container.
///
/// # Errors
/// [`MakeError`]: the library is broken, or the recipe asks for more than there is.
pub fn make(recipe: Recipe) -> Result<Vec<u8>, MakeError> {
    let rng = ChaCha20Rng::seed_from_u64(recipe.seed);
    // Room from the beginning: growing would copy megabytes again and again.
    let backend = MemoryBackend::with_image(Vec::with_capacity(SIZE));
    let mut maker = Maker { backend: backend.another_handle(), rng };
    maker.set_up(recipe)?;
    if recipe.phase != Phase::Fresh {
        let session = maker.unlock(OWNER)?;
        maker.use_volumes(&session)?;
    }
    if matches!(recipe.phase, Phase::Opened | Phase::OpenedAndUsed) {
        let passphrase = if recipe.kind == Kind::Plain { OWNER } else { COVER };
        let mut session = maker.unlock(passphrase)?;
        if recipe.phase == Phase::OpenedAndUsed {
            maker.use_volumes(&session)?;
            let volumes = session.volumes();
            if volumes.len() < 4 {
                session.create_volume(volumes[0], b"", &mut maker.rng)?;
            }
            maker.use_volumes(&session)?;
        }
    }
    drop(maker);
    Ok(backend.image())
}

/// Random bytes, which no container is.
#[must_use]
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

struct Maker {
    backend: MemoryBackend,
    rng: ChaCha20Rng,
}

impl Maker {
    fn set_up(&mut self, recipe: Recipe) -> Result<(), MakeError> {
        let size = ContainerSize::new(SIZE as u64)?;
        let owner = Passphrase::new(OWNER);
        let backend = self.backend.another_handle();
        let mut session = Container::create(backend, size, &owner, COST, &mut self.rng, &mut |_, _| {})?;
        // Relays and tokens, as the program keeps them: about 90 bytes for each relay.
        let relays = 1 + self.below(4);
        let field = self.bytes(90 * relays);
        session.set_application(&field, &mut self.rng)?;
        let first = session.volumes()[0];
        for _ in 1..recipe.compartments {
            session.create_volume(first, b"", &mut self.rng)?;
        }
        self.use_volumes(&session)?;
        let others = match recipe.kind {
            Kind::Plain => return Ok(()),
            Kind::Hide => Others::Keep,
            Kind::Destroy => Others::Refresh,
        };
        // The first compartment holds the plan and is not shown.
        let shown: Vec<VolumeId> = session.volumes()[1..].to_vec();
        let shown = &shown[..1 + self.below(shown.len())];
        let (field, label) = (self.bytes(90 * relays), self.bytes(16));
        let spec =
            Spec { volumes: shown, others, spare: &[], application: &field, label: &label, home: first };
        session.add_passphrase(&Passphrase::new(COVER), &spec, &mut self.rng)?;
        Ok(())
    }

    fn unlock(&mut self, passphrase: &str) -> Result<Session, MakeError> {
        let locked = Container::open(self.backend.another_handle())?;
        Ok(locked.unlock(&Passphrase::new(passphrase), COST, &mut self.rng, Duration::ZERO)?)
    }

    /// Some commits in each volume, keys for their texts, and now and then the scrubbing that a lock does.
    fn use_volumes(&mut self, session: &Session) -> Result<(), MakeError> {
        for id in session.volumes() {
            let volume = session.open_volume(id, &mut self.rng)?;
            for _ in 0..1 + self.below(3) {
                let name = self.bytes(16);
                volume.keys().get_or_create(lapwing_vault::KeyName(name.try_into().unwrap_or([0; 16])))?;
                let write = volume.begin_write()?;
                {
                    let mut table = write.open_table(ROWS).map_err(redb::Error::from)?;
                    for _ in 0..1 + self.below(4) {
                        let (key, length) = (self.bytes(25), 200 + self.below(3000));
                        let value = self.bytes(length);
                        table.insert(key.as_slice(), value.as_slice()).map_err(redb::Error::from)?;
                    }
                }
                write.commit()?;
            }
            if self.below(8) == 0 {
                volume.compact_and_scrub()?;
            }
        }
        Ok(())
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u64() % bound as u64).unwrap_or(0)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
