//! Which connections want to hear of which mailbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::{frame::Stored, ids::MailboxId};
use tokio::sync::Semaphore;

use super::inbox::Inbox;
use crate::store::{Born, Withdrawn};

/// Bytes of fresh envelopes that wait for all subscribers together; beyond, they are read from the store again.
const FRESH: usize = 16 << 20;

/// Subscribed connections by mailbox.
pub(super) struct Topics {
    inboxes: Mutex<HashMap<MailboxId, Vec<Arc<Inbox>>>>,
    room: Arc<Semaphore>,
}

impl Topics {
    pub(super) fn new() -> Self {
        Self { inboxes: Mutex::default(), room: Arc::new(Semaphore::new(FRESH)) }
    }

    pub(super) fn add(&self, mailbox: MailboxId, inbox: &Arc<Inbox>) {
        self.lock().entry(mailbox).or_default().push(Arc::clone(inbox));
    }

    pub(super) fn remove(&self, mailbox: &MailboxId, inbox: &Arc<Inbox>) {
        let mut inboxes = self.lock();
        if let Some(all) = inboxes.get_mut(mailbox) {
            all.retain(|other| !Arc::ptr_eq(other, inbox));
            if all.is_empty() {
                inboxes.remove(mailbox);
            }
        }
    }

    /// Marks the mailbox as due in every connection that subscribed to it.
    pub(super) fn publish(&self, mailbox: &MailboxId) {
        let inboxes = self.lock().get(mailbox).cloned();
        for inbox in inboxes.into_iter().flatten() {
            inbox.mark(mailbox);
        }
    }

    /// Hands an envelope that is on disk to every connection that subscribed to its mailbox.
    pub(super) fn hand_over(&self, mailbox: &MailboxId, born: Born, place: Stored, envelope: &Arc<Vec<u8>>) {
        let inboxes = self.lock().get(mailbox).cloned();
        for inbox in inboxes.into_iter().flatten() {
            inbox.offer(mailbox, born, place, envelope, &self.room);
        }
    }

    /// Takes back from every connection what waits there and is to be read by nobody any more.
    pub(super) fn withdraw(&self, withdrawn: &Withdrawn) {
        let inboxes = self.lock().get(&withdrawn.mailbox).cloned();
        for inbox in inboxes.into_iter().flatten() {
            inbox.withdraw(withdrawn);
        }
    }

    /// Takes back from every connection all that waits there. While nothing waits, which is so after the first of many, it costs
    /// nothing.
    pub(super) fn recall(&self) {
        if self.room.available_permits() == FRESH {
            return;
        }
        let inboxes: Vec<Arc<Inbox>> = self.lock().values().flatten().cloned().collect();
        for inbox in inboxes {
            inbox.recall();
        }
    }

    /// Connections that subscribed to a mailbox.
    #[cfg(test)]
    pub(super) fn count(&self, mailbox: &MailboxId) -> usize {
        self.lock().get(mailbox).map_or(0, Vec::len)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Vec<Arc<Inbox>>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
