//! The subscriptions of one connection, and which of them have something to read.
//!
//! A subscriber that has all before an envelope gets it handed over as soon as it is on disk (`offer`). Whoever is behind, or
//! does not take what was handed over, is only marked, and reads from the store: a slow subscriber holds no memory beyond
//! `FRESH`.
//!
//! What is taken, destroyed or expires is withdrawn from here before that is answered (`withdraw`): what waited is dropped, and
//! so is what was just read from the store.
//!
//! Invariants: what is fresh follows the cursor without a gap, and nothing is handed over to a subscription that reads or is to
//! read from the store; an envelope that may have been withdrawn is only ever read from the store, which knows.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::{
    frame::{Item, Seq, Stored, Window},
    ids::MailboxId,
    limits::MAX_WINDOW,
};
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::store::{Born, Withdrawn};

/// Bytes of fresh envelopes that wait for one connection: one of the largest.
const FRESH: usize = 64 << 10;

/// The subscriptions.
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Notify,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    subscriptions: HashMap<MailboxId, Subscription>,
    /// Mailboxes to be read from the store, each once; bounded by the number of subscriptions.
    due: VecDeque<MailboxId>,
    /// Mailboxes of which something fresh waits, or waited, each once.
    fresh: VecDeque<MailboxId>,
    /// Both take turns.
    is_turn_of_due: bool,
    /// Subscriptions that were begun.
    begun: u64,
}

/// A subscription that was begun. Another stream may begin the same mailbox anew meanwhile, also in another life of it: then
/// this one is over, and nothing that is done in its name counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    mailbox: MailboxId,
    number: u64,
    /// Whether there was none.
    pub(super) is_new: bool,
}

struct Subscription {
    /// Its own among all that this connection has begun.
    number: u64,
    born: Born,
    cursor: Seq,
    is_started: bool,
    is_due: bool,
    fresh: Vec<Fresh>,
    /// What has come to this number is not handed over: it may have been withdrawn before its turn.
    settled: Seq,
    /// How often something was withdrawn that it had not passed.
    withdrawals: u64,
}

/// An envelope that is on disk and needs no reading.
struct Fresh {
    place: Stored,
    envelope: Arc<Vec<u8>>,
    _room: [OwnedSemaphorePermit; 2],
}

/// What a connection is to be told next.
pub(super) enum Next {
    /// This.
    Window(Window),
    /// What the store has for a subscription; it stays due until `delivered`.
    Read(Due),
}

