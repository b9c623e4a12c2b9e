//! The stores of this crate under the suite, and the suite under a store that breaks a promise.

use std::sync::Arc;

use super::*;
use crate::store::{AnchorChange, EngineName, KeptStore, Pressure, StoreOptions, fjall::FjallStore};

#[tokio::test]
async fn memory_conforms() {
    check(&MemoryStore::new()).await.unwrap();
    check_alike(&MemoryStore::new(), 1, 40).await.unwrap();
}

async fn conforms(engine: EngineName) {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| engine.open(&StoreOptions::at(dir.path().join(name))).unwrap();
    check(&*open("a")).await.unwrap();
    for seed in 1..=3 {
        let store = open(&seed.to_string());
        check_alike(&*store, seed, 60).await.unwrap();
        store.close().await;
    }
    // A disk that takes its time: groups are staged on groups that are not durable yet, and keys are forgotten between.
    let (extra_flush, forget_after) = (Duration::from_millis(2), Duration::from_millis(20));
    let options = StoreOptions { extra_flush, forget_after, ..StoreOptions::at(dir.path().join("slow")) };
    let store = engine.open(&options).unwrap();
    check_alike(&*store, 4, 60).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fjall_conforms() {
    conforms(EngineName::Fjall).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_conforms() {
    conforms(EngineName::Sled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_engine_has_everything_after_it_is_opened_again() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store"));
        let owner = Owner::new(9);
        let store = engine.open(&options).unwrap();
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        for number in 1..=10 {
            place(&*store, owner.append(envelope(number, 1024))).await.unwrap();
        }
        done(&*store, owner.ack(3, &[5]), "acknowledged").await.unwrap();
        let before = store.mailbox(owner.id()).await.unwrap();
        assert_eq!(engine.open(&options).map(|_| ()), Err(StoreError::Locked));
        store.close().await;
        drop(store);
        let store = engine.open(&options).unwrap();
        assert_eq!(store.mailbox(owner.id()).await.unwrap(), before);
        assert_eq!(numbers(&*store, &owner, 0).await.unwrap(), [4, 6, 7, 8, 9, 10]);
        let (again, is_new) = place(&*store, owner.append(envelope(2, 1024))).await.unwrap();
        assert_eq!((again.seq, is_new), (Seq::new(2), false));
        store.close().await;
    }
}

/// Threads of an engine may hold its lock a moment longer than it lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_still_being_closed_is_waited_for() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store"));
        let store = engine.open(&options).unwrap();
        store.close().await;
        let closing = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(60));
            drop(store);
        });
        engine.open(&options).unwrap().close().await;
        closing.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_engine_is_refused_and_left_alone() {
    for (engine, other) in [(EngineName::Fjall, EngineName::Sled), (EngineName::Sled, EngineName::Fjall)] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store"));
        engine.open(&options).unwrap().close().await;
        let files = || {
            let entries = std::fs::read_dir(&options.path).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>()
        };
        let before = files();
        assert_eq!(other.open(&options).map(|_| ()), Err(StoreError::Engine));
        assert_eq!(files(), before);
        engine.open(&options).unwrap().close().await;
    }
}

