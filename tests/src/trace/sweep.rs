//! Kills a command at every call that changes a file, and looks each time what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;
use serde_json::Value;

use super::{Call, End, Kill, Plan, Subject, Target, Trace, disk, run};

/// A command, and how to see whether it was carried out.
pub struct Sweep<'a> {
    /// Who types it, at which vault. The vault lies in a folder of its own.
    pub subject: &'a Subject,
    /// The vault before; none for the command that makes it.
    pub before: Option<Vec<u8>>,
    /// The command.
    pub words: &'a [&'a str],
    /// What follows the passphrase on its standard input.
    pub more: &'a str,
    /// What is looked at: a passphrase and a command that changes nothing which counts.
    pub probes: &'a [(&'a str, &'a [&'a str])],
    /// What else is looked at.
    pub beside: Option<&'a Beside<'a>>,
    /// Whether all that it writes goes to the vault, or to a file that becomes the vault: then power cuts can be replayed.
    pub power: bool,
    /// What a kill may leave in the vault's folder, and until when.
    pub leaves: Leaves,
    /// Whether what it tells is on the disk before it tells it: then a power cut after its first word of output finds it
    /// done.
    pub tells_when_done: bool,
    /// Whether it is typed again where it was not carried out, and must then succeed.
    pub again: bool,
    /// Most places at which it is killed, besides those before the first call and after the last; where there are more,
    /// half of them are the first, the last, those around each sync and changes of names, and half are others.
    pub most: usize,
    /// Which of them are drawn.
    pub seed: u64,
}

/// Tells whether a command was carried out by what it made beside the vault.
pub type Beside<'a> = dyn Fn() -> String + 'a;

/// Until when a file may stand beside the vault that was not there before and that the undisturbed command does not
/// leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// At no time.
    Nothing,
    /// Until the vault is next opened.
    UntilOpened,
}

/// What the probes answered: the exit code, and what was printed.
pub type Seen = Vec<(Option<i32>, String)>;

/// What a sweep came to.
#[derive(Debug)]
pub struct Swept {
    /// Calls of the undisturbed command that change a file.
    pub changes: usize,
    /// Places at which it was killed.
    pub killed: usize,
    /// Power cuts that were replayed.
    pub cuts: usize,
    /// What the probes see before and after.
    pub states: (Seen, Seen),
    /// Of the killed runs, how many ended before and after.
    pub ended: (usize, usize),
}

/// What is there before the command, and after it came to its end.
struct World {
    names: (BTreeSet<OsString>, BTreeSet<OsString>),
    states: (Seen, Seen),
    /// Every byte of the folder before.
    untouched: BTreeMap<OsString, Vec<u8>>,
}

