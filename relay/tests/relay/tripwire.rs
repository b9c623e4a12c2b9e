//! Tripwires through real connections.

use lapwing_relay::limits::Limits;
use lapwing_wire::{
    capability::{Right, SecretKey, Subject, TripwireOwner},
    frame::*,
    ids::{EnvelopeId, RunningHash, TripwireId},
    tripwire::*,
};
use serde_bytes::ByteBuf;

use crate::support::{Client, Keys, NOW, Relay, client::stored, envelope, local};

/// A tripwire with an owner's token, a duress token and a token that means nothing.
pub struct Plan {
    pub owner: SecretKey<TripwireOwner>,
    pub own: Token,
    pub duress: Token,
    pub idle: Token,
    pub status: StatusKey,
}

impl Plan {
    pub fn new() -> Self {
        let mut rng = rand::rng();
        Self {
            owner: SecretKey::generate(&mut rng),
            own: Token::generate(&mut rng),
            duress: Token::generate(&mut rng),
            idle: Token::generate(&mut rng),
            status: StatusKey::generate(&mut rng),
        }
    }

    pub fn id(&self) -> TripwireId {
        TripwireId::of_owner(&self.owner.public())
    }

    pub fn arm(&self, relay: &Relay, serial: u64, actions: &[Action]) -> Arm {
        self.arm_with(Some(relay.access.public()), serial, actions)
    }

    pub fn arm_with(
        &self,
        access: Option<lapwing_wire::capability::PublicKey<lapwing_wire::capability::Access>>,
        serial: u64,
        actions: &[Action],
    ) -> Arm {
        let mut rng = rand::rng();
        let list_key = ListKey::generate(&mut rng);
        let tripwire = self.id();
        let mut record = |token: &Token, meaning, list_key: ListKey, status_key| {
            TokenRecord::seal(token, &OpenRecord { tripwire, meaning, list_key, status_key }, &mut rng)
        };
        let random = || ListKey::generate(&mut rand::rng());
        let nobody = || StatusKey::generate(&mut rand::rng());
        let records = vec![
            record(&self.own, Meaning::Renew, random(), self.status.clone()),
            record(&self.duress, Meaning::Fire, list_key.clone(), nobody()),
            record(&self.idle, Meaning::Nothing, random(), nobody()),
        ];
        let token_list = SealedList::seal(actions, &tripwire, &list_key, &mut rand::rng()).unwrap();
        Arm { owner: self.owner.public(), access, serial, records, token_list, causes: Causes::default() }
    }
}

pub async fn present(client: &mut Client, token: &Token) -> Status {
    match client.ask(RequestBody::Token(PresentToken { token: token.clone() })).await {
        ResponseBody::Token(status) => status,
        other => panic!("the answer to every token, not {other:?}"),
    }
}

