//! What a store promises when its disk fails, and that nobody waits for somebody else's query.

use std::path::{Path, PathBuf};

use super::*;
use crate::store::{
    EngineName, KeptStore, StoreOptions, engine::Engine, fjall::Fjall, group::GroupCommit, tables::Writes,
};

/// The default engine on a disk that refuses to write as long as a file lies beside it.
#[derive(Clone)]
struct Faulty {
    inner: Fjall,
    refuses: PathBuf,
}

impl Engine for Faulty {
    type View = <Fjall as Engine>::View;
    type Direct<'a> = <Fjall as Engine>::Direct<'a>;

    fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { inner: Fjall::open(path)?, refuses: path.with_extension("refuses") })
    }

    fn view(&self) -> Self::View {
        self.inner.view()
    }

    fn direct(&self) -> Self::Direct<'_> {
        self.inner.direct()
    }

    fn commit(&self, bulk: Writes, state: Writes) -> Result<(), StoreError> {
        if self.refuses.exists() { Err(StoreError::Disk) } else { self.inner.commit(bulk, state) }
    }
}

/// Clause 5: after a disk that failed nothing is taken, what was answered stays readable, and opening again goes on.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_disk_that_refused_nothing_is_taken_and_everything_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let refuses = options.path.with_extension("refuses");
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    std::fs::create_dir(&refuses).unwrap();
    let refused = apply(&store, owner.append(envelope(2, 1024)), 1).await;
    assert!(matches!(refused, Err(StoreError::Disk)), "{refused:?}");
    assert!(store.health().has_failed);
    // The disk is well again, and nobody knows what it has kept.
    std::fs::remove_dir(&refuses).unwrap();
    for change in [owner.append(envelope(3, 1024)), owner.ack(1, &[]), Mutation::Tick] {
        let refused = apply(&store, change, 1).await;
        assert!(matches!(refused, Err(StoreError::Disk)), "{refused:?}");
    }
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1], "what was answered is readable");
    store.close().await;
    drop(store);
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    assert!(!store.health().has_failed);
    let (stored, is_new) = place(&store, owner.append(envelope(2, 1024))).await.unwrap();
    assert_eq!((stored.seq, is_new), (Seq::new(2), true));
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1, 2]);
    store.close().await;
}

/// Clause 6: a query that takes long holds up neither changes nor other queries.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_somebody_elses_query() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let store = engine.open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        let owner = Owner::new(9);
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let slow = std::sync::Arc::clone(&store);
        let query = tokio::task::spawn_blocking(move || {
            let (mut begun, mut rows) = (Some(begun), 0);
            let read = slow.rows(&mut |_| {
                if let Some(begun) = begun.take() {
                    begun.send(()).unwrap();
                    goes_on.recv().unwrap();
                }
                rows += 1;
                Ok(())
            });
            read.map(|()| rows)
        });
        has_begun.await.unwrap();
        let others = async {
            for number in 1..=20 {
                place(&*store, owner.append(envelope(number, 1024))).await.unwrap();
            }
            assert_eq!(numbers(&*store, &owner, 0).await.unwrap().len(), 20);
            done(&*store, owner.ack(20, &[]), "acknowledged").await.unwrap();
            store.totals(NOW).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(60), others).await.expect("nobody waits");
        go_on.send(()).unwrap();
        assert!(query.await.unwrap().unwrap() > 0, "the slow query ends well, as of its own moment");
        store.close().await;
    }
}
