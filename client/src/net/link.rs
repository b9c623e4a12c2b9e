//! One QUIC connection as a [`Link`]: a task that owns the connection, and handles that talk to it.
//!
//! ```text
//! request() ─ room ─ queue ─▶ write_requests ══ stream ══▶ relay
//!     ▲                                                     │
//!     └── waiting[number] ◀── read_answers ◀══ same stream ═╡
//! notice() ◀── buffer ◀────── read_notices ◀══ its own ═════╛
//! ```
//! Invariants: each request that was registered gets exactly one answer or error; every queue has a bound; the task
//! ends when its link is dropped.

use std::{
    collections::HashMap,
    future::pending,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lapwing_wire::{
    address::RelayKey,
    capability::ChannelBinding,
    codec,
    frame::{Notice, Request, RequestBody, Response, ResponseBody, encode_frame},
    limits::{MAX_FRAME, MAX_IN_FLIGHT},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use serde::{Deserialize, de::IgnoredAny};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    frames::FrameReader,
    transport::{Link, LinkError},
};

/// Bytes of requests that may be queued or unanswered: three and a half megabytes a second at 300 ms of round trip,
/// and a bound on what a stalled relay makes the client hold. Further requests wait.
const IN_FLIGHT_BYTES: u32 = 1 << 20;

/// What the smallest request takes of that room, so that no more than `MAX_IN_FLIGHT` share it: the relay stops
/// reading there anyway.
const LEAST_SHARE: usize = IN_FLIGHT_BYTES as usize / MAX_IN_FLIGHT;

/// What must be taken by a relay before it counts as stalled: little enough for a line of a kilobyte a second.
const PIECE: usize = 16 << 10;

/// Notices held for the engine: a few windows. Then the relay has to wait.
const NOTICE_BUFFER: usize = 8;

/// How long a closed link may go on to send what waits and to take answers: a few round trips of a bad network.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// How long the goodbye may take to leave; without it the relay notices by its idle timeout.
const GOODBYE_WAIT: Duration = Duration::from_millis(50);

/// How often is looked whether it has left. QUIC does not say so itself, and waiting until the connection is forgotten
/// would cost a command some round trips.
const GOODBYE_LOOK: Duration = Duration::from_millis(1);

/// A connection that works. Dropping it ends the connection and its task.
pub(super) struct QuicLink {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Queued>,
    /// A lock that is held while waiting: receivers take turns, and each waits for the same thing.
    notices: tokio::sync::Mutex<mpsc::Receiver<Notice>>,
    binding: ChannelBinding,
    heir: Option<RelayKey>,
    request_timeout: Duration,
    _task: AbortOnDropHandle<()>,
}

/// A frame on its way to the writer, with its share of the room.
struct Queued {
    frame: Vec<u8>,
    _share: Arc<OwnedSemaphorePermit>,
}

struct Shared {
    /// The number of the next request.
    next: AtomicU64,
    state: Mutex<State>,
    room: Arc<Semaphore>,
    /// Somebody wants the link closed.
    closing: CancellationToken,
    /// An answer came or is not awaited any more.
    answered: Notify,
    /// The task has ended.
    done: CancellationToken,
}

enum State {
    Open(HashMap<u64, oneshot::Sender<Result<ResponseBody, LinkError>>>),
    Ended(LinkError),
}

impl QuicLink {
    /// A link over an established connection; must be called inside a tokio runtime.
    pub(super) fn new(
        (endpoint, connection, streams): (Endpoint, Connection, (SendStream, RecvStream)),
        binding: ChannelBinding,
        heir: Option<RelayKey>,
        request_timeout: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            next: AtomicU64::new(1),
            state: Mutex::new(State::Open(HashMap::new())),
            room: Arc::new(Semaphore::new(IN_FLIGHT_BYTES as usize)),
            closing: CancellationToken::new(),
            answered: Notify::new(),
            done: CancellationToken::new(),
        });
        let (queue, queued) = mpsc::channel(MAX_IN_FLIGHT);
        let (notice_sender, notices) = mpsc::channel(NOTICE_BUFFER);
        let ends = Ends { endpoint, connection, streams };
        let task = tokio::spawn(drive(ends, queued, notice_sender, Arc::clone(&shared), request_timeout));
        Self {
            shared,
            queue,
            notices: tokio::sync::Mutex::new(notices),
            binding,
            heir,
            request_timeout,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn exchange(
        &self,
        id: u64,
        frame: Vec<u8>,
        share: OwnedSemaphorePermit,
    ) -> Result<ResponseBody, LinkError> {
        let share = Arc::new(share);
        let mut waiting = Waiting::register(&self.shared, id)?;
        let queued = Queued { frame, _share: Arc::clone(&share) };
        self.queue.send(queued).await.map_err(|_| self.shared.cause())?;
        match (&mut waiting.answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.shared.cause()),
        }
    }
}

