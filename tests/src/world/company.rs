//! People who know each other, and what they do together in many a test.

use lapwing::{
    engine::{
        Command, Reply,
        group::GroupCommand,
        plan::{PlanSpec, PlanTokens},
        view,
    },
    store::PlanAction,
};
use lapwing_wire::tripwire::Token;

use super::{Person, RelayNumber, World, calm, introduce};

/// Three people and a group of alice's, "march", that bob is in; dia is a contact of alice's.
pub async fn group(world: &mut World) -> (Person, Person, Person) {
    let relay = world.relay().await;
    let mut alice = world.person("alice", &[relay]);
    let mut bob = world.person("bob", &[relay]);
    let mut dia = world.person("dia", &[relay]);
    introduce(&mut alice, &mut bob).await;
    introduce(&mut alice, &mut dia).await;
    alice.group(GroupCommand::Create { name: "march".into(), alias: "alice".into(), relay: None });
    let_in(&mut alice, &mut bob).await;
    (alice, bob, dia)
}

/// Lets a contact of alice's into her group.
pub async fn let_in(alice: &mut Person, other: &mut Person) {
    let name = other.name.clone();
    alice.group(GroupCommand::Invite { group: "march".into(), chat: name.clone() });
    calm(&mut [alice, other]).await;
    other.group(GroupCommand::Approve { what: "march".into(), alias: name, name: None });
    calm(&mut [alice, other]).await;
}

/// The contact will get the owner's alerts.
pub async fn trust(owner: &mut Person, contact: &mut Person) {
    owner.must(Command::TrustAdd { chat: contact.name.clone() });
    calm(&mut [owner, contact]).await;
    contact.must(Command::TrustAccept { chat: owner.name.clone() });
    calm(&mut [owner, contact]).await;
}

/// The owner has a plan that this trusted contact, by his chat, can set off alone: it alerts him.
pub async fn give_voice(world: &mut World, owner: &mut Person, contact: &str, relay: RelayNumber) {
    let mut rng = world.rng();
    let (fire, renew) = (Token::generate(&mut rng), Token::generate(&mut rng));
    let spec = PlanSpec {
        name: "far".into(),
        action: PlanAction::Hide,
        shows: vec!["main".into()],
        alert: vec![contact.to_owned()],
        text: format!("{} does not answer", owner.name),
        place: None,
        instructions: None,
        remote: Some(1),
        sinks: Vec::new(),
        tokens: vec![PlanTokens { relay: world.net.address(relay), fire, renew }],
    };
    let Reply::Plan(plan) = owner.must(Command::PlanBegin(Box::new(spec))) else { panic!("not a plan") };
    calm(&mut [&mut *owner]).await;
    owner.must(Command::PlanFinish { plan });
    calm(&mut [owner]).await;
}

/// Each writes a line to the other, and each reads the other's.
pub async fn talk(alice: &mut Person, bob: &mut Person, words: &str) {
    alice.say("bob", &format!("a {words}"));
    bob.say("alice", &format!("b {words}"));
    calm(&mut [&mut *alice, &mut *bob]).await;
    assert_eq!(bob.heard("alice").last(), Some(&format!("a {words}")), "bob reads alice's line");
    assert_eq!(alice.heard("bob").last(), Some(&format!("b {words}")), "alice reads bob's line");
}

/// The safety number of a chat, as it is shown.
#[must_use]
pub fn number(person: &Person, chat: &str) -> String {
    let id = person.chat(chat).id;
    person.look(|unit| view::safety_number(unit, &id)).expect("a safety number").to_string()
}
