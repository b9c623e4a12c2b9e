//! The suite that every store passes; whoever writes another engine runs it too.
//!
//! [`check`] walks through the contract of [`MailboxStore`] on an empty store. [`check_alike`] gives the same long
//! series of changes, in concurrent groups, to a store and to the reference, and compares every answer. What needs a disk, a
//! clock or another process is in the tests beside it, over every engine:
//!
//! | clause | where it is tried |
//! | --- | --- |
//! | 1, durable | `..._keeps_what_it_acknowledged_through_power_cuts`, `..._through_kill_rounds`, with mailboxes, an anchor and a tripwire under load; the control is `plain_sled_loses_what_it_acknowledged_in_power_cuts` |
//! | 1, whole changes | the same; `anc_06_a_deed_is_done_whole_or_not_at_all_when_the_relay_is_killed`, `trp_06_a_tripwire_fires_whole_or_not_at_all_and_once_when_the_relay_is_killed` |
//! | 2, order | [`check`], with a group of one caller; [`check_alike`] |
//! | 3, what has returned is seen | [`check`], [`check_alike`], `readers_see_whole_changes_while_the_store_is_written` |
//! | 3, what is not durable is not | `a_disk_that_hangs_is_reported_while_it_hangs_and_nothing_undurable_is_shown` |
//! | 4, retries | [`check`]: each kind of change twice; `every_engine_has_everything_after_it_is_opened_again` |
//! | 5, a disk that failed | `after_a_disk_that_refused_nothing_is_taken_and_everything_is_readable` |
//! | 5, a full disk | `a_disk_that_is_full_in_the_power_model_refuses_keeps_and_recovers_by_itself`, `a_full_disk_refuses_growth_and_only_growth` |
//! | 6, nobody waits | `nobody_waits_for_somebody_elses_query` |
//! | 6, no panic | damaged bytes are errors: `a_damaged_value_is_an_error_and_no_panic`, `mailbox_records_round_trip_and_refuse_every_other_length` |
//! | heads | [`check`]; `what_is_gone_is_never_walked_over_counted`, `what_is_taken_by_its_number_only_is_soon_walked_over_no_more_counted`, `deadlines_that_were_put_off_are_never_walked_over_counted` |

use std::{collections::BTreeSet, fmt, time::Duration};

use futures_util::future::join_all;
use lapwing_wire::{
    capability::{PublicKey, SecretKey},
    frame::{MailboxKind, Refusal, Seq, Stored},
    ids::{BlobHash, EnvelopeId, MailboxId, RunningHash},
    time::Timestamp,
    tripwire::{Action, ListKey, Meaning, OpenRecord, SealedList, StatusKey, Token, TokenRecord},
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

use super::{
    Born, Change, Charge, Day, Mailbox, MailboxKeys, MailboxStore, Mutation, Outcome, StoreError,
    SweepCursor, Ticket, WindowQuery, memory::MemoryStore,
};

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// A promise that a store does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        Self(format!("the store failed: {error}"))
    }
}

fn ensure(holds: bool, promise: &str) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(promise.to_owned())) }
}

/// A mailbox whose keys follow from a number.
struct Owner {
    /// Counts the lives of the mailbox: each has a birth of its own.
    life: u64,
    admin: SecretKey<lapwing_wire::capability::Admin>,
    write: SecretKey<lapwing_wire::capability::Write>,
}

impl Owner {
    fn new(byte: u8) -> Self {
        let admin = SecretKey::from_seed([byte; 32]);
        Self { life: u64::from(byte) << 32, admin, write: SecretKey::from_seed([byte ^ 0x80; 32]) }
    }

    fn id(&self) -> MailboxId {
        MailboxId::of_admin(&self.admin.public())
    }

    fn born(&self) -> Born {
        Born::new(self.life)
    }

    fn keys(&self) -> MailboxKeys {
        MailboxKeys {
            admin: self.admin.public(),
            read: PublicKey::from_bytes(*self.admin.public().as_bytes()),
            write: self.write.public(),
        }
    }

    fn create(&self, kind: MailboxKind, charge: Charge) -> Mutation {
        Mutation::Create { keys: self.keys(), kind, charge, born: self.born() }
    }

    fn append(&self, envelope: Vec<u8>) -> Mutation {
        let id = EnvelopeId::of(&envelope);
        let (mailbox, born) = (self.id(), self.born());
        Mutation::Append { mailbox, born, id, envelope: envelope.into(), limit: 1 << 20, reserve: 0 }
    }

