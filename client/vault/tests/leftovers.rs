//! What a crash left beside a container or in it must neither outlive a destruction nor close what is whole; what is
//! deleted or destroyed leaves nothing in its place.

#![allow(clippy::disallowed_methods, reason = "files as a crash left them")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::path::Path;

use lapwing_vault::{
    testing::{self, RecordingBackend, SECTOR, power_cut},
    *,
};
use rand_chacha::ChaCha20Rng;
use world::*;

/// An owner, and a passphrase that destroys all but the first volume.
fn made(seed: u64) -> (World, VolumeId) {
    let mut world = World::new(seed);
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    put(&session.open_volume(private, &mut world.rng).unwrap(), 1, "plans");
    let spec = Spec {
        volumes: &[family],
        others: Others::Refresh,
        spare: &[],
        application: b"",
        label: b"c",
        home: private,
    };
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    (world, private)
}

fn file(path: &Path, image: &[u8]) {
    std::fs::write(path, image).unwrap();
}

fn opens(path: &Path, passphrase: &str, rng: &mut ChaCha20Rng) -> bool {
    unlock(FileBackend::open(path).unwrap(), passphrase, rng).is_ok()
}

/// The header of the container itself cannot be written here, so what was closed was closed before it.
#[test]
fn vlt_73_older_container_beside_this_one_is_closed_before_the_header_is_written() {
    let (mut world, _) = made(230);
    let folder = tempfile::tempdir().unwrap();
    let image = world.backend.image();
    let path = folder.path().join("vault");
    file(&path, &image);
    for name in ["vault.growing", "vault.outgrown"] {
        let left = folder.path().join(name);
        file(&left, &image);
        assert!(opens(&left, "real", &mut world.rng));
        let backend = RecordingBackend::with_image(image.clone());
        backend.set_full(true);
        let locked = Container::open(backend).unwrap().closing_leftovers_of(Replacement::of(&path));
        let failed =
            locked.unlock(&Passphrase::new("cover"), TINY, &mut world.rng, std::time::Duration::ZERO);
        assert!(matches!(failed, Err(UnlockError::Refused { .. })), "{failed:?}");
        for passphrase in ["real", "cover"] {
            assert!(!opens(&left, passphrase, &mut world.rng), "{passphrase} still opens {name}");
        }
        std::fs::remove_file(&left).unwrap();
    }
    // A wrong passphrase does nothing to them.
    let left = folder.path().join("vault.outgrown");
    file(&left, &image);
    let locked = Container::open(RecordingBackend::with_image(image)).unwrap();
    let locked = locked.closing_leftovers_of(Replacement::of(&path));
    assert!(
        locked.unlock(&Passphrase::new("wrong"), TINY, &mut world.rng, std::time::Duration::ZERO).is_err()
    );
    assert!(opens(&left, "real", &mut world.rng));
}

/// One bad sector after a session that was killed: at worst its volume is damaged, by name; the session goes on.
#[test]
fn vlt_57_rotten_page_after_a_kill_closes_no_more_than_its_volume() {
    let (mut world, private) = made(231);
    let before = world.backend.image();
    let session = world.unlock("real").unwrap();
    let volume = session.open_volume(private, &mut world.rng).unwrap();
    for n in 0..40 {
        put(&volume, n, &"words ".repeat(200));
    }
    let killed = world.backend.image();
    drop(volume);
    drop(session);
    // Behind both copies of the header.
    let changed: Vec<usize> = (143_360 / SECTOR..killed.len() / SECTOR)
        .filter(|sector| before[sector * SECTOR..][..SECTOR] != killed[sector * SECTOR..][..SECTOR])
        .collect();
    let (mut opened, mut damaged) = (0, 0);
    for sector in changed.iter().step_by(changed.len() / 60) {
        let mut image = killed.clone();
        image[sector * SECTOR + 100] ^= 1;
        let session = unlock(MemoryBackend::with_image(image), "real", &mut world.rng).unwrap();
        match session.open_volume(private, &mut world.rng) {
            Err(VolumeError::Damaged) => damaged += 1,
            Err(other) => panic!("one sector closes the vault: {other:?}"),
            Ok(_) => opened += 1,
        }
    }
    assert!(opened > 10 && damaged > 5, "{opened} opened, {damaged} damaged");
}