#[async_trait]
impl Link for QuicLink {
    fn binding(&self) -> ChannelBinding {
        self.binding
    }

    fn heir(&self) -> Option<RelayKey> {
        self.heir
    }

    async fn request(&self, body: RequestBody) -> Result<ResponseBody, LinkError> {
        if self.shared.closing.is_cancelled() {
            return Err(self.shared.cause());
        }
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let frame = encode_frame(&Request { id, body }).map_err(|_| LinkError::TooLarge)?;
        let share = u32::try_from(frame.len().max(LEAST_SHARE)).map_err(|_| LinkError::TooLarge)?;
        // Waiting for room is not counted against the relay: each request in front has its own bound.
        let share =
            Arc::clone(&self.shared.room).acquire_many_owned(share).await.map_err(|_| self.shared.cause())?;
        timeout(self.request_timeout, self.exchange(id, frame, share))
            .await
            .unwrap_or(Err(LinkError::Timeout))
    }

    async fn notice(&self) -> Result<Notice, LinkError> {
        let notice = self.notices.lock().await.recv().await;
        notice.ok_or_else(|| self.shared.cause())
    }

    fn close(&self) {
        self.shared.closing.cancel();
    }

    async fn closed(&self) {
        self.shared.done.cancelled().await;
    }
}

impl Shared {
    /// The state outlives a panic of another holder: it is whole between any two statements that change it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cause(&self) -> LinkError {
        match &*self.state() {
            State::Open(_) => LinkError::Closed,
            State::Ended(cause) => *cause,
        }
    }

    fn end(&self, cause: LinkError) {
        let before = mem::replace(&mut *self.state(), State::Ended(cause));
        self.room.close();
        if let State::Open(waiting) = before {
            for (_, answer) in waiting {
                // Whoever gave up meanwhile does not mind.
                let _ = answer.send(Err(cause));
            }
        }
        self.answered.notify_waiters();
    }

    /// Hands an answer to who waits for it.
    ///
    /// # Errors
    /// [`LinkError::Malformed`] for the number of a request that was never sent. A number whose answer nobody awaits
    /// any more is in order: its request was given up.
    fn deliver(&self, id: u64, answer: Result<ResponseBody, LinkError>) -> Result<(), LinkError> {
        if id == 0 || id >= self.next.load(Ordering::Relaxed) {
            return Err(LinkError::Malformed);
        }
        let waiting = match &mut *self.state() {
            State::Open(waiting) => waiting.remove(&id),
            State::Ended(_) => None,
        };
        if let Some(sender) = waiting {
            let _ = sender.send(answer);
        }
        self.answered.notify_waiters();
        Ok(())
    }

    async fn all_answered(&self) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            // Registered before the look, so that an answer in between is not missed.
            answered.as_mut().enable();
            match &*self.state() {
                State::Open(waiting) if !waiting.is_empty() => {}
                State::Open(_) | State::Ended(_) => return,
            }
            answered.await;
        }
    }
}

/// A place among those who wait for an answer; dropping it gives the place up.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
    answer: oneshot::Receiver<Result<ResponseBody, LinkError>>,
}

impl<'a> Waiting<'a> {
    fn register(shared: &'a Shared, id: u64) -> Result<Self, LinkError> {
        let (sender, answer) = oneshot::channel();
        match &mut *shared.state() {
            State::Open(waiting) => waiting.insert(id, sender),
            State::Ended(cause) => return Err(*cause),
        };
        Ok(Self { shared, id, answer })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let State::Open(waiting) = &mut *self.shared.state() {
            waiting.remove(&self.id);
        }
        self.shared.answered.notify_waiters();
    }
}

/// What QUIC gave for the link.
struct Ends {
    endpoint: Endpoint,
    connection: Connection,
    streams: (SendStream, RecvStream),
}

/// The link's task: whichever half ends first ends the connection.
async fn drive(
    ends: Ends,
    queue: mpsc::Receiver<Queued>,
    notices: mpsc::Sender<Notice>,
    shared: Arc<Shared>,
    stall: Duration,
) {
    let Ends { endpoint, connection, streams: (send, recv) } = ends;
    let _done = shared.done.clone().drop_guard();
    let cause = tokio::select! {
        cause = read_answers(FrameReader::new(recv), &shared) => cause,
        cause = read_notices(&connection, &notices) => cause,
        cause = write_requests(send, queue, &shared, stall) => cause,
        cause = give_up_closing(&shared) => cause,
    };
    shared.end(cause);
    // Only now: who waits for a notice must find the cause.
    drop(notices);
    // An elapsed wait means a goodbye that is lost, as any packet may be.
    let _ = timeout(GOODBYE_WAIT, say_goodbye(&connection)).await;
    drop(connection);
    drop(endpoint);
}

