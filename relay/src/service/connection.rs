//! What a relay knows of one connection: what was proved on it, and what it subscribes to.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::{
    anchor::Proof,
    capability::{Access, ChannelBinding, PublicKey, Right, Subject, TripwireOwner},
    frame::{Seq, Window},
    ids::{AnchorId, MailboxId},
};
use tokio::sync::Notify;

use super::topics::Topics;
use crate::store::Born;

/// One connection. Holds no envelope: a slow reader costs a cursor per subscription.
pub struct ConnectionState {
    binding: ChannelBinding,
    proofs: Mutex<Proofs>,
    inbox: Arc<Inbox>,
    topics: Arc<Topics>,
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

/// A subscription that has something to read.
pub(super) struct Due {
    pub(super) mailbox: MailboxId,
    pub(super) born: Born,
    pub(super) cursor: Seq,
}

impl ConnectionState {
    pub(super) fn new(binding: ChannelBinding, topics: Arc<Topics>) -> Self {
        Self { binding, proofs: Mutex::default(), inbox: Arc::default(), topics }
    }

    /// What proofs on this connection are bound to.
    pub fn binding(&self) -> &ChannelBinding {
        &self.binding
    }

    /// Whether it subscribes to anything.
    pub fn has_subscriptions(&self) -> bool {
        !self.inbox.lock().subscriptions.is_empty()
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

    /// Registers a subscription that yields nothing yet. `false` at the limit.
    pub(super) fn begin_subscription(
        &self,
        mailbox: MailboxId,
        born: Born,
        cursor: Seq,
        limit: usize,
    ) -> bool {
        let is_new = {
            let mut state = self.inbox.lock();
            if state.subscriptions.len() >= limit && !state.subscriptions.contains_key(&mailbox) {
                return false;
            }
            let begun = Subscription { born, cursor, is_started: false, is_due: false };
            state.subscriptions.insert(mailbox, begun).is_none()
        };
        if is_new {
            self.topics.add(mailbox, &self.inbox);
        }
        true
    }

    /// Lets a subscription yield what comes after the window that answered it.
    pub(super) fn start_subscription(&self, window: &Window, after: Seq) {
        let mut state = self.inbox.lock();
        let Some(subscription) = state.subscriptions.get_mut(&window.mailbox) else { return };
        subscription.cursor = window.items.last().map_or(after, |item| item.place.seq);
        subscription.is_started = true;
        let is_due = subscription.is_due || window.newest > subscription.cursor;
        subscription.is_due = false;
        drop(state);
        if is_due {
            self.inbox.mark(&window.mailbox);
        }
    }

    pub(super) fn unsubscribe(&self, mailbox: &MailboxId) {
        if self.inbox.lock().subscriptions.remove(mailbox).is_some() {
            self.topics.remove(mailbox, &self.inbox);
        }
    }

    pub(super) async fn woken(&self) {
        self.inbox.wake.notified().await;
    }

    /// The subscription that has waited longest; it stays due until `delivered`.
    pub(super) fn next_due(&self) -> Option<Due> {
        let mut state = self.inbox.lock();
        while let Some(mailbox) = state.due.front().copied() {
            if let Some(subscription) = state.subscriptions.get_mut(&mailbox)
                && subscription.is_started
            {
                // What comes while it is read marks it again.
                subscription.is_due = false;
                return Some(Due { mailbox, born: subscription.born, cursor: subscription.cursor });
            }
            state.due.pop_front();
        }
        None
    }

    /// Moves a subscription's cursor over what was read from it. `None` if there is nothing to say.
    pub(super) fn delivered(
        &self,
        mailbox: MailboxId,
        cursor: Seq,
        window: Option<Window>,
    ) -> Option<Window> {
        let mut state = self.inbox.lock();
        state.due.retain(|due| *due != mailbox);
        let subscription = state.subscriptions.get_mut(&mailbox)?;
        let was_marked = std::mem::take(&mut subscription.is_due);
        // Subscribed anew from another place while this was read.
        if subscription.cursor != cursor || !subscription.is_started {
            let is_started = subscription.is_started;
            subscription.is_due = is_started || was_marked;
            if is_started {
                state.due.push_back(mailbox);
            }
            return None;
        }
        let last = window.as_ref().and_then(|window| window.items.last()).map(|item| item.place.seq);
        if let Some(last) = last {
            subscription.cursor = last;
        }
        let has_more = window.as_ref().zip(last).is_some_and(|(window, last)| window.newest > last);
        if has_more || was_marked {
            subscription.is_due = true;
            // At the end: mailboxes take turns.
            state.due.push_back(mailbox);
        }
        window.filter(|_| last.is_some())
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { binding: _, proofs: _, inbox: _, topics: _ } = self;
        f.write_str("ConnectionState(..)")
    }
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        let mailboxes: Vec<_> = self.inbox.lock().subscriptions.drain().map(|(id, _)| id).collect();
        for mailbox in mailboxes {
            self.topics.remove(&mailbox, &self.inbox);
        }
    }
}

impl Proofs {
    fn count(&self) -> usize {
        self.rights.len() + self.access.len() + self.owners.len() + self.others.len() + self.entries.len()
    }
}

/// The subscriptions of one connection, and which of them have something to read.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    wake: Notify,
}

#[derive(Default)]
struct InboxState {
    subscriptions: HashMap<MailboxId, Subscription>,
    /// Each due mailbox once; bounded by the number of subscriptions.
    due: VecDeque<MailboxId>,
}

struct Subscription {
    born: Born,
    cursor: Seq,
    is_started: bool,
    is_due: bool,
}

impl Inbox {
    /// Something new came to a mailbox.
    pub(super) fn mark(&self, mailbox: &MailboxId) {
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.get_mut(mailbox) else { return };
        let was_due = std::mem::replace(&mut subscription.is_due, true);
        if was_due || !subscription.is_started {
            return;
        }
        if !state.due.contains(mailbox) {
            state.due.push_back(*mailbox);
        }
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
