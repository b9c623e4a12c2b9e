//! What is remembered of envelopes for retries, and when it is not any more.

use super::*;
use crate::store::record::REMEMBERED;

const MANY: u64 = REMEMBERED as u64;
/// Appends at one time.
const GROUP: usize = 256;

/// Appends these; each is stored, as a new one.
pub(super) async fn append(
    store: &dyn MailboxStore,
    owner: &Owner,
    numbers: std::ops::RangeInclusive<u64>,
) -> Result<(), Violation> {
    let numbers: Vec<u64> = numbers.collect();
    for group in numbers.chunks(GROUP) {
        let group = group.iter().map(|number| apply(store, owner.append(envelope(*number, 64)), 1));
        for outcome in together(group).await {
            ensure(matches!(outcome?, Outcome::Stored { is_new: true, .. }), "stored")?;
        }
    }
    Ok(())
}

/// The number that an envelope gets when it is sent again.
async fn again(store: &dyn MailboxStore, owner: &Owner, number: u64) -> Result<u64, Violation> {
    Ok(place(store, owner.append(envelope(number, 64))).await?.0.seq.value())
}

/// Forgets what retries need no more, to the end; in how many steps.
pub(super) async fn forget(store: &dyn MailboxStore) -> Result<usize, Violation> {
    let mut from = None;
    for steps in 1..10_000 {
        match apply(store, Mutation::Forget { from }, 1).await? {
            Outcome::Swept { next: Some(next), .. } => from = Some(next),
            Outcome::Swept { next: None, .. } => return Ok(steps),
            other => return Err(Violation(format!("forgetting is answered as a sweep, not {other:?}"))),
        }
    }
    Err(Violation("forgetting ends".into()))
}

pub(super) async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    taken(store).await?;
    out_of_order(store).await?;
    sink(store).await
}

/// Of what was taken the newest are remembered, and not more for long.
async fn taken(store: &dyn MailboxStore) -> Result<(), Violation> {
    let owner = Owner::new(0x61);
    done(store, owner.create(MailboxKind::Queue, Charge::Open), "created").await?;
    append(store, &owner, 1..=MANY + 10).await?;
    forget(store).await?;
    ensure(again(store, &owner, 1).await? == 1, "what is there is remembered, however many came")?;
    done(store, owner.ack(MANY - 1, &[]), "taken").await?;
    forget(store).await?;
    ensure(again(store, &owner, 10).await? == 10, "few that were taken are remembered")?;
    done(store, owner.ack(MANY, &[]), "taken").await?;
    ensure(again(store, &owner, 10).await? == 10, "nothing is forgotten but by a sweep")?;
    forget(store).await?;
    ensure(again(store, &owner, 11).await? == 11, "the newest are remembered when they were taken")?;
    ensure(again(store, &owner, MANY + 10).await? == MANY + 10, "and what is there")?;
    ensure(again(store, &owner, 10).await? == MANY + 11, "what more came after is not")?;
    ensure(again(store, &owner, 10).await? == MANY + 11, "it is a new one, and remembered as that")?;
    let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
    done(store, close, "closed").await?;
    forget(store).await.map(|_| ())
}

/// A mailbox of which nothing is ever taken but by its number.
async fn out_of_order(store: &dyn MailboxStore) -> Result<(), Violation> {
    let owner = Owner::new(0x62);
    done(store, owner.create(MailboxKind::Queue, Charge::Open), "created").await?;
    append(store, &owner, 1..=MANY + 200).await?;
    // What lies behind the reach of the oldest comes into it when that is taken.
    let first: Vec<u64> = (2..=1 + MANY).filter(|seq| *seq != 100).chain([1]).collect();
    let others: Vec<u64> = (2 + MANY..=100 + MANY).collect();
    for also in first.chunks(GROUP).chain(others.chunks(GROUP)) {
        done(store, owner.ack(0, also), "taken out of order").await?;
    }
    forget(store).await?;
    let left: Vec<u64> = [100].into_iter().chain(101 + MANY..=200 + MANY).collect();
    ensure(numbers(store, &owner, 0).await? == left, "what was not taken is there")?;
    ensure(again(store, &owner, 100).await? == 100, "and remembered")?;
    ensure(again(store, &owner, 201).await? == 201, "as are the newest")?;
    ensure(again(store, &owner, 200).await? == MANY + 201, "others are not")
}

