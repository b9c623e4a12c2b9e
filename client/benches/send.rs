//! Sending to one person: encrypt, and commit message, advanced session and envelope, on a real vault file, in a
//! compartment with 1,000 contacts and 100,000 messages; beside the same number of the disk's own syncs.
//!
//! `cargo bench -p lapwing --bench send`. What is required is at the end: under 3 ms beyond the disk.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark looks at the clock and makes a file of its own")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::Criterion;
use lapwing::{
    engine::{self, Command, DEFAULT_VALIDITY, Effect, Event, Reply},
    store::{
        Base, Changes, ChatId, ChatKind, ChatRow, MailboxRow, MemoryBase, MessageRow, MessageState, OpKind,
        OpRow, Unit, VolumeBase, Writer,
    },
};
use lapwing_protocol::content::MessageId;
use lapwing_vault::{Backend, Container, ContainerSize, Cost, FileBackend, Passphrase};
use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    capability::SecretKey,
    frame::{BlobPart, Item, ResponseBody, Stored, Window},
    ids::{BlobHash, EnvelopeId, RunningHash},
    time::Timestamp,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

const CONTACTS: usize = 1_000;
const MESSAGES: u64 = 100_000;
/// Longest time of one send beyond the disk's syncs.
const BOUND: Duration = Duration::from_millis(3);
/// Sends, and as many rounds of plain syncs, taken in turns.
const ROUNDS: usize = 200;

/// A file that counts how often it is synced.
struct Counting {
    file: FileBackend,
    syncs: Arc<AtomicU64>,
}

impl Backend for Counting {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn reserve(&self, size: u64) -> io::Result<()> {
        self.file.reserve(size)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn flush(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync()
    }
    fn finish_creation(&self) -> io::Result<()> {
        self.file.finish_creation()
    }
    fn lock(&self, wait: Duration) -> io::Result<bool> {
        self.file.lock(wait)
    }
    fn unlock(&self) {
        self.file.unlock();
    }
    fn lock_requested(&self) -> io::Result<bool> {
        self.file.lock_requested()
    }
}

/// Somebody's records, and what a relay would answer them.
struct Party<'a> {
    base: &'a dyn Base,
    rng: ChaCha20Rng,
}

