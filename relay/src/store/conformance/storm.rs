//! A process that puts a store under load until it is killed, and the check of what it left.
//!
//! Some tasks work on a mailbox each and write a mark before and after every change:
//!
//! ```text
//! o M L      mailbox M is there, in its life L         + M N      append N was stored, at its place
//! ? M N      everything to N is about to be taken      - M N      it was taken
//! x M L      life L is about to be closed              X M L      it was closed
//! ! M        refused: the disk is full                 = M N      a full disk shows N waiting envelopes
//! ```
//! One more task has an anchor and a tripwire, with marks of its own (`guarded`).
//!
//! The envelopes of a mailbox follow from its number, its life and their place, so a check needs the marks only.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{guarded, *};
use crate::store::{
    KeptStore, StoreOptions,
    fjall::{FjallStore, TEST_SEGMENT},
    group::GroupCommit,
    sled::{Sled, SledStore},
};

/// Tasks of one process.
pub(super) const TASKS: u8 = 6;
/// Changes of one task at most, if nobody kills it: some seconds.
const STEPS: u64 = 6000;
/// How long a process may take to come as far as it is asked to.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tells the child what to do: engine, first mailbox.
const STORM: &str = "LAPWING_STORM";
/// Where.
const FOLDER: &str = "LAPWING_STORM_FOLDER";
/// Fills the store with so many envelopes instead, marks `f`, and waits to be killed.
pub(super) const FILL: &str = "LAPWING_STORM_FILL";

/// Is marked once a group was staged while another was on its way. No mailbox has this number.
const OVERLAPPED: &str = "v 0";

/// Whether that was so in any of these processes. The store that has one writer has nothing to show.
pub(super) fn overlapped(kept: Kept, marks: &str) -> bool {
    kept != Kept::Fjall || marks.lines().any(|line| line == OVERLAPPED)
}

/// Which store a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Fjall,
    Sled,
    /// Sled as it comes: the control that must lose data.
    PlainSled,
}

impl Kept {
    const ALL: [Self; 3] = [Self::Fjall, Self::Sled, Self::PlainSled];

    pub(super) fn open(self, folder: &Path) -> Result<Arc<dyn KeptStore>, StoreError> {
        self.open_watched(folder, |_| {})
    }

    /// As [`Kept::open`], and lends the store whose groups may be two under way.
    fn open_watched(
        self,
        folder: &Path,
        watch: impl FnOnce(Arc<FjallStore>),
    ) -> Result<Arc<dyn KeptStore>, StoreError> {
        // So often that cuts and kills fall into it.
        let forget_after = Duration::from_millis(30);
        let options = StoreOptions { forget_after, ..StoreOptions::at(folder.join("store")) };
        Ok(match self {
            Self::Fjall => {
                let store = Arc::new(FjallStore::open(&options)?);
                watch(Arc::clone(&store));
                store
            }
            Self::Sled => Arc::new(SledStore::open(&options)?),
            Self::PlainSled => Arc::new(GroupCommit::<Sled<false>>::open(&options)?),
        })
    }
}

/// A process under load.
pub(super) struct Storm {
    child: Child,
    folder: PathBuf,
}

impl Storm {
    /// Starts one in a folder, with the store beside its marks.
    pub(super) fn start(kept: Kept, folder: &Path, first: u8, with: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "store::conformance::storm::storm_child", "--ignored", "--nocapture"])
            .env(STORM, format!("{kept:?} {first}"))
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        for (name, value) in with {
            command.env(name, value);
        }
        // Kills and cuts fall into new segments, checkpoints and segments that are left; what is to be a gigabyte has large ones.
        if with.iter().all(|(name, _)| *name != FILL) {
            command.env(TEST_SEGMENT, "65536");
        }
        Self { child: command.spawn().unwrap(), folder: folder.to_owned() }
    }

    /// What was marked so far.
    pub(super) fn marks(&self) -> String {
        Self::marks_in(&self.folder)
    }

    /// What all processes of a folder have marked.
    pub(super) fn marks_in(folder: &Path) -> String {
        whole_lines(&std::fs::read(folder.join("marks")).unwrap_or_default())
    }

    /// How many marks that is.
    pub(super) fn count(folder: &Path) -> usize {
        Self::marks_in(folder).lines().count()
    }

    /// Waits until the marks are as asked.
    pub(super) fn wait(&mut self, what: &str, is_there: impl Fn(&str) -> bool) {
        self.wait_for(PATIENCE, what, is_there);
    }

    /// As `wait`, for what takes minutes.
    pub(super) fn wait_long(&mut self, what: &str, is_there: impl Fn(&str) -> bool) {
        self.wait_for(PATIENCE * 20, what, is_there);
    }

    fn wait_for(&mut self, patience: Duration, what: &str, is_there: impl Fn(&str) -> bool) {
        let begun = tokio::time::Instant::now();
        while !is_there(&self.marks()) {
            assert!(self.child.try_wait().unwrap().is_none(), "the process ended by itself before: {what}");
            assert!(begun.elapsed() < patience, "it takes too long: {what}");
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    /// SIGKILL; its marks.
    pub(super) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.marks()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The text up to its last line break: a process may be killed within a mark.
pub(super) fn whole_lines(text: &[u8]) -> String {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    String::from_utf8(text[..end].to_vec()).unwrap()
}

#[test]
#[ignore = "the process that the tests beside it start and kill"]
fn storm_child() {
    let Ok(text) = std::env::var(STORM) else { return };
    let (kept, first) = text.split_once(' ').unwrap();
    let kept = Kept::ALL.into_iter().find(|kind| format!("{kind:?}") == kept).unwrap();
    let first: u8 = first.parse().unwrap();
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let marks = OpenOptions::new().append(true).create(true).open(folder.join("marks")).unwrap();
        let marks = Arc::new(marks);
        let watching = Arc::clone(&marks);
        let watch = |store: Arc<FjallStore>| {
            tokio::spawn(async move {
                while store.overlaps() == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                mark(&watching, format_args!("{OVERLAPPED}"));
            });
        };
        let store = kept.open_watched(&folder, watch).unwrap();
        if let Ok(count) = std::env::var(FILL) {
            fill(&*store, count.parse().unwrap()).await;
            mark(&marks, format_args!("f {count}"));
            std::future::pending::<()>().await;
        }
        let mut tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, marks) = (Arc::clone(&store), Arc::clone(&marks));
                tokio::spawn(async move { work(&*store, &marks, first + task).await })
            })
            .collect();
        let (guarding, guarded) = (Arc::clone(&store), Arc::clone(&marks));
        tasks.push(tokio::spawn(async move { guarded::work(&*guarding, &guarded, first).await }));
        for task in tasks {
            task.await.unwrap();
        }
        store.close().await;
    });
}

