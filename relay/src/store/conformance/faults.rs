//! What a store promises when its disk fails, and that nobody waits for somebody else's query.

use std::path::{Path, PathBuf};

use super::*;
use crate::store::{
    EngineName, KeptStore, StoreOptions, engine::Engine, fjall::Fjall, group::GroupCommit, tables::Writes,
};

/// The default engine on a disk that does ill as long as a folder lies beside it: with `refuses` it takes nothing that must be
/// durable, with `lags` nothing that only makes it visible; with `holds` the latter waits, and the disk is full then if
/// `fills` is there; with `overflows` it is full as soon as something is durable. With `locks` it is locked once more when it is opened.
#[derive(Clone)]
pub(super) struct Faulty {
    inner: Fjall,
    refuses: PathBuf,
    lags: PathBuf,
    holds: PathBuf,
    fills: PathBuf,
    overflows: PathBuf,
}

impl Engine for Faulty {
    type View = <Fjall as Engine>::View;
    type Direct<'a> = <Fjall as Engine>::Direct<'a>;
    type Group = <Fjall as Engine>::Group;

    const WRITERS: usize = Fjall::WRITERS;

    fn open(path: &Path, cache: u64) -> Result<Self, StoreError> {
        let [refuses, lags, holds, fills, overflows] =
            ["refuses", "lags", "holds", "fills", "overflows"].map(|name| path.with_extension(name));
        if std::fs::remove_dir(path.with_extension("locks")).is_ok() {
            return Err(StoreError::Locked);
        }
        Ok(Self { inner: Fjall::open(path, cache)?, refuses, lags, holds, fills, overflows })
    }

    fn view(&self) -> Self::View {
        self.inner.view()
    }

    fn direct(&self) -> Self::Direct<'_> {
        self.inner.direct()
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> Result<Self::Group, StoreError> {
        self.inner.prepare(bulk, state)
    }

    fn commit(&self, group: &Self::Group) -> Result<(), StoreError> {
        if self.refuses.exists() { Err(StoreError::Disk) } else { self.inner.commit(group) }
    }

    fn settle(&self, group: Self::Group) -> Result<(), StoreError> {
        let is_held = self.holds.exists();
        while is_held && self.holds.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.lags.exists() {
            Err(StoreError::Disk)
        } else if self.overflows.exists() || (is_held && self.fills.exists()) {
            Err(StoreError::Full)
        } else {
            self.inner.settle(group)
        }
    }

    fn rest(&self) -> Result<(), StoreError> {
        self.inner.rest()
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.inner.tidy()
    }
}

/// Clause 5: after a disk that failed nothing is taken, what was answered stays readable, and opening again goes on.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_disk_that_refused_nothing_is_taken_and_everything_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let refuses = options.path.with_extension("refuses");
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    std::fs::create_dir(&refuses).unwrap();
    let refused = apply(&store, owner.append(envelope(2, 1024)), 1).await;
    assert!(matches!(refused, Err(StoreError::Disk)), "{refused:?}");
    assert!(store.health().has_failed);
    // The disk is well again, and nobody knows what it has kept.
    std::fs::remove_dir(&refuses).unwrap();
    for change in [owner.append(envelope(3, 1024)), owner.ack(1, &[]), Mutation::Tick] {
        let refused = apply(&store, change, 1).await;
        assert!(matches!(refused, Err(StoreError::Disk)), "{refused:?}");
    }
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1], "what was answered is readable");
    store.close().await;
    drop(store);
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    assert!(!store.health().has_failed);
    let (stored, is_new) = place(&store, owner.append(envelope(2, 1024))).await.unwrap();
    assert_eq!((stored.seq, is_new), (Seq::new(2), true));
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1, 2]);
    store.close().await;
}