impl Party<'_> {
    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut unit = Unit::new(self.base);
        let effects = engine::handle(&mut unit, event, NOW, &mut self.rng).unwrap();
        self.base.commit(unit.into_changes()).unwrap();
        effects
    }

    fn command(&mut self, command: Command) -> Reply {
        let effects = self.handle(Event::Command(command));
        let reply = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply(reply) => Some(reply),
            _ => None,
        });
        reply.unwrap()
    }

    fn operations(&self) -> Vec<(u64, OpRow)> {
        Unit::new(self.base).scan::<OpRow>(&[]).unwrap()
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// Plays the relay between two people until nothing waits.
fn carry(parties: &mut [Party<'_>; 2], blobs: &mut BTreeMap<BlobHash, Vec<u8>>) {
    loop {
        let mut moved = false;
        for who in 0..2 {
            for (op, row) in parties[who].operations() {
                let body = match row.kind {
                    OpKind::Create { .. } | OpKind::Close { .. } => ResponseBody::Done,
                    OpKind::PutBlob { hash, bytes, .. } => {
                        let total = bytes.len() as u64;
                        blobs.insert(hash, bytes.into_vec());
                        ResponseBody::BlobProgress(total)
                    }
                    OpKind::GetBundle { hash, .. } => {
                        let bytes = blobs.get(&hash).unwrap().clone();
                        ResponseBody::BlobPart(BlobPart { total: bytes.len() as u64, bytes: bytes.into() })
                    }
                    OpKind::Append { mailbox, envelope, .. } => {
                        let place = deliver(&mut parties[1 - who], mailbox, envelope.into_vec());
                        ResponseBody::Stored(place)
                    }
                    other => panic!("not part of an introduction: {other:?}"),
                };
                parties[who].handle(Event::Answer { op, body });
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

fn deliver(to: &mut Party<'_>, mailbox: lapwing_wire::ids::MailboxId, envelope: Vec<u8>) -> Stored {
    let row: Option<MailboxRow> = Unit::new(to.base).get(&mailbox).unwrap();
    let (seq, before) = row.map_or((lapwing_wire::frame::Seq::START, None), |row| (row.cursor, row.hash));
    let seq = seq.next();
    let hash = before.unwrap_or(RunningHash::START).next(seq.value(), &EnvelopeId::of(&envelope));
    let place = Stored { seq, hash };
    let window = Window { mailbox, newest: seq, items: vec![Item { place, envelope: envelope.into() }] };
    to.handle(Event::Window { window, caught_up: true });
    place
}

/// A compartment with many contacts and many messages, in memory.
fn crowd() -> MemoryBase {
    let (mine, theirs) = (MemoryBase::default(), MemoryBase::default());
    let key = RelayKey::of_spki(b"a relay");
    let relay = RelayAddress::new(key, "relay.example", 443).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let ticket = AccessTicket::new(relay, SecretKey::generate(&mut rng)).to_text();
    let party = |base, seed| Party { base, rng: ChaCha20Rng::seed_from_u64(seed) };
    let mut parties = [party(&mine as &dyn Base, 2), party(&theirs as &dyn Base, 3)];
    for person in &mut parties {
        person.command(Command::AddRelay { ticket: ticket.clone() });
    }
    let mut blobs = BTreeMap::new();
    for number in 0..CONTACTS {
        let name = format!("contact {number}");
        let invite = Command::Invite { name: name.clone(), relay: None, validity: DEFAULT_VALIDITY };
        let Reply::Ticket { text, .. } = parties[0].command(invite) else { panic!("a ticket") };
        parties[1].command(Command::Join { ticket: text, name });
        carry(&mut parties, &mut blobs);
        blobs.clear();
    }
    let mut unit = Unit::new(&mine);
    let chats = unit.scan::<ChatRow>(&[]).unwrap();
    assert_eq!(chats.len(), CONTACTS);
    let busiest = chats[0].0;
    for number in 0..MESSAGES {
        // Half of them in one chat.
        let chat = if number % 2 == 0 { busiest } else { chats[rng.next_u32() as usize % CONTACTS].0 };
        let mut body = vec![0; 120];
        rng.fill_bytes(&mut body);
        let row = MessageRow {
            id: MessageId::from_bytes([0; 16]),
            writer: Writer::Peer,
            sent: NOW,
            stored: NOW,
            state: MessageState::Received,
            lives: None,
            key: [0; 16],
            body: body.into(),
        };
        let order = unit.next(lapwing::store::Counter::Order).unwrap();
        unit.put(&(chat, order), &row);
    }
    let changes = unit.into_changes();
    mine.commit(changes).unwrap();
    mine
}

/// Copies all records into a volume, a few thousand at a time.
fn copy(from: &MemoryBase, to: &VolumeBase) {
    let mut first = Vec::new();
    loop {
        let page = from.range(&first, &[0xff; 64], 4_000, false).unwrap();
        let Some((last, _)) = page.last() else { return };
        first = [last.as_slice(), &[0]].concat();
        to.commit(page.into_iter().map(|(key, value)| (key, Some(value))).collect::<Changes>()).unwrap();
    }
}

fn volume(folder: &Path, syncs: &Arc<AtomicU64>) -> VolumeBase {
    let file = FileBackend::create(&folder.join("vault")).unwrap();
    let backend = Counting { file, syncs: Arc::clone(syncs) };
    let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let passphrase = Passphrase::new("lapwing nest reed marsh");
    let size = ContainerSize::new(1 << 30).unwrap();
    let session = Container::create(backend, size, &passphrase, cost, &mut rng, &mut |_, _| {}).unwrap();
    let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
    // The session's lock is not needed any more; the volume keeps the file.
    std::mem::forget(session);
    VolumeBase::new(volume)
}

fn send(base: &VolumeBase, chat: &str, rng: &mut ChaCha20Rng) {
    let mut unit = Unit::new(base);
    let text = "meet at the ford at nine, bring the banner".to_owned();
    let command = Event::Command(Command::Send { chat: chat.to_owned(), text });
    let effects = engine::handle(&mut unit, command, NOW, rng).unwrap();
    assert!(matches!(effects.as_slice(), [Effect::Reply(Reply::Message { .. })]));
    base.commit(unit.into_changes()).unwrap();
}

fn plain_syncs(file: &mut File, count: u64, block: &[u8]) {
    for _ in 0..count {
        file.write_all(block).unwrap();
        file.sync_data().unwrap();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let records = crowd();
    let base = volume(folder.path(), &syncs);
    copy(&records, &base);
    drop(records);
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let unit = Unit::new(&base);
    let chats = unit.scan::<ChatRow>(&[]).unwrap();
    let busiest: (ChatId, ChatRow) = chats.into_iter().next().unwrap();
    assert_eq!(busiest.1.kind, ChatKind::Direct);
    drop(unit);
    let name = busiest.1.name;
    let block = vec![0xa5; 16 << 10];
    let mut plain = File::create(folder.path().join("plain")).unwrap();
    send(&base, &name, &mut rng);

    // The first send of a day makes a key for its bodies; the others are the usual ones.
    let before = syncs.load(Ordering::Relaxed);
    send(&base, &name, &mut rng);
    let per_send = syncs.load(Ordering::Relaxed) - before;
    let (mut sends, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        send(&base, &name, &mut rng);
        sends.push(begin.elapsed());
        let begin = Instant::now();
        plain_syncs(&mut plain, per_send, &block);
        floors.push(begin.elapsed());
    }
    let (sent, floor) = (median(sends), median(floors));
    let beyond = sent.saturating_sub(floor);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "one send: {sent:?}, {per_send} syncs; {per_send} plain syncs: {floor:?}; beyond: {beyond:?}"
    )
    .unwrap();
    assert!(beyond < BOUND, "a send takes {beyond:?} beyond the disk's syncs");
    drop(out);

    let mut criterion = Criterion::default().configure_from_args().sample_size(50);
    let mut group = criterion.benchmark_group("send to one person");
    group.bench_function("encrypt, commit, outbox", |b| b.iter(|| send(&base, &name, &mut rng)));
    group.bench_function("as many plain syncs", |b| b.iter(|| plain_syncs(&mut plain, per_send, &block)));
    group.finish();
    criterion.final_summary();
}
