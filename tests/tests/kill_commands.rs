//! Commands that change records and nothing else of the vault: each, killed at whatever call that changes the file, was
//! carried out or was not, and is when it is typed again. Which commands are swept, and which have nothing to be swept,
//! is compared with the command line itself: a new command is in one of the lists or fails here.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeSet, path::Path};

use clap::CommandFactory;
use lapwing::cli::args::Cli;
use lapwing_tests::{
    scenario::Relay,
    trace::{
        End, Kill, Places,
        places::is_left_out,
        run,
        scene::{CHATS, COMPARTMENTS, HIDE, Killed, REAL, Scene},
        sweep::put,
    },
};
use serde_json::Value;

/// Swept in this file.
const HERE: &[&str] = &[
    "alert ack",
    "chat block",
    "chat rename",
    "chat renew",
    "chat timer",
    "chat unblock",
    "compartment rename",
    "draft",
    "group approve",
    "group create",
    "group decline",
    "group invite",
    "group leave",
    "group remove",
    "invite",
    "join",
    "read",
    "relay add",
    "relay remove",
    "send",
    "sync",
    "trigger",
    "trust accept",
    "trust add",
    "trust remove",
    "verify",
];

/// Swept in the files beside this one.
const ELSEWHERE: &[&str] = &[
    "backup create",
    "backup restore",
    "chat clear",
    "chat delete",
    "chat erase",
    "chat move",
    "checkin now",
    "checkin start",
    "checkin stop",
    "compartment create",
    "compartment delete",
    "compartment list",
    "grow",
    "init",
    "passphrase add",
    "passphrase change",
    "passphrase remove",
    "sos add",
    "sos remove",
];

/// Their only change is what every unlock writes (swept as `compartment list`) and what every sync takes in (`sync`).
const SHOW_ONLY: &[&str] = &[
    "alert list",
    "chat list",
    "checkin status",
    "doctor",
    "group info",
    "group members",
    "passphrase list",
    "relay list",
    "search",
    "sos list",
    "status",
    "trust list",
];

/// Open no vault; or vaults of their own; or, `chat fetch`, write a file elsewhere, which has tests of its own.
const APART: &[&str] = &["chat fetch", "demo", "passphrase compare", "passphrase suggest"];

/// Places of each command in a run of all tests, besides the beginning and the end.
const PLACES: usize = 1;

const READ: &[&str] = &["--json", "--offline", "read", "ana", "--last", "50"];
const TIMER: &[&str] = &["--json", "--offline", "chat", "timer", "ana"];
const DRAFT: &[&str] = &["--json", "--offline", "draft", "ana"];
const TRUSTS: &[&str] = &["--json", "--offline", "trust", "list"];
const INVITATIONS: &[&str] = &["--json", "--offline", "group", "info"];
const STATUS: &[&str] = &["--json", "--offline", "status"];
const MEMBERS: &[&str] = &["--json", "--offline", "group", "members", "fishers"];
const RELAYS: &[&str] = &["--json", "--offline", "relay", "list", "--compartment", "work"];

fn cheap() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"))
}

fn places() -> Places {
    Places::asked(PLACES)
}

/// A command, what makes the vault ready for it, and a command that shows whether it was carried out.
struct Case<'a> {
    ready: Option<&'a [&'a str]>,
    words: &'a [&'a str],
    shows: &'a [&'a str],
    /// It shows first and notes afterwards that it was shown.
    notes_later: bool,
}