/// Clause 5: threads of the engine that a full disk stopped may hold its lock a little longer than it lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_lock_is_held_a_little_longer_goes_on_after_the_disk_was_full() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let [overflows, locks] = ["overflows", "locks"].map(|name| options.path.with_extension(name));
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    super::forgetting::until("it is settled", || store.is_settled()).await;
    std::fs::create_dir(&overflows).unwrap();
    // It is durable, and answered.
    place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    super::forgetting::until("the disk is full", || store.health().is_full).await;
    std::fs::remove_dir(&overflows).unwrap();
    std::fs::create_dir(&locks).unwrap();
    place(&store, owner.append(envelope(2, 1024))).await.unwrap();
    assert!(!locks.exists(), "it was opened anew");
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1, 2]);
    store.close().await;
}

/// Clauses 1, 3 and 5: what is durable is answered and readable, whether the engine shows it or not, and is there when the
/// store is opened again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_is_readable_although_the_engine_does_not_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let lags = options.path.with_extension("lags");
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    for count in 1..=3 {
        place(&store, owner.append(envelope(count, 1024))).await.unwrap();
    }
    done(&store, owner.ack(1, &[]), "acknowledged").await.unwrap();
    std::fs::create_dir(&lags).unwrap();
    let (stored, _) = place(&store, owner.append(envelope(4, 1024))).await.unwrap();
    assert_eq!(stored.seq, Seq::new(4));
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [2, 3, 4]);
    // The other writer may have come as far.
    let next = apply(&store, owner.append(envelope(5, 1024)), 1).await;
    let mut there = vec![2, 3, 4];
    match next {
        Ok(Outcome::Stored { place, .. }) => there.push(place.seq.value()),
        Err(StoreError::Disk) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), there);
    let refused = apply(&store, owner.append(envelope(6, 1024)), 1).await;
    assert!(matches!(refused, Err(StoreError::Disk)), "{refused:?}");
    assert!(store.health().has_failed);
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), there, "what was answered is readable");
    store.close().await;
    drop(store);
    std::fs::remove_dir(&lags).unwrap();
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), there);
    let (again, is_new) = place(&store, owner.append(envelope(4, 1024))).await.unwrap();
    assert_eq!((again, is_new), (stored, false));
    store.close().await;
}

/// After two groups nobody is answered: whoever asks how the relay is is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_takes_long_to_show_what_is_durable_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let holds = options.path.with_extension("holds");
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    std::fs::create_dir(&holds).unwrap();
    place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    let begun = tokio::time::Instant::now();
    while store.health().running_commit.is_none_or(|running| running < Duration::from_millis(100)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody is told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_dir(&holds).unwrap();
    store.close().await;
    assert_eq!(store.health().running_commit, None);
}

/// Clauses 1 and 5: while one group is on its way to the disk the next is staged on it, and falls with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_staged_on_a_commit_that_failed_is_refused_and_nothing_answered_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let extra_flush = Duration::from_millis(2);
    let options = StoreOptions { extra_flush, ..StoreOptions::at(dir.path().join("store")) };
    let refuses = options.path.with_extension("refuses");
    let store = std::sync::Arc::new(GroupCommit::<Faulty>::open(&options).unwrap());
    for number in 1..=48 {
        let owner = Owner::new(number);
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    }
    let mut appending = tokio::task::JoinSet::new();
    for number in 1..=48 {
        let store = std::sync::Arc::clone(&store);
        appending.spawn(async move {
            let owner = Owner::new(number);
            for count in 0.. {
                match apply(&*store, owner.append(envelope(count, 1024)), 1).await {
                    Ok(Outcome::Stored { place, .. }) => assert_eq!(place.seq, Seq::new(count + 1)),
                    Err(StoreError::Disk) => return (number, count),
                    other => panic!("{other:?}"),
                }
            }
            unreachable!("the disk fails in the end")
        });
    }
    let begun = tokio::time::Instant::now();
    while store.overlaps() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no group is staged while another is on its way");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::create_dir(&refuses).unwrap();
    let answered = appending.join_all().await;
    store.close().await;
    drop(store);
    std::fs::remove_dir(&refuses).unwrap();
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    for (number, count) in answered {
        let owner = Owner::new(number);
        let there = numbers(&store, &owner, 0).await.unwrap();
        assert!(there.into_iter().eq(1..=count), "all that was answered, and no more");
        let next = place(&store, owner.append(envelope(count, 1024))).await.unwrap();
        assert!(next.0.seq == Seq::new(count + 1) && next.1, "what was refused is new");
    }
    store.close().await;
}

