//! The relay's reference store, which remembers all that was asked of it and can be what it once was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lapwing_relay::store::{
    Change, Mailbox, MailboxStore, Outcome, StoreError, Ticket, Totals, WindowQuery, memory::MemoryStore,
};
use lapwing_wire::{
    capability::{Access, PublicKey},
    frame::{BlobPart, Window},
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};

/// The reference store, and all that was asked of it.
#[derive(Default)]
pub struct RememberedStore {
    inner: Mutex<Arc<MemoryStore>>,
    log: Mutex<Vec<Change>>,
}

impl RememberedStore {
    /// All that was asked of it, in order.
    #[must_use]
    pub fn past(&self) -> Vec<Change> {
        self.log().clone()
    }

    /// How much was asked of it: a point to come back to.
    #[must_use]
    pub fn moment(&self) -> usize {
        self.log().len()
    }

    /// Is from now on what it was at that moment.
    pub async fn go_back(&self, moment: usize) {
        let past: Vec<Change> = self.log().drain(..).take(moment).collect();
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        for change in past {
            self.apply(change).await.expect("it did so before");
        }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Vec<Change>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl MailboxStore for RememberedStore {
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        self.log().push(change.clone());
        self.inner().apply(change).await
    }

    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError> {
        self.inner().mailbox(id).await
    }

    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError> {
        self.inner().window(query).await
    }

    async fn blob_part(&self, hash: BlobHash, offset: u64) -> Result<Option<BlobPart>, StoreError> {
        self.inner().blob_part(hash, offset).await
    }

    async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
        self.inner().blob_digest(hash).await
    }

    async fn ticket(&self, key: PublicKey<Access>) -> Result<Option<Ticket>, StoreError> {
        self.inner().ticket(key).await
    }

    async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        self.inner().tickets().await
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        self.inner().totals(now).await
    }

    async fn close(&self) {
        self.inner().close().await;
    }
}
