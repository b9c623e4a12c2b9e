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
