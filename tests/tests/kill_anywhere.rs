//! A command that is killed, at whatever call that changes a file, was carried out or was not; and nobody has to do
//! anything about it. The real program, killed for real; what a power cut would have left is replayed from what it wrote.
//!
//! Where a command makes hundreds of such calls, the first and last ones, those around each sync and a sample are
//! tried; `LAPWING_EVERY_CALL=1` tries all, and `LAPWING_EVERY_CALL=kinds` all but the inside of loops.

use std::path::Path;

use lapwing_tests::{
    scenario::programs,
    trace::{
        End, Kill, Trace, run,
        scene::{CHATS, COMPARTMENTS, DESTROY, HIDE, Killed, OTHER, REAL, Scene, plan_words},
        sweep::{Swept, probe, put},
    },
};

fn cheap() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"))
}

/// Sweeps a command whose kills leave nothing beside the vault.
fn sweep(scene: &Scene, typing: &str, words: &[&str], more: &str, probes: &[(&str, &[&str])]) -> Swept {
    scene.killed(&Killed { typing, more, ..Killed::new(words, probes) })
}

#[test]
fn a_vault_whose_making_was_killed_opens_whole_or_not_at_all() {
    let vault = Scene::empty(cheap());
    let init = ["init", "--size", "8MiB"];
    let swept = vault.killed(&Killed { again: true, ..Killed::new(&init, &[(REAL, COMPARTMENTS)]) });
    assert_eq!(swept.states.1[0].0, Some(0));
}

#[test]
fn an_unlock_that_destroys_is_done_or_not_and_once_done_stays_done() {
    let vault = Scene::with_plans(cheap());
    let probes: &[(&str, &[&str])] = &[(REAL, COMPARTMENTS), (HIDE, COMPARTMENTS), (DESTROY, COMPARTMENTS)];
    // The last probe destroys by itself: what it says of the cover is the same before and after.
    let swept = sweep(&vault, DESTROY, &["--offline", "compartment", "list"], "", probes);
    let codes = |seen: &[(Option<i32>, String)]| seen.iter().map(|(code, _)| *code).collect::<Vec<_>>();
    assert_eq!(codes(&swept.states.0), [Some(0), Some(0), Some(0)]);
    assert_eq!(codes(&swept.states.1), [Some(3), Some(3), Some(0)]);
    assert!(swept.ended.1 >= 3, "from the first header copy on it is done, whatever comes after");
}

#[test]
fn a_passphrase_that_is_changed_is_the_old_one_or_the_new_one() {
    let vault = Scene::with_plans(cheap());
    let probes: &[(&str, &[&str])] = &[(REAL, COMPARTMENTS), (OTHER, COMPARTMENTS), (HIDE, COMPARTMENTS)];
    let words = ["passphrase", "change", "--new-passphrase-fd", "0"];
    let _ = sweep(&vault, REAL, &words, &format!("{OTHER}\n"), probes);
}

#[test]
fn a_plan_that_is_added_or_removed_is_there_or_not() {
    let vault = Scene::with_plans(cheap());
    let plans: &[&str] = &["--json", "--offline", "sos", "list"];
    let probes: &[(&str, &[&str])] = &[(REAL, plans), (OTHER, COMPARTMENTS), (HIDE, COMPARTMENTS)];
    let _ = sweep(&vault, REAL, &plan_words("train", "hide"), &format!("{OTHER}\n"), probes);
    let probes: &[(&str, &[&str])] = &[(REAL, plans), (HIDE, COMPARTMENTS), (REAL, COMPARTMENTS)];
    let _ = sweep(&vault, REAL, &["sos", "remove", "border"], "", probes);
}

#[test]
fn a_compartment_that_is_made_is_there_or_not_and_the_others_are_whole() {
    let vault = Scene::with_plans(cheap());
    let probes: &[(&str, &[&str])] = &[(REAL, COMPARTMENTS), (HIDE, COMPARTMENTS)];
    let _ = sweep(&vault, REAL, &["compartment", "create", "third"], "", probes);
}

