//! Syncs that fail: the system goes on showing what it has not written, and the disk has what was there before (VLT-66).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use lapwing_vault::{testing, *};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

/// A disk, and what the system shows of it.
#[derive(Default)]
struct Disk {
    shown: Vec<u8>,
    stored: Vec<u8>,
    /// Written and not synced.
    waiting: Vec<(usize, Vec<u8>)>,
    /// So many writes and syncs go well, and the next one fails.
    good: Option<u64>,
    /// A sync that fails loses what waited, as Linux has it.
    loses: bool,
    /// What somebody else makes of it while the lock is waited for.
    meanwhile: Option<Vec<u8>>,
    /// The lock fails.
    no_lock: bool,
}

impl Disk {
    fn fails(&mut self) -> bool {
        let fails = self.good == Some(0);
        self.good = self.good.and_then(|left| left.checked_sub(1));
        fails
    }

    fn apply(bytes: &mut [u8], writes: &[(usize, Vec<u8>)]) {
        for (at, written) in writes {
            bytes[*at..at + written.len()].copy_from_slice(written);
        }
    }
}

#[derive(Clone)]
struct Cached(Arc<Mutex<Disk>>);

impl Cached {
    fn new(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Disk { shown: image.clone(), stored: image, ..Disk::default() })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    fn fail_after(&self, good: u64, loses: bool) {
        let mut disk = self.disk();
        (disk.good, disk.loses) = (Some(good), loses);
    }

    /// What the disk has if the power fails now, and nothing that waits comes to it.
    fn stored(&self) -> Vec<u8> {
        self.disk().stored.clone()
    }

    /// Whether the call that should have failed was never made.
    fn heal(&self) -> bool {
        self.disk().good.take().is_some()
    }
}