/// Closes the connection and waits until a packet has left after that.
async fn say_goodbye(connection: &Connection) {
    let sent = || connection.stats().udp_tx.datagrams;
    let before = sent();
    connection.close(VarInt::from_u32(0), b"");
    while sent() == before {
        sleep(GOODBYE_LOOK).await;
    }
    // Counted when it was built; the socket gets it in the same breath of QUIC's own task.
    sleep(GOODBYE_LOOK).await;
}

/// Writes what is queued, everything at once that is there; after `close` the rest, and returns once it is answered.
///
/// A relay that takes nothing for as long as a request may last ends the link: it would keep the room for itself, and
/// with it everybody who waits for some.
async fn write_requests(
    mut stream: SendStream,
    mut queue: mpsc::Receiver<Queued>,
    shared: &Shared,
    stall: Duration,
) -> LinkError {
    let mut batch = Vec::with_capacity(MAX_IN_FLIGHT);
    let mut bytes = Vec::new();
    loop {
        // Biased: requests before the wish to close, which then lets the queue run dry.
        tokio::select! {
            biased;
            count = queue.recv_many(&mut batch, MAX_IN_FLIGHT) => if count == 0 { break },
            () = shared.closing.cancelled(), if !queue.is_closed() => queue.close(),
        }
        for Queued { frame, _share } in &batch {
            bytes.extend_from_slice(frame);
        }
        for piece in bytes.chunks(PIECE) {
            match timeout(stall, stream.write_all(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return LinkError::Closed,
                Err(_) => return LinkError::Timeout,
            }
        }
        batch.clear();
        bytes.clear();
        bytes.shrink_to(LEAST_SHARE);
    }
    // Both fail only where the relay has ended the stream or the connection: then the reader knows.
    let _ = stream.finish();
    let _ = stream.stopped().await;
    shared.all_answered().await;
    LinkError::Closed
}

async fn give_up_closing(shared: &Shared) -> LinkError {
    shared.closing.cancelled().await;
    sleep(CLOSE_WAIT).await;
    LinkError::Closed
}

/// The number of an answer whose body is of a kind that this version does not know.
#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

async fn read_answers(mut frames: FrameReader, shared: &Shared) -> LinkError {
    loop {
        let frame = match frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return LinkError::Closed,
            Err(cause) => return cause,
        };
        let delivered = match codec::decode::<Response>(frame, MAX_FRAME) {
            Ok(Response { id, body }) => shared.deliver(id, Ok(body)),
            Err(_) => match codec::decode::<Numbered>(frame, MAX_FRAME) {
                Ok(Numbered { id }) => shared.deliver(id, Err(LinkError::Malformed)),
                Err(_) => Err(LinkError::Malformed),
            },
        };
        if let Err(cause) = delivered {
            return cause;
        }
    }
}

async fn read_notices(connection: &Connection, notices: &mpsc::Sender<Notice>) -> LinkError {
    loop {
        // The transport allows one such stream at a time, so a relay cannot pile them up.
        let Ok(stream) = connection.accept_uni().await else { return LinkError::Closed };
        let mut frames = FrameReader::new(stream);
        loop {
            let frame = match frames.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(cause) => return cause,
            };
            match codec::decode::<Notice>(frame, MAX_FRAME) {
                // Waits while the buffer is full; the stream's window then stops the relay.
                Ok(notice) => {
                    if notices.send(notice).await.is_err() {
                        // The receiver goes with the link, and with it this task.
                        return pending().await;
                    }
                }
                Err(_) if is_of_another_kind(frame) => {}
                Err(_) => return LinkError::Malformed,
            }
        }
    }
}

/// Whether a notice that cannot be read is of a kind of a later version: those are ignored, as `docs/protocol.md`
/// says of unknown kinds.
fn is_of_another_kind(frame: &[u8]) -> bool {
    match codec::decode::<HashMap<String, IgnoredAny>>(frame, MAX_FRAME) {
        Ok(map) => map.len() == 1 && !map.contains_key("window"),
        Err(_) => codec::decode::<String>(frame, MAX_FRAME).is_ok_and(|kind| kind != "window"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_later_versions_are_told_from_damage() {
        assert!(is_of_another_kind(&codec::encode(&HashMap::from([("tide", 5)]))));
        assert!(is_of_another_kind(&codec::encode(&"farewell")));
        assert!(!is_of_another_kind(&codec::encode(&HashMap::from([("window", 5)]))));
        assert!(!is_of_another_kind(&codec::encode(&7)));
        assert!(!is_of_another_kind(&[0xff, 0x00]));
    }

    #[test]
    fn the_smallest_requests_fill_the_room_at_the_relays_own_bound() {
        assert_eq!(LEAST_SHARE * MAX_IN_FLIGHT, IN_FLIGHT_BYTES as usize);
        assert!(MAX_FRAME + lapwing_wire::limits::FRAME_PREFIX <= IN_FLIGHT_BYTES as usize);
    }
}