impl Sweep<'_> {
    /// Kills it everywhere; then loses and garbles what was not synced, at as many places.
    ///
    /// # Panics
    /// A run ends neither before nor after, one ends before although a kill at an earlier call ended after, something
    /// is left beside the vault, or the undisturbed command fails.
    #[must_use]
    pub fn sweep(&self) -> Swept {
        let untouched = self.names();
        self.restore(&untouched);
        let whole = run(&self.watched()).unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
        assert!(whole.succeeded(), "{:?}: {:?} {}", self.words, whole.end, whole.told());
        let done = self.names();
        let after = self.look();
        self.restore(&untouched);
        let contents = self.contents();
        let world = World { names: (untouched, done), states: (self.look(), after), untouched: contents };
        assert_ne!(
            world.states.0, world.states.1,
            "{:?}: the probes cannot tell before from after",
            self.words
        );
        let changes = whole.changes().count();
        let mut ended = (0, 0);
        let places = self.places(&whole);
        for place in &places {
            self.restore(&world.names.0);
            let plan = self.subject.plan(self.words, self.more).changes_only().killed(*place);
            let trace = run(&plan).unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
            // A run may come to its end with fewer calls than the first one made.
            let killed = trace.end == End::Signaled(9);
            let what = format!("{:?} {place:?} of {changes}", self.words);
            assert!(killed || trace.succeeded(), "{what}: {:?} {}", trace.end, trace.told());
            if self.settles(&world, &what) {
                ended.1 += 1;
            } else {
                assert!(killed, "{what}: it said that it was done");
                assert_eq!(ended.1, 0, "{what}: an earlier kill left it done");
                ended.0 += 1;
            }
        }
        let cuts = self.cut(&whole, &world);
        Swept { changes, killed: places.len(), cuts, states: world.states, ended }
    }

    /// What is left is before or after, and stays so without help; answers whether it is after. A folder that is what it
    /// was, byte for byte, is before.
    fn settles(&self, world: &World, what: &str) -> bool {
        if self.contents() == world.untouched {
            return false;
        }
        let (before, after) = &world.names;
        let either = before | after;
        if self.leaves == Leaves::Nothing {
            self.alone(&either, what);
        }
        let seen = self.look();
        let is_after = seen == world.states.1;
        if !is_after {
            let odd = seen.iter().zip(&world.states.0).find(|(seen, before)| seen != before);
            assert!(odd.is_none(), "{what} ended in between: {odd:#?}");
        }
        self.alone(if is_after { &either } else { before }, what);
        if self.again && !is_after {
            let (code, text) = probe(self.subject, self.words, self.more);
            assert_eq!(code, Some(0), "{what}: it cannot be done again: {text}");
            assert_eq!(self.look(), world.states.1, "{what}: done again");
            self.alone(&either, what);
        }
        is_after
    }

    /// The undisturbed command, of which everything is kept that it writes to the vault and to what may become one.
    fn watched(&self) -> Plan {
        let mut plan = self.subject.plan(self.words, self.more).changes_only();
        for ending in ["growing", "unfinished"] {
            let mut name = OsString::from(&self.subject.vault);
            name.push(".");
            name.push(ending);
            plan = plan.watching(name.into());
        }
        plan
    }

    /// Power cuts, at as many places: what the first run did to the disk is done again, less what was not synced. One of
    /// them is when it has told that it is done, or else when it has ended: then it is done for certain.
    fn cut(&self, whole: &Trace, world: &World) -> usize {
        if !self.power {
            return 0;
        }
        let before: Vec<disk::File> = self
            .before
            .iter()
            .map(|image| disk::File { names: vec![self.subject.vault.clone()], bytes: image.clone() })
            .collect();
        self.is_all_watched(whole);
        self.is_named_when_synced(whole);
        let changes = whole.calls.iter().enumerate().filter(|(_, call)| call.changes_a_file());
        let all: Vec<usize> = changes.map(|(at, _)| at + 1).collect();
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let chosen = sample(&all, self.most - 1, &mut rng);
        let is_told = |call: &Call| call.target == Target::Standard(1) && call.name.contains("write");
        let told = whole.calls.iter().position(is_told).filter(|_| self.tells_when_done);
        let certain = told.unwrap_or(whole.calls.len());
        let mut cuts: Vec<usize> = chosen.into_iter().chain([certain]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        for cut in &cuts {
            self.restore(&world.names.0);
            let _ = std::fs::remove_file(&self.subject.vault);
            for disk::File { names, bytes } in disk::power_cut(self.folder(), &before, whole, *cut, &mut rng)
            {
                let (first, others) = names.split_first().expect("a name");
                put(first, &bytes);
                others.iter().for_each(|other| std::fs::hard_link(first, other).expect("a second name"));
            }
            let what = format!("{:?} when the power failed after call {cut}", self.words);
            let is_after = self.settles(world, &what);
            assert!(is_after || *cut < certain, "{what}: it had told that it was done");
        }
        cuts.len()
    }

    /// What is written to a file of the vault's folder that is not watched could not be replayed.
    fn is_all_watched(&self, whole: &Trace) {
        let watched = self.watched().watch;
        let written = whole.changes().filter(|call| call.name.contains("write"));
        let beside = written.filter_map(Call::file).filter(|file| file.parent() == Some(self.folder()));
        for file in beside {
            assert!(watched.contains(file), "{:?} writes to {}", self.words, file.display());
        }
    }

    /// A file without a name gets one when what is in it is on the disk: else a power cut leaves a torn one.
    fn is_named_when_synced(&self, whole: &Trace) {
        let nameless = |call: &Call| call.file().is_some_and(|file| file.starts_with("/proc"));
        let calls = whole.calls.iter().enumerate().filter(|(_, call)| call.result >= 0);
        for (at, call) in calls.filter(|(_, call)| call.name == "linkat" && nameless(call)) {
            let mut before = whole
                .writes
                .iter()
                .filter(|write| write.call < at && Some(&write.file) == call.second.as_ref());
            let synced = before.next_back().is_some_and(|write| write.offset.is_none());
            assert!(synced, "{:?} names a file that may be torn", self.words);
        }
    }

    /// Before the first call, then after each that was chosen, then after the last.
    fn places(&self, whole: &Trace) -> Vec<Kill> {
        let changes: Vec<_> = whole.changes().collect();
        let last = changes.len().checked_sub(1).expect("a command that changes nothing cannot be swept");
        let syncs =
            changes.iter().enumerate().filter(|(_, call)| call.name.contains("sync")).map(|(at, _)| at);
        let mut edges: Vec<usize> = syncs.flat_map(|at| [at.saturating_sub(1), at]).collect();
        edges.extend([0, 1, 2]);
        edges.extend((1..3).filter_map(|back| last.checked_sub(back)));
        // Which files there are, and how long they are.
        edges.extend((0..changes.len()).filter(|at| !is_data(changes[*at])));
        edges.retain(|at| *at < last);
        edges.sort_unstable();
        edges.dedup();
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let others: Vec<usize> = (0..last).filter(|at| !edges.contains(at)).collect();
        let inner = sample(&others, self.most / 2, &mut rng);
        let mut chosen = sample(&edges, self.most.saturating_sub(inner.len()), &mut rng);
        chosen.extend(inner);
        chosen.sort_unstable();
        chosen.push(last);
        std::iter::once(Kill::Before(0)).chain(chosen.into_iter().map(Kill::After)).collect()
    }

    fn folder(&self) -> &Path {
        self.subject.vault.parent().expect("the vault lies in a folder")
    }

    fn names(&self) -> BTreeSet<OsString> {
        let folder = std::fs::read_dir(self.folder()).expect("a folder of the test");
        folder.flatten().map(|entry| entry.file_name()).collect()
    }

    /// The files in the vault's folder, with every byte: where that is what it was, nothing needs to be asked.
    fn contents(&self) -> BTreeMap<OsString, Vec<u8>> {
        let files = self.names().into_iter().filter(|name| self.folder().join(name).is_file());
        let read = |name: OsString| {
            let bytes = std::fs::read(self.folder().join(&name)).expect("a file of the test");
            (name, bytes)
        };
        files.map(read).collect()
    }

    /// As it was before.
    fn restore(&self, untouched: &BTreeSet<OsString>) {
        for name in self.names().difference(untouched) {
            std::fs::remove_file(self.folder().join(name)).expect("a file of the command");
        }
        match &self.before {
            Some(image) => {
                // It may have become another file.
                let _ = std::fs::remove_file(&self.subject.vault);
                put(&self.subject.vault, image);
            }
            None => drop(std::fs::remove_file(&self.subject.vault)),
        }
    }

    /// Nothing else stands in the vault's folder.
    fn alone(&self, known: &BTreeSet<OsString>, what: &str) {
        let stray: Vec<OsString> = self.names().difference(known).cloned().collect();
        assert!(stray.is_empty(), "{what} left {stray:?}");
    }

    /// What each probe answers, one after the other, on the vault as it is. Where there was none before, it does not
    /// matter in what way it does not open.
    fn look(&self) -> Seen {
        let probes = self.probes.iter();
        let mut seen: Seen = probes
            .map(|(passphrase, words)| match probe(&self.subject.typing(passphrase), words, "") {
                (Some(0), text) => (Some(0), steady(&text)),
                _ if self.before.is_none() => (None, String::new()),
                other => other,
            })
            .collect();
        seen.extend(self.beside.map(|beside| (None, beside())));
        seen
    }
}

