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
mod tests {
    use std::cell::RefCell;

    use lapwing_wire::ids::RunningHash;

    use super::*;

    const BORN: Born = Born::new(1);

    struct Subscribed {
        inbox: Inbox,
        mailbox: MailboxId,
        room: Arc<Semaphore>,
        /// What is being read.
        due: RefCell<Option<Due>>,
    }

    impl Subscribed {
        /// A subscription that has all up to a number.
        fn upto(cursor: u64) -> Self {
            let (inbox, mailbox) = (Inbox::new(), MailboxId::from_bytes([1; 32]));
            let begun = inbox.begin(mailbox, BORN, Seq::new(cursor), 1).unwrap();
            assert!(begun.is_new);
            let window = Window { mailbox, newest: Seq::new(cursor), items: Vec::new() };
            inbox.start(&begun, &window, Seq::new(cursor));
            Self { inbox, mailbox, room: Arc::new(Semaphore::new(1 << 20)), due: RefCell::default() }
        }

        fn offer(&self, seq: u64, length: usize) {
            self.offer_of(BORN, seq, length);
        }

        fn offer_of(&self, born: Born, seq: u64, length: usize) {
            let place = Stored { seq: Seq::new(seq), hash: RunningHash::START };
            self.inbox.offer(&self.mailbox, born, place, &Arc::new(vec![1; length]), &self.room);
        }

        /// The numbers that are handed over next, or from where on it is to be read.
        fn next(&self) -> Option<Result<Vec<u64>, u64>> {
            self.inbox.next().map(|next| match next {
                Next::Window(window) => {
                    assert_eq!(window.newest, window.items.last().unwrap().place.seq);
                    Ok(window.items.iter().map(|item| item.place.seq.value()).collect())
                }
                Next::Read(due) => {
                    let cursor = due.cursor.value();
                    self.due.replace(Some(due));
                    Err(cursor)
                }
            })
        }

        /// Begins anew.
        fn again(&self, born: Born, cursor: u64) -> Begun {
            let begun = self.inbox.begin(self.mailbox, born, Seq::new(cursor), 1).unwrap();
            assert!(!begun.is_new);
            begun
        }

        fn start(&self, begun: &Begun, after: u64, newest: u64) {
            let window = Window { mailbox: self.mailbox, newest: Seq::new(newest), items: Vec::new() };
            self.inbox.start(begun, &window, Seq::new(after));
        }

        fn withdraw(&self, born: Born, upto: u64) {
            self.inbox.withdraw(&Withdrawn { mailbox: self.mailbox, born, upto: Seq::new(upto) });
        }

        /// Reads to a number.
        fn read(&self, from: u64, upto: u64) {
            assert!(self.is_read(from, upto));
        }

        /// Whether what was read to a number is handed over.
        fn is_read(&self, from: u64, upto: u64) -> bool {
            let due = self.due.take().unwrap();
            assert_eq!(due.cursor, Seq::new(from));
            let place = |seq| Stored { seq: Seq::new(seq), hash: RunningHash::START };
            let items = (from + 1..=upto)
                .map(|seq| Item { place: place(seq), envelope: ByteBuf::from(vec![1]) })
                .collect();
            let window = Window { mailbox: self.mailbox, newest: Seq::new(upto), items };
            self.inbox.delivered(&due, Some(window)).is_some()
        }

        fn is_all_room_back(&self) -> bool {
            self.room.available_permits() == 1 << 20 && self.inbox.room.available_permits() == FRESH
        }
    }

    #[test]
    fn who_has_all_before_is_handed_what_is_new_and_whoever_has_not_reads_it() {
        let subscribed = Subscribed::upto(3);
        assert_eq!(subscribed.next(), None);
        subscribed.offer(4, 10);
        subscribed.offer(5, 10);
        assert_eq!(subscribed.next(), Some(Ok(vec![4, 5])));
        assert_eq!(subscribed.next(), None);
        // Known already; nothing is read for it.
        subscribed.offer(5, 10);
        assert_eq!(subscribed.next(), None);
        // A gap: what waits comes first, then it is read from there, and what comes meanwhile is read, too.
        subscribed.offer(6, 10);
        subscribed.offer(8, 10);
        subscribed.offer(7, 10);
        assert_eq!(subscribed.next(), Some(Ok(vec![6])));
        assert_eq!(subscribed.next(), Some(Err(6)));
        subscribed.offer(9, 10);
        subscribed.read(6, 8);
        assert_eq!(subscribed.next(), Some(Err(8)));
        subscribed.read(8, 9);
        assert_eq!(subscribed.next(), None);
        subscribed.offer(10, 10);
        assert_eq!(subscribed.next(), Some(Ok(vec![10])));
        // Of another life of the mailbox.
        subscribed.offer_of(Born::new(2), 11, 10);
        assert_eq!(subscribed.next(), Some(Err(10)));
        assert!(subscribed.is_all_room_back());
    }

