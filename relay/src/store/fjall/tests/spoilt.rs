//! A block of the index that the disk has spoilt, in a store as it is.

use std::{os::unix::fs::FileExt, path::PathBuf};

use lapwing_wire::{
    capability::{PublicKey, SecretKey, TripwireOwner},
    frame::{MailboxKind, Seq},
    ids::{EnvelopeId, MailboxId, TripwireId},
    time::Timestamp,
    tripwire::{Action, Causes, Deadline, ListKey, SealedList},
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    super::{
        super::{
            Change, Charge, MailboxKeys, MailboxStore, Mutation, Outcome, StoreOptions, WindowQuery,
            mailbox_id,
            tables::{Tables, Value},
        },
        *,
    },
    Born, Day,
};

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
const COUNT: u64 = 400;
/// Rows that one block and what lies beside it have at most.
const LOST: usize = 80;

async fn apply(store: &FjallStore, mutation: Mutation) -> Outcome {
    let change = Change { mutation, now: NOW, day: Day::new(1) };
    store.apply(change).await.unwrap()
}

struct One {
    admin: SecretKey<lapwing_wire::capability::Admin>,
    write: SecretKey<lapwing_wire::capability::Write>,
    owner: PublicKey<TripwireOwner>,
    born: Born,
}

impl One {
    fn new(number: u64) -> Self {
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let owner = SecretKey::from_seed(seed).public();
        Self {
            admin: SecretKey::from_seed(seed),
            write: SecretKey::from_seed(seed),
            owner,
            born: Born::new(number + 1),
        }
    }

    fn id(&self) -> MailboxId {
        mailbox_id(&self.admin.public())
    }

    fn tripwire(&self) -> TripwireId {
        TripwireId::of_owner(&self.owner)
    }

    async fn make(&self, store: &FjallStore) {
        let admin = self.admin.public();
        let keys =
            MailboxKeys { admin, read: PublicKey::from_bytes(*admin.as_bytes()), write: self.write.public() };
        let (kind, charge, born) = (MailboxKind::Queue, Charge::Open, self.born);
        apply(store, Mutation::Create { keys, kind, charge, born }).await;
        let envelope = vec![1; 1024];
        let id = EnvelopeId::of(&envelope);
        let (mailbox, limit) = (self.id(), 1 << 20);
        apply(store, Mutation::Append { mailbox, born, id, envelope: envelope.into(), limit, reserve: 0 })
            .await;
        let mut rng = StdRng::seed_from_u64(1);
        let list_key = ListKey::generate(&mut rng);
        let list = SealedList::seal(&[], &self.tripwire(), &list_key, &mut rng).unwrap();
        let actions = vec![Action::append(self.id(), vec![2; 1024], &self.write)];
        let alerting = Some(Deadline { after_s: 600, actions });
        let causes = Box::new(Causes { alerting, ..Causes::default() });
        let (owner, records) = (self.owner, Vec::new());
        apply(store, Mutation::Arm { owner, serial: 1, records, list, causes, charge }).await;
    }

    /// How many envelopes its mailbox shows.
    async fn shown(&self, store: &FjallStore) -> Result<usize, StoreError> {
        let (mailbox, born, after) = (self.id(), self.born, Seq::START);
        let window = store.window(WindowQuery { mailbox, born, after, count: 9, bytes: 1 << 20 }).await?;
        Ok(window.unwrap().items.len())
    }
}

