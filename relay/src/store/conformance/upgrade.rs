//! Stores of earlier formats: the one before is read and means the same, the one before that is refused and left as it was.

use std::{collections::BTreeMap, path::Path};

use lapwing_wire::{
    codec,
    frame::{Evaluate, ProveEntry},
    oprf::Blinded,
};
use sha2::{Digest, Sha256};

use super::{
    anchors::{Anchored, anchor, unlock},
    *,
};
use crate::store::{
    AnchorChange, AnchorOutcome, EngineName, StoreOptions,
    engine::Engine,
    fjall::{self, Fjall},
    record::{self, key},
    sled::{self, Sled},
    tables::{Scan, Space, Tables, Value, Writes},
};

/// What programs wrote before format 9 of `fjall` and 8 of `sled`, field by field in their order: names and types are in the bytes.
mod before {
    use lapwing_wire::{
        capability::{Access, AnchorOwner, PublicKey, Thaw},
        frame::ThawRule,
        time::Timestamp,
    };
    use serde::Serialize;
    use serde_bytes::ByteArray;

    #[derive(Serialize)]
    pub(super) struct Anchor {
        pub(super) owner: PublicKey<AnchorOwner>,
        pub(super) serial: u64,
        #[serde(with = "serde_bytes")]
        pub(super) digest: [u8; 32],
        pub(super) slot: u32,
        pub(super) version: u64,
        pub(super) failures: u8,
        pub(super) since: u32,
        pub(super) is_frozen: bool,
        pub(super) evaluations: Vec<Evaluation>,
        pub(super) thaw: ThawRule,
        pub(super) raised: Vec<PublicKey<Thaw>>,
        pub(super) charged: u64,
        pub(super) access: Option<PublicKey<Access>>,
    }

    #[derive(Serialize)]
    pub(super) struct Evaluation {
        #[serde(with = "serde_bytes")]
        pub(super) id: [u8; 32],
        pub(super) proof: Option<ByteArray<32>>,
        pub(super) is_counted: bool,
    }

    #[derive(Serialize)]
    pub(super) struct Ticket {
        pub(super) key: PublicKey<Access>,
        pub(super) quota_bytes: u64,
        pub(super) quota_mailboxes: u64,
        pub(super) expires: Option<Timestamp>,
        pub(super) revoked: bool,
        pub(super) used_bytes: u64,
        pub(super) used_mailboxes: u64,
    }
}

const FILE: &[u8] = b"a file of an attachment";
/// Entries of the anchor, and what is the proof of none.
const RIGHT: u8 = 0;
const WRONG: u8 = 9;

/// What every store of these tests holds.
struct Held {
    owner: Owner,
    ticket: PublicKey<lapwing_wire::capability::Access>,
    anchored: Anchored,
}

/// Of the three evaluations the first was proved, for the second came a wrong proof, for the third none.
const PROVED: u8 = 1;
const MISSED: u8 = 2;
const OPEN: u8 = 3;

impl Held {
    fn new() -> Self {
        Self { owner: Owner::new(1), ticket: PublicKey::from_bytes([5; 32]), anchored: Anchored::new(1) }
    }

    fn envelope(number: u64) -> Vec<u8> {
        envelope(number, 1024)
    }

    fn proof_hash(&self, passphrase: u8) -> [u8; 32] {
        Sha256::digest(self.anchored.keys(passphrase).unwrap().proof().expose()).into()
    }

    async fn fill(&self, store: &dyn MailboxStore) {
        let charge = Charge::Ticket(self.ticket);
        done(store, Mutation::IssueTicket(Ticket::new(self.ticket, 1 << 20, 9, None)), "issued")
            .await
            .unwrap();
        done(store, self.owner.create(MailboxKind::Queue, charge), "made").await.unwrap();
        for number in 1..=3 {
            place(store, self.owner.append(Self::envelope(number))).await.unwrap();
        }
        done(store, self.owner.ack(1, &[]), "taken").await.unwrap();
        let (hash, total) = (BlobHash::of(FILE), u64::try_from(FILE.len()).unwrap());
        let put = Mutation::BlobPut { hash, total, offset: 0, bytes: FILE.to_vec(), charge, limit: u64::MAX };
        apply(store, put, 1).await.unwrap();
        apply(store, Mutation::BlobFinish { hash, genuine: true }, 1).await.unwrap();
        let make = Box::new(self.anchored.create().unwrap());
        anchor(store, AnchorChange::Create { make, charge }).await.unwrap();
        assert!(unlock(store, &self.anchored, RIGHT, PROVED).await.unwrap().is_some());
        assert!(unlock(store, &self.anchored, WRONG, MISSED).await.unwrap().is_none());
        let asked = Evaluate { anchor: self.anchored.id(), blinded: Blinded::from_bytes([OPEN; 32]) };
        anchor(store, AnchorChange::Evaluate(asked)).await.unwrap();
    }