pub(super) fn mark(marks: &File, text: std::fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    let mut marks = marks;
    // One call, so that a line is there or not.
    assert_eq!(marks.write(line.as_bytes()).unwrap(), line.len());
}

/// So many envelopes of 1 KiB in 100 logs.
async fn fill(store: &dyn KeptStore, count: u64) {
    let owners: Vec<Owner> = (0..=99).map(Owner::new).collect();
    for owner in &owners {
        done(store, owner.create(MailboxKind::Log, Charge::Open), "created").await.unwrap();
    }
    let mut rng = StdRng::seed_from_u64(count);
    let numbers: Vec<u64> = (0..count).collect();
    for group in numbers.chunks(1000) {
        let group = group.iter().map(|number| {
            let mut bytes = vec![0; 1024];
            rng.fill_bytes(&mut bytes);
            let mut change = owners[usize::try_from(*number).unwrap() % owners.len()].append(bytes);
            if let Mutation::Append { limit, .. } = &mut change {
                *limit = u64::MAX;
            }
            change
        });
        let group: Vec<Mutation> = group.collect();
        for outcome in together(group.into_iter().map(|change| apply(store, change, 1))).await {
            assert!(matches!(outcome, Ok(Outcome::Stored { is_new: true, .. })));
        }
    }
}