    fn ack(&self, upto: u64, also: &[u64]) -> Mutation {
        let also = also.iter().map(|seq| Seq::new(*seq)).collect();
        Mutation::Ack { mailbox: self.id(), born: self.born(), upto: Seq::new(upto), also }
    }
}

fn envelope(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, 0x5a);
    bytes
}

async fn apply(store: &dyn MailboxStore, mutation: Mutation, day: u32) -> Result<Outcome, StoreError> {
    store.apply(Change { mutation, now: NOW, day: Day::new(day) }).await
}

async fn done(store: &dyn MailboxStore, mutation: Mutation, promise: &str) -> Result<(), Violation> {
    ensure(matches!(apply(store, mutation, 1).await?, Outcome::Done | Outcome::Withdrawn(_)), promise)
}

async fn place(store: &dyn MailboxStore, mutation: Mutation) -> Result<(Stored, bool), Violation> {
    match apply(store, mutation, 1).await? {
        Outcome::Stored { place, is_new } => Ok((place, is_new)),
        other => Err(Violation(format!("an append is stored, not {other:?}"))),
    }
}

/// Changes of one caller, each begun before the one before it is done. Without the runtime's cooperative budget, which
/// would let later ones overtake.
async fn together<F: Future>(changes: impl Iterator<Item = F>) -> Vec<F::Output> {
    tokio::task::unconstrained(join_all(changes)).await
}

/// Numbers that a window from the start shows.
async fn numbers(store: &dyn MailboxStore, owner: &Owner, after: u64) -> Result<Vec<u64>, Violation> {
    let query = WindowQuery {
        mailbox: owner.id(),
        born: owner.born(),
        after: Seq::new(after),
        count: 1_000_000,
        bytes: 1 << 30,
    };
    let window = store.window(query).await?.ok_or(Violation("the mailbox is there".into()))?;
    Ok(window.items.iter().map(|item| item.place.seq.value()).collect())
}

/// Checks an empty store against the contract. Leaves it closed.
///
/// # Errors
/// The first promise that it does not keep.
pub async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    mailboxes(store).await?;
    windows(store).await?;
    tickets(store).await?;
    blobs::check(store).await?;
    tripwires(store).await?;
    causes::check(store).await?;
    anchors::check(store).await?;
    retention(store).await?;
    remembered::check(store).await?;
    heads::check(store).await?;
    store.close().await;
    let after = apply(store, Mutation::Tick, 1).await;
    ensure(matches!(after, Err(StoreError::Closed)), "a closed store says so")?;
    ensure(store.mailbox(Owner::new(1).id()).await == Err(StoreError::Closed), "a closed store says so")
}

