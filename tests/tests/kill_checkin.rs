//! A check-in that is begun, given or ended by a command that is killed, at whatever call that changes the file: it runs or
//! it does not, the alert leaves exactly if the vault says that it runs, and no word counts that the relay did not hear.
//! So too where the power fails, while the relay goes on. Real processes, and a real relay whose time the test moves.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a long run tells what it did")]

use std::{path::Path, time::Duration};

use lapwing_tests::trace::{
    End, Kill, Places,
    disk::{self, File},
    places::is_left_out,
    relay::ClockedRelay,
    run,
    scene::Scene,
    sweep::{probe, put},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;

/// The silence after which the alert leaves: the shortest that there is.
const SPAN: Duration = Duration::from_secs(600);
/// A deadline comes within two minutes after its time (TRP-10).
const LATE: Duration = Duration::from_secs(120);
/// How long the relay has heard nothing when the word is given.
const SILENT: Duration = Duration::from_secs(480);
/// And then runs on: without the word, the alert has left by then.
const ON: Duration = Duration::from_secs(240);

/// The calls of the unlock come first: two writes of the header, and their syncs.
const UNLOCKED: usize = 3;

/// A command says that the relay did not answer.
const UNREACHED: i32 = 4;
/// How often it is typed then.
const TRIES: usize = 5;

/// Which sectors are lost when the power fails.
const SEED: u64 = 9;

const START: &[&str] =
    &["checkin", "start", "--every", "10m", "--alert", "ana", "--text", "bo is silent", "--yes"];
const NOW: &[&str] = &["checkin", "now"];
const STOP: &[&str] = &["checkin", "stop"];

/// Bo, whose alerts Ana gets.
struct Friends {
    bo: Scene,
    ana: Scene,
    relay: ClockedRelay,
}

/// Where a command ends.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: Kill,
    /// Whether the power fails: what was not synced may be lost or garbled, and a later place may find less done.
    power: bool,
}

/// Everything that is kept, at one time.
struct Moment {
    bo: Vec<u8>,
    ana: Vec<u8>,
    relay: usize,
}

impl Friends {
    fn new() -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
        let (bo, ana, relay) = (Scene::made(program), Scene::made(program), ClockedRelay::start());
        bo.meets(&ana, &relay.access);
        bo.subject.does(&["trust", "add", "ana"], "");
        ana.subject.does(&["trust", "accept", "bo"], "");
        bo.subject.does(&["sync"], "");
        Self { bo, ana, relay }
    }

    fn moment(&self) -> Moment {
        let image = |of: &Scene| of.image().expect("a vault");
        Moment { bo: image(&self.bo), ana: image(&self.ana), relay: self.relay.moment() }
    }

    fn go_back(&self, to: &Moment) {
        self.relay.go_back(to.relay);
        put(&self.bo.subject.vault, &to.bo);
        put(&self.ana.subject.vault, &to.ana);
    }

    /// Where Bo's command ends: in a long run before and after each call, as what a relay hears lies in between.
    fn places(&self, words: &[&str]) -> Vec<Place> {
        if is_left_out(words) {
            return Vec::new();
        }
        let before = self.moment();
        let changes = self.bo.subject.does(words, "").changes().count();
        self.go_back(&before);
        let place = |at, power| Place { at, power };
        if Places::default().is_long() {
            let killed = (0..changes).flat_map(|at| [Kill::Before(at), Kill::After(at)]);
            let cut = (0..changes).map(Kill::Before).chain([Kill::After(changes - 1)]);
            killed.map(|at| place(at, false)).chain(cut.map(|at| place(at, true))).collect()
        } else {
            // Before anything of it is there, and when it is, but for what comes at lock.
            vec![place(Kill::After(UNLOCKED), false), place(Kill::Before(changes * 4 / 5), true)]
        }
    }

    /// Ends Bo's command there; answers whether it had not come to its end.
    fn ends(&self, from: &Moment, words: &[&str], place: Place) -> bool {
        let plan = self.bo.subject.plan(words, "").changes_only().killed(place.at);
        let once = || {
            self.go_back(from);
            run(&plan).expect("a trace")
        };
        let trace = answered(once, |trace| trace.end == End::Exited(UNREACHED));
        let killed = trace.end == End::Signaled(9);
        assert!(killed || trace.succeeded(), "{words:?} {place:?}: {}", trace.told());
        if place.power {
            let vault = &self.bo.subject.vault;
            let folder = vault.parent().expect("a folder of its own");
            let before = [File { names: vec![vault.clone()], bytes: from.bo.clone() }];
            let mut rng = ChaCha20Rng::seed_from_u64(SEED);
            let left = disk::power_cut(folder, &before, &trace, trace.calls.len(), &mut rng);
            let [File { names, bytes }] = left.as_slice() else {
                panic!("{words:?} {place:?}: {} files", left.len())
            };
            assert_eq!(names, std::slice::from_ref(vault));
            put(vault, bytes);
        }
        killed
    }

    /// By when Bo's vault says that the next word is due, if it says that a check-in runs.
    fn due(&self) -> Option<String> {
        let (_, told) = probe(&self.bo.subject, &["--json", "--offline", "checkin", "status"], "");
        let mut records = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let seen = records.find(|record| record["type"] == "checkins").expect("an answer");
        match seen["checkins"].as_array().expect("a list").as_slice() {
            [] => None,
            [one] => {
                assert_eq!(one["state"], "running", "{told}");
                Some(one["next"].as_str().expect("a time").to_owned())
            }
            _ => panic!("two: {told}"),
        }
    }

    /// How many alerts Ana has when the relay has run for so long.
    fn alerts_after(&self, span: Duration) -> usize {
        self.relay.run_for(span);
        assert_eq!(says(&self.ana, &["sync"]), Some(0));
        let (code, told) = probe(&self.ana.subject, &["--json", "--offline", "alert", "list"], "");
        assert_eq!(code, Some(0), "{told}");
        told.matches("bo is silent").count()
    }
}

