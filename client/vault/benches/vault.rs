//! What an unlock costs besides the key derivation, what a destruction costs, and a commit against the same
//! database on a plain file. All on real files, in one run. Every round asserts what it timed.

#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::{fs, hint::black_box, path::Path, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lapwing_vault::{
    redb::{Database, TableDefinition},
    *,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const ROWS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("rows");
const SESSIONS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("sessions");
/// Messages in the vault that is unlocked.
const MESSAGES: u64 = 100_000;

fn create(path: &Path, size: u64, cost: Cost, rng: &mut ChaCha20Rng) -> Session {
    let backend = FileBackend::create(path).unwrap();
    let size = ContainerSize::new(size).unwrap();
    Container::create(backend, size, &Passphrase::new("real"), cost, rng, &mut |_, _| {}).unwrap()
}

fn unlock(path: &Path, passphrase: &str, cost: Cost, rng: &mut ChaCha20Rng) -> Result<Session, UnlockError> {
    let locked = Container::open(FileBackend::open(path).unwrap()).unwrap();
    locked.unlock(&Passphrase::new(passphrase), cost, rng, Duration::from_secs(5))
}

fn unlocking(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut group = criterion.benchmark_group("unlock");

    let path = folder.path().join("tiny cost");
    let session = create(&path, ContainerSize::DEFAULT.bytes(), TINY, &mut rng);
    let id = session.volumes()[0];
    let volume = session.open_volume(id, &mut rng).unwrap();
    for chunk in 0..10 {
        let write = volume.begin_write().unwrap();
        for n in 0..MESSAGES / 10 {
            write.open_table(ROWS).unwrap().insert(chunk * MESSAGES / 10 + n, [7; 300].as_slice()).unwrap();
        }
        write.commit().unwrap();
    }
    drop((volume, session));
    group.bench_function("100,000 messages, without Argon2id", |bencher| {
        bencher.iter(|| {
            let session = unlock(&path, "real", TINY, &mut rng).unwrap();
            let volume = session.open_volume(id, &mut rng).unwrap();
            let read = volume.begin_read().unwrap();
            let table = read.open_table(ROWS).unwrap();
            assert_eq!(table.get(MESSAGES - 1).unwrap().unwrap().value().len(), 300);
        });
    });

    let path = folder.path().join("full cost");
    drop(create(&path, ContainerSize::MIN.bytes(), Cost::FORMAT_1, &mut rng));
    group.sample_size(10);
    group.bench_function("format 1", |bencher| {
        bencher.iter(|| {
            assert_eq!(unlock(&path, "real", Cost::FORMAT_1, &mut rng).unwrap().volumes().len(), 1);
        });
    });
    group.finish();
}

fn destroying(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let path = folder.path().join("vault");
    let mut session = create(&path, ContainerSize::MIN.bytes(), TINY, &mut rng);
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut rng).unwrap();
    let spec = Spec {
        volumes: &[family],
        others: Others::Refresh,
        spare: &[],
        application: b"",
        label: b"",
        home: private,
    };
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut rng).unwrap();
    drop(session);
    let copy = folder.path().join("copy");
    criterion.bench_function("destroy: all other slots dead, after the derivation", |bencher| {
        bencher.iter_batched(
            || {
                fs::copy(&path, &copy).unwrap();
                fs::File::open(&copy).unwrap().sync_all().unwrap();
                ChaCha20Rng::seed_from_u64(3)
            },
            |mut rng| black_box(unlock(&copy, "cover", TINY, &mut rng).unwrap()),
            BatchSize::PerIteration,
        );
    });
    let dead = unlock(&copy, "real", TINY, &mut rng);
    assert!(matches!(dead, Err(UnlockError::NotUnlocked)));
}

fn committing(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let session = create(&folder.path().join("vault"), ContainerSize::DEFAULT.bytes(), TINY, &mut rng);
    let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
    let mut builder = Database::builder();
    builder.set_cache_size(8 << 20);
    let plain = builder.create(folder.path().join("plain")).unwrap();
    let mut group = criterion.benchmark_group("commit a 300-byte row and a 6,000-byte record");
    let (row, record) = ([1; 300], [2; 6000]);

    let mut n = 0;
    group.bench_function("vault", |bencher| {
        bencher.iter(|| {
            n += 1;
            let write = volume.begin_write().unwrap();
            write.open_table(ROWS).unwrap().insert(n, row.as_slice()).unwrap();
            write.open_table(SESSIONS).unwrap().insert(n % 50, record.as_slice()).unwrap();
            write.commit().unwrap();
        });
    });
    let read = volume.begin_read().unwrap();
    assert_eq!(read.open_table(ROWS).unwrap().get(n).unwrap().unwrap().value(), row);

    let mut n = 0;
    group.bench_function("plain file", |bencher| {
        bencher.iter(|| {
            n += 1;
            let mut write = plain.begin_write().unwrap();
            write.set_two_phase_commit(true);
            write.open_table(ROWS).unwrap().insert(n, row.as_slice()).unwrap();
            write.open_table(SESSIONS).unwrap().insert(n % 50, record.as_slice()).unwrap();
            write.commit().unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, unlocking, destroying, committing);
criterion_main!(benches);
