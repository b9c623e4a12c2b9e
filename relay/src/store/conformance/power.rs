//! Power cuts: a process under load behind the shim, and what is left of it at many moments of its trace.
//!
//! One process gives many cuts: its trace is cut at records chosen by a seed, the model says what would be on the disk,
//! and a store is opened on that. `LAPWING_POWER_ROUNDS=200` makes a long run of it.

#[path = "../../../powercut/model.rs"]
pub(in crate::store) mod model;
#[path = "../../../powercut/trace.rs"]
pub(in crate::store) mod trace;

use std::path::{Path, PathBuf};

use self::{
    model::{Model, Record, records},
    trace::{FULL, HANG, HEAD, Kind, MADE, TRACE, WATCHED},
};
use super::{
    storm::{Kept, Storm, TASKS, check_left, overlapped, whole_lines},
    *,
};

/// Processes in continuous integration, and cuts of each.
const ROUNDS: u64 = 2;
const CUTS: usize = 6;

fn rounds() -> u64 {
    std::env::var("LAPWING_POWER_ROUNDS").ok().map_or(ROUNDS, |text| text.parse().unwrap())
}

/// The shim, which cargo builds as an example beside the tests.
pub(super) fn shim() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let shim = tests.parent().and_then(Path::parent).unwrap().join("examples/libpowercut.so");
    assert!(shim.is_file(), "run all targets of the package: `cargo nextest run -p lapwing-relay power`");
    shim
}

/// A folder that is watched, and the trace beside it.
pub(super) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        Self { dir }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// Lets the next flush hang until nothing moves: a process that is killed between a write and its record would look as
    /// if it had written past the shim.
    #[expect(clippy::disallowed_methods, reason = "tells the shim that the disk hangs")]
    fn settle(&self, storm: &Storm) {
        std::fs::write(self.path("hang"), []).unwrap();
        let (mut before, mut still) = (0, 0);
        while still < 10 {
            std::thread::sleep(Duration::from_millis(20));
            let now = storm.marks().len();
            still = if now == before { still + 1 } else { 0 };
            before = now;
        }
    }

    fn storm(&self, kept: Kept) -> Storm {
        let (shim, disk, trace) = (shim(), self.path("disk"), self.path("trace"));
        let (full, hang) = (self.path("full"), self.path("hang"));
        let with: [(&str, &Path); 5] =
            [("LD_PRELOAD", &shim), (WATCHED, &disk), (TRACE, &trace), (FULL, &full), (HANG, &hang)];
        Storm::start(kept, &disk, 1, &with)
    }
}

/// Cuts the power in the middle of the work, `rounds` times `CUTS`; what was lost.
async fn cut_again_and_again(kept: Kept, rounds: u64) -> Vec<String> {
    let mut lost = Vec::new();
    let (mut acknowledged, mut unlocked, mut told) = (0, 0, String::new());
    for round in 0..rounds {
        let bench = Bench::new();
        let mut storm = bench.storm(kept);
        storm.wait("some hundred changes", |marks| marks.lines().count() > 700);
        // The control never asks for a flush that could hang; what it writes is seen by the same calls.
        if kept != Kept::PlainSled {
            bench.settle(&storm);
        }
        told.push_str(&storm.kill());
        let trace = std::fs::read(bench.path("trace")).unwrap();
        let records = records(&trace);
        // A call past the C library would make every other line of this test worthless.
        let mut whole = Model::begin(&bench.dir.path().join("nothing"));
        records.iter().for_each(|record| whole.step(*record));
        if kept != Kept::PlainSled {
            whole.check_against(&bench.path("disk")).unwrap();
        }

        let mut rng = StdRng::seed_from_u64(round);
        let mut cuts: Vec<usize> = (1..CUTS).map(|_| rng.random_range(1..=records.len())).collect();
        cuts.push(records.len());
        cuts.sort_unstable();
        let mut model = Model::begin(&bench.dir.path().join("nothing"));
        let mut at = 0;
        for cut in cuts {
            records[at..cut].iter().for_each(|record| model.step(*record));
            at = cut;
            let left = bench.path("left");
            model.cut(rng.next_u64(), &left);
            let marks = whole_lines(&model.marks);
            acknowledged += marks.lines().filter(|line| line.starts_with('+')).count();
            unlocked += marks.lines().filter(|line| line.starts_with('S')).count();
            let found = match kept {
                // What is left may be beyond what it opens: then it panics, which is a loss as well.
                Kept::PlainSled => {
                    let (left, marks) = (left.clone(), marks.clone());
                    let looked = tokio::spawn(async move { look(kept, &left, &marks).await }).await;
                    looked.unwrap_or_else(|panic| Err(Violation(panic.to_string())))
                }
                Kept::Fjall | Kept::Sled => look(kept, &left, &marks).await,
            };
            lost.extend(found.err().map(|what| format!("round {round}, record {cut}: {what}")));
            std::fs::remove_dir_all(&left).unwrap();
        }
    }
    println!(
        "{kept:?}: {rounds} processes, {acknowledged} acknowledged appends and {unlocked} changes of an outer key looked for, \
         {} cuts with loss",
        lost.len()
    );
    assert!(overlapped(kept, &told), "two groups were under way");
    assert!(unlocked > 0, "the anchor was made, and used, before the power failed");
    lost
}