/// Spoils the block of the index in which a row lies: bytes of the tables, until it cannot be read. The byte that was there, and where.
fn spoil_block_of(store: &Path, space: Space, row: &[u8]) -> (PathBuf, u64, [u8; 1]) {
    let engine = Fjall::open(store, CACHE).unwrap();
    let keyspace = if space == Space::Bulk { &engine.bulk } else { &engine.state };
    keyspace.rotate_memtable_and_wait().unwrap();
    let folder = keyspace.path().join("tables");
    drop(engine);
    // Some blocks it does not open without.
    let is_lost = || Fjall::open(store, CACHE).is_ok_and(|engine| engine.direct().load(space, row).is_err());
    assert!(!is_lost());
    for table in std::fs::read_dir(folder).unwrap() {
        let path = table.unwrap().path();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        // Blocks of rows come first; behind them lies what finds them.
        for at in (500..length * 9 / 10).step_by(1500) {
            let mut byte = [0; 1];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            if is_lost() {
                return (path, at, byte);
            }
            file.write_all_at(&byte, at).unwrap();
        }
    }
    panic!("it lies in no table");
}

fn restore((path, at, byte): (PathBuf, u64, [u8; 1])) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&byte, at).unwrap();
}

/// What comes to a mailbox whose rows lie in a damaged block lies whole in other tables. A reader is shown nothing behind what he was
/// not shown: he would take it too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_behind_what_a_damaged_block_hides() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let all = filled(&options).await;
    let spoilt = spoil_block_of(&options.path, Space::Bulk, &key::envelope(all[200].born, Seq::START.next()));
    let store = FjallStore::open(&options).unwrap();
    let mut stored = Vec::new();
    for one in &all {
        let mut count = usize::from(one.shown(&store).await == Ok(1));
        for number in 0..8 {
            let (mailbox, born, limit) = (one.id(), one.born, 1 << 20);
            let envelope = vec![10 + number; 1024];
            let id = EnvelopeId::of(&envelope);
            let append = Mutation::Append { mailbox, born, id, envelope: envelope.into(), limit, reserve: 0 };
            let change = Change { mutation: append, now: NOW, day: Day::new(1) };
            count += usize::from(matches!(store.apply(change).await, Ok(Outcome::Stored { .. })));
        }
        stored.push(count);
    }
    let mut hidden = 0;
    for one in &all {
        let (mailbox, born, after) = (one.id(), one.born, Seq::START);
        let query = WindowQuery { mailbox, born, after, count: 9, bytes: 1 << 20 };
        match store.window(query).await {
            Ok(window) => {
                let shown: Vec<u64> =
                    window.unwrap().items.iter().map(|item| item.place.seq.value()).collect();
                let from_the_first: Vec<u64> = (1..=shown.len() as u64).collect();
                assert_eq!(shown, from_the_first, "nothing is passed over");
            }
            Err(failure) => {
                assert_eq!(failure, StoreError::Damaged);
                hidden += 1;
            }
        }
    }
    assert!((1..LOST).contains(&hidden), "{hidden} mailboxes wait");
    store.close().await;
    drop(store);
    restore(spoilt);
    let store = FjallStore::open(&options).unwrap();
    for (one, stored) in all.iter().zip(stored) {
        assert!(one.shown(&store).await.unwrap() >= stored, "all is there again");
    }
    store.close().await;
}

/// Deadlines that cannot be seen are not taken for come: they come when the disk reads again.
#[tokio::test(flavor = "multi_thread")]
async fn trp_10_deadlines_that_damage_hides_come_when_it_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let all = filled(&options).await;
    let tripwire = all[200].tripwire();
    let mut due = None;
    {
        let engine = Fjall::open(&options.path, CACHE).unwrap();
        let (first, last) = key::all(b'q');
        let mut look = |name: &[u8], _: &Value<'_>| {
            if name.windows(32).any(|id| id == tripwire.as_bytes()) {
                due = Some(name.to_vec());
            }
            Ok(super::Scan::More)
        };
        engine.direct().scan(Space::State, &first, &last, &mut look).unwrap();
    }
    // Both are in the order of the same ids: of some neither the deadline is seen nor the tripwire.
    let spoilt =
        [due.unwrap(), key::tripwire(&tripwire)].map(|row| spoil_block_of(&options.path, Space::State, &row));
    let store = FjallStore::open(&options).unwrap();
    let before = watched(&store, 12).await;
    store.close().await;
    drop(store);
    let whole = usize::try_from(COUNT).unwrap();
    assert!((whole - LOST..whole).contains(&before), "{before} came");
    spoilt.into_iter().for_each(restore);
    let store = FjallStore::open(&options).unwrap();
    assert_eq!(before + watched(&store, 70).await, whole, "each once");
    store.close().await;
}

