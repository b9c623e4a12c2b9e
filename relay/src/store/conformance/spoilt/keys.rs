//! Keys that have rotted under what is to be set off.

use lapwing_wire::{
    frame::Evaluate,
    limits::MAX_FAILURES,
    oprf::Blinded,
    tripwire::{Causes, Frozen},
};

use super::{
    super::{
        anchors::{Anchored, anchor, unlock},
        causes::{SHORTEST, Watched, pass},
    },
    tests::{alerting, firing, on_ill, open, options, quorum_of, raised, shown},
    *,
};
use crate::store::{AnchorChange, AnchorOutcome, StoreOptions, fjall::Fjall, sled::Sled};

/// What sets off the list.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Deadline,
    Token,
    Quorum,
    Frozen,
}

/// Fills a part of the keys of mailboxes and one of those of anchors.
const FILLERS: u8 = 56;

async fn evaluated<E: Engine>(
    store: &GroupCommit<Spoilt<E>>,
    guarded: &Anchored,
    number: u8,
) -> AnchorOutcome {
    let blinded = Blinded::from_bytes([number; 32]);
    anchor(store, AnchorChange::Evaluate(Evaluate { anchor: guarded.id(), blinded })).await.unwrap()
}

async fn set_off<E: Engine>(options: &StoreOptions, by: By) {
    let store = open::<E>(options).await;
    let mut rng = StdRng::seed_from_u64(7);
    // The first of each has keys in the first part.
    let [deaf, alerted, doomed] = [1, 100, 101].map(Owner::new);
    for owner in (1..=FILLERS).map(Owner::new).chain([Owner::new(100), Owner::new(101)]) {
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    }
    for owner in [&deaf, &alerted, &doomed] {
        place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    }
    let [lost, whole, guarded] = [1, 100, 101].map(Anchored::new);
    for byte in (1..=FILLERS).chain([100, 101]) {
        let make = Box::new(Anchored::new(byte).create().unwrap());
        anchor(&store, AnchorChange::Create { make, charge: Charge::Open }).await.unwrap();
    }
    let mut actions = vec![
        Action::append(deaf.id(), envelope(9, 1024), &deaf.write),
        Action::append(alerted.id(), envelope(9, 1024), &alerted.write),
    ];
    if by != By::Frozen {
        actions.insert(1, Action::refresh(&lost.owner, None));
        actions.push(Action::sink(doomed.id(), &doomed.admin));
        actions.push(Action::refresh(&whole.owner, None));
    }
    let (watched, other) = (Watched::new(160), Watched::new(161));
    done(&store, other.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    done(&store, other.arm(1, alerting(600, vec![other.alert(1)])).unwrap(), "armed").await.unwrap();
    let fire = Token::from_bytes([77; 32]);
    let mut raises = Vec::new();
    let arm = match by {
        By::Deadline => watched.arm(1, alerting(600, actions)).unwrap(),
        By::Token => firing(&watched, &fire, &actions),
        By::Quorum => {
            let (quorum, all) = quorum_of(&watched, &actions, &mut rng);
            raises = all;
            watched.arm(1, Causes { quorum: Some(quorum), ..Causes::default() }).unwrap()
        }
        By::Frozen => {
            let frozen = Some(Frozen::new(&guarded.owner, &watched.id(), actions));
            watched.arm(1, Causes { frozen, ..Causes::default() }).unwrap()
        }
    };
    done(&store, arm, "armed").await.unwrap();
    let store = on_ill(store, options, Vec::new()).await;
    let first_of_anchors = Slot::of_anchor(0).unwrap();
    rot(&options.path, Slot(0));
    rot(&options.path, first_of_anchors);
    assert!(numbers(&store, &deaf, 0).await.is_err(), "its keys are there");
    let show = || Mutation::Token { token: fire.clone(), filler: [1; 32] };
    match by {
        By::Deadline => assert_eq!(pass(&store, SHORTEST).await.unwrap(), 2, "and nobody else's is kept"),
        By::Token => assert_eq!(shown(&store, show(), false).await, 1),
        By::Quorum => {
            let [first, second] = raises.clone().try_into().unwrap();
            assert_eq!(raised(&store, first, true).await, 0);
            assert_eq!(raised(&store, second, false).await, 1);
        }
        By::Frozen => {
            for number in 0..MAX_FAILURES {
                assert!(matches!(evaluated(&store, &guarded, number).await, AnchorOutcome::Evaluate(_)));
            }
            let refused = |refusal| {
                move |outcome| assert!(matches!(outcome, AnchorOutcome::Refused(is) if is == refusal))
            };
            refused(Refusal::Busy)(evaluated(&store, &guarded, 200).await);
            // It is frozen all the same.
            refused(Refusal::Frozen)(evaluated(&store, &guarded, 0).await);
        }
    }
    assert_eq!(numbers(&store, &alerted, 0).await.unwrap(), [1, 2], "who can be alerted is");
    if by != By::Frozen {
        assert!(store.mailbox(doomed.id()).await.unwrap().unwrap().sink, "what can be destroyed is");
        for anchored in [&whole, &lost] {
            assert!(unlock(&store, anchored, 0, 1).await.ok().flatten().is_none(), "its entries are gone");
        }
    }
    // Whatever made the keys of mailboxes so is over.
    rot(&options.path, Slot(0));
    let appended = match by {
        By::Deadline => pass(&store, 62).await.unwrap(),
        By::Token => shown(&store, show(), true).await,
        By::Quorum => raised(&store, raises[1].clone(), true).await,
        By::Frozen => {
            evaluated(&store, &guarded, 201).await;
            1
        }
    };
    assert_eq!(appended, 1, "the rest is done when it is tried again");
    evaluated(&store, &guarded, 202).await;
    assert_eq!(shown(&store, show(), true).await, 0);
    pass(&store, 62).await.unwrap();
    assert_eq!(numbers(&store, &deaf, 0).await.unwrap(), [1, 2], "once");
    assert_eq!(numbers(&store, &alerted, 0).await.unwrap(), [1, 2], "each once");
    assert_eq!(numbers(&store, &other.alerts, 0).await.unwrap(), [1]);
    assert!(!store.health().has_failed);
    store.close().await;
}

async fn by_a_deadline<E: Engine>(options: &StoreOptions) {
    set_off::<E>(options, By::Deadline).await;
}

async fn by_a_token<E: Engine>(options: &StoreOptions) {
    set_off::<E>(options, By::Token).await;
}

async fn by_voices<E: Engine>(options: &StoreOptions) {
    set_off::<E>(options, By::Quorum).await;
}

async fn by_freezing<E: Engine>(options: &StoreOptions) {
    set_off::<E>(options, By::Frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_10_rotten_keys_under_one_target_keep_no_deadline_from_coming() {
    over_engines!(by_a_deadline);
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_rotten_keys_under_one_target_keep_no_token_from_firing() {
    over_engines!(by_a_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_13_rotten_keys_under_one_target_keep_no_voices_from_being_heard() {
    over_engines!(by_voices);
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_15_rotten_keys_under_one_target_keep_no_anchor_from_freezing_and_telling() {
    over_engines!(by_freezing);
}

/// An anchor's owner makes it anew.
async fn made_anew<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let anchored = Anchored::new(1);
    let mut make = anchored.create().unwrap();
    let create = |make: &lapwing_wire::frame::CreateAnchor| AnchorChange::Create {
        make: Box::new(make.clone()),
        charge: Charge::Open,
    };
    anchor(&store, create(&make)).await.unwrap();
    for byte in 2..60 {
        let made = anchor(&store, create(&Anchored::new(byte).create().unwrap())).await.unwrap();
        assert!(matches!(made, AnchorOutcome::Done));
    }
    // Nothing is on its way that would write it anew.
    let store = on_ill(store, options, Vec::new()).await;
    rot(&options.path, Slot::of_anchor(0).unwrap());
    assert!(unlock(&store, &anchored, 0, 1).await.is_err());
    make.serial += 1;
    assert!(matches!(anchor(&store, create(&make)).await.unwrap(), AnchorOutcome::Done));
    assert!(unlock(&store, &anchored, 0, 2).await.unwrap().is_some(), "it has other keys");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_14_an_anchor_whose_keys_have_rotted_can_be_made_anew() {
    over_engines!(made_anew);
}