async fn look(kept: Kept, left: &Path, marks: &str) -> Result<(), Violation> {
    let store = kept.open(left)?;
    let found = check_left(&*store, marks, 1..=TASKS).await;
    store.close().await;
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn fjall_keeps_what_it_acknowledged_through_power_cuts() {
    let lost = cut_again_and_again(Kept::Fjall, rounds()).await;
    assert!(lost.is_empty(), "{lost:#?}");
}

/// Nobody was answered yet, so nothing can be lost; but whoever starts it again must find a store that begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_being_made_when_the_power_failed_is_made_again() {
    let bench = Bench::new();
    let mut storm = bench.storm(Kept::Fjall);
    storm.wait("the first changes", |marks| marks.lines().count() > 3);
    bench.settle(&storm);
    storm.kill();
    let trace = std::fs::read(bench.path("trace")).unwrap();
    let records = records(&trace);
    let mut model = Model::begin(&bench.dir.path().join("nothing"));
    let mut failed = Vec::new();
    for (cut, record) in (1..).zip(&records) {
        model.step(*record);
        if cut > 60 {
            break;
        }
        for seed in [2, 3, 7] {
            let left = bench.path("left");
            model.cut(seed, &left);
            let found = look(Kept::Fjall, &left, &whole_lines(&model.marks)).await;
            failed.extend(found.err().map(|what| format!("record {cut}, seed {seed}: {what}")));
            std::fs::remove_dir_all(&left).unwrap();
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_with_our_flush_keeps_what_it_acknowledged_through_power_cuts() {
    let lost = cut_again_and_again(Kept::Sled, rounds()).await;
    assert!(lost.is_empty(), "{lost:#?}");
}

/// The control: without it, nobody could tell a store that keeps everything from a model that takes nothing away.
#[tokio::test(flavor = "multi_thread")]
async fn plain_sled_loses_what_it_acknowledged_in_power_cuts() {
    let lost = cut_again_and_again(Kept::PlainSled, ROUNDS).await;
    assert!(!lost.is_empty(), "the model takes nothing away");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "tells the shim that the disk is full")]
async fn a_disk_that_is_full_in_the_power_model_refuses_keeps_and_recovers_by_itself() {
    for kept in [Kept::Fjall, Kept::Sled] {
        let bench = Bench::new();
        let mut storm = bench.storm(kept);
        let stored = |marks: &str, number: u8| {
            marks.lines().filter(|line| line.starts_with(&format!("+ {number} "))).count()
        };
        storm.wait("appends", |marks| (1..=TASKS).all(|number| stored(marks, number) > 20));
        std::fs::write(bench.path("full"), []).unwrap();
        let is_refused = |marks: &str, number: u8| marks.lines().any(|line| line == format!("! {number}"));
        storm.wait("refusals", |marks| (1..=TASKS).all(|number| is_refused(marks, number)));
        // Sled's reads finish what a write left half done, which a full disk may refuse.
        if kept != Kept::Sled {
            storm.wait("reads", |marks| marks.lines().any(|line| line.starts_with("= ")));
        }
        let before: Vec<usize> = (1..=TASKS).map(|number| stored(&storm.marks(), number)).collect();
        std::fs::remove_file(bench.path("full")).unwrap();
        storm.wait("appends again", |marks| {
            (1..=TASKS).zip(&before).all(|(number, before)| stored(marks, number) > before + 5)
        });
        let marks = storm.kill();
        assert!(overlapped(kept, &marks), "{kept:?}: two groups were under way");
        look(kept, &bench.path("disk"), &marks).await.unwrap_or_else(|what| panic!("{kept:?}: {what}"));
    }
}

/// Records as the shim would write them.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn add(mut self, kind: Kind, file: u64, a: u64, b: u64, bytes: &[u8]) -> Self {
        self.0.push(kind as u8);
        for number in [file, a, b] {
            self.0.extend_from_slice(&number.to_le_bytes());
        }
        self.0.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        self.0.extend_from_slice(bytes);
        assert!(self.0.len() >= HEAD);
        self
    }

    fn flush(self, file: u64, number: u64) -> Self {
        self.add(Kind::SyncBegin, file, number, 0, &[]).add(Kind::SyncEnd, file, number, 0, &[])
    }

    /// What a file holds after cuts at the end, over many seeds; `None` where it is not there.
    fn outcomes(&self, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Record<'_>> = records(&self.0);
        (0..200)
            .map(|seed| {
                let mut model = Model::begin(&dir.path().join("nothing"));
                all.iter().for_each(|record| model.step(*record));
                let left = dir.path().join("left");
                model.cut(seed, &left);
                let found = std::fs::read(left.join(name)).ok();
                std::fs::remove_dir_all(&left).unwrap();
                found
            })
            .collect()
    }
}

