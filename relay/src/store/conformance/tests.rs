//! The stores of this crate under the suite, and the suite under a store that breaks a promise.

use std::sync::Arc;

use super::*;
use crate::store::fjall::{FjallOptions, FjallStore};

#[tokio::test]
async fn memory_conforms() {
    check(&MemoryStore::new()).await.unwrap();
    check_alike(&MemoryStore::new(), 1, 40).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fjall_conforms() {
    let dir = tempfile::tempdir().unwrap();
    check(&FjallStore::open(&FjallOptions::at(dir.path().join("a"))).unwrap()).await.unwrap();
    for seed in 1..=3 {
        let options = FjallOptions::at(dir.path().join(seed.to_string()));
        let store = FjallStore::open(&options).unwrap();
        check_alike(&store, seed, 60).await.unwrap();
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fjall_has_everything_after_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = FjallOptions::at(dir.path().join("store"));
    let owner = Owner::new(9);
    let store = FjallStore::open(&options).unwrap();
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    for number in 1..=10 {
        place(&store, owner.append(envelope(number, 1024))).await.unwrap();
    }
    done(&store, owner.ack(3, &[5]), "acknowledged").await.unwrap();
    let before = store.mailbox(owner.id()).await.unwrap();
    assert_eq!(FjallStore::open(&options).unwrap_err(), StoreError::Locked);
    store.close().await;
    drop(store);
    let store = FjallStore::open(&options).unwrap();
    assert_eq!(store.mailbox(owner.id()).await.unwrap(), before);
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [4, 6, 7, 8, 9, 10]);
    let (again, is_new) = place(&store, owner.append(envelope(2, 1024))).await.unwrap();
    assert_eq!((again.seq, is_new), (Seq::new(2), false));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let db = fjall::Database::builder(&path).open().unwrap();
        let state = db.keyspace("state", fjall::KeyspaceCreateOptions::default).unwrap();
        state.insert("v", "lapwing-relay store 3").unwrap();
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    assert_eq!(FjallStore::open(&FjallOptions::at(&path)).unwrap_err(), StoreError::Version);
    let db = fjall::Database::builder(&path).open().unwrap();
    let state = db.keyspace("state", fjall::KeyspaceCreateOptions::default).unwrap();
    assert_eq!(&*state.get("v").unwrap().unwrap(), b"lapwing-relay store 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_growth_and_only_growth() {
    let dir = tempfile::tempdir().unwrap();
    let options = FjallOptions::at(dir.path().join("store"));
    let store = FjallStore::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    store.set_reserve(u64::MAX);
    let refused = apply(&store, owner.append(envelope(2, 1024)), 1).await.unwrap();
    assert!(matches!(refused, Outcome::Refused(Refusal::Busy)));
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1]);
    done(&store, owner.ack(1, &[]), "acknowledged").await.unwrap();
    store.set_reserve(1);
    place(&store, owner.append(envelope(2, 1024))).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_05_every_token_waits_for_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let extra_flush = Duration::from_millis(40);
    let options = FjallOptions { extra_flush, ..FjallOptions::at(dir.path().join("store")) };
    let store = FjallStore::open(&options).unwrap();
    for byte in 0..3 {
        let token = Mutation::Token { token: Token::from_bytes([byte; 32]), filler: [byte; 32] };
        // The flush sleeps at least this long, so a token that answered without one would be quicker.
        let begun = tokio::time::Instant::now();
        let outcome = apply(&store, token, 1).await.unwrap();
        assert!(matches!(outcome, Outcome::Token { status: None, .. }));
        assert!(begun.elapsed() >= extra_flush);
    }
    store.close().await;
}

/// `mount -t tmpfs -o size=160m tmpfs DIR`, then
/// `LAPWING_SMALL_DISK=DIR cargo test -p lapwing-relay --lib really_full -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a small file system of its own"]
#[expect(clippy::disallowed_methods, reason = "fills a disk")]
async fn a_really_full_disk_loses_nothing_and_recovers() {
    let disk = std::path::PathBuf::from(std::env::var_os("LAPWING_SMALL_DISK").unwrap());
    for reserve in [40 << 20, 0] {
        let dir = tempfile::tempdir_in(&disk).unwrap();
        let ballast = dir.path().join("ballast");
        std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
        let options = FjallOptions { reserve, ..FjallOptions::at(dir.path().join("store")) };
        let store = FjallStore::open(&options).unwrap();
        let owner = Owner::new(9);
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let append = |number| {
            let envelope = envelope(number, 65_536);
            let (id, mailbox, born) = (EnvelopeId::of(&envelope), owner.id(), owner.born());
            Mutation::Append { mailbox, born, id, envelope, limit: u64::MAX, reserve: 0 }
        };
        let mut stored = 0;
        loop {
            match apply(&store, append(stored + 1), 1).await {
                Ok(Outcome::Stored { .. }) => stored += 1,
                Ok(Outcome::Refused(Refusal::Busy)) if reserve > 0 => break,
                Err(StoreError::Disk) if reserve == 0 => break,
                other => panic!("{other:?}"),
            }
            assert!(stored < 10_000, "the disk is small");
        }
        assert_eq!(store.has_failed(), reserve == 0);
        assert_eq!(numbers(&store, &owner, 0).await.unwrap().len(), usize::try_from(stored).unwrap());
        store.close().await;
        drop(store);
        std::fs::remove_file(&ballast).unwrap();
        let store = FjallStore::open(&FjallOptions { reserve: 0, ..options }).unwrap();
        let there = numbers(&store, &owner, 0).await.unwrap().len();
        println!("reserve {reserve}: {stored} stored, {there} after opening again");
        assert!(there >= usize::try_from(stored).unwrap());
        apply(&store, append(1_000_000), 1).await.unwrap();
        store.close().await;
    }
}

/// A store that forgets numbers would pass a suite that cannot fail.
#[tokio::test]
async fn the_suite_notices_a_store_that_breaks_a_promise() {
    struct Forgetful(Arc<MemoryStore>);

    #[async_trait::async_trait]
    impl MailboxStore for Forgetful {
        async fn apply(&self, mut change: Change) -> Result<Outcome, StoreError> {
            if let Mutation::Ack { also, .. } = &mut change.mutation {
                also.clear();
            }
            self.0.apply(change).await
        }
        async fn mailbox(&self, id: MailboxId) -> Result<Option<super::super::Mailbox>, StoreError> {
            self.0.mailbox(id).await
        }
        async fn window(
            &self,
            query: WindowQuery,
        ) -> Result<Option<lapwing_wire::frame::Window>, StoreError> {
            self.0.window(query).await
        }
        async fn blob_part(
            &self,
            hash: BlobHash,
            offset: u64,
        ) -> Result<Option<lapwing_wire::frame::BlobPart>, StoreError> {
            self.0.blob_part(hash, offset).await
        }
        async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
            self.0.blob_digest(hash).await
        }
        async fn ticket(
            &self,
            key: PublicKey<lapwing_wire::capability::Access>,
        ) -> Result<Option<Ticket>, StoreError> {
            self.0.ticket(key).await
        }
        async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
            self.0.tickets().await
        }
        async fn totals(&self, now: Timestamp) -> Result<super::super::Totals, StoreError> {
            self.0.totals(now).await
        }
        async fn close(&self) {
            self.0.close().await;
        }
    }

    let promise = check(&Forgetful(Arc::new(MemoryStore::new()))).await.unwrap_err();
    assert_eq!(promise.to_string(), "what was taken is gone, the rest is there");
    assert!(check_alike(&Forgetful(Arc::new(MemoryStore::new())), 1, 40).await.is_err());
}
