//! The commands, as an operator types them.

use std::{os::unix::fs::PermissionsExt, path::Path};

use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    frame::*,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::operator::typed;
use crate::support::{
    Client, Keys,
    client::{stored, within},
    envelope,
    process::{Process, run, run_json},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn fails(dir: &Path, arguments: &[&str], code: i32, message: &str, hint: &str) {
    let output = run(dir, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "two lines: {said}");
    assert!(lines[0].starts_with("error: ") && lines[0].contains(message), "{said}");
    assert!(lines[1].starts_with("hint: ") && lines[1].contains(hint), "{said}");
    let json = run(dir, &[arguments, &["--json"]].concat());
    assert_eq!(json.status.code(), Some(code));
    let line: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&line["v"], &line["type"]), (&1.into(), &"error".into()));
    assert!(line["message"].as_str().unwrap().contains(message));
    assert!(line["code"].is_string() && line["hint"].is_string());
}

#[test]
fn init_makes_a_whole_relay_and_shows_what_to_hand_out() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let output = run(&dir, &["init", "--host", "Relay.Example.org", "--port", "443"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
    let shown = text(&output.stdout);
    let address: RelayAddress =
        shown.lines().find(|line| line.starts_with("relay://")).unwrap().parse().unwrap();
    assert_eq!((address.host(), address.port()), ("relay.example.org", 443));
    assert!(shown.contains('█'), "a QR code");
    let ticket = shown.lines().find(|line| line.starts_with("lapwing-access:")).unwrap();
    let name = run_json(&dir, &["access", "list"])["name"].as_str().unwrap().to_owned();
    assert!(
        shown.contains(&format!("`access revoke`: {name}\n")),
        "the first ticket is told from others: {shown}"
    );
    assert_eq!(AccessTicket::from_text(ticket).unwrap().relay(), &address);
    let mode = |name: &str| dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(""), mode("relay.key"), mode("relay.toml"), mode("store")),
        (0o700, 0o600, 0o600, 0o700)
    );

    let status = run_json(&dir, &["status"]);
    assert_eq!(status["address"], address.to_string());
    assert_eq!((&status["connections"], &status["tickets"]), (&Value::Null, &1.into()));
    fails(&dir, &["init", "--host", "h"], 5, "there is a relay in", "--dir");
}

#[test]
fn what_to_type_next_can_be_pasted_wherever_the_relay_is() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("it's my relay");
    let shown = text(&run(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]).stdout);
    let next = shown.lines().last().unwrap().strip_prefix("Next: lapwing-relay ").unwrap();
    let words =
        std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {next}")]).output().unwrap();
    assert_eq!(text(&words.stdout).lines().collect::<Vec<_>>(), ["serve", "--dir", dir.to_str().unwrap()]);
}

#[test]
fn tickets_that_are_of_no_use_are_refused_by_the_name_of_the_option() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "relay.example.org"]);
    for (option, value) in [
        ("--size", "0 B"),
        ("--size", "1023 B"),
        ("--mailboxes", "0"),
        ("--expires", "0s"),
        ("--expires", "59s"),
    ] {
        let output = run(&dir, &["access", "issue", option, value]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option} {value}: {said}");
        assert!(said.contains(option) && said.contains(value), "{said}");
    }
    let listed = text(&run(&dir, &["access", "list"]).stdout);
    assert_eq!(listed.lines().count(), 1, "none was made: {listed}");
    run_json(&dir, &["access", "issue", "--size", "1 KiB", "--mailboxes", "1", "--expires", "1m"]);
    let config = dir.join("relay.toml");
    let changed = std::fs::read_to_string(&config).unwrap().replace("mailboxes = 1000", "mailboxes = 0");
    std::fs::write(&config, changed).unwrap();
    fails(&dir, &["access", "issue"], 2, "access.mailboxes", "relay.toml");
}