/// How many alerts come in some minutes.
async fn watched(store: &FjallStore, minutes: usize) -> usize {
    let mut came = 0;
    for _ in 0..minutes {
        let mut elapsed = Duration::from_secs(60);
        loop {
            let watch = Mutation::Watch { elapsed, filler: [1; 32] };
            let Outcome::Watched { appended, has_more, .. } = apply(store, watch).await else { panic!() };
            came += appended.len();
            elapsed = Duration::ZERO;
            if !has_more {
                break;
            }
        }
    }
    came
}

/// Spoils the block of the index in which the last bytes of an id stand first.
fn spoil(store: &Path, id: &[u8; 32]) {
    let engine = Fjall::open(store, CACHE).unwrap();
    engine.state.rotate_memtable_and_wait().unwrap();
    drop(engine);
    let keyspaces = std::fs::read_dir(store.join(KEYSPACES)).unwrap();
    let tables = keyspaces.flat_map(|space| std::fs::read_dir(space.unwrap().path().join("tables")).unwrap());
    let mut found = Vec::new();
    for path in tables.map(|table| table.unwrap().path()).collect::<Vec<PathBuf>>() {
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, &id[12..]) {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            found.push(path);
        }
    }
    assert_eq!(found.len(), 1, "it stands in one table");
}

const CACHE: u64 = 16 << 20;

async fn filled(options: &StoreOptions) -> Vec<One> {
    let store = FjallStore::open(options).unwrap();
    let all: Vec<One> = (0..COUNT).map(One::new).collect();
    futures_util::future::join_all(all.iter().map(|one| one.make(&store))).await;
    store.close().await;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_of_mailboxes_keeps_no_others_from_being_swept() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let mut all = filled(&options).await;
    all.sort_by_key(|one| *one.id().as_bytes());
    spoil(&options.path, all[200].id().as_bytes());
    let store = FjallStore::open(&options).unwrap();
    assert_eq!(store.mailbox(all[200].id()).await, Err(StoreError::Damaged));
    let mut from = None;
    loop {
        let sweep = Mutation::Sweep {
            from,
            keep_from: Day::new(9),
            blobs_from: Day::new(9),
            unfinished_from: Day::new(9),
        };
        match apply(&store, sweep).await {
            Outcome::Swept { next: Some(next), .. } => from = Some(next),
            _ => break,
        }
    }
    let mut left = 0;
    for one in &all {
        left += usize::from(one.shown(&store).await != Ok(0));
    }
    store.close().await;
    assert!((1..LOST).contains(&left), "{left} mailboxes are not swept");
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_10_a_damaged_block_of_deadlines_keeps_none_from_coming() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let all = filled(&options).await;
    // In the order of time it stands before the tripwire's own record.
    spoil(&options.path, all[200].tripwire().as_bytes());
    let engine = Fjall::open(&options.path, CACHE).unwrap();
    let (first, last) = key::all(b'q');
    let looked = engine.direct().scan(Space::State, &first, &last, &mut |_, _| Ok(super::Scan::More));
    assert_eq!(looked, Err(StoreError::Damaged), "it is one of the deadlines'");
    drop(engine);
    let store = FjallStore::open(&options).unwrap();
    let mut came = 0;
    for _ in 0..12 {
        let mut elapsed = Duration::from_secs(60);
        loop {
            let watch = Mutation::Watch { elapsed, filler: [1; 32] };
            let Outcome::Watched { appended, has_more, .. } = apply(&store, watch).await else { panic!() };
            came += appended.len();
            elapsed = Duration::ZERO;
            if !has_more {
                break;
            }
        }
    }
    store.close().await;
    assert_eq!(came, all.len(), "of those that were to come");
}