    #[test]
    fn what_was_withdrawn_is_not_handed_over_whatever_comes_first() {
        let subscribed = Subscribed::upto(3);
        subscribed.offer(4, 10);
        subscribed.offer(5, 10);
        subscribed.offer(6, 10);
        // Of another life; and what was passed, which is what most acknowledgements are about.
        subscribed.withdraw(Born::new(2), 9);
        subscribed.withdraw(BORN, 3);
        assert_eq!(subscribed.next(), Some(Ok(vec![4, 5, 6])));
        subscribed.offer(7, 10);
        subscribed.offer(8, 10);
        subscribed.withdraw(BORN, 7);
        assert!(subscribed.is_all_room_back());
        assert_eq!(subscribed.next(), Some(Err(6)), "the store knows that 8 is there");
        subscribed.read(6, 8);
        // Whoever stored 9 tells of it after whoever took it.
        subscribed.withdraw(BORN, 9);
        subscribed.offer(9, 10);
        assert_eq!(subscribed.next(), Some(Err(8)));
        // It is withdrawn while it is read: what was read is dropped, and read again.
        subscribed.withdraw(BORN, 10);
        assert!(!subscribed.is_read(8, 10));
        assert_eq!(subscribed.next(), Some(Err(8)));
        subscribed.read(8, 11);
        subscribed.offer(12, 10);
        assert_eq!(subscribed.next(), Some(Ok(vec![12])), "and it goes on");
        // Closed, or a sink: for good.
        subscribed.offer(13, 10);
        subscribed.withdraw(BORN, u64::MAX);
        subscribed.offer(13, 10);
        subscribed.offer(14, 10);
        assert_eq!(subscribed.next(), Some(Err(12)));
        assert!(subscribed.is_all_room_back());
    }

    #[test]
    fn what_came_before_a_reading_is_not_handed_over_after_it() {
        let subscribed = Subscribed::upto(3);
        // 4 was taken before this was read, and is told of after it.
        subscribed.start(&subscribed.again(BORN, 3), 3, 4);
        assert_eq!(subscribed.next(), Some(Err(3)));
        let due = subscribed.due.take().unwrap();
        let window = Window { mailbox: subscribed.mailbox, newest: Seq::new(4), items: Vec::new() };
        assert!(subscribed.inbox.delivered(&due, Some(window)).is_none());
        assert_eq!(subscribed.next(), None);
        subscribed.offer(4, 10);
        assert_eq!(subscribed.next(), Some(Err(3)));
    }

    #[test]
    fn of_one_mailbox_only_what_was_begun_last_counts() {
        let subscribed = Subscribed::upto(3);
        // Another life of the mailbox begins, at the same number, while the first is read.
        subscribed.offer(5, 10);
        assert_eq!(subscribed.next(), Some(Err(3)));
        let other = Born::new(2);
        subscribed.start(&subscribed.again(other, 3), 3, 3);
        assert!(!subscribed.is_read(3, 5), "that was the first one's");
        assert_eq!(subscribed.next(), Some(Err(3)), "it is read anew");
        assert_eq!(subscribed.due.borrow().as_ref().unwrap().born, other);
        subscribed.read(3, 4);
        // Two at once: the answer to the first comes last, and from a later place.
        let (first, second) = (subscribed.again(BORN, 9), subscribed.again(BORN, 4));
        subscribed.start(&second, 4, 4);
        subscribed.start(&first, 9, 9);
        subscribed.offer(5, 10);
        assert_eq!(subscribed.next(), Some(Ok(vec![5])));
        // Or it comes to nothing.
        assert!(!subscribed.inbox.give_up(&first));
        subscribed.offer(6, 10);
        assert_eq!(subscribed.next(), Some(Ok(vec![6])));
        assert!(subscribed.inbox.give_up(&second));
        assert!(!subscribed.inbox.has_subscriptions());
    }

    #[test]
    fn who_takes_nothing_holds_no_more_than_the_bound() {
        let subscribed = Subscribed::upto(0);
        for seq in 1..=100 {
            subscribed.offer(seq, 4 << 10);
        }
        assert_eq!(subscribed.inbox.room.available_permits(), 0);
        assert_eq!(subscribed.next(), Some(Ok((1..=16).collect())));
        assert!(subscribed.is_all_room_back());
        assert_eq!(subscribed.next(), Some(Err(16)), "the rest is read");
        subscribed.read(16, 100);
        // Small ones: no more than a window.
        for seq in 101..=300 {
            subscribed.offer(seq, 1);
        }
        assert_eq!(subscribed.next(), Some(Ok((101..=228).collect())));
        assert_eq!(subscribed.next(), Some(Err(228)));
        subscribed.read(228, 300);
        // What all subscribers hold together is bounded, too.
        let all = Arc::clone(&subscribed.room).try_acquire_many_owned(1 << 20).unwrap();
        subscribed.offer(301, 1);
        assert_eq!(subscribed.next(), Some(Err(300)));
        subscribed.read(300, 301);
        drop(all);
        // Nor by beginning anew again and again.
        for _ in 0..9 {
            subscribed.start(&subscribed.again(BORN, 301), 301, 301);
            subscribed.offer(302, 1000);
        }
        assert_eq!(subscribed.inbox.lock().fresh.len(), 1);
        assert_eq!(subscribed.next(), Some(Ok(vec![302])));
        assert_eq!(subscribed.next(), None);
        // Whoever leaves leaves nothing.
        subscribed.offer(303, 1000);
        assert!(!subscribed.is_all_room_back());
        assert!(subscribed.inbox.remove(&subscribed.mailbox));
        assert!(subscribed.is_all_room_back());
        assert_eq!(subscribed.next(), None);
    }
}
