//! Kills a command at every call that changes a file, and looks each time what is left.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use lapwing_vault::testing;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;
use serde_json::Value;

use super::{End, Kill, Subject, Trace, run};

/// A command, and how to see whether it was carried out.
pub struct Sweep<'a> {
    /// Who types it, at which vault.
    pub subject: &'a Subject,
    /// The vault before; none for the command that makes it.
    pub before: Option<Vec<u8>>,
    /// The command.
    pub words: &'a [&'a str],
    /// What follows the passphrase on its standard input.
    pub more: &'a str,
    /// What is looked at: a passphrase and a command that changes nothing which counts.
    pub probes: &'a [(&'a str, &'a [&'a str])],
    /// Most places at which it is killed; where there are more, the first, the last, those around each sync, and a
    /// sample of the others.
    pub most: usize,
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

impl Sweep<'_> {
    /// Kills it everywhere; then loses and garbles what was not synced, at as many places.
    ///
    /// # Panics
    /// A run ends neither before nor after, one ends before although a kill at an earlier call ended after, something
    /// is left beside the vault, or the undisturbed command fails.
    #[must_use]
    pub fn sweep(&self) -> Swept {
        let whole = self.undisturbed();
        let after = self.look();
        self.restore(self.before.as_deref());
        let states = (self.look(), after);
        assert_ne!(states.0, states.1, "{:?}: the probes cannot tell before from after", self.words);
        let changes = whole.changes().count();
        let mut ended = (0, 0);
        let places = self.places(&whole);
        for place in &places {
            self.restore(self.before.as_deref());
            let plan = self.subject.plan(self.words, self.more).killed(*place);
            let trace = run(&plan).unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
            // A run may come to its end with fewer calls than the first one made.
            let killed = trace.end == End::Signaled(9);
            assert!(
                killed || trace.succeeded(),
                "{:?} {place:?}: {:?} {}",
                self.words,
                trace.end,
                trace.told()
            );
            self.alone();
            let seen = self.look();
            if seen == states.1 {
                ended.1 += 1;
            } else {
                let odd = seen.iter().zip(&states.0).find(|(seen, before)| seen != before);
                assert!(
                    odd.is_none(),
                    "{:?} killed {place:?} of {changes} ended in between: {odd:#?}",
                    self.words
                );
                assert!(killed, "{:?} {place:?}: it said that it was done", self.words);
                assert_eq!(ended.1, 0, "{:?} {place:?}: an earlier kill left it done", self.words);
                ended.0 += 1;
            }
        }
        let cuts = self.cut(&whole, &states);
        Swept { changes, killed: places.len(), cuts, states, ended }
    }

    fn undisturbed(&self) -> Trace {
        self.restore(self.before.as_deref());
        self.subject.does(self.words, self.more)
    }

    /// Power cuts, at as many places: what the first run wrote is put down again, less what was not synced.
    fn cut(&self, whole: &Trace, states: &(Seen, Seen)) -> usize {
        let Some(before) = &self.before else { return 0 };
        let calls: Vec<testing::Call> = whole
            .writes
            .iter()
            .map(|write| match write.offset {
                Some(offset) => testing::Call::Write { offset, bytes: write.bytes.clone() },
                None => testing::Call::Sync,
            })
            .collect();
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let all: Vec<usize> = (1..=calls.len()).collect();
        let chosen = sample(&all, self.most, &mut rng);
        for cut in &chosen {
            let image = testing::power_cut(before, &calls, *cut, &mut rng);
            self.restore(Some(&image));
            let seen = self.look();
            assert!(
                seen == states.0 || seen == states.1,
                "{:?}: power cut after {cut} of {} writes: {seen:?}",
                self.words,
                calls.len()
            );
        }
        chosen.len()
    }

    /// Before the first call, then after each that was chosen.
    fn places(&self, whole: &Trace) -> Vec<Kill> {
        let changes: Vec<_> = whole.changes().collect();
        let syncs =
            changes.iter().enumerate().filter(|(_, call)| call.name.contains("sync")).map(|(at, _)| at);
        let mut edges: Vec<usize> = syncs.flat_map(|at| [at.saturating_sub(1), at]).collect();
        edges.extend([0, 1, 2]);
        edges.extend((0..3).filter_map(|back| changes.len().checked_sub(back + 1)));
        edges.retain(|at| *at < changes.len());
        edges.sort_unstable();
        edges.dedup();
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let mut chosen = sample(&edges, self.most, &mut rng);
        let others: Vec<usize> = (0..changes.len()).filter(|at| !edges.contains(at)).collect();
        chosen.extend(sample(&others, self.most.saturating_sub(chosen.len()), &mut rng));
        chosen.sort_unstable();
        std::iter::once(Kill::Before(0)).chain(chosen.into_iter().map(Kill::After)).collect()
    }

    fn restore(&self, image: Option<&[u8]>) {
        match image {
            Some(image) => put(&self.subject.vault, image),
            None => drop(std::fs::remove_file(&self.subject.vault)),
        }
    }

    /// Nothing stands beside the vault that was not there before.
    fn alone(&self) {
        let folder = self.subject.vault.parent().expect("the vault lies in a folder");
        let name = self.subject.vault.file_name().expect("the vault has a name").to_owned();
        for entry in std::fs::read_dir(folder).expect("a folder of the test").flatten() {
            let found = entry.file_name();
            let text = found.to_string_lossy().into_owned();
            let stray = found != name && text.starts_with(&*name.to_string_lossy());
            assert!(!stray, "{:?} left {text} beside the vault", self.words);
        }
    }

    /// What each probe answers, one after the other, on the vault as it is. Where there was none before, it does not
    /// matter in what way it does not open.
    fn look(&self) -> Seen {
        let probes = self.probes.iter();
        probes
            .map(|(passphrase, words)| match probe(&self.subject.typing(passphrase), words, "") {
                (Some(0), text) => (Some(0), steady(&text)),
                _ if self.before.is_none() => (None, String::new()),
                other => other,
            })
            .collect()
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

/// At most `most` of them, in order.
fn sample(all: &[usize], most: usize, rng: &mut impl RngCore) -> Vec<usize> {
    let mut left = all.to_vec();
    while left.len() > most {
        let at = usize::try_from(rng.next_u64() % left.len() as u64).expect("an index");
        left.remove(at);
    }
    left
}
