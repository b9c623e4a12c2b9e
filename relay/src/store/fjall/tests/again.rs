//! A process is killed, the store is opened again, and then the power fails.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::*;
use crate::store::conformance::power::{
    model::{Model, Record, records},
    trace::{HANG, Kind, TRACE, WATCHED},
};

const PLAY: &str = "LAPWING_AGAIN";
const FOLDER: &str = "LAPWING_AGAIN_FOLDER";

fn tell(folder: &Path, what: &str) {
    std::fs::create_dir(folder.join(what)).unwrap();
}

fn await_told(folder: &Path, what: &str) {
    for _ in 0..6000 {
        if folder.join(what).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nobody told {what}");
}

fn one(engine: &Fjall, number: u64) {
    write(engine, std::iter::once(envelope(number)));
}

#[test]
#[ignore = "the process that the test below starts and kills"]
fn again_child() {
    let Ok(play) = std::env::var(PLAY) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let store = folder.join("disk/store");
    let engine = Fjall::open_with(&store, 1 << 20, CACHE).unwrap();
    match play.as_str() {
        "record" | "checkpoint" => {
            one(&engine, 1);
            if play == "checkpoint" {
                engine.db.persist(PersistMode::SyncAll).unwrap();
            }
            tell(&folder, "ready");
            await_told(&folder, "hang");
            // Hangs where it is flushed.
            if play == "record" {
                one(&engine, 2);
            } else {
                let point = engine.books().settled.unwrap();
                engine.log.checkpoint(point).unwrap();
            }
        }
        "again record" => {
            // Whoever asks is told that it is there: nothing is written for a retry.
            assert!(engine.direct().load(Space::Bulk, &envelope(2).0).unwrap().is_some());
            tell(&folder, "shown");
        }
        _ => {
            one(&engine, 2);
            tell(&folder, "shown");
        }
    }
    std::thread::sleep(Duration::from_secs(60));
}

fn start(folder: &Path, play: &str, trace: &str) -> Child {
    let tests = std::env::current_exe().unwrap();
    let shim = tests.parent().and_then(Path::parent).unwrap().join("examples/libpowercut.so");
    assert!(shim.is_file());
    Command::new(&tests)
        .args(["--exact", "store::fjall::tests::again::again_child", "--ignored", "--nocapture"])
        .env(PLAY, play)
        .env(FOLDER, folder)
        .env("LD_PRELOAD", shim)
        .env(WATCHED, folder.join("disk"))
        .env(TRACE, folder.join(trace))
        .env(HANG, folder.join("hang"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// What was shown after the process was killed and the store opened again is there after a power cut.
fn killed_and_cut(act: &str) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(folder.join("disk/store")).unwrap();
    let mut first = start(&folder, act, "trace1");
    await_told(&folder, "ready");
    tell(&folder, "hang");
    std::thread::sleep(Duration::from_millis(500));
    first.kill().unwrap();
    first.wait().unwrap();
    std::fs::remove_dir(folder.join("hang")).unwrap();
    let mut second = start(&folder, &format!("again {act}"), "trace2");
    await_told(&folder, "shown");
    second.kill().unwrap();
    second.wait().unwrap();

    let traces = ["trace1", "trace2"].map(|name| std::fs::read(folder.join(name)).unwrap());
    let mut model = Model::begin(&folder.join("nothing"));
    model.step(Record { kind: Kind::MakeFolder, file: 0, a: 0, b: 0, bytes: b"store" });
    model.step(Record { kind: Kind::Open, file: 1 << 40, a: 2, b: 0, bytes: b"" });
    model.step(Record { kind: Kind::SyncBegin, file: 1 << 40, a: 1 << 40, b: 0, bytes: b"" });
    model.step(Record { kind: Kind::SyncEnd, file: 1 << 40, a: 1 << 40, b: 0, bytes: b"" });
    for (process, trace) in traces.iter().enumerate() {
        let base = (process as u64) << 32;
        for mut record in records(trace) {
            record.file += if record.file == 0 { 0 } else { base };
            if matches!(record.kind, Kind::SyncBegin | Kind::SyncEnd) {
                record.a += base;
            }
            model.step(record);
        }
    }
    model.check_against(&folder.join("disk")).unwrap();
    let mut lost = Vec::new();
    for seed in 0..20 {
        let left = folder.join("left");
        model.cut(seed, &left);
        let found = Fjall::open_with(&left.join("store"), 1 << 20, CACHE).and_then(|engine| {
            [1, 2].map(|number| engine.direct().load(Space::Bulk, &envelope(number).0)).into_iter().collect()
        });
        let expected = [1, 2].map(|number| envelope(number).1).to_vec();
        if found != Ok(expected) {
            lost.push(format!(
                "seed {seed}: {:?}",
                found.map(|all: Vec<Option<Vec<u8>>>| all.iter().map(Option::is_some).collect::<Vec<_>>())
            ));
        }
        std::fs::remove_dir_all(&left).unwrap();
    }
    assert!(lost.is_empty(), "{} of 20: {lost:#?}", lost.len());
}

#[test]
fn a_power_cut_after_a_record_that_was_written_and_not_flushed_when_the_process_was_killed() {
    killed_and_cut("record");
}

#[test]
fn a_power_cut_after_a_checkpoint_that_was_written_and_not_flushed_when_the_process_was_killed() {
    killed_and_cut("checkpoint");
}
