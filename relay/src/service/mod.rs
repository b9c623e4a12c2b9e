//! What a relay does with each request, whatever carried it.
//!
//! A transport makes one [`ConnectionState`] per connection, hands each request to [`Service::handle`] and sends what
//! [`Service::next_notice`] yields. Time and randomness are arguments, so that a simulation can drive a relay.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use lapwing_relay::{limits::Limits, service::Service, store::memory::MemoryStore};
//! use lapwing_wire::{capability::{ChannelBinding, SecretKey}, frame::*, time::Timestamp};
//!
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let limits = Limits { open_creation: true, ..Limits::default() };
//! let mut rng = rand::rng();
//! let service = Service::start(Arc::new(MemoryStore::new()), limits, &mut rng, now).await.unwrap();
//! let binding = ChannelBinding::from_bytes([1; 32]);
//! let connection = service.connect(binding);
//! let (admin, read, write) = (SecretKey::generate(&mut rng), SecretKey::generate(&mut rng), SecretKey::generate(&mut rng));
//! let create = Create::signed(&admin, read.public(), write.public(), MailboxKind::Queue, None, &binding);
//! let answer = service.handle(&connection, RequestBody::Create(create), now).await;
//! assert_eq!(answer, ResponseBody::Done);
//! # });
//! ```

mod anchor;
mod connection;
mod inbox;
mod proof;
mod topics;
mod tripwire;

