//! A container in a real file: modes, links, full disks, locks between processes.

#![allow(clippy::disallowed_methods, reason = "files as somebody else left them")]
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
    let cost = Cost { memory_kib: 0, passes: 1, lanes: 1 };
    for with_a_name in [false, true] {
        let backend = || {
            if with_a_name { FileBackend::create_with_a_name(&path) } else { FileBackend::create(&path) }
        };
        let failed = Container::create(
            backend().unwrap(),
            ContainerSize::MIN,
            &Passphrase::new("x"),
            cost,
            &mut rng,
            &mut |_, _| {},
        );
        assert!(matches!(failed, Err(CreateError::Derivation(DerivationError::Cost))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // Another file that took the place meanwhile is not ours to remove.
        let backend = backend().unwrap();
        if with_a_name {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, b"a letter").unwrap();
        drop(backend);
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
        fs::remove_file(&path).unwrap();
    }
}

/// VLT-74: whatever ends the process before the container is complete leaves nothing, where the file system knows files
/// without a name, as those of Linux do.
#[test]
fn vlt_74_a_file_has_no_name_until_its_container_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let mut rng = ChaCha20Rng::seed_from_u64(14);
    let empty = || fs::read_dir(folder.path()).unwrap().next().is_none();
    let (mut told, mut seen) = (0, 0);
    let backend = FileBackend::create(&path).unwrap();
    let session = Container::create(
        backend,
        ContainerSize::MIN,
        &Passphrase::new("real"),
        TINY,
        &mut rng,
        &mut |done, all| {
            told += 1;
            seen += usize::from(done < all && !empty());
        },
    )
    .unwrap();
    assert!(told > 4);
    assert_eq!(seen, 0, "a kill would have left it");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    // It is locked: nobody else gets it before this session ends.
    assert!(matches!(open(&path, &mut rng, Duration::ZERO), Err(UnlockError::Busy { .. })));
    drop(session);
    drop(open(&path, &mut rng, Duration::ZERO).unwrap());
    fs::remove_file(&path).unwrap();
    // What came to the path meanwhile is not replaced.
    let backend = FileBackend::create(&path).unwrap();
    fs::write(&path, b"a letter").unwrap();
    assert!(backend.finish_creation().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists));
    drop(backend);
    assert_eq!(fs::read(&path).unwrap(), b"a letter");
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