/// The clause that a store with snapshots keeps easily and one without does not: nobody reads what is not durable, and
/// what is read at one moment is of one moment.
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_whole_changes_while_the_store_is_written() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let store = engine.open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        let owner = Owner::new(9);
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let returned = std::sync::atomic::AtomicU64::new(0);
        let write = async {
            for number in 1..=300u64 {
                place(&*store, owner.append(envelope(number, 1024))).await.unwrap();
                returned.store(number, std::sync::atomic::Ordering::Release);
                if number % 10 == 0 {
                    done(&*store, owner.ack(number - 5, &[]), "acknowledged").await.unwrap();
                }
            }
        };
        let read = async {
            while returned.load(std::sync::atomic::Ordering::Acquire) < 300 {
                let before = returned.load(std::sync::atomic::Ordering::Acquire);
                let query = WindowQuery {
                    mailbox: owner.id(),
                    born: owner.born(),
                    after: Seq::START,
                    count: 1000,
                    bytes: 1 << 30,
                };
                let window = store.window(query).await.unwrap().unwrap();
                let seen: Vec<u64> = window.items.iter().map(|item| item.place.seq.value()).collect();
                assert!(window.newest.value() >= before, "what had returned is seen");
                assert_eq!(seen.last().copied().unwrap_or(window.newest.value()), window.newest.value());
                assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
            }
        };
        tokio::join!(write, read);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let db = fjall::Database::builder(&path).open().unwrap();
        let state = db.keyspace("state", fjall::KeyspaceCreateOptions::default).unwrap();
        state.insert("v", "lapwing-relay store 3").unwrap();
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    assert_eq!(FjallStore::open(&StoreOptions::at(&path)).unwrap_err(), StoreError::Version);
    let db = fjall::Database::builder(&path).open().unwrap();
    let state = db.keyspace("state", fjall::KeyspaceCreateOptions::default).unwrap();
    assert_eq!(&*state.get("v").unwrap().unwrap(), b"lapwing-relay store 3");
    // The operator's page and the changelog name the format that is written.
    let version = std::str::from_utf8(crate::store::fjall::VERSION).unwrap();
    let (_, number) = version.rsplit_once(' ').unwrap();
    let page = include_str!("../../../../docs/relay-operation.md");
    assert!(page.contains(&format!("\nThe format is {number}. ")), "{version}");
    let changes = include_str!("../../../../CHANGELOG.md");
    assert!(changes.contains(&format!("store, format {number},")), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_sled_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    EngineName::Sled.open(&options).unwrap().close().await;
    let key = b"Sv";
    {
        let db =
            sled::Config::new().path(&options.path).segment_size(crate::store::sled::SEGMENT).open().unwrap();
        assert!(db.get(key).unwrap().is_some_and(|version| version.starts_with(b"lapwing-relay store ")));
        db.insert(key, b"lapwing-relay store 5").unwrap();
        db.flush().unwrap();
    }
    assert_eq!(EngineName::Sled.open(&options).err(), Some(StoreError::Version));
    let db =
        sled::Config::new().path(&options.path).segment_size(crate::store::sled::SEGMENT).open().unwrap();
    assert_eq!(db.get(key).unwrap().unwrap(), b"lapwing-relay store 5");
    // The one before is read, and is of this one from then on.
    db.insert(key, b"lapwing-relay store 7").unwrap();
    db.flush().unwrap();
    drop(db);
    EngineName::Sled.open(&options).unwrap().close().await;
    let db =
        sled::Config::new().path(&options.path).segment_size(crate::store::sled::SEGMENT).open().unwrap();
    assert_eq!(db.get(key).unwrap().unwrap(), crate::store::sled::VERSION);
    let version = std::str::from_utf8(crate::store::sled::VERSION).unwrap();
    let (_, number) = version.rsplit_once(' ').unwrap();
    let page = include_str!("../../../../docs/relay-operation.md");
    assert!(page.contains(&format!(" That of `sled` is {number}. ")), "{version}");
}

