//! Anchors: what every store does with them, and that what was destroyed is in none of its files.

use lapwing_wire::{
    anchor::{Deed, Entry, EntryKeys, GroupKey, OuterKey, VaultShare},
    capability::AnchorOwner,
    frame::{CreateAnchor, Evaluate, ProveEntry, Release, ThawRule},
    ids::AnchorId,
    limits::{ANCHOR_ENTRIES, MAX_FAILURES},
    oprf::{Blinded, OprfKey},
};

use super::*;
use crate::store::{AnchorChange, AnchorOutcome};

/// An anchor with two groups of one entry each, all from one byte.
pub(super) struct Anchored {
    pub(super) owner: SecretKey<AnchorOwner>,
    pub(super) key: OprfKey,
    pub(super) outer: OuterKey,
}

impl Anchored {
    pub(super) fn new(byte: u8) -> Self {
        Self {
            owner: SecretKey::from_seed([byte; 32]),
            key: OprfKey::from_bytes([byte ^ 0x20; 32]),
            outer: OuterKey::from_bytes(pattern(byte)),
        }
    }

    pub(super) fn owner(&self) -> PublicKey<AnchorOwner> {
        self.owner.public()
    }

    pub(super) fn id(&self) -> AnchorId {
        AnchorId::of_owner(&self.owner.public())
    }

    pub(super) fn keys(&self, passphrase: u8) -> Result<EntryKeys, Violation> {
        let output = self.key.output(&[passphrase]).map_err(|_| Violation("a byte is evaluated".into()))?;
        Ok(EntryKeys::derive(&self.id(), &output))
    }

    /// Passphrase 0 is everyday's; passphrase 1 destroys what is not of its group.
    pub(super) fn create(&self) -> Result<CreateAnchor, Violation> {
        let mut rng = StdRng::seed_from_u64(9);
        let mut entries = Vec::new();
        for passphrase in 0..2u8 {
            let keys = self.keys(passphrase)?;
            let share = keys.seal_share(&VaultShare::from_bytes([passphrase; 32]), &mut rng);
            let mark = keys.seal_mark(1, &mut rng);
            let deed = Deed {
                fires: None,
                destroys: passphrase == 1,
                group: GroupKey::from_bytes([passphrase; 32]),
            };
            entries.push(Entry::seal(&self.id(), keys.proof(), &share, &mark, &deed, &mut rng));
        }
        entries.resize_with(ANCHOR_ENTRIES, || Entry::random(&mut rng));
        Ok(CreateAnchor {
            owner: self.owner.public(),
            access: None,
            serial: 1,
            key: self.key.clone(),
            outer: self.outer.clone(),
            entries,
            thaw: ThawRule { threshold: 1, voices: vec![PublicKey::from_bytes([1; 32])], kit: None },
        })
    }
}

/// Bytes that are found again in a file.
fn pattern(byte: u8) -> [u8; 32] {
    let mut bytes = [byte; 32];
    bytes[..8].copy_from_slice(b"canary  ");
    bytes
}

pub(super) async fn anchor(
    store: &dyn MailboxStore,
    change: AnchorChange,
) -> Result<AnchorOutcome, Violation> {
    match apply(store, Mutation::Anchor { change, filler: [8; 32] }, 1).await? {
        Outcome::Anchor { outcome, .. } => Ok(outcome),
        other => Err(Violation(format!("an anchor is answered as an anchor, not {other:?}"))),
    }
}

/// Evaluates and proves; the evaluations are told apart by a number.
pub(super) async fn unlock(
    store: &dyn MailboxStore,
    anchored: &Anchored,
    passphrase: u8,
    number: u8,
) -> Result<Option<Release>, Violation> {
    let blinded = Blinded::from_bytes([number; 32]);
    let id = anchored.id();
    match anchor(store, AnchorChange::Evaluate(Evaluate { anchor: id, blinded })).await? {
        AnchorOutcome::Evaluate(key) => ensure(key == anchored.key, "the anchor's own key evaluates")?,
        _ => return Ok(None),
    }
    let proof = anchored.keys(passphrase)?.proof().clone();
    match anchor(store, AnchorChange::Prove(ProveEntry { anchor: id, blinded, proof })).await? {
        AnchorOutcome::Released(release) => Ok(Some(*release)),
        _ => Ok(None),
    }
}

