//! Creating, unlocking, passphrases and volumes, end to end on a container in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use lapwing_vault::*;
use rand_chacha::rand_core::RngCore;
use world::*;

#[test]
fn what_is_written_is_there_after_the_next_unlock() {
    let mut world = World::new(1);
    let mut session = world.create("real");
    let id = session.volumes()[0];
    put(&session.open_volume(id, &mut world.rng).unwrap(), 1, "meet at the ford");
    session.set_application(b"relays", &mut world.rng).unwrap();
    drop(session);
    let session = world.unlock("real").unwrap();
    assert_eq!(session.volumes(), [id]);
    assert_eq!(session.application(), b"relays");
    assert_eq!(
        get(&session.open_volume(id, &mut world.rng).unwrap(), 1).as_deref(),
        Some("meet at the ford")
    );
}

#[test]
fn vlt_12_wrong_passphrase_gets_one_answer_and_writes_nothing() {
    let mut world = World::new(2);
    drop(world.create("real"));
    let before = world.backend.image();
    assert!(matches!(world.unlock("wrong"), Err(UnlockError::NotUnlocked)));
    assert!(matches!(world.unlock(""), Err(UnlockError::NotUnlocked)));
    assert!(world.backend.image() == before);
    // A container of nothing but random bytes gives the same answer.
    let mut random = vec![0; 8 << 20];
    world.rng.fill_bytes(&mut random);
    let backend = MemoryBackend::with_image(random);
    assert!(matches!(unlock(backend, "real", &mut world.rng), Err(UnlockError::NotUnlocked)));
}

#[test]
fn wrong_size_is_told_before_any_passphrase() {
    let backend = MemoryBackend::with_image(vec![0; (8 << 20) - 1]);
    assert!(matches!(Container::open(backend), Err(OpenError::NotAContainer)));
    assert!(matches!(Container::open(MemoryBackend::new()), Err(OpenError::NotAContainer)));
}

#[test]
fn creation_never_overwrites() {
    let mut world = World::new(3);
    drop(world.create("real"));
    let again = Container::create(
        world.backend.another_handle(),
        ContainerSize::MIN,
        &Passphrase::new("x"),
        TINY,
        &mut world.rng,
        &mut |_, _| {},
    );
    assert!(matches!(again, Err(CreateError::Exists)));
}

#[test]
fn vlt_22_bit_rot_in_one_copy_is_healed_and_in_both_is_reported_without_a_write() {
    let mut world = World::new(4);
    drop(world.create("real"));
    for copy in [4096usize, 73_728] {
        let mut image = world.backend.image();
        // Somewhere in an ordinary slot: the passphrase's own two stay readable, the MAC does not hold.
        image[copy + 4096 + 600] ^= 1;
        let backend = MemoryBackend::with_image(image);
        assert!(unlock(backend.another_handle(), "real", &mut world.rng).is_ok());
        let mut healed = backend.image();
        healed[77_824 - copy + 4096 + 600] ^= 1;
        assert!(unlock(MemoryBackend::with_image(healed), "real", &mut world.rng).is_ok());
    }
    let mut image = world.backend.image();
    image[4096 + 1800 - 40] ^= 1;
    image[73_728 + 1800 - 40] ^= 1;
    let backend = MemoryBackend::with_image(image.clone());
    assert!(matches!(unlock(backend.another_handle(), "real", &mut world.rng), Err(UnlockError::Damaged)));
    assert!(backend.image() == image);
}

/// An owner with `family` and `private`, as the client sets it up.
fn owner(world: &mut World) -> (Session, VolumeId, VolumeId) {
    let mut session = world.create("real");
    let family = session.volumes()[0];
    let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
    put(&session.open_volume(family, &mut world.rng).unwrap(), 1, "dinner at six");
    put(&session.open_volume(private, &mut world.rng).unwrap(), 1, "the plan");
    (session, family, private)
}

fn cover<'a>(volumes: &'a [VolumeId], others: Others, home: VolumeId) -> Spec<'a> {
    Spec { volumes, others, spare: &[], application: b"cover relays", label: b"at the border", home }
}

