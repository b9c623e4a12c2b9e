//! The end of a relay.

use std::{
    os::unix::{net::UnixListener, process::ExitStatusExt},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use lapwing_wire::frame::*;
use nix::sys::signal::Signal;

use crate::{
    operator::{connect, relay, said, typed},
    support::{
        client::stored,
        envelope,
        process::{Process, run_json},
    },
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lapwing-relay");
/// How often it is looked.
const MOMENT: Duration = Duration::from_millis(20);
/// For a command that refuses at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the seven seconds for which a wipe waits and the five more in which it ends processes.
const LATE: Duration = Duration::from_millis(8500);

/// Not left behind when a test fails.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

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
async fn a_wipe_ends_a_relay_that_hangs_and_has_no_socket_any_more_and_no_other() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let elsewhere = base.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (other, _) = relay(&elsewhere);
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    // Whatever the program is called.
    let program = base.path().join("postbox");
    std::os::unix::fs::symlink(PROGRAM, &program).unwrap();
    let relay = Process::start_program(&program, &dir);
    relay.signal(Signal::SIGSTOP);
    std::fs::remove_file(dir.join("control.sock")).unwrap();
    let wiped = typed(&dir, &["wipe", "--yes"], "");
    assert!(wiped.status.success(), "{}", said(&wiped));
    assert!(said(&wiped).contains("its process was ended"), "{}", said(&wiped));
    assert!(!dir.exists());
    assert_eq!(relay.wait().signal(), Some(Signal::SIGKILL as i32));
    assert_eq!(run_json(&elsewhere.join("relay"), &["status"])["connections"], 0, "it runs");
    other.signal(Signal::SIGTERM);
    assert!(other.wait().success());
}

/// Faster than any supervisor, and for longer than a wipe takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_started_again_at_once_does_not_outlive_a_wipe() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGSTOP);
    std::fs::remove_file(dir.join("control.sock")).unwrap();
    let begun = std::sync::atomic::AtomicUsize::new(0);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let wiped = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    begun.fetch_add(1, Ordering::AcqRel);
                    let mut served = Command::new(PROGRAM);
                    served.args(["serve", "--dir"]).arg(&dir).stdout(Stdio::null()).stderr(Stdio::null());
                    let mut served = Waiting(served.spawn().unwrap());
                    while !is_done.load(Ordering::Acquire) && served.0.try_wait().unwrap().is_none() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let wiped = typed(&dir, &["wipe", "--yes"], "");
        is_done.store(true, Ordering::Release);
        wiped
    });
    assert!(wiped.status.success(), "{}", said(&wiped));
    assert!(begun.load(Ordering::Acquire) > 2 && !dir.exists());
    assert_eq!(relay.wait().signal(), Some(Signal::SIGKILL as i32));
}

/// As by a supervisor, when the wipe has begun to overwrite.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_started_during_a_wipe_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.kill();
    let (key, config) = (dir.join("relay.key"), dir.join("relay.toml"));
    let (old, text) = (std::fs::read(&key).unwrap(), std::fs::read(&config).unwrap());
    // The wipe waits here until somebody reads.
    let pipe = dir.join("store/anchor.keys");
    std::fs::remove_file(&pipe).ok();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let wipe = Command::new(PROGRAM)
        .args(["wipe", "--yes", "--dir"])
        .arg(&dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut wipe = Waiting(wipe);
    while std::fs::read(&key).unwrap() == old {
        assert_eq!(wipe.0.try_wait().unwrap(), None);
        tokio::time::sleep(MOMENT).await;
    }
    assert!(!config.exists(), "gone before the key");
    // Even so.
    std::fs::write(&config, text).unwrap();
    let mut begun = Command::new(PROGRAM)
        .args(["serve", "--dir"])
        .arg(&dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    while begun.try_wait().unwrap().is_none() && tokio::time::Instant::now() < end {
        tokio::time::sleep(MOMENT).await;
    }
    begun.kill().ok();
    let refused = begun.wait_with_output().unwrap();
    assert_eq!(wipe.0.try_wait().unwrap(), None, "it waits");
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    assert!(said(&refused).contains("open in another process"), "{}", said(&refused));
    drop(wipe);
    std::fs::remove_file(&pipe).unwrap();
    let again = typed(&dir, &["wipe", "--yes"], "");
    assert!(again.status.success() && !dir.exists(), "{}", said(&again));
}

/// A program before `relay.lock`, which nobody can name, and which ends when it was waited for in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_goes_on_when_who_has_the_store_ends_late() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.kill();
    let lock = std::fs::File::open(dir.join("store/lock")).unwrap();
    lock.lock().unwrap();
    let ends = std::thread::spawn(move || {
        std::thread::sleep(LATE);
        drop(lock);
    });
    let wiped = typed(&dir, &["wipe", "--yes"], "");
    assert!(wiped.status.success() && !dir.exists(), "{}", said(&wiped));
    ends.join().unwrap();
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
    for command in ["serve", "status"] {
        let begun = typed(&dir, &[command], "");
        let is_refused = begun.status.code() == Some(5)
            && said(&begun).contains("relay.toml is missing in")
            && said(&begun).contains("wipe again");
        assert!(is_refused, "{command}: {}", said(&begun));
    }
    let made = typed(&dir, &["init", "--host", "127.0.0.1"], "");
    assert!(made.status.code() == Some(5) && said(&made).contains("is missing"), "{}", said(&made));
    std::fs::remove_dir(&keys).unwrap();
    let again = typed(&dir, &["wipe", "--yes"], "");
    assert!(again.status.success() && !dir.exists(), "{}", said(&again));
}

