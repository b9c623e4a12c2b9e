//! What was taken, destroyed or has expired at a real relay: its keys are nowhere in the relay's folder when the documented
//! time is over, and without them nobody reads it, even if the engine's files had kept every byte.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use lapwing_relay::store::{Change, Day, EngineName, Mutation, Outcome, StoreOptions};
use lapwing_wire::{
    address::AccessTicket,
    capability::Subject,
    frame::*,
    ids::{BlobHash, MailboxId},
    time::Timestamp,
    tripwire::Action,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    anchor::{Anchored, COVER, REAL},
    support::{
        Client, Keys,
        client::stored,
        envelope,
        process::{Process, run_json},
    },
    tripwire::{Plan, present},
};

/// What `docs/relay-operation.md` promises.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);
/// For looking at the files and for a machine that is busy with other tests: what comes later is a broken promise. Less than the nine
/// seconds between two times of forgetting, so that what misses one is found.
const SLACK: Duration = Duration::from_secs(7);
/// Envelopes of each mailbox that has any.
const ENVELOPES: u64 = 20;
/// How many of them are taken where not all are destroyed.
const TAKEN: u64 = 15;

/// A slot: the number of its first key, the chain key of that, and the page key.
type Slot = (u64, [u8; 32], [u8; 32]);
/// Slots by file and number.
type Slots = BTreeMap<(&'static str, usize), Slot>;

/// The key files as their format says (`relay/src/store/keys`), read by other code than the relay's.
fn slots(relay: &Path) -> Slots {
    let mut found = Slots::new();
    for name in ["store.keys", "anchor.keys"] {
        let bytes = fs::read(relay.join("store").join(name)).unwrap();
        for (number, unit) in bytes.chunks(8192).enumerate() {
            let is_whole =
                |copy: &&[u8]| copy.len() == 4096 && copy[4080..] == xxh3_128(&copy[..4080]).to_le_bytes();
            let count = |copy: &&[u8]| u64::from_le_bytes(copy[..8].try_into().unwrap());
            let Some(copy) = unit.chunks(4096).filter(is_whole).max_by_key(count) else { continue };
            for (place, slot) in copy[8..4080].chunks_exact(72).take(56).enumerate() {
                if slot.iter().any(|byte| *byte != 0) {
                    let at = u64::from_le_bytes(slot[..8].try_into().unwrap());
                    let key = |from: usize| slot[from..from + 32].try_into().unwrap();
                    found.insert((name, number * 56 + place), (at, key(8), key(40)));
                }
            }
        }
    }
    found
}

/// Everything that was a key once and must not be there any more, by slot: of a slot that is empty or another's now all that it
/// led to, of one that moved on what came before. No slot here leaves its first page.
fn forgotten(before: &Slots, now: &Slots) -> BTreeMap<(&'static str, usize), Vec<[u8; 32]>> {
    let mut all = BTreeMap::new();
    for (name, &(at, chain, page)) in before {
        let moved_to = now.get(name).filter(|now| now.2 == page).map(|now| now.0);
        if moved_to == Some(at) {
            continue;
        }
        let mut keys = if moved_to.is_none() { vec![page] } else { Vec::new() };
        let mut chain = chain;
        for _ in at..moved_to.unwrap_or(ENVELOPES + 1) {
            let mut both = [0; 64];
            ChaCha20::new(&chain.into(), &[0; 12].into()).apply_keystream(&mut both);
            keys.extend([chain, both[32..].try_into().unwrap()]);
            chain.copy_from_slice(&both[..32]);
        }
        all.insert(*name, keys);
    }
    all
}

/// All files below a folder, without the zeros at their ends.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            continue;
        }
        // The relay may delete a file meanwhile, and nobody reads a socket.
        let Ok(mut bytes) = fs::read(path) else { continue };
        let end = bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0));
        bytes.truncate(end.map_or(0, |last| (last + 1) * 4096));
        found.push(bytes);
    }
    found
}

fn is_anywhere(files: &[Vec<u8>], key: &[u8]) -> bool {
    files.iter().any(|bytes| memchr::memmem::find(bytes, key).is_some())
}

