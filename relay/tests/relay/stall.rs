//! A real relay on a disk that hangs, played by the power-cut model's library.

use std::{fs::File, path::PathBuf, time::Duration};

use lapwing_wire::{address::AccessTicket, frame::*};

use crate::support::{
    Client, Keys, PATIENCE,
    client::{append, stored},
    envelope,
    process::{Process, run_json},
};

/// Cargo builds it as an example beside the tests.
fn shim() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let shim = tests.parent().and_then(std::path::Path::parent).unwrap().join("examples/libpowercut.so");
    assert!(shim.is_file(), "run all targets of the package: `cargo nextest run -p lapwing-relay`");
    shim
}

async fn connect(relay: &Process) -> Client {
    Client::connect(relay.socket(), relay.address.key()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_reported_while_it_hangs_and_nothing_undurable_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let place = |name: &str| home.join(name);
    run_json(&place("relay"), &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start_with(
        &place("relay"),
        File::create(place("log")).unwrap(),
        &[
            ("LD_PRELOAD", &shim()),
            ("LAPWING_POWERCUT_FOLDER", &place("relay/store")),
            ("LAPWING_POWERCUT_TRACE", &place("trace")),
            ("LAPWING_POWERCUT_HANG", &place("hang")),
        ],
    );
    let issued = run_json(&place("relay"), &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let keys = Keys::of_byte(1);
    let mut writer = connect(&relay).await;
    writer.prove_access(ticket.secret()).await;
    let create = keys.create(MailboxKind::Queue, Some(ticket.secret().public()), &writer.binding);
    assert_eq!(writer.ask(RequestBody::Create(create)).await, ResponseBody::Done);
    writer.prove_all(&keys).await;
    stored(&writer.ask(append(keys.id(), envelope(1))).await);

    std::fs::write(place("hang"), []).unwrap();
    let sent = writer.send(append(keys.id(), envelope(2))).await.unwrap();
    let begun = tokio::time::Instant::now();
    let status = loop {
        let status = run_json(&place("relay"), &["status"]);
        if status["running_commit_ms"].as_u64().is_some_and(|running| running > 3000) {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(status["is_full"], false);
    let mut reader = connect(&relay).await;
    reader.prove_all(&keys).await;
    let window = reader.window(keys.id(), 0).await;
    assert_eq!(window.newest, Seq::new(1), "what is not on the disk is shown to nobody");
    let log = || std::fs::read_to_string(place("log")).unwrap();
    while !log().contains("waiting for the disk") {
        assert!(begun.elapsed() < PATIENCE, "{}", log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    std::fs::remove_file(place("hang")).unwrap();
    let answer = writer.receive().await.unwrap();
    assert_eq!((answer.id, stored(&answer.body).seq), (sent, Seq::new(2)));
    let status = run_json(&place("relay"), &["status"]);
    assert!(status["slowest_commit_ms"].as_u64().unwrap() > 3000 && status["slow_commits"] == 1, "{status}");
    while !log().contains("the disk answers again") {
        assert!(begun.elapsed() < PATIENCE, "{}", log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    relay.kill();
}
