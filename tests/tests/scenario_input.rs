//! Bad input of every sort: a clear error, the documented exit code, and nothing changed.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{
    fs::File,
    io::{Read as _, Write as _, pipe},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use lapwing_tests::scenario::{
    Folder, Outcome, Person, Relay, Running, programs,
    running::has_pending,
    wait::{PATIENCE, until},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{OpenptyResult, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};
use serde_json::json;

/// The ticket with the letter at `at` changed into another of its alphabet.
fn flipped(ticket: &str, at: usize) -> String {
    let mut letters: Vec<char> = ticket.chars().collect();
    letters[at] = if letters[at] == 'q' { 'w' } else { 'q' };
    letters.into_iter().collect()
}

#[test]
fn tickets_that_are_no_good_are_refused_and_change_nothing() {
    let folder = Folder::new();
    let relay = Relay::start(&folder.join("relay"));
    let (ana, bo) = (Person::at(&folder, "ana", &relay), Person::at(&folder, "bo", &relay));
    let ticket = ana.runs(&["invite", "bo"]).done().text("ticket", "ticket");
    let short = ana.runs(&["invite", "late", "--valid", "1s"]).done().text("ticket", "ticket");
    assert_eq!(ana.runs(&["join", &ticket, "--name", "myself"]).failed(5), "own_ticket");
    let chats = ana.chats();
    assert_eq!(chats.as_array().unwrap().len(), 2, "{chats}");

    let end = ticket.chars().count() - 1;
    let joins = |ticket: &str| bo.runs(&["--offline", "join", ticket, "--name", "ana"]);
    assert_eq!(joins("a word").failed(5), "not_a_ticket");
    assert_eq!(joins(&relay.access).failed(5), "not_a_ticket");
    assert_eq!(joins("lapwing:").failed(5), "damaged_ticket");
    for bad in
        [flipped(&ticket, 9), flipped(&ticket, end / 2), flipped(&ticket, end), ticket[..end - 40].to_owned()]
    {
        assert_eq!(joins(&bad).failed(5), "damaged_ticket", "{bad}");
    }
    // The second that the ticket was valid for is over.
    sleep(Duration::from_millis(1100));
    assert_eq!(joins(&short).failed(5), "expired_ticket");
    bo.reads(&["join", &short, "--name", "ana"]).failed_for_a_person(5);
    let nobody = bo.pipes(&[0xff, 0xfe, b'\n'], &["join", "-", "--name", "ana"]);
    assert_eq!(nobody.failed(2), "usage");
    assert_eq!(bo.chats(), json!([]), "nothing of all that left anything behind");

    let _ = bo.runs(&["join", &ticket, "--name", "ana"]).done();
    assert_eq!(bo.runs(&["join", &ticket, "--name", "again"]).failed(5), "used_ticket");
    let _ = ana.runs(&["sync"]).done();
    let _ = bo.runs(&["send", "ana", "hello"]).done();
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), ["hello"]);
    assert_eq!(ana.chats().as_array().unwrap().len(), 2);
    // Somebody who found the ticket afterwards.
    let cy = Person::at(&folder, "cy", &relay);
    let late = cy.runs(&["join", &ticket, "--name", "ana"]);
    assert_eq!(late.failed(5), "refused");
    assert_eq!(ana.chats().as_array().unwrap().len(), 2);
    // What nobody can have seen is not marked: a closed output, and the null device as other programs' runtimes open it.
    let _ = bo.runs(&["send", "ana", "unseen"]).done();
    for to in [">&-", "1<>/dev/null"] {
        let read = into_nothing(&ana, to, &["--json", "read", "bo"]);
        assert_eq!(read.code, Some(0), "{to}: {read:?}");
        assert!(read.stderr.contains("nothing is marked"), "{to}: {read:?}");
    }
    let chats = ana.chats();
    let unread: u64 = chats.as_array().unwrap().iter().filter_map(|chat| chat["unread"].as_u64()).sum();
    assert_eq!(unread, 1, "{chats}");
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), ["hello", "unseen"]);
}

/// A command whose standard output the shell sends nowhere, in this way.
fn into_nothing(person: &Person, to: &str, words: &[&str]) -> Outcome {
    let script = format!("exec \"$0\" --vault \"$@\" --passphrase-fd 0 {to}");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(programs::lapwing()).arg(&person.vault).args(words);
    let input = format!("{}\n", person.passphrase).into_bytes();
    Running::spawn(&mut shell, words.join(" "), input).end()
}

