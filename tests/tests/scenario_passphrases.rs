//! Several passphrases at the real program: what each opens, what is told, and that a process of an older unlock is
//! left behind by the next. And what the process does for its memory.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{fs, os::unix::fs::MetadataExt, process::Command, time::Duration};

use lapwing_tests::scenario::{
    Folder, Outcome, Pair, Person, Running, programs,
    wait::{PATIENCE, until},
};
use lapwing_vault::{Container, Cost, FileBackend, Passphrase, Session};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

const SECOND: &str = "a kettle whistles over the meadow";
const THIRD: &str = "seven quiet penguins ride north";

fn opened(person: &Person) -> Vec<Value> {
    person.runs(&["--offline", "passphrase", "list"]).done().one("passphrases")["passphrases"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn passphrases_are_added_listed_and_removed_and_only_those_that_differ_enough() {
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let _ = ana.init().done();
    let _ = ana.runs(&["--offline", "compartment", "create", "work"]).done();
    let alike = format!("{}s", ana.passphrase);
    let part = ["--offline", "passphrase", "add", "--name", "part", "--show", "work"];
    assert_eq!(ana.sets(&alike, &part).failed(5), "alike");
    let _ = ana.sets(SECOND, &part).done();
    let _ = ana.sets(THIRD, &["--offline", "passphrase", "add"]).done();
    // Asked of the one for everything that was added last.
    let all = opened(&ana.typing(THIRD));
    let names: Vec<_> = all.iter().map(|one| (one["name"].clone(), one["opens"].clone())).collect();
    let both = json!(["main", "work"]);
    assert_eq!(
        names,
        [(Value::Null, both.clone()), (json!("first"), both.clone()), (json!("part"), json!(["work"]))]
    );
    assert_eq!(opened(&ana.typing(SECOND)).len(), 1, "it knows of no other");
    let _ = ana.typing(THIRD).runs(&["--offline", "passphrase", "remove", "part"]).done();
    assert_eq!(ana.typing(SECOND).runs(&["--offline", "status"]).failed(3), "not_unlocked");
    assert_eq!(ana.runs(&["--offline", "passphrase", "remove", "part"]).failed(1), "unknown_passphrase");
    let status = ana.runs(&["--offline", "status"]).done().one("status");
    assert_eq!(status["compartments"].as_array().unwrap().len(), 2);
}

/// The program says word for word the same in a vault with one passphrase and in a cover.
#[test]
fn the_programs_words_in_a_cover_are_those_of_an_ordinary_vault() {
    let folder = Folder::new();
    let plain = Person::named(&folder, "ana");
    let owner = Person { vault: folder.join("other"), passphrase: plain.passphrase.clone() };
    let _ = (plain.init().done(), owner.init().done());
    let _ = owner.runs(&["--offline", "compartment", "rename", "main", "private"]).done();
    let _ = owner.runs(&["--offline", "compartment", "create", "main"]).done();
    let words = [
        "--offline",
        "sos",
        "add",
        "--name",
        "x",
        "--show",
        "main",
        "--do",
        "destroy",
        "--no-alert",
        "--yes",
    ];
    let _ = owner.sets(SECOND, &words).done();
    let plain_again = plain.sets(THIRD, &["--offline", "passphrase", "change"]);
    let plain = plain.typing(THIRD);
    let cover = owner.typing(SECOND);
    let changed = cover.sets(THIRD, &["--offline", "passphrase", "change"]);
    let cover = owner.typing(THIRD);
    let seen = |outcome: Outcome| (outcome.code, outcome.stdout, outcome.stderr);
    assert_eq!(seen(plain_again), seen(changed));
    for words in [["--offline", "status"], ["passphrase", "list"], ["compartment", "list"]] {
        assert_eq!(seen(plain.reads(&words)), seen(cover.reads(&words)), "{words:?}");
    }
    let wrong = plain.typing("not the passphrase of anybody");
    assert_eq!(
        seen(wrong.reads(&["status"])),
        seen(owner.reads(&["status"])),
        "the real one is a wrong one now"
    );
}

fn status_of(process: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[test]
fn an_older_process_keeps_its_memory_to_itself_and_ends_at_the_next_unlock_with_any_passphrase() {
    let Pair { relay: _relay, ana, bo, folder } = Pair::meet();
    let _ = bo.runs(&["compartment", "create", "work"]).done();
    let _ = bo.sets(SECOND, &["passphrase", "add", "--show", "work"]).done();
    let _ = ana.runs(&["send", "bo", "the first"]).done();

    let mut following = bo.starts(&["read", "ana", "--follow"]);
    let _ = following.line(PATIENCE, |line| line.contains("the first"));
    let id = following.id();
    // What Argon2id took is given back before what is left is locked: it would stay for ever otherwise.
    assert!(status_of(id, "VmHWM:") > 256 << 10, "the derivation was the real one");
    assert!(status_of(id, "VmRSS:") < 64 << 10, "{} KiB stay", status_of(id, "VmRSS:"));
    // Where the limit is too low for all of it, the keys' own pages are locked at least.
    assert!(status_of(id, "VmLck:") > 0);
    match memory_of(id) {
        Some(memory) => {
            let holds = |text: &str| memchr::memmem::find(&memory, text.as_bytes()).is_some();
            assert!(holds("lapwing"), "its memory was read");
            assert!(!holds(&bo.passphrase), "the passphrase is in memory after the unlock");
        }
        None => assert_ne!(fs::metadata(&ana.vault).unwrap().uid(), 0, "the superuser reads everything"),
    }

    let list = bo.typing(SECOND).runs(&["compartment", "list"]).done();
    assert_eq!(list.one("compartments")["compartments"].as_array().unwrap().len(), 1);
    let ended = following.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    drop(folder);
}

/// The memory of a process that may be written to; `None` where the system refuses.
fn memory_of(process: u32) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut part = vec![0; usize::try_from(to - from).ok()?];
        // Guard pages cannot be read, not even by the superuser.
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.extend(part);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Killed in a way that dumps core, it dumps none, whatever limit the shell has set. While it runs it belongs to nobody
/// but the superuser, though an ordinary user started it: that is how the system shows that it may not be traced.
#[test]
fn a_crash_leaves_no_core_file() {
    const NOBODY: u32 = 65534;
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let script = "ulimit -c unlimited; cd \"$1\"; shift; exec \"$@\"";
    let mut command = if fs::metadata(folder.path()).unwrap().uid() == 0 {
        // What the superuser starts tells nothing.
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", script, "sh"]).arg(folder.path()).arg(programs::lapwing());
    command.arg("--vault").arg(&ana.vault).args(["init", "--size", "512MiB", "--new-passphrase-fd", "0"]);
    let input = format!("{}\n", ana.passphrase).into_bytes();
    let mut running = Running::spawn(&mut command, "init".to_owned(), input);
    // It has the passphrase, and derives from it.
    assert!(until(PATIENCE, || resident(running.id()).is_some_and(|bytes| bytes > 64 << 20)));
    assert!(running.is_running());
    assert_ne!(user_of(running.id()).unwrap(), 0);
    assert_eq!(fs::metadata(format!("/proc/{}/mem", running.id())).unwrap().uid(), 0);
    running.signal("ABRT");
    let ended = running.end();
    assert_eq!(ended.code, None, "a signal ended it: {ended:?}");
    assert!(!folder.names().iter().any(|name| name.contains("core")), "{:?}", folder.names());
    assert!(!ana.vault.exists(), "what it had begun to make is gone with it");
}

/// Memory of a process, in bytes. Everybody may read that.
fn resident(process: u32) -> Option<u64> {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    Some(pages.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

/// Whose a process is. Everybody may read that too.
fn user_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

fn hold(person: &Person, passphrase: &str) -> (Session, ChaCha20Rng) {
    let mut rng = ChaCha20Rng::seed_from_u64(28);
    let backend = FileBackend::open(&person.vault).unwrap();
    let passphrase = Passphrase::new(passphrase);
    let session = Container::open(backend)
        .unwrap()
        .unlock(&passphrase, Cost::FORMAT_1, &mut rng, Duration::ZERO)
        .unwrap();
    (session, rng)
}

/// VLT-28: a process that waits for the vault with a passphrase that is changed or removed meanwhile opens nothing, and
/// writes nothing.
#[test]
fn vlt_28_a_process_that_waited_with_an_old_passphrase_opens_and_writes_nothing() {
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let _ = ana.init().done();
    let _ = ana.sets(SECOND, &["--offline", "passphrase", "add"]).done();

    let (mut session, mut rng) = hold(&ana, &ana.passphrase);
    let waiting = [ana.starts(&["--offline", "status"]), ana.typing(SECOND).starts(&["--offline", "status"])];
    assert!(
        until(PATIENCE, || session.lock_requested().unwrap()),
        "one of them has derived its keys and waits"
    );
    let (home, entry) = (session.volumes()[0], session.entries()[0].id());
    session.change_passphrase(&Passphrase::new(THIRD), home, &mut rng).unwrap();
    session.remove_entry(entry, &mut rng).unwrap();
    drop(session);
    let after = ana.bytes();
    for process in waiting {
        assert_eq!(process.end().failed(3), "not_unlocked");
    }
    assert!(ana.bytes() == after, "not a byte was written");
    let _ = ana.typing(THIRD).runs(&["--offline", "status"]).done();
}