/// ANC-04, ANC-06, ANC-09 on any store.
pub(super) async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    let anchored = Anchored::new(1);
    let create = || -> Result<_, Violation> {
        Ok(AnchorChange::Create { make: Box::new(anchored.create()?), charge: Charge::Open })
    };
    for _ in 0..2 {
        let made = anchor(store, create()?).await?;
        ensure(matches!(made, AnchorOutcome::Done), "an anchor is made, also again")?;
    }
    let everyday = unlock(store, &anchored, 0, 1).await?;
    let Some(everyday) = everyday else { return Err(Violation("a right proof is released".into())) };
    ensure(everyday.outer == anchored.outer, "with the outer key")?;
    let share = anchored.keys(0)?.open_share(&everyday.share);
    ensure(share == Some(VaultShare::from_bytes([0; 32])), "and its own share")?;
    ensure(unlock(store, &anchored, 7, 2).await?.is_none(), "a wrong proof is not")?;
    ensure(unlock(store, &anchored, 1, 3).await?.is_some(), "the other passphrase is released")?;
    ensure(unlock(store, &anchored, 0, 4).await?.is_none(), "and destroyed the first")?;
    ensure(unlock(store, &anchored, 1, 5).await?.is_some(), "and not itself")?;
    // Two failures so far.
    for number in 2..MAX_FAILURES {
        ensure(unlock(store, &anchored, 7, 100 + number).await?.is_none(), "a wrong proof")?;
    }
    ensure(unlock(store, &anchored, 1, 6).await?.is_none(), "ten failures freeze")?;
    let removed = anchor(store, AnchorChange::Remove(anchored.owner())).await?;
    ensure(matches!(removed, AnchorOutcome::Done), "an anchor is removed")?;
    let gone = anchor(store, create()?).await?;
    ensure(matches!(gone, AnchorOutcome::Done), "and can be made again")
}

#[cfg(test)]
mod destroyed;

#[cfg(test)]
mod erasing {
    use std::{
        path::{Path, PathBuf},
        process::{Child, Command, Stdio},
    };

    use super::{
        super::forgetting::{files, holders, until},
        destroyed::{check_secrets, digest, kept, stage, staged_by},
        *,
    };
    use crate::store::{
        EngineName, StoreOptions,
        fjall::Fjall,
        keys::{KeyFile, Slot},
        record::{self, Anchor},
        sled::Sled,
    };

    const CHILD: &str = "LAPWING_ANCHOR_CHILD";

    /// A process that destroys when it is told to, and is killed.
    struct Destroyer(Child);

    impl Drop for Destroyer {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    fn options(folder: &Path, forget_after: Duration) -> StoreOptions {
        StoreOptions { forget_after, ..StoreOptions::at(folder.join("store")) }
    }

