//! What a relay tells its operator, and what it does not: numbers for monitoring, the log, work that could be timed.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use lapwing_relay::{
    limits::Limits,
    store::{
        Change, Mailbox, MailboxStore, Outcome, StoreError, Ticket, Totals, WindowQuery, memory::MemoryStore,
    },
};
use lapwing_wire::{
    address::AccessTicket,
    capability::{Access, PublicKey, Right, SecretKey, Subject},
    frame::*,
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};
use nix::sys::signal::Signal;

use crate::support::{
    Client, Keys, Relay,
    client::{append, stored},
    envelope, local,
    process::{Process, run, run_json},
};

fn get(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_log_have_no_label_no_id_no_address() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    let open = config.replace("[metrics]", "[ignored]").replace("listen = \"\"", "");
    assert_ne!(open, config);
    let listening = format!("{open}\n[metrics]\nlisten = \"127.0.0.1:0\"\n");
    std::fs::write(dir.join("relay.toml"), &listening).unwrap();
    let log = base.path().join("log");
    let relay = Process::start_logging(&dir, std::fs::File::create(&log).unwrap());
    let read_log = || std::fs::read_to_string(&log).unwrap();
    let port = read_log().lines().find_map(|line| {
        line.split_once("metrics on http://127.0.0.1:")?.1.split_once("/metrics")?.0.parse().ok()
    });
    let port: u16 = port.expect("where it listens");

    let issued = run_json(&dir, &["access", "issue", "--size", "2 KiB"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    client.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    let mut writer = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    writer.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    stored(&writer.append(keys.id(), envelope(1)).await);
    stored(&writer.append(keys.id(), envelope(2)).await);
    assert_eq!(writer.append(keys.id(), envelope(3)).await, ResponseBody::Refused(Refusal::Full));
    let text = get(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let mut names = std::collections::BTreeSet::new();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap();
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(plain && name.starts_with("lapwing_relay_"), "no labels: {line}");
        assert!(names.insert(name.to_owned()), "once: {line}");
        value.parse::<f64>().unwrap();
    }
    for line in ["connections 2", "envelopes_stored_total 2", "refused_full_total 1", "connections_total 2"] {
        assert!(body.contains(&format!("\nlapwing_relay_{line}\n")), "{line}: {body}");
    }
    assert!(get(port, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(get(port, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert_eq!(get(port, &"x".repeat(9000)), "", "no endless heads");

    run_json(&dir, &["rotate-key"]);
    std::fs::write(dir.join("relay.toml"), listening.replace("port = 0", "port = 1")).unwrap();
    relay.signal(Signal::SIGHUP);
    let begun = std::time::Instant::now();
    while !read_log().contains("limits read again") {
        assert!(begun.elapsed() < crate::support::PATIENCE, "{}", read_log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(read_log().contains("these take effect at the next start: network.port"), "{}", read_log());
    run_json(&dir, &["status"]);
    run_json(&dir, &["access", "list"]);
    run_json(&dir, &["access", "revoke", issued["name"].as_str().unwrap()]);
    run_json(&dir, &["backup", base.path().join("backup").to_str().unwrap()]);
    // What it finds is the machine's.
    assert!(matches!(run(&dir, &["doctor"]).status.code(), Some(0 | 1)));
    let after = get(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let page = include_str!("../../../docs/relay-operation.md");
    for name in &names {
        let short = name.trim_start_matches("lapwing_relay_");
        assert!(page.contains(&format!("`{short}`")), "the operator's page does not have {short}");
    }
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());
    let base32 = |bytes: &[u8]| data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    for said in [read_log(), body.to_owned(), after] {
        let said = said.to_ascii_lowercase();
        for id in [*keys.id().as_bytes(), *ticket.secret().public().as_bytes()] {
            assert!(!said.contains(&base32(&id)[..13]) && !said.contains(&hex(&id)[..16]), "{said}");
        }
        assert!(!said.replace("http://127.0.0.1", "").contains("127.0.0.1"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_short_of_room_is_told_by_status_numbers_and_log() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    assert_eq!(run_json(&dir, &["status"])["pressure"], "none");
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    let config = config.replace("listen = \"\"", "listen = \"127.0.0.1:0\"");
    // No disk has as much.
    let short = config.replace("reserve = \"512 MiB\"", "reserve = \"8000000 TiB\"");
    assert_ne!(short, config);
    std::fs::write(dir.join("relay.toml"), &short).unwrap();
    let asked = || String::from_utf8(run(&dir, &["status"]).stdout).unwrap();
    assert!(
        asked().contains("short of room: nothing new is taken"),
        "also while it does not run: {}",
        asked()
    );

    let log = base.path().join("log");
    let relay = Process::start_logging(&dir, std::fs::File::create(&log).unwrap());
    let read_log = || std::fs::read_to_string(&log).unwrap();
    let is_logged = async |text: &str| {
        let begun = std::time::Instant::now();
        while !read_log().contains(text) {
            assert!(begun.elapsed() < crate::support::PATIENCE, "{}", read_log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let port = read_log().lines().find_map(|line| {
        line.split_once("metrics on http://127.0.0.1:")?.1.split_once("/metrics")?.0.parse().ok()
    });
    let port: u16 = port.expect("where it listens");
    let number = || {
        let text = get(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        text.lines().find_map(|line| line.strip_prefix("lapwing_relay_disk_pressure ").map(str::to_owned))
    };
    is_logged("the disk is short of room: nothing new is taken").await;
    assert_eq!(run_json(&dir, &["status"])["pressure"], "nothing_new");
    assert!(asked().contains("short of room: nothing new is taken"), "{}", asked());
    assert_eq!(number().as_deref(), Some("2"));

    std::fs::write(dir.join("relay.toml"), config.replace("512 MiB", "1 B")).unwrap();
    relay.signal(Signal::SIGHUP);
    is_logged("limits read again").await;
    assert_eq!(run_json(&dir, &["status"])["pressure"], "none");
    assert!(!asked().contains("short of room"), "{}", asked());
    assert_eq!(number().as_deref(), Some("0"));
    relay.kill();
    assert_eq!(read_log().matches("short of room").count(), 1, "once: {}", read_log());
}

#[test]
fn numbers_are_for_this_machine_only() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    std::fs::write(dir.join("relay.toml"), "[metrics]\nlisten = \"0.0.0.0:9464\"").unwrap();
    let refused = run(&dir, &["serve"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("metrics.listen"));
}

/// A store that notes what it is asked.
#[derive(Default)]
struct Noting {
    store: MemoryStore,
    asked: Mutex<Vec<&'static str>>,
}

impl Noting {
    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push(what);
    }
}

#[async_trait]
impl MailboxStore for Noting {
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        self.note("apply");
        self.store.apply(change).await
    }
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError> {
        self.note("mailbox");
        self.store.mailbox(id).await
    }
    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError> {
        self.note("window");
        self.store.window(query).await
    }
    async fn blob_part(&self, hash: BlobHash, offset: u64) -> Result<Option<BlobPart>, StoreError> {
        self.note("blob_part");
        self.store.blob_part(hash, offset).await
    }
    async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
        self.note("blob_digest");
        self.store.blob_digest(hash).await
    }
    async fn ticket(&self, key: PublicKey<Access>) -> Result<Option<Ticket>, StoreError> {
        self.note("ticket");
        self.store.ticket(key).await
    }
    async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        self.note("tickets");
        self.store.tickets().await
    }
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        self.note("totals");
        self.store.totals(now).await
    }
    async fn close(&self) {
        self.store.close().await;
    }
}

/// FRM-04: what is not there and what is another's are asked for in every way that there is; the bytes of all answers, and
/// what the store was asked.
async fn asked(
    noting: &Noting,
    stranger: &mut Client,
    bodies: Vec<RequestBody>,
) -> (Vec<Vec<u8>>, Vec<&'static str>) {
    noting.asked.lock().unwrap().clear();
    let mut answers = Vec::new();
    for body in bodies {
        let body = stranger.ask(body).await;
        answers.push(encode_frame(&Response { id: 0, body }).unwrap());
    }
    (answers, std::mem::take(&mut *noting.asked.lock().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn frm_04_unknown_and_forbidden_are_one_work() {
    let noting = Arc::new(Noting::default());
    let relay = Relay::over(Arc::clone(&noting) as _, Limits::default(), local(), None).await;
    let mut owner = relay.client().await;
    let there = owner.mailbox(&relay.access, MailboxKind::Queue).await.id();
    stored(&owner.append(there, envelope(1)).await);
    let nowhere = Keys::new().id();
    let mut stranger = relay.client().await;
    let key = SecretKey::<lapwing_wire::capability::Write>::generate(&mut rand::rng());
    let binding = stranger.binding;
    let bodies = |id| {
        let window = Read { mailbox: id, after: Seq::START, count: 1 };
        let mut bodies: Vec<RequestBody> = [Right::Read, Right::Write, Right::Admin]
            .into_iter()
            .map(|right| {
                let subject = Subject::Mailbox(id, right);
                RequestBody::Prove(Prove { subject, signature: subject.prove(&key, &binding) })
            })
            .collect();
        bodies.extend([
            append(id, envelope(1)),
            RequestBody::Read(window.clone()),
            RequestBody::Subscribe(window),
            RequestBody::Ack(Ack { mailbox: id, upto: Seq::new(1), also: Vec::new() }),
            RequestBody::Close(Close { mailbox: id }),
        ]);
        bodies
    };
    let known = asked(&noting, &mut stranger, bodies(there)).await;
    let unknown = asked(&noting, &mut stranger, bodies(nowhere)).await;
    assert_eq!(known.1, ["mailbox"; 3], "one look for each proof, none for what was not proved");
    assert_eq!(known, unknown);
    let refused = Response { id: 0, body: ResponseBody::Refused(Refusal::NotAllowed) };
    assert!(known.0.iter().all(|answer| *answer == encode_frame(&refused).unwrap()));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frm_04_half_an_upload_a_plan_and_an_ended_ticket_are_answered_as_what_is_not_there() {
    let noting = Arc::new(Noting::default());
    let relay = Relay::over(Arc::clone(&noting) as _, Limits::default(), local(), None).await;
    let mut owner = relay.client().await;
    owner.prove_access(&relay.access).await;
    let half = BlobHash::from_bytes([1; 32]);
    let put = BlobPut {
        hash: half,
        total: 1 << 20,
        offset: 0,
        bytes: vec![1; 64 << 10].into(),
        access: Some(relay.access.public()),
    };
    assert!(matches!(owner.ask(RequestBody::BlobPut(put)).await, ResponseBody::BlobProgress(_)));
    let plan = crate::tripwire::Plan::new();
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    assert_eq!(owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &[]))).await, ResponseBody::Done);
    let ended = SecretKey::<Access>::generate(&mut rand::rng());
    let ticket = Ticket::new(ended.public(), 1 << 20, 1, None);
    relay.service.issue_access(ticket, crate::support::NOW).await.unwrap();
    assert!(relay.service.revoke_access(ended.public(), crate::support::NOW).await.unwrap());

    let mut stranger = relay.client().await;
    let binding = stranger.binding;
    let other = crate::tripwire::Plan::new();
    let nobody = SecretKey::<Access>::generate(&mut rand::rng());
    let bodies = |hash, plan: &crate::tripwire::Plan, access: &SecretKey<Access>| {
        let subject = Subject::Access(access.public());
        vec![
            RequestBody::BlobGet(BlobGet { hash, offset: 0 }),
            RequestBody::Disarm(Disarm { owner: plan.owner.public() }),
            RequestBody::Arm(plan.arm_with(None, 9, &[])),
            RequestBody::Prove(Prove { subject, signature: subject.prove(access, &binding) }),
        ]
    };
    let known = asked(&noting, &mut stranger, bodies(half, &plan, &ended)).await;
    let unknown = asked(&noting, &mut stranger, bodies(BlobHash::from_bytes([2; 32]), &other, &nobody)).await;
    assert_eq!(known.1, ["blob_part", "ticket"]);
    assert_eq!(known, unknown);
    relay.stop().await;
}