async fn mailboxes(store: &dyn MailboxStore) -> Result<(), Violation> {
    let mut owner = Owner::new(1);
    let id = owner.id();
    ensure(store.mailbox(id).await?.is_none(), "nothing is there at first")?;
    let refused = apply(store, owner.append(envelope(1, 1024)), 1).await?;
    ensure(matches!(refused, Outcome::Refused(Refusal::NotAllowed)), "no append to nowhere")?;
    done(store, owner.create(MailboxKind::Queue, Charge::Open), "a mailbox is created").await?;
    done(
        store,
        Mutation::Create {
            keys: owner.keys(),
            kind: MailboxKind::Queue,
            charge: Charge::Open,
            born: Born::new(8),
        },
        "create is idempotent",
    )
    .await?;
    let there = store.mailbox(id).await?;
    ensure(there.is_some_and(|there| there.born == owner.born()), "a repeated create changes nothing")?;
    let other = owner.create(MailboxKind::Log, Charge::Open);
    let conflict = apply(store, other, 1).await?;
    ensure(matches!(conflict, Outcome::Refused(Refusal::Conflict)), "another kind is a conflict")?;

    let mut hash = RunningHash::START;
    for number in 1..=5 {
        let bytes = envelope(number, 1024);
        hash = hash.next(number, &EnvelopeId::of(&bytes));
        let (stored, is_new) = place(store, owner.append(bytes)).await?;
        let expected = Stored { seq: Seq::new(number), hash };
        ensure(stored == expected && is_new, "numbers and hashes follow from the envelopes")?;
    }
    let (again, is_new) = place(store, owner.append(envelope(2, 1024))).await?;
    ensure(again.seq == Seq::new(2) && !is_new, "a retry gets the first answer")?;
    done(store, owner.ack(2, &[4]), "acknowledged").await?;
    ensure(numbers(store, &owner, 0).await? == [3, 5], "what was taken is gone, the rest is there")?;
    let bytes = store.mailbox(id).await?.map(|there| there.bytes);
    ensure(bytes == Some(2048), "what was taken is no longer charged")?;
    done(store, owner.ack(2, &[4, 4]), "a repeated acknowledgement").await?;
    done(store, owner.ack(u64::MAX, &[]), "an acknowledgement of what is to come").await?;
    let (next, _) = place(store, owner.append(envelope(6, 1024))).await?;
    ensure(next.seq == Seq::new(6), "an acknowledgement reaches to the newest only")?;
    ensure(numbers(store, &owner, 0).await? == [6], "what came later is there")?;
    let (taken, _) = place(store, owner.append(envelope(1, 1024))).await?;
    ensure(taken.seq == Seq::new(1), "a retry gets the first answer after it was taken")?;

    let mut full = owner.append(envelope(7, 1024));
    if let Mutation::Append { limit, .. } = &mut full {
        *limit = 2047;
    }
    let refused = apply(store, full, 1).await?;
    ensure(matches!(refused, Outcome::Refused(Refusal::Full)), "the limit holds")?;

    done(store, Mutation::Close { mailbox: id, born: Born::new(99) }, "closing another is nothing").await?;
    ensure(store.mailbox(id).await?.is_some(), "closing names the birth")?;
    let last = Mutation::Close { mailbox: id, born: owner.born() };
    owner.life += 1;
    let group = [last, owner.create(MailboxKind::Queue, Charge::Open), owner.append(envelope(2, 1024))];
    let outcomes = together(group.into_iter().map(|mutation| apply(store, mutation, 1))).await;
    let [Ok(Outcome::Withdrawn(_)), Ok(Outcome::Done), Ok(Outcome::Stored { place: first, is_new: true })] =
        outcomes.as_slice()
    else {
        return Err(Violation("changes of one caller take effect in their order".into()));
    };
    ensure(first.seq == Seq::new(1), "a mailbox begins anew after it was closed")?;
    ensure(numbers(store, &owner, 0).await? == [1], "nothing of its earlier life is there")?;
    for promise in ["closed", "closed again"] {
        done(store, Mutation::Close { mailbox: id, born: owner.born() }, promise).await?;
    }
    ensure(store.mailbox(id).await?.is_none(), "a closed mailbox is gone")
}

async fn windows(store: &dyn MailboxStore) -> Result<(), Violation> {
    let owner = Owner::new(2);
    let id = owner.id();
    done(store, owner.create(MailboxKind::Log, Charge::Open), "a log is created").await?;
    for number in 1..=20 {
        place(store, owner.append(envelope(number, if number == 3 { 65_536 } else { 1024 }))).await?;
    }
    let ask = |after: u64, count, bytes| WindowQuery {
        mailbox: id,
        born: owner.born(),
        after: Seq::new(after),
        count,
        bytes,
    };
    for (query, expected) in [
        (ask(0, 2, 1 << 20), vec![1, 2]),
        (ask(1, 100, 1024), vec![2]),
        (ask(2, 100, 10), vec![3]),
        (ask(0, 100, 2048), vec![1, 2]),
        (ask(18, 100, 1 << 20), vec![19, 20]),
        (ask(20, 100, 1 << 20), vec![]),
        (ask(u64::MAX, 100, 1 << 20), vec![]),
        (ask(0, 0, 1 << 20), vec![]),
    ] {
        let window = store.window(query).await?.ok_or(Violation("the log is there".into()))?;
        let found: Vec<_> = window.items.iter().map(|item| item.place.seq.value()).collect();
        ensure(found == expected, "a window has the asked bounds")?;
        ensure(window.newest == Seq::new(20), "a window names the newest")?;
    }
    done(store, owner.ack(20, &[]), "an acknowledgement in a log").await?;
    ensure(numbers(store, &owner, 0).await?.len() == 20, "a log keeps what was read")?;
    let stranger = WindowQuery { born: Born::new(1), ..ask(0, 1, 1) };
    ensure(store.window(stranger).await?.is_none(), "a window names the birth")
}

