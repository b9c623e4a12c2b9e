//! Deadlines on a clock that the test moves, quorums, and both across crashes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing_relay::{
    clock::Clock,
    key::RelaySecret,
    limits::Limits,
    server::Server,
    service::{ConnectionState, Service},
    store::{
        Change, Mailbox, MailboxStore, Outcome, StoreError, StoreOptions, Ticket, Totals, WindowQuery,
        fjall::FjallStore, memory::MemoryStore,
    },
};
use lapwing_wire::{
    capability::{Access, ChannelBinding, PublicKey, Purpose, Right, SecretKey, Subject, Trigger},
    frame::*,
    ids::{BlobHash, MailboxId, TripwireId},
    limits::VOICE_DAYS,
    sharing::{self, Share},
    time::Timestamp,
    tripwire::*,
};

use crate::{
    support::{Client, Keys, NOW, Relay, envelope, local},
    tripwire::Plan,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: u64 = 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Somebody who asks a relay without a network.
struct Asker {
    service: Arc<Service>,
    connection: ConnectionState,
    binding: ChannelBinding,
}

impl Asker {
    async fn start(store: Arc<dyn MailboxStore>) -> Result<Self, StoreError> {
        let limits = Limits { open_creation: true, ..Limits::default() };
        let service = Arc::new(Service::start(store, limits, &mut rand::rng(), NOW).await?);
        let binding = ChannelBinding::from_bytes([1; 32]);
        let connection = service.connect(binding);
        Ok(Self { service, connection, binding })
    }

    async fn ask(&self, body: RequestBody) -> ResponseBody {
        self.service.handle(&self.connection, body, NOW).await
    }

    async fn prove<P: Purpose>(&self, subject: Subject, key: &SecretKey<P>) {
        let signature = subject.prove(key, &self.binding);
        self.ask(RequestBody::Prove(Prove { subject, signature })).await;
    }

    async fn mailbox(&self, keys: &Keys) {
        self.ask(RequestBody::Create(keys.create(MailboxKind::Queue, None, &self.binding))).await;
        self.prove_all(keys).await;
    }

    async fn prove_all(&self, keys: &Keys) {
        self.prove(Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
        self.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    }

    async fn count(&self, keys: &Keys) -> u64 {
        let read = Read { mailbox: keys.id(), after: Seq::START, count: 128 };
        match self.ask(RequestBody::Read(read)).await {
            ResponseBody::Window(window) => window.newest.value(),
            other => panic!("a window, not {other:?}"),
        }
    }

    /// Whether an append is kept.
    async fn keeps(&self, keys: &Keys, number: u64) -> bool {
        let append = Append { mailbox: keys.id(), envelope: envelope(number).into() };
        let answer = self.ask(RequestBody::Append(append)).await;
        assert!(matches!(answer, ResponseBody::Stored(_)), "a sink answers as before");
        let read = Read { mailbox: keys.id(), after: Seq::START, count: 128 };
        match self.ask(RequestBody::Read(read)).await {
            ResponseBody::Window(window) => !window.items.is_empty(),
            other => panic!("a window, not {other:?}"),
        }
    }

    /// The number that an append gets.
    async fn place(&self, keys: &Keys, number: u64) -> u64 {
        let append = Append { mailbox: keys.id(), envelope: envelope(number).into() };
        match self.ask(RequestBody::Append(append)).await {
            ResponseBody::Stored(place) => place.seq.value(),
            other => panic!("a place, not {other:?}"),
        }
    }

    async fn present(&self, token: &Token) -> Status {
        match self.ask(RequestBody::Token(PresentToken { token: token.clone() })).await {
            ResponseBody::Token(status) => status,
            other => panic!("a status, not {other:?}"),
        }
    }

    async fn came(&self, plan: &Plan) -> Came {
        self.present(&plan.own).await.open(&plan.status).expect("the owner's token").came
    }

    async fn run(&self, minutes: u32) {
        for _ in 0..minutes {
            self.service.watch(MINUTE, NOW).await.unwrap();
        }
    }
}

/// The clock of a runtime whose time stands still until nothing is left to do.
struct RuntimeClock(tokio::time::Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        NOW.plus(self.steady())
    }

    fn steady(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A relay that serves, with all that it does by itself.
fn serve(service: &Arc<Service>) -> Server {
    let secret = RelaySecret::generate(&mut rand::rng());
    let clock = Arc::new(RuntimeClock(tokio::time::Instant::now()));
    Server::start(&local(), &secret, Arc::clone(service), clock).unwrap()
}

/// Alerts after one hour, ends a mailbox after two.
fn deadlines(plan: &Plan, serial: u64, alerts: &Keys, doomed: &Keys) -> Arm {
    let mut arm = plan.arm_with(None, serial, &[]);
    let alert = vec![Action::append(alerts.id(), envelope(serial), &alerts.write)];
    let destroy = vec![
        Action::append(alerts.id(), envelope(1000 + serial), &alerts.write),
        Action::sink(doomed.id(), &doomed.admin),
    ];
    arm.causes.alerting = Some(Deadline { after_s: HOUR, actions: alert });
    arm.causes.destroying = Some(Deadline { after_s: 2 * HOUR, actions: destroy });
    arm
}

async fn armed(asker: &Asker) -> (Plan, Keys, Keys) {
    let (plan, alerts, doomed) = (Plan::new(), Keys::new(), Keys::new());
    asker.mailbox(&alerts).await;
    asker.mailbox(&doomed).await;
    asker.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let arm = deadlines(&plan, 1, &alerts, &doomed);
    assert_eq!(asker.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
    (plan, alerts, doomed)
}

#[tokio::test]
async fn trp_10_a_missed_deadline_alerts_and_only_the_second_destroys_each_once() {
    let asker = Asker::start(Arc::new(MemoryStore::new())).await.unwrap();
    let (plan, alerts, doomed) = armed(&asker).await;
    asker.run(60).await;
    assert_eq!(asker.count(&alerts).await, 0, "not before the hour is over");
    asker.run(1).await;
    assert_eq!(asker.count(&alerts).await, 1);
    assert!(asker.keeps(&doomed, 1).await, "the first one only alerts");
    asker.run(59).await;
    assert_eq!(asker.count(&alerts).await, 1);
    asker.run(1).await;
    assert_eq!(asker.count(&alerts).await, 2);
    assert!(!asker.keeps(&doomed, 2).await);
    asker.run(600).await;
    assert_eq!(asker.count(&alerts).await, 2, "once each");
    let came = asker.came(&plan).await;
    assert!(came.alerting && came.destroying && !came.quorum && !came.frozen);
    // Armed anew it begins anew.
    asker.ask(RequestBody::Arm(deadlines(&plan, 2, &alerts, &doomed))).await;
    assert!(!asker.came(&plan).await.any());
    asker.run(61).await;
    assert_eq!(asker.count(&alerts).await, 3);
    asker.ask(RequestBody::Disarm(Disarm { owner: plan.owner.public() })).await;
    asker.run(200).await;
    assert_eq!(asker.count(&alerts).await, 3, "what is disarmed never comes");
}

/// Nobody calls the service here: the server does.
#[tokio::test(start_paused = true)]
async fn trp_10_a_relay_that_serves_looks_at_its_deadlines_by_itself() {
    let asker = Asker::start(Arc::new(MemoryStore::new())).await.unwrap();
    let (plan, alerts, doomed) = armed(&asker).await;
    let server = serve(&asker.service);
    tokio::time::sleep(Duration::from_secs(HOUR) - MINUTE).await;
    assert_eq!(asker.count(&alerts).await, 0, "not before the hour is over");
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(asker.count(&alerts).await, 1, "within two minutes after it");
    tokio::time::sleep(Duration::from_secs(HOUR) - 3 * MINUTE).await;
    assert_eq!(asker.count(&alerts).await, 1);
    assert!(asker.keeps(&doomed, 1).await);
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(asker.count(&alerts).await, 2);
    assert!(!asker.keeps(&doomed, 2).await);
    assert!(asker.came(&plan).await.destroying);
    server.shutdown(&asker.service).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_serves_deletes_what_is_too_old_by_itself() {
    let asker = Asker::start(Arc::new(MemoryStore::new())).await.unwrap();
    asker.service.set_limits(Limits { retention: DAY, open_creation: true, ..Limits::default() });
    let (taken, server) = (Keys::new(), serve(&asker.service));
    asker.mailbox(&taken).await;
    assert!(asker.keeps(&taken, 1).await);
    tokio::time::sleep(DAY - MINUTE).await;
    assert!(asker.keeps(&taken, 1).await, "not before a day is over");
    // The day of its coming, a whole day after it, and an hour until somebody looks.
    tokio::time::sleep(2 * DAY).await;
    let read = Read { mailbox: taken.id(), after: Seq::START, count: 1 };
    match asker.ask(RequestBody::Read(read)).await {
        ResponseBody::Window(window) => assert!(window.items.is_empty(), "nothing is older than that"),
        other => panic!("a window, not {other:?}"),
    }
    server.shutdown(&asker.service).await;
}

/// FRM-06
#[tokio::test(start_paused = true)]
async fn a_relay_that_serves_forgets_what_retries_need_no_more_by_itself() {
    let asker = Asker::start(Arc::new(MemoryStore::new())).await.unwrap();
    let (keys, server) = (Keys::new(), serve(&asker.service));
    asker.mailbox(&keys).await;
    for number in 1..=4106 {
        assert_eq!(asker.place(&keys, number).await, number);
    }
    let taken = Ack { mailbox: keys.id(), upto: Seq::new(4100), also: Vec::new() };
    assert_eq!(asker.ask(RequestBody::Ack(taken)).await, ResponseBody::Done);
    for number in [1, 11, 4106] {
        assert_eq!(asker.place(&keys, number).await, number, "the same answer again");
    }
    tokio::time::sleep(2 * MINUTE).await;
    for number in [11, 4106] {
        assert_eq!(asker.place(&keys, number).await, number, "of the newest the same answer again");
    }
    assert_eq!(asker.place(&keys, 1).await, 4107, "what is long past is taken as a new one");
    server.shutdown(&asker.service).await;
}

/// A board without a battery starts in 1970 and learns the time later, each time that its power fails.
#[tokio::test]
async fn a_clock_that_starts_in_1970_each_time_expires_nothing() {
    let store = Arc::new(MemoryStore::new());
    let asker = Asker::start(store.clone()).await.unwrap();
    let keys = Keys::new();
    asker.mailbox(&keys).await;
    assert!(asker.keeps(&keys, 1).await);
    drop(asker);
    for start in 1..=20 {
        let limits = Limits { open_creation: true, ..Limits::default() };
        let unset = Timestamp::from_millis(1_000);
        let service = Service::start(store.clone(), limits, &mut rand::rng(), unset).await.unwrap();
        service.sweep(unset).await.unwrap();
        service.sweep(NOW).await.unwrap();
        drop(service);
        let asker = Asker::start(store.clone()).await.unwrap();
        asker.prove_all(&keys).await;
        let read = Read { mailbox: keys.id(), after: Seq::START, count: 128 };
        let ResponseBody::Window(window) = asker.ask(RequestBody::Read(read)).await else {
            panic!("a window")
        };
        assert_eq!(window.items.len(), 1, "it was taken by nobody, and is gone at start {start} of one day");
    }
}

#[tokio::test]
async fn trp_10_no_clock_makes_a_deadline_come_early_or_keeps_it_from_coming() {
    let asker = Asker::start(Arc::new(MemoryStore::new())).await.unwrap();
    let (_, alerts, _) = armed(&asker).await;
    let walls = [
        NOW.plus(DAY * 9999),
        Timestamp::from_millis(0),
        NOW.minus(DAY * 9999),
        Timestamp::from_millis(u64::MAX),
    ];
    // The wall clock says anything; the steady clock leaps, as that of a computer that slept; or stands still.
    for (n, wall) in (0..59).zip(walls.into_iter().cycle()) {
        let elapsed = if n % 2 == 0 { DAY * 365 } else { MINUTE };
        asker.service.watch(elapsed, wall).await.unwrap();
        asker.service.watch(Duration::ZERO, wall).await.unwrap();
        asker.service.sweep(wall).await.unwrap();
    }
    assert_eq!(asker.count(&alerts).await, 0, "a leap counts a minute");
    asker.service.watch(MINUTE, walls[1]).await.unwrap();
    assert_eq!(asker.count(&alerts).await, 0);
    asker.service.watch(MINUTE, walls[2]).await.unwrap();
    assert_eq!(asker.count(&alerts).await, 1);
}

#[tokio::test]
async fn trp_12_only_the_owners_token_puts_a_deadline_off() {
    let asker = Asker::start(Arc::new(MemoryStore::new())).await.unwrap();
    let (plan, alerts, doomed) = armed(&asker).await;
    for _ in 0..5 {
        asker.run(40).await;
        asker.present(&plan.own).await;
    }
    assert_eq!(asker.count(&alerts).await, 0, "it is put off again and again");
    for token in [&plan.idle, &Token::generate(&mut rand::rng()), &plan.duress] {
        asker.present(token).await;
    }
    // Somebody else's token that claims to renew it.
    let other = Plan::new();
    asker.prove(Subject::Tripwire(other.owner.public()), &other.owner).await;
    let mut arm = other.arm_with(None, 1, &[]);
    let mut rng = rand::rng();
    let claim = OpenRecord {
        tripwire: plan.id(),
        meaning: Meaning::Renew,
        list_key: ListKey::generate(&mut rng),
        status_key: StatusKey::generate(&mut rng),
    };
    arm.records = vec![TokenRecord::seal(&other.own, &claim, &mut rng)];
    asker.ask(RequestBody::Arm(arm)).await;
    asker.run(50).await;
    asker.present(&other.own).await;
    asker.run(11).await;
    assert_eq!(asker.count(&alerts).await, 1);
    // After the first has come the token puts off the second.
    asker.run(40).await;
    asker.present(&plan.own).await;
    asker.run(100).await;
    assert!(asker.keeps(&doomed, 1).await);
    asker.run(21).await;
    assert!(!asker.keeps(&doomed, 2).await);
    assert_eq!(asker.count(&alerts).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_10_deadlines_survive_a_restart_and_the_time_between_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let (plan, alerts, doomed);
    {
        let asker = Asker::start(Arc::new(FjallStore::open(&options).unwrap())).await.unwrap();
        (plan, alerts, doomed) = armed(&asker).await;
        asker.run(40).await;
        asker.service.shutdown().await;
    }
    for (minutes, expected) in [(20, 0), (1, 1), (59, 1), (1, 2)] {
        let asker = Asker::start(Arc::new(FjallStore::open(&options).unwrap())).await.unwrap();
        asker.prove_all(&alerts).await;
        asker.prove_all(&doomed).await;
        asker.run(minutes).await;
        assert_eq!(asker.count(&alerts).await, expected);
        if expected == 2 {
            assert!(asker.came(&plan).await.destroying && !asker.keeps(&doomed, 1).await);
        }
        asker.service.shutdown().await;
    }
}

/// A store whose process dies at some commit: before it reached the disk, or after, without an answer.
struct Dying {
    inner: Arc<MemoryStore>,
    left: AtomicUsize,
    is_after: bool,
}

#[async_trait::async_trait]
impl MailboxStore for Dying {
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Err(_) => Err(StoreError::Closed),
            Ok(1) => {
                if self.is_after {
                    self.inner.apply(change).await?;
                }
                Err(StoreError::Disk)
            }
            Ok(_) => self.inner.apply(change).await,
        }
    }
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError> {
        self.inner.mailbox(id).await
    }
    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError> {
        self.inner.window(query).await
    }
    async fn blob_part(&self, hash: BlobHash, offset: u64) -> Result<Option<BlobPart>, StoreError> {
        self.inner.blob_part(hash, offset).await
    }
    async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
        self.inner.blob_digest(hash).await
    }
    async fn ticket(&self, key: PublicKey<Access>) -> Result<Option<Ticket>, StoreError> {
        self.inner.ticket(key).await
    }
    async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        self.inner.tickets().await
    }
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        self.inner.totals(now).await
    }
    async fn close(&self) {}
}

/// Everything that a relay does from a renewal to the last deadline, in steps of ten minutes' worth of looks.
async fn live(asker: &Asker, plan: &Plan, voices: &[(SecretKey<Trigger>, Share)], looks: &mut u32) -> bool {
    while *looks < 130 {
        if asker.service.watch(MINUTE, NOW).await.is_err() {
            return false;
        }
        *looks += 1;
        if *looks == 5
            && asker.ask(RequestBody::Token(PresentToken { token: plan.own.clone() })).await == BUSY
        {
            return false;
        }
        for (key, share) in voices.iter().filter(|_| looks.is_multiple_of(40)) {
            asker.prove(Subject::Trigger(key.public()), key).await;
            let raise = RaiseTrigger { tripwire: plan.id(), key: key.public(), share: share.clone() };
            if asker.ask(RequestBody::Trigger(raise)).await == BUSY {
                return false;
            }
        }
    }
    true
}

const BUSY: ResponseBody = ResponseBody::Refused(Refusal::Busy);

#[tokio::test]
async fn trp_12_a_crash_at_any_commit_leaves_every_cause_to_come_once() {
    let store = |setup: &Arc<MemoryStore>, left, is_after| {
        Arc::new(Dying { inner: Arc::clone(setup), left: AtomicUsize::new(left), is_after })
    };
    let mut commits = 1;
    loop {
        let mut was_cut = false;
        for is_after in [false, true] {
            let inner = Arc::new(MemoryStore::new());
            let asker = Asker::start(Arc::clone(&inner) as _).await.unwrap();
            let (plan, alerts, doomed) = armed(&asker).await;
            let mut arm = deadlines(&plan, 2, &alerts, &doomed);
            let (quorum, voices) =
                quorum(&plan, 2, &[Action::append(alerts.id(), envelope(77), &alerts.write)]);
            arm.causes.quorum = Some(quorum);
            asker.ask(RequestBody::Arm(arm)).await;
            let mut looks = 0;
            // One commit more: starting ticks the clock.
            let mut dying = Asker::start(store(&inner, commits + 1, is_after)).await.unwrap();
            while !live(&dying, &plan, &voices, &mut looks).await {
                was_cut = true;
                dying = Asker::start(Arc::clone(&inner) as _).await.unwrap();
                // A look that died before its commit has lost its minute.
                looks += u32::from(is_after);
            }
            let last = Asker::start(Arc::clone(&inner) as _).await.unwrap();
            last.prove_all(&alerts).await;
            last.run(10).await;
            let came = last.came(&plan).await;
            assert!(came.alerting && came.destroying && came.quorum, "{commits} {is_after}: {came:?}");
            assert_eq!(last.count(&alerts).await, 3, "{commits} {is_after}: each once");
        }
        if !was_cut {
            assert!(commits > 100, "the walk is that long");
            return;
        }
        // Every commit around what happens, and every seventh of the others.
        commits +=
            if commits < 12 || (38..50).contains(&commits) || commits > 62 && commits < 80 { 1 } else { 7 };
    }
}

/// A quorum of three, and its voices.
pub fn quorum(plan: &Plan, threshold: u8, actions: &[Action]) -> (Quorum, Vec<(SecretKey<Trigger>, Share)>) {
    let mut rng = rand::rng();
    let key = ListKey::generate(&mut rng);
    let shares = sharing::split(&key, usize::from(threshold), 3, &mut rng).unwrap();
    let voices: Vec<_> =
        shares.into_iter().map(|share| (SecretKey::<Trigger>::generate(&mut rng), share)).collect();
    let public: Vec<_> = voices.iter().map(|(key, share)| (key.public(), share.clone())).collect();
    (Quorum::seal(&plan.id(), &key, threshold, &public, actions, &mut rng).unwrap(), voices)
}

pub async fn raise(
    client: &mut Client,
    tripwire: TripwireId,
    key: &SecretKey<Trigger>,
    share: &Share,
) -> ResponseBody {
    client.prove(Subject::Trigger(key.public()), key).await;
    let raise = RaiseTrigger { tripwire, key: key.public(), share: share.clone() };
    client.ask(RequestBody::Trigger(raise)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_13_trp_16_enough_voices_set_it_off_and_no_answer_tells_what_a_voice_did() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let mut owner = relay.client().await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let doomed = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let actions =
        [Action::append(alerts.id(), envelope(911), &alerts.write), Action::sink(doomed.id(), &doomed.admin)];
    let (sealed, voices) = quorum(&plan, 2, &actions);
    let mut arm = plan.arm(&relay, 1, &[]);
    arm.causes.quorum = Some(sealed);
    assert_eq!(owner.ask(RequestBody::Arm(arm.clone())).await, ResponseBody::Done);
    let tripwire = plan.id();
    let mut contact = relay.client().await;
    let (first, second) = (&voices[0], &voices[1]);

    // Without the proof of the key on this very connection it is nobody's voice: a recorded request is worth nothing.
    let unproven = RaiseTrigger { tripwire, key: first.0.public(), share: first.1.clone() };
    let refused = ResponseBody::Refused(Refusal::NotAllowed);
    assert_eq!(contact.ask(RequestBody::Trigger(unproven)).await, refused);

    let stranger = SecretKey::<Trigger>::generate(&mut rand::rng());
    let wrong = Share::from_bytes([7; sharing::SHARE_LENGTH]);
    let mut answers = vec![
        raise(&mut contact, tripwire, &first.0, &first.1).await,
        raise(&mut contact, tripwire, &first.0, &first.1).await,
        raise(&mut contact, tripwire, &second.0, &wrong).await,
        // The other's share, and the own one by a stranger.
        raise(&mut contact, tripwire, &second.0, &first.1).await,
        raise(&mut contact, tripwire, &stranger, &second.1).await,
        raise(&mut contact, TripwireId::from_bytes([9; 32]), &second.0, &second.1).await,
    ];
    assert!(owner.window(alerts.id(), 0).await.items.is_empty(), "one voice is not enough");
    // Armed anew with the same voices, what was raised counts on.
    arm.serial = 2;
    assert_eq!(owner.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
    answers.push(raise(&mut contact, tripwire, &second.0, &second.1).await);
    assert_eq!(owner.window(alerts.id(), 0).await.items.len(), 1);
    answers.push(raise(&mut contact, tripwire, &voices[2].0, &voices[2].1).await);
    answers.push(raise(&mut contact, tripwire, &first.0, &first.1).await);
    assert_eq!(owner.window(alerts.id(), 0).await.newest, Seq::new(1), "once");
    assert!(answers.iter().all(|answer| *answer == ResponseBody::Done), "{answers:?}");
    crate::support::client::stored(&owner.append(doomed.id(), envelope(1)).await);
    assert!(owner.window(doomed.id(), 0).await.items.is_empty(), "a sink");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_16_a_voice_counts_for_seven_days() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let mut owner = relay.client().await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let (sealed, voices) = quorum(&plan, 2, &[Action::append(alerts.id(), envelope(1), &alerts.write)]);
    let mut arm = plan.arm(&relay, 1, &[]);
    arm.causes.quorum = Some(sealed);
    owner.ask(RequestBody::Arm(arm)).await;
    let mut contact = relay.client().await;
    raise(&mut contact, plan.id(), &voices[0].0, &voices[0].1).await;
    for day in 1..=VOICE_DAYS {
        relay.service.sweep(NOW.plus(DAY * day)).await.unwrap();
    }
    raise(&mut contact, plan.id(), &voices[1].0, &voices[1].1).await;
    assert!(owner.window(alerts.id(), 0).await.items.is_empty(), "the first is too old");
    relay.service.sweep(NOW.plus(DAY * (VOICE_DAYS + 1))).await.unwrap();
    raise(&mut contact, plan.id(), &voices[0].0, &voices[0].1).await;
    assert_eq!(owner.window(alerts.id(), 0).await.items.len(), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_14_causes_that_a_relay_can_see_to_be_wrong_are_refused() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let mut owner = relay.client().await;
    owner.prove_access(&relay.access).await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let doomed = Keys::new();
    let sink = vec![Action::sink(doomed.id(), &doomed.admin)];
    let (sealed, _) = quorum(&plan, 2, &[]);
    let causes = [
        Causes { alerting: Some(Deadline { after_s: HOUR, actions: sink.clone() }), ..Causes::default() },
        Causes { destroying: Some(Deadline { after_s: HOUR, actions: sink }), ..Causes::default() },
        Causes { alerting: Some(Deadline { after_s: 1, actions: vec![] }), ..Causes::default() },
        Causes { quorum: Some(Quorum { threshold: 0, ..sealed.clone() }), ..Causes::default() },
        Causes { quorum: Some(Quorum { voices: vec![], ..sealed }), ..Causes::default() },
    ];
    for causes in causes {
        let arm = Arm { causes, ..plan.arm(&relay, 1, &[]) };
        let refused = ResponseBody::Refused(Refusal::TooLarge);
        assert_eq!(owner.ask(RequestBody::Arm(arm)).await, refused);
    }
    relay.stop().await;
}
