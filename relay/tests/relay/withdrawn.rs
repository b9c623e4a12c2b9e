//! What waits for a slow subscriber when it is taken, destroyed or expires.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lapwing_relay::server::ServerOptions;
use lapwing_wire::{
    capability::{Right, Subject},
    frame::*,
    ids::MailboxId,
    tripwire::{Action, Deadline},
};
use quinn::{TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;

use crate::{
    support::{Client, Keys, NOW, PATIENCE, Relay, client::stored, envelope, local},
    tripwire::{Plan, present},
};

/// A subscriber that takes less than one envelope until it reads, and somebody who does everything else.
struct Scene {
    relay: Relay,
    owner: Client,
    slow: Client,
    /// Subscribed to first: one envelope of it stops up the way of all others.
    plug: Arc<Keys>,
    /// Subscribed to last.
    mark: Arc<Keys>,
    marks: u64,
}

impl Scene {
    async fn start() -> Self {
        // Nobody is to be sent away for being slow, however slow this machine is.
        let options = ServerOptions { stall_timeout: PATIENCE, ..local() };
        let relay = Relay::start_on(options).await;
        let mut owner = relay.client().await;
        owner.prove_access(&relay.access).await;
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(600));
        let provider = aws_lc_rs::default_provider();
        let key = relay.server.key();
        let slow = Client::connect_over(relay.address, &key, ALPN, provider, transport).await.unwrap();
        let (plug, mark) = (Arc::new(Keys::new()), Arc::new(Keys::new()));
        let mut scene = Self { relay, owner, slow, plug, mark, marks: 0 };
        for keys in [Arc::clone(&scene.plug), Arc::clone(&scene.mark)] {
            scene.open(&keys, MailboxKind::Queue).await;
        }
        scene
    }

    async fn mailbox(&mut self, kind: MailboxKind) -> Arc<Keys> {
        let keys = Arc::new(Keys::new());
        self.open(&keys, kind).await;
        keys
    }

    async fn open(&mut self, keys: &Keys, kind: MailboxKind) {
        let create = keys.create(kind, Some(self.relay.access.public()), &self.owner.binding);
        assert_eq!(self.owner.ask(RequestBody::Create(create)).await, ResponseBody::Done);
        self.owner.prove_all(keys).await;
        self.slow.prove(Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
        let subscribe = Read { mailbox: keys.id(), after: Seq::START, count: 1 };
        let answer = self.slow.ask(RequestBody::Subscribe(subscribe)).await;
        assert!(matches!(answer, ResponseBody::Window(_)), "{answer:?}");
    }

    async fn append(&mut self, keys: &Keys, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            stored(&self.owner.append(keys.id(), envelope(number)).await);
        }
    }

    async fn stop_up(&mut self, number: u64) {
        let plug = self.plug.id();
        stored(&self.owner.append(plug, envelope(number)).await);
    }

    /// Reads until a new mark is told of; the numbers that were told of each mailbox.
    async fn told(&mut self) -> BTreeMap<MailboxId, Vec<u64>> {
        self.marks += 1;
        let (mark, marks) = (self.mark.id(), self.marks);
        stored(&self.owner.append(mark, envelope(marks)).await);
        let mut told: BTreeMap<MailboxId, Vec<u64>> = BTreeMap::new();
        while told.get(&mark).is_none_or(|seen| seen.last() != Some(&marks)) {
            let window = self.slow.notice().await;
            let numbers = window.items.iter().map(|item| item.place.seq.value());
            told.entry(window.mailbox).or_default().extend(numbers);
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_subscriber_is_withdrawn_when_it_is_taken_or_destroyed() {
    let mut scene = Scene::start().await;
    let mut doomed = Vec::new();
    for _ in 0..5 {
        doomed.push(scene.mailbox(MailboxKind::Queue).await);
    }
    let [kept, taken, closed, sunk, missed] = &doomed[..] else { panic!("five") };
    scene.stop_up(1).await;
    for keys in &doomed {
        scene.append(keys, 1..=3).await;
    }

    let ack = Ack { mailbox: taken.id(), upto: Seq::new(1), also: vec![Seq::new(3)] };
    assert_eq!(scene.owner.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    let close = Close { mailbox: closed.id() };
    assert_eq!(scene.owner.ask(RequestBody::Close(close)).await, ResponseBody::Done);
    let plan = Plan::new();
    scene.owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let mut arm = plan.arm(&scene.relay, 1, &[Action::sink(sunk.id(), &sunk.admin)]);
    let actions = vec![Action::sink(missed.id(), &missed.admin)];
    arm.causes.alerting = Some(Deadline { after_s: 3600, actions: Vec::new() });
    arm.causes.destroying = Some(Deadline { after_s: 7200, actions });
    assert_eq!(scene.owner.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
    present(&mut scene.owner, &plan.duress).await;
    for _ in 0..121 {
        scene.relay.service.watch(Duration::from_secs(60), NOW).await.unwrap();
    }
    // A sink takes envelopes as before.
    scene.append(sunk, 4..=4).await;

    let mut told = scene.told().await;
    for (mailbox, numbers) in scene.told().await {
        told.entry(mailbox).or_default().extend(numbers);
    }
    let expected =
        [(&*scene.plug, vec![1]), (kept, vec![1, 2, 3]), (taken, vec![2]), (&*scene.mark, vec![1, 2])];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(keys, numbers)| (keys.id(), numbers)).collect();
    assert_eq!(told, expected);
    scene.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_it_waits_for_a_slow_subscriber_is_withdrawn() {
    let mut scene = Scene::start().await;
    let log = scene.mailbox(MailboxKind::Log).await;
    scene.stop_up(1).await;
    scene.append(&log, 1..=3).await;
    for later in 1..=32 {
        scene.relay.service.sweep(NOW.plus(Duration::from_secs(24 * 3600 * later))).await.unwrap();
    }
    scene.append(&log, 4..=4).await;
    let mut told = scene.told().await;
    for (mailbox, numbers) in scene.told().await {
        told.entry(mailbox).or_default().extend(numbers);
    }
    assert_eq!(told.remove(&log.id()), Some(vec![4]));
    scene.relay.stop().await;
}