#[test]
fn cover_opens_what_it_was_given_and_nothing_of_the_owner() {
    let mut world = World::new(5);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    let entry = session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);

    let session = world.unlock("cover").unwrap();
    assert_eq!(session.id(), entry);
    assert_eq!(session.volumes(), [family]);
    assert!(session.found_volumes().is_empty() && session.entries().is_empty());
    assert_eq!(session.application(), b"cover relays");
    assert!(matches!(session.open_volume(private, &mut world.rng), Err(VolumeError::Unknown)));
    assert_eq!(
        get(&session.open_volume(family, &mut world.rng).unwrap(), 1).as_deref(),
        Some("dinner at six")
    );
    drop(session);

    let session = world.unlock("real").unwrap();
    assert_eq!(session.volumes(), [family, private]);
    let entries = session.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].id(), entries[0].label(), entries[0].home()),
        (entry, &b"at the border"[..], private)
    );
    assert_eq!((entries[0].volumes(), entries[0].others()), (vec![family], Others::Keep));
    assert_eq!(get(&session.open_volume(private, &mut world.rng).unwrap(), 1).as_deref(), Some("the plan"));
}

#[test]
fn destroying_cover_leaves_nothing_that_the_real_passphrase_opens() {
    let mut world = World::new(6);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Refresh, private);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    // The owner unlocks many times: whatever it does with the others, it keeps the cover that it made.
    for _ in 0..3 {
        drop(world.unlock("real").unwrap());
    }
    let session = world.unlock("cover").unwrap();
    assert!(matches!(session.opens(&Passphrase::new("real")), Ok(false)));
    drop(session);
    assert!(matches!(world.unlock("real"), Err(UnlockError::NotUnlocked)));
    let session = world.unlock("cover").unwrap();
    assert_eq!(
        get(&session.open_volume(family, &mut world.rng).unwrap(), 1).as_deref(),
        Some("dinner at six")
    );
}

#[test]
fn vlt_32_passphrase_in_use_is_refused() {
    let mut world = World::new(7);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    for taken in ["real", "cover"] {
        let taken = Passphrase::new(taken);
        assert!(session.opens(&taken).unwrap());
        assert!(matches!(
            session.add_passphrase(&taken, &spec, &mut world.rng),
            Err(ChangeError::AlreadyOpens)
        ));
        assert!(matches!(
            session.change_passphrase(&taken, private, &mut world.rng),
            Err(ChangeError::AlreadyOpens)
        ));
    }
    assert!(!session.opens(&Passphrase::new("free")).unwrap());
}

/// A second passphrase that opens all that the first one does, and no more than it hinders: compartments are made and
/// deleted, covers added and the passphrase changed as without it, and from either of the two.
#[test]
fn vlt_43_a_payload_that_opens_everything_may_learn_of_what_is_made_later() {
    let mut world = World::new(23);
    let (mut session, family, private) = owner(&mut world);
    let both = [family, private];
    let spec = Spec { label: b"second", ..cover(&both, Others::Keep, family) };
    session.record_own(family, b"first", &mut world.rng).unwrap();
    session.record_own(family, b"again", &mut world.rng).unwrap();
    let second = session.add_passphrase(&Passphrase::new("second"), &spec, &mut world.rng).unwrap();
    let third = session.create_volume(family, b"", &mut world.rng).unwrap();
    put(&session.open_volume(third, &mut world.rng).unwrap(), 1, "made later");
    drop(session);

    let mut session = world.unlock("second").unwrap();
    assert_eq!((session.volumes(), session.found_volumes()), (both.to_vec(), vec![third]));
    assert_eq!(get(&session.open_volume(third, &mut world.rng).unwrap(), 1).as_deref(), Some("made later"));
    assert_eq!(session.entries()[0].label(), b"first");
    let spec = cover(std::slice::from_ref(&third), Others::Keep, family);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);

    let mut session = world.unlock("real").unwrap();
    assert_eq!(session.entries().len(), 2);
    let three = [family, private, third];
    let spec = Spec { label: b"second", ..cover(&three, Others::Keep, family) };
    session.reseal(second, &spec, &mut world.rng).unwrap();
    // What a payload opens that does not open everything stays.
    assert!(matches!(session.delete_volume(third, &mut world.rng), Err(ChangeError::VolumeInUse)));
    session.delete_volume(private, &mut world.rng).unwrap();
    session.change_passphrase(&Passphrase::new("new real"), family, &mut world.rng).unwrap();
    drop(session);
    // Also after it moved, by the name that it has with others.
    let names = |session: &Session| session.entries().iter().any(|entry| entry.label() == b"first");
    assert!(names(&world.unlock("second").unwrap()));
    for passphrase in ["new real", "second"] {
        let session = world.unlock(passphrase).unwrap();
        assert_eq!(
            (session.volumes(), session.found_volumes()),
            (vec![family, third], vec![]),
            "{passphrase}"
        );
        assert!(session.open_volume(private, &mut world.rng).is_err());
    }
    let session = world.unlock("cover").unwrap();
    assert_eq!((session.volumes(), session.entries().len()), (vec![third], 0));
}