async fn tickets(store: &dyn MailboxStore) -> Result<(), Violation> {
    let key = PublicKey::from_bytes([0xa1; 32]);
    let owner = Owner::new(3);
    let create = |owner: &Owner| owner.create(MailboxKind::Queue, Charge::Ticket(key));
    let refused = apply(store, create(&owner), 1).await?;
    ensure(matches!(refused, Outcome::Refused(Refusal::NoAccess)), "an unknown ticket opens nothing")?;
    done(store, Mutation::IssueTicket(Ticket::new(key, 2048, 1, None)), "issued").await?;
    done(store, create(&owner), "a ticket creates").await?;
    let refused = apply(store, create(&Owner::new(4)), 1).await?;
    ensure(matches!(refused, Outcome::Refused(Refusal::NoAccess)), "a ticket's mailboxes are bounded")?;
    for number in 1..=2 {
        place(store, owner.append(envelope(number, 1024))).await?;
    }
    let refused = apply(store, owner.append(envelope(3, 1024)), 1).await?;
    ensure(matches!(refused, Outcome::Refused(Refusal::Full)), "a ticket's bytes are bounded")?;
    done(store, Mutation::IssueTicket(Ticket::new(key, 1, 1, None)), "issuing again changes nothing").await?;
    done(store, owner.ack(1, &[]), "taken").await?;
    place(store, owner.append(envelope(3, 1024))).await?;
    let used = store.ticket(key).await?.map(|ticket| (ticket.used_bytes, ticket.used_mailboxes));
    ensure(used == Some((2048, 1)), "use is counted")?;
    done(store, Mutation::Close { mailbox: owner.id(), born: owner.born() }, "closed").await?;
    let used = store.ticket(key).await?.map(|ticket| (ticket.used_bytes, ticket.used_mailboxes));
    ensure(used == Some((0, 0)), "closing gives back")?;
    for promise in ["revoked", "revoked again"] {
        done(store, Mutation::RevokeTicket(key), promise).await?;
    }
    let refused = apply(store, create(&owner), 1).await?;
    ensure(matches!(refused, Outcome::Refused(Refusal::NoAccess)), "a revoked ticket opens nothing")?;
    ensure(store.tickets().await?.len() == 1, "tickets are listed")
}

async fn tripwires(store: &dyn MailboxStore) -> Result<(), Violation> {
    let mut rng = StdRng::seed_from_u64(5);
    let alerts = Owner::new(5);
    done(store, alerts.create(MailboxKind::Queue, Charge::Open), "created").await?;
    let owner = SecretKey::generate(&mut rng).public();
    let tripwire = lapwing_wire::ids::TripwireId::of_owner(&owner);
    let token = Token::generate(&mut rng);
    let list_key = ListKey::generate(&mut rng);
    let record = OpenRecord {
        tripwire,
        meaning: Meaning::Fire,
        list_key: list_key.clone(),
        status_key: StatusKey::generate(&mut rng),
    };
    let actions = [Action::append(alerts.id(), envelope(1, 1024), &alerts.write)];
    let list = SealedList::seal(&actions, &tripwire, &list_key, &mut rng)
        .map_err(|_| Violation("one action fits".into()))?;
    let own = Token::generate(&mut rng);
    let renew = OpenRecord {
        tripwire,
        meaning: Meaning::Renew,
        list_key: ListKey::generate(&mut rng),
        status_key: StatusKey::generate(&mut rng),
    };
    let records =
        vec![TokenRecord::seal(&token, &record, &mut rng), TokenRecord::seal(&own, &renew, &mut rng)];
    let arm = || Mutation::Arm {
        owner,
        serial: 1,
        records: records.clone(),
        list: list.clone(),
        causes: Box::default(),
        charge: Charge::Open,
    };
    done(store, arm(), "armed").await?;
    done(store, arm(), "armed again").await?;
    let stranger = Mutation::Token { token: Token::generate(&mut rng), filler: [1; 32] };
    let outcome = apply(store, stranger, 1).await?;
    ensure(matches!(outcome, Outcome::Token { status: None, .. }), "a strange token means nothing")?;
    ensure(renewed(store, &own).await? == Some((1, false)), "the owner's token tells what is armed")?;
    for expected in [1, 0] {
        let outcome = apply(store, Mutation::Token { token: token.clone(), filler: [2; 32] }, 1).await?;
        let Outcome::Token { appended, .. } = outcome else {
            return Err(Violation("a token is answered as a token".into()));
        };
        ensure(appended.len() == expected, "a tripwire fires once")?;
        ensure(renewed(store, &own).await? == Some((1, true)), "the owner's token tells that it fired")?;
    }
    ensure(numbers(store, &alerts, 0).await? == [1], "what it did is there")?;
    done(store, Mutation::Disarm { owner }, "disarmed").await?;
    done(store, Mutation::Disarm { owner }, "disarmed again").await?;
    ensure(renewed(store, &own).await?.is_none(), "disarming leaves no record")
}

