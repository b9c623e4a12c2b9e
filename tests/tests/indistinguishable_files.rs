//! What the file system tells of a vault: the same whatever its passphrases are, before and after a plan has run.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{File, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
    time::SystemTime,
};

use lapwing_tests::scenario::{Folder, Person};
use nix::unistd::{Whence, lseek};

const SECOND: &str = "marsh plough ember ribbon of winter";

/// All that a file system tells of a file without opening it, but its times and its number.
#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    size: u64,
    blocks: u64,
    block_size: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    extended: Vec<std::ffi::OsString>,
    first_hole: i64,
}

fn attributes(path: &Path) -> Attributes {
    let told = std::fs::metadata(path).unwrap();
    let mut extended: Vec<_> = xattr::list(path).map(Iterator::collect).unwrap_or_default();
    extended.sort();
    Attributes {
        size: told.size(),
        blocks: told.blocks(),
        block_size: told.blksize(),
        mode: told.mode(),
        owner: (told.uid(), told.gid()),
        links: told.nlink(),
        extended,
        // A file system that does not tell answers with the end of the file, as for a file without a hole.
        first_hole: lseek(File::open(path).unwrap(), 0, Whence::SeekHole).unwrap(),
    }
}

#[expect(clippy::disallowed_methods, reason = "times of files are the system clock's")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Runs a command and answers the file's state before and after, and when the command ran.
fn around<T>(path: &Path, run: impl FnOnce() -> T) -> (T, Metadata, Metadata, [SystemTime; 2]) {
    let before = std::fs::metadata(path).unwrap();
    let began = now();
    let out = run();
    let ended = now();
    (out, before, std::fs::metadata(path).unwrap(), [began, ended])
}

/// A command that opened something wrote the file: its time of change is the command's, nothing else moved.
fn touched_now(path: &Path, run: impl FnOnce()) {
    let ((), before, after, [began, ended]) = around(path, run);
    let changed = after.modified().unwrap();
    // File systems count time in ticks of the kernel's clock, which lag by a few milliseconds.
    let slack = std::time::Duration::from_millis(20);
    assert!(changed + slack >= began && changed <= ended + slack, "{changed:?} not in {began:?}..{ended:?}");
    assert_eq!(after.ino(), before.ino(), "the file is never replaced");
    assert_eq!(after.created().ok(), before.created().ok());
}

#[test]
fn file_attributes_are_equal_whatever_the_passphrases_are_and_after_plans_ran() {
    let folder = Folder::new();
    let people = ["plain", "with hide", "with destroy"].map(|name| Person::named(&folder, name));
    let [plain, hide, destroy] = &people;
    for person in &people {
        let _ = person.init().done();
        let _ = person.runs(&["--offline", "compartment", "create", "shown"]).done();
    }
    for (person, action) in [(hide, "hide"), (destroy, "destroy")] {
        let words = [
            "--offline",
            "sos",
            "add",
            "--name",
            "p",
            "--show",
            "shown",
            "--do",
            action,
            "--no-alert",
            "--yes",
        ];
        touched_now(&person.vault, || drop(person.sets(SECOND, &words).done()));
    }
    let same = || {
        let [one, two, three] = [plain, hide, destroy].map(|person| attributes(&person.vault));
        assert_eq!(one, two);
        assert_eq!(one, three);
        assert_eq!((one.size, one.mode & 0o7777, one.first_hole), (8 << 20, 0o600, 8 << 20));
        // Everything is allocated at creation; a file system may need some blocks more for its map.
        assert!(one.blocks * 512 >= one.size, "{one:?}");
    };
    same();
    // The plans run; the plain vault is opened as often.
    touched_now(&plain.vault, || drop(plain.runs(&["--offline", "chat", "list"]).done()));
    for person in [hide, destroy] {
        let forced = person.typing(SECOND);
        touched_now(&person.vault, || drop(forced.runs(&["--offline", "chat", "list"]).done()));
    }
    same();
    // What was destroyed opens nothing, and a passphrase that opens nothing leaves no time behind.
    for (person, typed) in [(plain, plain.typing(SECOND)), (destroy, destroy.clone())] {
        let (code, before, after, _) =
            around(&person.vault, || typed.runs(&["--offline", "chat", "list"]).failed(3));
        assert_eq!(code, "not_unlocked");
        assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
        assert_eq!((after.ctime(), after.ctime_nsec()), (before.ctime(), before.ctime_nsec()));
    }
    same();
    // Nothing lies beside a vault.
    assert_eq!(folder.names(), ["plain", "with destroy", "with hide"]);
}
