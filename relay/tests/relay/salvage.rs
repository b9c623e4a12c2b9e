//! A relay whose disk has spoilt something is backed up, and goes on elsewhere with the rest.

use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path};

use lapwing_wire::{
    address::AccessTicket,
    capability::{Right, Subject},
    frame::*,
};
use nix::sys::signal::Signal;

use crate::{
    restart::connect,
    support::{
        Keys,
        client::stored,
        envelope,
        process::{Process, run, run_json},
    },
};

const MAILBOXES: u64 = 400;
/// Whose keys lie beside each other.
const LOST: u64 = 56;

/// Spoils both copies of the keys of some mailboxes. Of a spoilt index: `a_damaged_store_is_read_for_a_backup_...`.
fn spoil(store: &Path) {
    let keys = OpenOptions::new().write(true).open(store.join("store.keys")).unwrap();
    for copy in [0, 4096] {
        keys.write_all_at(&[0x5a; 8], 3 * 8192 + copy + 1000).unwrap();
    }
}

/// Mailboxes with an envelope each.
async fn filled(relay: &Process, ticket: &AccessTicket) -> Vec<Keys> {
    let (mut all, mut client) = (Vec::new(), connect(relay).await);
    for number in 0..MAILBOXES {
        // A connection holds so many proofs and no more.
        if number % 500 == 499 {
            client = connect(relay).await;
        }
        let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
        stored(&client.append(keys.id(), envelope(number)).await);
        all.push(keys);
    }
    all
}

/// How many of the mailboxes show their envelope and take another.
async fn alive(relay: &Process, all: &[Keys]) -> u64 {
    let (mut alive, mut client) = (0, connect(relay).await);
    for (number, keys) in (0..).zip(all) {
        if number % 500 == 499 {
            client = connect(relay).await;
        }
        client.prove(Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
        client.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
        let ResponseBody::Window(window) = client.read(keys.id(), 0, 8).await else { continue };
        let shows = window.items.first().is_some_and(|item| item.envelope.as_slice() == envelope(number));
        let takes = matches!(client.append(keys.id(), envelope(1 << 32)).await, ResponseBody::Stored(_));
        alive += u64::from(shows && takes);
    }
    alive
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_on_a_disk_that_fails_is_backed_up_and_goes_on_elsewhere_with_the_rest() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let issued = run_json(&dir, &["access", "issue", "--mailboxes", "5000"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let all = filled(&relay, &ticket).await;
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());
    let sound = base.path().join("sound");
    run_json(&dir, &["backup", sound.to_str().unwrap()]);
    spoil(&dir.join("store"));
    let relay = Process::start(&dir);
    // Of a relay that runs, and of one that does not.
    let mut relay = Some(relay);
    for name in ["first", "second"] {
        let file = base.path().join(name);
        let output = run(&dir, &["backup", file.to_str().unwrap(), "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(text.contains("has not everything") && text.contains("the disk fails"), "{text}");
        let made: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(made["lost"], LOST, "{made}");
        if let Some(relay) = relay.take() {
            relay.kill();
        }
        let key = base.path().join(format!("{name}.key"));
        write_private(&key, made["recovery_key"].as_str().unwrap());
        let elsewhere = base.path().join(format!("{name}.relay"));
        run_json(&elsewhere, &["restore", file.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
        let restored = Process::start(&elsewhere);
        let alive = alive(&restored, &all).await;
        assert_eq!(alive, MAILBOXES - LOST, "{name}");
        // What was lost is made anew, and nobody else's keys are taken for it.
        let new = filled(&restored, &ticket).await;
        assert_eq!(self::alive(&restored, &new).await, MAILBOXES);
        restored.kill();
    }
}

fn write_private(path: &Path, text: &str) {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