/// VLT-44: whoever opens everything knows who else does, from the record that the first made of itself.
#[test]
fn vlt_44_seven_more_passphrases_for_everything_spare_each_other() {
    for seed in 0..8 {
        let mut world = World::new(2400 + seed);
        let (mut session, family, private) = owner(&mut world);
        let both = [family, private];
        for n in 1..8 {
            let spec = cover(&both, Others::Keep, family);
            session.record_own(family, b"", &mut world.rng).unwrap();
            session.add_passphrase(&Passphrase::new(n.to_string()), &spec, &mut world.rng).unwrap();
            drop(session);
            // The newest makes the next.
            session = world.unlock(&n.to_string()).unwrap();
            assert_eq!(session.entries().len(), n);
        }
        drop(session);
        for passphrase in ["real", "1", "2", "3", "4", "5", "6", "7"] {
            let mut session = world.unlock(passphrase).unwrap();
            assert_eq!((session.volumes(), session.entries().len()), (both.to_vec(), 7), "{passphrase}");
            let spec = cover(&both, Others::Keep, family);
            let ninth = session.add_passphrase(&Passphrase::new("ninth"), &spec, &mut world.rng);
            assert!(matches!(ninth, Err(ChangeError::NoFreeSlot)));
        }
        // Any of them can remove any other.
        let mut session = world.unlock("7").unwrap();
        let real = session.entries()[0].id();
        session.remove_entry(real, &mut world.rng).unwrap();
        drop(session);
        let gone = ["real", "1", "2", "3", "4", "5", "6"].map(|name| world.unlock(name).is_err());
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
    }
}

#[test]
fn eight_passphrases_fit_and_a_ninth_is_refused() {
    let mut world = World::new(8);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    for n in 1..8 {
        session.add_passphrase(&Passphrase::new(format!("cover {n}")), &spec, &mut world.rng).unwrap();
    }
    let ninth = session.add_passphrase(&Passphrase::new("one more"), &spec, &mut world.rng);
    assert!(matches!(ninth, Err(ChangeError::NoFreeSlot)));
    // With every slot taken, the own passphrase can still be changed.
    session.change_passphrase(&Passphrase::new("new real"), private, &mut world.rng).unwrap();
    drop(session);
    for n in 1..8 {
        assert_eq!(world.unlock(&format!("cover {n}")).unwrap().volumes(), [family]);
    }
    assert_eq!(world.unlock("new real").unwrap().entries().len(), 7);
    assert!(matches!(world.unlock("real"), Err(UnlockError::NotUnlocked)));
}

#[test]
fn changed_passphrase_opens_everything_and_the_old_one_nothing() {
    let mut world = World::new(9);
    let (mut session, family, private) = owner(&mut world);
    let id = session.id();
    session.change_passphrase(&Passphrase::new("new"), private, &mut world.rng).unwrap();
    assert!(matches!(session.opens(&Passphrase::new("real")), Ok(false)));
    session.set_application(b"after the move", &mut world.rng).unwrap();
    drop(session);
    assert!(matches!(world.unlock("real"), Err(UnlockError::NotUnlocked)));
    let session = world.unlock("new").unwrap();
    assert_eq!((session.id(), session.volumes()), (id, vec![family, private]));
    assert_eq!(session.application(), b"after the move");
    assert!(session.entries().is_empty());
}