#[test]
fn a_passphrase_that_is_added_or_removed_opens_or_not() {
    let vault = Scene::with_plans(cheap());
    let list: &[&str] = &["--json", "--offline", "passphrase", "list"];
    let probes: &[(&str, &[&str])] = &[(REAL, list), (OTHER, COMPARTMENTS), (HIDE, COMPARTMENTS)];
    let add = [
        "--offline",
        "passphrase",
        "add",
        "--name",
        "spare",
        "--show",
        "private",
        "--show",
        "main",
        "--new-passphrase-fd",
        "0",
    ];
    let before = vault.image().unwrap();
    let _ = sweep(&vault, REAL, &add, &format!("{OTHER}\n"), probes);
    put(&vault.subject.vault, &before);
    vault.subject.does(&add, &format!("{OTHER}\n"));
    let _ = sweep(&vault, REAL, &["--offline", "passphrase", "remove", "spare"], "", probes);
}

#[test]
fn a_compartment_that_is_deleted_is_whole_or_gone() {
    let vault = Scene::with_plans(cheap());
    vault.subject.does(&["compartment", "create", "third"], "");
    let probes: &[(&str, &[&str])] = &[(REAL, COMPARTMENTS), (HIDE, COMPARTMENTS)];
    let _ = sweep(&vault, REAL, &["--offline", "compartment", "delete", "third", "--yes"], "", probes);
}

#[test]
fn what_is_written_is_committed_or_not() {
    let (vault, _relay, ana) = Scene::with_messages(cheap(), &[]);
    let read: &[&str] = &["--json", "--offline", "read", "ana"];
    let swept = sweep(
        &vault,
        REAL,
        &["--offline", "send", "ana", "meet at the ford"],
        "",
        &[(REAL, read), (REAL, CHATS)],
    );
    assert!(swept.states.1[0].1.contains("meet at the ford"), "{:?}", swept.states.1);
    // What was killed most often still sends and receives: the ratchet is where the messages are.
    vault.subject.does(&["send", "ana", "all of us"], "");
    let got = ana.subject.does(&["--json", "read", "bo"], "").told();
    assert!(got.contains("all of us"), "{got}");
}

/// Bytes of the memory that one derivation of the program takes in one piece.
const DERIVATION: u64 = 256 << 20;

fn derivations(trace: &Trace) -> usize {
    trace.calls.iter().filter(|call| call.name == "mmap" && call.length >= Some(DERIVATION)).count()
}

/// The program as people have it, with its derivation of 256 MiB: a few places are enough to see that nothing but the
/// derivation is another one.
#[test]
fn the_released_program_derives_once_for_every_passphrase_and_a_kill_leaves_before_or_after() {
    let vault = Scene::empty(&programs::lapwing());
    vault.subject.does(&["init", "--size", "8MiB"], "");
    vault.plans();
    let image = vault.image().unwrap();
    let list = ["--offline", "compartment", "list"];
    for passphrase in [REAL, HIDE, DESTROY, "this one opens nothing at all"] {
        put(&vault.subject.vault, &image);
        let trace = vault.subject.typing(passphrase).trace(&list).unwrap();
        assert_eq!(derivations(&trace), 1, "{passphrase}");
    }
    let destroying = vault.subject.typing(DESTROY);
    for (kill, code) in [(Kill::Before(0), Some(0)), (Kill::After(1), Some(3)), (Kill::Before(2), Some(3))] {
        put(&vault.subject.vault, &image);
        let killed = run(&destroying.plan(&list, "").killed(kill)).unwrap();
        assert_eq!(killed.end, End::Signaled(9));
        assert_eq!(probe(&vault.subject, COMPARTMENTS, "").0, code, "{kill:?}");
    }
    assert_eq!(probe(&destroying, COMPARTMENTS, "").0, Some(0), "the cover opens, whatever was cut off");
}
