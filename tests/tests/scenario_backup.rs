//! A device is lost: the real program writes a backup, restores it elsewhere, and both sides go on.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use lapwing_tests::{
    scenario::{Folder, Pair, Person, programs},
    trace::{End, Kill, Plan, run},
};
use serde_json::json;

const BACKUP: &str = "seventeen mossy bricks hum quietly";
const OTHER: &str = "a kettle whistles under the bridge";

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_lost_device_is_replaced_from_a_backup_and_both_sides_go_on() {
    let Pair { relay: _relay, ana, bo, folder } = Pair::meet();
    let _ = ana.runs(&["send", "bo", "the ford, six o'clock"]).done();
    let _ = bo.runs(&["send", "ana", "I shall be there"]).done();
    let _ = bo.runs(&["verify", "ana", "--equal"]).done();
    let file = folder.join("kept");
    let written = bo.sets(BACKUP, &["backup", "create", &text(&file)]).done().one("backup");
    assert_eq!((&written["chats"], &written["compartments"]), (&json!(1), &json!(1)), "{written}");
    let known = fs::metadata(&file).expect("the backup");
    assert_eq!((known.len(), known.permissions().mode() & 0o7777), (4_096 + (1 << 20), 0o600));
    assert_eq!(bo.sets(BACKUP, &["backup", "create", &text(&file)]).code, Some(5), "nothing is overwritten");

    // The device is gone; another one takes its place. What is no backup, or another's, leaves nothing behind.
    let bo = Person { vault: folder.join("bo2"), passphrase: BACKUP.to_owned() };
    for (bytes, code) in [(100, "not_a_backup"), (4_096 + (1 << 20), "backup_closed")] {
        let foreign = folder.put(code, &vec![7; bytes]);
        let before = folder.names();
        let outcome = bo.sets(OTHER, &["backup", "restore", &text(&foreign), "--size", "8MiB"]);
        assert_eq!((outcome.code, &outcome.one("error")["code"]), (Some(5), &json!(code)));
        assert_eq!(folder.names(), before);
    }
    let words = ["backup", "restore", &text(&file), "--size", "8MiB"];
    let restored = bo.sets(OTHER, &words).done().one("restored");
    assert_eq!(restored["waiting"], json!(["ana"]), "{restored}");
    let bo = bo.typing(OTHER);
    let _ = ana.runs(&["sync"]).done();
    let _ = bo.runs(&["send", "ana", "from the new one"]).done();
    let read = ana.runs(&["read", "bo", "--last", "20"]).done().of("message");
    assert!(read.iter().any(|message| message["text"] == "from the new one"), "{read:?}");
    let _ = ana.runs(&["send", "bo", "welcome back"]).done();
    let read = bo.runs(&["read", "ana", "--last", "20"]).done().of("message");
    let texts: Vec<_> = read.iter().filter_map(|message| message["text"].as_str()).collect();
    for text in ["the ford, six o'clock", "I shall be there", "from the new one", "welcome back"] {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
    let chats = bo.chats();
    assert_eq!((&chats[0]["state"], &chats[0]["verified"]), (&json!("open"), &json!(true)), "{chats}");
}

/// BAK-04: the vault is at its path with everything in it, or not at all.
#[test]
fn bak_04_a_killed_restore_leaves_no_vault_and_the_next_one_works() {
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let _ = ana.init().done();
    let file = folder.join("kept");
    let _ = ana.sets(BACKUP, &["backup", "create", &text(&file), "--offline"]).done();
    let again = Person { vault: folder.join("again"), passphrase: BACKUP.to_owned() };
    let small = ["backup", "restore", &text(&file), "--size", "8MiB", "--offline"];
    let vault = text(&again.vault);
    let ends = ["--passphrase-fd", "0", "--new-passphrase-fd", "0"];
    let arguments = [&["--vault", &vault][..], &small, &ends].concat();
    let input = format!("{BACKUP}\n{OTHER}\n");
    for kill in [Kill::After(5), Kill::Before(60)] {
        let plan = Plan::new(programs::lapwing(), &arguments, input.as_bytes()).killed(kill);
        let killed = run(&plan).expect("a process that can be traced");
        assert_eq!(killed.end, End::Signaled(9), "{kill:?}: {}", killed.told());
        assert_eq!(folder.names(), ["ana", "kept"], "a killed restore leaves something");
    }
    let _ = again.sets(OTHER, &small).done().one("restored");
    assert_eq!(folder.names(), ["again", "ana", "kept"]);
    let _ = again.typing(OTHER).runs(&["chat", "list", "--offline"]).done();

    // What exists is not touched.
    let before = again.bytes();
    assert_eq!(again.sets(OTHER, &small).code, Some(5));
    assert!(again.bytes() == before, "the vault was changed");
}
