//! Trusted contacts, plans and alerts in the World.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

use std::time::Duration;

use lapwing::{
    engine::{
        Command, Effect, Fault, Reply,
        plan::{PlanSpec, PlanTokens, alert_relays},
        view,
    },
    store::{OpRow, PlanAction, PlanRow, PlanState, Purpose, Sink, TrustSide},
};
use lapwing_tests::world::{Person, RelayNumber, World, calm, company::trust, introduce};
use lapwing_wire::{
    capability::{ChannelBinding, SecretKey, Subject, TripwireOwner},
    frame::{Disarm, Prove, RequestBody, ResponseBody},
    tripwire::Token,
};

/// What an owner and his cover hold of one plan.
struct Armed {
    plan: [u8; 16],
    fire: Vec<(RelayNumber, Token)>,
    renew: Vec<(RelayNumber, Token)>,
}

fn spec(alert: &[&str], sinks: Vec<Sink>, tokens: Vec<PlanTokens>) -> Box<PlanSpec> {
    Box::new(PlanSpec {
        name: "border".into(),
        action: PlanAction::Hide,
        shows: vec!["main".into()],
        alert: alert.iter().map(|&name| name.to_owned()).collect(),
        text: "I was stopped".into(),
        place: Some("the bridge".into()),
        instructions: Some("call the lawyer".into()),
        remote: None,
        sinks,
        tokens,
    })
}

/// Begins a plan over these relays and arms it.
async fn arm(
    world: &mut World,
    owner: &mut Person,
    relays: &[RelayNumber],
    alert: &[&str],
    sinks: Vec<Sink>,
) -> Armed {
    let mut rng = world.rng();
    let mut armed = Armed { plan: [0; 16], fire: Vec::new(), renew: Vec::new() };
    let mut tokens = Vec::new();
    for relay in relays {
        let (fire, renew) = (Token::generate(&mut rng), Token::generate(&mut rng));
        armed.fire.push((*relay, fire.clone()));
        armed.renew.push((*relay, renew.clone()));
        tokens.push(PlanTokens { relay: world.net.address(*relay), fire, renew });
    }
    match owner.must(Command::PlanBegin(spec(alert, sinks, tokens))) {
        Reply::Plan(plan) => armed.plan = plan,
        other => panic!("not a plan: {other:?}"),
    }
    owner.sync().await;
    owner.must(Command::PlanFinish { plan: armed.plan });
    armed
}

fn shown(person: &Person) -> Vec<view::AlertView> {
    person.look(view::alerts).unwrap()
}

fn plan(person: &Person) -> view::PlanView {
    person.look(view::plans).unwrap().pop().unwrap()
}

