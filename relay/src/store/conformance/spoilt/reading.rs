//! Mailboxes and tripwires of which a part cannot be read: who reads, takes, closes, and arms anew.

use super::{
    super::{
        causes::{SHORTEST, Watched, pass},
        forgetting::until,
    },
    tests::{alerting, at, on_ill, open, options},
    *,
};
use crate::store::{
    StoreOptions,
    fjall::Fjall,
    keys::KeyFile,
    record::{Cause, RUNNING, key, list_key},
    sled::Sled,
};

async fn filled<E: Engine>(store: &GroupCommit<Spoilt<E>>, byte: u8, count: u64) -> Owner {
    let owner = Owner::new(byte);
    done(store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    for number in 1..=count {
        place(store, owner.append(envelope(number, 1024))).await.unwrap();
    }
    owner
}

fn all_ill(options: &StoreOptions) -> Vec<Block> {
    super::all().get(&options.path).cloned().unwrap_or_default()
}

fn bodies(owner: &Owner, first: u64, last: u64, ill: Ill) -> Block {
    let name = |seq| key::envelope(owner.born(), Seq::new(seq));
    (Space::Bulk, name(first), name(last), ill)
}

/// Sectors that cannot be read, and bodies whose sums are wrong.
async fn windows<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let owner = filled(&store, 9, 60).await;
    let read = async |store: &GroupCommit<Spoilt<E>>, after| {
        let query = WindowQuery {
            mailbox: owner.id(),
            born: owner.born(),
            after: Seq::new(after),
            count: 100,
            bytes: 1 << 20,
        };
        let window = store.window(query).await?;
        Ok(window.unwrap().items.iter().map(|item| item.place.seq.value()).collect::<Vec<_>>())
    };
    let store = on_ill(store, options, vec![bodies(&owner, 3, 3, Ill::Bodiless)]).await;
    assert_eq!(read(&store, 0).await, Ok(vec![1, 2]), "what is read ends before it");
    assert_eq!(read(&store, 2).await, Err(StoreError::Disk), "whoever goes on there comes again");
    done(&store, owner.ack(2, &[]), "taken").await.unwrap();
    assert!(!store.health().has_failed);
    let rotten = vec![
        bodies(&owner, 3, 3, Ill::Rotten),
        bodies(&owner, 5, 24, Ill::Rotten),
        bodies(&owner, 26, 26, Ill::Cut),
        bodies(&owner, 28, 29, Ill::Damaged),
    ];
    let store = on_ill(store, options, rotten).await;
    assert_eq!(read(&store, 0).await, Ok(vec![4]), "so many are left out, and the window ends");
    assert_eq!(read(&store, 4).await, Ok(vec![25]), "none shown: it goes on to the next that can be read");
    assert_eq!(read(&store, 25).await, Ok(vec![27]), "and ends before a block of the index");
    assert_eq!(read(&store, 27).await, Err(StoreError::Damaged), "behind it nothing is shown");
    done(&store, owner.ack(60, &[]), "taken around it by who knows it").await.unwrap();
    let store = on_ill(store, options, Vec::new()).await;
    assert_eq!(read(&store, 0).await, Ok(vec![]));
    let there = store.mailbox(owner.id()).await.unwrap().unwrap();
    assert_eq!((there.bytes, there.head), (0, Seq::new(61)), "and nothing is charged for what is lost");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_ends_before_what_the_disk_cannot_read_and_leaves_out_what_it_has_spoilt() {
    over_engines!(windows);
}

/// The newest envelopes, in a mailbox that wrote nothing since that says how many there are.
async fn tails<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let owner = filled(&store, 9, 5).await;
    let store = on_ill(store, options, vec![bodies(&owner, 3, 4, Ill::Damaged)]).await;
    // Shown with a number that is too low it would look as if the relay had been put back.
    assert!(numbers(&store, &owner, 0).await.is_err(), "not even the newest number is known");
    done(&store, owner.ack(2, &[]), "taken by who had read it before").await.unwrap();
    let (next, _) = place(&store, owner.append(envelope(6, 1024))).await.unwrap();
    assert!(next.seq > Seq::new(5), "no number comes again");
    assert!(numbers(&store, &owner, 2).await.is_err(), "what is behind the damage waits");
    done(&store, owner.ack(next.seq.value() - 1, &[]), "taken around it").await.unwrap();
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [next.seq.value()]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_whose_newest_envelopes_are_damaged_waits_and_is_taken_from_around_them() {
    over_engines!(tails);
}

/// Mailboxes that cannot be read are closed.
async fn closing<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let [moved, tailed, middle] =
        [filled(&store, 9, 20).await, filled(&store, 10, 5).await, filled(&store, 11, 40).await];
    let keys = KeyFile::open(&options.path).unwrap();
    let mut slots = Vec::new();
    for owner in [&moved, &tailed, &middle] {
        slots.push(store.mailbox(owner.id()).await.unwrap().unwrap().slot);
    }
    let blocks = vec![
        at(Space::State, key::moving(moved.born())),
        bodies(&tailed, 2, 3, Ill::Damaged),
        bodies(&middle, 7, 9, Ill::Damaged),
    ];
    let store = on_ill(store, options, blocks).await;
    for owner in [&moved, &tailed, &middle] {
        let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
        done(&store, close, "closed").await.unwrap();
        assert!(store.mailbox(owner.id()).await.unwrap().is_none());
    }
    until("their keys are gone", || slots.iter().all(|slot| keys.load(*slot).unwrap().is_none())).await;
    for (owner, spoilt) in [(&moved, 0), (&tailed, 2), (&middle, 3)] {
        let left = written(&options.path, Space::Bulk, b'e');
        let of = |name: &Vec<u8>| key::born_in(name) == Some(owner.born());
        assert_eq!(left.iter().filter(|(name, _)| of(name)).count(), spoilt, "what can be found is deleted");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_cannot_be_read_is_closed_and_its_keys_are_overwritten() {
    over_engines!(closing);
}

/// What moves of a mailbox that is to be a sink.
async fn sinks<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let ticket = PublicKey::from_bytes([0xa1; 32]);
    done(&store, Mutation::IssueTicket(Ticket::new(ticket, 1 << 20, 9, None)), "issued").await.unwrap();
    let owner = Owner::new(9);
    done(&store, owner.create(MailboxKind::Queue, Charge::Ticket(ticket)), "created").await.unwrap();
    for number in 1..=40 {
        place(&store, owner.append(envelope(number, 1024))).await.unwrap();
    }
    done(&store, owner.ack(38, &[40]), "taken").await.unwrap();
    let watched = Watched::new(60);
    let mut causes = alerting(600, Vec::new());
    let actions = vec![Action::sink(owner.id(), &owner.admin)];
    causes.destroying = Some(lapwing_wire::tripwire::Deadline { after_s: 1200, actions });
    done(&store, watched.arm(1, causes).unwrap(), "armed").await.unwrap();
    let store = on_ill(store, options, vec![at(Space::State, key::moving(owner.born()))]).await;
    pass(&store, 25).await.unwrap();
    assert!(store.mailbox(owner.id()).await.unwrap().unwrap().sink);
    let (next, _) = place(&store, owner.append(envelope(41, 1024))).await.unwrap();
    assert_eq!(next.seq, Seq::new(41), "nobody who sends sees a difference");
    // A day is enough for all of it.
    sweep(&store, 9).await.unwrap();
    let left = written(&options.path, Space::Bulk, b'e');
    assert!(left.is_empty(), "{} envelopes of a sink are left", left.len());
    let used = store.ticket(ticket).await.unwrap().unwrap().used_bytes;
    assert_eq!(used, 0, "what it would hold is given back");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_could_not_be_read_goes_on_counting_and_gives_all_of_it_back() {
    over_engines!(sinks);
}

/// A head that is wrong in a block that is not.
async fn heads<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let owner = filled(&store, 9, 15).await;
    let (young, _) = match apply(&store, owner.append(envelope(16, 1024)), 9).await.unwrap() {
        Outcome::Stored { place, is_new } => (place, is_new),
        other => panic!("{other:?}"),
    };
    let store = on_ill(store, options, vec![bodies(&owner, 16, 16, Ill::Cut)]).await;
    sweep(&store, 9).await.unwrap();
    let store = on_ill(store, options, Vec::new()).await;
    assert_eq!(numbers(&store, &owner, 0).await.unwrap(), [young.seq.value()], "it may be young, and is");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_whose_age_is_damaged_keeps_its_key() {
    over_engines!(heads);
}

/// A list and a record of a tripwire that its owner takes away, or arms anew.
async fn armed_anew<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let all = [60, 61].map(Watched::new);
    let mut blocks = Vec::new();
    for watched in &all {
        done(&store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&store, watched.arm(1, alerting(600, vec![watched.alert(1)])).unwrap(), "armed").await.unwrap();
        blocks.push(at(Space::Bulk, list_key(&watched.id(), Cause::Alerting)));
        blocks.push(at(Space::Bulk, key::record(&watched.token.lookup(), &watched.id(), 0)));
    }
    let store = on_ill(store, options, blocks).await;
    done(&store, Mutation::Disarm { owner: all[0].owner.public() }, "disarmed").await.unwrap();
    done(&store, all[1].arm(2, alerting(600, vec![all[1].alert(2)])).unwrap(), "armed anew").await.unwrap();
    assert_eq!(
        pass(&store, SHORTEST).await.unwrap(),
        1,
        "what is armed anew comes, and what is not does not"
    );
    assert_eq!(numbers(&store, &all[0].alerts, 0).await.unwrap(), Vec::<u64>::new());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_04_a_tripwire_with_a_damaged_list_and_record_is_taken_away_and_armed_anew() {
    over_engines!(armed_anew);
}

/// What says that keys are to go cannot be read: it may be gone, and its slot somebody else's.
async fn untold<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let [kept, other] = [filled(&store, 9, 1).await, filled(&store, 10, 1).await];
    let keys = KeyFile::open(&options.path).unwrap();
    let mut slots = Vec::new();
    for owner in [&kept, &other] {
        slots.push(store.mailbox(owner.id()).await.unwrap().unwrap().slot);
    }
    let name = key::due(slots[0]);
    // Also after it is written anew.
    let behind = [&name[..], &[0]].concat();
    let store = on_ill(store, options, vec![(Space::State, name, behind, Ill::Damaged)]).await;
    for owner in [&kept, &other] {
        let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
        done(&store, close, "closed").await.unwrap();
        if owner.id() == other.id() {
            until("others are overwritten", || keys.load(slots[1]).unwrap().is_none()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(keys.load(slots[0]).unwrap().is_some(), "nobody knows whose they are");
    spoil(&options.path, Vec::new());
    until("it is tried again", || keys.load(slots[0]).unwrap().is_none()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_overwritten_only_where_it_can_be_read_that_they_are_to_be() {
    over_engines!(untold);
}

/// The running time, and tripwires.
async fn uncounted<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let all = [60, 61].map(Watched::new);
    for watched in &all {
        done(&store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&store, watched.arm(1, alerting(1200, vec![watched.alert(1)])).unwrap(), "armed").await.unwrap();
    }
    let early = Watched::new(63);
    done(&store, early.arm(1, alerting(600, Vec::new())).unwrap(), "armed").await.unwrap();
    let cut = |n: usize| {
        let name = key::tripwire(&all[n].id());
        (Space::State, name.clone(), name, Ill::Cut)
    };
    let store = on_ill(store, options, vec![at(Space::State, RUNNING.to_vec()), cut(0), cut(1)]).await;
    assert_eq!(pass(&store, 2).await.unwrap(), 0);
    let store = on_ill(store, options, Vec::new()).await;
    assert_eq!(pass(&store, 3 * SHORTEST).await.unwrap(), 2, "nobody knew that they wait, and they come");
    // A token tells it anew too, for all that follow.
    let third = Watched::new(62);
    done(&store, third.arm(1, alerting(36_000, Vec::new())).unwrap(), "armed").await.unwrap();
    let store = on_ill(store, options, vec![at(Space::State, RUNNING.to_vec())]).await;
    third.renew(&store).await.unwrap();
    assert!(all_ill(options).is_empty(), "it is written");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_10_deadlines_of_tripwires_that_nobody_can_read_are_waited_for() {
    over_engines!(uncounted);
}
