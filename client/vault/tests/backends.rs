//! The contract of a backend, checked on every backend there is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{io::ErrorKind, path::Path, time::Duration};

use lapwing_vault::{Backend, FileBackend, MemoryBackend, testing::RecordingBackend};

/// `another` opens the same bytes a second time.
fn conforms<B: Backend>(backend: B, another: impl Fn(&B) -> B) {
    assert!(backend.is_empty().unwrap());
    backend.reserve(8192).unwrap();
    backend.write_at(0, &[1; 4096]).unwrap();
    backend.write_at(4096, &[2; 4096]).unwrap();
    backend.write_at(4090, &[3; 12]).unwrap();
    backend.sync().unwrap();
    backend.finish_creation().unwrap();
    assert_eq!(backend.len().unwrap(), 8192);

    let mut out = [0; 16];
    backend.read_at(4088, &mut out).unwrap();
    assert_eq!(out, [1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 2]);
    for offset in [8192, 8180, u64::MAX - 3] {
        let error = backend.read_at(offset, &mut out).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidInput),
            "{offset}: {error}"
        );
    }
    backend.write_at(0, &[]).unwrap();
    backend.read_at(8192, &mut []).unwrap();

    let second = another(&backend);
    second.read_at(0, &mut out).unwrap();
    assert_eq!(out, [1; 16]);
    assert!(backend.lock(Duration::ZERO).unwrap());
    assert!(backend.lock(Duration::ZERO).unwrap(), "whoever has the lock gets it again");
    assert!(!second.lock(Duration::from_millis(20)).unwrap());
    assert!(!backend.lock_requested().unwrap(), "who gave up does not wait any more");
    second.unlock();
    assert!(!second.lock(Duration::ZERO).unwrap(), "nobody gives back another's lock");
    backend.unlock();
    assert!(second.lock(Duration::ZERO).unwrap());
    drop(second);
    assert!(backend.lock(Duration::ZERO).unwrap(), "dropping gives the lock back");
}

#[test]
fn memory_conforms() {
    conforms(MemoryBackend::new(), MemoryBackend::another_handle);
}

#[test]
fn file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    conforms(FileBackend::create(Path::new(&path)).unwrap(), |_| FileBackend::open(&path).unwrap());
}

#[test]
fn recording_conforms_to_what_it_records() {
    let recording = RecordingBackend::with_image(Vec::new());
    recording.write_at(3, b"abc").unwrap();
    recording.sync().unwrap();
    let calls = recording.take_calls();
    assert_eq!(format!("{calls:?}"), "[write 3 at 3, sync]");
    assert_eq!(recording.image(), b"\0\0\0abc");
}