/// VLT-74: a container gets its name when it is complete, and never in the place of another file.
#[test]
fn vlt_74_a_container_that_is_filled_without_its_name_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("vault"), folder.path().join("vault.unfinished"));
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let names = || fs::read_dir(folder.path()).unwrap().count();
    let fill = |backend: FileBackend, rng: &mut ChaCha20Rng| {
        Container::create(backend, ContainerSize::MIN, &Passphrase::new("real"), TINY, rng, &mut |_, _| {})
            .unwrap()
    };
    for with_a_name in [false, true] {
        let files = || if with_a_name { Placement::with_a_name(&path) } else { Placement::of(&path) };
        // Not complete: nothing is at the path, and nothing stays.
        let one = files();
        let session = fill(one.create().unwrap(), &mut rng);
        assert!(!path.exists());
        assert_eq!(names(), usize::from(with_a_name));
        drop(session);
        one.discard();
        assert_eq!(names(), 0);
        // Something came to the path meanwhile.
        let one = files();
        let session = fill(one.create().unwrap(), &mut rng);
        fs::write(&path, b"a letter").unwrap();
        assert!(matches!(one.put(), Err(CreateError::Exists)));
        assert!(matches!(files().create(), Err(CreateError::Exists)));
        drop(session);
        one.discard();
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
        assert_eq!(names(), 1);
        fs::remove_file(&path).unwrap();
        // Complete.
        let one = files();
        let session = fill(one.create().unwrap(), &mut rng);
        one.put().unwrap();
        assert_eq!(names(), 1);
        assert!(matches!(open(&path, &mut rng, Duration::ZERO), Err(UnlockError::Busy { .. })));
        drop((session, one));
        drop(open(&path, &mut rng, Duration::ZERO).unwrap());
        fs::remove_file(&path).unwrap();
    }
    // Where a name is needed, what has it is left alone, whatever it is.
    for wrong in [b"a letter".as_slice(), &[7; 8192], &[0; 8192], &[]] {
        fs::write(&other, wrong).unwrap();
        let one = Placement::with_a_name(&path);
        assert!(matches!(one.create(), Err(CreateError::InTheWay)));
        one.discard();
        assert_eq!(fs::read(&other).unwrap(), wrong);
        assert_eq!(Placement::unfinished_beside(&path), Some(other.clone()));
        // And where none is needed it is in nobody's way.
        let one = Placement::of(&path);
        drop(one.create().unwrap());
        one.discard();
        assert_eq!(fs::read(&other).unwrap(), wrong);
    }
    fs::remove_file(&other).unwrap();
    symlink("nowhere", &other).unwrap();
    assert!(matches!(Placement::with_a_name(&path).create(), Err(CreateError::InTheWay)));
    fs::remove_file(&other).unwrap();
    // Another file took the name while this one was filled: it is not removed.
    let one = Placement::with_a_name(&path);
    let backend = one.create().unwrap();
    fs::remove_file(&other).unwrap();
    fs::write(&other, b"a letter").unwrap();
    drop(backend);
    one.discard();
    assert_eq!(fs::read(&other).unwrap(), b"a letter");
    fs::remove_file(&other).unwrap();

    // The power failed between the two names: the next unlock removes the other one.
    drop(create(&path, &mut rng).unwrap());
    fs::hard_link(&path, &other).unwrap();
    assert_eq!(Placement::unfinished_beside(&path), None);
    let session = open(&path, &mut rng, Duration::ZERO).unwrap();
    assert!(session.clear_leftovers(&Replacement::of(&path), &mut rng).unwrap());
    assert!(!other.exists() && path.exists());
    drop(session);
    // Another file of that name is nothing to an unlock.
    fs::write(&other, vec![7; 8192]).unwrap();
    let session = open(&path, &mut rng, Duration::ZERO).unwrap();
    assert!(!session.clear_leftovers(&Replacement::of(&path), &mut rng).unwrap());
    assert!(other.exists());
}

/// The system's pages of a file, and whether each is in memory.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library has no safe way to ask what the system keeps of a file")]
fn pages_in_memory(file: &fs::File, len: usize) -> Vec<bool> {
    use nix::libc;
    use std::{os::fd::AsRawFd, ptr};
    const SMALLEST_PAGE: usize = 4096;
    let mut seen = vec![2; len.div_ceil(SMALLEST_PAGE)];
    // SAFETY: nothing reads or writes through the mapping, which is gone when this returns; there is a byte for each page.
    let answer = unsafe {
        let start = libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(start, libc::MAP_FAILED);
        let answer = libc::mincore(start, len, seen.as_mut_ptr());
        libc::munmap(start, len);
        answer
    };
    assert_eq!(answer, 0);
    seen.into_iter().take_while(|page| *page != 2).map(|page| page & 1 == 1).collect()
}

/// Which pieces the system keeps of a file is its own affair: a unit may be a small part of one.
#[cfg(target_os = "linux")]
#[test]
fn vlt_64_the_system_forgets_its_copy_of_a_real_file() {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    const LEN: usize = 1 << 20;
    // Not in memory, as the folder for temporary files may be.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("vault");
    let backend = FileBackend::create_with_a_name(&path).unwrap();
    backend.write_at(0, &vec![7; LEN]).unwrap();
    backend.sync().unwrap();
    let file = fs::File::open(&path).unwrap();
    let mut bytes = vec![0; LEN];
    let mut read = || backend.read_at(0, &mut bytes).unwrap();
    read();
    assert!(pages_in_memory(&file, LEN).iter().all(|page| *page));
    // The control: a file system that keeps everything in memory has no other copy.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    if pages_in_memory(&file, LEN).iter().any(|page| *page) {
        return;
    }
    read();
    assert!(pages_in_memory(&file, LEN).iter().all(|page| *page));
    backend.forget_copy();
    assert!(!pages_in_memory(&file, LEN).iter().any(|page| *page));
    let mut again = vec![0; LEN];
    backend.read_at(0, &mut again).unwrap();
    assert!(again.iter().all(|byte| *byte == 7));
}
