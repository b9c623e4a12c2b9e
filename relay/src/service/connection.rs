//! What a relay knows of one connection: what was proved on it, and what it subscribes to.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::{
    anchor::Proof,
    capability::{Access, ChannelBinding, PublicKey, Right, Subject, TripwireOwner},
    frame::Seq,
    ids::{AnchorId, MailboxId},
};

use super::{
    inbox::{Begun, Inbox},
    topics::Topics,
};
use crate::store::Born;

/// One connection. A slow reader costs a cursor per subscription, and the few fresh envelopes of its inbox.
pub struct ConnectionState {
    binding: ChannelBinding,
    proofs: Mutex<Proofs>,
    inbox: Arc<Inbox>,
    topics: Arc<Topics>,
    /// Held while a subscription comes or goes: it is in the inbox and among the topics, or in neither, whatever several streams
    /// do at once.
    subscribing: Mutex<()>,
}

#[derive(Default)]
struct Proofs {
    rights: HashMap<(MailboxId, Right), Born>,
    access: HashSet<PublicKey<Access>>,
    owners: HashSet<PublicKey<TripwireOwner>>,
    /// Owners of anchors, voices.
    others: HashSet<Subject>,
    /// Entries of anchors.
    entries: HashMap<AnchorId, Proof>,
}

impl ConnectionState {
    pub(super) fn new(binding: ChannelBinding, topics: Arc<Topics>) -> Self {
        let inbox = Arc::new(Inbox::new());
        Self { binding, proofs: Mutex::default(), inbox, topics, subscribing: Mutex::default() }
    }

    /// What proofs on this connection are bound to.
    pub fn binding(&self) -> &ChannelBinding {
        &self.binding
    }

    /// Whether it subscribes to anything.
    pub fn has_subscriptions(&self) -> bool {
        self.inbox.has_subscriptions()
    }

    /// Whether it proved a right to a mailbox or an access ticket: what a stranger cannot. A proof of a tripwire's key, and
    /// others of their kind, do not count, since everybody can make such a key.
    pub fn is_known(&self) -> bool {
        let proofs = self.proofs();
        !proofs.rights.is_empty() || !proofs.access.is_empty()
    }

    pub(super) fn proven(&self, mailbox: &MailboxId, right: Right) -> Option<Born> {
        self.proofs().rights.get(&(*mailbox, right)).copied()
    }

    pub(super) fn has_access(&self, key: &PublicKey<Access>) -> bool {
        self.proofs().access.contains(key)
    }

    pub(super) fn is_owner(&self, key: &PublicKey<TripwireOwner>) -> bool {
        self.proofs().owners.contains(key)
    }

    pub(super) fn keep_right(&self, mailbox: MailboxId, right: Right, born: Born, limit: usize) -> bool {
        let mut proofs = self.proofs();
        let kept = proofs.rights.contains_key(&(mailbox, right)) || proofs.count() < limit;
        if kept {
            proofs.rights.insert((mailbox, right), born);
        }
        kept
    }

    pub(super) fn keep_access(&self, key: PublicKey<Access>, limit: usize) -> bool {
        let mut proofs = self.proofs();
        let kept = proofs.access.contains(&key) || proofs.count() < limit;
        if kept {
            proofs.access.insert(key);
        }
        kept
    }

    pub(super) fn keep_owner(&self, key: PublicKey<TripwireOwner>, limit: usize) -> bool {
        let mut proofs = self.proofs();
        let kept = proofs.owners.contains(&key) || proofs.count() < limit;
        if kept {
            proofs.owners.insert(key);
        }
        kept
    }

    pub(super) fn has_proven(&self, subject: &Subject) -> bool {
        self.proofs().others.contains(subject)
    }

    pub(super) fn keep_subject(&self, subject: Subject, limit: usize) -> bool {
        let mut proofs = self.proofs();
        let kept = proofs.others.contains(&subject) || proofs.count() < limit;
        if kept {
            proofs.others.insert(subject);
        }
        kept
    }

    /// The proof of an anchor's entry that was right on this connection.
    pub(super) fn entry(&self, anchor: &AnchorId) -> Option<Proof> {
        self.proofs().entries.get(anchor).cloned()
    }

    /// Remembers a right proof; at the limit the oldest knowledge is worth no more than the newest, and it is not kept.
    pub(super) fn keep_entry(&self, anchor: AnchorId, proof: Proof, limit: usize) -> bool {
        let mut proofs = self.proofs();
        let kept = proofs.entries.contains_key(&anchor) || proofs.count() < limit;
        if kept {
            proofs.entries.insert(anchor, proof);
        }
        kept
    }

    /// Registers a subscription that yields nothing yet. `None` at the limit.
    pub(super) fn begin_subscription(
        &self,
        mailbox: MailboxId,
        born: Born,
        cursor: Seq,
        limit: usize,
    ) -> Option<Begun> {
        let _alone = self.subscribing();
        let begun = self.inbox.begin(mailbox, born, cursor, limit)?;
        if begun.is_new {
            self.topics.add(mailbox, &self.inbox);
        }
        Some(begun)
    }

    /// Ends a subscription that could not be started, unless it was begun anew meanwhile.
    pub(super) fn give_up(&self, mailbox: &MailboxId, begun: &Begun) {
        let _alone = self.subscribing();
        if self.inbox.give_up(begun) {
            self.topics.remove(mailbox, &self.inbox);
        }
    }

    pub(super) fn unsubscribe(&self, mailbox: &MailboxId) {
        let _alone = self.subscribing();
        if self.inbox.remove(mailbox) {
            self.topics.remove(mailbox, &self.inbox);
        }
    }

    /// Its subscriptions.
    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    fn subscribing(&self) -> MutexGuard<'_, ()> {
        self.subscribing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { binding: _, proofs: _, inbox: _, topics: _, subscribing: _ } = self;
        f.write_str("ConnectionState(..)")
    }
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        for mailbox in self.inbox.clear() {
            self.topics.remove(&mailbox, &self.inbox);
        }
    }
}

impl Proofs {
    fn count(&self) -> usize {
        self.rights.len() + self.access.len() + self.owners.len() + self.others.len() + self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams of one connection: one is between the inbox and the topics when the other comes.
    #[test]
    fn a_subscription_is_in_the_inbox_and_among_the_topics_or_in_neither() {
        let topics = Arc::new(Topics::new());
        let connection = ConnectionState::new(ChannelBinding::from_bytes([1; 32]), Arc::clone(&topics));
        let mailbox = MailboxId::from_bytes([2; 32]);
        let subscribe = || connection.begin_subscription(mailbox, Born::new(1), Seq::START, 1);
        for round in 0..40 {
            let begins = round % 2 == 0;
            if !begins {
                subscribe();
            }
            let stopped = topics.lock();
            std::thread::scope(|scope| {
                let first =
                    scope.spawn(|| if begins { _ = subscribe() } else { connection.unsubscribe(&mailbox) });
                while connection.has_subscriptions() != begins {
                    std::thread::yield_now();
                }
                // It sleeps then, and is slower to go on than this thread.
                std::thread::sleep(std::time::Duration::from_millis(1));
                drop(stopped);
                if begins {
                    connection.unsubscribe(&mailbox)
                } else {
                    _ = subscribe()
                }
                first.join().unwrap();
            });
            let is_there = connection.has_subscriptions();
            assert_eq!(topics.count(&mailbox), usize::from(is_there), "round {round}");
            connection.unsubscribe(&mailbox);
        }
        subscribe();
        drop(connection);
        assert_eq!(topics.count(&mailbox), 0);
    }
}
