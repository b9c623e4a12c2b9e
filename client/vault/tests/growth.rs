//! A container that became too small is carried over to a larger one: everything that is known comes along, a crash leaves
//! one container that counts, and nothing of the old one is left.

#![allow(clippy::disallowed_methods, reason = "files as somebody else left them")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::{fs, io, path::Path, time::Duration};

use lapwing_vault::{
    testing::{Call, RecordingBackend, SECTOR, power_cut},
    *,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

fn larger() -> ContainerSize {
    ContainerSize::new(11 << 20).unwrap()
}

struct Made {
    world: World,
    family: VolumeId,
    private: VolumeId,
    key: [u8; 32],
}

/// An owner with two volumes, a passphrase for one of them, and a key.
fn made(seed: u64) -> Made {
    let mut world = World::new(seed);
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    let volume = session.open_volume(private, &mut world.rng).unwrap();
    for n in 0..60 {
        put(&volume, n, &format!("plan {n} ").repeat(90));
    }
    let key = *volume.keys().get_or_create(KeyName([7; 16])).unwrap().expose();
    drop(volume);
    put(&session.open_volume(family, &mut world.rng).unwrap(), 1, "dinner");
    let spec = Spec {
        volumes: &[family],
        others: Others::Keep,
        spare: &[],
        application: b"field",
        label: b"c",
        home: private,
    };
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    Made { world, family, private, key }
}

/// Everything is there, for both passphrases, and goes on.
fn assert_whole(made: &Made, backend: &MemoryBackend, rng: &mut ChaCha20Rng) {
    let session = unlock(backend.another_handle(), "cover", rng).unwrap();
    assert_eq!((session.volumes(), session.application()), (vec![made.family], b"field".as_slice()));
    assert_eq!(get(&session.open_volume(made.family, rng).unwrap(), 1).as_deref(), Some("dinner"));
    drop(session);
    let session = unlock(backend.another_handle(), "real", rng).unwrap();
    assert_eq!(session.volumes(), [made.family, made.private]);
    assert_eq!(session.entries().len(), 1);
    assert_eq!(session.volume_label(made.private).unwrap(), b"private");
    let volume = session.open_volume(made.private, rng).unwrap();
    for n in 0..60 {
        assert_eq!(get(&volume, n), Some(format!("plan {n} ").repeat(90)));
    }
    assert_eq!(*volume.keys().get(KeyName([7; 16])).unwrap().unwrap().expose(), made.key);
    put(&volume, 1000, "and on");
}

#[test]
fn vlt_70_everything_known_is_carried_over_and_there_is_more_room() {
    let mut made = made(200);
    let grown = MemoryBackend::new();
    let session = made.world.unlock("real").unwrap();
    let before = session.open_volume(made.private, &mut made.world.rng).unwrap().usage().unwrap();
    let mut told = Vec::new();
    let copy = grown.another_handle();
    session.copy_into(copy, larger(), &mut made.world.rng, &mut |done, all| told.push((done, all))).unwrap();
    assert!(told.is_sorted() && told.last().is_some_and(|(done, all)| done == all));
    drop(session);
    assert_eq!(grown.image().len() as u64, larger().bytes());
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    assert_whole(&made, &grown, &mut rng);
    let session = unlock(grown.another_handle(), "real", &mut rng).unwrap();
    let volume = session.open_volume(made.private, &mut rng).unwrap();
    let after = volume.usage().unwrap();
    assert!(after.capacity > before.capacity && after.used < before.used + 80_000);
    let mut stored = 0;
    while volume.usage().unwrap().used <= before.capacity {
        put(&volume, 2000 + stored, &"x".repeat(20_000));
        stored += 1;
    }
    assert_eq!(get(&volume, 59), Some("plan 59 ".repeat(90)));
}

/// The next session after a kill may write nothing of its own.
#[test]
fn vlt_57_71_a_container_grows_after_a_session_that_did_not_end() {
    let mut made = made(209);
    let rng = &mut made.world.rng;
    let session = unlock(made.world.backend.another_handle(), "real", rng).unwrap();
    let volume = session.open_volume(made.private, rng).unwrap();
    put(&volume, 1000, "killed");
    let image = made.world.backend.image();
    drop((volume, session));
    // As a kill leaves it, and as a power cut leaves the opening after a kill.
    let recording = RecordingBackend::with_image(image.clone());
    let session = unlock(recording.clone(), "real", rng).unwrap();
    let _unlock = recording.take_calls();
    let base = recording.image();
    drop(session.open_volume(made.private, rng).unwrap());
    drop(session);
    let calls = recording.take_calls();
    let cuts = (0..=calls.len()).filter(|cut| *cut == 0 || calls[*cut - 1] == Call::Sync);
    let left: Vec<Vec<u8>> = cuts.map(|cut| power_cut(&base, &calls, cut, rng)).collect();
    assert!(left.len() > 2, "{}", left.len());
    for image in left {
        let backend = MemoryBackend::with_image(image);
        let session = unlock(backend, "real", rng).unwrap();
        let volume = session.open_volume(made.private, rng).unwrap();
        assert_eq!(get(&volume, 1000).as_deref(), Some("killed"));
        volume.close().unwrap();
        let grown = MemoryBackend::new();
        session.copy_into(grown.another_handle(), larger(), rng, &mut |_, _| {}).unwrap();
        let session = unlock(grown, "real", rng).unwrap();
        let volume = session.open_volume(made.private, rng).unwrap();
        assert_eq!(get(&volume, 1000).as_deref(), Some("killed"));
    }
}

#[test]
fn vlt_70_what_the_session_does_not_know_is_left_behind_and_its_passphrase_still_opens() {
    let made = made(201);
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let grown = MemoryBackend::new();
    let cover = unlock(made.world.backend.another_handle(), "cover", &mut rng).unwrap();
    cover.copy_into(grown.another_handle(), larger(), &mut rng, &mut |_, _| {}).unwrap();
    drop(cover);
    let session = unlock(grown.another_handle(), "cover", &mut rng).unwrap();
    assert_eq!(get(&session.open_volume(made.family, &mut rng).unwrap(), 1).as_deref(), Some("dinner"));
    drop(session);
    let session = unlock(grown.another_handle(), "real", &mut rng).unwrap();
    assert_eq!(get(&session.open_volume(made.family, &mut rng).unwrap(), 1).as_deref(), Some("dinner"));
    assert!(matches!(session.open_volume(made.private, &mut rng), Err(VolumeError::Damaged)));
}

#[test]
fn growth_is_refused_before_anything_is_written_when_it_cannot_be() {
    let mut made = made(202);
    let session = made.world.unlock("real").unwrap();
    let rng = &mut made.world.rng;
    for size in [ContainerSize::MIN, session.size().unwrap()] {
        let new = RecordingBackend::with_image(Vec::new());
        let refused = session.copy_into(new.clone(), size, rng, &mut |_, _| {});
        assert!(matches!(refused, Err(GrowError::NotLarger)));
        assert_eq!(new.call_count(), 0);
    }
    let taken = MemoryBackend::with_image(vec![1; 4096]);
    let refused = session.copy_into(taken.another_handle(), larger(), rng, &mut |_, _| {});
    assert!(matches!(refused, Err(GrowError::Exists)) && taken.image() == vec![1; 4096]);
    let full = RecordingBackend::with_image(Vec::new());
    full.set_full(true);
    assert!(matches!(session.copy_into(full, larger(), rng, &mut |_, _| {}), Err(GrowError::DiskFull)));
    let open = session.open_volume(made.private, rng).unwrap();
    let refused = session.copy_into(MemoryBackend::new(), larger(), rng, &mut |_, _| {});
    assert!(matches!(refused, Err(GrowError::Volume(VolumeError::InUse))));
    drop((open, session));
    let backend = made.world.backend.another_handle();
    assert_whole(&made, &backend, &mut ChaCha20Rng::seed_from_u64(3));
}

fn writes(calls: Vec<Call>) -> Vec<Call> {
    calls.into_iter().filter(|call| !matches!(call, Call::Read { .. })).collect()
}

#[test]
fn vlt_71_72_power_cut_anywhere_leaves_one_container_that_counts() {
    let made = made(203);
    let base = made.world.backend.image();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let old = RecordingBackend::with_image(base.clone());
    let new = RecordingBackend::with_image(Vec::new());
    let session = unlock(old.clone(), "real", &mut rng).unwrap();
    let unlocked = old.image();
    let _unlock = old.take_calls();
    session.copy_into(new.clone(), larger(), &mut rng, &mut |_, _| {}).unwrap();
    // Until the copy is complete the old container is not touched: it counts, whatever happens to the copy.
    assert_eq!(writes(old.take_calls()), []);
    let copying = writes(new.take_calls());
    assert_eq!(copying.last(), Some(&Call::Sync));
    let header =
        copying.iter().position(|call| matches!(call, Call::Write { bytes, .. } if bytes.len() == 69_632));
    let header = header.unwrap();
    for cut in (0..header).step_by(150).chain(header.saturating_sub(4)..=copying.len()) {
        let image = power_cut(&[], &copying, cut, &mut rng);
        let opens = image.len() as u64 == larger().bytes()
            && unlock(MemoryBackend::with_image(image.clone()), "real", &mut rng).is_ok();
        if cut == copying.len() {
            // Here it takes the old one's place.
            assert!(opens);
            assert_whole(&made, &MemoryBackend::with_image(image), &mut rng);
        } else if cut <= header {
            assert!(!opens, "a copy that is not complete opens at {cut}");
        }
    }
    session.erase(&mut rng).unwrap();
    assert_eq!(writes(new.take_calls()), []);
    let erasing = writes(old.take_calls());
    let destroyed = erasing.iter().position(|call| *call == Call::Sync).unwrap();
    for cut in 0..=erasing.len() {
        // What a crash leaves of the old container is erased by the next command; after the first sync nothing in it
        // opens any more.
        let image = power_cut(&unlocked, &erasing, cut, &mut rng);
        for passphrase in ["real", "cover"] {
            let opens = unlock(MemoryBackend::with_image(image.clone()), passphrase, &mut rng).is_ok();
            assert!(!opens || cut <= destroyed, "{passphrase} opens at {cut}");
        }
        assert_eq!(image[..4096], base[..4096]);
    }
    let erased = old.image();
    let sectors = erased[4096..].chunks(SECTOR).zip(base[4096..].chunks(SECTOR));
    assert!(sectors.clone().all(|(after, before)| after != before), "a sector was left");
    assert!(sectors.zip(unlocked[4096..].chunks(SECTOR)).all(|((after, _), before)| after != before));
}

/// A container in a file, and the copy of it beside: what a crash can leave.
fn in_files(folder: &Path, made: &Made, rng: &mut ChaCha20Rng) -> (std::path::PathBuf, Vec<u8>, Vec<u8>) {
    let path = folder.join("vault");
    let old = made.world.backend.image();
    fs::write(&path, &old).unwrap();
    let grown = MemoryBackend::new();
    let session = unlock(MemoryBackend::with_image(old.clone()), "real", rng).unwrap();
    session.copy_into(grown.another_handle(), larger(), rng, &mut |_, _| {}).unwrap();
    (path, old, grown.image())
}

fn open(path: &Path, rng: &mut ChaCha20Rng) -> Session {
    unlock(FileBackend::open(path).unwrap(), "real", rng).unwrap()
}

#[test]
fn vlt_72_next_unlock_removes_what_a_crash_left_and_nothing_else() {
    let made = made(204);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let folder = tempfile::tempdir().unwrap();
    let (path, old, grown) = in_files(folder.path(), &made, &mut rng);
    let files = Replacement::of(&path);
    let (growing, outgrown) = (folder.path().join("vault.growing"), folder.path().join("vault.outgrown"));
    let clear = |rng: &mut ChaCha20Rng| open(&path, rng).clear_leftovers(&files, rng).unwrap();
    let names = || {
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert!(!clear(&mut rng));

    // A copy that was made, begun, or complete but not in its place.
    for left in [&[][..], &[0; 4096][..], &grown[..4096], &grown[..300_000], &grown[..]] {
        fs::write(&growing, left).unwrap();
        assert!(clear(&mut rng));
        assert_eq!(names(), ["vault"]);
    }
    // The old container has its second name, and is still in its place: it must not be erased.
    fs::hard_link(&path, &outgrown).unwrap();
    fs::write(&growing, &grown).unwrap();
    assert!(clear(&mut rng));
    assert_eq!(names(), ["vault"]);
    let backend = MemoryBackend::with_image(fs::read(&path).unwrap());
    assert_whole(&made, &backend, &mut rng);
    // The copy is in its place; the old one was not erased, or not to its end. A second name shows that it is now.
    for header_gone in [false, true] {
        fs::write(&path, &grown).unwrap();
        let mut left = old.clone();
        if header_gone {
            left[4096..200_000].fill(7);
        }
        fs::write(&outgrown, &left).unwrap();
        let witness = folder.path().join("witness");
        fs::hard_link(&outgrown, &witness).unwrap();
        assert!(clear(&mut rng));
        assert_eq!(names(), ["vault", "witness"]);
        let erased = fs::read(&witness).unwrap();
        assert!(
            erased[4096..].chunks(SECTOR).zip(old[4096..].chunks(SECTOR)).all(|(one, other)| one != other)
        );
        fs::remove_file(&witness).unwrap();
    }
    // Files that are somebody else's.
    for (one, other) in [
        (&b"a letter"[..], &[9; 20_000][..]),
        (&[0; 4097][..], &[0; 8192][..]),
        (&grown[1..8193], &grown[..511]),
    ] {
        fs::write(&outgrown, one).unwrap();
        fs::write(&growing, other).unwrap();
        assert!(!clear(&mut rng));
        assert_eq!(
            (fs::read(&outgrown).unwrap(), fs::read(&growing).unwrap()),
            (one.to_vec(), other.to_vec())
        );
        assert!(matches!(files.create(), Err(CreateError::Exists)));
    }
    assert_eq!(names(), ["vault", "vault.growing", "vault.outgrown"]);
}

/// Where a copy has a name from the start, the power may fail before its first block was synced.
#[test]
fn vlt_72_a_torn_first_block_is_known_by_one_whole_sector_of_it() {
    let made = made(206);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    fs::write(&path, made.world.backend.image()).unwrap();
    let salt_block = made.world.backend.image()[..4096].to_vec();
    let session = open(&path, &mut rng);
    let files = Replacement::of(&path);
    let growing = folder.path().join("vault.growing");
    let calls = [Call::Write { offset: 0, bytes: salt_block.clone() }];
    let whole = |sector: &(&[u8], &[u8])| sector.0 == sector.1;
    let mut torn = 0;
    for _ in 0..100 {
        let mut left = power_cut(&[], &calls, 1, &mut rng);
        left.resize(4096, 0);
        let sectors = left.chunks(SECTOR).zip(salt_block.chunks(SECTOR)).filter(whole).count();
        fs::write(&growing, &left).unwrap();
        let ours = sectors > 0 || left.iter().all(|byte| *byte == 0);
        assert_eq!(session.clear_leftovers(&files, &mut rng).unwrap(), ours, "{sectors} sectors");
        assert_eq!(growing.exists(), !ours);
        torn += usize::from(ours && sectors < 8);
    }
    assert!(torn > 50, "{torn}");
    // Not what may be somebody else's: less than a sector, a sector elsewhere, or one in a file that was longer than that.
    let mut elsewhere = vec![9; 4096];
    elsewhere[512..1024].copy_from_slice(&salt_block[..512]);
    let mut longer = vec![9; 8192];
    longer[..512].copy_from_slice(&salt_block[..512]);
    for other in [&salt_block[..511], &elsewhere, &longer] {
        fs::write(&growing, other).unwrap();
        assert!(!session.clear_leftovers(&files, &mut rng).unwrap());
        assert_eq!(fs::read(&growing).unwrap(), other);
    }
}

/// A copy that was killed without a name could not be erased by anybody; one with a name must be known.
#[test]
fn vlt_74_a_copy_gets_its_name_with_its_first_block_and_in_nobodys_place() {
    let made = made(207);
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    fs::write(&path, made.world.backend.image()).unwrap();
    let salt_block = made.world.backend.image()[..4096].to_vec();
    let growing = folder.path().join("vault.growing");
    let session = open(&path, &mut rng);
    let files = Replacement::of(&path);
    let backend = files.create().unwrap();
    assert!(!growing.exists());
    let mut told = 0;
    session
        .copy_into(backend, larger(), &mut rng, &mut |_, _| {
            told += 1;
            if told < 4 {
                assert_eq!(fs::read(&growing).unwrap()[..4096], salt_block);
            }
        })
        .unwrap();
    assert!(told > 4);
    fs::remove_file(&growing).unwrap();
    // What came there meanwhile is not replaced.
    let backend = files.create().unwrap();
    fs::write(&growing, b"a letter").unwrap();
    let refused = session.copy_into(backend, larger(), &mut rng, &mut |_, _| {});
    assert!(matches!(refused, Err(GrowError::Exists)), "{refused:?}");
    assert_eq!(fs::read(&growing).unwrap(), b"a letter");
}

#[test]
fn vlt_72_74_where_second_names_are_forbidden_a_copy_has_its_name_from_the_start() {
    let made = made(210);
    let mut rng = ChaCha20Rng::seed_from_u64(10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    fs::write(&path, made.world.backend.image()).unwrap();
    let growing = folder.path().join("vault.growing");
    let names = || fs::read_dir(folder.path()).unwrap().count();
    let session = open(&path, &mut rng);
    let files = Replacement::of(&path).refusing_links();
    drop(files.create().unwrap());
    assert_eq!(names(), 1);
    // As a kill leaves it before there is anything in it.
    fs::write(&growing, []).unwrap();
    assert!(session.clear_leftovers(&files, &mut rng).unwrap());
    let backend = files.create().unwrap();
    assert!(growing.exists());
    session.copy_into(backend, larger(), &mut rng, &mut |_, _| {}).unwrap();
    files.put().unwrap();
    session.erase(&mut rng).unwrap();
    files.finish().unwrap();
    assert_eq!((names(), fs::metadata(&path).unwrap().len()), (1, larger().bytes()));
    assert_whole(&made, &MemoryBackend::with_image(fs::read(&path).unwrap()), &mut rng);
}

/// Anything else than that there are no second names must not cost the old container its name.
#[test]
fn vlt_72_an_error_that_does_not_speak_of_names_keeps_the_copy_out_of_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let files = Replacement::of(&path);
    fs::write(folder.path().join("vault.growing"), b"the copy").unwrap();
    // The container was moved away meanwhile.
    assert_eq!(files.put().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(files.has_copy() && !path.exists());
}

#[test]
fn a_name_that_leaves_no_room_for_those_beside_it_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let of = |len: usize| Replacement::of(&folder.path().join("v".repeat(len)));
    // 255 bytes at most, and nine for the longest ending.
    of(246).create().unwrap();
    for len in [247, 250, 255] {
        assert!(matches!(of(len).create(), Err(CreateError::NameTooLong)), "{len}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let long = Placement::with_a_name(&folder.path().join("v".repeat(250)));
    assert!(matches!(long.create(), Err(CreateError::NameTooLong)));
}

/// The disk fails when everything is written.
struct Unfinished(MemoryBackend);

impl Backend for Unfinished {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.0.reserve(size)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn finish_creation(&self) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }

    fn lock(&self, wait: Duration) -> io::Result<bool> {
        self.0.lock(wait)
    }

    fn unlock(&self) {
        self.0.unlock();
    }

    fn lock_requested(&self) -> io::Result<bool> {
        self.0.lock_requested()
    }
}

/// A file that is removed keeps its bytes on the disk for a while: they must not be an older container that opens.
#[test]
fn vlt_73_a_copy_that_fails_at_its_end_opens_for_nobody() {
    let made = made(208);
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let session = unlock(made.world.backend.another_handle(), "real", &mut rng).unwrap();
    let copy = MemoryBackend::new();
    let failed = session.copy_into(Unfinished(copy.another_handle()), larger(), &mut rng, &mut |_, _| {});
    assert!(matches!(failed, Err(GrowError::Io(_))), "{failed:?}");
    assert_eq!(copy.image().len() as u64, larger().bytes());
    for passphrase in ["real", "cover"] {
        let left = MemoryBackend::with_image(copy.image());
        assert!(unlock(left, passphrase, &mut rng).is_err(), "{passphrase} opens what is left");
    }
}

#[test]
fn vlt_72_who_waited_for_the_old_file_does_not_get_it() {
    let made = made(205);
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let folder = tempfile::tempdir().unwrap();
    let (path, old, _) = in_files(folder.path(), &made, &mut rng);
    let files = Replacement::of(&path);
    let session = open(&path, &mut rng);
    let waiting = FileBackend::open(&path).unwrap();
    session.copy_into(files.create().unwrap(), larger(), &mut rng, &mut |_, _| {}).unwrap();
    files.put().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), larger().bytes());
    drop(session);
    // The one that grew was killed here: the old bytes are whole, but they do not count.
    assert_eq!(fs::metadata(folder.path().join("vault.outgrown")).unwrap().len(), old.len() as u64);
    assert!(matches!(unlock(waiting, "real", &mut rng), Err(UnlockError::Busy { .. })));
    let session = open(&path, &mut rng);
    assert!(session.clear_leftovers(&files, &mut rng).unwrap());
    assert!(!folder.path().join("vault.outgrown").exists());
    // Growing again, to the end.
    let larger = ContainerSize::new(13 << 20).unwrap();
    session.copy_into(files.create().unwrap(), larger, &mut rng, &mut |_, _| {}).unwrap();
    files.put().unwrap();
    session.erase(&mut rng).unwrap();
    files.finish().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let backend = MemoryBackend::with_image(fs::read(&path).unwrap());
    assert_whole(&made, &backend, &mut rng);
}
