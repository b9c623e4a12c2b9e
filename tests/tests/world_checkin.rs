//! Check-ins in the World: silence alerts, a word in time does not, whatever happens to relays and clocks.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

use std::time::Duration;

use lapwing::{
    engine::{
        Command, Fault, Reply,
        checkin::{self, CheckinSpec, CheckinView, Standing},
        plan::alert_relays,
        view,
    },
    store::{OpRow, PlanRow, PlanState},
};
use lapwing_tests::world::{Crash, Person, RelayNumber, World, calm, company::trust, introduce};
use lapwing_wire::tripwire::Token;

const MINUTE: Duration = Duration::from_secs(60);
const SPAN: Duration = Duration::from_secs(600);
/// A deadline comes within two minutes after its time (TRP-10).
const LATE: Duration = Duration::from_secs(120);
const RELAY: RelayNumber = RelayNumber(0);

/// Olga, whose alerts ben gets, at her relay.
async fn friends(world: &mut World) -> (Person, Person) {
    let (a, b) = (world.relay().await, world.relay().await);
    assert_eq!(a, RELAY);
    let mut olga = world.person("olga", &[a]);
    let mut ben = world.person("ben", &[b]);
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    (olga, ben)
}

fn spec(world: &mut World, owner: &Person, after: Duration) -> Command {
    let alert = vec!["ben".to_owned()];
    let relays = owner.look(|unit| alert_relays(unit, &alert)).unwrap();
    assert_eq!(relays, [world.net.address(RELAY)]);
    let mut rng = world.rng();
    Command::CheckinBegin(Box::new(CheckinSpec {
        after,
        alert,
        text: "nobody has heard of me".into(),
        place: None,
        instructions: Some("call the lawyer".into()),
        tokens: relays.into_iter().map(|relay| (relay, Token::generate(&mut rng))).collect(),
    }))
}

async fn start(world: &mut World, owner: &mut Person) -> CheckinView {
    let begin = spec(world, owner, SPAN);
    let Reply::Plan(plan) = owner.must(begin) else { panic!("another reply") };
    assert!(!running(owner).armed, "CHK-02: not before its relay has said so");
    owner.sync().await;
    owner.must(Command::PlanFinish { plan });
    let checkin = running(owner);
    assert!(checkin.armed && !checkin.came && checkin.state == PlanState::Armed);
    assert_eq!(checkin.alerts, ["ben"]);
    checkin
}

fn running(owner: &Person) -> CheckinView {
    owner.look(checkin::of).unwrap().unwrap()
}

/// The word, as the command gives it.
async fn word(owner: &mut Person, checkin: &CheckinView) -> Option<Standing> {
    let (driver, _) = owner.driver();
    let (relay, status) = driver.present(&checkin.tokens, Duration::from_secs(4)).await.pop()?;
    match owner.must(Command::CheckinAnswered { checkin: checkin.id, relay, status }) {
        Reply::Checkin(standing) => Some(standing),
        other => panic!("another reply: {other:?}"),
    }
}

async fn pass(world: &World, span: Duration) {
    world.clock.advance(span);
    world.net.change_relay(RELAY, async |relay, now| relay.run_for(span, now).await).await;
}

async fn alerts(ben: &mut Person) -> Vec<view::AlertView> {
    ben.sync().await;
    ben.look(view::alerts).unwrap()
}

#[tokio::test(start_paused = true)]
async fn chk_01_silence_alerts_once_and_only_its_own_word_keeps_it_quiet() {
    let mut world = World::new(760);
    let (mut olga, mut ben) = friends(&mut world).await;
    let checkin = start(&mut world, &mut olga).await;
    // Words in time, over a relay that is started anew in between.
    for round in 0..4 {
        pass(&world, SPAN - MINUTE).await;
        assert_eq!(word(&mut olga, &checkin).await, Some(Standing::Running), "round {round}");
        assert_eq!(running(&olga).heard, Some(world.clock.now()));
        world.net.change_relay(RELAY, async |relay, now| relay.restart(now).await).await;
        assert!(alerts(&mut ben).await.is_empty());
    }
    // Messages, and what unlocks present, are no word.
    pass(&world, SPAN - MINUTE).await;
    olga.say("ben", "still here");
    calm(&mut [&mut olga, &mut ben]).await;
    let other = Token::generate(&mut world.rng());
    assert_eq!(olga.present(&[(RELAY, other)]).await.len(), 1);
    assert!(alerts(&mut ben).await.is_empty());
    pass(&world, MINUTE + LATE).await;
    for _ in 0..2 {
        let shown = alerts(&mut ben).await;
        let [alert] = shown.as_slice() else { panic!("{} alerts", shown.len()) };
        let cause: &str = alert.cause.into();
        assert_eq!((cause, alert.text.block().to_string()), ("deadline", "nobody has heard of me".into()));
        pass(&world, SPAN + LATE).await;
    }
    assert_eq!(word(&mut olga, &checkin).await, Some(Standing::Came));
    assert!(running(&olga).came);
}