#[test]
fn what_is_no_folder_is_told_before_anything_is_made() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("store"), "mine").unwrap();
    fails(&dir, &["init", "--host", "h"], 5, "this is no folder: ", "--dir");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing is left of it");
    assert_eq!(std::fs::read(dir.join("store")).unwrap(), b"mine");
    fails(&dir.join("store"), &["init", "--host", "h"], 5, "this is no folder: ", "--dir");
}

#[test]
fn mistakes_get_two_lines_and_a_code() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    for command in [&["serve"][..], &["status"], &["access", "list"], &["access", "issue"]] {
        fails(&dir, command, 5, "there is no relay in", "lapwing-relay init");
    }
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    for (name, remedy) in [("relay.key", "restore relay.key"), ("relay.toml", "restore relay.toml")] {
        let (file, stick) = (dir.join(name), base.path().join(name));
        std::fs::rename(&file, &stick).unwrap();
        for command in [&["serve"][..], &["status"], &["access", "list"], &["init", "--host", "127.0.0.1"]] {
            fails(&dir, command, 5, &format!("{name} is missing in"), remedy);
        }
        std::fs::rename(&stick, &file).unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
    fails(&dir, &["init", "--host", "not a host"], 2, "host", "--host");
    for (host, why) in [
        ("a..b", "its dots"),
        ("256.1.1.1", "IPv4"),
        ("0.0.0.0", "all addresses"),
        ("::", "all"),
        ("[::1]", "brackets"),
    ] {
        fails(&dir, &["init", "--host", host], 2, why, "people reach this machine");
    }
    assert!(!dir.exists(), "nothing is left of it");
    assert_eq!(run(&dir, &["init"]).status.code(), Some(2));
    assert_eq!(run(&dir, &["access", "issue", "--size", "many"]).status.code(), Some(2));
    assert_eq!(run(&dir, &["nothing"]).status.code(), Some(2));
    let help = run(&dir, &["init", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("Example: lapwing-relay init"));

    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    fails(&dir, &["access", "issue"], 4, "no fixed port", "lapwing-relay serve");
    fails(&dir, &["access", "revoke", "nobody"], 1, "no access ticket", "access list");
    let config = dir.join("relay.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("retention = \"30days\"", "retention = \"1s\"")).unwrap();
    fails(&dir, &["serve"], 2, "limits.retention", "relay.toml");
    std::fs::write(&config, "[network]\nport = \"x\"").unwrap();
    fails(&dir, &["status"], 2, "`network.port` is not what belongs there", "relay.toml");
    std::fs::write(&config, good.replace("host = \"127.0.0.1\"", "host = \"my relay\"")).unwrap();
    fails(&dir, &["serve"], 2, "`network.host` cannot be used", "correct relay.toml");
    std::fs::write(&config, "[network").unwrap();
    fails(&dir, &["status"], 2, "not valid: line 1", "relay.toml");
    std::fs::write(&config, good.replace("host = \"127.0.0.1\"", "")).unwrap();
    let said = text(&run(&dir, &["status"]).stderr);
    assert!(said.contains("warning: relay.toml has no network.host"), "{said}");
    std::fs::write(&config, good).unwrap();
    std::fs::write(dir.join("relay.key"), b"short").unwrap();
    fails(&dir, &["serve"], 5, "key file is damaged", "backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_issued_listed_and_revoked_while_it_runs_and_while_not() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path();
    run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(dir);
    let issued =
        run_json(dir, &["access", "issue", "--size", "2 MiB", "--mailboxes", "1", "--expires", "90days"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let name = issued["name"].as_str().unwrap().to_owned();

    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    stored(&client.append(keys.id(), envelope(1)).await);
    let listed = run_json(dir, &["access", "list"]);
    assert_eq!(listed["name"], name);
    assert_eq!((&listed["used_bytes"], &listed["quota_bytes"]), (&1024.into(), &(2 << 20).into()));
    assert_eq!((&listed["used_mailboxes"], &listed["valid"]), (&1.into(), &true.into()));
    assert!(listed["expires"].as_str().unwrap().ends_with('Z'));
    let status = run_json(dir, &["status"]);
    assert_eq!((&status["connections"], &status["mailboxes"]), (&1.into(), &1.into()));
    assert_eq!(status["envelope_bytes"], 1024);

    assert_eq!(run_json(dir, &["access", "revoke", &name])["name"], name);
    assert_eq!(run_json(dir, &["access", "list"])["valid"], false);
    stored(&client.append(keys.id(), envelope(2)).await);
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());
    assert!(!dir.join("control.sock").exists());

    assert_eq!(run_json(dir, &["access", "list"])["used_bytes"], 2048, "the same without a running relay");
    let again = run(dir, &["access", "revoke", &name]);
    assert!(again.status.success() && text(&again.stdout).contains(&format!("revoked {name}")), "{again:?}");
}

#[test]
fn a_store_that_is_gone_is_told_and_not_made_anew_by_a_look() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "4433"]);
    std::fs::remove_dir_all(dir.join("store")).unwrap();
    let file = base.path().join("backup");
    let commands = [
        &["status"][..],
        &["access", "list"],
        &["access", "revoke", "n"],
        &["backup", file.to_str().unwrap()],
    ];
    for command in commands {
        fails(&dir, command, 5, "store is missing in", "restore a backup");
        assert!(!dir.join("store").exists() && !file.exists(), "{command:?}");
    }
    // Who brings back the key alone goes on with an empty one.
    run_json(&dir, &["access", "issue"]);
    assert_eq!(run_json(&dir, &["status"])["tickets"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_configuration_stops_no_command_that_a_running_relay_can_carry_out() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let good = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    std::fs::write(dir.join("relay.toml"), good.replace("mailboxes = 1000", "mailboxes = \"many\"")).unwrap();
    fails(&dir, &["access", "issue"], 2, "access.mailboxes", "give both --size and --mailboxes");
    fails(&dir, &["access", "issue", "--size", "1 MiB"], 2, "access.mailboxes", "give both");
    run_json(&dir, &["access", "issue", "--size", "1 MiB", "--mailboxes", "3"]);
    assert_eq!(run_json(&dir, &["access", "list"])["quota_mailboxes"], 3);
    let file = base.path().join("backup");
    let made = run(&dir, &["backup", file.to_str().unwrap(), "--json"]);
    let said = text(&made.stderr);
    assert!(made.status.success() && said.contains("goes into the backup as it is"), "{said}");
    relay.kill();
    fails(
        &dir,
        &["backup", base.path().join("other").to_str().unwrap()],
        2,
        "access.mailboxes",
        "relay.toml",
    );

    let key: Value = serde_json::from_slice(&made.stdout).unwrap();
    let place = base.path().join("restored");
    let restored = typed(&place, &["restore", file.to_str().unwrap()], key["recovery_key"].as_str().unwrap());
    let said = text(&restored.stderr);
    assert!(restored.status.success() && said.contains("correct relay.toml before you start"), "{said}");
    std::fs::write(place.join("relay.toml"), good).unwrap();
    assert_eq!(run_json(&place, &["status"])["tickets"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_limits_again_and_mistakes_change_nothing() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path();
    run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let log = dir.join("log");
    let relay = Process::start_logging(dir, std::fs::File::create(&log).unwrap());
    let issued = run_json(dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let config = dir.join("relay.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    // More than any disk has: the disk counts as full, and later as free again.
    let full = good.replace("reserve = \"512 MiB\"", "reserve = \"1000000 TiB\"");
    assert_ne!(good, full);
    let none = good.replace("reserve = \"512 MiB\"", "reserve = \"0 B\"");
    let mut number = 0;
    for (text, expected) in [(&full, false), (&none, true), (&full, false)] {
        std::fs::write(&config, text).unwrap();
        relay.signal(Signal::SIGHUP);
        within(async {
            loop {
                number += 1;
                let answer = client.append(keys.id(), envelope(number)).await;
                if matches!(answer, ResponseBody::Stored(_)) == expected {
                    break;
                }
                assert!(matches!(answer, ResponseBody::Stored(_) | ResponseBody::Refused(Refusal::Busy)));
            }
        })
        .await;
    }
    // The disk counts as full now, and goes on to do so after a file with a mistake.
    std::fs::write(&config, none.replace("retention = \"30days\"", "retention = \"0s\"")).unwrap();
    relay.signal(Signal::SIGHUP);
    within(async {
        while !std::fs::read_to_string(&log).unwrap().contains("limits not changed") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let answer = client.append(keys.id(), envelope(1_000_000)).await;
    assert_eq!(answer, ResponseBody::Refused(Refusal::Busy), "a mistake changes nothing");
    std::fs::write(&config, none).unwrap();
    relay.signal(Signal::SIGHUP);
    within(async {
        loop {
            number += 1;
            if matches!(client.append(keys.id(), envelope(number)).await, ResponseBody::Stored(_)) {
                break;
            }
        }
    })
    .await;
    relay.signal(Signal::SIGINT);
    assert!(relay.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_on_one_folder_or_port_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("one");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    fails(&dir, &["serve"], 4, "open in another process", "another lapwing-relay");
    let other = base.path().join("two");
    let port = relay.address.port().to_string();
    run_json(&other, &["init", "--host", "127.0.0.1", "--port", &port]);
    fails(&other, &["serve"], 5, "cannot listen", "another program has this UDP port");
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_nobody() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path();
    run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    std::fs::write(
        dir.join("relay.toml"),
        "[limits]\nnonsense = 1\n[network]\nport = 0\nhost = \"127.0.0.1\"",
    )
    .unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let relay = Process::start_logging(dir, log.reopen().unwrap());
    let issued = run_json(dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    stored(&client.append(keys.id(), envelope(1)).await);
    let mut stranger = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let foreign = Keys::new();
    stranger.append(foreign.id(), envelope(1)).await;
    stranger.requests.write_all(&[0xff; 64]).await.unwrap();
    within(stranger.connection.closed()).await;
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());
    let said = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{said}");
    let told = |line: &Value| (line["level"].to_string(), line["message"].as_str().unwrap().to_owned());
    let unknown = "relay.toml has an unknown key: limits.nonsense";
    assert_eq!(told(&lines[0]), ("\"warn\"".into(), unknown.into()));
    assert!(lines[1]["level"] == "info" && told(&lines[1]).1.starts_with("listening on "));
    for line in &lines {
        assert_eq!((&line["v"], &line["type"]), (&1.into(), &"log".into()));
        assert_eq!(line.as_object().unwrap().len(), 5, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_log_has_one_form() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path();
    run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    std::fs::write(dir.join("relay.toml"), format!("nonsense = 1\n{config}")).unwrap();
    let lines_of = |arguments: &[&str]| {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_lapwing-relay"))
            .args(["serve", "--dir"])
            .arg(dir)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let log = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut said = Vec::new();
        for line in std::io::BufRead::lines(log) {
            said.push(line.unwrap());
            if said.last().unwrap().contains("listening on") {
                let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
                nix::sys::signal::kill(id, Signal::SIGTERM).unwrap();
            }
        }
        assert!(child.wait().unwrap().success());
        said
    };
    let lines = lines_of(&[]);
    assert!(lines.len() >= 2, "{lines:?}");
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        assert!(words[0].len() == 20 && words[0].ends_with('Z'), "a time in whole seconds: {line}");
        assert!(["info", "warn", "error"].contains(&words[1]), "{line}");
    }
    for line in lines_of(&["--json"]) {
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["v"], &line["type"]), (&1.into(), &"log".into()));
        assert!(line["at"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[test]
fn the_program_as_it_is_released_has_one_engine() {
    // Tests are built with every engine, so what a build without them contains is asked of cargo.
    let tree = |more: &[&str]| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let output = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--prefix", "none", "--edges", "normal,build"])
            .args(["--manifest-path", manifest])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |tree: &str, name: &str| tree.lines().any(|line| line.starts_with(&format!("{name} v")));
    let released = tree(&[]);
    assert!(has(&released, "fjall") && !has(&released, "sled"));
    assert!(has(&tree(&["--features", "sled"]), "sled"), "the question would find it");
}
