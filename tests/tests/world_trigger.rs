//! Trusted contacts in the World who set off from afar what an owner prepared: not too few of them, not one who was, not
//! twice, whatever crashes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

use std::time::Duration;

use lapwing::{
    engine::{
        Command, Fault, Reply,
        plan::{PlanSpec, PlanTokens},
        view::{self, RemoteView, VoiceState, VoiceView},
    },
    store::{HeldVoices, OpRow, PlanAction, PlanRow, PlanState, Sink, TrustRow, Unit},
};
use lapwing_protocol::alert::Voices;
use lapwing_tests::world::{Crash, Person, RelayNumber, World, calm, company::trust, introduce};
use lapwing_wire::{time::Timestamp, tripwire::Token};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const EPOCH: Timestamp = Timestamp::from_millis(0);
const RELAY: RelayNumber = RelayNumber(0);

/// Olga at her relay, and three whose business is hers, at another.
struct Circle {
    olga: Person,
    all: Vec<Person>,
}

impl Circle {
    async fn new(world: &mut World, names: &[&str]) -> Self {
        let (a, b) = (world.relay().await, world.relay().await);
        assert_eq!(a, RELAY);
        let mut olga = world.person("olga", &[a]);
        let mut all = Vec::new();
        for name in names {
            let mut person = world.person(name, &[b]);
            introduce(&mut olga, &mut person).await;
            trust(&mut olga, &mut person).await;
            all.push(person);
        }
        Self { olga, all }
    }

    async fn calm(&mut self) {
        let mut people: Vec<&mut Person> = vec![&mut self.olga];
        people.extend(&mut self.all);
        calm(&mut people).await;
    }

    /// How many alerts each got.
    async fn alerts(&mut self) -> Vec<usize> {
        let mut counts = Vec::new();
        for person in &mut self.all {
            person.sync().await;
            counts.push(person.look(view::alerts).unwrap().len());
        }
        counts
    }

    async fn raise(&mut self, number: usize) {
        self.all[number].must(Command::Trigger { chat: "olga".into() });
        self.all[number].sync().await;
    }
}

struct Asked<'a> {
    action: PlanAction,
    alert: &'a [&'a str],
    remote: u8,
    relays: &'a [RelayNumber],
    sinks: Vec<Sink>,
}