use std::{
    sync::{
        Arc, Mutex, Once, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lapwing_wire::{
    capability::{Access, ChannelBinding, PublicKey, Right},
    frame::{
        Ack, Append, BlobGet, BlobPut, Close, Create, Disarm, Notice, PresentToken, Read, Refusal,
        RequestBody, ResponseBody, Window,
    },
    ids::{EnvelopeId, MailboxId},
    limits::{MAX_BLOB, MAX_BLOB_PART, MAX_SELECTIVE, MAX_WINDOW, MAX_WINDOW_BYTES, MIN_BLOB_PART},
    padding::SizeClass,
    succession::Succession,
    time::Timestamp,
};
use rand::{SeedableRng, rngs::StdRng};
use rand_core::{CryptoRng, RngCore};

use crate::{
    limits::Limits,
    store::{
        Born, Change, Charge, Day, MailboxKeys, MailboxStore, Mutation, Outcome, StoreError, Ticket, Totals,
        WindowQuery,
    },
};

pub use connection::ConnectionState;
use inbox::Next;
use topics::Topics;

/// A relay without a network.
pub struct Service {
    store: Arc<dyn MailboxStore>,
    limits: RwLock<Arc<Limits>>,
    day: AtomicU32,
    rng: Mutex<StdRng>,
    topics: Arc<Topics>,
    lineage: RwLock<Arc<Vec<Succession>>>,
}

impl Service {
    /// A relay over a store. Looks at the clock once, for the age of what comes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start(
        store: Arc<dyn MailboxStore>,
        limits: Limits,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let service = Self {
            store,
            limits: RwLock::new(Arc::new(limits)),
            day: AtomicU32::new(0),
            rng: Mutex::new(StdRng::from_rng(rng)),
            topics: Arc::new(Topics::new()),
            lineage: RwLock::default(),
        };
        service.tick(now).await?;
        Ok(service)
    }

    /// The state of a new connection. Dropping it ends its subscriptions.
    pub fn connect(&self, binding: ChannelBinding) -> ConnectionState {
        ConnectionState::new(binding, Arc::clone(&self.topics))
    }

    /// Answers one request. What it changes is on disk when it returns.
    ///
    /// # Cancellation
    /// A dropped call may have taken effect or not; a retry finds out.
    pub async fn handle(
        &self,
        connection: &ConnectionState,
        body: RequestBody,
        now: Timestamp,
    ) -> ResponseBody {
        let answer = match body {
            RequestBody::Prove(prove) => self.prove(connection, &prove, now).await,
            RequestBody::Create(create) => self.create(connection, &create, now).await,
            RequestBody::Close(close) => self.close(connection, &close, now).await,
            RequestBody::Append(append) => self.append(connection, append, now).await,
            RequestBody::Read(read) => self.read(connection, &read).await,
            RequestBody::Subscribe(read) => self.subscribe(connection, &read).await,
            RequestBody::Unsubscribe(Close { mailbox }) => {
                connection.unsubscribe(&mailbox);
                Ok(ResponseBody::Done)
            }
            RequestBody::Ack(ack) => self.ack(connection, ack, now).await,
            RequestBody::BlobPut(put) => self.blob_put(connection, put, now).await,
            RequestBody::BlobGet(get) => self.blob_get(&get).await,
            RequestBody::Arm(arm) => self.arm(connection, arm, now).await,
            RequestBody::Disarm(Disarm { owner }) => self.disarm(connection, owner, now).await,
            RequestBody::Lineage => Ok(ResponseBody::Lineage(self.lineage().to_vec())),
            RequestBody::Token(PresentToken { token }) => {
                let filler = self.filler();
                self.present(Mutation::Token { token, filler }, now).await
            }
            RequestBody::Trigger(raise) => self.trigger(connection, raise, now).await,
            RequestBody::Anchor(request) => self.anchor(connection, request, now).await,
        };
        answer.unwrap_or_else(ResponseBody::Refused)
    }

    /// Waits for the next notice of a connection. One caller at a time per connection.
    ///
    /// # Cancellation
    /// Safe: a notice whose reading was dropped is read again.
    pub async fn next_notice(&self, connection: &ConnectionState) -> Notice {
        loop {
            if let Some(notice) = self.due_notice(connection).await {
                return notice;
            }
            connection.inbox().woken().await;
        }
    }

    /// The next notice of a connection if one is due now.
    pub async fn due_notice(&self, connection: &ConnectionState) -> Option<Notice> {
        while let Some(next) = connection.inbox().next() {
            let due = match next {
                Next::Window(window) => return Some(Notice::Window(window)),
                Next::Read(due) => due,
            };
            let query = window_query(due.mailbox, due.born, due.cursor, MAX_WINDOW);
            // A store that cannot be read now is asked again at the next append or subscription.
            let window = self.store.window(query).await.map_err(unread).ok().flatten();
            if let Some(window) = connection.inbox().delivered(&due, window) {
                return Some(Notice::Window(window));
            }
        }
        None
    }

    /// Deletes what is too old. To be called about hourly; a call after a long time moves the retention clock by two
    /// days at most.
    ///
    /// # Errors
    /// [`StoreError`]; what was deleted stays deleted.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let day = self.tick(now).await?;
        let limits = self.limits();
        let keep_from = day.minus(limits.retention);
        let blobs_from = day.minus(limits.blob_retention);
        let unfinished_from = day.minus(limits.unfinished_blob_retention);
        let mut from = None;
        loop {
            let step = Mutation::Sweep { from, keep_from, blobs_from, unfinished_from };
            match self.apply(step, now).await? {
                Outcome::Swept { next: Some(next), .. } => from = Some(next),
                _ => return Ok(()),
            }
        }
    }

    /// Forgets what retries need no more of what was taken or closed. To be called about once a minute: it bounds what is left by who
    /// appends and takes again and again.
    ///
    /// # Errors
    /// [`StoreError`]; the rest is forgotten with the next call.
    pub async fn forget(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            match self.apply(Mutation::Forget { from }, now).await? {
                Outcome::Swept { next: Some(next), .. } => from = Some(next),
                _ => return Ok(()),
            }
        }
    }

    /// TRP-10: says how long the relay has been running since the last call, by a clock that nobody sets. To be called a
    /// few times a minute; what is more than a minute counts as one.
    ///
    /// # Errors
    /// [`StoreError`]; what had come is done with the next call.
    pub async fn watch(&self, mut elapsed: Duration, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let change = Mutation::Watch { elapsed, filler: self.filler() };
            let Outcome::Watched { appended, has_more, .. } = self.apply(change, now).await? else {
                return Err(StoreError::Damaged);
            };
            self.publish(&appended);
            if !has_more {
                return Ok(());
            }
            elapsed = Duration::ZERO;
        }
    }

    /// Adds an access ticket.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn issue_access(&self, ticket: Ticket, now: Timestamp) -> Result<(), StoreError> {
        self.apply(Mutation::IssueTicket(ticket), now).await.map(|_| ())
    }

    /// Ends an access ticket; `false` if there is none with this key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_access(&self, key: PublicKey<Access>, now: Timestamp) -> Result<bool, StoreError> {
        Ok(matches!(self.apply(Mutation::RevokeTicket(key), now).await?, Outcome::Done))
    }

    /// All access tickets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn access_tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        self.store.tickets().await
    }

    /// Sums for the operator.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        self.store.totals(now).await
    }

    /// The bounds in force.
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other bounds in force for all that comes.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// All changes of the relay's key.
    pub fn lineage(&self) -> Arc<Vec<Succession>> {
        Arc::clone(&self.lineage.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers from now on with these changes of the relay's key.
    pub fn set_lineage(&self, lineage: Vec<Succession>) {
        *self.lineage.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lineage);
    }

    /// Finishes what was begun and closes the store.
    pub async fn shutdown(&self) {
        self.store.close().await;
    }

    async fn create(
        &self,
        connection: &ConnectionState,
        create: &Create,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        // CAP-04
        if !create.is_authentic(connection.binding()) {
            return Err(Refusal::NotAllowed);
        }
        let charge = self.charge(connection, create.access)?;
        let Create { admin, read, write, kind, access: _, signature: _ } = *create;
        let born = Born::new(self.rng().next_u64());
        let keys = MailboxKeys { admin, read, write };
        self.change(Mutation::Create { keys, kind, charge, born }, now).await
    }

    async fn close(
        &self,
        connection: &ConnectionState,
        close: &Close,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        let mailbox = close.mailbox;
        let born = connection.proven(&mailbox, Right::Admin).ok_or(Refusal::NotAllowed)?;
        self.change(Mutation::Close { mailbox, born }, now).await
    }

    async fn append(
        &self,
        connection: &ConnectionState,
        append: Append,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        let Append { mailbox, envelope } = append;
        let limits = self.limits();
        let (born, reserve) = if let Some(born) = connection.proven(&mailbox, Right::Admin) {
            (born, limits.admin_reserve_bytes)
        } else {
            (connection.proven(&mailbox, Right::Write).ok_or(Refusal::NotAllowed)?, 0)
        };
        let limit = limits.mailbox_bytes;
        // ENV-02
        if SizeClass::of_sealed(envelope.len()).is_none() {
            return Err(Refusal::TooLarge);
        }
        let envelope = Arc::new(envelope.into_vec());
        let id = EnvelopeId::of(&envelope);
        let stored = Arc::clone(&envelope);
        let mutation = Mutation::Append { mailbox, born, id, envelope: stored, limit, reserve };
        match self.apply(mutation, now).await.map_err(busy)? {
            Outcome::Stored { place, is_new } => {
                if is_new {
                    self.topics.hand_over(&mailbox, born, place, &envelope);
                } else {
                    // Whoever sent it first may have gone before it was told of.
                    self.topics.publish(&mailbox);
                }
                Ok(ResponseBody::Stored(place))
            }
            Outcome::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::Busy),
        }
    }

    async fn read(&self, connection: &ConnectionState, read: &Read) -> Result<ResponseBody, Refusal> {
        let born = connection.proven(&read.mailbox, Right::Read).ok_or(Refusal::NotAllowed)?;
        self.window(read, born).await.map(ResponseBody::Window)
    }

    async fn window(&self, read: &Read, born: Born) -> Result<Window, Refusal> {
        let query = window_query(read.mailbox, born, read.after, usize::from(read.count).min(MAX_WINDOW));
        self.store.window(query).await.map_err(unread)?.ok_or(Refusal::NotAllowed)
    }

    async fn subscribe(&self, connection: &ConnectionState, read: &Read) -> Result<ResponseBody, Refusal> {
        let born = connection.proven(&read.mailbox, Right::Read).ok_or(Refusal::NotAllowed)?;
        // Before reading, so that nothing between reading and subscribing is missed.
        let limit = self.limits().subscriptions_per_connection;
        let begun = connection.begin_subscription(read.mailbox, born, read.after, limit);
        let begun = begun.ok_or(Refusal::Busy)?;
        // Of the same life as the subscription, whatever another stream proves meanwhile.
        let window = self.window(read, born).await;
        match &window {
            Ok(window) => connection.inbox().start(&begun, window, read.after),
            Err(_) => connection.give_up(&read.mailbox, &begun),
        }
        window.map(ResponseBody::Window)
    }

    async fn ack(
        &self,
        connection: &ConnectionState,
        ack: Ack,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        let Ack { mailbox, upto, also } = ack;
        let born = connection.proven(&mailbox, Right::Read).ok_or(Refusal::NotAllowed)?;
        if also.len() > MAX_SELECTIVE {
            return Err(Refusal::TooLarge);
        }
        self.change(Mutation::Ack { mailbox, born, upto, also }, now).await
    }

    async fn blob_put(
        &self,
        connection: &ConnectionState,
        put: BlobPut,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        let BlobPut { hash, total, offset, bytes, access } = put;
        let charge = self.charge(connection, access)?;
        let length = u64::try_from(bytes.len()).map_err(|_| Refusal::TooLarge)?;
        let is_last = offset.saturating_add(length) >= total;
        if total > self.limits().blob_bytes.min(MAX_BLOB)
            || bytes.len() > MAX_BLOB_PART
            || (bytes.len() < MIN_BLOB_PART && !is_last)
        {
            return Err(Refusal::TooLarge);
        }
        let limit = self.limits().ticket_blob_bytes;
        let put = Mutation::BlobPut { hash, total, offset, bytes: bytes.into_vec(), charge, limit };
        match self.apply(put, now).await.map_err(busy)? {
            Outcome::Blob { stored, complete: false } if stored == total => {
                let found = self.store.blob_digest(hash).await.map_err(unread)?;
                let genuine = found == Some(hash);
                self.change(Mutation::BlobFinish { hash, genuine }, now).await
            }
            Outcome::Blob { stored, complete: _ } => Ok(ResponseBody::BlobProgress(stored)),
            Outcome::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::Busy),
        }
    }

    async fn blob_get(&self, get: &BlobGet) -> Result<ResponseBody, Refusal> {
        let part = self.store.blob_part(get.hash, get.offset).await.map_err(unread)?;
        part.map(ResponseBody::BlobPart).ok_or(Refusal::NotAllowed)
    }

    fn charge(
        &self,
        connection: &ConnectionState,
        access: Option<PublicKey<Access>>,
    ) -> Result<Charge, Refusal> {
        match access {
            Some(key) if connection.has_access(&key) => Ok(Charge::Ticket(key)),
            None if self.limits().open_creation => Ok(Charge::Open),
            _ => Err(Refusal::NoAccess),
        }
    }

    async fn change(&self, mutation: Mutation, now: Timestamp) -> Result<ResponseBody, Refusal> {
        match self.apply(mutation, now).await.map_err(busy)? {
            Outcome::Done | Outcome::Withdrawn(_) => Ok(ResponseBody::Done),
            Outcome::Blob { stored, complete: _ } => Ok(ResponseBody::BlobProgress(stored)),
            Outcome::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::Busy),
        }
    }

    async fn apply(&self, mutation: Mutation, now: Timestamp) -> Result<Outcome, StoreError> {
        let day = Day::new(self.day.load(Ordering::Relaxed));
        let outcome = self.store.apply(Change { mutation, now, day }).await;
        // It may have been done all the same.
        let outcome = outcome.inspect_err(|_| self.topics.recall())?;
        // Here and nowhere else, so that no way to take or destroy something is forgotten; before anybody is answered.
        for withdrawn in outcome.withdrawn() {
            self.topics.withdraw(withdrawn);
        }
        Ok(outcome)
    }

    async fn tick(&self, now: Timestamp) -> Result<Day, StoreError> {
        match self.apply(Mutation::Tick, now).await? {
            Outcome::Day(day) => {
                self.day.store(day.value(), Ordering::Relaxed);
                Ok(day)
            }
            _ => Err(StoreError::Damaged),
        }
    }

    fn publish(&self, appended: &[MailboxId]) {
        for mailbox in appended {
            self.topics.publish(mailbox);
        }
    }

    fn filler(&self) -> [u8; 32] {
        let mut filler = [0; 32];
        self.rng().fill_bytes(&mut filler);
        filler
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service(..)")
    }
}

fn window_query(
    mailbox: MailboxId,
    born: Born,
    after: lapwing_wire::frame::Seq,
    count: usize,
) -> WindowQuery {
    WindowQuery { mailbox, born, after, count, bytes: MAX_WINDOW_BYTES }
}

/// A change that the store did not make: to a client it is a relay that takes nothing now. Why a disk refuses is told where it does.
fn busy(error: StoreError) -> Refusal {
    if error == StoreError::Damaged {
        tell_unreadable();
    }
    Refusal::Busy
}

/// The same of a question that the store could not answer.
fn unread(error: StoreError) -> Refusal {
    // A disk that is full is told where it is noticed; a store that closes is no failure.
    if matches!(error, StoreError::Disk | StoreError::Damaged) {
        tell_unreadable();
    }
    Refusal::Busy
}

/// Once: whoever asks for what the disk cannot read asks for it again and again.
fn tell_unreadable() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| tracing::error!("something that is stored cannot be read; told once"));
}

/// Used by the transport: how long the answer to a token is held back at least, counted from the request.
///
/// TRP-08: running a long list takes some milliseconds more than running none; held back to a multiple of this, the
/// answer's time tells no more than its bytes.
pub const TOKEN_ANSWER_STEP: Duration = Duration::from_millis(25);