/// The store's tests of forgetting use shorter times; this is the one that operators are promised, and a second for the writing.
#[test]
fn keys_are_forgotten_within_the_time_that_the_operators_page_promises() {
    assert_eq!(StoreOptions::at("").forget_after, Duration::from_secs(10 - 1));
    let page = include_str!("../../../../docs/relay-operation.md");
    assert!(page.contains("ten seconds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_gets_full_refuses_who_begins_before_those_who_are_there() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let store = engine.open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        let (old, new) = (Owner::new(9), Owner::new(10));
        let create = |owner: &Owner| owner.create(MailboxKind::Queue, Charge::Open);
        done(&*store, create(&old), "created").await.unwrap();
        let free = crate::store::free_bytes(dir.path()).unwrap();
        // Enough for the reserve, and not for twice of it.
        store.set_reserve(free / 3 * 2);
        let refused = apply(&*store, create(&new), 1).await.unwrap();
        assert!(matches!(refused, Outcome::Refused(Refusal::Busy)), "{engine:?}");
        assert_eq!(store.health().pressure, Pressure::NothingBegins, "{engine:?}");
        place(&*store, old.append(envelope(1, 1024))).await.unwrap();
        store.set_reserve(free / 3);
        assert_eq!(store.health().pressure, Pressure::None, "{engine:?}: a smaller reserve counts at once");
        done(&*store, create(&new), "created").await.unwrap();
        store.set_reserve(u64::MAX);
        assert_eq!(store.health().pressure, Pressure::NothingNew, "{engine:?}");
        store.close().await;
        drop(store);
        let options = StoreOptions { reserve: u64::MAX, ..StoreOptions::at(dir.path().join("store")) };
        let again = engine.open(&options).unwrap();
        assert_eq!(again.health().pressure, Pressure::NothingNew, "{engine:?}: before anything is written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_growth_and_only_growth() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let store = FjallStore::open(&options).unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    store.set_reserve(u64::MAX);
    let refused = apply(&store, owner.append(envelope(2, 1024)), 1).await.unwrap();
    assert!(matches!(refused, Outcome::Refused(Refusal::Busy)));
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [1]);
    done(&store, owner.ack(1, &[]), "acknowledged").await.unwrap();
    store.set_reserve(1);
    place(&store, owner.append(envelope(2, 1024))).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_05_every_token_waits_for_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let extra_flush = Duration::from_millis(40);
    let options = StoreOptions { extra_flush, ..StoreOptions::at(dir.path().join("store")) };
    let store = FjallStore::open(&options).unwrap();
    for byte in 0..3 {
        let token = Mutation::Token { token: Token::from_bytes([byte; 32]), filler: [byte; 32] };
        // The flush sleeps at least this long, so a token that answered without one would be quicker.
        let begun = tokio::time::Instant::now();
        let outcome = apply(&store, token, 1).await.unwrap();
        assert!(matches!(outcome, Outcome::Token { status: None, .. }));
        assert!(begun.elapsed() >= extra_flush);
    }
    store.close().await;
}

/// `mount -t tmpfs -o size=600m tmpfs DIR`, then
/// `LAPWING_SMALL_DISK=DIR cargo test -p lapwing-relay --lib really_full -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a small file system of its own"]
#[expect(clippy::disallowed_methods, reason = "fills a disk")]
async fn a_really_full_disk_loses_nothing_and_recovers() {
    let disk = std::path::PathBuf::from(std::env::var_os("LAPWING_SMALL_DISK").unwrap());
    for (engine, reserve) in [
        (EngineName::Fjall, 40 << 20),
        (EngineName::Fjall, 0),
        (EngineName::Sled, 40 << 20),
        (EngineName::Sled, 0),
    ] {
        let dir = tempfile::tempdir_in(&disk).unwrap();
        let ballast = dir.path().join("ballast");
        let options = StoreOptions { reserve, ..StoreOptions::at(dir.path().join("store")) };
        let store = engine.open(&options).unwrap();
        let owner = Owner::new(9);
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let room = crate::store::free_bytes(&disk).unwrap();
        std::fs::write(&ballast, vec![1; usize::try_from(room - (60 << 20)).unwrap()]).unwrap();
        let append = |number| {
            let envelope = envelope(number, 65_536);
            let (id, mailbox, born) = (EnvelopeId::of(&envelope), owner.id(), owner.born());
            Mutation::Append { mailbox, born, id, envelope: envelope.into(), limit: u64::MAX, reserve: 0 }
        };
        let mut stored = 0;
        loop {
            match apply(&*store, append(stored + 1), 1).await {
                Ok(Outcome::Stored { .. }) => stored += 1,
                Ok(Outcome::Refused(Refusal::Busy)) if reserve > 0 => break,
                Err(StoreError::Full) if reserve == 0 => break,
                other => panic!("{other:?}"),
            }
            assert!(stored < 10_000, "the disk is small");
        }
        assert_eq!(store.health().is_full, reserve == 0);
        match numbers(&*store, &owner, 0).await {
            Ok(there) => assert_eq!(there.len(), usize::try_from(stored).unwrap()),
            // Clause 5.
            Err(refused) => assert_eq!((engine, reserve), (EngineName::Sled, 0), "{refused}"),
        }
        std::fs::remove_file(&ballast).unwrap();
        let begun = tokio::time::Instant::now();
        while !matches!(apply(&*store, append(1_000_000), 1).await, Ok(Outcome::Stored { .. })) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it goes on by itself");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{engine}, reserve {reserve}: {stored} stored, again after {:?}", begun.elapsed());
        let there = numbers(&*store, &owner, 0).await.unwrap().len();
        assert!(there > usize::try_from(stored).unwrap());
        store.close().await;
    }
}

/// A store that forgets numbers would pass a suite that cannot fail.
#[tokio::test]
async fn the_suite_notices_a_store_that_breaks_a_promise() {
    struct Forgetful(Arc<MemoryStore>);

    #[async_trait::async_trait]
    impl MailboxStore for Forgetful {
        async fn apply(&self, mut change: Change) -> Result<Outcome, StoreError> {
            if let Mutation::Ack { also, .. } = &mut change.mutation {
                also.clear();
            }
            self.0.apply(change).await
        }
        async fn mailbox(&self, id: MailboxId) -> Result<Option<super::super::Mailbox>, StoreError> {
            self.0.mailbox(id).await
        }
        async fn window(
            &self,
            query: WindowQuery,
        ) -> Result<Option<lapwing_wire::frame::Window>, StoreError> {
            self.0.window(query).await
        }
        async fn blob_part(
            &self,
            hash: BlobHash,
            offset: u64,
        ) -> Result<Option<lapwing_wire::frame::BlobPart>, StoreError> {
            self.0.blob_part(hash, offset).await
        }
        async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
            self.0.blob_digest(hash).await
        }
        async fn ticket(
            &self,
            key: PublicKey<lapwing_wire::capability::Access>,
        ) -> Result<Option<Ticket>, StoreError> {
            self.0.ticket(key).await
        }
        async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
            self.0.tickets().await
        }
        async fn totals(&self, now: Timestamp) -> Result<super::super::Totals, StoreError> {
            self.0.totals(now).await
        }
        async fn close(&self) {
            self.0.close().await;
        }
    }

    let promise = check(&Forgetful(Arc::new(MemoryStore::new()))).await.unwrap_err();
    assert_eq!(promise.to_string(), "what was taken is gone, the rest is there");
    assert!(check_alike(&Forgetful(Arc::new(MemoryStore::new())), 1, 40).await.is_err());
}

