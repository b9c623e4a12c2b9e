//! A real relay on a disk that hangs or cannot read, played by the power-cut model's library.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use lapwing_wire::{
    address::AccessTicket,
    capability::{Right, Subject},
    frame::*,
};

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

/// A relay on a disk that hangs while there is a file `hang` in `home`, and cannot read what the file `blind` names.
fn on_such_a_disk(home: &Path) -> (Process, AccessTicket) {
    run_json(&home.join("relay"), &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start_with(
        &home.join("relay"),
        File::create(home.join("log")).unwrap(),
        &[
            ("LD_PRELOAD", &shim()),
            ("LAPWING_POWERCUT_FOLDER", &home.join("relay/store")),
            ("LAPWING_POWERCUT_TRACE", &home.join("trace")),
            ("LAPWING_POWERCUT_HANG", &home.join("hang")),
            ("LAPWING_POWERCUT_BLIND", &home.join("blind")),
        ],
    );
    let issued = run_json(&home.join("relay"), &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    (relay, ticket)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_of_what_was_begun_by_somebody_who_has_gone_since() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let (relay, ticket) = on_such_a_disk(&home);
    let mut reader = connect(&relay).await;
    let keys = reader.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let subscribe = Read { mailbox: keys.id(), after: Seq::START, count: 1 };
    assert!(matches!(reader.ask(RequestBody::Subscribe(subscribe)).await, ResponseBody::Window(_)));
    let mut writer = connect(&relay).await;
    writer.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;

    std::fs::write(home.join("hang"), []).unwrap();
    let _sent = writer.send(append(keys.id(), envelope(1))).await.unwrap();
    let begun = tokio::time::Instant::now();
    while run_json(&home.join("relay"), &["status"])["running_commit_ms"].is_null() {
        assert!(begun.elapsed() < PATIENCE, "it came to the disk");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    writer.connection.close(0u32.into(), b"");
    drop(writer);
    // Long enough for the relay to see that nobody is there any more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::remove_file(home.join("hang")).unwrap();
    let told = reader.notice().await;
    assert_eq!((told.mailbox, told.newest, told.items.len()), (keys.id(), Seq::new(1), 1));
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_reported_while_it_hangs_and_nothing_undurable_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let place = |name: &str| home.join(name);
    let (relay, ticket) = on_such_a_disk(&home);
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
    for line in log().lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("one form, whoever says it: {line}"));
        assert_eq!(line["type"], "log", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_reported_while_keys_are_flushed_too() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let (relay, ticket) = on_such_a_disk(&home);
    let mut client = connect(&relay).await;
    client.prove_access(ticket.secret()).await;
    let status = || run_json(&home.join("relay"), &["status"]);
    assert!(status()["running_commit_ms"].is_null());

    // The keys of a mailbox are on the disk before anything of it is committed.
    std::fs::write(home.join("hang"), []).unwrap();
    let create = Keys::new().create(MailboxKind::Queue, Some(ticket.secret().public()), &client.binding);
    client.send(RequestBody::Create(create)).await.unwrap();
    let begun = tokio::time::Instant::now();
    let running = loop {
        assert!(begun.elapsed() < PATIENCE, "it is told");
        if let Some(running) = status()["running_commit_ms"].as_u64().filter(|running| *running > 600) {
            break running;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    std::fs::remove_file(home.join("hang")).unwrap();
    assert_eq!(client.receive().await.unwrap().body, ResponseBody::Done);
    let status = status();
    assert!(
        status["slowest_commit_ms"].as_u64().unwrap() >= running && status["slow_commits"] == 1,
        "{status}"
    );
    assert!(status["running_commit_ms"].is_null());
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_stopped_while_its_disk_hangs_answers_all_that_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let (relay, ticket) = on_such_a_disk(&home);
    let mut client = connect(&relay).await;
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    // A relay whose commits take no time does not stage ahead.
    for number in 1..=4 {
        stored(&client.append(keys.id(), envelope(number)).await);
    }
    std::fs::write(home.join("hang"), []).unwrap();
    let first = client.send(append(keys.id(), envelope(5))).await.unwrap();
    let begun = tokio::time::Instant::now();
    while run_json(&home.join("relay"), &["status"])["running_commit_ms"].is_null() {
        assert!(begun.elapsed() < PATIENCE, "it came to the disk");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // More than are worth staging while the disk hangs.
    for number in 6..=40 {
        client.send(append(keys.id(), envelope(number))).await.unwrap();
    }
    // The relay has taken them all when it has answered what was sent after them.
    let last = client
        .send(RequestBody::Read(Read { mailbox: keys.id(), after: Seq::START, count: 0 }))
        .await
        .unwrap();
    let window = client.receive().await.unwrap();
    assert_eq!(window.id, last);
    assert!(matches!(window.body, ResponseBody::Window(window) if window.newest == Seq::new(4)));
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::remove_file(home.join("hang")).unwrap();
    let mut answered = std::collections::BTreeMap::new();
    while answered.len() < 36 {
        let answer = client.receive().await.unwrap();
        answered.insert(answer.id - first + 5, stored(&answer.body).seq.value());
    }
    assert!(answered.iter().all(|(number, seq)| number == seq), "{answered:?}");
    assert!(relay.wait().success());
}

/// Its reader hears `busy`, the operator is told, once, and nobody else waits.
#[tokio::test(flavor = "multi_thread")]
async fn envelopes_that_the_disk_cannot_read_are_told_to_the_operator_once() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let (relay, ticket) = on_such_a_disk(&home);
    let mut client = connect(&relay).await;
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    stored(&client.append(keys.id(), envelope(1)).await);
    let read = || RequestBody::Read(Read { mailbox: keys.id(), after: Seq::START, count: 1 });
    assert!(matches!(client.ask(read()).await, ResponseBody::Window(_)));

    std::fs::write(home.join("blind"), "values/").unwrap();
    // What was answered last may still be in the writer's memory for a moment.
    let begun = tokio::time::Instant::now();
    while client.ask(read()).await != ResponseBody::Refused(Refusal::Busy) {
        assert!(begun.elapsed() < PATIENCE, "it cannot be read");
    }
    for _ in 0..3 {
        assert_eq!(client.ask(read()).await, ResponseBody::Refused(Refusal::Busy));
    }
    stored(&client.append(keys.id(), envelope(2)).await);
    let other = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    stored(&client.append(other.id(), envelope(3)).await);
    std::fs::remove_file(home.join("blind")).unwrap();
    let ResponseBody::Window(window) = client.ask(read()).await else { panic!("the disk reads again") };
    assert_eq!((window.items.len(), window.newest), (1, Seq::new(2)));
    relay.kill();
    let log = std::fs::read_to_string(home.join("log")).unwrap();
    assert_eq!(log.matches("cannot be read").count(), 1, "{log}");
}

/// FRM-05 while more waits than goes into one commit: what one stream sent is numbered in its order.
#[tokio::test(flavor = "multi_thread")]
async fn frm_05_what_streams_send_while_the_disk_hangs_keeps_their_order() {
    const STREAMS: u64 = 16;
    const EACH: u64 = 255;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let (relay, ticket) = on_such_a_disk(&home);
    let mut owner = connect(&relay).await;
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let mut writers = Vec::new();
    for _ in 0..STREAMS {
        let mut writer = connect(&relay).await;
        writer.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
        writers.push(writer);
    }
    std::fs::write(home.join("hang"), []).unwrap();
    let mut first = Vec::new();
    for (stream, writer) in (0..).zip(&mut writers) {
        for number in 1..=EACH {
            let id = writer.send(append(keys.id(), envelope(stream * EACH + number))).await.unwrap();
            first.extend((number == 1).then_some(id));
        }
        // The relay has taken them all when it has answered what was sent after them.
        let last = Read { mailbox: keys.id(), after: Seq::START, count: 0 };
        let last = writer.send(RequestBody::Read(last)).await.unwrap();
        assert_eq!(writer.receive().await.unwrap().id, last);
    }
    std::fs::remove_file(home.join("hang")).unwrap();
    for (writer, first) in writers.iter_mut().zip(first) {
        let mut places = std::collections::BTreeMap::new();
        for _ in 0..EACH {
            let answer = writer.receive().await.unwrap();
            places.insert(answer.id - first, stored(&answer.body).seq.value());
        }
        assert_eq!(places.len(), usize::try_from(EACH).unwrap());
        assert!(places.values().is_sorted(), "{places:?}");
    }
    relay.kill();
}
