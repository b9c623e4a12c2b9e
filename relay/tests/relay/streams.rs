//! Several streams of one connection, and several lives of one mailbox.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use lapwing_relay::{
    limits::Limits,
    server::ServerOptions,
    service::{ConnectionState, Service},
    store::{
        Change, Mailbox, MailboxStore, Outcome, StoreError, Ticket, Totals, WindowQuery, memory::MemoryStore,
    },
};
use lapwing_wire::{
    capability::{Access, ChannelBinding, PublicKey, Right, Subject},
    frame::*,
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use crate::{
    memory::deaf,
    support::{
        Keys, NOW, PATIENCE, Relay,
        client::{stored, within},
        envelope, local,
    },
};

/// A store in memory that keeps one answer back.
#[derive(Default)]
struct Slow {
    inner: MemoryStore,
    next: Mutex<Option<Held>>,
    /// Windows that were read.
    windows: AtomicUsize,
    /// Changes fail, and are made or not.
    fails: Mutex<Option<Fails>>,
}

#[derive(Clone, Copy)]
enum Fails {
    After,
    Before,
}

/// An answer that is kept back.
struct Held {
    /// Says that it is there.
    is_read: oneshot::Sender<()>,
    /// Waits for what is to be done with it.
    goes_on: oneshot::Receiver<Goes>,
}

/// What becomes of it.
enum Goes {
    Out,
    Wrong,
}

#[async_trait::async_trait]
impl MailboxStore for Slow {
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        let fails = *self.fails.lock().unwrap();
        if !matches!(fails, Some(Fails::Before)) {
            let outcome = self.inner.apply(change).await;
            if fails.is_none() {
                return outcome;
            }
        }
        Err(StoreError::Full)
    }

    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError> {
        self.inner.mailbox(id).await
    }

    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError> {
        let answer = self.inner.window(query).await;
        self.windows.fetch_add(1, Ordering::SeqCst);
        let held = self.next.lock().unwrap().take();
        let Some(Held { is_read, goes_on }) = held else { return answer };
        is_read.send(()).unwrap();
        match goes_on.await.unwrap() {
            Goes::Out => answer,
            Goes::Wrong => Err(StoreError::Full),
        }
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

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// One connection, whose streams are calls at the same time.
struct Scene {
    store: Arc<Slow>,
    service: Arc<Service>,
    connection: Arc<ConnectionState>,
    keys: Keys,
}

impl Scene {
    async fn start() -> Self {
        let store = Arc::new(Slow::default());
        let limits = Limits { open_creation: true, ..Limits::default() };
        let shared: Arc<dyn MailboxStore> = Arc::<Slow>::clone(&store);
        let service = Arc::new(Service::start(shared, limits, &mut rand::rng(), NOW).await.unwrap());
        let connection = Arc::new(service.connect(ChannelBinding::from_bytes([1; 32])));
        let scene = Self { store, service, connection, keys: Keys::new() };
        scene.create().await;
        scene
    }

    async fn ask(&self, body: RequestBody) -> ResponseBody {
        self.service.handle(&self.connection, body, NOW).await
    }

    /// Makes the mailbox and proves everything, also anew.
    async fn create(&self) {
        let binding = self.connection.binding();
        let create = self.keys.create(MailboxKind::Queue, None, binding);
        assert_eq!(self.ask(RequestBody::Create(create)).await, ResponseBody::Done);
        let subject = |right| Subject::Mailbox(self.keys.id(), right);
        for (subject, signature) in [
            (subject(Right::Read), subject(Right::Read).prove(&self.keys.read, binding)),
            (subject(Right::Write), subject(Right::Write).prove(&self.keys.write, binding)),
            (subject(Right::Admin), subject(Right::Admin).prove(&self.keys.admin, binding)),
        ] {
            assert_eq!(self.ask(RequestBody::Prove(Prove { subject, signature })).await, ResponseBody::Done);
        }
    }

    async fn append(&self, number: u64) {
        let append = Append { mailbox: self.keys.id(), envelope: ByteBuf::from(envelope(number)) };
        let answer = self.ask(RequestBody::Append(append)).await;
        assert!(matches!(answer, ResponseBody::Stored(_)), "{answer:?}");
    }

    /// Subscribes from after a number, and wants nothing with the answer.
    fn subscribe(&self, after: u64) -> RequestBody {
        RequestBody::Subscribe(Read { mailbox: self.keys.id(), after: Seq::new(after), count: 0 })
    }

    async fn subscribed(&self, after: u64) {
        let answer = self.ask(self.subscribe(after)).await;
        assert!(matches!(answer, ResponseBody::Window(_)), "{answer:?}");
    }

    /// Begins something that asks the store for a window, and keeps its answer back.
    async fn hold<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> (oneshot::Sender<Goes>, tokio::task::JoinHandle<T>) {
        let ((is_read, read), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
        *self.store.next.lock().unwrap() = Some(Held { is_read, goes_on });
        let work = tokio::spawn(work);
        within(read).await.unwrap();
        (go_on, work)
    }

    async fn hold_request(
        &self,
        body: RequestBody,
    ) -> (oneshot::Sender<Goes>, tokio::task::JoinHandle<ResponseBody>) {
        let (service, connection) = (Arc::clone(&self.service), Arc::clone(&self.connection));
        self.hold(async move { service.handle(&connection, body, NOW).await }).await
    }

    /// All that it is told now: which envelopes.
    async fn told(&self) -> Vec<Vec<u8>> {
        let mut told = Vec::new();
        while let Some(Notice::Window(window)) = self.service.due_notice(&self.connection).await {
            told.extend(window.items.into_iter().map(|item| item.envelope.into_vec()));
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_made_again_hands_over_nothing_of_its_earlier_life_and_all_of_this_one() {
    let scene = Scene::start().await;
    for number in 1..=2 {
        scene.append(number).await;
    }
    scene.subscribed(0).await;
    let (service, connection) = (Arc::clone(&scene.service), Arc::clone(&scene.connection));
    // What waits is read while the mailbox begins anew, and is subscribed to at the same number.
    let (go_on, notice) = scene.hold(async move { service.due_notice(&connection).await }).await;
    let close = Close { mailbox: scene.keys.id() };
    assert_eq!(scene.ask(RequestBody::Close(close)).await, ResponseBody::Done);
    scene.create().await;
    scene.subscribed(0).await;
    for number in 3..=4 {
        scene.append(number).await;
    }
    go_on.send(Goes::Out).ok().unwrap();
    let mut told: Vec<Vec<u8>> = match within(notice).await.unwrap() {
        Some(Notice::Window(window)) => {
            window.items.into_iter().map(|item| item.envelope.into_vec()).collect()
        }
        None => Vec::new(),
    };
    told.extend(scene.told().await);
    assert!(told == [envelope(3), envelope(4)], "{} envelopes", told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_subscriptions_to_one_mailbox_at_once_the_one_that_began_last_counts() {
    for (goes, expected) in [(Goes::Out, "window"), (Goes::Wrong, "refused")] {
        let scene = Scene::start().await;
        for number in 1..=2 {
            scene.append(number).await;
        }
        // From a later place, or in vain; its answer comes when the other one's is long there.
        let (go_on, first) = scene.hold_request(scene.subscribe(2)).await;
        scene.subscribed(0).await;
        go_on.send(goes).ok().unwrap();
        match within(first).await.unwrap() {
            ResponseBody::Window(_) => assert_eq!(expected, "window"),
            answer => assert_eq!((answer, expected), (ResponseBody::Refused(Refusal::Busy), "refused")),
        }
        scene.append(3).await;
        let told = scene.told().await;
        assert!(told == [envelope(1), envelope(2), envelope(3)], "{} envelopes", told.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_was_ended_while_it_was_read_stays_ended() {
    let scene = Scene::start().await;
    scene.append(1).await;
    let (go_on, first) = scene.hold_request(scene.subscribe(0)).await;
    let end = RequestBody::Unsubscribe(Close { mailbox: scene.keys.id() });
    assert_eq!(scene.ask(end).await, ResponseBody::Done);
    go_on.send(Goes::Out).ok().unwrap();
    assert!(matches!(within(first).await.unwrap(), ResponseBody::Window(_)));
    scene.append(2).await;
    assert!(scene.told().await.is_empty());
    assert!(!scene.connection.has_subscriptions());
}

/// A full disk may have taken what it refused: then only the store knows what is left.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_read_again_after_a_change_of_which_nobody_knows_whether_it_was_made() {
    for (fails, expected) in [(Fails::After, vec![]), (Fails::Before, vec![envelope(1), envelope(2)])] {
        let scene = Scene::start().await;
        scene.subscribed(0).await;
        for number in 1..=2 {
            scene.append(number).await;
        }
        *scene.store.fails.lock().unwrap() = Some(fails);
        let close = RequestBody::Close(Close { mailbox: scene.keys.id() });
        assert_eq!(scene.ask(close).await, ResponseBody::Refused(Refusal::Busy));
        *scene.store.fails.lock().unwrap() = None;
        let told = scene.told().await;
        assert!(told == expected, "{} envelopes", told.len());
    }
}

/// Whoever takes nothing, on as many streams as there may be: what waits to be written counts as what is worked on.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_written_on_all_streams_of_a_connection_is_bounded() {
    /// Answers that may be large and are not written; streams of a connection.
    const BOUND: usize = 16;
    let store = Arc::new(Slow::default());
    let shared: Arc<dyn MailboxStore> = Arc::<Slow>::clone(&store);
    let options = ServerOptions { stall_timeout: PATIENCE, ..local() };
    let relay = Relay::over(shared, Limits::default(), options, None).await;
    let mut owner = relay.client().await;
    let keys = owner.mailbox(&relay.access, MailboxKind::Log).await;
    // All that a stream asks for is as much as is written at once.
    stored(&owner.append(keys.id(), vec![1; 16 << 10]).await);
    let mut reader = deaf(relay.address, &relay.server.key()).await;
    let subject = Subject::Mailbox(keys.id(), Right::Read);
    assert_eq!(reader.prove(subject, &keys.read).await, ResponseBody::Done);
    let read = Read { mailbox: keys.id(), after: Seq::START, count: 1 };
    let mut streams = Vec::new();
    for _ in 1..BOUND {
        let (mut requests, answers) = within(reader.connection.open_bi()).await.unwrap();
        for id in 1..=4 {
            let frame = encode_frame(&Request { id, body: RequestBody::Read(read.clone()) }).unwrap();
            within(requests.write_all(&frame)).await.unwrap();
        }
        streams.push((requests, answers));
    }
    let all_at_work = async {
        while store.windows.load(Ordering::SeqCst) < BOUND {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within(all_at_work).await;
    // More would come at once, if it came.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(store.windows.load(Ordering::SeqCst), BOUND);
    assert_eq!(owner.window(keys.id(), 0).await.items.len(), 1, "others are served");
    reader.connection.close(0u32.into(), b"");
    relay.stop().await;
}