    /// Whether the anchor releases what it holds for a proof and an evaluation of before.
    async fn opens(&self, store: &dyn MailboxStore, passphrase: u8, evaluation: u8) -> bool {
        let proof = self.anchored.keys(passphrase).unwrap().proof().clone();
        let (id, blinded) = (self.anchored.id(), Blinded::from_bytes([evaluation; 32]));
        let shown = ProveEntry { anchor: id, blinded, proof };
        match anchor(store, AnchorChange::Prove(shown)).await.unwrap() {
            AnchorOutcome::Released(_) => true,
            AnchorOutcome::Refused(Refusal::NotAllowed) => false,
            other => panic!("released or refused, not {other:?}"),
        }
    }

    /// The anchor's row as it was written before.
    fn anchor_before(&self, row: &[u8]) -> Vec<u8> {
        let id = |number: u8| -> [u8; 32] { Sha256::digest([number; 32]).into() };
        let hashes = BTreeMap::from([(id(PROVED), RIGHT), (id(MISSED), WRONG)]);
        let record::Anchor {
            owner,
            serial,
            digest,
            slot,
            version,
            failures,
            since,
            is_frozen,
            evaluations,
            thaw,
            raised,
            charged,
            access,
        } = record::decode(row).unwrap();
        let evaluation = |record::Evaluation { id, shown, is_counted }| {
            let of = shown.map(|_| self.proof_hash(hashes[&id]));
            before::Evaluation { id, proof: of.map(serde_bytes::ByteArray::new), is_counted }
        };
        let evaluations: Vec<_> = evaluations.into_iter().map(evaluation).collect();
        assert_eq!(evaluations.iter().filter(|known| known.proof.is_some()).count(), 2);
        let (slot, since) = (slot.0, since.value());
        codec::encode(&before::Anchor {
            owner,
            serial,
            digest,
            slot,
            version,
            failures,
            since,
            is_frozen,
            evaluations,
            thaw,
            raised,
            charged,
            access,
        })
    }

    /// Writes what is there as it was written before, under a mark of that time: what a program of then left.
    fn put_back<E: Engine>(&self, store: &Path, mark: &[u8], counts_taken: bool) {
        let mut state = Writes::from([(key::VERSION.to_vec(), Some(mark.to_vec()))]);
        let engine = E::open(store, 1 << 20).unwrap();
        for (name, row) in rows(&engine) {
            let row = match name[0] {
                key::TICKETS => ticket_before(&row),
                record::ANCHORS => self.anchor_before(&row),
                // The moving part of a mailbox.
                b'n' if !counts_taken => row[..64].to_vec(),
                _ => continue,
            };
            state.insert(name, Some(row));
        }
        assert_eq!(state.len(), if counts_taken { 3 } else { 4 }, "each kind is there once");
        engine.write(&Writes::new(), &state).unwrap();
        engine.rest().unwrap();
    }
}

fn ticket_before(row: &[u8]) -> Vec<u8> {
    let Ticket {
        key,
        quota_bytes,
        quota_mailboxes,
        expires,
        revoked,
        used_bytes,
        used_mailboxes,
        used_blob_bytes,
    } = record::decode(row).unwrap();
    assert!(used_blob_bytes > 0, "it was not counted before");
    codec::encode(&before::Ticket {
        key,
        quota_bytes,
        quota_mailboxes,
        expires,
        revoked,
        used_bytes,
        used_mailboxes,
    })
}

/// The state space.
fn rows<E: Engine>(engine: &E) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let mut take = |name: &[u8], value: &Value<'_>| {
        rows.insert(name.to_vec(), value.whole()?.into_owned());
        Ok(Scan::More)
    };
    engine.view().scan(Space::State, &[0], &[0xff; 80], &mut take).unwrap();
    rows
}