fn asked<'a>(alert: &'a [&'a str], remote: u8) -> Asked<'a> {
    Asked { action: PlanAction::Hide, alert, remote, relays: &[RELAY], sinks: Vec::new() }
}

fn begin(world: &mut World, asked: Asked<'_>) -> (Command, Vec<(RelayNumber, Token)>) {
    let Asked { action, alert, remote, relays, sinks } = asked;
    let mut rng = world.rng();
    let (mut tokens, mut renew) = (Vec::new(), Vec::new());
    for relay in relays {
        let token = Token::generate(&mut rng);
        renew.push((*relay, token.clone()));
        let relay = world.net.address(*relay);
        tokens.push(PlanTokens { relay, fire: Token::generate(&mut rng), renew: token });
    }
    let spec = PlanSpec {
        name: "far".into(),
        action,
        shows: vec!["main".into()],
        alert: alert.iter().map(|&name| name.to_owned()).collect(),
        text: "they have her".into(),
        place: None,
        instructions: None,
        remote: Some(remote),
        sinks,
        tokens,
    };
    (Command::PlanBegin(Box::new(spec)), renew)
}

async fn arm(
    world: &mut World,
    circle: &mut Circle,
    asked: Asked<'_>,
) -> ([u8; 16], Vec<(RelayNumber, Token)>) {
    let (command, renew) = begin(world, asked);
    let Reply::Plan(plan) = circle.olga.must(command) else { panic!("another reply") };
    circle.olga.sync().await;
    assert!(circle.all.iter().all(|person| voices(person).is_empty()), "AFR-01: not before it is in force");
    circle.olga.must(Command::PlanFinish { plan });
    circle.calm().await;
    (plan, renew)
}

/// The relay looks at its clock.
async fn look(world: &mut World) {
    world.net.change_relay(RELAY, async |relay, now| relay.service().sweep(now).await.unwrap()).await;
}

fn voices(person: &Person) -> Vec<VoiceView> {
    person.look(view::trusts).unwrap().into_iter().flat_map(|trust| trust.voices).collect()
}

fn held(person: &Person) -> Vec<u8> {
    let rows = person.rows::<TrustRow>();
    rows[0].1.held.as_ref().map(|held| held.voices.to_vec()).unwrap_or_default()
}

/// The numbers under which contacts were told.
fn told(olga: &Person) -> Vec<u64> {
    olga.rows::<TrustRow>().iter().map(|(_, row)| row.told.as_ref().map_or(0, |told| told.number)).collect()
}

fn plan(olga: &Person) -> view::PlanView {
    olga.look(view::plans).unwrap().pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn afr_04_two_of_three_set_it_off_once_and_one_alone_does_nothing() {
    let mut world = World::new(770);
    let mut circle = Circle::new(&mut world, &["ana", "ben", "cid"]).await;
    let second = world.relay().await;
    circle.olga.add_relay(&world, second);
    let sinks = circle.olga.look(view::sinks).unwrap();
    let relays = [RELAY, second];
    // Who is named twice is one, and has one voice.
    let names = ["ana", "ben", "cid", "ana"];
    let all = Asked { action: PlanAction::Destroy, alert: &names, remote: 2, relays: &relays, sinks };
    let (id, renew) = arm(&mut world, &mut circle, all).await;
    assert_eq!(plan(&circle.olga).remote, Some(RemoteView { needed: 2, of: 3 }));
    for person in &circle.all {
        let shown = voices(person);
        let [voice] = shown.as_slice() else { panic!("{} voices", shown.len()) };
        assert_eq!((voice.needed, voice.of, voice.relays.len()), (2, 3, 2));
        assert_eq!(voice.state, VoiceState::Held);
        assert!(person.notes("olga").iter().any(|note| note.starts_with("gives you a voice")));
    }
    // One voice, given twice, is one.
    for _ in 0..2 {
        circle.raise(0).await;
        assert_eq!(circle.alerts().await, [0, 0, 0]);
    }
    assert_eq!(voices(&circle.all[0])[0].state, VoiceState::Given(world.clock.now()));
    circle.olga.present(&renew).await;
    assert!(!plan(&circle.olga).fired);
    circle.all[1].say("olga", "before");
    circle.calm().await;
    circle.raise(2).await;
    assert_eq!(circle.alerts().await, [1, 1, 1]);
    for person in &circle.all {
        let alert = person.look(view::alerts).unwrap().pop().unwrap();
        let cause: &str = alert.cause.into();
        assert_eq!((cause, alert.text.expose().as_str()), ("quorum", "they have her"));
    }
    circle.all[1].say("olga", "after");
    circle.calm().await;
    assert_eq!(circle.olga.heard("ben"), ["before"], "a sink");
    // Too late, and again: nothing more.
    circle.raise(1).await;
    circle.raise(0).await;
    assert_eq!(circle.alerts().await, [1, 1, 1]);
    circle.olga.present(&renew).await;
    let view = plan(&circle.olga);
    assert!(view.fired && view.agreed);
    // Removed, to be made anew.
    circle.olga.must(Command::PlanRemove { plan: id });
    circle.calm().await;
    assert!(circle.all.iter().all(|person| voices(person).is_empty()));
}

#[tokio::test(start_paused = true)]
async fn afr_04_what_one_alone_must_not_do_and_what_nobody_can_is_refused() {
    let mut world = World::new(771);
    let mut circle = Circle::new(&mut world, &["ana", "ben"]).await;
    let destroy = |remote| Asked { action: PlanAction::Destroy, ..asked(&["ana", "ben"], remote) };
    for (wrong, is_one) in [
        (destroy(1), true),
        (destroy(3), false),
        (asked(&["ana", "ben"], 0), false),
        (asked(&["ana", "ana"], 2), false),
        (asked(&[], 1), false),
    ] {
        let fault = circle.olga.command(begin(&mut world, wrong).0).unwrap_err();
        assert_eq!(matches!(fault, Fault::OneVoice), is_one);
        assert!(is_one || matches!(fault, Fault::Voices));
        assert!(circle.olga.rows::<PlanRow>().is_empty() && circle.olga.rows::<OpRow>().is_empty());
    }
    let command = || Command::Trigger { chat: "olga".into() };
    assert!(matches!(circle.all[0].command(command()), Err(Fault::NoVoice)));
    // One is enough where nothing is destroyed.
    arm(&mut world, &mut circle, asked(&["ana", "ben"], 1)).await;
    circle.raise(1).await;
    assert_eq!(circle.alerts().await, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn afr_02_and_afr_03_who_leaves_is_not_heard_and_too_few_are_nobody() {
    let mut world = World::new(772);
    let mut circle = Circle::new(&mut world, &["ana", "ben", "cid"]).await;
    let (id, _) = arm(&mut world, &mut circle, asked(&["ana", "ben", "cid"], 2)).await;
    let first: Vec<Vec<u8>> = circle.all.iter().map(held).collect();
    // Armed anew with other contents, and again because its relay lost it: the voices are the same, also one given before.
    circle.raise(1).await;
    let sinks = circle.olga.look(view::sinks).unwrap();
    circle.olga.must(Command::PlanRefresh { plan: id, sinks });
    circle.calm().await;
    assert!(plan(&circle.olga).armed);
    assert_eq!(circle.all.iter().map(held).collect::<Vec<_>>(), first);
    // One leaves by himself, with a copy of what he held.
    let thief = circle.all[2].copy_of_records();
    circle.all[2].must(Command::TrustRemove { chat: "olga".into() });
    circle.calm().await;
    assert_eq!(plan(&circle.olga).remote, Some(RemoteView { needed: 2, of: 2 }));
    for (person, first) in circle.all.iter().zip(&first).take(2) {
        assert_ne!(held(person), *first);
        assert_eq!((voices(person)[0].needed, voices(person)[0].of), (2, 2));
        assert_eq!(voices(person)[0].state, VoiceState::Held, "{}", person.name);
    }
    assert!(circle.all[1].notes("olga").iter().any(|note| note.contains("yours counts no more")));
    let mut thief = Person::with_records(&mut world, "cid", thief);
    thief.must(Command::Trigger { chat: "olga".into() });
    thief.settle().await;
    circle.raise(0).await;
    assert_eq!(circle.alerts().await, [0, 0, 0]);
    circle.raise(1).await;
    assert_eq!(circle.alerts().await, [1, 1, 0]);
    // Anew, until too few are left.
    circle.olga.must(Command::PlanRemove { plan: id });
    circle.calm().await;
    arm(&mut world, &mut circle, asked(&["ana", "ben"], 2)).await;
    circle.raise(0).await;
    // While the relay has not heard of it, the voices are those that it holds.
    world.net.take_down(RELAY).await;
    circle.olga.must(Command::TrustRemove { chat: "ben".into() });
    let before = held(&circle.all[0]);
    circle.olga.settle().await;
    circle.all[0].settle().await;
    assert_eq!((held(&circle.all[0]), plan(&circle.olga).armed), (before, false));
    world.net.bring_back(RELAY);
    circle.calm().await;
    assert_eq!(plan(&circle.olga).remote, Some(RemoteView { needed: 2, of: 0 }));
    assert!(plan(&circle.olga).armed && circle.all.iter().all(|person| voices(person).is_empty()));
    assert!(circle.all[0].notes("olga").iter().any(|note| note.starts_with("took back")));
    assert!(matches!(circle.all[0].command(Command::Trigger { chat: "olga".into() }), Err(Fault::NoVoice)));
}

#[tokio::test(start_paused = true)]
async fn alt_07_and_afr_05_voices_wait_for_their_relay_expire_there_and_are_replaced_in_order() {
    let mut world = World::new(773);
    let mut circle = Circle::new(&mut world, &["ana", "ben"]).await;
    let moment = world.net.with_relay(RELAY, |relay| relay.moment());
    let (_, renew) = arm(&mut world, &mut circle, asked(&["ana", "ben"], 2)).await;
    // Its relay is away: it waits, through the end of the process.
    world.net.take_down(RELAY).await;
    circle.all[0].must(Command::Trigger { chat: "olga".into() });
    circle.all[0].settle().await;
    circle.all[0].restart();
    assert_eq!(voices(&circle.all[0])[0].state, VoiceState::Waiting);
    world.net.bring_back(RELAY);
    circle.all[0].sync().await;
    let given = voices(&circle.all[0])[0].state;
    assert_eq!(given, VoiceState::Given(world.clock.now()));
    assert!(circle.all[0].rows::<OpRow>().is_empty());
    // AFR-06: a week later it counts no more, and is told so; nor is it told to count if a wrong clock said when.
    assert!(given.counts_until(world.clock.now()).is_some_and(|until| until > world.clock.now()));
    assert_eq!(given.counts_until(world.clock.now().minus(2 * HOUR)), None);
    assert_eq!((VoiceState::Held.counts_until(EPOCH), VoiceState::Waiting.counts_until(EPOCH)), (None, None));
    for _ in 0..8 {
        world.clock.advance(DAY);
        look(&mut world).await;
    }
    assert_eq!(voices(&circle.all[0])[0].state.counts_until(world.clock.now()), None);
    circle.raise(1).await;
    assert_eq!(circle.alerts().await, [0, 0]);
    // The relay comes back from a backup that knows of nothing: it is armed anew, and the voices are the same.
    let before: Vec<Vec<u8>> = circle.all.iter().map(held).collect();
    world.net.change_relay(RELAY, async |relay, now| relay.roll_back(moment, now).await).await;
    circle.olga.relays_lie = true;
    circle.all.iter_mut().for_each(|person| person.relays_lie = true);
    circle.raise(1).await;
    circle.olga.present(&renew).await;
    circle.calm().await;
    assert!(plan(&circle.olga).armed && !plan(&circle.olga).fired);
    assert_eq!(circle.all.iter().map(held).collect::<Vec<_>>(), before);
    // AFR-06: midnight is over, and the relay has not looked: it takes the voice for the day before.
    look(&mut world).await;
    let into_day = world.clock.now().since(EPOCH).as_secs() % DAY.as_secs();
    world.clock.advance(DAY - Duration::from_secs(into_day) + HOUR - MINUTE);
    circle.raise(0).await;
    assert_eq!(circle.alerts().await, [0, 0], "what was raised before the relay forgot is forgotten too");
    // It counts to the last moment that its owner is told, with every look at the relay's clock that may be.
    let until = voices(&circle.all[0])[0].state.counts_until(world.clock.now()).unwrap();
    let last = until.minus(Duration::from_millis(1));
    while last.since(world.clock.now()) > HOUR {
        world.clock.advance(HOUR);
        look(&mut world).await;
    }
    world.clock.advance(last.since(world.clock.now()));
    look(&mut world).await;
    assert_eq!(voices(&circle.all[0])[0].state.counts_until(world.clock.now()), Some(until));
    assert_eq!(voices(&circle.all[0])[0].state.counts_until(until), None);
    circle.raise(1).await;
    assert_eq!(circle.alerts().await, [1, 1]);
    // What comes late does not take the place of what was told after it.
    let (id, mut row) = circle.all[0].rows::<TrustRow>().pop().unwrap();
    let voices = Voices::import(&held(&circle.all[0])).unwrap();
    let later = Voices { number: voices.number + 1_000_000_000_000, ..voices }.export().expose().to_vec();
    row.held = Some(HeldVoices { voices: later.clone().into(), given: Vec::new() });
    let (_, compartment) = circle.all[0].driver();
    let mut unit = Unit::new(&*compartment.base);
    unit.put(&id, &row);
    let changes = unit.into_changes();
    compartment.base.commit(changes).unwrap();
    circle.olga.must(Command::TrustRemove { chat: "ben".into() });
    circle.calm().await;
    assert_eq!(held(&circle.all[0]), later);
}

/// The process of the owner, and that of a contact, dies at each of their commits.
#[tokio::test(start_paused = true)]
async fn afr_01_and_afr_05_a_kill_at_any_commit_loses_no_voice_and_gives_none_twice() {
    let mut world = World::new(774);
    let mut circle = Circle::new(&mut world, &["ana", "ben"]).await;
    let mut died = 0;
    for at in 1.. {
        let mut whole = 0;
        for kept in [false, true] {
            let numbers = told(&circle.olga);
            let before = circle.olga.base().commits();
            circle.olga.base().crash_at(Crash { at: before + at, kept });
            let begun = circle.olga.command(begin(&mut world, asked(&["ana", "ben"], 2)).0);
            circle.olga.settle().await;
            if let Ok(Reply::Plan(plan)) = &begun {
                let _ = circle.olga.command(Command::PlanFinish { plan: *plan });
            }
            circle.olga.settle().await;
            whole += usize::from(!circle.olga.base().is_dead());
            circle.olga.restart();
            // As the next unlock, where the header has the passphrase.
            let rows = circle.olga.rows::<PlanRow>();
            let id = match rows.as_slice() {
                [(id, row)] => {
                    let is_final = row.state == PlanState::Armed;
                    let is_told = told(&circle.olga).iter().zip(&numbers).all(|(now, before)| now > before);
                    assert!(!is_final || is_told, "commit {at}, kept: {kept}: final, and not told");
                    *id
                }
                [] => {
                    let again = circle.olga.command(begin(&mut world, asked(&["ana", "ben"], 2)).0);
                    let Ok(Reply::Plan(plan)) = again else { panic!("another reply") };
                    plan
                }
                more => panic!("{} plans", more.len()),
            };
            circle.olga.sync().await;
            circle.olga.must(Command::PlanFinish { plan: id });
            circle.calm().await;
            assert!(plan(&circle.olga).armed);
            assert!(circle.all.iter().all(|person| voices(person).len() == 1), "commit {at}, kept: {kept}");
            // The contact's process dies while he gives his voice.
            let contact = &mut circle.all[0];
            let before = contact.base().commits();
            contact.base().crash_at(Crash { at: before + at, kept });
            let given = contact.command(Command::Trigger { chat: "olga".into() }).is_ok();
            contact.settle().await;
            contact.restart();
            contact.sync().await;
            if matches!(voices(contact)[0].state, VoiceState::Held) {
                assert!(!given && !kept, "commit {at}, kept: {kept}: a voice is lost");
                circle.raise(0).await;
            }
            assert!(matches!(voices(&circle.all[0])[0].state, VoiceState::Given(_)));
            let alerts = circle.alerts().await;
            circle.raise(1).await;
            let after = circle.alerts().await;
            assert!(alerts.iter().zip(&after).all(|(before, after)| before + 1 == *after), "{at}, {kept}");
            // And while the plan is taken away.
            let before = circle.olga.base().commits();
            circle.olga.base().crash_at(Crash { at: before + at, kept });
            let _ = circle.olga.command(Command::PlanRemove { plan: id });
            circle.olga.settle().await;
            circle.olga.restart();
            if !circle.olga.rows::<PlanRow>().is_empty() {
                circle.olga.must(Command::PlanRemove { plan: id });
            }
            circle.calm().await;
            assert!(circle.all.iter().all(|person| voices(person).is_empty()), "commit {at}, kept: {kept}");
            assert!(circle.olga.rows::<OpRow>().is_empty());
        }
        if whole > 0 {
            assert_eq!(whole, 2);
            break;
        }
        died = at;
    }
    assert!(died >= 4, "only {died} commits");
}
