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
            mailbox_id, tables::Tables,
        },
        *,
    },
    Born, Day,
};

const COUNT: u64 = 400;
/// Rows that one block and what lies beside it have at most.
const LOST: usize = 80;

async fn apply(store: &FjallStore, mutation: Mutation) -> Outcome {
    let change = Change { mutation, now: Timestamp::from_millis(1_750_000_000_000), day: Day::new(1) };
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
        let sweep = Mutation::Sweep { from, keep_from: Day::new(9), unfinished_from: Day::new(9) };
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