/// Applies a change; while the disk is full, says so and tries again.
pub(super) async fn press(
    store: &dyn KeptStore,
    marks: &File,
    owner: &Owner,
    number: u8,
    change: Mutation,
) -> Outcome {
    loop {
        match apply(store, change.clone(), 1).await {
            Ok(outcome) => return outcome,
            Err(StoreError::Full) => {
                mark(marks, format_args!("! {number}"));
                if let Ok(there) = numbers(store, owner, 0).await {
                    mark(marks, format_args!("= {number} {}", there.len()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

async fn work(store: &dyn KeptStore, marks: &File, number: u8) {
    let mut rng = StdRng::seed_from_u64(u64::from(number));
    let mut owner = Owner::new(number);
    let (mut life, mut newest, mut taken) = (0u64, 0u64, 0u64);
    let create = owner.create(MailboxKind::Queue, Charge::Open);
    assert!(matches!(press(store, marks, &owner, number, create).await, Outcome::Done));
    mark(marks, format_args!("o {number} {life}"));
    for _ in 0..STEPS {
        match rng.random_range(0..200) {
            0..160 => {
                let change = owner.append(body(number, life, newest + 1));
                match press(store, marks, &owner, number, change).await {
                    Outcome::Stored { place, .. } => assert_eq!(place.seq.value(), newest + 1),
                    // Nothing was taken for long.
                    Outcome::Refused(Refusal::Full) => continue,
                    other => panic!("{other:?}"),
                }
                newest += 1;
                mark(marks, format_args!("+ {number} {newest}"));
            }
            160..199 => {
                taken = rng.random_range(taken..=newest);
                mark(marks, format_args!("? {number} {taken}"));
                let ack = owner.ack(taken, &[]);
                assert!(matches!(press(store, marks, &owner, number, ack).await, Outcome::Withdrawn(_)));
                mark(marks, format_args!("- {number} {taken}"));
            }
            _ => {
                mark(marks, format_args!("x {number} {life}"));
                let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
                assert!(matches!(press(store, marks, &owner, number, close).await, Outcome::Withdrawn(_)));
                mark(marks, format_args!("X {number} {life}"));
                owner.life += 1;
                life += 1;
                (newest, taken) = (0, 0);
                let create = owner.create(MailboxKind::Queue, Charge::Open);
                assert!(matches!(press(store, marks, &owner, number, create).await, Outcome::Done));
                mark(marks, format_args!("o {number} {life}"));
            }
        }
    }
}

/// An envelope that follows from its place.
fn body(number: u8, life: u64, seq: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(u64::from(number) << 48 | life << 32 | seq);
    let mut bytes = vec![0; [200, 1024, 1024, 1024, 4096, 20_000][rng.random_range(0..6)]];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// What the marks tell of one mailbox.
#[derive(Clone, Copy, Default)]
struct Told {
    life: Option<u64>,
    newest: u64,
    /// Was taken.
    taken: u64,
    /// May have been.
    taking: u64,
    /// May have been closed, and the next life begun.
    closing: bool,
    closed: bool,
}

fn told(marks: &str, mailbox: u8) -> Told {
    let mut told = Told::default();
    for line in marks.lines() {
        let mut words = line.split(' ');
        let (Some(kind), Some(number)) = (words.next(), words.next()) else { panic!("{line}") };
        if number.parse() != Ok(mailbox) {
            continue;
        }
        let value = words.next().map_or(0, |word| word.parse().unwrap());
        match kind {
            "o" => told = Told { life: Some(value), ..Told::default() },
            "+" => told.newest = value,
            "?" => told.taking = value,
            "-" => told.taken = value,
            "x" => told.closing = true,
            "X" => told.closed = true,
            "!" | "=" | "a" | "A" | "g" | "G" | "s" | "S" | "t" | "T" => {}
            other => panic!("{other}"),
        }
    }
    told
}

/// Compares a store with the marks of the processes that worked on it.
///
/// # Errors
/// What is missing, or there although it was taken, or not as it was.
pub(super) async fn check_left(
    store: &dyn KeptStore,
    marks: &str,
    mailboxes: impl Iterator<Item = u8>,
) -> Result<(), Violation> {
    for number in mailboxes {
        guarded::check_left(store, marks, number).await?;
        let told = told(marks, number);
        let wrong = |what: &str| Err(Violation(format!("mailbox {number}: {what}")));
        let Some(life) = told.life else { continue };
        let mut owner = Owner::new(number);
        owner.life += life;
        let Some(there) = store.mailbox(owner.id()).await? else {
            if told.closing {
                continue;
            }
            return wrong("it is gone");
        };
        if there.born != owner.born() {
            owner.life += 1;
            if told.closing && there.born == owner.born() {
                continue;
            }
            return wrong("another is there");
        }
        if told.closed {
            return wrong("it is there after it was closed");
        }
        if there.newest.value() < told.newest {
            return wrong(&format!("{} of {} are there", there.newest.value(), told.newest));
        }
        let ask = WindowQuery {
            mailbox: owner.id(),
            born: owner.born(),
            after: Seq::START,
            count: usize::MAX,
            bytes: usize::MAX,
        };
        let window = store.window(ask).await?.ok_or(Violation("a mailbox has windows".into()))?;
        let first = window.items.first().map_or(there.newest.value() + 1, |item| item.place.seq.value());
        if first <= told.taken {
            return wrong("what was taken is there again");
        }
        if first > told.taking.max(told.taken) + 1 {
            return wrong(&format!("it begins at {first}, and was taken to {} at most", told.taking));
        }
        let mut before: Option<RunningHash> = None;
        for (seq, item) in (first..).zip(&window.items) {
            let bytes = body(number, life, seq);
            if item.place.seq.value() != seq || *item.envelope != *bytes {
                return wrong(&format!("envelope {seq} is not what was stored"));
            }
            if before.is_some_and(|hash| hash.next(seq, &EnvelopeId::of(&bytes)) != item.place.hash) {
                return wrong("its chain is broken");
            }
            before = Some(item.place.hash);
        }
        if first + window.items.len() as u64 != there.newest.value() + 1 {
            return wrong("its end is missing");
        }
        // What was sent and not answered is sent again: it has one number, whether it was there or is only now.
        let sent = told.newest + 1;
        for stores in [there.newest.value() < sent, false] {
            let (again, is_new) = place(store, owner.append(body(number, life, sent))).await?;
            if again.seq.value() != sent || is_new != stores {
                return wrong("what was sent and not answered has no number, or two");
            }
        }
        let newest = there.newest.value().max(sent);
        for seq in [1, told.newest].into_iter().filter(|seq| (1..=told.newest).contains(seq)) {
            let (again, is_new) = place(store, owner.append(body(number, life, seq))).await?;
            if again.seq.value() != seq || is_new {
                return wrong("a retry is stored again");
            }
        }
        let (next, _) = place(store, owner.append(body(number, life, newest + 1))).await?;
        if next.seq.value() != newest + 1 {
            return wrong("it does not go on");
        }
    }
    Ok(())
}