/// Waits until so many slots have forgotten something and nothing of that is in any file; which slots, and after how long.
async fn until_forgotten(
    relay: &Path,
    before: &Slots,
    count: usize,
) -> (Vec<(&'static str, usize)>, Duration) {
    let begun = tokio::time::Instant::now();
    loop {
        let gone = forgotten(before, &slots(relay));
        if gone.len() >= count {
            let there = files(relay);
            if !gone.values().flatten().any(|key| is_anywhere(&there, key)) {
                return (gone.into_keys().collect(), begun.elapsed());
            }
        }
        let late = FORGOTTEN_WITHIN + SLACK;
        assert!(begun.elapsed() < late, "{} of {count} slots after {late:?}", gone.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn retain(relay: &Path, from: &str, to: &str) {
    let file = relay.join("relay.toml");
    let config = fs::read_to_string(&file).unwrap();
    let (from, to) = (format!("retention = \"{from}\""), format!("retention = \"{to}\""));
    assert!(config.contains(&from), "{config}");
    fs::write(file, config.replace(&from, &to)).unwrap();
}

async fn connect(relay: &Process) -> Client {
    Client::connect(relay.socket(), relay.address.key()).await.unwrap()
}

/// Everything that somebody has at a relay, with all keys of it.
struct Belongings {
    ticket: AccessTicket,
    /// Partly taken, closed, expired, made a sink by a tripwire, and left alone.
    mailboxes: [Keys; 5],
    alerts: Keys,
    blob: Vec<u8>,
    /// That fires, that is taken away, and that is armed anew.
    tripwires: [Plan; 3],
    /// Whose entries an entry destroys, that its owner removes, and that is left alone.
    anchors: [Anchored; 3],
}

/// What of it can be read: envelopes of each mailbox, the blob, which tripwires fire and which anchors open.
#[derive(Debug, PartialEq, Eq)]
struct Readable {
    envelopes: [Vec<u64>; 5],
    has_blob: bool,
    fires: [bool; 3],
    opens: [bool; 3],
}

impl Belongings {
    fn new(ticket: AccessTicket) -> Self {
        Self {
            ticket,
            mailboxes: [(); 5].map(|()| Keys::new()),
            alerts: Keys::new(),
            blob: (0..40_000u32).flat_map(|n| n.to_le_bytes()).take(60_000).collect(),
            tripwires: [(); 3].map(|()| Plan::new()),
            anchors: [(); 3].map(|()| Anchored::new()),
        }
    }

    /// Of one envelope in a mailbox: told from that of others.
    fn envelope(mailbox: usize, number: u64) -> Vec<u8> {
        envelope(u64::try_from(mailbox).unwrap() << 32 | number)
    }

    async fn fill(&self, client: &mut Client, mailbox: usize) {
        let keys = &self.mailboxes[mailbox];
        client.prove_access(self.ticket.secret()).await;
        let kind = if mailbox == 2 { MailboxKind::Log } else { MailboxKind::Queue };
        let create = keys.create(kind, Some(self.ticket.secret().public()), &client.binding);
        assert_eq!(client.ask(RequestBody::Create(create)).await, ResponseBody::Done);
        client.prove_all(keys).await;
        for number in 1..=ENVELOPES {
            stored(&client.append(keys.id(), Self::envelope(mailbox, number)).await);
        }
    }

    /// What expires: the log and the blob.
    async fn put_what_is_old(&self, client: &mut Client) {
        self.fill(client, 2).await;
        let put = BlobPut {
            hash: BlobHash::of(&self.blob),
            total: 60_000,
            offset: 0,
            bytes: self.blob.clone().into(),
            access: Some(self.ticket.secret().public()),
        };
        assert_eq!(client.ask(RequestBody::BlobPut(put)).await, ResponseBody::BlobProgress(60_000));
    }

    async fn put_what_is_new(&self, client: &mut Client) {
        for mailbox in [0, 1, 3, 4] {
            self.fill(client, mailbox).await;
        }
        let access = Some(self.ticket.secret().public());
        let create = self.alerts.create(MailboxKind::Queue, access, &client.binding);
        assert_eq!(client.ask(RequestBody::Create(create)).await, ResponseBody::Done);
        for anchored in &self.anchors {
            client.prove(Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
            let create = anchored.create(Some(self.ticket.secret()), None);
            assert_eq!(client.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);
        }
        for number in 0..self.tripwires.len() {
            assert_eq!(self.arm(client, number, 1).await, ResponseBody::Done);
        }
    }

    /// To append an alert of its own; the first also makes a sink.
    async fn arm(&self, client: &mut Client, number: usize, serial: u64) -> ResponseBody {
        let plan = &self.tripwires[number];
        client.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
        let alert = Action::append(
            self.alerts.id(),
            Self::envelope(9, number.try_into().unwrap()),
            &self.alerts.write,
        );
        let mut actions = vec![alert];
        if number == 0 {
            actions.push(Action::sink(self.mailboxes[3].id(), &self.mailboxes[3].admin));
        }
        client
            .ask(RequestBody::Arm(plan.arm_with(Some(self.ticket.secret().public()), serial, &actions)))
            .await
    }

    /// Takes, closes, fires, takes away, arms anew, destroys and removes. Slots that lose something by it.
    async fn destroy(&self, client: &mut Client) -> usize {
        let [taken, closed, ..] = &self.mailboxes;
        for keys in [taken, closed] {
            client.prove_all(keys).await;
        }
        let ack = Ack { mailbox: taken.id(), upto: Seq::new(TAKEN), also: Vec::new() };
        assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
        let close = Close { mailbox: closed.id() };
        assert_eq!(client.ask(RequestBody::Close(close)).await, ResponseBody::Done);

        let [fires, taken_away, _] = &self.tripwires;
        present(client, &fires.duress).await;
        client.prove_access(self.ticket.secret()).await;
        client.prove(Subject::Tripwire(taken_away.owner.public()), &taken_away.owner).await;
        let disarm = Disarm { owner: taken_away.owner.public() };
        assert_eq!(client.ask(RequestBody::Disarm(disarm)).await, ResponseBody::Done);
        assert_eq!(self.arm(client, 2, 2).await, ResponseBody::Done);

        let [destroyed, removed, _] = &self.anchors;
        client.unlock(destroyed.id(), COVER).await.unwrap();
        client.prove(Subject::Anchor(removed.owner.public()), &removed.owner).await;
        let remove = AnchorRequest::Remove(RemoveAnchor { owner: removed.owner.public() });
        assert_eq!(client.anchor(remove).await, ResponseBody::Done);
        // Mailboxes: taken, closed, a sink. Tripwires have three records and a list: the record and the list that fired, and all
        // of the two others. Two anchors.
        3 + 2 + 2 * 4 + 2
    }

    async fn envelopes(&self, client: &mut Client, id: MailboxId) -> Vec<u64> {
        let window = client.window(id, 0).await;
        for item in &window.items {
            let number = item.place.seq.value();
            let mailbox = self.mailboxes.iter().position(|keys| keys.id() == id).unwrap();
            assert_eq!(
                item.envelope.to_vec(),
                Self::envelope(mailbox, number),
                "what is shown is what was sent"
            );
        }
        window.items.iter().map(|item| item.place.seq.value()).collect()
    }

    /// With every key and passphrase that there is, at a relay that is run on an image.
    async fn read(&self, relay: &Process) -> Readable {
        let mut client = connect(relay).await;
        let mut envelopes = Vec::new();
        for keys in &self.mailboxes {
            client.prove_all(keys).await;
            envelopes.push(self.envelopes(&mut client, keys.id()).await);
        }
        let get = BlobGet { hash: BlobHash::of(&self.blob), offset: 0 };
        let has_blob = match client.ask(RequestBody::BlobGet(get)).await {
            ResponseBody::BlobPart(part) => {
                assert_eq!(part.bytes.to_vec(), self.blob);
                true
            }
            other => {
                assert_eq!(other, ResponseBody::Refused(Refusal::NotAllowed));
                false
            }
        };
        let mut opens = [false; 3];
        for (opens, anchored) in opens.iter_mut().zip(&self.anchors) {
            *opens = connect(relay).await.unlock(anchored.id(), REAL).await.is_ok();
        }
        // Last, because the first one makes a sink.
        let mut fires = [false; 3];
        client.prove_all(&self.alerts).await;
        for (number, plan) in self.tripwires.iter().enumerate() {
            let before = client.window(self.alerts.id(), 0).await.newest;
            // Refused where records are there and their keys are not: no relay is ever in that state.
            client.ask(RequestBody::Token(PresentToken { token: plan.duress.clone() })).await;
            fires[number] = client.window(self.alerts.id(), 0).await.newest > before;
        }
        Readable { envelopes: envelopes.try_into().unwrap(), has_blob, fires, opens }
    }
}

/// Makes the retention clock of a relay that does not run 40 days older.
async fn grow_old(dir: &Path, engine: EngineName) {
    let store = engine.open(&StoreOptions::at(dir.join("store"))).unwrap();
    // Far from now, so that each look is worth its two days.
    let far = Timestamp::from_millis(4_000_000_000_000);
    let mut last = None;
    for look in 0..=20 {
        let now = far.plus(Duration::from_secs(look * 2 * 86_400));
        let change = Change { mutation: Mutation::Tick, now, day: Day::new(0) };
        let Outcome::Day(day) = store.apply(change).await.unwrap() else { panic!("a day") };
        last = Some(day);
    }
    assert!(last.unwrap().value() > 40);
    store.close().await;
}

struct Places {
    base: tempfile::TempDir,
    dir: PathBuf,
}

impl Places {
    fn other(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }
}

fn init(engine: EngineName) -> Places {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let engine = engine.to_string();
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0", "--engine", &engine]);
    Places { base, dir }
}

/// After the last answer how long.
async fn keys_of_what_is_gone_are_gone_in_time(engine: EngineName) -> Duration {
    let places = init(engine);
    let dir = &places.dir;
    // Nothing expires before it is to.
    retain(dir, "30days", "365days");
    let relay = Process::start(dir);
    let issued = run_json(dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let all = Belongings::new(ticket);
    all.put_what_is_old(&mut connect(&relay).await).await;
    relay.kill();
    grow_old(dir, engine).await;
    let relay = Process::start(dir);
    all.put_what_is_new(&mut connect(&relay).await).await;
    relay.kill();
    // What making an anchor leaves to be forgotten goes with a start: all that goes from here on was destroyed.
    Process::start(dir).kill();
    copy(dir, &places.other("before"));
    let before = slots(dir);

    retain(dir, "365days", "30days");
    let relay = Process::start(dir);
    let mut client = connect(&relay).await;
    // And what expires when the relay starts: a log and a blob.
    let count = all.destroy(&mut client).await + 2;
    let (gone, took) = until_forgotten(dir, &before, count).await;
    assert_eq!(gone.len(), count, "and no others: {gone:?}");
    let was_there = files(&places.other("before"));
    for slot in &gone {
        assert!(is_anywhere(&was_there, &before[slot].1), "the search finds a key that is there");
    }
    relay.kill();

    // Files that kept every byte, with the keys that there are now.
    let (control, mixed) = (places.other("control"), places.other("mixed"));
    copy(&places.other("before"), &control);
    copy(&places.other("before"), &mixed);
    for name in ["store.keys", "anchor.keys"] {
        fs::copy(dir.join("store").join(name), mixed.join("store").join(name)).unwrap();
    }
    let whole = || (1..=ENVELOPES).collect::<Vec<_>>();
    let relay = Process::start(&control);
    let everything =
        Readable { envelopes: [(); 5].map(|()| whole()), has_blob: true, fires: [true; 3], opens: [true; 3] };
    assert_eq!(all.read(&relay).await, everything, "with the keys of before all of it is read");
    relay.kill();
    let relay = Process::start(&mixed);
    let left = Readable {
        envelopes: [(TAKEN + 1..=ENVELOPES).collect(), Vec::new(), Vec::new(), Vec::new(), whole()],
        has_blob: false,
        fires: [false; 3],
        opens: [false, false, true],
    };
    assert_eq!(all.read(&relay).await, left, "with the keys of now what is left, and nothing else");
    relay.kill();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_expired_or_destroyed_at_a_real_relay_is_unreadable_within_the_documented_time() {
    let took = keys_of_what_is_gone_are_gone_in_time(EngineName::Fjall).await;
    println!("forgotten {took:?} after the last answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_expired_or_destroyed_at_a_real_relay_with_sled_is_unreadable_within_the_documented_time()
 {
    let took = keys_of_what_is_gone_are_gone_in_time(EngineName::Sled).await;
    println!("forgotten {took:?} after the last answer");
}

/// A relay that is killed before it came to it does it after its next start, without being asked for anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_right_before_a_relay_was_killed_is_unreadable_when_it_has_started_again() {
    let places = init(EngineName::Fjall);
    let dir = &places.dir;
    let relay = Process::start(dir);
    let issued = run_json(dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let all = Belongings::new(ticket);
    let mut client = connect(&relay).await;
    all.fill(&mut client, 0).await;
    let before = slots(dir);
    let ack = Ack { mailbox: all.mailboxes[0].id(), upto: Seq::new(TAKEN), also: Vec::new() };
    assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    relay.kill();
    assert!(slots(dir) == before, "killed before it came to it");
    let relay = Process::start(dir);
    let (_, took) = until_forgotten(dir, &before, 1).await;
    println!("forgotten {took:?} after it listened");
    let mut client = connect(&relay).await;
    client.prove_all(&all.mailboxes[0]).await;
    let left = all.envelopes(&mut client, all.mailboxes[0].id()).await;
    assert_eq!(left, (TAKEN + 1..=ENVELOPES).collect::<Vec<_>>());
    relay.kill();
}