/// Folder number 9 is the watched folder itself.
fn made(name: &[u8]) -> Script {
    Script::default().add(Kind::Open, 1, MADE, 0, name).add(Kind::Open, 9, 2, 0, b"")
}

#[test]
fn the_power_model_keeps_what_was_flushed_and_nothing_else_for_certain() {
    let old = [1; 600];
    let whole = made(b"a").add(Kind::Write, 1, 0, 0, &old).flush(1, 1).flush(9, 2);
    assert_eq!(whole.outcomes("a"), BTreeSet::from([Some(old.to_vec())]));

    let nameless = made(b"a").add(Kind::Write, 1, 0, 0, &old).flush(1, 1);
    let outcomes = nameless.outcomes("a");
    assert!(outcomes.contains(&None), "a name without a flush of its folder may be missing");
    assert!(outcomes.contains(&Some(old.to_vec())));

    let unflushed = whole.add(Kind::Write, 1, 0, 0, &[2; 1024]);
    let outcomes: Vec<Vec<u8>> = unflushed.outcomes("a").into_iter().map(Option::unwrap).collect();
    assert!(
        outcomes.contains(&old.to_vec()) && outcomes.contains(&vec![2; 1024]),
        "all or nothing may be left"
    );
    let halves = |bytes: &[u8]| bytes.len() == 1024 && bytes[..512] == [1; 512] && bytes[512..] == [2; 512];
    assert!(outcomes.iter().any(|bytes| halves(bytes)), "sectors are lost one by one");
    let is_torn = |bytes: &[u8]| {
        let sector = &bytes[..512];
        sector.contains(&1) && sector.contains(&2)
    };
    assert!(outcomes.iter().any(|bytes| is_torn(bytes)), "a sector may be torn");
}

#[test]
fn the_power_model_undoes_names_until_their_folder_is_flushed() {
    let replaced = || {
        made(b"a")
            .add(Kind::Write, 1, 0, 0, b"old")
            .flush(1, 1)
            .flush(9, 2)
            .add(Kind::Open, 2, MADE, 0, b"b")
            .add(Kind::Write, 2, 0, 0, b"new")
            .flush(2, 3)
            .add(Kind::Rename, 0, 0, 0, b"b\0a")
    };
    let both = BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]);
    assert_eq!(replaced().outcomes("a"), both);
    assert_eq!(replaced().flush(9, 4).outcomes("a"), BTreeSet::from([Some(b"new".to_vec())]));
    let removed = replaced().flush(9, 4).add(Kind::Unlink, 0, 0, 0, b"a");
    assert_eq!(removed.outcomes("a"), BTreeSet::from([None, Some(b"new".to_vec())]));
    assert_eq!(removed.flush(9, 5).outcomes("a"), BTreeSet::from([None]));
}

#[test]
fn the_power_model_refuses_a_flush_that_did_not_end() {
    let begun = made(b"a").flush(9, 1).add(Kind::Write, 1, 0, 0, b"x").add(Kind::SyncBegin, 1, 2, 0, &[]);
    assert!(begun.outcomes("a").contains(&Some(Vec::new())), "a flush under way has kept nothing");
    let late = begun.add(Kind::Write, 1, 1, 0, b"y").add(Kind::SyncEnd, 1, 2, 0, &[]);
    let outcomes = late.outcomes("a");
    assert!(outcomes.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| bytes.starts_with(b"x"))));
    assert!(outcomes.contains(&Some(b"x".to_vec())), "a flush covers what came before it");
}
