//! What an access ticket leaves behind when all of it is taken at once: places, which are remembered for retries.

use super::*;

/// Pays for as many places as the smallest ticket has.
const QUOTA: u64 = 64 << 10;
const PLACES: u64 = 512;
/// Envelopes that wait at one time.
const GROUP: u64 = 32;
/// Holds so many of the smallest envelopes.
const RESERVE: u64 = 4096;
const RESERVED: u64 = RESERVE / 1024;

const fn is_stored(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Stored { is_new: true, .. })
}

const fn is_full(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Full))
}

const fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::NoAccess))
}

/// An append by the administrator.
fn from_reserve(owner: &Owner, number: u64) -> Mutation {
    let (mailbox, born, envelope) = (owner.id(), owner.born(), envelope(number, 1024));
    let id = EnvelopeId::of(&envelope);
    Mutation::Append { mailbox, born, id, envelope: envelope.into(), limit: 1 << 20, reserve: RESERVE }
}

async fn take_all(store: &dyn MailboxStore, owner: &Owner) -> Result<(), Violation> {
    done(store, owner.ack(u64::MAX, &[]), "taken").await
}

/// Appends and takes these; all are stored.
async fn pass(
    store: &dyn MailboxStore,
    owner: &Owner,
    numbers: std::ops::Range<u64>,
    day: u32,
) -> Result<(), Violation> {
    let numbers: Vec<u64> = numbers.collect();
    for group in numbers.chunks(usize::try_from(GROUP).unwrap_or(1)) {
        let appends = group.iter().map(|number| apply(store, owner.append(envelope(*number, 1024)), day));
        for outcome in together(appends).await {
            ensure(is_stored(&outcome?), "a ticket's places are for all who append")?;
        }
        take_all(store, owner).await?;
    }
    Ok(())
}

/// As `pass`, by the administrator of a mailbox whose ticket has no place left, as often as his reserve lets him.
async fn pass_reserve(
    store: &dyn MailboxStore,
    owner: &Owner,
    first: u64,
    day: u32,
) -> Result<(), Violation> {
    for number in first..first + RESERVED {
        let outcome = apply(store, from_reserve(owner, number), day).await?;
        ensure(is_stored(&outcome), "each mailbox has its reserve, also when its ticket has no place left")?;
        take_all(store, owner).await?;
    }
    let outcome = apply(store, from_reserve(owner, first + RESERVED), day).await?;
    ensure(is_full(&outcome), "what is taken gives no place back to a reserve")
}

async fn remembered(
    store: &dyn MailboxStore,
    ticket: PublicKey<lapwing_wire::capability::Access>,
) -> Result<u64, Violation> {
    let ticket = store.ticket(ticket).await?.ok_or(Violation("the ticket is there".into()))?;
    ensure(ticket.used_bytes < QUOTA / 2, "what is taken is not charged")?;
    Ok(ticket.remembered.sum())
}

pub(super) async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    let ticket = PublicKey::from_bytes([0xa3; 32]);
    let charge = Charge::Ticket(ticket);
    let [one, other, late] = [Owner::new(60), Owner::new(61), Owner::new(62)];
    let create = |owner: &Owner| owner.create(MailboxKind::Queue, charge);
    done(store, Mutation::IssueTicket(Ticket::new(ticket, QUOTA, 3, None)), "issued").await?;
    done(store, create(&one), "created").await?;
    done(store, create(&other), "created").await?;
    pass(store, &one, 0..PLACES, 20).await?;
    for owner in [&one, &other] {
        let outcome = apply(store, owner.append(envelope(PLACES, 1024)), 20).await?;
        ensure(is_full(&outcome), "places are bounded by the ticket's quota, whatever was taken")?;
    }
    let (again, is_new) = place(store, one.append(envelope(5, 1024))).await?;
    ensure(again.seq == Seq::new(6) && !is_new, "a retry needs no place")?;
    done(store, create(&one), "created again").await?;
    ensure(is_refused(&apply(store, create(&late), 20).await?), "a new mailbox brings no reserve")?;
    for owner in [&one, &other] {
        pass_reserve(store, owner, 1000, 20).await?;
    }
    ensure(remembered(store, ticket).await? == PLACES + 2 * RESERVED, "what a reserve leaves is counted")?;
    let close = Mutation::Close { mailbox: other.id(), born: other.born() };
    done(store, close, "closed").await?;
    ensure(is_refused(&apply(store, create(&other), 20).await?), "closing gives no place back")?;
    sweep(store, 20).await?;
    ensure(is_full(&apply(store, one.append(envelope(PLACES, 1024)), 20).await?), "nor does a day too few")?;
    sweep(store, 21).await?;
    ensure(remembered(store, ticket).await? == 0, "what is not remembered any more is given back")?;
    done(store, create(&late), "created when there are places again").await?;
    set_off(store, ticket, &one, &late).await
}