#[tokio::test(start_paused = true)]
async fn a_check_in_that_was_ended_or_never_finished_alerts_nobody() {
    let mut world = World::new(761);
    let (mut olga, mut ben) = friends(&mut world).await;
    let checkin = start(&mut world, &mut olga).await;
    assert!(matches!(olga.command(spec(&mut world, &olga, SPAN)), Err(Fault::CheckinRuns)));
    olga.must(Command::PlanRemove { plan: checkin.id });
    assert!(olga.look(checkin::is_ending).unwrap());
    olga.sync().await;
    assert!(olga.look(checkin::of).unwrap().is_none() && !olga.look(checkin::is_ending).unwrap());
    pass(&world, SPAN + LATE).await;
    assert!(alerts(&mut ben).await.is_empty());
    for after in [SPAN - Duration::from_secs(1), Duration::from_secs(401 * 24 * 3600)] {
        assert!(matches!(olga.command(spec(&mut world, &olga, after)), Err(Fault::CheckinSpan)));
    }
    // The process dies while it is set up, before or after the relay has it: the next one undoes it.
    for at in 1..=2 {
        for kept in [false, true] {
            let before = olga.commits();
            olga.base().crash_at(Crash { at: before + at, kept });
            let begin = spec(&mut world, &olga, SPAN);
            let begun = olga.command(begin).is_ok();
            if begun {
                let _ = olga.sync().await;
            }
            olga.restart();
            match olga.look(checkin::of).unwrap() {
                Some(pending) => {
                    assert_eq!(pending.state, PlanState::Pending);
                    olga.must(Command::PlanRemove { plan: pending.id });
                }
                None => assert!(!begun && !kept, "commit {at}, kept: {kept}"),
            }
            olga.sync().await;
            assert!(olga.rows::<PlanRow>().is_empty() && olga.rows::<OpRow>().is_empty());
            pass(&world, SPAN + LATE).await;
            assert!(alerts(&mut ben).await.is_empty(), "commit {at}, kept: {kept}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chk_02_and_chk_03_a_relay_that_is_away_or_from_the_past_is_told() {
    let mut world = World::new(762);
    let (mut olga, mut ben) = friends(&mut world).await;
    let moment = world.net.with_relay(RELAY, |relay| relay.moment());
    let checkin = start(&mut world, &mut olga).await;
    let heard = running(&olga).heard;
    world.net.take_down(RELAY).await;
    assert_eq!(word(&mut olga, &checkin).await, None);
    assert_eq!(running(&olga).heard, heard, "what nobody confirmed was not heard");
    world.net.bring_back(RELAY);
    world.net.change_relay(RELAY, async |relay, now| relay.roll_back(moment, now).await).await;
    (olga.relays_lie, ben.relays_lie) = (true, true);
    assert_eq!(word(&mut olga, &checkin).await, Some(Standing::Lost));
    assert!(!running(&olga).armed);
    olga.sync().await;
    assert!(running(&olga).armed);
    assert_eq!(word(&mut olga, &checkin).await, Some(Standing::Running));
    // Again within the hour: it is never shown as running where it is not.
    world.net.change_relay(RELAY, async |relay, now| relay.roll_back(moment, now).await).await;
    assert_eq!(word(&mut olga, &checkin).await, Some(Standing::Lost));
    assert!(!running(&olga).armed);
    olga.sync().await;
    assert!(running(&olga).armed && olga.rows::<OpRow>().is_empty());
    assert_eq!(word(&mut olga, &checkin).await, Some(Standing::Running));
    pass(&world, SPAN + LATE).await;
    assert_eq!(alerts(&mut ben).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_no_trusted_contact_any_more_gets_no_alert() {
    let mut world = World::new(763);
    let (mut olga, mut ben) = friends(&mut world).await;
    start(&mut world, &mut olga).await;
    olga.must(Command::TrustRemove { chat: "ben".into() });
    olga.sync().await;
    assert!(running(&olga).armed && running(&olga).alerts.is_empty());
    pass(&world, SPAN + LATE).await;
    assert!(alerts(&mut ben).await.is_empty());
}

/// What `checkin start` says when its relay does not answer any more: it may have begun there.
#[tokio::test(start_paused = true)]
async fn a_beginning_that_is_given_up_alerts_if_its_relay_does_not_hear_of_that_in_time() {
    let mut world = World::new(764);
    let (mut olga, mut ben) = friends(&mut world).await;
    for in_time in [true, false] {
        let begin = spec(&mut world, &olga, SPAN);
        let Reply::Plan(plan) = olga.must(begin) else { panic!("another reply") };
        olga.sync().await;
        world.net.take_down(RELAY).await;
        olga.must(Command::PlanRemove { plan });
        let _ = olga.sync().await;
        assert!(olga.look(checkin::of).unwrap().is_none());
        assert!(olga.look(checkin::is_ending).unwrap(), "and this is told");
        world.net.bring_back(RELAY);
        if in_time {
            olga.sync().await;
            assert!(!olga.look(checkin::is_ending).unwrap());
        }
        pass(&world, SPAN + LATE).await;
        assert_eq!(alerts(&mut ben).await.len(), usize::from(!in_time));
    }
}