/// Every file of a folder, but what `sled` writes anew whenever it is opened: its index of the log, which can be made from that.
fn files(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if !path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            let bytes = std::fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

async fn is_read<E: Engine>(name: EngineName, mark: &[u8], now: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let held = Held::new();
    let store = name.open(&options).unwrap();
    held.fill(&*store).await;
    let tickets = store.tickets().await.unwrap();
    store.close().await;
    drop(store);
    held.put_back::<E>(&options.path, mark, true);
    let hashes = [RIGHT, WRONG].map(|passphrase| held.proof_hash(passphrase));
    let has_hash = |row: &[u8]| hashes.iter().any(|hash| memchr::memmem::find(row, hash).is_some());
    let anchor_key = record::anchor_key(&held.anchored.id());

    let store = name.open(&options).unwrap();
    // What attachments had taken of a ticket was not counted; all else is as it was.
    let before: Vec<Ticket> =
        tickets.into_iter().map(|ticket| Ticket { used_blob_bytes: 0, ..ticket }).collect();
    assert_eq!(store.tickets().await.unwrap(), before);
    let query = WindowQuery {
        mailbox: held.owner.id(),
        born: held.owner.born(),
        after: Seq::START,
        count: 16,
        bytes: 1 << 20,
    };
    let window = store.window(query).await.unwrap().expect("the mailbox is there");
    let there: Vec<(u64, Vec<u8>)> =
        window.items.into_iter().map(|item| (item.place.seq.value(), item.envelope.into_vec())).collect();
    assert_eq!(there, [2, 3].map(|number| (number, Held::envelope(number))));
    let part = store.blob_part(BlobHash::of(FILE), 0).await.unwrap().expect("the file is there");
    assert_eq!(*part.bytes, *FILE);
    store.close().await;
    drop(store);

    // It is of this format from then on, and the anchor is as it was until it is asked.
    let engine = E::open(&options.path, 1 << 20).unwrap();
    let found = rows(&engine);
    drop(engine);
    assert_eq!(found[key::VERSION], now);
    assert!(has_hash(&found[&anchor_key]), "the row was written as before");
    let is = |row: &[u8]| {
        let record::Anchor { failures, is_frozen, evaluations, .. } = record::decode(row).unwrap();
        (failures, is_frozen, evaluations.iter().map(|known| known.is_counted).collect::<Vec<_>>())
    };
    assert_eq!(is(&found[&anchor_key]), (2, false, vec![false, true, true]));

    // ANC-05: each evaluation has one try, and two of these had theirs; ANC-09: a right one pays for its own.
    let store = name.open(&options).unwrap();
    for (passphrase, evaluation, wanted) in
        [(RIGHT, MISSED, false), (WRONG, MISSED, false), (RIGHT, PROVED, false), (RIGHT, OPEN, true)]
    {
        let opens = held.opens(&*store, passphrase, evaluation).await;
        assert_eq!(opens, wanted, "passphrase {passphrase}, evaluation {evaluation}");
    }
    let (next, is_new) = place(&*store, held.owner.append(Held::envelope(4))).await.unwrap();
    assert!(next.seq.value() == 4 && is_new);
    store.close().await;
    drop(store);
    let engine = E::open(&options.path, 1 << 20).unwrap();
    let found = rows(&engine);
    assert_eq!(is(&found[&anchor_key]), (1, false, vec![false, true, false]));
    assert!(!has_hash(&found[&anchor_key]), "what could be tried is gone with the next change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_as_the_format_before_wrote_it_is_read_and_means_the_same() {
    is_read::<Fjall>(EngineName::Fjall, b"lapwing-relay store 8", fjall::VERSION).await;
    is_read::<Sled<true>>(EngineName::Sled, b"lapwing-relay store 7", sled::VERSION).await;
}

async fn is_refused<E: Engine>(name: EngineName, mark: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let held = Held::new();
    let store = name.open(&options).unwrap();
    held.fill(&*store).await;
    store.close().await;
    drop(store);
    held.put_back::<E>(&options.path, mark, false);
    let before = files(&options.path);
    for _ in 0..2 {
        let refused = name.open(&options).err();
        assert_eq!(refused, Some(StoreError::Version));
        let page = include_str!("../../../../docs/relay-operation.md");
        assert!(page.contains(&refused.unwrap().to_string()));
        let after = files(&options.path);
        let changed = after.iter().find(|(path, bytes)| before.get(*path) != Some(*bytes));
        assert!(after == before, "{name}: {:?}", changed.map(|(path, _)| path));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_as_the_format_before_the_last_wrote_it_is_refused_and_left_as_it_was() {
    is_refused::<Fjall>(EngineName::Fjall, b"lapwing-relay store 7").await;
    is_refused::<Sled<true>>(EngineName::Sled, b"lapwing-relay store 6").await;
}
