//! What was destroyed is nowhere a second time: not with what was staged, nor in what is kept of tries.

use std::path::Path;

use lapwing_wire::{
    anchor::{ENTRY_LENGTH, Mark, Proof},
    frame::{AddEntry, SetEntry, Settle, Stage},
    tripwire::{Causes, Deadline},
};

use super::{
    super::causes::{SHORTEST, Watched, pass},
    *,
};
use crate::store::{
    engine::Engine,
    keys::KeyFile,
    record::{self, ANCHORS, Anchor, Evaluation, Seal, Secrets, key, version_in},
    tables::{Scan, Space, Staged, Tables, Value},
};

/// The outer key that passphrase 0 stages, and the mark with it.
pub(super) fn staged_by(anchored: &Anchored) -> Stage {
    let mut rng = StdRng::seed_from_u64(77);
    let mark = anchored.keys(0).unwrap().seal_mark(2, &mut rng);
    Stage { anchor: anchored.id(), outer: OuterKey::from_bytes(pattern(0x51)), mark }
}

pub(super) async fn stage(store: &dyn MailboxStore, anchored: &Anchored) {
    let proof = anchored.keys(0).unwrap().proof().clone();
    let staged = AnchorChange::Stage { proof, stage: Box::new(staged_by(anchored)) };
    assert!(matches!(anchor(store, staged).await.unwrap(), AnchorOutcome::Done));
}

/// Pieces of 32 bytes of everything that was kept of passphrase 0 and could be tried: each part of its entry, and both marks.
fn pieces(anchored: &Anchored) -> Vec<[u8; 32]> {
    let entry = anchored.create().unwrap().entries[0];
    let encoded = lapwing_wire::codec::encode(&entry);
    let whole: Vec<u8> = encoded[encoded.len() - ENTRY_LENGTH..].to_vec();
    let marks = [entry.mark(), staged_by(anchored).mark];
    let parts = std::iter::once(&whole[..]).chain(marks.iter().map(|mark| &mark.as_bytes()[..]));
    parts.flat_map(|part| part.as_chunks::<32>().0).copied().collect()
}

/// What nothing may be kept under: it follows from a passphrase, and the anchor's key outlives the entry.
pub(super) fn digest(proof: &Proof) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(proof.expose()).into()
}

fn has_any(bytes: &[u8], pieces: &[[u8; 32]]) -> bool {
    pieces.iter().any(|piece| memchr::memmem::find(bytes, piece).is_some())
}

/// Nothing of a passphrase that was destroyed opens, and nothing that could be tried is there.
pub(super) fn check_secrets(anchored: &Anchored, plain: &[u8]) -> Secrets {
    let gone = anchored.keys(0).unwrap();
    assert!(!has_any(plain, &pieces(anchored)), "bytes of the entry are there");
    let secrets: Secrets = record::decode(plain).unwrap();
    let copies = secrets.entries.iter().chain(secrets.staged.iter().map(|staged| &staged.by));
    let marks: Vec<Mark> = secrets.staged.iter().map(|staged| staged.mark).collect();
    for entry in copies {
        assert!(entry.open(&anchored.id(), gone.proof()).is_none(), "it opens");
        assert!(gone.open_share(&entry.share()).is_none(), "its share opens");
        assert!(gone.open_mark(&entry.mark()).is_none(), "its mark opens");
    }
    assert!(marks.iter().all(|mark| gone.open_mark(mark).is_none()), "the mark that was to come opens");
    secrets
}