#[test]
fn owner_follows_a_cover_that_changed_its_passphrase() {
    // The cover's new slots may be the owner's: the seed is one where they are not.
    let mut world = World::new(14);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    let entry = session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    let mut session = world.unlock("cover").unwrap();
    session.change_passphrase(&Passphrase::new("moved"), family, &mut world.rng).unwrap();
    drop(session);

    // Several unlocks of the owner, who may refresh all slots it does not know.
    for _ in 0..4 {
        let session = world.unlock("real").unwrap();
        let entries = session.entries();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].id(), entries[0].label()), (entry, &b"at the border"[..]));
    }
    // It can be sealed again where it is now, and removed.
    let mut session = world.unlock("real").unwrap();
    let spec =
        Spec { application: b"resealed", ..cover(std::slice::from_ref(&family), Others::Keep, private) };
    session.reseal(entry, &spec, &mut world.rng).unwrap();
    drop(session);
    assert!(matches!(world.unlock("cover"), Err(UnlockError::NotUnlocked)));
    assert_eq!(world.unlock("moved").unwrap().application(), b"resealed");
    let mut session = world.unlock("real").unwrap();
    session.remove_entry(entry, &mut world.rng).unwrap();
    assert!(session.entries().is_empty());
    drop(session);
    assert!(matches!(world.unlock("moved"), Err(UnlockError::NotUnlocked)));
    assert!(world.unlock("real").unwrap().entries().is_empty());
}

#[test]
fn owner_spares_what_a_cover_created() {
    let mut world = World::new(11);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    drop(session);
    let mut session = world.unlock("cover").unwrap();
    // Two more volumes, of which one may land on the hidden region; a passphrase, which may land on hidden
    // slots: the seed is one where neither happens.
    let work = session.create_volume(family, b"work", &mut world.rng).unwrap();
    put(&session.open_volume(work, &mut world.rng).unwrap(), 1, "made in the cover");
    let inner = Spec { label: b"inner", ..cover(std::slice::from_ref(&work), Others::Keep, family) };
    session.add_passphrase(&Passphrase::new("inner"), &inner, &mut world.rng).unwrap();
    drop(session);

    let mut session = world.unlock("real").unwrap();
    assert_eq!(session.found_volumes(), [work]);
    assert_eq!(session.entries().len(), 2);
    assert_eq!(session.volume_label(work).unwrap(), b"work");
    session.create_volume(private, b"third", &mut world.rng).unwrap();
    let full = session.create_volume(private, b"fourth", &mut world.rng);
    assert!(matches!(full, Err(ChangeError::NoFreeRegion)));
    drop(session);
    let session = world.unlock("inner").unwrap();
    assert_eq!(
        get(&session.open_volume(work, &mut world.rng).unwrap(), 1).as_deref(),
        Some("made in the cover")
    );
}

#[test]
fn vlt_43_no_record_lies_where_a_cover_could_read_it() {
    let mut world = World::new(12);
    // The volume key of `private` and the moved payload of the owner are recorded in `family` at first.
    let (mut session, family, private) = owner(&mut world);
    session.change_passphrase(&Passphrase::new("new"), family, &mut world.rng).unwrap();
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    // They cannot stay there, so the cover's own record cannot be the only thing that goes elsewhere.
    let exposed = Spec { home: family, ..spec.clone() };
    let refused = session.add_passphrase(&Passphrase::new("cover"), &exposed, &mut world.rng);
    assert!(matches!(refused, Err(ChangeError::WouldExpose)));
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    // From now on `family` is refused as a home of anything the cover must not know.
    let refused = session.create_volume(family, b"third", &mut world.rng);
    assert!(matches!(refused, Err(ChangeError::WouldExpose)));
    let refused = session.change_passphrase(&Passphrase::new("newer"), family, &mut world.rng);
    assert!(matches!(refused, Err(ChangeError::WouldExpose)));
    let both = Spec { volumes: &[family, private], home: family, ..spec.clone() };
    let refused = session.add_passphrase(&Passphrase::new("both"), &both, &mut world.rng);
    assert!(matches!(refused, Err(ChangeError::WouldExpose)));
    drop(session);
    let session = world.unlock("cover").unwrap();
    assert!(session.found_volumes().is_empty() && session.entries().is_empty());
    drop(session);
    assert_eq!(world.unlock("new").unwrap().volumes(), [family, private]);
}

