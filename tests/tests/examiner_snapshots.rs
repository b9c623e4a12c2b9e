//! What several images of one vault tell somebody who has no passphrase: measured, because it is not hidden.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the figures are published")]

use std::path::Path;

use lapwing_tests::{
    examiner::snapshots::{Change, compare},
    scenario::Relay,
    trace::{
        Subject,
        scene::{HIDE, REAL, Scene},
        sweep::probe,
    },
};

/// Images of one vault.
const IMAGES: usize = 10;

/// A vault is used: `IMAGES` images, one after each command, and what changed between them.
fn used(scene: &Scene, who: &Subject, words: &[&str]) -> Vec<Change> {
    let mut images = vec![scene.image().unwrap()];
    for number in 1..IMAGES {
        let (code, told) = probe(who, words, &format!("the {number}th thought"));
        assert_eq!(code, Some(0), "{told}");
        images.push(scene.image().unwrap());
    }
    let changes = compare(&images).unwrap();
    let units: usize = changes.iter().flat_map(|change| change.regions).map(|region| region.units).sum();
    println!("{words:?}: {}; {units} data units in all", changes[1]);
    changes
}

#[test]
fn several_images_tell_which_regions_were_written_to_and_a_cover_in_use_looks_like_any_vault() {
    let cheap = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
    let (bo, eve) = (Scene::with_plans(cheap), Scene::made(cheap));
    let relay = Relay::start(&eve.subject.vault.with_file_name("relay"));
    bo.subject.does(&["relay", "add", &relay.access, "--compartment", "private"], "");
    bo.subject.does(&["relay", "add", &relay.access, "--compartment", "main"], "");
    bo.subject.does(&["invite", "press", "--compartment", "private"], "");
    bo.subject.does(&["invite", "granny", "--compartment", "main"], "");
    eve.subject.does(&["relay", "add", &relay.access], "");
    eve.subject.does(&["invite", "granny"], "");

    let note: &[&str] = &["--offline", "draft", "granny", "-"];
    let ordinary = used(&eve, &eve.subject, note);
    let cover = used(&bo, &bo.subject.typing(HIDE), note);
    let looking = used(&bo, &bo.subject.typing(HIDE), &["--offline", "chat", "list"]);
    let hidden = used(&bo, &bo.subject.typing(REAL), &["--offline", "draft", "press", "-"]);

    let all = [&ordinary, &cover, &looking, &hidden];
    assert!(all.iter().all(|changes| changes.iter().all(|change| change.headers == 2 && !change.salt)));
    // Used with one passphrase, one region changes: in a cover and in a vault that shows all there is alike, and by as
    // much. Looking changes none.
    let regions = |changes: &[Change]| {
        let mut touched: Vec<usize> = changes.iter().flat_map(Change::touched).collect();
        touched.sort_unstable();
        touched.dedup();
        touched
    };
    assert_eq!((regions(&ordinary).len(), regions(&cover).len(), regions(&looking).len()), (1, 1, 0));
    // How many units of the key table are written depends on where chance puts a key.
    let parts =
        ordinary.iter().chain(&cover).flat_map(|change| change.regions).filter(|region| region.changed());
    for region in parts {
        assert_eq!((region.allocation, region.superblocks), (0, 2), "{region:?}");
        assert!((1..=4).contains(&region.keys) && (4..=60).contains(&region.units), "{region:?}");
    }
    // Not hidden: that something lies where the cover has nothing.
    assert_ne!(regions(&hidden), regions(&cover));
}
