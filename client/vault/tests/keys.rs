//! The table of keys when something goes wrong: power cuts, calls that fail, units that rot. A destruction that says that it
//! is done has left no copy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing_vault::{testing, *};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

/// A file of which one call that changes it fails: the one that brings `left` to zero.
#[derive(Clone)]
struct Failing {
    inner: Arc<MemoryBackend>,
    left: Arc<AtomicUsize>,
    /// What fails is done all the same.
    reaches: bool,
}

impl Failing {
    fn over(image: Vec<u8>, reaches: bool) -> Self {
        let inner = Arc::new(MemoryBackend::with_image(image));
        Self { inner, left: Arc::default(), reaches }
    }

    fn call(&self, change: impl FnOnce(&MemoryBackend) -> io::Result<()>) -> io::Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        if left != 1 {
            return change(&self.inner);
        }
        if self.reaches {
            change(&self.inner)?;
        }
        Err(io::Error::other("the disk refuses"))
    }
}

impl Backend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn reserve(&self, size: u64) -> io::Result<()> {
        self.inner.reserve(size)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(|inner| inner.write_at(offset, bytes))
    }
    fn flush(&self) -> io::Result<()> {
        self.call(MemoryBackend::flush)
    }
    fn finish_creation(&self) -> io::Result<()> {
        self.inner.finish_creation()
    }
    fn lock(&self, wait: Duration) -> io::Result<bool> {
        self.inner.lock(wait)
    }
    fn unlock(&self) {
        self.inner.unlock();
    }
    fn lock_requested(&self) -> io::Result<bool> {
        self.inner.lock_requested()
    }
}

fn name(n: u8) -> KeyName {
    KeyName([n; 16])
}

/// The image of a container whose one volume holds these keys, and was closed.
fn container(seed: u64, keys: u8) -> (Vec<u8>, VolumeId, Vec<[u8; 32]>) {
    let mut world = World::new(seed);
    let session = world.create("real");
    let id = session.volumes()[0];
    let volume = session.open_volume(id, &mut world.rng).unwrap();
    let made = (0..keys).map(|n| *volume.keys().get_or_create(name(n)).unwrap().expose()).collect();
    put(&volume, 1, "a record");
    volume.close().unwrap();
    drop(session);
    (world.backend.image(), id, made)
}

/// The same with both copies of one unit of its table changed by a bit.
fn rotten(image: &[u8], unit: u64) -> Vec<u8> {
    let mut image = image.to_vec();
    let at = usize::try_from(unit).unwrap();
    [at + 50, at + 4096 + 50].into_iter().for_each(|at| image[at] ^= 1);
    image
}