/// What a tripwire sets off is accepted when it is armed: it comes, and is counted for who armed it.
async fn set_off(
    store: &dyn MailboxStore,
    ticket: PublicKey<lapwing_wire::capability::Access>,
    one: &Owner,
    doomed: &Owner,
) -> Result<(), Violation> {
    let mut rng = StdRng::seed_from_u64(6);
    let owner = SecretKey::generate(&mut rng).public();
    let tripwire = lapwing_wire::ids::TripwireId::of_owner(&owner);
    let (token, list_key) = (Token::generate(&mut rng), ListKey::generate(&mut rng));
    let status_key = StatusKey::generate(&mut rng);
    let record = OpenRecord { tripwire, meaning: Meaning::Fire, list_key: list_key.clone(), status_key };
    let actions = [
        Action::append(one.id(), envelope(9000, 1024), &one.write),
        Action::sink(doomed.id(), &doomed.admin),
    ];
    let list = SealedList::seal(&actions, &tripwire, &list_key, &mut rng)
        .map_err(|_| Violation("two actions fit".into()))?;
    let records = vec![TokenRecord::seal(&token, &record, &mut rng)];
    let arm = |serial: u64| Mutation::Arm {
        owner,
        serial,
        records: records.clone(),
        list: list.clone(),
        causes: Box::default(),
        charge: Charge::Ticket(ticket),
    };
    done(store, arm(1), "armed").await?;
    pass(store, one, 2000..2000 + PLACES, 21).await?;
    pass_reserve(store, one, 3000, 21).await?;
    done(store, arm(2), "a plan that was not set off can be changed").await?;
    let fire = Mutation::Token { token: token.clone(), filler: [2; 32] };
    let Outcome::Token { appended, .. } = apply(store, fire, 21).await? else {
        return Err(Violation("a token is answered as a token".into()));
    };
    ensure(appended == [one.id()], "an alert needs no place that is left")?;
    ensure(remembered(store, ticket).await? == PLACES + RESERVED + 1, "what was set off is counted")?;
    ensure(is_refused(&apply(store, arm(3), 21).await?), "nothing is set off again and again")?;
    done(store, Mutation::Disarm { owner }, "disarmed").await?;
    ensure(is_refused(&apply(store, arm(3), 21).await?), "nor as another one")?;
    sweep(store, 22).await?;
    done(store, arm(3), "armed when there are places again").await?;
    let answered = apply(store, doomed.append(envelope(1, 1024)), 22).await?;
    ensure(matches!(answered, Outcome::Stored { is_new: false, .. }), "a sink answers and keeps nothing")?;
    ensure(remembered(store, ticket).await? == 1, "a sink's places are counted")?;
    done(store, Mutation::Disarm { owner }, "disarmed").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EngineName, KeptStore, StoreOptions};

    /// Records of a backup, of one kind.
    fn rows_of(store: &dyn KeptStore, kind: u8) -> usize {
        let mut count = 0;
        store
            .rows(&mut |row| {
                count += usize::from(row.is_of(kind));
                Ok(())
            })
            .unwrap();
        count
    }

    /// A relay that comes back remembers what it remembered, and counts it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_from_a_backup_counts_the_places_that_it_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| StoreOptions::at(dir.path().join(name));
        let (owner, ticket) = (Owner::new(70), PublicKey::from_bytes([0xa1; 32]));
        let store = EngineName::Fjall.open(&at("first")).unwrap();
        done(&*store, Mutation::IssueTicket(Ticket::new(ticket, QUOTA, 9, None)), "issued").await.unwrap();
        done(&*store, owner.create(MailboxKind::Queue, Charge::Ticket(ticket)), "created").await.unwrap();
        pass(&*store, &owner, 0..300, 3).await.unwrap();
        pass(&*store, &owner, 300..PLACES, 4).await.unwrap();
        pass_reserve(&*store, &owner, 1000, 4).await.unwrap();
        assert_eq!(rows_of(&*store, b'i') as u64, PLACES + RESERVED);
        let mut rows = Vec::new();
        store
            .rows(&mut |row| {
                rows.push(row);
                Ok(())
            })
            .unwrap();
        let there = store.ticket(ticket).await.unwrap();
        store.close().await;
        drop(store);
        let mut rows = rows.into_iter();
        EngineName::Fjall.fill(&at("second"), &mut || Ok(rows.next())).unwrap();
        let store = EngineName::Fjall.open(&at("second")).unwrap();
        assert_eq!(store.ticket(ticket).await.unwrap(), there);
        for append in [owner.append(envelope(PLACES, 1024)), from_reserve(&owner, 2000)] {
            assert!(is_full(&apply(&*store, append, 4).await.unwrap()));
        }
        assert!(!place(&*store, owner.append(envelope(7, 1024))).await.unwrap().1, "a retry");
        // Each day is given back when its places are gone.
        for (keep_from, left) in [(4, PLACES - 300 + RESERVED), (5, 0)] {
            sweep(&*store, keep_from).await.unwrap();
            assert_eq!(remembered(&*store, ticket).await, Ok(left));
            assert_eq!(rows_of(&*store, b'i') as u64, left);
        }
        store.close().await;
    }
}
