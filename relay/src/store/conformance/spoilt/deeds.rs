//! What the entry of an anchor sets off.

use lapwing_wire::{
    anchor::{Deed, Entry, GroupKey, VaultShare},
    capability::ChannelBinding,
    frame::{Evaluate, PresentToken, ProveEntry, RequestBody, ResponseBody},
    oprf::Blinded,
};

use super::{
    super::{
        anchors::{Anchored, anchor, unlock},
        causes::Watched,
    },
    tests::{at, firing, on_ill, open, options},
    *,
};
use crate::{
    limits::Limits,
    service::Service,
    store::{
        AnchorChange, AnchorOutcome, StoreOptions,
        fjall::Fjall,
        record::{Anchor, Cause, anchor_key, decode, key, list_key, secrets_key},
        sled::Sled,
    },
};

/// Passphrase 2 fires a token, and destroys what is not of its group.
fn with_deed(anchored: &Anchored, fire: &Token) -> AnchorChange {
    let mut rng = StdRng::seed_from_u64(3);
    let mut make = anchored.create().unwrap();
    let keys = anchored.keys(2).unwrap();
    let share = keys.seal_share(&VaultShare::from_bytes([2; 32]), &mut rng);
    let mark = keys.seal_mark(1, &mut rng);
    let deed = Deed { fires: Some(fire.clone()), destroys: true, group: GroupKey::from_bytes([2; 32]) };
    make.entries[2] = Entry::seal(&anchored.id(), keys.proof(), &share, &mark, &deed, &mut rng);
    AnchorChange::Create { make: Box::new(make), charge: Charge::Open }
}

async fn deeds<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let (anchored, fire) = (Anchored::new(1), Token::from_bytes([77; 32]));
    anchor(&store, with_deed(&anchored, &fire)).await.unwrap();
    let all = [60, 61].map(Watched::new);
    for watched in &all {
        done(&store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&store, firing(watched, &fire, &[watched.alert(1)]), "armed").await.unwrap();
    }
    // A record, a list, whom it alerts.
    let spoilt = [
        vec![at(Space::Bulk, key::record(&fire.lookup(), &all[0].id(), 0))],
        vec![at(Space::Bulk, list_key(&all[0].id(), Cause::Token))],
        vec![at(Space::State, key::mailbox(&all[0].alerts.id()))],
    ];
    let blinded = Blinded::from_bytes([9; 32]);
    let id = anchored.id();
    anchor(&store, AnchorChange::Evaluate(Evaluate { anchor: id, blinded })).await.unwrap();
    let prove = |passphrase| {
        let proof = anchored.keys(passphrase).unwrap().proof().clone();
        AnchorChange::Prove(ProveEntry { anchor: id, blinded, proof })
    };
    let state = || {
        let there = written(&options.path, Space::State, anchor_key(&id)[0]);
        let (_, there) = there.into_iter().find(|(name, _)| *name == anchor_key(&id)).unwrap();
        let Anchor { failures, evaluations, .. } = decode(&there).unwrap();
        (failures, evaluations)
    };
    let before = state();
    assert_eq!(before.0, 1, "it is counted");
    let mut store = store;
    for blocks in spoilt {
        store = on_ill(store, options, blocks).await;
        for _ in 0..2 {
            let outcome = anchor(&store, prove(2)).await.unwrap();
            assert!(matches!(outcome, AnchorOutcome::Refused(Refusal::Busy)), "nothing is released");
            assert_eq!(state(), before, "as if it had not been judged");
        }
        assert_eq!(numbers(&store, &all[1].alerts, 0).await.unwrap(), [1], "what can be done is, once");
    }
    store = on_ill(store, options, Vec::new()).await;
    assert_eq!(numbers(&store, &all[0].alerts, 0).await.unwrap(), Vec::<u64>::new());
    assert!(
        matches!(anchor(&store, prove(2)).await.unwrap(), AnchorOutcome::Released(_)),
        "it can come again"
    );
    assert_eq!(state().0, 0, "and has cost nothing");
    for watched in &all {
        assert_eq!(numbers(&store, &watched.alerts, 0).await.unwrap(), [1], "each once");
    }
    assert!(unlock(&store, &anchored, 0, 10).await.unwrap().is_none(), "and destroyed");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_06_nothing_is_released_while_a_deed_cannot_be_done_whole_and_the_proof_can_come_again() {
    over_engines!(deeds);
}

/// What a client hears.
async fn answers<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let fire = Token::from_bytes([77; 32]);
    let all = [60, 61].map(Watched::new);
    for watched in &all {
        done(&store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&store, firing(watched, &fire, &[watched.alert(1)]), "armed").await.unwrap();
    }
    let blocks = vec![at(Space::State, key::mailbox(&all[0].alerts.id()))];
    let store = std::sync::Arc::new(on_ill(store, options, blocks).await);
    let shared: std::sync::Arc<dyn MailboxStore> = store.clone();
    let service = Service::start(shared, Limits::default(), &mut rand::rng(), NOW).await.unwrap();
    let connection = service.connect(ChannelBinding::from_bytes([1; 32]));
    let show = async || {
        let token = RequestBody::Token(PresentToken { token: fire.clone() });
        service.handle(&connection, token, NOW).await
    };
    assert_eq!(show().await, ResponseBody::Refused(Refusal::Busy));
    assert_eq!(numbers(&*store, &all[1].alerts, 0).await.unwrap(), [1]);
    spoil(&options.path, Vec::new());
    assert!(matches!(show().await, ResponseBody::Token(_)));
    assert_eq!(numbers(&*store, &all[0].alerts, 0).await.unwrap(), [1]);
    service.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_whoever_shows_a_token_that_is_not_done_whole_hears_busy() {
    over_engines!(answers);
}

/// Bodies of what is sealed alone lie in sectors that cannot be read.
async fn sectors<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let (anchored, fire) = (Anchored::new(1), Token::from_bytes([77; 32]));
    anchor(&store, with_deed(&anchored, &fire)).await.unwrap();
    let all = [60, 61, 62].map(Watched::new);
    for watched in &all {
        done(&store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&store, firing(watched, &fire, &[watched.alert(1)]), "armed").await.unwrap();
    }
    let bodiless = |name: Vec<u8>| (Space::Bulk, name.clone(), name, Ill::Bodiless);
    let blocks = vec![
        bodiless(secrets_key(&anchored.id(), 1)),
        bodiless(list_key(&all[0].id(), Cause::Token)),
        bodiless(key::record(&fire.lookup(), &all[1].id(), 0)),
    ];
    let store = on_ill(store, options, blocks).await;
    // By anybody who knows it.
    assert!(unlock(&store, &anchored, 0, 1).await.is_err(), "whoever needs it is told");
    let show = Mutation::Token { token: fire.clone(), filler: [1; 32] };
    assert_eq!(super::tests::shown(&store, show.clone(), false).await, 1);
    assert!(!store.health().has_failed, "and nobody else is");
    let store = on_ill(store, options, Vec::new()).await;
    assert_eq!(super::tests::shown(&store, show, true).await, 2);
    assert!(unlock(&store, &anchored, 0, 2).await.unwrap().is_some());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_a_record_and_secrets_in_unreadable_sectors_end_no_store() {
    over_engines!(sectors);
}
