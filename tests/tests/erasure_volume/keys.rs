//! Erasing where the table of keys is damaged, or the disk refuses.

use std::{sync::atomic::Ordering, time::Duration};

use lapwing::{
    engine::{Command, Fault, view},
    store::{DoomedKeyRow, MessageRow},
};
use lapwing_tests::world::World;
use lapwing_vault::testing::key_unit_offsets;

use super::{Canary, HOUR, NAME, Owner, delete, story};

/// One unit of the table of keys rots, each in turn: what falls due is erased all the same, and a deletion leaves no key,
/// neither in the units that open nor in the one that did not.
#[tokio::test(start_paused = true)]
async fn vlt_64_a_damaged_unit_of_keys_keeps_nothing_from_being_erased() {
    let mut world = World::new(176);
    let (story, _bob) = story(&mut world).await;
    world.clock.advance(8 * 24 * HOUR);
    let units = {
        let owner = Owner::unlock(&mut world, story.image.clone(), None);
        key_unit_offsets(&owner.session, owner.volume)
    };
    let mut closed = 0;
    for unit in units {
        let at = usize::try_from(unit).unwrap();
        let mut rotten = story.image.clone();
        [at + 60, at + 4096 + 60].into_iter().for_each(|at| rotten[at] ^= 1);
        let mut owner = Owner::unlock(&mut world, rotten.clone(), None);
        let texts = owner.look(|unit| {
            let id = view::chat(unit, NAME).unwrap().id;
            view::messages(unit, &id, view::Span::Last(100)).unwrap()
        });
        closed += usize::from(texts.iter().any(|message| message.text.is_none()));
        owner.sweep();
        let left = owner.look(|unit| unit.scan::<MessageRow>(&[])).unwrap();
        assert_eq!(left.iter().filter(|(_, row)| row.lives.is_some()).count(), 1, "unit at {unit}");
        // Writing goes on, under a new key where the old one does not open.
        owner.must(Command::Draft { chat: NAME.to_owned(), text: "written beside it".to_owned() });
        owner.must(delete());
        assert!(owner.look(|unit| unit.scan::<DoomedKeyRow>(&[])).unwrap().is_empty());
        owner.scrub();
        assert_eq!(owner.base.base.volume().keys().damaged_units().unwrap(), 0);
        // The mailbox waits for its relay, which is down; nothing else of the chat is there.
        let waits = ["id of the chat", "key of the mailbox"];
        let (_, gone): (Vec<&Canary>, Vec<&Canary>) =
            story.canaries.iter().partition(|canary| waits.iter().any(|what| canary.what.starts_with(what)));
        for canary in gone {
            assert_eq!(owner.found(canary), 0, "the {} is still in the file", canary.what);
        }
        // Whoever repairs the bits that rotted, or reads past the tag, finds nothing there either.
        let mut repaired = owner.backend.image();
        assert!(repaired[at..at + 8192] != rotten[at..at + 8192], "the unit at {unit} was not overwritten");
        [at + 60, at + 4096 + 60].into_iter().for_each(|at| repaired[at] ^= 1);
        let repaired = Owner::unlock(&mut world, repaired, None);
        for canary in story.canaries.iter().filter(|canary| canary.what.starts_with("key of texts")) {
            assert_eq!(repaired.found(canary), 0, "{}", canary.what);
        }
    }
    assert_eq!(closed, 1, "the texts lie under one key");
}

/// The disk refuses to destroy keys: messages go when they are due, no command says that it has erased, and the next one
/// makes up for it.
#[tokio::test(start_paused = true)]
async fn era_07_keys_that_cannot_be_destroyed_are_told_and_keep_nothing_else() {
    let mut world = World::new(177);
    let (story, _bob) = story(&mut world).await;
    world.clock.advance(8 * 24 * HOUR);
    let mut owner = Owner::unlock(&mut world, story.image.clone(), None);
    let compartment = owner.compartment();
    owner.base.refuses.store(true, Ordering::Relaxed);
    let clear = Command::Clear { chat: NAME.to_owned(), older: None };
    let cleared = owner.driver.command(&compartment, clear);
    assert!(matches!(cleared, Err(Fault::NotErased(_))), "{cleared:?}");
    assert!(!owner.look(|unit| unit.scan::<DoomedKeyRow>(&[])).unwrap().is_empty());
    // What was decided is removed, and so is what fell due: keys are all that is left.
    let left = owner.look(|unit| unit.scan::<MessageRow>(&[])).unwrap();
    assert!(left.len() <= 1, "{} messages", left.len());
    let swept = owner.driver.sweep(&compartment);
    assert!(matches!(swept, Err(Fault::NotErased(_))), "{swept:?}");
    let report = owner.driver.settle(std::slice::from_ref(&compartment), Duration::from_secs(60)).await;
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::NotErased(_))), "{:?}", report.faults);
    owner.base.refuses.store(false, Ordering::Relaxed);
    owner.sweep();
    assert!(owner.look(|unit| unit.scan::<DoomedKeyRow>(&[])).unwrap().is_empty());
    for canary in story.canaries.iter().filter(|canary| canary.what.starts_with("key of texts")) {
        assert_eq!(owner.found(canary), 0, "{}", canary.what);
    }
}