/// Whether it writes bytes, or makes them certain, and nothing else.
fn is_data(call: &Call) -> bool {
    call.name.contains("write") || call.name.contains("sync")
}

/// Runs a command, without the tracer; `more` follows the passphrase on its standard input.
///
/// # Panics
/// The program cannot be started.
#[must_use]
pub fn probe(subject: &Subject, words: &[&str], more: &str) -> (Option<i32>, String) {
    let plan = subject.plan(words, more);
    let mut child = Command::new(&plan.program)
        .args(&plan.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    // It may end without reading it.
    let _ = child.stdin.take().expect("a pipe").write_all(&plan.input);
    let output = child.wait_with_output().expect("its output");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Records without what is another in every run: times, and bytes in use.
fn steady(lines: &str) -> String {
    let clean = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(mut record) => {
            forget(&mut record);
            format!("{record}\n")
        }
        Err(_) => format!("{line}\n"),
    };
    lines.lines().map(clean).collect()
}

fn forget(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget),
        Value::Object(fields) => {
            fields.remove("used_bytes");
            fields.values_mut().for_each(forget);
        }
        Value::String(text) if text.len() == 24 && text.ends_with('Z') && text.contains('T') => {
            "a time".clone_into(text);
        }
        _ => {}
    }
}

/// Writes a vault's file anew, whether or not there is one.
///
/// # Panics
/// It cannot be written.
pub fn put(path: &Path, image: &[u8]) {
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).open(path).expect("a file of the test");
    file.write_all(image).expect("room for a vault");
}

/// At most `most` of them, in order.
fn sample(all: &[usize], most: usize, rng: &mut impl RngCore) -> Vec<usize> {
    let mut left = all.to_vec();
    while left.len() > most {
        let at = usize::try_from(rng.next_u64() % left.len() as u64).expect("an index");
        left.remove(at);
    }
    left
}
