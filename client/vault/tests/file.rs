//! A container in a real file: modes, links, full disks, locks between processes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapwing_vault::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

fn create(path: &Path, rng: &mut ChaCha20Rng) -> Result<Session, CreateError> {
    let backend = FileBackend::create(path)?;
    Container::create(backend, ContainerSize::MIN, &Passphrase::new("real"), TINY, rng, &mut |_, _| {})
}

fn open(path: &Path, rng: &mut ChaCha20Rng, wait: Duration) -> Result<Session, UnlockError> {
    let locked = Container::open(FileBackend::open(path).unwrap()).unwrap();
    locked.unlock(&Passphrase::new("real"), TINY, rng, wait)
}

#[test]
fn file_has_mode_0600_and_its_full_size_and_nothing_stands_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.bin");
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut told = Vec::new();
    let backend = FileBackend::create(&path).unwrap();
    let session = Container::create(
        backend,
        ContainerSize::MIN,
        &Passphrase::new("real"),
        TINY,
        &mut rng,
        &mut |done, all| told.push((done, all)),
    )
    .unwrap();
    put(&session.open_volume(session.volumes()[0], &mut rng).unwrap(), 1, "hello");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (0o600, 8 << 20));
    drop(session);
    let session = open(&path, &mut rng, Duration::ZERO).unwrap();
    assert_eq!(
        get(&session.open_volume(session.volumes()[0], &mut rng).unwrap(), 1).as_deref(),
        Some("hello")
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // Progress only rises, and ends at the end.
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert!(told.last().is_some_and(|(done, all)| done == all));
}

#[test]
fn whatever_exists_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let file = folder.path().join("file");
    fs::OpenOptions::new().write(true).create_new(true).open(&file).unwrap();
    let dangling = folder.path().join("dangling");
    symlink(folder.path().join("nowhere"), &dangling).unwrap();
    for path in [&file, &dangling, &folder.path().to_owned()] {
        assert!(matches!(create(path, &mut rng), Err(CreateError::Exists)), "{path:?}");
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    let missing = folder.path().join("no folder").join("file");
    assert!(matches!(create(&missing, &mut rng), Err(CreateError::Io(_))));
}

#[test]
fn only_regular_files_of_a_possible_size_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let path = folder.path().join("vault");
    drop(create(&path, &mut rng).unwrap());
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(FileBackend::open(&link), Err(OpenError::NotAFile)));
    assert!(matches!(FileBackend::open(folder.path()), Err(OpenError::NotAFile)));
    assert!(matches!(FileBackend::open(Path::new("/dev/null")), Err(OpenError::NotAFile)));
    assert!(matches!(FileBackend::open(&folder.path().join("none")), Err(OpenError::NotFound)));
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for len in [(8 << 20) - 1, (8 << 20) - 4096, 0] {
        file.set_len(len).unwrap();
        let backend = FileBackend::open(&path).unwrap();
        assert!(matches!(Container::open(backend), Err(OpenError::NotAContainer)), "{len}");
    }
}

#[test]
fn creation_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let backend = FileBackend::create(&path).unwrap();
    assert!(path.exists());
    let cost = Cost { memory_kib: 0, passes: 1, lanes: 1 };
    let failed =
        Container::create(backend, ContainerSize::MIN, &Passphrase::new("x"), cost, &mut rng, &mut |_, _| {});
    assert!(matches!(failed, Err(CreateError::Derivation(DerivationError::Cost))));
    assert!(!path.exists());
    // Another file that took the place meanwhile is not ours to remove.
    let backend = FileBackend::create(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    drop(backend);
    assert!(path.exists());
}

#[test]
fn full_disk_is_told_and_leaves_nothing_behind() {
    // More than any file system here can hold: the reservation is refused before anything is written.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let backend = FileBackend::create(&path).unwrap();
    let refused = backend.reserve(1 << 61);
    assert!(refused.is_err());
    drop(backend);
    assert!(!path.exists());
    let full: CreateError = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
    assert!(matches!(full, CreateError::DiskFull));
    if Path::new("/dev/full").exists() {
        // The kernel's own full disk, through the same calls.
        let file = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap_err();
        assert!(matches!(CreateError::from(error), CreateError::DiskFull));
    }
}

#[test]
fn second_opener_gets_busy_and_the_holder_learns_that_somebody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    drop(create(&path, &mut rng).unwrap());
    let holder = open(&path, &mut rng, Duration::ZERO).unwrap();
    assert!(!holder.lock_requested().unwrap());
    assert!(matches!(open(&path, &mut rng, Duration::ZERO), Err(UnlockError::Busy { .. })));
    assert!(!holder.lock_requested().unwrap());
    // A wrong passphrase never reaches the lock.
    let wrong = Container::open(FileBackend::open(&path).unwrap()).unwrap().unlock(
        &Passphrase::new("wrong"),
        TINY,
        &mut rng,
        Duration::from_secs(60),
    );
    assert!(matches!(wrong, Err(UnlockError::NotUnlocked)));

    let done = Arc::new(AtomicBool::new(false));
    let waiter = {
        let (path, done) = (path.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut rng = ChaCha20Rng::seed_from_u64(6);
            let session = open(&path, &mut rng, Duration::from_secs(60));
            done.store(true, Ordering::SeqCst);
            session.is_ok()
        })
    };
    // The holder polls, as a follower does, and finishes when asked.
    while !holder.lock_requested().unwrap() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!done.load(Ordering::SeqCst));
    drop(holder);
    assert!(waiter.join().unwrap());
    assert!(open(&path, &mut rng, Duration::ZERO).is_ok());
}

#[test]
fn process_can_be_hardened() {
    harden_process().unwrap();
    // Whether memory can be locked depends on the machine; it must never end the process.
    let _refused_here = lock_memory();
}