impl Backend for Cached {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().shown.len() as u64)
    }
    fn reserve(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.disk().shown[usize::try_from(offset).unwrap()..][..out.len()]);
        Ok(())
    }
    fn forget_copy(&self) {
        let disk = &mut *self.disk();
        disk.shown = disk.stored.clone();
        Disk::apply(&mut disk.shown, &disk.waiting);
    }
    /// One that fails has written half.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let disk = &mut *self.disk();
        let fails = disk.fails();
        let written = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        let write = (usize::try_from(offset).unwrap(), written.to_vec());
        Disk::apply(&mut disk.shown, std::slice::from_ref(&write));
        disk.waiting.push(write);
        if fails { Err(io::Error::other("the disk refuses")) } else { Ok(()) }
    }
    fn flush(&self) -> io::Result<()> {
        let disk = &mut *self.disk();
        if disk.fails() {
            if disk.loses {
                disk.waiting.clear();
            }
            return Err(io::Error::other("the disk refuses"));
        }
        Disk::apply(&mut disk.stored, &std::mem::take(&mut disk.waiting));
        Ok(())
    }
    fn finish_creation(&self) -> io::Result<()> {
        self.sync()
    }
    fn lock(&self, _wait: Duration) -> io::Result<bool> {
        let disk = &mut *self.disk();
        if let Some(image) = disk.meanwhile.take() {
            (disk.shown, disk.stored) = (image.clone(), image);
        }
        if disk.no_lock { Err(io::Error::other("the system has no locks")) } else { Ok(true) }
    }
    fn unlock(&self) {}
    fn lock_requested(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Writes and syncs of one more commit, counted on a copy of the disk.
fn calls_of_a_commit(cached: &Cached, rng: &ChaCha20Rng) -> u64 {
    const MANY: u64 = 1000;
    let mut rng = rng.clone();
    let copy = Cached::new(cached.stored());
    let session = unlock(copy.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
    put(&volume, 50, "opened");
    copy.fail_after(MANY, false);
    put(&volume, 100, "last");
    let left = copy.disk().good.unwrap();
    MANY - left
}

/// A volume with rows 0 to `commits` and 50, and how many calls its next commit takes.
fn ready(commits: u64) -> (Cached, ChaCha20Rng, Session, Volume, u64) {
    let mut world = World::new(800 + commits);
    drop(world.create("real"));
    let cached = Cached::new(world.backend.image());
    let mut rng = world.rng;
    let session = unlock(cached.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
    for key in 0..commits {
        put(&volume, key, &"z".repeat(600));
    }
    let calls = calls_of_a_commit(&cached, &rng);
    put(&volume, 50, "opened");
    (cached, rng, session, volume, calls)
}

/// As [`ready`], after that commit failed at the sync of page 0. What waited is lost, or waits on.
fn failed(commits: u64, loses: bool) -> (Cached, ChaCha20Rng, Session, Volume) {
    let (cached, rng, session, volume, calls) = ready(commits);
    fail_at_page_0(&cached, &volume, calls, loses);
    (cached, rng, session, volume)
}

fn fail_at_page_0(cached: &Cached, volume: &Volume, calls: u64, loses: bool) {
    cached.fail_after(calls - 1, loses);
    let write = volume.begin_write().unwrap();
    write.open_table(TABLE).unwrap().insert(100, "last").unwrap();
    assert!(write.commit().is_err());
    assert!(!cached.heal());
    assert_eq!(cached.disk().waiting.is_empty(), loses);
}

/// Opens what the disk has, and looks whether everything is there that was told to be.
fn assert_kept(image: Vec<u8>, rows: impl IntoIterator<Item = u64>, what: &str) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let session = unlock(MemoryBackend::with_image(image), "real", &mut rng).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut rng);
    let volume = volume.unwrap_or_else(|error| panic!("{what}: {error}"));
    let lost: Vec<u64> = rows.into_iter().filter(|key| get(&volume, *key).is_none()).collect();
    assert!(lost.is_empty(), "{what}: {lost:?} are lost");
    volume.close().unwrap();
}

#[test]
fn vlt_66_the_first_write_after_a_failed_sync_may_be_torn() {
    for (commits, loses, calls) in
        (1..5).flat_map(|n| [(n, true, 0), (n, true, 1), (n, false, 0), (n, false, 1), (n, false, 2)])
    {
        let (cached, _rng, _session, volume) = failed(commits, loses);
        let before = cached.disk().waiting.clone();
        cached.fail_after(calls, false);
        assert!(put_torn(&volume).is_err() && !cached.heal(), "the disk refuses");
        let mut image = cached.stored();
        Disk::apply(&mut image, &new(&cached, &before));
        assert_kept(image, (0..commits).chain([50]), &format!("loses: {loses}, torn after {calls} calls"));
        put(&volume, 101, "and on");
        volume.close().unwrap();
        assert_kept(cached.stored(), (0..commits).chain([50, 101]), "went on");
    }
}

fn put_torn(volume: &Volume) -> Result<(), VolumeError> {
    let write = volume.begin_write()?;
    write.open_table(TABLE)?.insert(100, "torn")?;
    write.commit()
}

/// What waits now and did not before.
fn new(cached: &Cached, before: &[(usize, Vec<u8>)]) -> Vec<(usize, Vec<u8>)> {
    cached.disk().waiting.iter().filter(|write| !before.contains(write)).cloned().collect()
}

/// How a commit did not come to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Its sync failed, and whoever made it was told.
    Told,
    /// Whoever made it was killed before its last sync, and the disk failed under the system.
    Unseen,
    /// Whoever made it was killed before its last sync, and the system still has it.
    Waiting,
}