/// What the answer to a token tells under some key: serial, and whether it fired.
async fn renewed(store: &dyn MailboxStore, token: &Token) -> Result<Option<(u64, bool)>, Violation> {
    match apply(store, Mutation::Token { token: token.clone(), filler: [3; 32] }, 1).await? {
        Outcome::Token { status, .. } => Ok(status.map(|(said, _)| (said.serial, said.fired))),
        _ => Err(Violation("a token is answered as a token".into())),
    }
}

/// Sweeps to the end.
async fn sweep(store: &dyn MailboxStore, keep_from: u32) -> Result<(), Violation> {
    let mut from: Option<SweepCursor> = None;
    let mut seen = BTreeSet::new();
    loop {
        let step = Mutation::Sweep {
            from: from.clone(),
            keep_from: Day::new(keep_from),
            blobs_from: Day::new(keep_from),
            unfinished_from: Day::new(keep_from),
        };
        match apply(store, step, 1).await? {
            Outcome::Swept { next: Some(next), .. } => {
                // A mailbox with more to delete than a step may is met again.
                ensure(seen.len() < 10_000, "a sweep ends")?;
                seen.insert(next.0.clone());
                from = Some(next);
            }
            Outcome::Swept { next: None, .. } => return Ok(()),
            other => return Err(Violation(format!("a sweep is answered as a sweep, not {other:?}"))),
        }
    }
}

async fn retention(store: &dyn MailboxStore) -> Result<(), Violation> {
    let owner = Owner::new(6);
    done(store, owner.create(MailboxKind::Log, Charge::Open), "created").await?;
    for (day, numbers) in [(10, 1..=2500u64), (11, 2501..=3000)] {
        let numbers: Vec<u64> = numbers.collect();
        for group in numbers.chunks(100) {
            let group = group.iter().map(|number| apply(store, owner.append(envelope(*number, 64)), day));
            for outcome in together(group).await {
                ensure(matches!(outcome?, Outcome::Stored { is_new: true, .. }), "stored")?;
            }
        }
    }
    sweep(store, 10).await?;
    ensure(numbers(store, &owner, 0).await?.len() == 3000, "nothing young is deleted")?;
    sweep(store, 11).await?;
    ensure(numbers(store, &owner, 0).await?.first() == Some(&2501), "what is too old is deleted")?;
    let bytes = store.mailbox(owner.id()).await?.map(|there| there.bytes);
    ensure(bytes == Some(500 * 64), "what is deleted is not charged")?;
    let (young, is_new) = place(store, owner.append(envelope(2600, 64))).await?;
    ensure(young.seq == Seq::new(2600) && !is_new, "young retries are remembered")?;
    let (old, is_new) = place(store, owner.append(envelope(5, 64))).await?;
    ensure(old.seq == Seq::new(3001) && is_new, "old ones are not")?;
    let day = Duration::from_secs(24 * 3600);
    let first = apply(store, Mutation::Tick, 1).await?;
    let later =
        store.apply(Change { mutation: Mutation::Tick, now: NOW.plus(day), day: Day::new(1) }).await?;
    let (Outcome::Day(first), Outcome::Day(later)) = (first, later) else {
        return Err(Violation("a tick is answered with a day".into()));
    };
    ensure(later.value() == first.value() + 1, "the retention clock counts days")
}