/// Clause 6: a query that takes long holds up neither changes nor other queries.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_somebody_elses_query() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let store = engine.open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        let owner = Owner::new(9);
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
        let before = backed_up(&*store);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let slow = std::sync::Arc::clone(&store);
        let query = tokio::task::spawn_blocking(move || {
            let (mut begun, mut rows) = (Some(begun), Vec::new());
            let read = slow.rows(&mut |row| {
                if let Some(begun) = begun.take() {
                    begun.send(()).unwrap();
                    goes_on.recv().unwrap();
                }
                rows.push(row);
                Ok(())
            });
            read.map(|()| rows)
        });
        has_begun.await.unwrap();
        let others = async {
            for number in 2..=20 {
                place(&*store, owner.append(envelope(number, 1024))).await.unwrap();
            }
            assert_eq!(numbers(&*store, &owner, 0).await.unwrap().len(), 20);
            done(&*store, owner.ack(20, &[]), "acknowledged").await.unwrap();
            let new = Owner::new(10);
            done(&*store, new.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            store.totals(NOW).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(60), others).await.expect("nobody waits");
        go_on.send(()).unwrap();
        let rows = query.await.unwrap().unwrap();
        assert!(rows == before, "the slow query ends well, as of its own moment: {} rows", rows.len());
        store.close().await;
    }
}

/// Clause 6: whatever the values of a store have become, every method answers with an error or with what it finds.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_value_is_an_error_and_no_panic() {
    use crate::store::tables::{Scan, Space, Tables};
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let owner = Owner::new(9);
    let ticket = PublicKey::from_bytes([0xa1; 32]);
    let blob = [7; 3000];
    let hash = BlobHash::of(&blob);
    {
        let store = EngineName::Fjall.open(&options).unwrap();
        done(&*store, Mutation::IssueTicket(Ticket::new(ticket, 1 << 20, 9, None)), "issued").await.unwrap();
        done(&*store, owner.create(MailboxKind::Queue, Charge::Ticket(ticket)), "created").await.unwrap();
        place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
        let charge = Charge::Ticket(ticket);
        let put =
            Mutation::BlobPut { hash, total: 3000, offset: 0, bytes: blob.to_vec(), charge, limit: u64::MAX };
        apply(&*store, put, 1).await.unwrap();
        apply(&*store, Mutation::BlobFinish { hash, genuine: true }, 1).await.unwrap();
        store.close().await;
    }
    let mut rng = StdRng::seed_from_u64(3);
    for round in 0..40 {
        // Each value of the store cut or changed, one kind of damage a round.
        let engine = Fjall::open(&options.path, options.memory).unwrap();
        let (mut bulk, mut state) = (Writes::new(), Writes::new());
        for (space, writes) in [(Space::Bulk, &mut bulk), (Space::State, &mut state)] {
            engine
                .direct()
                .scan(space, &[0], &[0xff; 90], &mut |key, value| {
                    // The version is compared before anything else is looked at.
                    // So is the engine's own, which says what it has.
                    if key != b"v" && !key.starts_with(b"p") {
                        writes.insert(key.to_vec(), Some(value.whole()?.into_owned()));
                    }
                    Ok(Scan::More)
                })
                .unwrap();
        }
        let whole = (bulk.clone(), state.clone());
        for value in bulk.values_mut().chain(state.values_mut()).flatten() {
            if round % 2 == 0 {
                value.truncate(rng.random_range(0..=value.len()));
            } else if !value.is_empty() {
                let at = rng.random_range(0..value.len());
                value[at] ^= rng.random_range(1..=255u8);
            }
        }
        engine.write(&bulk, &state).unwrap();
        drop(engine);
        let store = EngineName::Fjall.open(&options);
        if let Ok(store) = store {
            let query = WindowQuery {
                mailbox: owner.id(),
                born: owner.born(),
                after: Seq::START,
                count: 9,
                bytes: 9,
            };
            store.mailbox(owner.id()).await.ok();
            store.window(query).await.ok();
            store.blob_part(hash, 5).await.ok();
            store.blob_digest(hash).await.ok();
            store.ticket(ticket).await.ok();
            store.tickets().await.ok();
            store.totals(NOW).await.ok();
            store.rows(&mut |_| Ok(())).ok();
            for change in [
                owner.append(envelope(2, 1024)),
                owner.ack(1, &[1]),
                owner.create(MailboxKind::Log, Charge::Ticket(ticket)),
                Mutation::BlobFinish { hash, genuine: false },
                Mutation::Sweep {
                    from: None,
                    keep_from: Day::new(9),
                    blobs_from: Day::new(9),
                    unfinished_from: Day::new(9),
                },
                Mutation::Token { token: Token::from_bytes([1; 32]), filler: [1; 32] },
                Mutation::Watch { elapsed: Duration::from_secs(9), filler: [1; 32] },
                Mutation::Tick,
                Mutation::Close { mailbox: owner.id(), born: owner.born() },
            ] {
                let answered = apply(&*store, change, 1).await;
                // A panic of the writer would close the store.
                assert!(!matches!(answered, Err(StoreError::Closed)), "round {round}: the writer is gone");
            }
            assert!(!store.health().has_failed, "round {round}: damage is told of what is damaged only");
            store.close().await;
        }
        let engine = Fjall::open(&options.path, options.memory).unwrap();
        // Puts back what was there; what was added since is left.
        engine.write(&whole.0, &whole.1).unwrap();
    }
}

