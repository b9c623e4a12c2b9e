//! A vault that became too small, with the real program: it grows, or stays as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use lapwing_tests::scenario::{
    Folder,
    person::Person,
    wait::{PATIENCE, until},
};

const GROWN: &str = "24MiB";

fn size(person: &Person) -> u64 {
    fs::metadata(&person.vault).unwrap().len()
}

#[test]
fn a_vault_grows_or_stays_as_it_was_whenever_it_is_killed() {
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let _ = ana.init().done();
    let _ = ana.runs(&["compartment", "create", "work"]).done();
    let small = size(&ana);

    // Refused before anything is written: smaller, equal, odd.
    for (wrong, code) in [("8MiB", 2), ("4MiB", 2), ("9999999", 2)] {
        let refused = ana.runs(&["grow", "--size", wrong, "--yes"]);
        assert_eq!(refused.failed(code), "usage", "{refused:?}");
    }
    assert_eq!((size(&ana), folder.names()), (small, vec!["ana".to_owned()]));

    // Killed while it derives the key, while it writes the copy, and when the copy took the place.
    for seen in ["ana", "ana.growing", "ana.outgrown"] {
        let mut growing = ana.starts(&["grow", "--size", GROWN, "--yes"]);
        let came = until(PATIENCE, || folder.join(seen).exists() || !growing.is_running());
        assert!(came, "{seen} never came");
        growing.kill();
        let _ = growing.end();
        let found = ana.runs(&["compartment", "list", "--offline"]).done().one("compartments");
        let names: Vec<&str> =
            found["compartments"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(names, ["main", "work"], "killed when there was {seen}");
        assert_eq!(folder.names(), ["ana"], "killed when there was {seen}");
    }
    if size(&ana) == small {
        let grown = ana.runs(&["grow", "--size", GROWN, "--yes"]).done().one("vault");
        assert_eq!(grown["bytes"], 24 << 20);
    }
    assert_eq!((size(&ana), folder.names()), (24 << 20, vec!["ana".to_owned()]));
    let _ = ana.runs(&["compartment", "rename", "work", "job"]).done();
    // Something else stands in the way of the copy: nothing is lost, and it is not touched.
    folder.put("ana.growing", b"a letter");
    let refused = ana.runs(&["grow", "--size", "32MiB", "--yes"]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(fs::read(folder.join("ana.growing")).unwrap(), b"a letter");
    assert_eq!(size(&ana), 24 << 20);
}