/// This process listens and never answers; the stopped one has the folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_ends_who_has_the_folder_and_not_who_only_listens() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGSTOP);
    let control = dir.join("control.sock");
    std::fs::remove_file(&control).unwrap();
    let _listener = UnixListener::bind(&control).unwrap();
    let wiped = typed(&dir, &["wipe", "--yes"], "");
    assert!(wiped.status.success() && !dir.exists(), "{}", said(&wiped));
    assert_eq!(relay.wait().signal(), Some(Signal::SIGKILL as i32));
}

/// As a wipe does. This process must have no other handle of the file.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_folder_keeps_every_command_from_it() {
    use nix::{fcntl, libc};
    let base = tempfile::tempdir().unwrap();
    let (dir, empty) = (base.path().join("relay"), base.path().join("empty"));
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let backup = base.path().join("backup");
    let made = run_json(&dir, &["backup", backup.to_str().unwrap()]);
    let key = std::fs::read(dir.join("relay.key")).unwrap();
    std::fs::create_dir(&empty).unwrap();
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let _held = [&dir, &empty].map(|dir| {
        let mut options = std::fs::OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let file = options.open(dir.join("relay.lock")).unwrap();
        fcntl::fcntl(&file, fcntl::FcntlArg::F_SETLK(&whole)).unwrap();
        file
    });
    let (other, file) = (base.path().join("other"), backup.to_str().unwrap());
    let commands: [(&std::path::Path, &[&str]); 6] = [
        (&dir, &["serve"]),
        (&dir, &["status"]),
        (&dir, &["access", "list"]),
        (&dir, &["rotate-key"]),
        (&dir, &["backup", other.to_str().unwrap()]),
        (&empty, &["restore", file]),
    ];
    for (dir, command) in commands {
        let refused = typed(dir, command, made["recovery_key"].as_str().unwrap());
        assert_eq!(refused.status.code(), Some(4), "{command:?}: {}", said(&refused));
        assert!(said(&refused).contains("open in another process"), "{command:?}: {}", said(&refused));
    }
    assert_eq!(std::fs::read(dir.join("relay.key")).unwrap(), key);
    assert!(!empty.join("relay.key").exists() && !empty.join("store").exists() && !other.exists());
}

/// From another process space the kernel has no number for the one that has the folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_in_another_container_destroys_nothing_and_says_so() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    let elsewhere = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork"]).args(arguments);
        command.stdin(Stdio::null()).output()
    };
    // Not every system lets a test make one.
    if !elsewhere(&["true"]).is_ok_and(|made| made.status.success()) {
        return;
    }
    relay.signal(Signal::SIGSTOP);
    std::fs::remove_file(dir.join("control.sock")).unwrap();
    let kept = elsewhere(&[PROGRAM, "wipe", "--yes", "--dir", dir.to_str().unwrap()]).unwrap();
    assert_eq!(kept.status.code(), Some(4), "{}", said(&kept));
    assert!(said(&kept).contains("cannot be seen from here"), "{}", said(&kept));
    assert_eq!(std::fs::read(dir.join("relay.key")).unwrap().len(), 32);
    assert!(dir.join("relay.toml").exists());
    relay.signal(Signal::SIGCONT);
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success(), "it was left alone");
}