fn units_of(image: &[u8], id: VolumeId) -> Vec<u64> {
    let backend = MemoryBackend::with_image(image.to_vec());
    let session = unlock(backend, "real", &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    testing::key_unit_offsets(&session, id)
}

#[test]
fn vlt_62_destruction_cut_off_in_a_scrubbed_volume_is_completed_by_opening_alone() {
    let (base, id, made) = container(41, 12);
    let recording = testing::RecordingBackend::with_image(base.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(42);
    let session = unlock(recording.clone(), "real", &mut rng).unwrap();
    let volume = session.open_volume(id, &mut rng).unwrap();
    let start = recording.call_count();
    volume.keys().destroy(&[name(1), name(2), name(3)]).unwrap();
    let end = recording.call_count();
    drop((volume, session));
    let calls = recording.take_calls();
    let mut cut_off = 0;
    for cut in start..=end {
        for seed in 0..4 {
            let mut rng = ChaCha20Rng::seed_from_u64(100 + seed);
            let backend = MemoryBackend::with_image(testing::power_cut(&base, &calls, cut, &mut rng));
            let session = unlock(backend, "real", &mut rng).unwrap();
            let volume = session.open_volume(id, &mut rng).unwrap();
            // Before anybody asks for a key: asking would complete it.
            let copies = [1, 2, 3].map(|n| testing::key_units_containing(&session, id, &made[n]));
            for (n, copies) in [1, 2, 3].into_iter().zip(copies) {
                if volume.keys().get(name(n)).unwrap().is_none() {
                    cut_off += 1;
                    assert_eq!(copies, 0, "{n} at {cut}: the opening left copies of it");
                }
            }
        }
    }
    assert!(cut_off > 0);
}

#[test]
fn vlt_64_destruction_overwrites_units_that_do_not_open_and_ends() {
    let (image, id, made) = container(43, 30);
    let mut rng = ChaCha20Rng::seed_from_u64(44);
    let units = units_of(&image, id);
    let mut lost = 0;
    for unit in &units {
        let backend = MemoryBackend::with_image(rotten(&image, *unit));
        let session = unlock(backend.another_handle(), "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        let keys = volume.keys();
        assert_eq!(keys.damaged_units().unwrap(), 1);
        let opens: Vec<bool> = (0..30).map(|n| matches!(keys.get(name(n)), Ok(Some(_)))).collect();
        lost += opens.iter().filter(|opens| !**opens).count();
        // It keeps nobody from making keys, and from using them.
        let fresh = *keys.prepare(name(99)).unwrap().expose();
        put(&volume, 2, "under the new key");
        assert_eq!(keys.get(name(99)).unwrap().unwrap().expose(), &fresh);
        assert_eq!(keys.damaged_units().unwrap(), 1);
        // Of three names some lie in a unit that opens, some in none.
        keys.destroy(&[name(3), name(4), name(200)]).unwrap();
        assert_eq!(keys.damaged_units().unwrap(), 0);
        let after = backend.image();
        let at = usize::try_from(*unit).unwrap();
        for at in [at, at + 4096] {
            // Who ignores the tag reads what is there: all of it is another.
            let same = (at..at + 4096).filter(|at| after[*at] == image[*at]).count();
            assert!(same < 60, "{same} bytes stay as they were");
        }
        for n in [3, 4] {
            assert_eq!(testing::key_units_containing(&session, id, &made[n]), 0);
        }
        drop((volume, session));
        let session = unlock(backend.another_handle(), "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        for (n, (opened, key)) in (0..).zip(opens.into_iter().zip(&made)) {
            let found = volume.keys().get(name(n)).unwrap().map(|key| *key.expose());
            assert_eq!(found, (opened && ![3, 4].contains(&n)).then_some(*key), "{n}");
        }
        assert_eq!(volume.keys().get(name(99)).unwrap().unwrap().expose(), &fresh);
    }
    assert_eq!(lost, made.len(), "each key lies in one of the units");
}

/// A name that has no answer beside a damaged unit, and the one that is used in its place: destroyed together they are gone
/// from both units, and the second one alone leaves the damaged unit as it was.
#[test]
fn vlt_64_a_damaged_unit_is_overwritten_only_for_a_name_that_may_lie_in_it() {
    let (image, id, made) = container(45, 6);
    let mut rng = ChaCha20Rng::seed_from_u64(46);
    let mut without_answer = 0;
    for unit in units_of(&image, id) {
        let broken = rotten(&image, unit);
        let at = usize::try_from(unit).unwrap();
        let backend = MemoryBackend::with_image(broken.clone());
        let session = unlock(backend.another_handle(), "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        let found: Vec<u8> = (0..6).filter(|n| matches!(volume.keys().get(name(*n)), Ok(Some(_)))).collect();
        let fresh = *volume.keys().get_or_create(name(102)).unwrap().expose();
        let second = *volume.keys().prepare(name(103)).unwrap().expose();
        // Of those that open, and of those that are new, in this session and in the next one.
        let opens: Vec<KeyName> = found.iter().filter(|n| **n > 2).copied().map(name).collect();
        volume.keys().destroy(&[&opens[..], &[name(103)]].concat()).unwrap();
        volume.close().unwrap();
        drop(session);
        let session = unlock(backend.another_handle(), "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        volume.keys().destroy(&[name(102)]).unwrap();
        assert!(backend.image()[at..at + 8192] == broken[at..at + 8192], "the unit at {unit} was touched");
        assert_eq!(volume.keys().damaged_units().unwrap(), 1);
        for gone in opens.iter().map(|name| made[usize::from(name.0[0])]).chain([fresh, second]) {
            assert_eq!(testing::key_units_containing(&session, id, &gone), 0);
        }
        // What it holds opens when its bits come right.
        let lost: Vec<u8> = (0..6).filter(|n| !found.contains(n)).collect();
        let repair = |mut image: Vec<u8>| {
            [at + 50, at + 4096 + 50].into_iter().for_each(|at| image[at] ^= 1);
            unlock(MemoryBackend::with_image(image), "real", &mut ChaCha20Rng::seed_from_u64(1)).unwrap()
        };
        let repaired = repair(backend.image());
        for n in &lost {
            assert!(testing::key_units_containing(&repaired, id, &made[usize::from(*n)]) > 0);
        }
        let Some(first) = lost.first() else { continue };
        without_answer += 1;
        volume.keys().destroy(&[name(*first), name(104)]).unwrap();
        assert_eq!(volume.keys().damaged_units().unwrap(), 0);
        // The bits that rotted are repaired: the old key is not there for it.
        let repaired = repair(backend.image());
        assert_eq!(testing::key_units_containing(&repaired, id, &made[usize::from(*first)]), 0);
    }
    assert!(without_answer > 1, "{without_answer}");
}

/// A file of which one unit reads wrongly, until the system is told to forget its copy of it.
#[derive(Clone)]
struct BadCopy {
    inner: Arc<MemoryBackend>,
    unit: u64,
    heals: bool,
    bad: Arc<AtomicBool>,
}

impl Backend for BadCopy {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn reserve(&self, size: u64) -> io::Result<()> {
        self.inner.reserve(size)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, out)?;
        let flipped = [self.unit + 50, self.unit + 4096 + 50];
        for at in flipped.into_iter().filter_map(|at| usize::try_from(at.checked_sub(offset)?).ok()) {
            if let Some(byte) = out.get_mut(at) {
                *byte ^= u8::from(self.bad.load(Ordering::SeqCst));
            }
        }
        Ok(())
    }
    fn forget_copy(&self) {
        if self.heals {
            self.bad.store(false, Ordering::SeqCst);
        }
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.sync()
    }
    fn finish_creation(&self) -> io::Result<()> {
        self.inner.finish_creation()
    }
    fn lock(&self, wait: Duration) -> io::Result<bool> {
        self.inner.lock(wait)
    }
    fn unlock(&self) {
        self.inner.unlock();
    }
    fn lock_requested(&self) -> io::Result<bool> {
        self.inner.lock_requested()
    }
}

#[test]
fn vlt_64_a_unit_that_went_bad_in_memory_alone_is_read_from_the_disk() {
    let (image, id, made) = container(53, 20);
    for unit in units_of(&image, id) {
        for before in [true, false] {
            let mut rng = ChaCha20Rng::seed_from_u64(unit);
            let inner = Arc::new(MemoryBackend::with_image(image.clone()));
            let backend = BadCopy { inner, unit, heals: before, bad: Arc::new(AtomicBool::new(true)) };
            let session = unlock(backend.clone(), "real", &mut rng).unwrap();
            let volume = session.open_volume(id, &mut rng).unwrap();
            // Before it is called damaged, or before it is overwritten.
            assert_eq!(volume.keys().damaged_units().unwrap(), usize::from(!before));
            backend.bad.store(false, Ordering::SeqCst);
            volume.keys().destroy(&[name(7), name(201)]).unwrap();
            assert_eq!(volume.keys().damaged_units().unwrap(), 0);
            for n in 0..20 {
                let key = volume.keys().get(name(n)).unwrap().map(|key| *key.expose());
                assert_eq!(key, (n != 7).then_some(made[usize::from(n)]), "{n}");
            }
            assert_eq!(testing::key_units_containing(&session, id, &made[7]), 0);
        }
    }
}

/// The disk refuses one call of the destruction itself, beside a damaged unit or none; it is asked for again.
#[test]
fn vlt_65_destruction_that_failed_and_is_repeated_leaves_nothing() {
    let (whole, id, made) = container(47, 12);
    let has_first = |unit: &u64| {
        let backend = MemoryBackend::with_image(rotten(&whole, *unit));
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let session = unlock(backend, "real", &mut rng).unwrap();
        session.open_volume(id, &mut rng).unwrap().keys().get(name(0)).is_err()
    };
    let unit = units_of(&whole, id).into_iter().find(has_first).unwrap();
    let names: Vec<KeyName> = (0..10).map(name).collect();
    for (image, reaches) in [
        (whole.clone(), false),
        (whole.clone(), true),
        (rotten(&whole, unit), false),
        (rotten(&whole, unit), true),
    ] {
        let mut failed = 0;
        for fail in 1..24 {
            let mut rng = ChaCha20Rng::seed_from_u64(fail as u64);
            let backend = Failing::over(image.clone(), reaches);
            let session = unlock(backend.clone(), "real", &mut rng).unwrap();
            let volume = session.open_volume(id, &mut rng).unwrap();
            backend.left.store(fail, Ordering::SeqCst);
            failed += usize::from(volume.keys().destroy(&names).is_err());
            backend.left.store(0, Ordering::SeqCst);
            volume.keys().destroy(&names).unwrap();
            assert_eq!(volume.keys().damaged_units().unwrap(), 0);
            for key in &made[..10] {
                assert_eq!(testing::key_units_containing(&session, id, key), 0, "at {fail}");
            }
        }
        assert!(failed > 3, "{failed}");
    }
}

/// A commit fails at any call of it. Keys that were prepared for it may be on the disk, or not: destroyed, they are not.
#[test]
fn vlt_65_keys_of_a_commit_that_failed_are_destroyed_for_certain() {
    let (image, id, _) = container(49, 0);
    let names: Vec<KeyName> = (0..6).map(name).collect();
    for reaches in [false, true] {
        let (mut failed, mut on_disk) = (0, 0);
        for fail in 1..24 {
            let mut rng = ChaCha20Rng::seed_from_u64(fail as u64);
            let backend = Failing::over(image.clone(), reaches);
            let session = unlock(backend.clone(), "real", &mut rng).unwrap();
            let volume = session.open_volume(id, &mut rng).unwrap();
            let copies = |session: &Session, keys: &[[u8; 32]]| -> usize {
                keys.iter().map(|key| testing::key_units_containing(session, id, key)).sum()
            };
            let keys: Vec<[u8; 32]> =
                names.iter().map(|name| *volume.keys().prepare(*name).unwrap().expose()).collect();
            backend.left.store(fail, Ordering::SeqCst);
            let written = volume.begin_write().and_then(|write| {
                write.open_table(TABLE)?.insert(2, "x")?;
                write.commit()
            });
            backend.left.store(0, Ordering::SeqCst);
            failed += usize::from(written.is_err());
            on_disk += copies(&session, &keys);
            volume.keys().destroy(&names).unwrap();
            assert_eq!(copies(&session, &keys), 0, "after a failure at {fail}");
            let _closed = volume.close();
            drop(session);
            let again = MemoryBackend::with_image(backend.inner.image());
            let session = unlock(again, "real", &mut rng).unwrap();
            let volume = session.open_volume(id, &mut rng).unwrap();
            assert_eq!(copies(&session, &keys), 0, "opened after a failure at {fail}");
            assert!(names.iter().all(|name| volume.keys().get(*name).unwrap().is_none()));
        }
        assert!(failed > 5 && on_disk > 5, "{failed} {on_disk}");
    }
}

/// The same for a key that is to be on the disk at once; and what the next one finds is what the disk has.
#[test]
fn vlt_65_key_whose_making_failed_is_found_or_made_and_destroyed() {
    let (image, id, _) = container(51, 3);
    for (fail, reaches) in (1..8).flat_map(|fail| [(fail, false), (fail, true)]) {
        let mut rng = ChaCha20Rng::seed_from_u64(fail as u64);
        let backend = Failing::over(image.clone(), reaches);
        let session = unlock(backend.clone(), "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        backend.left.store(fail, Ordering::SeqCst);
        let _first = volume.keys().get_or_create(name(7));
        backend.left.store(0, Ordering::SeqCst);
        let key = *volume.keys().get_or_create(name(7)).unwrap().expose();
        drop((volume, session));
        let again = MemoryBackend::with_image(backend.inner.image());
        let session = unlock(again, "real", &mut rng).unwrap();
        let volume = session.open_volume(id, &mut rng).unwrap();
        assert_eq!(volume.keys().get(name(7)).unwrap().unwrap().expose(), &key, "{fail} {reaches}");
        assert_eq!(volume.keys().len().unwrap(), 4);
        volume.keys().destroy(&[name(7)]).unwrap();
        assert_eq!(testing::key_units_containing(&session, id, &key), 0);
    }
}
