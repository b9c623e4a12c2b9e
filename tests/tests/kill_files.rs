//! A command that makes or replaces a file, killed at whatever call that changes one, names and folders included.

use std::{fs, path::Path};

use lapwing_tests::{
    scenario::Folder,
    trace::{
        Subject,
        scene::{CHATS, COMPARTMENTS, HIDE, Killed, OTHER, REAL, Scene},
        sweep::{Leaves, probe},
    },
};

const GROWN: u64 = 11 << 20;
const BACKUP: &str = "seventeen mossy bricks hum quietly";

fn cheap() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"))
}

#[test]
fn a_vault_that_grows_is_the_small_one_or_the_large_one_and_the_other_is_gone_with_the_next_command() {
    let scene = Scene::with_plans(cheap());
    let size = || fs::metadata(&scene.subject.vault).unwrap().len().to_string();
    let probes: &[(&str, &[&str])] = &[(REAL, COMPARTMENTS), (HIDE, COMPARTMENTS)];
    let grow = ["--offline", "grow", "--size", "11MiB", "--yes"];
    let killed = Killed { beside: Some(&size), leaves: Leaves::UntilOpened, ..Killed::new(&grow, probes) };
    let swept = scene.killed(&killed);
    assert_eq!(swept.states.1[2].1, GROWN.to_string());
}

#[test]
fn bak_04_a_backup_is_whole_at_its_path_or_not_there() {
    let scene = Scene::made(cheap());
    scene.subject.does(&["compartment", "create", "work"], "");
    let file = scene.subject.vault.with_file_name("kept");
    let path = file.display().to_string();
    // Whole is what can be restored.
    let restored = || {
        if !file.exists() {
            return "none".to_owned();
        }
        let folder = Folder::new();
        let other = Subject::new(cheap(), &folder.join("other"), BACKUP);
        let words = ["--offline", "backup", "restore", &path, "--size", "8MiB", "--new-passphrase-fd", "0"];
        let (code, told) = probe(&other, &words, &format!("{OTHER}\n"));
        assert_eq!(code, Some(0), "{told}");
        probe(&other.typing(OTHER), COMPARTMENTS, "").1
    };
    let create = ["--offline", "backup", "create", &path, "--new-passphrase-fd", "0"];
    let killed = Killed {
        more: &format!("{BACKUP}\n"),
        beside: Some(&restored),
        power: false,
        again: true,
        ..Killed::new(&create, &[(REAL, COMPARTMENTS)])
    };
    let swept = scene.killed(&killed);
    assert_eq!((swept.states.0[1].1.as_str(), swept.states.1[1].1.contains("work")), ("none", true));
}

#[test]
fn a_vault_that_is_restored_is_there_whole_or_not_at_all() {
    let folder = Folder::new();
    let file = folder.join("kept").display().to_string();
    let (old, _relay, _ana) = Scene::with_messages(cheap(), &["under the bridge", "at the ford"]);
    old.subject.does(&["compartment", "create", "work"], "");
    old.subject
        .does(&["--offline", "backup", "create", &file, "--new-passphrase-fd", "0"], &format!("{BACKUP}\n"));
    let scene = Scene::empty(cheap());
    let read: &[&str] = &["--json", "--offline", "read", "ana", "--last", "50"];
    let restore = ["--offline", "backup", "restore", &file, "--size", "8MiB", "--new-passphrase-fd", "0"];
    let probes: &[(&str, &[&str])] = &[(OTHER, COMPARTMENTS), (OTHER, CHATS), (OTHER, read)];
    let killed =
        Killed { typing: BACKUP, more: &format!("{OTHER}\n"), again: true, ..Killed::new(&restore, probes) };
    let swept = scene.killed(&killed);
    assert!(swept.states.1[2].1.contains("at the ford"), "{:?}", swept.states.1);
}