#[test]
fn files_that_are_no_vault_and_wrong_passphrases_are_refused_and_left_alone() {
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let _ = ana.init().done();
    let whole = ana.bytes();
    let wrong = ana.typing("not the passphrase of anybody");
    assert_eq!(wrong.runs(&["chat", "list"]).failed(3), "not_unlocked");
    wrong.reads(&["chat", "list"]).failed_for_a_person(3);
    assert!(ana.bytes() == whole, "a wrong passphrase writes nothing");

    let at = |vault: PathBuf| Person { vault, passphrase: ana.passphrase.clone() };
    let cases: [(&str, Vec<u8>, i32); 4] = [
        ("truncated", whole[..whole.len() - 5000].to_vec(), 5),
        ("empty", Vec::new(), 5),
        ("text", b"dear diary\n".repeat(1000), 5),
        // Of a vault's size, and nothing that could be told from one whose passphrase is another.
        ("foreign", whole.iter().map(|byte| byte ^ 0x5a).collect(), 3),
    ];
    for (name, bytes, code) in cases {
        let person = at(folder.put(name, &bytes));
        let refused = person.runs(&["status"]);
        let _ = refused.failed(code);
        assert!(person.bytes() == bytes, "{name} was changed");
    }
    let _ = at(folder.path().to_owned()).runs(&["status"]).failed(5);
    at(folder.join("nowhere")).reads(&["status"]).failed_for_a_person(5);
    assert!(!folder.join("nowhere").exists());
    let link = folder.join("link");
    std::os::unix::fs::symlink(&ana.vault, &link).unwrap();
    let _ = at(link).runs(&["status"]).failed(5);
    let forbidden = without_rights(&ana);
    let _ = forbidden.failed(5);
    assert!(ana.bytes() == whole);

    // Standard input that is no passphrase.
    let vault = ana.vault.to_str().unwrap();
    for input in [b"".as_slice(), b"\n", b"\xff\xfe\n", &[b'x'; 5000]] {
        let words = ["--json", "--vault", vault, "status", "--passphrase-fd", "0"];
        assert_eq!(Running::start(&programs::lapwing(), &words, input).end().failed(2), "usage");
    }
    // A descriptor of the shell's, as documented.
    let secret = folder.put("secret", format!("{}\n", ana.passphrase).as_bytes());
    let script = format!("exec \"$0\" --json --vault \"$1\" status --passphrase-fd 3 3<{}", secret.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(programs::lapwing()).arg(vault);
    let _ = Running::spawn(&mut shell, "status".to_owned(), Vec::new()).end().done().one("status");
    // A failure is told where somebody may see it.
    let closed = into_nothing(&ana, ">&-", &["--json", "read", "bo"]);
    assert_eq!(closed.code, Some(1), "{closed:?}");
    assert!(closed.stderr.contains("unknown_chat"), "{closed:?}");
    // A pipe whose reader has gone is an end like any other.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(ana.starts_into(writer, &["status"]).end().code, Some(0));
}

#[test]
fn a_process_that_is_asked_to_end_at_a_question_gives_the_terminal_back() {
    let folder = Folder::new();
    let ana = Person::named(&folder, "ana");
    let _ = ana.init().done();
    let vault = ana.bytes();
    let mut at_a_passphrase = Asked::at(&ana, &["status"]);
    at_a_passphrase.until("passphrase: ");
    at_a_passphrase.signal("TERM");
    at_a_passphrase.ends_with(&[Some(130)]);
    // The answer that comes right behind the signal does not overtake it.
    let mut answered = Asked::at(&ana, &["status"]);
    answered.until("passphrase: ");
    answered.signal("TERM");
    answered.types(&ana.passphrase);
    answered.ends_with(&[Some(130)]);
    // Nor does a second signal, whether or not it ends the process at once.
    let mut twice = Asked::at(&ana, &["status"]);
    twice.until("passphrase: ");
    twice.signal("TERM");
    twice.signal("INT");
    twice.ends_with(&[Some(130), None]);
    assert!(ana.bytes() == vault, "nothing was opened");
    // An open vault has threads of its own behind it: the pool that derives keys, a runtime's.
    for (words, question, name) in [
        (&["passphrase", "change"][..], "new passphrase: ", "HUP"),
        (&["grow", "--size", "16MiB"], "[yes/no] ", "TERM"),
        (&["passphrase", "change"], "new passphrase: ", "QUIT"),
    ] {
        let mut asked = Asked::at(&ana, words);
        asked.until("passphrase: ");
        asked.types(&ana.passphrase);
        asked.until(question);
        asked.signal(name);
        asked.ends_with(&[Some(130)]);
    }
    let _ = ana.runs(&["status"]).done();
}

/// A command at a terminal of its own.
struct Asked {
    child: Child,
    keys: File,
    slave: OwnedFd,
    /// How the terminal was.
    before: LocalFlags,
}

impl Asked {
    fn at(person: &Person, words: &[&str]) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        // A session of its own, whose terminal this is.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(programs::lapwing())
            .arg("--vault")
            .arg(&person.vault)
            .args(words)
            .stdin(slave.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = tcgetattr(&slave).unwrap().local_flags;
        Self { child, keys: master.into(), slave, before }
    }

    fn mode(&self) -> LocalFlags {
        tcgetattr(&self.slave).unwrap().local_flags
    }

    /// Waits for the question, and for the mode in which it is answered.
    fn until(&mut self, question: &str) {
        let mut screen = Vec::new();
        let shown = until(PATIENCE, || {
            let mut bytes = [0; 256];
            if let Ok(count) = self.keys.read(&mut bytes) {
                screen.extend_from_slice(&bytes[..count]);
            }
            screen.ends_with(question.as_bytes()) && self.mode() != self.before
        });
        assert!(shown, "{question} was not asked: {}", String::from_utf8_lossy(&screen));
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// Sends a signal, which it has taken when this returns. It may have ended.
    fn signal(&self, name: &str) {
        let process = self.child.id();
        let sent =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()]).status();
        assert!(sent.unwrap().success());
        assert!(until(PATIENCE, || !has_pending(process)), "{name}");
    }

    fn ends_with(mut self, codes: &[Option<i32>]) {
        let mut code = None;
        let ended = until(PATIENCE, || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        assert!(ended && self.mode() == self.before, "{code:?}");
        assert!(code.is_some_and(|status| codes.contains(&status.code())), "{code:?}");
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Whatever becomes of it, it does not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the vault as somebody who may not.
fn without_rights(person: &Person) -> Outcome {
    let metadata = std::fs::metadata(&person.vault).unwrap();
    let mut command = if metadata.uid() == 0 {
        // Rights mean nothing to the superuser: somebody else is needed.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups"]).arg(programs::lapwing());
        command
    } else {
        std::fs::set_permissions(&person.vault, PermissionsExt::from_mode(0o000)).unwrap();
        Command::new(programs::lapwing())
    };
    command.arg("--json").arg("--vault").arg(&person.vault).args(["status", "--passphrase-fd", "0"]);
    let input = format!("{}\n", person.passphrase).into_bytes();
    let outcome = Running::spawn(&mut command, "status".to_owned(), input).end();
    std::fs::set_permissions(&person.vault, metadata.permissions()).unwrap();
    outcome
}

#[test]
fn init_takes_any_name_refuses_what_exists_and_leaves_nothing_half_made() {
    let folder = Folder::new();
    let odd = Person {
        vault: folder.join("new folder/Großmutters Rezepte.jpg"),
        passphrase: "heron orbit velvet candle morning".into(),
    };
    let _ = odd.init().done();
    let metadata = std::fs::metadata(&odd.vault).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 8 << 20));
    assert_eq!(std::fs::metadata(folder.join("new folder")).unwrap().mode() & 0o777, 0o700);
    let bytes = odd.bytes();
    let _ = odd.init().failed(5);
    assert!(odd.bytes() == bytes);
    let exists = Person { vault: folder.path().to_owned(), passphrase: odd.passphrase.clone() };
    let _ = exists.init().failed(5);
    let weak = Person { vault: folder.join("weak"), passphrase: "secret".into() };
    let _ = weak.init().failed(5);

    // A disk that is full after a megabyte.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let mut full = Command::new("sh");
    full.args(["-c", script, "sh"])
        .arg(programs::lapwing())
        .arg("--json")
        .arg("--vault")
        .arg(folder.join("full"));
    full.args(["init", "--size", "8MiB", "--new-passphrase-fd", "0"]);
    let input = format!("{}\n", odd.passphrase).into_bytes();
    let _ = Running::spawn(&mut full, "init".to_owned(), input).end().failed(5);
    assert_eq!(folder.names(), ["new folder"], "neither refusal left anything behind");
}