/// Sweeps each on the vault as it is now. In a long run it is typed again where it was not carried out.
fn sweep(scene: &Scene, cases: &[Case<'_>]) {
    let before = scene.image().expect("a vault");
    for Case { ready, words, shows, notes_later } in cases.iter().filter(|case| !is_left_out(case.words)) {
        put(&scene.subject.vault, &before);
        if let Some(ready) = ready {
            scene.subject.does(ready, "");
        }
        let probes = [(REAL, *shows)];
        let killed = Killed::new(words, &probes);
        let killed =
            Killed { again: places().is_long(), places: places(), tells_when_done: !notes_later, ..killed };
        let _ = scene.killed(&killed);
    }
    put(&scene.subject.vault, &before);
}

fn case<'a>(words: &'a [&'a str], shows: &'a [&'a str]) -> Case<'a> {
    Case { ready: None, words, shows, notes_later: false }
}

fn after<'a>(ready: &'a [&'a str], words: &'a [&'a str], shows: &'a [&'a str]) -> Case<'a> {
    Case { ready: Some(ready), words, shows, notes_later: false }
}

/// Bo's chat `ana` with a message that he has not seen, and Ana's with `bo`.
fn pair() -> (Scene, Relay, Scene) {
    let (bo, relay, ana) = Scene::with_messages(cheap(), &[]);
    ana.subject.does(&["send", "bo", "the heron is back"], "");
    bo.subject.does(&["sync"], "");
    (bo, relay, ana)
}

fn ticket(of: &Scene, name: &str) -> String {
    let told = of.subject.does(&["--json", "invite", name], "").told();
    let text = told.lines().find_map(|line| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(record["ticket"].as_str()?.to_owned())
    });
    text.expect("a ticket")
}

#[test]
fn names_timers_drafts_and_marks_are_changed_or_not() {
    let (bo, _relay, _ana) = pair();
    let keep: &[&str] = &["--offline", "draft", "ana", "not finished"];
    let block: &[&str] = &["--offline", "chat", "block", "ana"];
    let cases = [
        case(&["--offline", "compartment", "rename", "main", "home"], COMPARTMENTS),
        case(&["--offline", "chat", "rename", "ana", "anna"], CHATS),
        case(&["--offline", "chat", "timer", "ana", "1h"], TIMER),
        case(keep, DRAFT),
        after(keep, &["--offline", "draft", "ana", "and longer than before"], DRAFT),
        Case { notes_later: true, ..after(keep, &["--offline", "read", "ana"], CHATS) },
        case(&["--offline", "verify", "ana", "--equal"], CHATS),
        case(block, CHATS),
        after(block, &["--offline", "chat", "unblock", "ana"], CHATS),
        case(&["--offline", "chat", "renew", "ana"], CHATS),
    ];
    sweep(&bo, &cases);
    // What is done is no more there to be done again: these show it by what they answer.
    let gone = [
        after(keep, &["--offline", "draft", "ana", "--delete"], CHATS),
        after(keep, &["--offline", "send", "ana", "--draft"], READ),
    ];
    sweep(&bo, &gone);
}

#[test]
fn people_and_relays_are_there_or_not() {
    let (bo, relay, ana) = pair();
    bo.subject.does(&["compartment", "create", "work"], "");
    ana.subject.does(&["trust", "add", "bo"], "");
    bo.subject.does(&["sync"], "");
    let dora = ticket(&ana, "dora");
    let add: &[&str] = &["--offline", "relay", "add", &relay.access, "--compartment", "work"];
    let join = ["--offline", "join", &dora, "--name", "dora"];
    let remove = ["--offline", "relay", "remove", &relay.address, "--compartment", "work"];
    let cases = [
        case(&["--offline", "invite", "carl"], CHATS),
        case(&join, CHATS),
        case(&["--offline", "trust", "accept", "ana"], TRUSTS),
        case(&["--offline", "trust", "add", "ana"], TRUSTS),
        after(&["--offline", "trust", "add", "ana"], &["--offline", "trust", "remove", "ana"], TRUSTS),
        case(add, RELAYS),
        after(add, &remove, RELAYS),
    ];
    sweep(&bo, &cases);
    // Ana gives Bo a voice.
    bo.subject.does(&["trust", "accept", "ana"], "");
    ana.subject.does(&["compartment", "create", "home"], "");
    let far =
        ["sos", "add", "--name", "far", "--show", "home", "--do", "hide", "--text", "she is gone", "--yes"];
    let far = [&far[..], &["--alert", "bo", "--remote", "1", "--new-passphrase-fd", "0"]].concat();
    ana.subject.does(&far, &format!("{HIDE}\n"));
    bo.subject.does(&["sync"], "");
    sweep(&bo, &[case(&["--offline", "trigger", "ana", "--yes"], TRUSTS)]);
    let told = ana.subject.does(&["--offline", "trust", "remove", "bo"], "").told();
    assert!(told.contains("too few trusted contacts are left to set off far from afar"), "{told}");
}

#[test]
fn groups_are_founded_joined_changed_and_left_or_not() {
    let (bo, _relay, ana) = pair();
    let found: &[&str] = &["--offline", "group", "create", "fishers", "--as", "bo"];
    let end: &[&str] = &["--offline", "group", "leave", "fishers", "--end"];
    let invite: &[&str] = &["--offline", "group", "invite", "fishers", "ana"];
    sweep(&bo, &[case(found, CHATS), after(found, end, CHATS), after(found, invite, STATUS)]);
    ana.subject.does(&["group", "create", "divers", "--as", "ana"], "");
    ana.subject.does(&["group", "invite", "divers", "bo"], "");
    bo.subject.does(&["sync"], "");
    let cases = [
        case(&["--offline", "group", "approve", "divers", "--as", "bo"], INVITATIONS),
        case(&["--offline", "group", "decline", "divers"], INVITATIONS),
    ];
    sweep(&bo, &cases);
    // Ana is let into Bo's group.
    bo.subject.does(&["group", "create", "fishers", "--as", "bo"], "");
    bo.subject.does(&["group", "invite", "fishers", "ana"], "");
    ana.subject.does(&["sync"], "");
    ana.subject.does(&["group", "approve", "fishers", "--as", "ana"], "");
    bo.subject.does(&["sync"], "");
    ana.subject.does(&["sync"], "");
    sweep(&bo, &[case(&["--offline", "group", "remove", "fishers", "ana"], MEMBERS)]);
    sweep(&ana, &[case(&["--offline", "group", "leave", "fishers"], CHATS)]);
}

#[test]
fn a_file_that_is_given_to_be_sent_waits_whole_or_is_not_there() {
    let (bo, _relay, ana) = pair();
    // Not in the vault's folder: what stands there is counted.
    let file = ana.subject.vault.with_file_name("map");
    put(&file, &[7; 300_000]);
    let path = file.display().to_string();
    let send = ["--offline", "send", "ana", "the map", "--attach", &path, "--keep-metadata"];
    sweep(&bo, &[case(&send, READ)]);
}

/// Texts of the messages of one side, oldest first.
fn texts(of: &Scene, chat: &str, from: &str) -> Vec<String> {
    let told = of.subject.does(&["--json", "--offline", "read", chat, "--last", "500"], "").told();
    let text = |line: &str| {
        let record: Value = serde_json::from_str(line).ok()?;
        let wanted = record["type"] == "message" && record["from"] == from;
        wanted.then(|| record["text"].as_str().map(str::to_owned))?
    };
    told.lines().filter_map(text).collect()
}

/// Nothing is set back here: each kill falls on what the one before left, with a relay that goes on.
#[test]
fn what_is_sent_and_fetched_by_commands_that_are_killed_arrives_once_and_in_order() {
    let (bo, _relay, ana) = Scene::with_messages(cheap(), &[]);
    let count = |words: &[&str]| bo.subject.does(words, "").changes().count();
    let (sending, fetching) = (count(&["send", "ana", "the first"]), count(&["sync"]));
    ana.subject.does(&["send", "bo", "an answer"], "");
    let (mut sent, mut done, mut told) =
        (vec!["the first".to_owned()], vec!["the first".to_owned()], vec!["an answer".to_owned()]);
    let fetching = fetching.max(count(&["sync"]));
    let step = |of: usize| if places().is_long() { 1 } else { of.div_ceil(3) };
    let sends = (0..sending).step_by(step(sending)).map(|at| (true, at));
    let syncs = (0..fetching).step_by(step(fetching)).map(|at| (false, at));
    let (mut killed, mut rounds) = (0, 0);
    for (is_send, at) in sends.chain(syncs) {
        rounds += 1;
        let (mine, hers) = (format!("from bo {rounds}"), format!("from ana {rounds}"));
        ana.subject.does(&["send", "bo", &hers], "");
        told.push(hers);
        sent.push(mine.clone());
        let words: Vec<&str> = if is_send {
            vec!["send", "ana", &mine]
        } else {
            bo.subject.does(&["--offline", "send", "ana", &mine], "");
            done.push(mine.clone());
            vec!["sync"]
        };
        let trace =
            run(&bo.subject.plan(&words, "").changes_only().killed(Kill::After(at))).expect("a trace");
        match trace.end {
            End::Signaled(9) => killed += 1,
            _ => {
                assert!(trace.succeeded(), "{words:?} {at}: {}", trace.told());
                if is_send {
                    done.push(mine);
                }
            }
        }
    }
    println!("send and sync, one after the other: killed at {killed} of {rounds} places");
    for one in [&bo, &ana, &bo] {
        one.subject.does(&["sync"], "");
    }
    let (written, arrived) = (texts(&bo, "ana", "me"), texts(&ana, "bo", "bo"));
    assert_eq!(arrived, written, "each once, in order, and what is not in the vault did not leave");
    let possible: BTreeSet<&String> = sent.iter().collect();
    assert!(written.iter().all(|text| possible.contains(text)));
    assert!(done.iter().all(|text| written.contains(text)), "what a command said is there: {written:?}");
    assert_eq!(texts(&bo, "ana", "ana"), told);
    assert!(killed * 2 > rounds, "{killed} of {rounds}");
}

/// Every command that the program knows, as it is typed.
fn commands() -> BTreeSet<String> {
    fn leaves(command: &clap::Command, before: &str, all: &mut BTreeSet<String>) {
        for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let words = format!("{before} {}", one.get_name()).trim().to_owned();
            if one.has_subcommands() {
                leaves(one, &words, all);
            } else {
                all.insert(words);
            }
        }
    }
    let mut all = BTreeSet::new();
    leaves(&Cli::command(), "", &mut all);
    all
}

#[test]
fn every_command_is_killed_somewhere_or_is_known_to_change_nothing() {
    let lists = [HERE, ELSEWHERE, SHOW_ONLY, APART];
    let listed: Vec<&str> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    let known: BTreeSet<String> = listed.iter().map(|&words| words.to_owned()).collect();
    assert_eq!(known.len(), listed.len(), "one list each");
    assert_eq!(known, commands());
}
