//! Which connections want to hear of which mailbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::ids::MailboxId;

use super::connection::Inbox;

/// Subscribed connections by mailbox.
#[derive(Default)]
pub(super) struct Topics {
    inboxes: Mutex<HashMap<MailboxId, Vec<Arc<Inbox>>>>,
}

impl Topics {
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

    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Vec<Arc<Inbox>>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