    #[test]
    #[ignore = "the process that the test beside it starts and kills"]
    fn anchor_child() {
        let Ok(text) = std::env::var(CHILD) else { return };
        let (engine, folder) = text.split_once(' ').unwrap();
        let engine = if engine == "sled" { EngineName::Sled } else { EngineName::Fjall };
        let folder = PathBuf::from(folder);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Longer than it lives: nothing is forgotten before it is killed.
            let store = engine.open(&options(&folder, Duration::from_secs(600))).unwrap();
            let anchored = Anchored::new(1);
            let make = Box::new(anchored.create().unwrap());
            anchor(&*store, AnchorChange::Create { make, charge: Charge::Open }).await.unwrap();
            unlock(&*store, &anchored, 0, 1).await.unwrap().unwrap();
            // It was cut off before it wrote the header.
            stage(&*store, &anchored).await;
            std::fs::create_dir(folder.join("made")).unwrap();
            until("it is told to", || folder.join("go").exists()).await;
            unlock(&*store, &anchored, 1, 2).await.unwrap().unwrap();
            std::fs::create_dir(folder.join("destroyed")).unwrap();
            std::future::pending::<()>().await;
        });
    }

    /// ANC-11: whoever has all files after the documented time, and copies of none from before, cannot open what was
    /// destroyed, whatever the engine still holds and whenever the process was killed.
    #[tokio::test(flavor = "multi_thread")]
    async fn anc_11_what_an_anchor_destroyed_cannot_be_opened_from_the_stores_files_though_the_relay_was_killed()
     {
        for engine in ["fjall", "sled"] {
            let dir = tempfile::tempdir().unwrap();
            let mut child = Destroyer(
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "store::conformance::anchors::erasing::anchor_child", "--ignored"])
                    .env(CHILD, format!("{engine} {}", dir.path().display()))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
            until("an anchor is made", || dir.path().join("made").exists()).await;
            let store = dir.path().join("store");
            let keys = KeyFile::open(&store).unwrap();
            let slot = Slot::of_anchor(0).unwrap();
            let mut chain = keys.load(slot).unwrap().expect("an anchor has keys");
            let mut stolen = Vec::new();
            // Made is version 1, proved is 2, staged is 3.
            for version in chain.at()..=3 {
                assert!(chain.advance(version));
                // The page's key opens what comes after its page, and stays.
                let [key, _, envelope] = chain.secrets()[..] else { panic!("three") };
                stolen.extend([key, envelope]);
            }
            let anchored = Anchored::new(1);
            let there = files(&store);
            assert!(!holders(&there, &stolen[0]).is_empty(), "the search finds a key that is there");
            assert_eq!(holders(&there, anchored.outer.expose()), Vec::<String>::new(), "sealed at rest");
            assert_eq!(holders(&there, anchored.key.expose()), Vec::<String>::new());
            std::fs::create_dir(dir.path().join("go")).unwrap();
            until("it is destroyed", || dir.path().join("destroyed").exists()).await;
            child.0.kill().unwrap();
            child.0.wait().unwrap();
            assert!(
                !holders(&files(&store), &stolen[0]).is_empty(),
                "it was killed before anything was forgotten"
            );

            let name = if engine == "sled" { EngineName::Sled } else { EngineName::Fjall };
            let opened = name.open(&options(dir.path(), Duration::from_millis(50))).unwrap();
            until("keys are forgotten", || {
                let there = files(&store);
                stolen.iter().all(|key| holders(&there, key).is_empty())
            })
            .await;
            assert!(unlock(&*opened, &anchored, 0, 3).await.unwrap().is_none(), "it is destroyed");
            let cover = unlock(&*opened, &anchored, 1, 4).await.unwrap().expect("the other is not");
            assert!(cover.outer == anchored.outer && cover.staged == staged_by(&anchored).outer);
            opened.close().await;
            drop(opened);
            let (states, secrets) =
                if engine == "sled" { kept::<Sled<true>>(&store) } else { kept::<Fjall>(&store) };
            let [state] = &states[..] else { panic!("one anchor is there") };
            let state: Anchor = record::decode(state).unwrap();
            assert!(state.evaluations.iter().any(|tried| tried.shown.is_some() && !tried.is_counted));
            // A hash of the proof lies nowhere, nor was it there to be forgotten.
            let gone = digest(anchored.keys(0).unwrap().proof());
            assert!(states.iter().all(|state| memchr::memmem::find(state, &gone).is_none()));
            assert_eq!(holders(&files(&store), &gone), Vec::<String>::new());
            let [secrets] = &secrets[..] else { panic!("one version can be opened") };
            let secrets = check_secrets(&anchored, secrets);
            let other = anchored.keys(1).unwrap();
            assert!(
                secrets.entries[1].open(&anchored.id(), other.proof()).is_some(),
                "the search finds one that is there"
            );
        }
    }

    /// ANC-12: a backup that leaves out what [`is_of_an_anchor`](crate::store::record::is_of_an_anchor) names holds nothing
    /// of an anchor.
    #[tokio::test(flavor = "multi_thread")]
    async fn anc_12_the_records_of_anchors_are_named_and_their_keys_lie_in_a_file_of_their_own() {
        use crate::store::{ANCHOR_KEYS, record::is_of_an_anchor, tables::Staged};
        let dir = tempfile::tempdir().unwrap();
        let store = EngineName::Fjall.open(&options(dir.path(), Duration::from_secs(600))).unwrap();
        let anchored = Anchored::new(1);
        let make = Box::new(anchored.create().unwrap());
        anchor(&*store, AnchorChange::Create { make: make.clone(), charge: Charge::Open }).await.unwrap();
        let keys = KeyFile::open(&dir.path().join("store")).unwrap();
        let secret = keys.load(Slot::of_anchor(0).unwrap()).unwrap().unwrap().secrets()[0];
        let there = files(&dir.path().join("store"));
        assert_eq!(holders(&there, &secret), [ANCHOR_KEYS]);
        store.close().await;

        let memory = MemoryStore::new();
        let change = AnchorChange::Create { make, charge: Charge::Open };
        let change =
            Change { mutation: Mutation::Anchor { change, filler: [1; 32] }, now: NOW, day: Day::new(1) };
        let Staged { bulk, state, fresh: _, due: _ } = memory.staged(&change);
        let left: Vec<Vec<u8>> =
            bulk.into_keys().chain(state.into_keys()).filter(|key| !is_of_an_anchor(key)).collect();
        // The filler, and the number of a slot whose keys are to be forgotten.
        assert!(left.iter().all(|key| matches!(key.first(), Some(b'z' | b'd'))), "{left:?}");
    }
}