/// What the disk has spoilt keeps nothing else from expiring.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mailbox_keeps_no_other_from_being_swept() {
    use crate::store::{record::key, tables::Space};
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let mut owners = [Owner::new(9), Owner::new(10)];
    owners.sort_by_key(Owner::id);
    let [spoilt, whole] = owners;
    let store = EngineName::Fjall.open(&options).unwrap();
    for owner in [&spoilt, &whole] {
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
    }
    store.close().await;
    drop(store);
    let engine = Fjall::open(&options.path, options.memory).unwrap();
    let moving = key::all(b'n');
    let mut names = Vec::new();
    crate::store::tables::Tables::scan(
        &engine.direct(),
        Space::State,
        &moving.0,
        &moving.1,
        &mut |name, _| {
            names.push(name.to_vec());
            Ok(crate::store::tables::Scan::More)
        },
    )
    .unwrap();
    let name = names.into_iter().find(|name| name.ends_with(&spoilt.life.to_be_bytes())).unwrap();
    engine.write(&Writes::new(), &Writes::from([(name, Some(vec![1]))])).unwrap();
    drop(engine);
    let store = EngineName::Fjall.open(&options).unwrap();
    sweep(&*store, 9).await.ok();
    let left = numbers(&*store, &whole, 0).await.unwrap();
    store.close().await;
    assert!(left.is_empty(), "what is too old stays for ever, since another mailbox is damaged");
}

