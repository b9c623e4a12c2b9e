//! Progress of files: drawn where somebody watches, and nothing but text and line ends where nobody does.

#![expect(clippy::expect_used, reason = "scenario tests")]

use std::{
    fs::{File, create_dir, read},
    io::Read as _,
    process::Command,
};

use lapwing_tests::scenario::{
    Outcome, Pair, Person, Running, programs,
    wait::{PATIENCE, until},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{OpenptyResult, Winsize, openpty},
};

/// Takes a line off the screen.
const CLEARED: &str = "\u{1b}[2K";

/// Some dozens of parts: what is told of the first is neither none nor all of it, and the first few are always drawn.
const BYTES: u32 = 3_000_000;

#[test]
fn a_file_that_leaves_or_comes_is_drawn_on_a_terminal_and_nowhere_else() {
    let Pair { relay: _relay, ana, bo, folder } = Pair::meet();
    let content: Vec<u8> = (0..BYTES).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let path = folder.put("film", &content).display().to_string();
    let send = ["send", "bo", "--attach", &path, "--keep-metadata"];

    let (screen, sent) = at_a_terminal(&ana, &send);
    assert!(sent.stdout.starts_with("sent file"), "{sent:?}");
    assert!(screen.contains("reading ["), "{screen:?}");
    is_drawn_and_gone(&screen, "sending");

    let number = bo.runs(&["read", "ana"]).done().one("message")["order"].to_string();
    let out = folder.join("out");
    create_dir(&out).expect("a folder");
    let fetch = |name: &str| {
        let to = out.join(name).display().to_string();
        ["chat", "fetch", "ana", &number, "--out", &to].map(str::to_owned)
    };
    let words = fetch("watched");
    let (screen, fetched) = at_a_terminal(&bo, &words.each_ref().map(String::as_str));
    assert!(fetched.stdout.contains("watched"), "{fetched:?}");
    is_drawn_and_gone(&screen, "fetching");

    // Whoever wants peace, and programs, get nothing drawn on the same terminal.
    for (option, name) in [("--quiet", "quiet"), ("--json", "json")] {
        let words = fetch(name);
        let words: Vec<&str> = [option].into_iter().chain(words.iter().map(String::as_str)).collect();
        let (screen, _) = at_a_terminal(&bo, &words);
        // The system puts the first half of a line's end on a terminal.
        let drawn = |c: char| c.is_control() && c != '\n' && c != '\r';
        assert!(!screen.contains(drawn) && !screen.contains('['), "{option}: {screen:?}");
    }

    // In a pipe stand lines of text.
    let words = fetch("piped");
    for outcome in [ana.reads(&send), bo.reads(&words.each_ref().map(String::as_str))] {
        let outcome = outcome.done();
        let drawn = |c: char| c != '\n' && c.is_control();
        assert!(!outcome.stderr.contains(drawn) && !outcome.stdout.contains(drawn), "{outcome:?}");
        assert!(!outcome.stderr.contains('%'), "{outcome:?}");
    }
    for name in ["watched", "quiet", "json", "piped"] {
        assert!(read(out.join(name)).is_ok_and(|came| came == content), "{name}");
    }
}

/// A bar of this work was drawn before it was over, its shares went up, and it was taken off the screen.
fn is_drawn_and_gone(screen: &str, what: &str) {
    let begin = format!("{what} [");
    let shares: Vec<u32> = screen
        .split(&begin)
        .skip(1)
        .map(|bar| {
            let (bar, _) = bar.split_once('%').expect("a share");
            let (drawn, share) = bar.split_once("] ").expect("the end of a bar");
            assert_eq!(drawn.chars().count(), 30, "{bar:?}");
            share.parse().expect("a number")
        })
        .collect();
    assert!(shares.iter().any(|share| (1..100).contains(share)), "{what}: {shares:?} of {screen:?}");
    assert!(shares.is_sorted(), "{what}: {shares:?}");
    let (_, behind) = screen.rsplit_once(&begin).expect("a bar");
    assert!(behind.contains(CLEARED), "{what} stays on the screen: {screen:?}");
}

/// Runs a command whose standard error is a terminal. What came there, and how the command ended.
fn at_a_terminal(person: &Person, words: &[&str]) -> (String, Outcome) {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a terminal");
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a terminal that can be polled");
    let mut command = Command::new(programs::lapwing());
    command.arg("--vault").arg(&person.vault).args(words).args(["--passphrase-fd", "0"]);
    // What a terminal says of itself; without it nothing is drawn.
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    let input = format!("{}\n", person.passphrase).into_bytes();
    let mut running = Running::at_terminal(&mut command, words.join(" "), input, slave);
    let (mut master, mut screen) = (File::from(master), Vec::new());
    let mut take = || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut bytes) {
            screen.extend_from_slice(&bytes[..count]);
        }
    };
    // A terminal that nobody reads would hold it up.
    let ended = until(PATIENCE, || {
        take();
        !running.is_running()
    });
    assert!(ended, "{words:?} goes on");
    take();
    (String::from_utf8(screen).expect("text"), running.end().done())
}
