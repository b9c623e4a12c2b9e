//! The command line says what it can do, and names every command that scripts may rely on.

use lapwing_tests::scenario::{Outcome, Running, programs};

/// Every command of this version (design section 7), as it is typed, with what its help must mention.
const COMMANDS: &[(&str, &[&str])] = &[
    ("init", &["--size", "--weak"]),
    ("grow", &["--size", "--yes"]),
    ("status", &[]),
    ("doctor", &[]),
    ("relay", &["add", "list", "remove"]),
    ("relay add", &["ACCESS|-", "standard input"]),
    ("relay list", &[]),
    ("relay remove", &["RELAY"]),
    ("invite", &["NAME", "--qr", "--valid", "7d"]),
    ("join", &["TICKET|-", "--name"]),
    ("verify", &["CHAT", "--equal", "--different"]),
    ("chat", &["list", "rename", "block", "unblock"]),
    ("chat block", &["CHAT"]),
    ("send", &["CHAT", "-|TEXT", "standard input"]),
    ("read", &["CHAT", "--follow", "--last"]),
    ("search", &["-|TEXT", "--chat", "--last", "50", "standard input"]),
    ("sync", &["--wait", "SECS"]),
    ("group", &["create", "invite", "approve", "decline", "members", "remove", "leave", "info"]),
    ("group create", &["NAME", "--as"]),
    ("group invite", &["GROUP", "CHAT"]),
    ("group approve", &["--as", "--name"]),
    ("group members", &["GROUP"]),
    ("group remove", &["GROUP", "MEMBER"]),
    ("group leave", &["GROUP", "--end"]),
    ("group info", &["GROUP"]),
    ("compartment", &["create", "list", "rename", "delete"]),
    ("compartment delete", &["COMPARTMENT", "--yes"]),
    ("sos", &["add", "list", "remove"]),
    ("sos add", &["--show", "--do", "hide", "destroy", "--alert", "--remote", "--text", "--yes"]),
    ("sos remove", &["NAME"]),
    ("trust", &["add", "accept", "list", "remove"]),
    ("trust add", &["CHAT"]),
    ("trigger", &["CHAT", "--yes"]),
    ("alert", &["list", "ack"]),
    ("alert ack", &["ID"]),
    ("passphrase", &["change", "add", "list", "remove", "compare", "suggest"]),
    ("passphrase change", &["--weak", "--suggest"]),
    ("passphrase add", &["--show", "--name", "--weak"]),
    ("passphrase remove", &["NAME"]),
    ("passphrase compare", &[]),
    ("passphrase suggest", &["--words", "--language", "english"]),
    ("chat renew", &["CHAT", "--all"]),
    ("backup", &["create", "restore"]),
    ("backup create", &["FILE", "--weak"]),
    ("backup restore", &["FILE", "--size", "256MiB"]),
    ("demo", &["--keep", "--relay"]),
];

const GLOBAL: [&str; 7] =
    ["--vault", "--json", "--passphrase-fd", "--new-passphrase-fd", "--compartment", "--offline", "--quiet"];

fn help(words: &str) -> Outcome {
    let words: Vec<&str> = words.split_whitespace().chain(["--help"]).collect();
    Running::start(&programs::lapwing(), &words, b"").end()
}

#[test]
fn the_help_names_every_command_and_how_it_is_used() {
    let all = help("").done();
    assert_eq!(all.stderr, "", "help is a result, not talk");
    for &(command, mentions) in COMMANDS {
        let shown = help(command).done();
        assert!(shown.stdout.contains(&format!("Usage: lapwing {command}")), "{shown:?}");
        for mention in mentions.iter().chain(&GLOBAL) {
            assert!(shown.stdout.contains(mention), "{mention} in the help of {command}: {}", shown.stdout);
        }
        // The first line says what it does, in the imperative, without a full stop.
        let first = shown.stdout.lines().next().unwrap();
        assert!(first.starts_with(char::is_uppercase) && !first.ends_with('.'), "{command}: {first}");
        if !command.contains(' ') {
            let listed = all.stdout.lines().any(|line| line.split_whitespace().next() == Some(command));
            assert!(listed, "{command} in {}", all.stdout);
        }
    }
}

#[test]
fn the_relays_help_names_every_command() {
    for (command, mentions) in [
        ("", ["init", "serve", "status", "access"].as_slice()),
        ("init", &["--host", "--port", "--listen"]),
        ("serve", &["--port", "SIGTERM"]),
        ("status", &[]),
        ("access", &["issue", "list", "revoke"]),
        ("access issue", &["--size", "--mailboxes", "--expires"]),
    ] {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let shown = Running::start(&programs::lapwing_relay(), &words, b"").end().done();
        for mention in mentions.iter().chain(&["--dir", "--json"]) {
            assert!(shown.stdout.contains(mention), "{mention} in the help of {command:?}: {}", shown.stdout);
        }
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error_also_for_scripts() {
    for words in
        [["frobnicate"].as_slice(), &["send"], &["init", "--size", "a lot"], &["sync", "--wait", "soon"]]
    {
        let typed = Running::start(&programs::lapwing(), words, b"").end();
        assert_eq!((typed.code, typed.stdout.as_str()), (Some(2), ""), "{typed:?}");
        assert!(typed.stderr.contains("error:"), "{typed:?}");
        let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
        let script = Running::start(&programs::lapwing(), &words, b"").end();
        assert_eq!(script.failed(2), "usage", "{script:?}");
    }
}