/// All that a store's folder has of one anchor: its state, and what can be opened of its secrets with the keys that are there.
pub(super) fn kept<E: Engine>(store: &Path) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let engine = E::open(store, 1 << 20).unwrap();
    let keys = KeyFile::open(store).unwrap();
    let (mut states, mut secrets) = (Vec::new(), Vec::new());
    let (first, last) = key::all(ANCHORS);
    let mut take_state = |_: &[u8], value: &Value<'_>| {
        states.push(value.whole()?.into_owned());
        Ok(Scan::More)
    };
    engine.view().scan(Space::State, &first, &last, &mut take_state).unwrap();
    let mut take_secrets = |name: &[u8], value: &Value<'_>| {
        if version_in(name).is_some() {
            let mut value = value.whole()?.into_owned();
            let Seal { slot, number, nonce, head } = Seal::of(name, &value)?;
            let mut chain = keys.load(slot)?.expect("its slot has keys");
            if chain.advance(number) {
                chain.apply(&nonce, &mut value[head..]);
                secrets.push(value.split_off(head));
            }
        }
        Ok(Scan::More)
    };
    engine.view().scan(Space::Bulk, &[0], &[0xff; 80], &mut take_secrets).unwrap();
    (states, secrets)
}

/// What a change writes: secrets, and the anchor's state.
fn written(memory: &MemoryStore, mutation: &Mutation) -> (Vec<u8>, Anchor) {
    let Staged { bulk, state, fresh: _, due: _ } =
        memory.staged(&Change { mutation: mutation.clone(), now: NOW, day: Day::new(1) });
    let is_secret = |row: &(&Vec<u8>, &Option<Vec<u8>>)| version_in(row.0).is_some() && row.1.is_some();
    let (_, secrets) = bulk.iter().find(is_secret).expect("secrets are sealed anew");
    let anchor = state.iter().find(|(name, _)| name.first() == Some(&ANCHORS)).expect("so is the state");
    let plain = record::decode_part(secrets.as_ref().unwrap()).unwrap().to_vec();
    (plain, record::decode(anchor.1.as_ref().unwrap()).unwrap())
}

async fn made(memory: &MemoryStore, anchored: &Anchored) {
    let make = Box::new(anchored.create().unwrap());
    anchor(memory, AnchorChange::Create { make, charge: Charge::Open }).await.unwrap();
    assert!(unlock(memory, anchored, 0, 1).await.unwrap().is_some());
    stage(memory, anchored).await;
}

async fn evaluated(memory: &MemoryStore, anchored: &Anchored, number: u8) -> Blinded {
    let blinded = Blinded::from_bytes([number; 32]);
    let asked = AnchorChange::Evaluate(Evaluate { anchor: anchored.id(), blinded });
    assert!(matches!(anchor(memory, asked).await.unwrap(), AnchorOutcome::Evaluate(_)));
    blinded
}

fn change(change: AnchorChange) -> Mutation {
    Mutation::Anchor { change, filler: [8; 32] }
}

/// ANC-08: passphrase 1 finds what the other one staged, and ends it either way; the entry does not come back.
async fn settles(memory: &MemoryStore, anchored: &Anchored, is_commit: bool) {
    let staged = staged_by(anchored);
    let release = unlock(memory, anchored, 1, 20).await.unwrap().expect("the other one opens");
    assert!(release.outer == anchored.outer && release.staged == staged.outer);
    let proof = anchored.keys(1).unwrap().proof().clone();
    let settle = Settle { anchor: anchored.id(), stage: staged.outer.stage() };
    let end = if is_commit {
        AnchorChange::Commit { proof, settle }
    } else {
        AnchorChange::Abort { proof, settle }
    };
    let (plain, _) = written(memory, &change(end.clone()));
    assert!(check_secrets(anchored, &plain).staged.is_none());
    assert!(matches!(anchor(memory, end).await.unwrap(), AnchorOutcome::Done));
    assert!(unlock(memory, anchored, 0, 21).await.unwrap().is_none(), "it did not come back");
    let release = unlock(memory, anchored, 1, 22).await.unwrap().expect("the other one opens");
    let outer = if is_commit { &staged.outer } else { &anchored.outer };
    assert!(release.outer == *outer && release.staged == *outer);
    let mark = anchored.keys(1).unwrap().open_mark(&release.mark);
    assert_eq!(mark, Some(1), "the mark was not its own");
}