/// What cannot be opened cannot be carried over, and would be erased with the old container: a volume whose records are
/// damaged is refused, one of whose keys some do not open is carried over without them.
#[test]
fn vlt_71_damaged_volume_is_not_left_behind() {
    let (mut world, private) = made(232);
    let session = world.unlock("real").unwrap();
    let volume = session.open_volume(private, &mut world.rng).unwrap();
    volume.keys().get_or_create(KeyName([9; 16])).unwrap();
    volume.close().unwrap();
    let units = testing::key_unit_offsets(&session, private);
    drop(session);
    let image = world.backend.image();
    let mut rotten = image.clone();
    let unit = usize::try_from(units[0]).unwrap();
    [unit + 50, unit + 4096 + 50].into_iter().for_each(|at| rotten[at] ^= 1);
    let session = unlock(MemoryBackend::with_image(rotten), "real", &mut world.rng).unwrap();
    // Its keys are read when they are asked for.
    let volume = session.open_volume(private, &mut world.rng).unwrap();
    assert!(matches!(volume.keys().len(), Err(VolumeError::Damaged)));
    assert_eq!(volume.keys().damaged_units().unwrap(), 1);
    drop(volume);
    // VLT-64: keys that open for nobody keep nothing from growing; what opens is carried over.
    let larger = ContainerSize::new(11 << 20).unwrap();
    let copy = MemoryBackend::new();
    session.copy_into(copy.another_handle(), larger, &mut world.rng, &mut |_, _| {}).unwrap();
    let grown = unlock(copy, "real", &mut world.rng).unwrap();
    let volume = grown.open_volume(private, &mut world.rng).unwrap();
    assert_eq!(volume.keys().damaged_units().unwrap(), 0);
    drop((volume, grown, session));
    // Its records do.
    let mut rotten = image;
    let records = usize::try_from(units[units.len() - 1]).unwrap() + 2 * 4096;
    (0..64).for_each(|unit| rotten[records + unit * 4608 + 50] ^= 1);
    let session = unlock(MemoryBackend::with_image(rotten), "real", &mut world.rng).unwrap();
    let refused = session.copy_into(MemoryBackend::new(), larger, &mut world.rng, &mut |_, _| {});
    assert!(matches!(refused, Err(GrowError::Damaged)), "{refused:?}");
}