/// The exit code of a command that needs the relay.
fn says(of: &Scene, words: &[&str]) -> Option<i32> {
    answered(|| probe(&of.subject, words, "").0, |code| *code == Some(UNREACHED))
}

/// What comes of something that asks the relay. On a machine with much else to do the relay may not answer in the time that
/// a command waits for it; the command says so, and people type it again.
fn answered<T>(ask: impl FnMut() -> T, is_unreached: impl Fn(&T) -> bool) -> T {
    let mut all = std::iter::repeat_with(ask).take(TRIES);
    all.find(|one| !is_unreached(one)).expect("an answer of the relay")
}

fn tell(words: &[&str], places: &[Place], (before, after): (usize, usize)) {
    println!(
        "{:?}: killed, or cut from power, at {}: {before} before, {after} after",
        &words[..2],
        places.len()
    );
    assert!(places.is_empty() || before > 0 && after > 0, "{words:?}: {before} before, {after} after");
}

#[test]
fn a_check_in_that_is_begun_given_or_ended_by_a_killed_command_alerts_exactly_if_it_runs() {
    let friends = Friends::new();
    let before = friends.moment();

    let places = friends.places(START);
    let (mut undone, mut done) = (0, 0);
    for &place in &places {
        let killed = friends.ends(&before, START, place);
        let runs = friends.due().is_some();
        assert_eq!(says(&friends.bo, &["sync"]), Some(0));
        let left = friends.moment();
        assert_eq!(friends.alerts_after(SPAN + LATE), usize::from(runs), "begun, {place:?}");
        if runs {
            done += 1;
        } else {
            assert!(
                killed && (done == 0 || place.power),
                "begun, {place:?}: it said that it runs, or an earlier kill left it running"
            );
            undone += 1;
            // Typed again: what the killed one may have told the relay does not alert beside it.
            friends.go_back(&left);
            assert_eq!(says(&friends.bo, START), Some(0));
            assert!(friends.due().is_some());
            assert_eq!(friends.alerts_after(SPAN + LATE), 1, "begun again, {place:?}");
        }
    }
    tell(START, &places, (undone, done));

    friends.go_back(&before);
    assert_eq!(says(&friends.bo, START), Some(0));
    let running = friends.moment();

    friends.relay.run_for(SILENT);
    let silent = friends.moment();
    let was_due = friends.due();
    let places = friends.places(NOW);
    let (mut unheard, mut heard) = (0, 0);
    for &place in &places {
        let killed = friends.ends(&silent, NOW, place);
        let due = friends.due();
        let left = friends.moment();
        let alerts = friends.alerts_after(ON);
        if due == was_due {
            assert!(
                killed && (heard == 0 || place.power),
                "given, {place:?}: it said that it was heard, or an earlier kill left it so"
            );
            unheard += 1;
        } else {
            assert!(
                due > was_due && alerts == 0,
                "given, {place:?}: {due:?} after {was_due:?}, {alerts} alerts"
            );
            heard += 1;
        }
        assert!(alerts <= 1, "given, {place:?}: {alerts}");
        // Typed again, in time.
        friends.go_back(&left);
        assert_eq!(says(&friends.bo, NOW), Some(0));
        assert_eq!(friends.alerts_after(ON), 0, "given again, {place:?}");
        assert_eq!(friends.alerts_after(SPAN), 1, "given again and then no more, {place:?}");
    }
    tell(NOW, &places, (unheard, heard));

    friends.go_back(&running);
    let places = friends.places(STOP);
    let (mut goes_on, mut ended) = (0, 0);
    for &place in &places {
        let killed = friends.ends(&running, STOP, place);
        let runs = friends.due().is_some();
        assert_eq!(says(&friends.bo, &["sync"]), Some(0));
        let left = friends.moment();
        assert_eq!(friends.alerts_after(SPAN + LATE), usize::from(runs), "ended, {place:?}");
        friends.go_back(&left);
        let (code, told) = probe(&friends.bo.subject, STOP, "");
        if runs {
            assert!(
                killed && (ended == 0 || place.power),
                "ended, {place:?}: it said that it is over, or an earlier kill left it so"
            );
            // If the relay did not hear it in time, it does so now.
            assert!(matches!(code, Some(0 | UNREACHED)), "ended again, {place:?}: {told}");
            assert_eq!(says(&friends.bo, &["sync"]), Some(0));
            goes_on += 1;
        } else {
            assert_eq!(code, Some(5), "ended, {place:?}: there is none any more: {told}");
            ended += 1;
        }
        assert_eq!(friends.alerts_after(SPAN + LATE), 0, "ended again, {place:?}");
    }
    tell(STOP, &places, (goes_on, ended));
}