/// A sink forgets what was taken before as every mailbox does, and nothing that it would hold.
async fn sink(store: &dyn MailboxStore) -> Result<(), Violation> {
    let owner = Owner::new(0x63);
    done(store, owner.create(MailboxKind::Queue, Charge::Open), "created").await?;
    append(store, &owner, 1..=MANY + 5).await?;
    done(store, owner.ack(MANY, &[]), "taken").await?;
    fire(store, vec![Action::sink(owner.id(), &owner.admin)]).await?;
    for number in MANY + 6..=2 * MANY + 20 {
        let (place, is_new) = place(store, owner.append(envelope(number, 64))).await?;
        ensure(place.seq.value() == number && !is_new, "a sink answers and keeps nothing")?;
    }
    // Whoever sweeps first.
    sweep(store, 1).await?;
    forget(store).await?;
    ensure(again(store, &owner, MANY + 1).await? == MANY + 1, "what was not taken is remembered")?;
    ensure(again(store, &owner, MANY + 6).await? == MANY + 6, "and what came since")?;
    ensure(again(store, &owner, MANY).await? == 2 * MANY + 21, "what was taken is forgotten as elsewhere")
}

/// Sets actions off by a token.
async fn fire(store: &dyn MailboxStore, actions: Vec<Action>) -> Result<(), Violation> {
    let mut rng = StdRng::seed_from_u64(43);
    let owner = SecretKey::generate(&mut rng).public();
    let tripwire = lapwing_wire::ids::TripwireId::of_owner(&owner);
    let (token, list_key) = (Token::generate(&mut rng), ListKey::generate(&mut rng));
    let status_key = StatusKey::generate(&mut rng);
    let record = OpenRecord { tripwire, meaning: Meaning::Fire, list_key: list_key.clone(), status_key };
    let list = SealedList::seal(&actions, &tripwire, &list_key, &mut rng)
        .map_err(|_| Violation("the actions fit".into()))?;
    let records = vec![TokenRecord::seal(&token, &record, &mut rng)];
    let (causes, charge) = (Box::default(), Charge::Open);
    done(store, Mutation::Arm { owner, serial: 1, records, list, causes, charge }, "armed").await?;
    let fired = apply(store, Mutation::Token { token, filler: [2; 32] }, 1).await?;
    ensure(matches!(fired, Outcome::Token { .. }), "a token is answered as a token")?;
    done(store, Mutation::Disarm { owner }, "disarmed").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EngineName, KeptStore, StoreOptions};

    fn options(dir: &tempfile::TempDir) -> StoreOptions {
        let forget_after = Duration::from_millis(50);
        StoreOptions { forget_after, ..StoreOptions::at(dir.path().join("store")) }
    }

    /// Records that a backup would have, and their bytes.
    fn kept(store: &dyn KeptStore) -> (u64, usize) {
        let (mut rows, mut bytes) = (0, 0);
        store
            .rows(&mut |row| {
                (rows, bytes) = (rows + 1, bytes + row.length());
                Ok(())
            })
            .unwrap();
        (rows, bytes)
    }

    /// Whoever appends and takes again and again leaves no more than what is remembered of a mailbox; whoever closes it as well,
    /// nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_appended_and_taken_again_and_again_leaves_a_bounded_number_of_places() {
        for engine in [EngineName::Fjall, EngineName::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let store = engine.open(&options(&dir)).unwrap();
            let ticket = PublicKey::from_bytes([0xa1; 32]);
            let issued = Mutation::IssueTicket(Ticket::new(ticket, 1 << 20, 9, None));
            done(&*store, issued, "issued").await.unwrap();
            let mut owner = Owner::new(70);
            done(&*store, owner.create(MailboxKind::Queue, Charge::Ticket(ticket)), "created").await.unwrap();
            let mut next = 1;
            for _ in 0..5 {
                append(&*store, &owner, next..=next + MANY - 1).await.unwrap();
                next += MANY;
                done(&*store, owner.ack(u64::MAX, &[]), "taken").await.unwrap();
                forget(&*store).await.unwrap();
            }
            // The ticket, the mailbox and the like are the others.
            let (rows, bytes) = kept(&*store);
            assert!((MANY..MANY + 30).contains(&rows), "{rows} records of {bytes} bytes");
            for _ in 0..20 {
                let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
                done(&*store, close, "closed").await.unwrap();
                owner.life += 1;
                let create = owner.create(MailboxKind::Queue, Charge::Ticket(ticket));
                done(&*store, create, "created again").await.unwrap();
                append(&*store, &owner, 1..=100).await.unwrap();
            }
            assert!(kept(&*store).0 > MANY + 1900);
            forget(&*store).await.unwrap();
            done(&*store, owner.ack(u64::MAX, &[]), "taken").await.unwrap();
            let (rows, _) = kept(&*store);
            assert!((100..160).contains(&rows), "{rows} records of one mailbox with 100");
            store.close().await;
        }
    }

    fn close(owner: &Owner) -> Mutation {
        Mutation::Close { mailbox: owner.id(), born: owner.born() }
    }

    /// A store with mailboxes of which all was taken but so many, which lie there.
    async fn emptied(owners: &[&Owner], waiting: u64) -> MemoryStore {
        let store = MemoryStore::new();
        for owner in owners {
            done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            append(&store, owner, 1..=3 * MANY).await.unwrap();
            done(&store, owner.ack(3 * MANY - waiting, &[]), "taken").await.unwrap();
        }
        store
    }

    const PLACES: u8 = b'i';

    #[tokio::test]
    async fn a_mailbox_that_is_closed_while_it_is_looked_over_leaves_nothing() {
        let owner = Owner::new(73);
        let store = emptied(&[&owner], 3 * MANY - MANY).await;
        let Outcome::Swept { next: Some(next), .. } =
            apply(&store, Mutation::Forget { from: None }, 1).await.unwrap()
        else {
            panic!("it is not done");
        };
        assert!(store.count(PLACES) as u64 >= 2 * MANY);
        done(&store, close(&owner), "closed").await.unwrap();
        let mut from = Some(next);
        while from.is_some() {
            let step = apply(&store, Mutation::Forget { from }, 1).await.unwrap();
            let Outcome::Swept { next, .. } = step else { panic!("a step, not {step:?}") };
            from = next;
        }
        assert_eq!((store.count(PLACES), store.count(b'j')), (0, 0));
    }

    /// Somebody whose mailbox is to be looked over again and again is looked over to the end each time, and keeps nobody waiting.
    #[tokio::test]
    async fn a_busy_mailbox_is_looked_over_to_its_end_and_others_too() {
        let (busy, other) = (Owner::new(74), Owner::new(75));
        assert!(busy.born().value() < other.born().value(), "its turn is first");
        let store = emptied(&[&busy, &other], 0).await;
        let day = Day::new(1);
        let change = |mutation| Change { mutation, now: NOW, day };
        let (mut from, mut number, mut steps) = (None, 3 * MANY, 0);
        loop {
            // In the group of each step so many are taken that it is to be looked over again.
            append(&store, &busy, number + 1..=number + MANY).await.unwrap();
            number += MANY;
            let together =
                store.apply_together(&[change(busy.ack(u64::MAX, &[])), change(Mutation::Forget { from })]);
            let Some(Outcome::Swept { next, .. }) = together.into_iter().next_back() else {
                panic!("a step is answered as a sweep");
            };
            steps += 1;
            from = next;
            if from.is_none() {
                break;
            }
            assert!(steps < 100, "it comes to an end");
        }
        // One walk over what was there, and what came while it went on.
        let rows = store.count(PLACES) as u64;
        assert!(rows <= 2 * MANY + (steps + 1) * MANY, "{rows} after {steps} steps");
        forget(&store).await.unwrap();
        forget(&store).await.unwrap();
        assert_eq!((store.count(PLACES) as u64, store.count(b'j')), (2 * MANY, 0));
    }

    /// More mailboxes than one group can close are done with in a step: else there would be no end while they come.
    #[tokio::test]
    async fn many_that_were_closed_take_few_steps() {
        let store = MemoryStore::new();
        for life in 0..1024u64 {
            let mut owner = Owner::new(76);
            owner.life += life;
            done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            append(&store, &owner, 1..=1).await.unwrap();
            done(&store, close(&owner), "closed").await.unwrap();
        }
        assert_eq!(store.count(PLACES), 1024);
        let steps = forget(&store).await.unwrap();
        assert!(steps <= 3, "{steps} steps for what takes three groups to close");
        assert_eq!(store.count(PLACES), 0);
    }

    /// A relay that comes back forgets what it had to forget.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_from_a_backup_forgets_what_was_to_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = EngineName::Fjall.open(&options(&dir)).unwrap();
        let [taken, closed] = [71, 72].map(Owner::new);
        for owner in [&taken, &closed] {
            done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            append(&*store, owner, 1..=MANY + 300).await.unwrap();
        }
        done(&*store, taken.ack(u64::MAX, &[]), "taken").await.unwrap();
        let close = Mutation::Close { mailbox: closed.id(), born: closed.born() };
        done(&*store, close, "closed").await.unwrap();
        let rows = backed_up(&*store);
        store.close().await;
        drop(store);
        let second = StoreOptions::at(dir.path().join("second"));
        let mut rows = rows.into_iter();
        EngineName::Fjall.fill(&second, &mut || Ok(rows.next())).unwrap();
        let store = EngineName::Fjall.open(&second).unwrap();
        let before = kept(&*store).0;
        forget(&*store).await.unwrap();
        // The mailbox that is closed, what more was taken, and the two records that said so.
        assert_eq!(before - kept(&*store).0, MANY + 300 + 300 + 2);
        store.close().await;
    }
}
