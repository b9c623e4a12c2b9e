//! A passphrase that destroys and alerts, killed at whatever call that changes the file: nobody is alerted of what did not
//! happen, what happened is not undone, and whoever types it again alerts, once. Then the alert is acknowledged, killed
//! as well.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use lapwing_tests::{
    scenario::{Folder, Relay},
    trace::{
        End, Kill, Places, run,
        scene::{COMPARTMENTS, DESTROY, Killed, REAL, Scene},
        sweep::{probe, put},
    },
};

/// Writes records, which comes after the alert.
const INVITE: &[&str] = &["invite", "granny"];
const ALERTS: &[&str] = &["--json", "alert", "list"];
const ALERTS_HERE: &[&str] = &["--json", "--offline", "alert", "list"];

/// Bo with a plan that destroys and alerts Ana, and the relay, as they were before anybody typed its passphrase.
struct Armed {
    bo: Scene,
    ana: Scene,
    relay: Relay,
    before: (Vec<u8>, Vec<u8>),
    kept: PathBuf,
    _folder: Folder,
}

impl Armed {
    fn new() -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
        let (bo, mut relay, ana) = Scene::with_messages(program, &["the heron is back"]);
        bo.subject.does(&["trust", "add", "ana"], "");
        ana.subject.does(&["trust", "accept", "bo"], "");
        bo.subject.does(&["sync"], "");
        let plan = ["sos", "add", "--name", "arrest", "--show", "main", "--do", "destroy", "--alert", "ana"];
        let text = ["--text", "bo was forced to unlock", "--yes", "--new-passphrase-fd", "0"];
        bo.subject.does(&[&plan[..], &text].concat(), &format!("{DESTROY}\n"));
        let _ = relay.stop();
        let folder = Folder::new();
        let kept = folder.join("kept");
        copy(&at(&ana), &kept);
        let before = (bo.image().expect("a vault"), ana.image().expect("a vault"));
        Self { bo, ana, relay, before, kept, _folder: folder }
    }

    /// Everybody is where they were, the relay included.
    fn set_back(&mut self) {
        self.relay.kill();
        fs::remove_dir_all(at(&self.ana)).expect("the relay's folder");
        copy(&self.kept, &at(&self.ana));
        self.relay.serve();
        put(&self.bo.subject.vault, &self.before.0);
        put(&self.ana.subject.vault, &self.before.1);
    }

    /// How many alerts Ana has.
    fn alerts(&self) -> usize {
        self.ana.subject.does(ALERTS, "").told().matches("bo was forced to unlock").count()
    }

    /// Whether the owner's passphrase opens everything.
    fn is_whole(&self) -> bool {
        match probe(&self.bo.subject, COMPARTMENTS, "") {
            (Some(0), told) => {
                assert!(told.contains("private"), "{told}");
                true
            }
            (code, told) => {
                assert_eq!(code, Some(3), "neither open nor closed: {told}");
                false
            }
        }
    }
}

/// Where the scene's relay lies.
fn at(ana: &Scene) -> PathBuf {
    ana.subject.vault.with_file_name("relay")
}

fn copy(from: &Path, to: &Path) {
    DirBuilder::new().mode(0o700).create(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

#[test]
fn an_unlock_that_destroys_and_alerts_is_finished_by_the_next_and_alerts_once() {
    let mut armed = Armed::new();
    let forced = armed.bo.subject.typing(DESTROY);
    armed.set_back();
    let changes = forced.does(INVITE, "").changes().count();
    assert_eq!((armed.alerts(), armed.is_whole()), (1, false));
    // The two writes of the header and their syncs come first.
    let places: Vec<usize> =
        if Places::default().is_long() { (0..changes).collect() } else { vec![1, 3, changes - 1] };
    let kills = std::iter::once(Kill::Before(0)).chain(places.into_iter().map(Kill::After));
    let (mut before, mut after, mut told) = (0, 0, 0);
    for kill in kills {
        armed.set_back();
        let trace = run(&forced.plan(INVITE, "").changes_only().killed(kill)).expect("a trace");
        let killed = trace.end == End::Signaled(9);
        assert!(killed || trace.succeeded(), "{kill:?}: {}", trace.told());
        let (alerts, whole) = (armed.alerts(), armed.is_whole());
        if whole {
            assert_eq!((alerts, killed, after), (0, true, 0), "{kill:?}");
            before += 1;
        } else {
            assert!(alerts <= 1, "{kill:?}: {alerts}");
            after += 1;
            told += alerts;
        }
        // It is typed again, as people do when a program dies.
        let (code, shown) = probe(&forced, COMPARTMENTS, "");
        assert_eq!(code, Some(0), "{kill:?}");
        assert!(shown.contains("main") && !shown.contains("private"), "{kill:?}: {shown}");
        assert_eq!((armed.alerts(), armed.is_whole()), (1, false), "{kill:?}");
    }
    println!(
        "unlock that destroys and alerts: {changes} changing calls; killed at {}: {before} before, {after} after, of which {told} had alerted",
        before + after
    );
    assert!(before > 0 && after > told && told > 0, "{before} {after} {told}");

    // Acknowledging it.
    let acknowledge = ["--offline", "alert", "ack"];
    let probes = [(REAL, ALERTS_HERE)];
    let _ = armed.ana.killed(&Killed { places: Places::asked(1), ..Killed::new(&acknowledge, &probes) });
}