#[tokio::test]
async fn anc_08_what_was_staged_by_an_entry_that_a_deed_destroys_leads_to_nothing_of_it() {
    for is_commit in [false, true] {
        let (memory, anchored) = (MemoryStore::new(), Anchored::new(1));
        made(&memory, &anchored).await;
        let blinded = evaluated(&memory, &anchored, 2).await;
        let proof = anchored.keys(1).unwrap().proof().clone();
        let prove = change(AnchorChange::Prove(ProveEntry { anchor: anchored.id(), blinded, proof }));
        let (plain, _) = written(&memory, &prove);
        let left = check_secrets(&anchored, &plain).staged.expect("the outer key waits to be settled");
        assert!(left.outer == staged_by(&anchored).outer);
        apply(&memory, prove, 1).await.unwrap();
        settles(&memory, &anchored, is_commit).await;
    }
}

#[tokio::test]
async fn anc_08_what_was_staged_by_an_entry_that_a_tripwire_destroys_leads_to_nothing_of_it() {
    for is_commit in [false, true] {
        let (memory, anchored) = (MemoryStore::new(), Anchored::new(1));
        made(&memory, &anchored).await;
        let spared = GroupKey::from_bytes([1; 32]);
        let actions = vec![Action::refresh(&anchored.owner, Some(spared))];
        let causes = Causes { alerting: Some(Deadline { after_s: 600, actions }), ..Causes::default() };
        done(&memory, Watched::new(40).arm(1, causes).unwrap(), "armed").await.unwrap();
        pass(&memory, SHORTEST - 1).await.unwrap();
        let look = Mutation::Watch { elapsed: Duration::from_secs(60), filler: [4; 32] };
        let (plain, _) = written(&memory, &look);
        let left = check_secrets(&anchored, &plain).staged.expect("the outer key waits to be settled");
        assert!(left.outer == staged_by(&anchored).outer);
        apply(&memory, look, 1).await.unwrap();
        settles(&memory, &anchored, is_commit).await;
    }
}

/// An owner takes an entry's place, or a session does, and what the entry staged is still to be settled.
#[tokio::test]
async fn anc_08_what_was_staged_by_an_entry_that_is_replaced_leads_to_nothing_of_it() {
    for by_owner in [false, true] {
        let (memory, anchored) = (MemoryStore::new(), Anchored::new(1));
        made(&memory, &anchored).await;
        let mut rng = StdRng::seed_from_u64(3);
        let replaced = if by_owner {
            let entry = Entry::random(&mut rng);
            AnchorChange::Set(Box::new(SetEntry { owner: anchored.owner(), index: 0, entry }))
        } else {
            let blinded = evaluated(&memory, &anchored, 2).await;
            let new = anchored.keys(5).unwrap();
            let add = AddEntry {
                anchor: anchored.id(),
                blinded,
                index: 0,
                proof: new.proof().clone(),
                share: new.seal_share(&VaultShare::from_bytes([5; 32]), &mut rng),
                mark: new.seal_mark(1, &mut rng),
            };
            AnchorChange::Add { proof: anchored.keys(1).unwrap().proof().clone(), add: Box::new(add) }
        };
        let replaced = change(replaced);
        let (plain, _) = written(&memory, &replaced);
        assert!(check_secrets(&anchored, &plain).staged.is_some());
        apply(&memory, replaced, 1).await.unwrap();
        settles(&memory, &anchored, true).await;
    }
}

/// What an entry staged that is spared is its own still.
#[tokio::test]
async fn anc_08_what_was_staged_by_an_entry_that_stays_comes_with_its_mark() {
    let (memory, anchored) = (MemoryStore::new(), Anchored::new(1));
    made(&memory, &anchored).await;
    // Neither a wrong proof nor a right one of another group that destroys nothing takes anything of it.
    assert!(unlock(&memory, &anchored, 7, 2).await.unwrap().is_none());
    let staged = staged_by(&anchored);
    let proof = anchored.keys(0).unwrap().proof().clone();
    let settle = Settle { anchor: anchored.id(), stage: staged.outer.stage() };
    anchor(&memory, AnchorChange::Commit { proof, settle }).await.unwrap();
    let release = unlock(&memory, &anchored, 0, 3).await.unwrap().expect("it opens");
    assert!(release.outer == staged.outer);
    assert_eq!(anchored.keys(0).unwrap().open_mark(&release.mark), Some(2));
}