#[test]
fn second_passphrase_with_refresh_spares_whom_it_names() {
    let mut world = World::new(13);
    let (mut session, family, private) = owner(&mut world);
    let both = [family, private];
    let own = [session.id()];
    let spec = Spec { spare: &own, ..cover(&both, Others::Refresh, private) };
    session.add_passphrase(&Passphrase::new("second"), &spec, &mut world.rng).unwrap();
    drop(session);
    drop(world.unlock("second").unwrap());
    // The spared payload moves: the other's keep set follows without its passphrase.
    let mut session = world.unlock("real").unwrap();
    session.change_passphrase(&Passphrase::new("moved"), private, &mut world.rng).unwrap();
    drop(session);
    drop(world.unlock("second").unwrap());
    assert_eq!(world.unlock("moved").unwrap().volumes(), both);
}

#[test]
fn deleted_volume_is_gone_and_its_region_is_free() {
    let mut world = World::new(14);
    let (mut session, family, private) = owner(&mut world);
    let third = session.create_volume(private, b"third", &mut world.rng).unwrap();
    let volume = session.open_volume(third, &mut world.rng).unwrap();
    assert!(matches!(session.delete_volume(third, &mut world.rng), Err(ChangeError::VolumeInUse)));
    assert!(matches!(session.open_volume(third, &mut world.rng), Err(VolumeError::InUse)));
    drop(volume);
    // `private` keeps the record of `third`.
    assert!(matches!(session.delete_volume(private, &mut world.rng), Err(ChangeError::VolumeInUse)));
    session.delete_volume(third, &mut world.rng).unwrap();
    assert!(matches!(session.open_volume(third, &mut world.rng), Err(VolumeError::Unknown)));
    for label in [b"3", b"4"] {
        session.create_volume(private, label, &mut world.rng).unwrap();
    }
    drop(session);
    let session = world.unlock("real").unwrap();
    assert_eq!(session.volumes().len(), 4);
    assert_eq!(
        get(&session.open_volume(family, &mut world.rng).unwrap(), 1).as_deref(),
        Some("dinner at six")
    );
}

#[test]
fn after_signing_off_nothing_opens() {
    let mut world = World::new(15);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    session.sign_off(&mut world.rng).unwrap();
    for passphrase in ["real", "cover"] {
        assert!(matches!(world.unlock(passphrase), Err(UnlockError::NotUnlocked)));
    }
}

#[test]
fn vlt_28_session_without_slots_ends_at_its_next_header_write() {
    let mut world = World::new(16);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Refresh, private);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    // Another machine on a file system without locks: the header is replaced under the session.
    let other = MemoryBackend::with_image(world.backend.image());
    drop(unlock(other.another_handle(), "cover", &mut world.rng).unwrap());
    world.backend.write_at(0, &other.image()).unwrap();
    for _ in 0..2 {
        let ended = session.set_application(b"x", &mut world.rng);
        assert!(matches!(ended, Err(ChangeError::SessionEnded)));
    }
}

#[test]
fn bad_arguments_are_refused_by_name() {
    let mut world = World::new(17);
    let (mut session, family, private) = owner(&mut world);
    let rng = &mut world.rng;
    let stranger = VolumeId::from_bytes([1; 16]);
    let nobody = PayloadId::from_bytes([1; 16]);
    let spec = cover(&[], Others::Keep, private);
    let passphrase = Passphrase::new("cover");
    let long = [0; APPLICATION_MAX + 1];
    let mut add = |spec: Spec<'_>| session.add_passphrase(&passphrase, &spec, rng).unwrap_err();
    assert!(matches!(add(spec.clone()), ChangeError::VolumeCount));
    let twice = [family, family];
    assert!(matches!(add(Spec { volumes: &twice, ..spec.clone() }), ChangeError::VolumeCount));
    let spec = Spec { volumes: &[family], ..spec };
    assert!(matches!(add(Spec { volumes: &[stranger], ..spec.clone() }), ChangeError::UnknownVolume));
    assert!(matches!(add(Spec { home: stranger, ..spec.clone() }), ChangeError::UnknownVolume));
    assert!(matches!(add(Spec { spare: &[nobody], ..spec.clone() }), ChangeError::UnknownEntry));
    assert!(matches!(add(Spec { application: &long, ..spec.clone() }), ChangeError::ApplicationTooLong));
    assert!(matches!(add(Spec { label: &long, ..spec.clone() }), ChangeError::LabelTooLong));
    assert!(matches!(session.reseal(nobody, &spec, rng), Err(ChangeError::UnknownEntry)));
    assert!(matches!(session.remove_entry(nobody, rng), Err(ChangeError::UnknownEntry)));
    assert!(matches!(session.set_application(&long, rng), Err(ChangeError::ApplicationTooLong)));
    assert!(matches!(session.delete_volume(stranger, rng), Err(ChangeError::UnknownVolume)));
    // Nothing of all that changed anything.
    assert_eq!((session.entries().len(), session.volumes()), (0, vec![family, private]));
}