async fn owner_client(relay: &Relay, plan: &Plan) -> Client {
    let mut client = relay.client().await;
    client.prove_access(&relay.access).await;
    let proved = client.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    assert_eq!(proved, ResponseBody::Done);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_a_token_fires_once_and_alerts_arrive_live() {
    let relay = Relay::start().await;
    let plan = Plan::new();
    let mut owner = owner_client(&relay, &plan).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let doomed = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    stored(&owner.append(doomed.id(), envelope(1)).await);
    let actions =
        [Action::append(alerts.id(), envelope(911), &alerts.write), Action::sink(doomed.id(), &doomed.admin)];
    assert_eq!(owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &actions))).await, ResponseBody::Done);

    let mut contact = relay.client().await;
    contact.prove(Subject::Mailbox(alerts.id(), Right::Read), &alerts.read).await;
    contact.ask(RequestBody::Subscribe(Read { mailbox: alerts.id(), after: Seq::START, count: 1 })).await;

    let mut stranger = relay.client().await;
    let armed = Some(OpenStatus { serial: 1, fired: false, came: Came::default() });
    assert_eq!(present(&mut stranger, &plan.own).await.open(&plan.status), armed);
    assert_eq!(present(&mut stranger, &plan.idle).await.open(&plan.status), None);
    assert_eq!(present(&mut stranger, &Token::generate(&mut rand::rng())).await.open(&plan.status), None);
    assert!(contact.window(alerts.id(), 0).await.items.is_empty(), "nothing fired yet");

    assert_eq!(present(&mut stranger, &plan.duress).await.open(&plan.status), None);
    let window = contact.notice().await;
    assert_eq!(window.items[0].envelope.to_vec(), envelope(911));
    present(&mut stranger, &plan.duress).await;
    assert_eq!(contact.window(alerts.id(), 0).await.newest, Seq::new(1), "once");
    let fired = Some(OpenStatus { serial: 1, fired: true, came: Came::default() });
    for _ in 0..2 {
        assert_eq!(present(&mut stranger, &plan.own).await.open(&plan.status), fired, "the owner learns it");
    }

    // The sink answers as before: numbers and hashes go on, retries too; nothing is kept.
    let mut writer = relay.client().await;
    writer.prove(Subject::Mailbox(doomed.id(), Right::Write), &doomed.write).await;
    let hash =
        RunningHash::START.next(1, &EnvelopeId::of(&envelope(1))).next(2, &EnvelopeId::of(&envelope(2)));
    let second = stored(&writer.append(doomed.id(), envelope(2)).await);
    assert_eq!(second, Stored { seq: Seq::new(2), hash });
    assert_eq!(stored(&writer.append(doomed.id(), envelope(2)).await), second);
    assert_eq!(stored(&writer.append(doomed.id(), envelope(1)).await).seq, Seq::new(1));
    let window = owner.window(doomed.id(), 0).await;
    assert_eq!((window.newest, window.items.len()), (Seq::new(2), 0));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_04_serials_count_up_and_arming_replaces() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let mut owner = owner_client(&relay, &plan).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let first = plan.arm(&relay, 5, &[Action::append(alerts.id(), envelope(1), &alerts.write)]);
    let conflict = ResponseBody::Refused(Refusal::Conflict);
    assert_eq!(owner.ask(RequestBody::Arm(first.clone())).await, ResponseBody::Done);
    assert_eq!(owner.ask(RequestBody::Arm(first.clone())).await, ResponseBody::Done, "a retry");
    let other = plan.arm(&relay, 5, &[]);
    assert_eq!(owner.ask(RequestBody::Arm(other)).await, conflict, "the same serial, something else");
    let second = plan.arm(&relay, 6, &[Action::append(alerts.id(), envelope(2), &alerts.write)]);
    assert_eq!(owner.ask(RequestBody::Arm(second)).await, ResponseBody::Done);
    assert_eq!(owner.ask(RequestBody::Arm(first)).await, conflict, "an old serial");
    let said = present(&mut owner, &plan.own).await.open(&plan.status);
    assert_eq!(said, Some(OpenStatus { serial: 6, fired: false, came: Came::default() }));
    present(&mut owner, &plan.duress).await;
    let window = owner.window(alerts.id(), 0).await;
    assert_eq!(window.items.len(), 1);
    assert_eq!(window.items[0].envelope.to_vec(), envelope(2), "what was armed last");

    let again = plan.arm(&relay, 7, &[]);
    assert_eq!(owner.ask(RequestBody::Arm(again)).await, ResponseBody::Done, "armed again after firing");
    let said = present(&mut owner, &plan.own).await.open(&plan.status);
    assert_eq!(
        said,
        Some(OpenStatus { serial: 7, fired: false, came: Came::default() }),
        "and not fired any more"
    );
    present(&mut owner, &plan.duress).await;
    let said = present(&mut owner, &plan.own).await.open(&plan.status);
    assert_eq!(said, Some(OpenStatus { serial: 7, fired: true, came: Came::default() }));
    let disarm = || RequestBody::Disarm(Disarm { owner: plan.owner.public() });
    assert_eq!(owner.ask(disarm()).await, ResponseBody::Done);
    assert_eq!(owner.ask(disarm()).await, ResponseBody::Done, "whether it was there or not");
    assert_eq!(present(&mut owner, &plan.own).await.open(&plan.status), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_arms_and_disarms_and_bounds_hold() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let mut stranger = relay.client().await;
    stranger.prove_access(&relay.access).await;
    let not_allowed = ResponseBody::Refused(Refusal::NotAllowed);
    assert_eq!(stranger.ask(RequestBody::Arm(plan.arm(&relay, 1, &[]))).await, not_allowed);
    let disarm = RequestBody::Disarm(Disarm { owner: plan.owner.public() });
    assert_eq!(stranger.ask(disarm).await, not_allowed);

    let mut owner = relay.client().await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let no_access = ResponseBody::Refused(Refusal::NoAccess);
    assert_eq!(owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &[]))).await, no_access);
    owner.prove_access(&relay.access).await;
    let too_large = ResponseBody::Refused(Refusal::TooLarge);
    let mut short = plan.arm(&relay, 1, &[]);
    short.records[0].sealed = ByteBuf::from(vec![0; 12]);
    assert_eq!(owner.ask(RequestBody::Arm(short)).await, too_large);
    let mut many = plan.arm(&relay, 1, &[]);
    many.records = vec![many.records[0].clone(); 33];
    assert_eq!(owner.ask(RequestBody::Arm(many)).await, too_large);
    let mut empty = plan.arm(&relay, 1, &[]);
    empty.token_list = SealedList::from_bytes(Vec::new());
    assert_eq!(owner.ask(RequestBody::Arm(empty)).await, too_large);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_07_an_action_without_permission_is_left_out_and_the_others_are_done() {
    let relay = Relay::in_memory(Limits { mailbox_bytes: 64 << 10, ..Limits::default() }, local()).await;
    let plan = Plan::new();
    let mut owner = owner_client(&relay, &plan).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let victim = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let thief = Keys::new();
    for number in 1..=64 {
        stored(&owner.append(alerts.id(), envelope(number)).await);
    }
    let actions = [
        Action::append(victim.id(), envelope(100), &thief.write),
        Action::sink(victim.id(), &thief.admin),
        Action::append(Keys::new().id(), envelope(101), &thief.write),
        Action::append(alerts.id(), vec![0; 77], &alerts.write),
        Action::append(alerts.id(), envelope(102), &alerts.write),
        Action::append(alerts.id(), envelope(102), &alerts.write),
    ];
    owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &actions))).await;
    present(&mut owner, &plan.duress).await;
    let window = owner.window(alerts.id(), 64).await;
    assert_eq!(window.items.len(), 1, "beyond the mailbox's quota, and once");
    assert_eq!(window.items[0].envelope.to_vec(), envelope(102));
    stored(&owner.append(victim.id(), envelope(1)).await);
    assert_eq!(owner.window(victim.id(), 0).await.items.len(), 1, "not a sink");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_runs_the_records_of_every_owner_and_nobody_else_can_fire() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let shared = Token::generate(&mut rand::rng());
    let mut boxes = Vec::new();
    let mut victim_id = None;
    for number in 0..2 {
        let plan = Plan { duress: shared.clone(), ..Plan::new() };
        let mut owner = owner_client(&relay, &plan).await;
        let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
        let arm = plan.arm(&relay, 1, &[Action::append(alerts.id(), envelope(number), &alerts.write)]);
        assert_eq!(owner.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
        victim_id = Some(plan.id());
        boxes.push((owner, alerts));
    }
    // A stranger arms a record that names another's tripwire: without its list key nothing happens.
    let stranger = Plan::new();
    let mut client = owner_client(&relay, &stranger).await;
    let mut arm = stranger.arm(&relay, 1, &[]);
    let mut rng = rand::rng();
    let forged = OpenRecord {
        tripwire: victim_id.unwrap(),
        meaning: Meaning::Fire,
        list_key: ListKey::generate(&mut rng),
        status_key: StatusKey::generate(&mut rng),
    };
    arm.records.push(TokenRecord::seal(&stranger.idle, &forged, &mut rng));
    client.ask(RequestBody::Arm(arm)).await;
    present(&mut client, &stranger.idle).await;
    for (owner, alerts) in &mut boxes {
        assert!(owner.window(alerts.id(), 0).await.items.is_empty());
    }
    present(&mut client, &shared).await;
    for (number, (owner, alerts)) in (0u64..).zip(&mut boxes) {
        let window = owner.window(alerts.id(), 0).await;
        assert_eq!(window.items[0].envelope.to_vec(), envelope(number));
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_with_one_renewing_token_for_several_plans_the_answer_speaks_of_those_that_fired() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let own = Token::generate(&mut rand::rng());
    let plans: Vec<Plan> = (0..3).map(|_| Plan { own: own.clone(), ..Plan::new() }).collect();
    for plan in &plans {
        let mut owner = owner_client(&relay, plan).await;
        assert_eq!(owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &[]))).await, ResponseBody::Done);
    }
    let mut client = relay.client().await;
    for fired in [&plans[1..2], &plans[1..3]] {
        present(&mut client, &fired[fired.len() - 1].duress).await;
        let mut told = vec![false; fired.len()];
        // By lot: each is missed 256 times in a row once in 2^256.
        for _ in 0..256 {
            let status = present(&mut client, &own).await;
            let about = fired.iter().position(|plan| {
                status.open(&plan.status)
                    == Some(OpenStatus { serial: 1, fired: true, came: Came::default() })
            });
            told[about.expect("one that fired")] = true;
            if told.iter().all(|told| *told) {
                break;
            }
        }
        assert!(told.iter().all(|told| *told), "each is told sooner or later");
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_the_state_of_another_owners_tripwire() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let victim = Plan::new();
    let mut owner = owner_client(&relay, &victim).await;
    owner.ask(RequestBody::Arm(victim.arm(&relay, 9, &[]))).await;
    let stranger = Plan::new();
    let mut client = owner_client(&relay, &stranger).await;
    let mut arm = stranger.arm(&relay, 1, &[]);
    let mut rng = rand::rng();
    let asking = OpenRecord {
        tripwire: victim.id(),
        meaning: Meaning::Renew,
        list_key: ListKey::generate(&mut rng),
        status_key: stranger.status.clone(),
    };
    arm.records = vec![TokenRecord::seal(&stranger.own, &asking, &mut rng)];
    assert_eq!(client.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
    assert_eq!(present(&mut client, &stranger.own).await.open(&stranger.status), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_02_every_answer_has_one_size() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let mut owner = owner_client(&relay, &plan).await;
    owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &[]))).await;
    let mut sizes = std::collections::BTreeSet::new();
    for token in [&plan.own, &plan.idle, &plan.duress, &plan.duress, &Token::from_bytes([0; 32])] {
        let status = present(&mut owner, token).await;
        sizes.insert(encode_frame(&Response { id: 9, body: ResponseBody::Token(status) }).unwrap().len());
    }
    assert_eq!(sizes.len(), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_fills_up_and_is_purged_like_any_mailbox() {
    let relay = Relay::in_memory(Limits { mailbox_bytes: 64 << 10, ..Limits::default() }, local()).await;
    let plan = Plan::new();
    let mut owner = owner_client(&relay, &plan).await;
    let doomed = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let mut writer = relay.client().await;
    writer.prove(Subject::Mailbox(doomed.id(), Right::Write), &doomed.write).await;
    stored(&writer.append(doomed.id(), envelope(1)).await);
    owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &[Action::sink(doomed.id(), &doomed.admin)]))).await;
    present(&mut owner, &plan.duress).await;
    for number in 2..=64 {
        stored(&writer.append(doomed.id(), envelope(number)).await);
    }
    assert_eq!(writer.append(doomed.id(), envelope(65)).await, ResponseBody::Refused(Refusal::Full));
    relay.service.sweep(NOW).await.unwrap();
    assert_eq!(writer.append(doomed.id(), envelope(65)).await, ResponseBody::Refused(Refusal::Full));
    // Days later the old ones would have expired, and so does what a sink counts.
    let day = std::time::Duration::from_secs(24 * 3600);
    for later in 1..=32 {
        relay.service.sweep(NOW.plus(day * later)).await.unwrap();
    }
    stored(&writer.append(doomed.id(), envelope(65)).await);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_08_no_answer_leaves_before_its_step() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    for _ in 0..5 {
        // The client's clock starts before the relay's: never less, however slow the machine is.
        let begun = tokio::time::Instant::now();
        present(&mut client, &Token::generate(&mut rand::rng())).await;
        assert!(begun.elapsed() >= lapwing_relay::service::TOKEN_ANSWER_STEP);
    }
    relay.stop().await;
}