/// VLT-48: what another session made and a bad sector hit is not taken for what a kill left.
#[test]
fn vlt_48_volume_that_rots_is_no_remnant_and_what_a_power_cut_left_is_one() {
    let mut world = World::new(233);
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    let spec = Spec {
        volumes: &[family],
        others: Others::Keep,
        spare: &[],
        application: b"",
        label: b"c",
        home: private,
    };
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    let before = world.backend.image();
    // The one whose units are tried for a hidden place is not the private one here, with this seed.
    let recording = RecordingBackend::with_image(before.clone());
    let mut session = unlock(recording.clone(), "cover", &mut world.rng).unwrap();
    recording.take_calls();
    let unlocked = recording.image();
    let made = session.create_volume(family, b"made inside", &mut world.rng).unwrap();
    let calls: Vec<_> = recording.take_calls();
    put(&session.open_volume(made, &mut world.rng).unwrap(), 1, "words");
    drop(session);
    let whole = recording.image();
    let found = |image: &[u8], rng: &mut ChaCha20Rng| {
        let session = unlock(MemoryBackend::with_image(image.to_vec()), "real", rng).unwrap();
        assert!(!session.volumes().contains(&made));
        session.found_volumes().contains(&made).then_some(session)
    };
    let session = found(&whole, &mut world.rng).expect("the owner finds it");
    assert!(!session.is_remnant(made).unwrap());
    // Its region is where the making wrote most. Each sector of its first units, and of its tables.
    let region = (143_360..whole.len())
        .find(|at| whole[*at] != unlocked[*at] && whole[*at..][..65_536] != unlocked[*at..][..65_536]);
    let first = region.unwrap() / SECTOR;
    let (mut rotten, mut gone) = (0, 0);
    for sector in (first..whole.len() / SECTOR).step_by(8) {
        let mut image = whole.clone();
        image[sector * SECTOR + 100] ^= 1;
        image[(sector + 8).min(whole.len() / SECTOR - 1) * SECTOR + 100] ^= 1;
        let Some(session) = found(&image, &mut world.rng) else { continue };
        if let Err(VolumeError::Damaged) = session.open_volume(made, &mut world.rng) {
            assert!(!session.is_remnant(made).unwrap(), "sector {sector}");
            rotten += 1;
        }
        if rotten > 4 || sector > first + 2000 {
            break;
        }
    }
    assert!(rotten > 0, "some sector closes it");
    // Cut at any call of the making, it is not there, opens, or is a remnant.
    for cut in (0..calls.len()).step_by(7) {
        let image = power_cut(&unlocked, &calls, cut, &mut world.rng);
        let Some(session) = found(&image, &mut world.rng) else { continue };
        match session.open_volume(made, &mut world.rng) {
            Ok(_) => {}
            Err(VolumeError::Damaged) => {
                assert!(session.is_remnant(made).unwrap(), "cut {cut}");
                gone += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(gone > 0, "some cut leaves a remnant");
}

#[test]
fn vlt_47_of_a_deleted_volume_every_sector_of_its_region_is_overwritten() {
    const REGIONS_START: u64 = 143_360;
    let mut world = World::new(17);
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    let volume = session.open_volume(private, &mut world.rng).unwrap();
    put(&volume, 1, "what is deleted");
    volume.keys().get_or_create(KeyName([3; 16])).unwrap();
    volume.close().unwrap();
    let start = *testing::key_unit_offsets(&session, private).iter().min().unwrap();
    let before = world.backend.image();
    let region_len = (before.len() as u64 - REGIONS_START) / 4 / 4096 * 4096;
    let region = (start - REGIONS_START) / region_len;
    session.delete_volume(private, &mut world.rng).unwrap();
    let after = world.backend.image();
    let from = usize::try_from(REGIONS_START + region * region_len).unwrap();
    let whole = from..from + usize::try_from(region_len).unwrap();
    let mut sectors = before[whole.clone()].chunks(SECTOR).zip(after[whole].chunks(SECTOR));
    assert!(sectors.len() > 4000 && sectors.all(|(one, other)| one != other));
}

/// What stands in a slot is random after this, and so is what leads to it: an old passphrase opens no box of either copy,
/// which would show that it was one.
#[test]
fn vlt_29_a_destroyed_slot_has_no_box_that_the_old_passphrase_opens() {
    let boxes = |world: &World, passphrase: &str| {
        testing::boxes_opened_by(&world.backend.image(), &Passphrase::new(passphrase), TINY)
    };
    let (mut world, private) = made(18);
    let mut session = world.unlock("real").unwrap();
    let family = session.volumes()[0];
    let keeping = Spec {
        volumes: &[family],
        others: Others::Keep,
        spare: &[],
        application: b"",
        label: b"k",
        home: private,
    };
    let entry = session.add_passphrase(&Passphrase::new("removed"), &keeping, &mut world.rng).unwrap();
    assert_eq!(
        ["real", "cover", "removed", "wrong"].map(|passphrase| boxes(&world, passphrase)),
        [4, 4, 4, 0]
    );
    session.remove_entry(entry, &mut world.rng).unwrap();
    session.change_passphrase(&Passphrase::new("changed"), private, &mut world.rng).unwrap();
    drop(session);
    assert_eq!(["real", "changed", "removed"].map(|passphrase| boxes(&world, passphrase)), [0, 4, 0]);
    let session = world.unlock("cover").unwrap();
    assert_eq!(["changed", "cover"].map(|passphrase| boxes(&world, passphrase)), [0, 4]);
    session.sign_off(&mut world.rng).unwrap();
    assert_eq!(boxes(&world, "cover"), 0);
}