#[test]
fn container_waits_for_its_lock_only_after_the_passphrase_opened_something() {
    let mut world = World::new(18);
    let session = world.create("real");
    assert!(matches!(world.unlock("wrong"), Err(UnlockError::NotUnlocked)));
    assert!(!session.lock_requested().unwrap());
    assert!(matches!(world.unlock("real"), Err(UnlockError::Busy { .. })));
    let volume = session.open_volume(session.volumes()[0], &mut world.rng).unwrap();
    drop(session);
    // The volume still writes: the lock goes with the last of them.
    assert!(matches!(world.unlock("real"), Err(UnlockError::Busy { .. })));
    drop(volume);
    assert!(world.unlock("real").is_ok());
}

#[test]
fn busy_container_tells_the_application_field_and_is_not_written() {
    let mut world = World::new(21);
    let (mut owner, family, private) = owner(&mut world);
    owner.set_application(b"owner relays", &mut world.rng).unwrap();
    let spec = cover(std::slice::from_ref(&family), Others::Refresh, private);
    owner.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    let before = world.backend.image();
    for (passphrase, field) in [("real", &b"owner relays"[..]), ("cover", b"cover relays")] {
        match world.unlock(passphrase) {
            Err(UnlockError::Busy { application }) => assert_eq!(application.expose(), field),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(world.unlock("wrong"), Err(UnlockError::NotUnlocked)));
    assert!(world.backend.image() == before);
    // It told the truth: the holder goes on, and then both open.
    put(&owner.open_volume(private, &mut world.rng).unwrap(), 2, "still here");
    drop(owner);
    assert_eq!(world.unlock("real").unwrap().application(), b"owner relays");
    assert_eq!(world.unlock("cover").unwrap().application(), b"cover relays");
}

#[test]
fn creation_on_a_full_disk_says_so() {
    let mut world = World::new(19);
    let recording = testing::RecordingBackend::with_image(Vec::new());
    recording.set_full(true);
    let passphrase = Passphrase::new("real");
    let size = ContainerSize::MIN;
    let full = Container::create(recording, size, &passphrase, TINY, &mut world.rng, &mut |_, _| {});
    assert!(matches!(full, Err(CreateError::DiskFull)));
}

#[test]
fn debug_of_everything_that_holds_secrets_says_its_name_only() {
    let mut world = World::new(20);
    let (mut session, family, private) = owner(&mut world);
    let spec = cover(std::slice::from_ref(&family), Others::Keep, private);
    session.add_passphrase(&Passphrase::new("cover"), &spec, &mut world.rng).unwrap();
    let volume = session.open_volume(family, &mut world.rng).unwrap();
    let write = volume.begin_write().unwrap();
    let read = volume.begin_read().unwrap();
    let locked = Container::open(world.backend.another_handle()).unwrap();
    let shown = format!(
        "{session:?} {:?} {spec:?} {volume:?} {:?} {read:?} {write:?} {locked:?} {:?}",
        session.entries()[0],
        volume.keys(),
        world.backend,
    );
    assert_eq!(
        shown,
        "Session(..) Entry(..) Spec(..) Volume(..) KeyTable(..) ReadTransaction(..) WriteTransaction(..) \
         Locked(..) MemoryBackend(..)"
    );
}