/// A subscription that has something to read.
pub(super) struct Due {
    pub(super) mailbox: MailboxId,
    pub(super) born: Born,
    pub(super) cursor: Seq,
    number: u64,
    withdrawals: u64,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), room: Arc::new(Semaphore::new(FRESH)) }
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        !self.lock().subscriptions.is_empty()
    }

    /// Begins a subscription, or begins it anew. `None` at the limit.
    pub(super) fn begin(&self, mailbox: MailboxId, born: Born, cursor: Seq, limit: usize) -> Option<Begun> {
        let mut state = self.lock();
        if state.subscriptions.len() >= limit && !state.subscriptions.contains_key(&mailbox) {
            return None;
        }
        state.begun += 1;
        let number = state.begun;
        let begun = Subscription {
            number,
            born,
            cursor,
            is_started: false,
            is_due: false,
            fresh: Vec::new(),
            settled: Seq::START,
            withdrawals: 0,
        };
        let is_new = state.subscriptions.insert(mailbox, begun).is_none();
        Some(Begun { mailbox, number, is_new })
    }

    /// Lets a subscription yield what comes after the window that answered it.
    pub(super) fn start(&self, begun: &Begun, window: &Window, after: Seq) {
        let mut state = self.lock();
        let Some(subscription) = state.of(begun) else { return };
        subscription.cursor = window.items.last().map_or(after, |item| item.place.seq);
        subscription.is_started = true;
        subscription.settled = subscription.settled.max(window.newest);
        let is_due = subscription.is_due || window.newest > subscription.cursor;
        subscription.is_due = false;
        if is_due {
            self.mark_in(state, &begun.mailbox);
        }
    }

    /// Ends a subscription; whether there was one.
    pub(super) fn remove(&self, mailbox: &MailboxId) -> bool {
        self.lock().subscriptions.remove(mailbox).is_some()
    }

    /// Ends a subscription that could not be started; whether it was still there.
    pub(super) fn give_up(&self, begun: &Begun) -> bool {
        let mut state = self.lock();
        state.of(begun).is_some() && state.subscriptions.remove(&begun.mailbox).is_some()
    }

    /// Ends all subscriptions. Which there were.
    pub(super) fn clear(&self) -> Vec<MailboxId> {
        self.lock().subscriptions.drain().map(|(id, _)| id).collect()
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What has waited longest.
    pub(super) fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        state.is_turn_of_due = !state.is_turn_of_due;
        if state.is_turn_of_due {
            state.next_due().or_else(|| state.next_fresh())
        } else {
            state.next_fresh().or_else(|| state.next_due())
        }
    }

    /// Moves a subscription's cursor over what was read from it. `None` if there is nothing to say.
    pub(super) fn delivered(&self, due: &Due, window: Option<Window>) -> Option<Window> {
        let Due { mailbox, born: _, cursor, number, withdrawals } = *due;
        let mut state = self.lock();
        state.due.retain(|due| *due != mailbox);
        let subscription = state.subscriptions.get_mut(&mailbox)?;
        let was_marked = std::mem::take(&mut subscription.is_due);
        // While this was read it was begun anew, or something of it was withdrawn.
        if subscription.number != number
            || subscription.cursor != cursor
            || !subscription.is_started
            || subscription.withdrawals != withdrawals
        {
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
        if let Some(window) = &window {
            subscription.settled = subscription.settled.max(window.newest);
        }
        let has_more = window.as_ref().zip(last).is_some_and(|(window, last)| window.newest > last);
        if has_more || was_marked {
            subscription.is_due = true;
            // At the end: mailboxes take turns.
            state.due.push_back(mailbox);
        }
        window.filter(|_| last.is_some())
    }

    /// Something new came to a mailbox.
    pub(super) fn mark(&self, mailbox: &MailboxId) {
        self.mark_in(self.lock(), mailbox);
    }

    fn mark_in(&self, mut state: MutexGuard<'_, State>, mailbox: &MailboxId) {
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

    /// Drops what waits and was withdrawn. What follows it is read from the store.
    pub(super) fn withdraw(&self, withdrawn: &Withdrawn) {
        let Withdrawn { mailbox, born, upto } = withdrawn;
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.get_mut(mailbox) else { return };
        // Whoever takes what it was given, which is the rule, withdraws nothing that waits.
        if subscription.born != *born || subscription.cursor >= *upto {
            return;
        }
        subscription.settled = subscription.settled.max(*upto);
        subscription.withdrawals += 1;
        if !std::mem::take(&mut subscription.fresh).is_empty() {
            self.mark_in(state, mailbox);
        }
    }

    /// Drops all that waits and all that is being read: nobody but the store knows what of it is still there.
    pub(super) fn recall(&self) {
        let mut state = self.lock();
        let State { subscriptions, due, .. } = &mut *state;
        for (mailbox, subscription) in subscriptions.iter_mut().filter(|(_, one)| one.is_started) {
            subscription.withdrawals += 1;
            if !std::mem::take(&mut subscription.fresh).is_empty() {
                subscription.is_due = true;
                if !due.contains(mailbox) {
                    due.push_back(*mailbox);
                }
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// An envelope is on disk. It waits here if the subscriber has all before it and there is room; else it is marked.
    pub(super) fn offer(
        &self,
        mailbox: &MailboxId,
        born: Born,
        place: Stored,
        envelope: &Arc<Vec<u8>>,
        room: &Arc<Semaphore>,
    ) {
        let mut state = self.lock();
        let is_read = state.due.contains(mailbox);
        // One that was begun anew may be there still.
        let is_listed = state.fresh.contains(mailbox);
        let Some(subscription) = state.subscriptions.get_mut(mailbox) else { return };
        let newest = subscription.fresh.last().map_or(subscription.cursor, |fresh| fresh.place.seq);
        let is_known = subscription.is_started && subscription.born == born && place.seq <= newest;
        if is_known {
            // Read, or subscribed to from a later place.
            return;
        }
        let follows = subscription.is_started
            && subscription.born == born
            && !subscription.is_due
            && !is_read
            && place.seq > subscription.settled
            && place.seq == newest.next()
            && subscription.fresh.len() < MAX_WINDOW;
        let room = u32::try_from(envelope.len())
            .ok()
            .filter(|_| follows)
            .and_then(|bytes| self.take_room(room, bytes));
        let Some(room) = room else { return self.mark_in(state, mailbox) };
        subscription.fresh.push(Fresh { place, envelope: Arc::clone(envelope), _room: room });
        if !is_listed {
            state.fresh.push_back(*mailbox);
        }
        drop(state);
        self.wake.notify_one();
    }

    fn take_room(&self, all: &Arc<Semaphore>, bytes: u32) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()?;
        Some([own, Arc::clone(all).try_acquire_many_owned(bytes).ok()?])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A subscription, unless it was begun anew.
    fn of(&mut self, begun: &Begun) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(&begun.mailbox).filter(|there| there.number == begun.number)
    }

    fn next_due(&mut self) -> Option<Next> {
        while let Some(mailbox) = self.due.front().copied() {
            match self.subscriptions.get_mut(&mailbox) {
                // What waits here comes before what is read.
                Some(subscription) if !subscription.fresh.is_empty() => {
                    return Some(Next::Window(subscription.take_fresh(mailbox)));
                }
                Some(subscription) if subscription.is_started => {
                    // What comes while it is read marks it again.
                    subscription.is_due = false;
                    let Subscription { born, cursor, number, withdrawals, .. } = *subscription;
                    return Some(Next::Read(Due { mailbox, born, cursor, number, withdrawals }));
                }
                _ => self.due.pop_front(),
            };
        }
        None
    }

    fn next_fresh(&mut self) -> Option<Next> {
        while let Some(mailbox) = self.fresh.pop_front() {
            // Gone, begun anew, or taken before a reading.
            if let Some(subscription) = self.subscriptions.get_mut(&mailbox)
                && !subscription.fresh.is_empty()
            {
                return Some(Next::Window(subscription.take_fresh(mailbox)));
            }
        }
        None
    }
}

impl Subscription {
    fn take_fresh(&mut self, mailbox: MailboxId) -> Window {
        let items: Vec<Item> = std::mem::take(&mut self.fresh)
            .into_iter()
            .map(|Fresh { place, envelope, _room }| Item {
                place,
                envelope: ByteBuf::from(Arc::unwrap_or_clone(envelope)),
            })
            .collect();
        self.cursor = items.last().map_or(self.cursor, |item| item.place.seq);
        Window { mailbox, newest: self.cursor, items }
    }
}

#[cfg(test)]
mod tests;
