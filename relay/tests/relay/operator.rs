//! What keeps a relay alive beyond its machine: keys, backups, the doctor.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output, Stdio},
};

use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    capability::{Right, SecretKey, Subject, TripwireOwner},
    frame::*,
    ids::BlobHash,
    succession::leads,
    tripwire::{Causes, ListKey, Meaning, OpenRecord, SealedList, StatusKey, Token, TokenRecord},
};
use nix::sys::signal::Signal;

use crate::anchor::{Anchored, REAL};
use crate::support::{
    Client,
    client::{append, stored, within},
    envelope,
    process::{Process, run, run_json},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lapwing-relay");

pub(crate) fn typed(dir: &Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(PROGRAM)
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses before it reads closes its end.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn relay(base: &Path) -> (Process, AccessTicket) {
    let dir = base.join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let issued = run_json(&dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    (relay, ticket)
}

pub(crate) async fn connect(relay: &Process, address: &RelayAddress) -> Client {
    Client::connect(relay.socket(), address.key()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn suc_01_a_new_key_is_shown_at_once_and_the_old_one_vouches_for_it() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, ticket) = relay(base.path());
    let first = relay.address.clone();
    let mut client = connect(&relay, &first).await;
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    assert_eq!(client.ask(RequestBody::Lineage).await, ResponseBody::Lineage(Vec::new()));

    let second: RelayAddress = run_json(&dir, &["rotate-key"])["address"].as_str().unwrap().parse().unwrap();
    assert_ne!(second.key(), first.key());
    stored(&client.append(keys.id(), envelope(1)).await);
    assert!(Client::connect(relay.socket(), first.key()).await.is_err(), "the old key is shown to nobody");
    let third: RelayAddress = run_json(&dir, &["rotate-key"])["address"].as_str().unwrap().parse().unwrap();
    let mut newcomer = connect(&relay, &third).await;
    let ResponseBody::Lineage(lineage) = newcomer.ask(RequestBody::Lineage).await else {
        panic!("a lineage")
    };
    assert!(leads(&lineage, first.key(), third.key()) && leads(&lineage, second.key(), third.key()));
    assert!(!leads(&lineage, third.key(), first.key()));
    assert_eq!(run_json(&dir, &["status"])["address"], third.to_string());
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());

    // Also without a running relay; a start reads what was written.
    run_json(&dir, &["rotate-key"]);
    let again = Process::start(&dir);
    assert_ne!(again.address.key(), third.key());
    let mut newcomer = connect(&again, &again.address).await;
    let ResponseBody::Lineage(lineage) = newcomer.ask(RequestBody::Lineage).await else {
        panic!("a lineage")
    };
    assert!(leads(&lineage, first.key(), again.address.key()));
    newcomer.prove_access(ticket.secret()).await;
    newcomer.prove_all(&keys).await;
    assert_eq!(newcomer.window(keys.id(), 0).await.items.len(), 1, "the relay is the same");
    again.kill();
}

/// Clients follow a bounded number of keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_has_changed_its_key_too_often_says_what_to_do_whether_it_runs_or_not() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "relay.example.org", "--port", "4433"]);
    let place = lapwing_relay::place::Place::new(Some(dir.clone()));
    for _ in 0..lapwing_wire::limits::MAX_LINEAGE {
        place.rotate(&mut rand::rng()).unwrap();
    }
    let secret = std::fs::read(dir.join("relay.key")).unwrap();
    let refused = || {
        let output = run(&dir, &["rotate-key"]);
        assert_eq!(output.status.code(), Some(5));
        let said = said(&output);
        assert!(said.contains("as often as people's programs follow"), "{said}");
        assert!(said.contains("hint: make a new relay with `lapwing-relay init`"), "{said}");
        assert_eq!(std::fs::read(dir.join("relay.key")).unwrap(), secret);
    };
    refused();
    assert!(!said(&run(&dir, &["rotate-key"])).contains("could not answer"), "none runs");
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    std::fs::write(dir.join("relay.toml"), config.replace("port = 4433", "port = 0")).unwrap();
    let relay = Process::start(&dir);
    refused();
    relay.kill();
}

async fn arm(client: &mut Client, ticket: &AccessTicket) -> Token {
    let mut rng = rand::rng();
    let owner = SecretKey::<TripwireOwner>::generate(&mut rng);
    let id = lapwing_wire::ids::TripwireId::of_owner(&owner.public());
    let list_key = ListKey::generate(&mut rng);
    let (token, status_key) = (Token::generate(&mut rng), StatusKey::generate(&mut rng));
    let open = OpenRecord { tripwire: id, meaning: Meaning::Fire, list_key: list_key.clone(), status_key };
    let records = vec![TokenRecord::seal(&token, &open, &mut rng)];
    let token_list = SealedList::seal(&[], &id, &list_key, &mut rng).unwrap();
    assert_eq!(client.prove(Subject::Tripwire(owner.public()), &owner).await, ResponseBody::Done);
    let access = Some(ticket.secret().public());
    let arm =
        Arm { owner: owner.public(), access, serial: 1, records, token_list, causes: Causes::default() };
    assert_eq!(client.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_relay_under_load_is_of_one_moment_sealed_whole_and_without_tripwires_and_anchors() {
    let base = tempfile::tempdir().unwrap();
    let (dir, file) = (base.path().join("relay"), base.path().join("backup"));
    let name = file.to_str().unwrap();
    let (relay, ticket) = relay(base.path());
    let mut client = connect(&relay, &relay.address).await;
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let log = client.mailbox(ticket.secret(), MailboxKind::Log).await;
    for number in 1..=700 {
        client.send(append(keys.id(), envelope(number))).await.unwrap();
    }
    for _ in 0..700 {
        stored(&client.receive().await.unwrap().body);
    }
    stored(&client.append(log.id(), envelope(9)).await);
    let upto = Seq::new(300);
    let ack = Ack { mailbox: keys.id(), upto, also: vec![Seq::new(302)] };
    assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    let blob = vec![0x5a; 40_000];
    let hash = BlobHash::of(&blob);
    let access = Some(ticket.secret().public());
    let put = BlobPut { hash, total: 40_000, offset: 0, bytes: blob.clone().into(), access };
    assert_eq!(client.ask(RequestBody::BlobPut(put)).await, ResponseBody::BlobProgress(40_000));
    let used = run_json(&dir, &["access", "list"])["used_bytes"].clone();
    arm(&mut client, &ticket).await;
    let anchored = Anchored::new();
    assert_eq!(
        client.prove(Subject::Anchor(anchored.owner.public()), &anchored.owner).await,
        ResponseBody::Done
    );
    let create = anchored.create(Some(ticket.secret()), None);
    assert_eq!(client.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);
    assert!(client.evaluate(anchored.id(), REAL).await.is_ok());
    run_json(&dir, &["rotate-key"]);

    // Somebody goes on writing while it is made.
    let writing = tokio::spawn(async move {
        for number in 1000..1200 {
            stored(&client.append(log.id(), envelope(number)).await);
        }
        log
    });
    let made = tokio::task::spawn_blocking({
        let (dir, name) = (dir.clone(), name.to_owned());
        move || run_json(&dir, &["backup", &name])
    });
    let made = within(made).await.unwrap();
    let log = within(writing).await.unwrap();
    let key = made["recovery_key"].as_str().unwrap().to_owned();
    let bytes = std::fs::read(&file).unwrap();
    assert!(memchr::memmem::find(&bytes, &[0xa5; 32]).is_none(), "no envelope is readable in it");
    let secret = std::fs::read(dir.join("relay.key")).unwrap();
    assert!(memchr::memmem::find(&bytes, &secret).is_none());
    let again = run(&dir, &["backup", name]);
    assert_eq!(again.status.code(), Some(5), "{}", said(&again));
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "an older backup is never replaced");
    let (absent, second) = (base.path().join("no-such-key"), base.path().join("second"));
    let words = ["backup", second.to_str().unwrap(), "--key-file", absent.to_str().unwrap()];
    let refused = run(&dir, &words);
    assert!(
        said(&refused).contains("recovery key") && said(&refused).contains("no-such-key"),
        "{}",
        said(&refused)
    );
    assert!(refused.status.code() == Some(5) && !second.exists());
    let refused = typed(&dir, &["restore", name], &key);
    assert_eq!(refused.status.code(), Some(5), "never over a relay");
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());

    let other = base.path().join("other");
    let wrong = typed(&other, &["restore", name], "lapwing-backup:aaaa\n");
    assert!(wrong.status.code() == Some(5) && !other.exists(), "{}", said(&wrong));
    let cut = base.path().join("cut");
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let wrong = typed(&other, &["restore", cut.to_str().unwrap()], &key);
    assert!(wrong.status.code() == Some(5) && !other.exists(), "{}", said(&wrong));
    let restored = typed(&other, &["restore", name], &format!("{key}\n"));
    assert!(restored.status.success(), "{}", said(&restored));
    assert_eq!(std::fs::read(other.join("relay.key")).unwrap(), secret);
    let store = std::fs::read_dir(other.join("store")).unwrap().map(|entry| entry.unwrap().path());
    for path in store.filter(|path| path.is_file()) {
        let bytes = std::fs::read(path).unwrap();
        assert!(memchr::memmem::find(&bytes, &[0xa5; 64]).is_none(), "sealed at rest again");
    }
    let listed = run_json(&other, &["access", "list"]);
    let in_log = listed["used_bytes"].as_u64().unwrap() - used.as_u64().unwrap();
    assert!(
        in_log.is_multiple_of(1024) && in_log <= 200 * 1024,
        "tripwires and anchors take nothing of the quota: {listed}"
    );

    let relay = Process::start(&other);
    let mut client = connect(&relay, &relay.address).await;
    client.prove_access(ticket.secret()).await;
    client.prove_all(&keys).await;
    client.prove_all(&log).await;
    // ANC-12: who copies a relay has not copied what would answer a second guess.
    assert_eq!(client.evaluate(anchored.id(), REAL).await.err(), Some(Refusal::NotAllowed));
    let mut found = Vec::new();
    let mut after = 0;
    while let Some(last) = client.window(keys.id(), after).await.items.last() {
        let window = client.window(keys.id(), after).await;
        found.extend(window.items.iter().map(|item| (item.place.seq.value(), item.envelope.to_vec())));
        after = last.place.seq.value();
    }
    let wanted: Vec<_> = (301..=700).filter(|n| *n != 302).map(|n| (n, envelope(n))).collect();
    assert!(found == wanted, "exactly what waited: {}", found.len());
    let get = |offset| RequestBody::BlobGet(BlobGet { hash, offset });
    let ResponseBody::BlobPart(part) = client.ask(get(0)).await else { panic!("a part") };
    assert_eq!(part.bytes.into_vec(), blob);
    let logged = client.window(log.id(), 0).await;
    let numbers: BTreeSet<u64> = logged.items.iter().map(|item| item.place.seq.value()).collect();
    assert_eq!(numbers.len(), logged.items.len());
    assert_eq!(stored(&client.append(keys.id(), envelope(701)).await).seq, Seq::new(701), "it goes on");
    assert_eq!(
        stored(&client.append(keys.id(), envelope(400)).await).seq,
        Seq::new(400),
        "a retry is a retry"
    );
    let ack = Ack { mailbox: keys.id(), upto: Seq::new(701), also: Vec::new() };
    assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    client.ask(RequestBody::Close(Close { mailbox: keys.id() })).await;
    let fresh = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    stored(&client.append(fresh.id(), envelope(1)).await);
    assert_eq!(client.window(fresh.id(), 0).await.items.len(), 1);
    let stranger = client.prove(Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
    assert_eq!(stranger, ResponseBody::Refused(Refusal::NotAllowed));
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_over_what_one_that_was_cut_off_left_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let base = tempfile::tempdir().unwrap();
    let (dir, file) = (base.path().join("relay"), base.path().join("backup"));
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let part = base.path().join("backup.part");
    let private = std::fs::Permissions::from_mode(0o600);
    let backup = || run(&dir, &["backup", file.to_str().unwrap()]);
    let refused = |hint: &str| {
        let output = backup();
        let said = said(&output);
        assert!(
            output.status.code() == Some(5) && said.contains("backup.part") && said.contains(hint),
            "{said}"
        );
        assert!(!file.exists());
    };
    let whole = base.path().join("whole");
    run_json(&dir, &["backup", whole.to_str().unwrap()]);
    let bytes = std::fs::read(&whole).unwrap();

    std::fs::write(&part, "my own notes").unwrap();
    std::fs::set_permissions(&part, private.clone()).unwrap();
    refused("remove that file");
    assert_eq!(std::fs::read(&part).unwrap(), b"my own notes");
    std::fs::remove_file(&part).unwrap();
    // Killed between the two names of a whole one, which was moved away then.
    std::fs::hard_link(&whole, &part).unwrap();
    refused("remove that file");
    assert!(std::fs::read(&whole).unwrap() == bytes, "a whole one is left");
    std::fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink(&whole, &part).unwrap();
    refused("remove that file");
    std::fs::remove_file(&part).unwrap();

    for left in [&bytes[..100], &[]] {
        std::fs::write(&part, left).unwrap();
        std::fs::set_permissions(&part, private.clone()).unwrap();
        let writer = std::fs::File::open(&part).unwrap();
        writer.lock().unwrap();
        refused("wait until it is made");
        assert!(std::fs::read(&part).unwrap() == left);
        drop(writer);
        let made = backup();
        assert!(made.status.success() && !part.exists(), "{}", said(&made));
        assert!(std::fs::read(&file).unwrap().starts_with(&bytes[..23]), "from its beginning");
        let key = String::from_utf8(made.stdout).unwrap();
        let key = key.lines().find(|line| line.starts_with("lapwing-backup:")).unwrap();
        let other = base.path().join("other");
        let restored = typed(&other, &["restore", file.to_str().unwrap()], key);
        assert!(restored.status.success(), "{}", said(&restored));
        std::fs::remove_dir_all(&other).unwrap();
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_restore_leaves_what_lies_in_the_place_of_its_store() {
    let base = tempfile::tempdir().unwrap();
    let (dir, file) = (base.path().join("relay"), base.path().join("backup"));
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let key =
        run_json(&dir, &["backup", file.to_str().unwrap()])["recovery_key"].as_str().unwrap().to_owned();
    let other = base.path().join("other");
    std::fs::create_dir_all(other.join("store")).unwrap();
    std::fs::write(other.join("store/mine.txt"), "mine").unwrap();
    let refused = typed(&other, &["restore", file.to_str().unwrap()], &key);
    assert!(refused.status.code() == Some(5) && said(&refused).contains("--dir"), "{}", said(&refused));
    assert_eq!(std::fs::read(other.join("store/mine.txt")).unwrap(), b"mine");
    std::fs::remove_dir_all(other.join("store")).unwrap();
    std::fs::write(other.join("store"), "mine").unwrap();
    let refused = typed(&other, &["restore", file.to_str().unwrap()], &key);
    assert!(refused.status.code() == Some(5) && said(&refused).contains("no folder"), "{}", said(&refused));
    assert_eq!(std::fs::read(other.join("store")).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_and_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    let findings = || {
        let output = run(&dir, &["doctor", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), lines)
    };
    let level = |lines: &[serde_json::Value], check: &str| {
        let found: Vec<_> = lines.iter().filter(|line| line["check"] == check).collect();
        assert_eq!(found.len(), 1, "{check}: {lines:?}");
        let (level, advice) = (found[0]["level"].as_str().unwrap().to_owned(), &found[0]["advice"]);
        assert_eq!(level == "fine", advice.is_null(), "advice for whatever is not fine: {}", found[0]);
        level
    };
    let (_, lines) = findings();
    for check in ["configuration", "permissions", "key", "store", "space", "commits", "local"] {
        assert_eq!(level(&lines, check), "fine");
    }
    for check in ["disk", "file_system", "clock", "swap", "open_files", "buffers"] {
        level(&lines, check);
    }
    assert_eq!(level(&lines, "address"), "note", "a loopback address is for this machine only");
    relay.kill();

    let (_, lines) = findings();
    assert_eq!(level(&lines, "port"), "note", "it does not run");
    assert_eq!(level(&lines, "store"), "fine");
    std::fs::set_permissions(dir.join("relay.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    let config = config.replace("reserve = \"512 MiB\"", "reserve = \"1000 TiB\"\nreserv = 1");
    std::fs::write(dir.join("relay.toml"), config).unwrap();
    std::fs::write(dir.join("relay.lineage"), "damaged").unwrap();
    let (code, lines) = findings();
    assert_eq!(code, Some(1));
    for check in ["configuration", "permissions", "key", "space"] {
        assert_eq!(level(&lines, check), "care");
    }
    assert_eq!(lines.last().unwrap()["code"], "needs_care");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_a_relay_whose_configuration_or_store_is_broken() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let look = || {
        let output = run(&dir, &["doctor", "--json"]);
        assert_eq!(output.status.code(), Some(1), "something needs care");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let lines: Vec<_> = lines.collect();
        move |check: &str| {
            let found = lines.iter().find(|line| line["check"] == check);
            found.map(|found| (found["level"].clone(), found["message"].as_str().unwrap().to_owned()))
        }
    };
    let config = dir.join("relay.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    for (broken, said) in
        [("[network]\nport = \"x\"", "network.port"), ("[limits]\nretention = \"1s\"", "limits.retention")]
    {
        std::fs::write(&config, broken).unwrap();
        let found = look();
        let (level, message) = found("configuration").unwrap();
        assert!(level == "care" && message.contains(said), "{message}");
        for check in [
            "permissions",
            "key",
            "store",
            "disk",
            "file_system",
            "space",
            "clock",
            "swap",
            "open_files",
            "buffers",
        ] {
            assert!(found(check).is_some(), "{check}");
        }
        assert!(found("port").is_none(), "which one is not known");
    }
    for (host, said) in [("", "no network.host"), ("host = \"0.0.0.0\"", "nobody reaches network.host")] {
        std::fs::write(&config, good.replace("host = \"127.0.0.1\"", host)).unwrap();
        let (level, message) = look()("configuration").unwrap();
        assert!(level == "care" && message.contains(said), "{message}");
    }
    std::fs::remove_file(&config).unwrap();
    let found = look();
    assert!(found("configuration").unwrap().1.contains("relay.toml is missing in"));
    assert_eq!(found("store").unwrap().0, "fine");
    std::fs::write(&config, good).unwrap();

    std::fs::write(dir.join("store/version"), "garbage").unwrap();
    let (level, message) = look()("store").unwrap();
    assert!(level == "care" && message.contains("version"), "{message}");
    std::fs::remove_file(dir.join("store/store.keys")).unwrap();
    std::fs::write(dir.join("store/version"), b"FJL\x03").unwrap();
    let (level, message) = look()("store").unwrap();
    assert!(level == "care" && message.contains("store.keys"), "{message}");
    assert!(!dir.join("store/store.keys").exists(), "it makes none");
    std::fs::remove_file(dir.join("relay.key")).unwrap();
    assert_eq!(look()("key").unwrap().1, "relay.key is not there");
    let nothing = run(&base.path().join("absent"), &["doctor"]);
    assert_eq!(nothing.status.code(), Some(5), "{}", said(&nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_that_a_relay_does_not_answer() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, _) = relay(base.path());
    relay.signal(Signal::SIGSTOP);
    let output = run(&dir, &["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let store = text.lines().find(|line| line.contains("  store  ")).unwrap();
    assert!(store.starts_with("CARE") && store.contains("did not say"), "{text}");
    relay.kill();
}
