//! The end of a relay.

use std::os::unix::{net::UnixListener, process::ExitStatusExt};

use lapwing_wire::frame::*;
use nix::sys::signal::Signal;

use crate::{
    operator::{connect, relay, said, typed},
    support::{client::stored, envelope},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_asks_stops_the_relay_and_leaves_nothing() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, ticket) = relay(base.path());
    let mut client = connect(&relay, &relay.address).await;
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    stored(&client.append(keys.id(), envelope(1)).await);
    for answer in ["", "no\n", "y\n"] {
        let kept = typed(&dir, &["wipe"], answer);
        assert_eq!(kept.status.code(), Some(1), "{}", said(&kept));
    }
    stored(&client.append(keys.id(), envelope(2)).await);
    let wiped = typed(&dir, &["wipe"], "wipe\n");
    assert!(wiped.status.success(), "{}", said(&wiped));
    assert!(relay.wait().success(), "it stopped in order");
    assert!(!dir.exists());
    assert_eq!(typed(&dir, &["wipe", "--yes"], "").status.code(), Some(5), "there is no relay");
}

#[test]
fn a_wipe_takes_no_folder_for_a_relay_that_happens_to_be_called_like_its_store() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("shop");
    std::fs::create_dir_all(dir.join("store")).unwrap();
    std::fs::write(dir.join("store/mine.txt"), "mine").unwrap();
    assert_eq!(typed(&dir, &["wipe", "--yes"], "").status.code(), Some(5), "there is no relay");
    assert_eq!(std::fs::read(dir.join("store/mine.txt")).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_reaches_a_damaged_relay_and_never_one_that_holds_its_store() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());
    let lock = std::fs::File::open(dir.join("store/lock")).unwrap();
    lock.lock().unwrap();
    let held = typed(&dir, &["wipe", "--yes"], "");
    assert_eq!(held.status.code(), Some(4), "{}", said(&held));
    assert_eq!(std::fs::read(dir.join("relay.key")).unwrap().len(), 32);
    drop(lock);
    std::fs::write(dir.join("relay.toml"), "garbage = ").unwrap();
    std::fs::write(dir.join("store/version"), "garbage").unwrap();
    assert!(typed(&dir, &["wipe", "--yes"], "").status.success());
    assert!(!dir.exists());
}

/// As one whose disk hangs: it takes connections, because the kernel does, and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_ends_a_relay_that_does_not_answer() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGSTOP);
    let begun = tokio::time::Instant::now();
    let wiped = typed(&dir, &["wipe", "--yes"], "");
    assert!(wiped.status.success(), "{}", said(&wiped));
    assert!(begun.elapsed().as_secs() >= 5, "it was asked first");
    assert!(said(&wiped).contains("its process was ended"), "{}", said(&wiped));
    assert!(!dir.exists());
    assert_eq!(relay.wait().signal(), Some(Signal::SIGKILL as i32));
}

/// As one whose stop hangs in the disk: a stop begins with the socket's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_ends_a_relay_that_hangs_and_has_no_socket_any_more() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGSTOP);
    std::fs::remove_file(dir.join("control.sock")).unwrap();
    let wiped = typed(&dir, &["wipe", "--yes"], "");
    assert!(wiped.status.success(), "{}", said(&wiped));
    assert!(said(&wiped).contains("its process was ended"), "{}", said(&wiped));
    assert!(!dir.exists());
    assert_eq!(relay.wait().signal(), Some(Signal::SIGKILL as i32));
}

/// A wipe that is cut off, or still removes files, while something starts the relay again.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_being_wiped_is_not_begun_anew() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.kill();
    // Not to be overwritten, for root neither: the wipe ends there.
    let keys = dir.join("store/store.keys");
    std::fs::remove_file(&keys).unwrap();
    std::fs::create_dir(&keys).unwrap();
    let cut = typed(&dir, &["wipe", "--yes"], "");
    assert_eq!(cut.status.code(), Some(5), "{}", said(&cut));
    let begun = typed(&dir, &["serve"], "");
    assert!(begun.status.code() == Some(5) && said(&begun).contains("there is no relay"), "{}", said(&begun));
    std::fs::remove_dir(&keys).unwrap();
    let again = typed(&dir, &["wipe", "--yes"], "");
    assert!(again.status.success() && !dir.exists(), "{}", said(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_ends_no_process_that_only_listens_or_only_has_the_store() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGSTOP);
    let control = dir.join("control.sock");
    std::fs::remove_file(&control).unwrap();
    // This process listens and never answers; the stopped one has the store.
    let _listener = UnixListener::bind(&control).unwrap();
    let kept = typed(&dir, &["wipe", "--yes"], "");
    assert_eq!(kept.status.code(), Some(4), "{}", said(&kept));
    assert!(said(&kept).contains("nothing was destroyed yet"), "{}", said(&kept));
    assert_eq!(std::fs::read(dir.join("relay.key")).unwrap().len(), 32);
    relay.signal(Signal::SIGCONT);
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success(), "it was left alone");
}