/// Gives `rounds` groups of changes that follow from `seed` to the store and to the reference.
///
/// # Errors
/// The first difference.
pub async fn check_alike(store: &dyn MailboxStore, seed: u64, rounds: usize) -> Result<(), Violation> {
    let reference = MemoryStore::new();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut owners: Vec<Owner> = (100..106).map(Owner::new).collect();
    let ticket = PublicKey::from_bytes([0xa2; 32]);
    let issue = Mutation::IssueTicket(Ticket::new(ticket, 200_000, 4, None));
    done(store, issue.clone(), "issued").await?;
    done(&reference, issue, "issued").await?;
    for round in 0..rounds {
        let day = 1 + u32::try_from(round / 8).unwrap_or(u32::MAX);
        let group: Vec<Mutation> =
            (0..rng.random_range(1..24)).map(|_| random_change(&mut rng, &mut owners, ticket, day)).collect();
        let expected = together(group.iter().map(|change| apply(&reference, change.clone(), day))).await;
        let found = together(group.iter().map(|change| apply(store, change.clone(), day))).await;
        for (expected, found) in expected.into_iter().zip(found) {
            let (expected, found) = (expected?, found?);
            let alike = format!("{expected:?}") == format!("{found:?}");
            ensure(alike, &format!("seed {seed}, round {round}: {expected:?} and not {found:?}"))?;
        }
        for owner in &owners {
            let id = owner.id();
            let there = reference.mailbox(id).await?;
            // Where keys lie is a store's own affair.
            let found = store.mailbox(id).await?;
            let found = found.zip(there.as_ref()).map(|(found, there)| Mailbox { slot: there.slot, ..found });
            ensure(there == found, "mailbox records are alike")?;
            let Some(there) = there else { continue };
            let after = Seq::new(rng.random_range(0..there.newest.value() + 2));
            let query = WindowQuery { mailbox: id, born: there.born, after, count: 9, bytes: 6000 };
            ensure(reference.window(query).await? == store.window(query).await?, "windows are alike")?;
        }
        ensure(reference.tickets().await? == store.tickets().await?, "tickets are alike")?;
        ensure(reference.totals(NOW).await? == store.totals(NOW).await?, "totals are alike")?;
    }
    Ok(())
}

fn random_change(
    rng: &mut StdRng,
    owners: &mut [Owner],
    ticket: PublicKey<lapwing_wire::capability::Access>,
    day: u32,
) -> Mutation {
    let index = rng.random_range(0..owners.len());
    let owner = &mut owners[index];
    let charge = if rng.random() { Charge::Ticket(ticket) } else { Charge::Open };
    match rng.random_range(0..100) {
        0..60 => owner.append(envelope(rng.random_range(0..60), [1024, 4096][rng.random_range(0..2)])),
        60..75 => {
            let also = [rng.random_range(0..30), rng.random_range(0..30)];
            owner.ack(rng.random_range(0..8), &also)
        }
        75..85 => {
            let kind = if rng.random_ratio(1, 4) { MailboxKind::Log } else { MailboxKind::Queue };
            owner.create(kind, charge)
        }
        85..86 => {
            let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
            owner.life += 1;
            close
        }
        86..94 => {
            let bytes = vec![u8::try_from(rng.random_range(0..3)).unwrap_or(0); 3000];
            let (hash, total) = (BlobHash::of(&bytes), 3000);
            let offset = [0, 1000, 2000][rng.random_range(0..3)];
            let part = bytes.get(offset..offset + 1000).unwrap_or_default().to_vec();
            let offset = u64::try_from(offset).unwrap_or(0);
            Mutation::BlobPut { hash, total, offset, bytes: part, charge, limit: 8192 }
        }
        94..96 => {
            let bytes = vec![u8::try_from(rng.random_range(0..3)).unwrap_or(0); 3000];
            Mutation::BlobFinish { hash: BlobHash::of(&bytes), genuine: rng.random() }
        }
        96..98 => Mutation::Sweep {
            from: None,
            keep_from: Day::new(day.saturating_sub(1)),
            blobs_from: Day::new(day.saturating_sub(1)),
            unfinished_from: Day::new(day),
        },
        _ => {
            let mut filler = [0; 32];
            rng.fill_bytes(&mut filler);
            Mutation::Token { token: Token::from_bytes(filler), filler }
        }
    }
}

/// The records that a backup of a store has.
#[cfg(test)]
fn backed_up(store: &dyn super::KeptStore) -> Vec<super::Row> {
    let mut rows = Vec::new();
    let read = store.rows(&mut |row| {
        rows.push(row);
        Ok(())
    });
    read.map(|()| rows).unwrap()
}

mod anchors;
mod blobs;
mod causes;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forgetting;
#[cfg(test)]
mod guarded;
mod heads;
#[cfg(test)]
mod kill;
#[cfg(test)]
pub(in crate::store) mod power;
#[cfg(test)]
mod race;
mod remembered;
#[cfg(test)]
mod rotten;
#[cfg(test)]
mod slots;
#[cfg(test)]
mod spoilt;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod work;
