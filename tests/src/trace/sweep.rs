//! Kills a command at every call that changes a file, and looks each time what is left.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;

use super::{Call, End, Places, Plan, Subject, Target, Trace, disk, run};

/// Bytes that are compared at a time.
const PIECE: usize = 64 << 10;

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
    /// Where it is killed, and the power fails.
    pub places: Places,
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
        let world = World { names: (untouched, done), states: (self.look(), after) };
        assert_ne!(
            world.states.0, world.states.1,
            "{:?}: the probes cannot tell before from after",
            self.words
        );
        let changes = whole.changes().count();
        let mut ended = (0, 0);
        let places = self.places.kills(&whole, self.seed);
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

    /// What is left is before or after, and stays so without help; answers whether it is after. Where there are the files
    /// that there were, and the vault is what it was, byte for byte, it is before.
    fn settles(&self, world: &World, what: &str) -> bool {
        if self.is_untouched(&world.names.0) {
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
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let is_told = |call: &Call| call.target == Target::Standard(1) && call.name.contains("write");
        let told = whole.calls.iter().position(is_told).filter(|_| self.tells_when_done);
        let certain = told.unwrap_or(whole.calls.len());
        let cuts = self.places.cuts(whole, certain, &mut rng);
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

    fn folder(&self) -> &Path {
        self.subject.vault.parent().expect("the vault lies in a folder")
    }

    fn names(&self) -> BTreeSet<OsString> {
        let folder = std::fs::read_dir(self.folder()).expect("a folder of the test");
        folder.flatten().map(|entry| entry.file_name()).collect()
    }

    /// Whether there are the files that there were, and every byte of the vault: then nothing needs to be asked.
    fn is_untouched(&self, untouched: &BTreeSet<OsString>) -> bool {
        self.names() == *untouched
            && match &self.before {
                Some(image) => is_in(&self.subject.vault, image),
                None => true,
            }
    }

    /// As it was before.
    fn restore(&self, untouched: &BTreeSet<OsString>) {
        if self.is_untouched(untouched) {
            return;
        }
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

/// Whether these bytes are all that is in the file.
fn is_in(path: &Path, bytes: &[u8]) -> bool {
    let mut file = File::open(path).expect("a file of the test");
    let mut read = vec![0; PIECE];
    let mut left = bytes;
    loop {
        let count = file.read(&mut read).expect("a file of the test");
        match left.split_at_checked(count) {
            _ if count == 0 => return left.is_empty(),
            Some((next, rest)) if *next == read[..count] => left = rest,
            _ => return false,
        }
    }
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