/// What was taken before a mailbox became a sink was given back then, and is not again when it would have expired: else a ticket
/// could be used for more than its quota.
#[tokio::test]
async fn a_sink_gives_nothing_back_twice() {
    let store = MemoryStore::new();
    let (doomed, other) = (Owner::new(70), Owner::new(71));
    let ticket = PublicKey::from_bytes([0xa1; 32]);
    let charge = Charge::Ticket(ticket);
    done(&store, Mutation::IssueTicket(Ticket::new(ticket, 20_000, 9, None)), "issued").await.unwrap();
    for owner in [&doomed, &other] {
        done(&store, owner.create(MailboxKind::Queue, charge), "created").await.unwrap();
    }
    for number in 0..10 {
        place(&store, doomed.append(envelope(number, 1000))).await.unwrap();
    }
    done(&store, doomed.ack(10, &[]), "taken").await.unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let owner = SecretKey::generate(&mut rng).public();
    let tripwire = lapwing_wire::ids::TripwireId::of_owner(&owner);
    let (token, list_key) = (Token::generate(&mut rng), ListKey::generate(&mut rng));
    let status_key = StatusKey::generate(&mut rng);
    let record = OpenRecord { tripwire, meaning: Meaning::Fire, list_key: list_key.clone(), status_key };
    let sink = [Action::sink(doomed.id(), &doomed.admin)];
    let arm = Mutation::Arm {
        owner,
        serial: 1,
        records: vec![TokenRecord::seal(&token, &record, &mut rng)],
        list: SealedList::seal(&sink, &tripwire, &list_key, &mut rng).unwrap(),
        causes: Box::default(),
        charge: Charge::Open,
    };
    done(&store, arm, "armed").await.unwrap();
    apply(&store, Mutation::Token { token, filler: [2; 32] }, 1).await.unwrap();
    assert!(store.mailbox(doomed.id()).await.unwrap().unwrap().sink);
    for number in 0..10 {
        apply(&store, other.append(envelope(number, 1000)), 20).await.unwrap();
    }
    sweep(&store, 10).await.unwrap();
    let kept = store.mailbox(other.id()).await.unwrap().unwrap().bytes;
    let used = store.ticket(ticket).await.unwrap().unwrap().used_bytes;
    assert_eq!((kept, used), (10_000, 10_000), "what is there, and what is charged for it");
}

/// Anchors that come and go leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_is_made_and_removed_again_and_again_leaves_no_more_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { forget_after: Duration::from_millis(1), ..StoreOptions::at(dir.path().join("store")) };
    let store = FjallStore::open(&options).unwrap();
    let anchored = anchors::Anchored::new(1);
    for _ in 0..400 {
        let make = Box::new(anchored.create().unwrap());
        for change in [
            AnchorChange::Create { make, charge: Charge::Open },
            AnchorChange::Remove(anchored.create().unwrap().owner),
        ] {
            apply(&store, Mutation::Anchor { change, filler: [8; 32] }, 1).await.unwrap();
        }
    }
    store.close().await;
    let bytes = std::fs::metadata(options.path.join(crate::store::ANCHOR_KEYS)).unwrap().len();
    assert!(bytes <= 4 * 8192, "{bytes} bytes of keys of no anchor, for ever");
}