/// A proof is the same whenever a passphrase is: its hash would be a place to try passphrases at, and tell which evaluations were of
/// one.
#[tokio::test]
async fn anc_05_what_is_kept_of_a_try_is_another_each_time_and_no_hash_of_its_proof() {
    let (memory, anchored) = (MemoryStore::new(), Anchored::new(1));
    let make = Box::new(anchored.create().unwrap());
    anchor(&memory, AnchorChange::Create { make, charge: Charge::Open }).await.unwrap();
    for number in 1..5 {
        assert!(unlock(&memory, &anchored, 0, number).await.unwrap().is_some());
    }
    let blinded = evaluated(&memory, &anchored, 5).await;
    let proof = anchored.keys(0).unwrap().proof().clone();
    let prove = ProveEntry { anchor: anchored.id(), blinded, proof: proof.clone() };
    let (_, state) = written(&memory, &change(AnchorChange::Prove(prove)));
    let mut shown: Vec<Vec<u8>> = state
        .evaluations
        .iter()
        .map(|evaluation| lapwing_wire::codec::encode(&evaluation.shown.expect("each was tried")))
        .collect();
    assert!(!shown.iter().any(|shown| shown.ends_with(&digest(&proof))), "a hash of the proof alone");
    shown.sort();
    shown.dedup();
    assert_eq!(shown.len(), 5, "they tell that it was one passphrase");
}

/// Format 8 had the hash in the open. It is in no record that is written from then on; the try stays made.
#[tokio::test]
async fn anc_05_hashes_of_proofs_that_the_format_before_kept_are_not_taken_over() {
    #[derive(serde::Serialize)]
    struct Before {
        #[serde(with = "serde_bytes")]
        id: [u8; 32],
        proof: Option<serde_bytes::ByteArray<32>>,
        is_counted: bool,
    }
    for was_tried in [false, true] {
        let proof = was_tried.then_some(serde_bytes::ByteArray::new([7; 32]));
        let bytes = lapwing_wire::codec::encode(&Before { id: [3; 32], proof, is_counted: true });
        let read: Evaluation = record::decode(&bytes).unwrap();
        assert_eq!((read.id, read.shown.is_some(), read.is_counted), ([3; 32], was_tried, true));
        let bytes = lapwing_wire::codec::encode(&read);
        assert!(!has_any(&bytes, &[[7; 32]]));
        assert_eq!(record::decode::<Evaluation>(&bytes).unwrap(), read);
    }
}

#[tokio::test]
async fn anc_05_every_proof_writes_the_same_records_also_one_that_destroys_what_had_staged() {
    let (memory, anchored) = (MemoryStore::new(), Anchored::new(1));
    made(&memory, &anchored).await;
    let blinded = evaluated(&memory, &anchored, 2).await;
    let records = [0, 1, 7].map(|passphrase| {
        let proof = anchored.keys(passphrase).unwrap().proof().clone();
        let prove = change(AnchorChange::Prove(ProveEntry { anchor: anchored.id(), blinded, proof }));
        let Staged { bulk, state, fresh, due } =
            memory.staged(&Change { mutation: prove, now: NOW, day: Day::new(1) });
        let rows = bulk.into_iter().chain(state);
        let lengths: Vec<_> = rows.map(|(name, value)| (name, value.map(|value| value.len()))).collect();
        (lengths, fresh, due)
    });
    assert!(records.windows(2).all(|pair| pair[0] == pair[1]), "{records:?}");
}