/// An access ticket that the disk has spoilt keeps nothing from being taken or expiring, nor others from getting back what is
/// theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ticket_keeps_nothing_from_being_swept() {
    use crate::store::record::key;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let owners = [Owner::new(9), Owner::new(10)];
    let tickets = [1, 2].map(|byte| PublicKey::from_bytes([byte; 32]));
    let store = EngineName::Fjall.open(&options).unwrap();
    for (owner, ticket) in owners.iter().zip(tickets) {
        done(&*store, Mutation::IssueTicket(Ticket::new(ticket, 1 << 20, 9, None)), "issued").await.unwrap();
        done(&*store, owner.create(MailboxKind::Queue, Charge::Ticket(ticket)), "created").await.unwrap();
        for number in 1..=2 {
            place(&*store, owner.append(envelope(number, 1024))).await.unwrap();
        }
    }
    store.close().await;
    drop(store);
    let engine = Fjall::open(&options.path, options.memory).unwrap();
    engine.write(&Writes::new(), &Writes::from([(key::ticket(&tickets[0]), Some(vec![1]))])).unwrap();
    drop(engine);
    let store = EngineName::Fjall.open(&options).unwrap();
    assert_eq!(store.ticket(tickets[0]).await, Err(StoreError::Damaged));
    let append = owners[0].append(envelope(3, 1024));
    assert!(apply(&*store, append, 1).await.is_err(), "whoever wants something new is told");
    done(&*store, owners[0].ack(1, &[]), "taken").await.unwrap();
    sweep(&*store, 9).await.unwrap();
    for owner in &owners {
        assert!(numbers(&*store, owner, 0).await.unwrap().is_empty());
    }
    let whole = store.ticket(tickets[1]).await.unwrap().unwrap();
    assert_eq!(whole, Ticket { used_mailboxes: 1, ..Ticket::new(tickets[1], 1 << 20, 9, None) });
    store.close().await;
}

/// Nor do places and attachments that it has spoilt.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_places_and_blobs_keep_no_others_from_being_swept() {
    use crate::store::record::key;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let (owner, blob) = (Owner::new(9), [7; 3000]);
    let (hash, other) = (BlobHash::of(&blob), BlobHash::from_bytes([0; 32]));
    let store = EngineName::Fjall.open(&options).unwrap();
    done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    let first = place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
    let put = Mutation::BlobPut {
        hash,
        total: 3000,
        offset: 0,
        bytes: blob.to_vec(),
        charge: Charge::Open,
        limit: u64::MAX,
    };
    apply(&*store, put, 1).await.unwrap();
    apply(&*store, Mutation::BlobFinish { hash, genuine: true }, 1).await.unwrap();
    store.close().await;
    drop(store);
    let engine = Fjall::open(&options.path, options.memory).unwrap();
    let spoilt = [key::all(key::PLACES).0, key::blob(&other)];
    engine.write(&Writes::new(), &spoilt.into_iter().map(|name| (name, Some(vec![1]))).collect()).unwrap();
    drop(engine);
    let store = EngineName::Fjall.open(&options).unwrap();
    sweep(&*store, 9).await.unwrap();
    assert!(store.blob_digest(hash).await.unwrap().is_none(), "the attachment expired");
    let again = place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
    store.close().await;
    assert!(again.0.seq > first.0.seq, "that it had been here is forgotten");
}

/// One envelope that the disk has spoilt keeps none behind it from being read.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_envelope_keeps_no_other_of_its_mailbox_from_being_read() {
    use crate::store::{record::key, tables::Space, tables::Tables};
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let owner = Owner::new(9);
    let store = EngineName::Fjall.open(&options).unwrap();
    done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    for count in 1..=3 {
        place(&*store, owner.append(envelope(count, 1024))).await.unwrap();
    }
    store.close().await;
    drop(store);
    let engine = Fjall::open(&options.path, options.memory).unwrap();
    let name = key::envelope(owner.born(), Seq::new(1));
    let indexed = engine.direct().load(Space::Bulk, &name).unwrap().unwrap();
    drop(engine);
    // The body lies in the log as it was sealed.
    let segment = options.path.join("values/0000000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = memchr::memmem::find(&bytes, &indexed[indexed.len() - 900..]).unwrap();
    bytes[at] ^= 1;
    #[expect(clippy::disallowed_methods, reason = "damages a file")]
    std::fs::write(&segment, bytes).unwrap();
    let store = EngineName::Fjall.open(&options).unwrap();
    let read = numbers(&*store, &owner, 0).await.map_err(|violation| violation.to_string());
    store.close().await;
    assert_eq!(read, Ok(vec![2, 3]), "nothing behind it is read until all of it has expired");
}