fn told_alerts(person: &mut Person) -> usize {
    std::mem::take(&mut person.effects).iter().filter(|effect| matches!(effect, Effect::Alert { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn a_token_alerts_every_trusted_contact_once_and_says_nothing_to_others() {
    let mut world = World::new(201);
    let (a, b) = (world.relay().await, world.relay().await);
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[b]);
    let mut cem = world.person("cem", &[b]);
    let mut dia = world.person("dia", &[b]);
    for person in [&mut ben, &mut cem, &mut dia] {
        introduce(&mut olga, person).await;
    }
    trust(&mut olga, &mut ben).await;
    trust(&mut olga, &mut cem).await;
    let relays = olga.look(|unit| alert_relays(unit, &["ben".into(), "cem".into()])).unwrap();
    assert_eq!(relays, [world.net.address(a)]);
    let armed = arm(&mut world, &mut olga, &[a], &["ben", "cem"], Vec::new()).await;
    assert!(plan(&olga).armed && !plan(&olga).fired);
    assert_eq!(plan(&olga).state, PlanState::Armed);
    // Our own unlock sets nothing off.
    olga.present(&armed.renew).await;
    for person in [&mut ben, &mut cem, &mut dia] {
        person.sync().await;
        assert!(shown(person).is_empty());
    }
    // The cover's does, from a client that knows nothing but the token.
    let mut cover = world.person("cover", &[]);
    let stranger = Token::generate(&mut world.rng());
    let answers = cover.present(&[(a, armed.fire[0].1.clone())]).await;
    let others = cover.present(&[(a, stranger)]).await;
    assert_eq!((answers.len(), others.len()), (1, 1));
    for person in [&mut ben, &mut cem, &mut dia] {
        for _ in 0..2 {
            person.sync().await;
        }
    }
    for person in [&mut ben, &mut cem] {
        assert_eq!(told_alerts(person), 1, "{}", person.name);
        let alerts = shown(person);
        assert_eq!(alerts.len(), 1);
        assert_eq!(alerts[0].chat.as_deref(), Some("olga"));
        assert_eq!(alerts[0].text.expose(), "I was stopped");
        assert_eq!(alerts[0].place.as_ref().unwrap().expose(), "the bridge");
        assert!(alerts[0].acknowledged.is_none());
        let alert = alerts[0].id;
        person.must(Command::AcknowledgeAlert { alert });
        assert!(shown(person)[0].acknowledged.is_some());
    }
    assert!(shown(&dia).is_empty());
    // Again: nothing more happens.
    cover.present(&armed.fire).await;
    for person in [&mut ben, &mut cem] {
        person.sync().await;
        assert_eq!((told_alerts(person), shown(person).len()), (0, 1));
    }
    // The owner learns it with his next unlock, and sees who has seen it.
    olga.present(&armed.renew).await;
    assert!(plan(&olga).fired);
    calm(&mut [&mut olga, &mut ben, &mut cem]).await;
    for name in ["ben", "cem"] {
        assert!(olga.notes(name).iter().any(|note| note == "has seen your alert"), "{name}");
    }
    assert!(matches!(ben.command(Command::AcknowledgeAlert { alert: [0; 16] }), Err(Fault::UnknownAlert)));
}

#[tokio::test(start_paused = true)]
async fn a_plan_on_two_relays_alerts_each_contact_once() {
    let mut world = World::new(202);
    let (a, b) = (world.relay().await, world.relay().await);
    let mut olga = world.person("olga", &[a, b]);
    let mut ben = world.person("ben", &[b]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let keeper = olga.look(|unit| alert_relays(unit, &["ben".into()])).unwrap()[0].clone();
    let armed = arm(&mut world, &mut olga, &[a, b], &["ben"], Vec::new()).await;
    assert!(plan(&olga).armed);
    let mut cover = world.person("cover", &[]);
    for _ in 0..2 {
        cover.present(&armed.fire).await;
    }
    ben.sync().await;
    ben.sync().await;
    assert_eq!((told_alerts(&mut ben), shown(&ben).len()), (1, 1));
    assert!([a, b].iter().any(|relay| world.net.address(*relay) == keeper));
}

#[tokio::test(start_paused = true)]
async fn a_token_leaves_though_another_relay_is_away() {
    let mut world = World::new(203);
    let (a, b) = (world.relay().await, world.relay().await);
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    let mut cover = world.person("cover", &[]);
    world.net.take_down(b).await;
    let other = Token::generate(&mut world.rng());
    let answers = cover.present(&[(b, other), (a, armed.fire[0].1.clone())]).await;
    assert_eq!(answers.keys().collect::<Vec<_>>(), [world.net.address(a).key()]);
    ben.sync().await;
    assert_eq!(shown(&ben).len(), 1);
    // Without any network nothing comes back, and the wait ends.
    world.net.take_down(a).await;
    let begin = tokio::time::Instant::now();
    assert!(cover.present(&armed.fire).await.is_empty());
    assert!(begin.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_link_dies_is_presented_again_at_once() {
    let mut world = World::new(204);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    let mut cover = world.person("cover", &[]);
    let mut first = true;
    world.net.set_script(Some(Box::new(move |_, _| {
        if std::mem::take(&mut first) {
            lapwing_tests::world::Fate::Lost
        } else {
            lapwing_tests::world::Fate::Answered
        }
    })));
    assert_eq!(cover.present(&armed.fire).await.len(), 1);
    world.net.set_script(None);
    ben.sync().await;
    assert_eq!(shown(&ben).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sinks_swallow_what_comes_after_the_firing_and_answer_as_before() {
    let mut world = World::new(205);
    let (a, b) = (world.relay().await, world.relay().await);
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[b]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let sinks = olga.look(view::sinks).unwrap();
    let inbox = olga.mailboxes_for(|purpose| matches!(purpose, Purpose::Direct(_)))[0];
    assert!(sinks.iter().any(|sink| sink.mailbox == inbox));
    let outbox = olga.mailboxes_for(|purpose| matches!(purpose, Purpose::AlertOutbox(_)))[0];
    assert!(sinks.iter().all(|sink| sink.mailbox != outbox));
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], sinks).await;
    ben.say("olga", "before");
    calm(&mut [&mut ben, &mut olga]).await;
    assert_eq!(olga.heard("ben"), ["before"]);
    world.person("cover", &[]).present(&armed.fire).await;
    ben.say("olga", "after");
    ben.sync().await;
    assert!(ben.unsent("olga").is_empty(), "the relay says `stored`");
    olga.sync().await;
    assert_eq!(olga.heard("ben"), ["before"]);
    assert_eq!(shown(&ben).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_change_the_tripwire_is_armed_anew_and_only_then() {
    let mut world = World::new(206);
    let (a, b) = (world.relay().await, world.relay().await);
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[b]);
    let mut cem = world.person("cem", &[b]);
    introduce(&mut olga, &mut ben).await;
    introduce(&mut olga, &mut cem).await;
    trust(&mut olga, &mut ben).await;
    trust(&mut olga, &mut cem).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben", "cem"], Vec::new()).await;
    olga.must(Command::PlanRefresh { plan: armed.plan, sinks: Vec::new() });
    assert!(olga.rows::<OpRow>().is_empty(), "nothing changed");
    // In the same millisecond: serials collide, and are jumped over.
    let sinks = olga.look(view::sinks).unwrap();
    olga.must(Command::PlanRefresh { plan: armed.plan, sinks });
    assert!(!plan(&olga).armed);
    for _ in 0..3 {
        olga.sync().await;
    }
    assert!(plan(&olga).armed);
    assert!(olga.rows::<OpRow>().is_empty());
    // A trusted contact less.
    world.clock.advance(Duration::from_secs(1));
    olga.must(Command::TrustRemove { chat: "cem".into() });
    for _ in 0..3 {
        olga.sync().await;
    }
    cem.sync().await;
    assert!(plan(&olga).armed);
    assert_eq!(plan(&olga).alerts, ["ben"]);
    world.person("cover", &[]).present(&armed.fire).await;
    ben.sync().await;
    cem.sync().await;
    assert_eq!((shown(&ben).len(), shown(&cem).len()), (1, 0));
    // What was set off is not armed again.
    olga.present(&armed.renew).await;
    olga.must(Command::PlanRefresh { plan: armed.plan, sinks: Vec::new() });
    olga.sync().await;
    world.person("cover", &[]).present(&armed.fire).await;
    ben.sync().await;
    assert_eq!((told_alerts(&mut ben), shown(&ben).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_arming_whose_reply_is_lost_is_confirmed_by_the_next_try() {
    for at in 0..4 {
        let mut world = World::new(20_700 + at);
        let a = world.relay().await;
        let mut olga = world.person("olga", &[a]);
        let mut ben = world.person("ben", &[a]);
        introduce(&mut olga, &mut ben).await;
        trust(&mut olga, &mut ben).await;
        let (client, mut left) = (olga.client, at);
        world.net.set_script(Some(Box::new(move |who, body| {
            let arming = matches!(body, lapwing_wire::frame::RequestBody::Arm(_));
            if who == client && arming && left > 0 {
                left -= 1;
                return lapwing_tests::world::Fate::ReplyLost;
            }
            lapwing_tests::world::Fate::Answered
        })));
        let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
        for _ in 0..6 {
            olga.settle().await;
        }
        world.net.set_script(None);
        assert!(plan(&olga).armed, "{at}");
        world.person("cover", &[]).present(&armed.fire).await;
        ben.sync().await;
        assert_eq!(shown(&ben).len(), 1, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_plan_fires_no_more() {
    let mut world = World::new(208);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    olga.must(Command::PlanRemove { plan: armed.plan });
    olga.sync().await;
    assert!(olga.rows::<PlanRow>().is_empty() && olga.rows::<OpRow>().is_empty());
    world.person("cover", &[]).present(&armed.fire).await;
    ben.sync().await;
    assert!(shown(&ben).is_empty());
    assert!(matches!(olga.command(Command::PlanRemove { plan: armed.plan }), Err(Fault::UnknownPlan)));
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_a_relay_forgot_is_armed_again() {
    let mut world = World::new(209);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    olga.relays_lie = true;
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    ben.say("olga", "something to lose");
    calm(&mut [&mut ben, &mut olga]).await;
    let moment = world.net.with_relay(a, |relay| relay.moment());
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    ben.say("olga", "more");
    calm(&mut [&mut ben, &mut olga]).await;
    world.net.change_relay(a, async |relay, now| relay.roll_back(moment, now).await).await;
    world.clock.advance(Duration::from_secs(1));
    olga.sync().await;
    assert!(plan(&olga).armed);
    world.person("cover", &[]).present(&armed.fire).await;
    ben.sync().await;
    assert_eq!(shown(&ben).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_a_relay_lost_and_nothing_else_is_armed_again_at_the_owners_next_unlock() {
    let mut world = World::new(211);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    olga.present(&armed.renew).await;
    assert!(olga.rows::<OpRow>().is_empty() && plan(&olga).armed, "an answer of it changes nothing");
    // As after a restore: tripwires are in no backup.
    let (_, row) = olga.rows::<PlanRow>().pop().unwrap();
    let owner = SecretKey::<TripwireOwner>::from_seed(row.tripwires[0].owner.to_vec().try_into().unwrap());
    world
        .net
        .change_relay(a, async |relay, now| {
            let (service, binding) = (relay.service(), ChannelBinding::from_bytes([1; 32]));
            let connection = service.connect(binding);
            let subject = Subject::Tripwire(owner.public());
            let signature = subject.prove(&owner, &binding);
            for body in [
                RequestBody::Prove(Prove { subject, signature }),
                RequestBody::Disarm(Disarm { owner: owner.public() }),
            ] {
                assert_eq!(service.handle(&connection, body, now).await, ResponseBody::Done);
            }
        })
        .await;
    world.clock.advance(Duration::from_secs(1));
    // Another token of the vault's says nothing of it.
    let other = Token::generate(&mut world.rng());
    olga.present(&[(a, other)]).await;
    assert!(olga.rows::<OpRow>().is_empty());
    olga.present(&armed.renew).await;
    olga.sync().await;
    assert!(plan(&olga).armed);
    world.person("cover", &[]).present(&armed.fire).await;
    ben.sync().await;
    assert_eq!(shown(&ben).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn trust_goes_one_way_and_each_side_can_end_it() {
    let mut world = World::new(210);
    let (mut alice, mut bob) = world.acquainted().await;
    assert!(matches!(bob.command(Command::TrustAccept { chat: "alice".into() }), Err(Fault::NoTrust)));
    trust(&mut alice, &mut bob).await;
    assert!(matches!(alice.command(Command::TrustAdd { chat: "bob".into() }), Err(Fault::AlreadyTrusted)));
    let sides = |person: &Person| {
        let trusts = person.look(view::trusts).unwrap();
        trusts.into_iter().map(|trust| (trust.side, trust.accepted)).collect::<Vec<_>>()
    };
    assert_eq!(sides(&alice), [(TrustSide::Ours, true)]);
    assert_eq!(sides(&bob), [(TrustSide::Theirs, true)]);
    bob.must(Command::TrustRemove { chat: "alice".into() });
    calm(&mut [&mut bob, &mut alice]).await;
    assert!(sides(&alice).is_empty() && sides(&bob).is_empty());
    assert!(alice.notes("bob").iter().any(|note| note.contains("does not want to be a trusted contact")));
    assert!(matches!(bob.command(Command::TrustRemove { chat: "alice".into() }), Err(Fault::NoTrust)));
    trust(&mut bob, &mut alice).await;
    trust(&mut alice, &mut bob).await;
    assert_eq!(sides(&alice).len(), 2);
    alice.must(Command::TrustRemove { chat: "bob".into() });
    calm(&mut [&mut bob, &mut alice]).await;
    assert!(sides(&alice).is_empty() && sides(&bob).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_alert_stays_though_the_trust_is_ended_afterwards() {
    let mut world = World::new(211);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    world.person("cover", &[]).present(&armed.fire).await;
    ben.sync().await;
    // Whoever holds her device may take the trust back in her name.
    olga.must(Command::TrustRemove { chat: "ben".into() });
    calm(&mut [&mut olga, &mut ben]).await;
    let alerts = shown(&ben);
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0].text.expose(), "I was stopped");
    ben.must(Command::AcknowledgeAlert { alert: alerts[0].id });
    assert!(shown(&ben)[0].acknowledged.is_some());
}

#[tokio::test(start_paused = true)]
async fn nobody_elses_alert_can_stand_in_the_way_of_an_alert() {
    let mut world = World::new(212);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut eve = world.person("eve", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    introduce(&mut eve, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    trust(&mut eve, &mut ben).await;
    let armed = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    let hostile = arm(&mut world, &mut eve, &[a], &["ben"], Vec::new()).await;
    // Eve, who may know the id, gives her own alert the same.
    let id = olga.rows::<PlanRow>()[0].1.alert;
    let (driver, compartment) = eve.driver();
    let _ = driver;
    let mut unit = lapwing::store::Unit::new(&*compartment.base);
    let mut row = unit.get::<PlanRow>(&hostile.plan).unwrap().unwrap();
    row.alert = id;
    for tripwire in &mut row.tripwires {
        tripwire.wanted = [0; 32];
        tripwire.armed = None;
    }
    unit.put(&hostile.plan, &row);
    let changes = unit.into_changes();
    compartment.base.commit(changes).unwrap();
    world.clock.advance(Duration::from_secs(1));
    eve.must(Command::PlanRefresh { plan: hostile.plan, sinks: Vec::new() });
    eve.sync().await;
    let mut cover = world.person("cover", &[]);
    cover.present(&hostile.fire).await;
    ben.sync().await;
    cover.present(&armed.fire).await;
    ben.sync().await;
    let from: Vec<_> = shown(&ben).into_iter().filter_map(|alert| alert.chat).collect();
    assert_eq!(from.len(), 2);
    assert!(from.contains(&"olga".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_cannot_be_armed_is_refused_and_not_recorded() {
    let mut world = World::new(213);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    let nobody = spec(&["ben"], Vec::new(), Vec::new());
    assert!(matches!(olga.command(Command::PlanBegin(nobody)), Err(Fault::NoTrust)));
    let unknown = spec(&["nobody"], Vec::new(), Vec::new());
    assert!(matches!(olga.command(Command::PlanBegin(unknown)), Err(Fault::UnknownChat)));
    trust(&mut olga, &mut ben).await;
    let mut rng = world.rng();
    let sinks = (0..2_000u16)
        .map(|n| {
            let admin =
                lapwing_wire::capability::SecretKey::<lapwing_wire::capability::Admin>::generate(&mut rng);
            let seed = admin.expose_seed().to_vec();
            let mailbox = lapwing_wire::ids::MailboxId::of_admin(&admin.public());
            let _ = n;
            Sink { relay: *world.net.address(a).key(), mailbox, admin: seed.into() }
        })
        .collect();
    let (fire, renew) = (Token::generate(&mut rng), Token::generate(&mut rng));
    let tokens = vec![PlanTokens { relay: world.net.address(a), fire, renew }];
    assert!(matches!(
        olga.command(Command::PlanBegin(spec(&["ben"], sinks, tokens))),
        Err(Fault::PlanTooLarge)
    ));
    assert!(olga.rows::<PlanRow>().is_empty() && olga.rows::<OpRow>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_answers_anything_for_ever_does_not_keep_a_client_busy() {
    use lapwing_wire::frame::{Refusal, ResponseBody};
    let answers = [
        ResponseBody::Refused(Refusal::Conflict),
        ResponseBody::Refused(Refusal::NotAllowed),
        ResponseBody::BlobProgress(1),
        ResponseBody::BlobProgress(u64::MAX),
        ResponseBody::Done,
    ];
    for (number, forged) in answers.into_iter().enumerate() {
        let mut world = World::new(21_400 + number as u64);
        let a = world.relay().await;
        let mut olga = world.person("olga", &[a]);
        olga.relays_lie = true;
        let mut ben = world.person("ben", &[a]);
        introduce(&mut olga, &mut ben).await;
        trust(&mut olga, &mut ben).await;
        let client = olga.client;
        world.net.set_tamper(Some(Box::new(move |who, body, answer| match body {
            lapwing_wire::frame::RequestBody::Prove(_) => answer,
            _ if who == client => forged.clone(),
            _ => answer,
        })));
        olga.invite("carol");
        let before = world.net.requests(client);
        arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
        for _ in 0..3 {
            olga.settle().await;
        }
        let made = world.net.requests(client) - before;
        assert!(made < 400, "{made} requests");
        world.net.set_tamper(None);
        olga.restart();
        world.clock.advance(Duration::from_secs(7200));
        calm(&mut [&mut olga, &mut ben]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_says_nothing_of_another_plan_at_the_same_relay() {
    let mut world = World::new(215);
    let a = world.relay().await;
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[a]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let first = arm(&mut world, &mut olga, &[a], &["ben"], Vec::new()).await;
    // The owner's payload has one token for a relay, whatever the number of plans.
    let (fire, renew) = (Token::generate(&mut world.rng()), first.renew[0].1.clone());
    let tokens = vec![PlanTokens { relay: world.net.address(a), fire: fire.clone(), renew }];
    let mut second = spec(&["ben"], Vec::new(), tokens);
    second.name = "home".into();
    olga.must(Command::PlanBegin(second));
    olga.sync().await;
    olga.present(&first.renew).await;
    let plans = olga.look(view::plans).unwrap();
    assert!(plans.len() == 2 && plans.iter().all(|plan| plan.armed && !plan.fired));
    // Each fires for itself.
    let mut cover = world.person("cover", &[]);
    cover.present(&[(a, fire)]).await;
    ben.sync().await;
    assert_eq!(shown(&ben).len(), 1);
    cover.present(&first.fire).await;
    ben.sync().await;
    assert_eq!(shown(&ben).len(), 2);
    olga.present(&first.renew).await;
    assert!(olga.look(view::plans).unwrap().iter().any(|plan| plan.fired));
}