/// The disk after one more commit that was lost.
fn killed(cached: &Cached, lost: Lost, rng: &ChaCha20Rng) -> Cached {
    let mut rng = rng.clone();
    let copy = Cached::new(cached.stored());
    let session = unlock(copy.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
    put(&volume, 51, "opened");
    let calls = calls_of_a_commit(&copy, &rng);
    copy.fail_after(calls - 1, false);
    let write = volume.begin_write().unwrap();
    write.open_table(TABLE).unwrap().insert(100, "last").unwrap();
    assert!(write.commit().is_err());
    let killed = Cached::new(copy.stored());
    let waiting = copy.disk().waiting.clone();
    assert!(!waiting.is_empty());
    Disk::apply(&mut killed.disk().shown, &waiting);
    if lost == Lost::Waiting {
        killed.disk().waiting = waiting;
    }
    killed
}

#[test]
fn vlt_66_the_unlock_after_a_commit_that_was_lost_may_be_cut_anywhere() {
    const COMMITS: u64 = 3;
    for lost in [Lost::Told, Lost::Unseen, Lost::Waiting] {
        for calls in 0.. {
            let (mut cached, mut rng, session, volume) = failed(COMMITS, true);
            let id = volume.id();
            drop((volume, session));
            if lost != Lost::Told {
                cached = killed(&cached, lost, &rng);
            }
            let rows = || (0..COMMITS).chain(if lost == Lost::Told { 50..=50 } else { 50..=51 });
            let before = cached.disk().waiting.clone();
            let session = unlock(cached.clone(), "real", &mut rng).unwrap();
            cached.fail_after(calls, false);
            let opened = session.open_volume(id, &mut rng);
            // What the opening wrote came to the disk, or nothing did that it has not synced.
            let mut image = cached.stored();
            assert_kept(image.clone(), rows(), &format!("{lost:?}, cut after {calls} calls"));
            Disk::apply(&mut image, &new(&cached, &before));
            assert_kept(image, rows(), &format!("{lost:?}, cut after {calls} calls, which came to the disk"));
            if cached.heal() {
                opened.unwrap().close().unwrap();
                break;
            }
        }
    }
}

#[test]
fn vlt_66_the_first_write_after_a_closing_that_failed_may_be_torn() {
    for calls in 0.. {
        let (cached, mut rng, session, volume) = failed(2, true);
        let id = volume.id();
        put(&volume, 52, "goes on");
        cached.fail_after(calls, true);
        let closed = volume.close();
        drop(session);
        if cached.heal() {
            closed.unwrap();
            break;
        }
        let session = unlock(cached.clone(), "real", &mut rng).unwrap();
        let Ok(volume) = session.open_volume(id, &mut rng) else { panic!("opening after {calls}") };
        cached.fail_after(0, false);
        assert!(put_torn(&volume).is_err());
        let mut image = cached.stored();
        Disk::apply(&mut image, &cached.disk().waiting);
        assert_kept(image, [0, 1, 50, 52], &format!("the call {calls} of the closing failed"));
    }
}

#[test]
fn vlt_66_zeros_that_did_not_come_to_the_disk_are_written_again() {
    const DELETED: &[u8] = b"canary-00000001";
    for calls in 0.. {
        let mut world = World::new(890);
        drop(world.create("real"));
        let cached = Cached::new(world.backend.image());
        let session = unlock(cached.clone(), "real", &mut world.rng).unwrap();
        let id = session.volumes()[0];
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        put(&volume, 1, &String::from_utf8(DELETED.repeat(30)).unwrap());
        put(&volume, 2, "stays");
        let write = volume.begin_cleanup().unwrap();
        write.open_table(TABLE).unwrap().remove(1).unwrap();
        write.commit().unwrap();
        cached.fail_after(calls, true);
        let closed = volume.close();
        drop(session);
        if cached.heal() {
            closed.unwrap();
            break;
        }
        assert!(closed.is_err());
        let session = unlock(cached.clone(), "real", &mut world.rng).unwrap();
        session.open_volume(id, &mut world.rng).and_then(Volume::close).unwrap();
        let image = MemoryBackend::with_image(cached.stored());
        let session = unlock(image, "real", &mut world.rng).unwrap();
        for text in testing::plaintexts(&session, id) {
            let is_there = text.windows(DELETED.len()).any(|window| window == DELETED);
            assert!(!is_there, "the call {calls} failed");
        }
        let volume = session.open_volume(id, &mut world.rng).unwrap();
        assert_eq!((get(&volume, 1), get(&volume, 2)), (None, Some("stays".to_owned())));
    }
}

/// Opens what the disk has if each write that waits is torn in its middle, or is not there.
fn assert_opens_torn(cached: &Cached, what: &str) -> Session {
    let waiting = cached.disk().waiting.clone();
    let torn = |(at, bytes): &(usize, Vec<u8>)| (*at, bytes[..bytes.len() / 2].to_vec());
    let mut image = cached.stored();
    for write in &waiting {
        Disk::apply(&mut image, &[torn(write)]);
    }
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let session = unlock(MemoryBackend::with_image(image), "real", &mut rng);
    session.unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[test]
fn vlt_67_a_header_copy_that_waits_since_its_writer_was_killed_is_no_reason_to_overwrite_the_other() {
    let mut world = World::new(860);
    drop(world.create("real"));
    for calls in 0..6 {
        let cached = Cached::new(world.backend.image());
        // The sync before and the first copy go well; then the process is gone.
        cached.fail_after(2, false);
        assert!(unlock(cached.clone(), "real", &mut world.rng).is_err());
        cached.heal();
        assert_eq!(cached.disk().waiting.len(), 1);
        cached.fail_after(calls, false);
        let opened = unlock(cached.clone(), "real", &mut world.rng);
        // The sync before is tried twice.
        assert_eq!(opened.is_ok(), cached.heal() || calls == 0, "{calls}");
        assert_opens_torn(&cached, &format!("cut after {calls} calls of the next unlock"));
    }
}

#[test]
fn vlt_67_the_header_write_after_one_whose_sync_failed_may_be_torn() {
    for (loses, calls) in [(true, 0), (true, 1), (false, 0), (false, 1), (false, 2)] {
        let mut world = World::new(861);
        drop(world.create("real"));
        let cached = Cached::new(world.backend.image());
        let mut session = unlock(cached.clone(), "real", &mut world.rng).unwrap();
        cached.fail_after(1, loses);
        assert!(session.set_application(b"one", &mut world.rng).is_err());
        assert!(!cached.heal());
        cached.fail_after(calls, false);
        assert!(session.set_application(b"two", &mut world.rng).is_err());
        assert!(!cached.heal());
        assert_opens_torn(&cached, &format!("loses: {loses}, torn after {calls} calls"));
        session.set_application(b"three", &mut world.rng).unwrap();
        assert_eq!(assert_opens_torn(&cached, "went on").application(), b"three");
    }
}

#[test]
fn vlt_67_what_changes_keys_after_one_whose_sync_failed_may_be_torn() {
    let cases = [(true, 0), (true, 1), (false, 0), (false, 1), (false, 2)];
    for (destroys, (loses, calls)) in
        [false, true].into_iter().flat_map(|then| cases.map(|case| (then, case)))
    {
        let mut world = World::new(862);
        drop(world.create("real"));
        let cached = Cached::new(world.backend.image());
        let session = unlock(cached.clone(), "real", &mut world.rng).unwrap();
        let volume = session.open_volume(session.volumes()[0], &mut world.rng).unwrap();
        let names: Vec<KeyName> = (0..60u8).map(|number| KeyName([number; 16])).collect();
        let keys = names.iter().map(|name| *volume.keys().get_or_create(*name).unwrap().expose());
        let keys: Vec<[u8; 32]> = keys.collect();
        cached.fail_after(1, loses);
        assert!(volume.keys().get_or_create(KeyName([200; 16])).is_err());
        assert!(!cached.heal());
        cached.fail_after(calls, false);
        let again = match destroys {
            false => volume.keys().get_or_create(KeyName([201; 16])).map(drop),
            true => volume.keys().destroy(&[KeyName([200; 16])]),
        };
        assert!(again.is_err() && !cached.heal());
        let what = format!("destroys: {destroys}, loses: {loses}, torn after {calls} calls");
        let torn = assert_opens_torn(&cached, &what);
        let volume = torn.open_volume(torn.volumes()[0], &mut world.rng).unwrap();
        assert_eq!(volume.keys().damaged_units().unwrap(), 0, "{what}");
        for (name, key) in names.iter().zip(keys) {
            assert_eq!(*volume.keys().get(*name).unwrap().unwrap().expose(), key, "{what}");
        }
    }
}

#[test]
fn vlt_68_after_a_commit_that_failed_reading_shows_what_holds() {
    for loses in [true, false] {
        let (cached, _rng, _session, volume) = failed(3, loses);
        let shown = get(&volume, 100);
        assert_eq!(shown.is_some(), !loses, "what waits comes to the disk by the sync of the next reading");
        put(&volume, 101, "has nothing to do with it");
        assert_eq!(get(&volume, 100), shown);
        assert_kept(cached.stored(), [0, 1, 2, 50, 101], "went on");
    }
}

#[test]
fn vlt_68_a_reading_from_before_keeps_later_ones_waiting_and_shows_what_was_there() {
    let (cached, _rng, _session, volume, calls) = ready(3);
    let before = volume.begin_read().unwrap();
    fail_at_page_0(&cached, &volume, calls, false);
    assert!(matches!(volume.begin_read(), Err(VolumeError::InUse)));
    assert!(before.open_table(TABLE).unwrap().get(100).unwrap().is_none());
    drop(before);
    assert_eq!(get(&volume, 100).as_deref(), Some("last"));
}

#[test]
fn vlt_66_superblocks_that_went_bad_in_the_systems_copy_are_read_from_the_disk() {
    let (cached, mut rng, session, volume) = failed(2, true);
    put(&volume, 51, "kept");
    let id = volume.id();
    volume.close().unwrap();
    drop(session);
    // Both of each region.
    let region_len = ((8usize << 20) - 143_360) / 4 / 4096 * 4096;
    for region in 0..4 {
        let first = 143_360 + region * region_len + 16_384 + 57_344;
        for at in [first + 100, first + 8192 + 100] {
            cached.disk().shown[at] ^= 1;
        }
    }
    let session = unlock(cached.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    assert_eq!(get(&volume, 51).as_deref(), Some("kept"));
}

#[test]
fn an_unlock_that_the_disk_refuses_hands_out_what_is_to_be_told() {
    let mut world = World::new(863);
    let mut session = world.create("real");
    session.set_application(b"tell this", &mut world.rng).unwrap();
    drop(session);
    for calls in 0..5 {
        let cached = Cached::new(world.backend.image());
        cached.fail_after(calls, false);
        match unlock(cached.clone(), "real", &mut world.rng) {
            // The sync before is tried twice.
            Ok(_) => assert_eq!(calls, 0),
            Err(UnlockError::Refused { application, .. }) => assert_eq!(application.expose(), b"tell this"),
            Err(other) => panic!("{calls}: {other}"),
        }
        let cached = Cached::new(world.backend.image());
        cached.fail_after(calls, false);
        assert!(matches!(unlock(cached, "wrong", &mut world.rng), Err(UnlockError::NotUnlocked)));
    }
}

#[test]
fn a_lock_that_fails_hands_out_what_is_to_be_told_and_a_passphrase_that_died_meanwhile_does_not() {
    let mut world = World::new(864);
    let mut session = world.create("real");
    let volumes = session.volumes();
    let spec = Spec {
        volumes: &volumes,
        others: Others::Keep,
        spare: &[],
        application: b"cover relays",
        label: b"at the border",
        home: volumes[0],
    };
    let id = session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    let image = world.backend.image();

    let cached = Cached::new(image.clone());
    cached.disk().no_lock = true;
    match unlock(cached, "cover", &mut world.rng) {
        Err(UnlockError::Refused { application, .. }) => assert_eq!(application.expose(), b"cover relays"),
        other => panic!("{other:?}"),
    }

    // The other process is cut off after the first of the two copies without it.
    let cached = Cached::new(image.clone());
    let mut session = unlock(cached.clone(), "real", &mut world.rng).unwrap();
    cached.fail_after(2, false);
    assert!(session.remove_entry(id, &mut world.rng).is_err() && !cached.heal());
    drop(session);
    let dying = cached.stored();
    for calls in 0..6 {
        let cached = Cached::new(image.clone());
        cached.disk().meanwhile = Some(dying.clone());
        cached.fail_after(calls, false);
        let told = unlock(cached.clone(), "cover", &mut world.rng);
        // The sync before is tried twice; after that come the two copies, each with its sync.
        match told {
            Err(UnlockError::NotUnlocked) => assert!(calls == 0 || cached.heal(), "{calls}"),
            Err(UnlockError::Io(_)) => assert!(!cached.heal(), "{calls}"),
            other => panic!("{calls}: {other:?}"),
        }
    }
}
