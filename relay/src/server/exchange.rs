//! One stream: requests in, answers out, each stream one task.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapwing_wire::{
    frame::{Refusal, Request, RequestBody, Response, ResponseBody, encode_frame_onto},
    limits::{MAX_FRAME, MAX_IN_FLIGHT, MAX_WINDOW_BYTES},
};
use quinn::SendStream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    Context,
    crowd::Visit,
    frames::{FrameError, Frames},
    pool::Share,
};
use crate::service::{ConnectionState, TOKEN_ANSWER_STEP};

/// Bytes of requests that count as one request in flight: with `MAX_IN_FLIGHT` of them, 4 MiB a connection.
const UNIT: usize = 16 << 10;
/// Answers are written when they exceed this, else when no more are ready.
const WRITE_SIZE: usize = 64 << 10;

/// Why a stream ended its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The stream is done; the connection goes on.
    Finished,
    /// The client broke the protocol.
    Broken,
    /// The client does not read or does not finish what it began.
    Stalled,
    /// The connection is gone.
    Gone,
}

/// Answers with envelopes or parts of blobs that are worked on or wait to be written, 128 KiB each at most: 2 MiB a
/// connection. Further such requests wait.
const LARGE_ANSWERS: usize = 16;
/// Bytes of the largest of them, about.
const LARGE_ANSWER: usize = MAX_WINDOW_BYTES;

/// Bytes of frames that have begun and are not whole, on all streams of one connection: two of the largest. Streams on which
/// such a frame begins wait; those with small ones go on.
const BEGUN: usize = 2 * MAX_FRAME;

/// Between two tries of somebody who waits for room that all connections share: nobody is called, so that what is given back wakes no
/// crowd.
const AGAIN: Duration = Duration::from_millis(50);
/// Requests that somebody may have unanswered who has proved nothing: as many as one of the largest counts for.
const STRANGERS_REQUESTS: usize = 1 + MAX_FRAME / UNIT;
/// How long a request may wait for room that all connections share. People's programs wait twice as long.
const ROOM: Duration = Duration::from_secs(10);

/// What all streams of one connection share. Somebody who has proved nothing may begin as much as the largest frame, so that it is
/// refused in words.
pub(super) struct Budget {
    is_admitted: AtomicBool,
    /// When a request waited for room in vain.
    short: Mutex<Option<Instant>>,
    /// Requests that may be unanswered.
    requests: Arc<Semaphore>,
    /// Answers that may be large and are not written yet.
    answers: Arc<Semaphore>,
    /// Bytes of large frames that are not whole.
    begun: Arc<Semaphore>,
}

impl Budget {
    pub(super) fn new() -> Arc<Self> {
        let of = |permits| Arc::new(Semaphore::new(permits));
        let is_admitted = AtomicBool::new(false);
        Arc::new(Self {
            is_admitted,
            short: Mutex::default(),
            requests: of(STRANGERS_REQUESTS),
            answers: of(LARGE_ANSWERS),
            begun: of(MAX_FRAME),
        })
    }

    fn note_short(&self, now: Instant) {
        *self.short.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn was_short_at(&self, now: Instant) -> bool {
        let short = *self.short.lock().unwrap_or_else(PoisonError::into_inner);
        short.is_some_and(|then| now.saturating_duration_since(then) < ROOM)
    }

    /// The connection may have what others have that are no stranger's.
    pub(super) fn admit(&self) {
        if self.is_admitted.swap(true, Ordering::Relaxed) {
            return;
        }
        self.requests.add_permits(MAX_IN_FLIGHT - STRANGERS_REQUESTS);
        self.begun.add_permits(BEGUN - MAX_FRAME);
    }
}

/// Room for a large frame: the connection's own until it is whole, and everybody's until it is answered.
struct FrameRoom {
    _begun: OwnedSemaphorePermit,
    share: Share,
}

/// An answer, and whether later requests of the stream waited for it.
struct Answered {
    response: Response,
    was_barrier: bool,
    permits: Permits,
}

/// Given back when the answer is written.
struct Permits {
    _request: OwnedSemaphorePermit,
    _frame: Option<Share>,
    answer: Option<(OwnedSemaphorePermit, Share)>,
}

/// Serves one stream until the client finishes it or the relay stops.
///
/// FRM-05: requests take effect in the order of the stream. FRM-02: answers come as they are ready, one each.
pub(super) async fn serve(
    mut answers: SendStream,
    stream: quinn::RecvStream,
    context: &Context,
    (connection, visit): (&ConnectionState, &Visit),
    budget: &Budget,
) -> End {
    let mut in_flight = FuturesUnordered::new();
    let end = async {
        let mut frames = Frames::new(stream);
        let mut out = Vec::new();
        // Set while a request that others depend on is not answered.
        let mut has_barrier = false;
        let mut is_stopping = false;
        // Answers that became ready while others were written.
        let mut ready = VecDeque::new();
        // Held from the beginning of a large frame to its end.
        let mut room: Option<FrameRoom> = None;
        // Got for the next frame after waiting: given back and tried for again, it would go to who waits beside it, and so for ever.
        let mut got: Option<(u32, OwnedSemaphorePermit)> = None;
        loop {
            let mut waits_for_budget = None;
            while !has_barrier && !is_stopping {
                let length = match frames.next_length() {
                    Ok(Some(length)) => length,
                    Ok(None) => break,
                    Err(_) => return End::Broken,
                };
                let units = u32::try_from(1 + length / UNIT).unwrap_or(1);
                let permit = match got.take().filter(|(of, _)| *of == units) {
                    Some((_, permit)) => permit,
                    None => match Arc::clone(&budget.requests).try_acquire_many_owned(units) {
                        Ok(permit) => permit,
                        Err(_) => {
                            waits_for_budget = Some(units);
                            break;
                        }
                    },
                };
                let taken = match frames.take() {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(_) => return End::Broken,
                };
                debug_assert_eq!(taken.length, length);
                let share = room.take().map(|room| room.share);
                let is_barrier = taken.request.as_ref().is_ok_and(|request| is_barrier(&request.body));
                has_barrier |= is_barrier;
                let answered =
                    answer(context, (connection, visit), taken.request, is_barrier, (permit, share, budget));
                // FRM-05: the order of first polls is that of the changes, and no poll may end early for the runtime's budget.
                in_flight.push(tokio::task::unconstrained(answered));
            }
            let is_idle = in_flight.is_empty() && ready.is_empty();
            if is_idle && waits_for_budget.is_none() && (is_stopping || frames.is_ended()) {
                // What is half there at the end of a stream is nothing.
                if answers.finish().is_err() {
                    return End::Gone;
                }
                if is_stopping {
                    // Closing the connection would throw away what the client has not acknowledged.
                    within(context.stall_timeout, answers.stopped()).await;
                }
                return End::Finished;
            }
            // While nobody takes what another stream has answered, this one takes no more either. Its own answers wake it.
            let may_ask = is_idle || budget.answers.available_permits() > 0;
            if !may_ask {
                frames.waits_from_now();
            }
            let wants_bytes =
                may_ask && !has_barrier && !is_stopping && !frames.is_ended() && waits_for_budget.is_none();
            tokio::select! {
                // Answers first: they free memory.
                biased;
                Some(answered) = next_answer(&mut ready, &mut in_flight), if !is_idle => {
                    let mut next = Some(answered);
                    // A reader may take long for what was encoded, so it counts until it is written.
                    let mut unwritten = Vec::new();
                    while let Some(Answered { response, was_barrier, mut permits }) = next {
                        if was_barrier {
                            has_barrier = false;
                        }
                        let before = out.len();
                        if encode_frame_onto(&response, &mut out).is_err() {
                            return End::Broken;
                        }
                        if let Some((_, share)) = &mut permits.answer {
                            share.shrink(out.len() - before);
                        }
                        unwritten.push(permits);
                        let more = next_answer(&mut ready, &mut in_flight);
                        next = if out.len() < WRITE_SIZE { more.now_or_never().flatten() } else { None };
                    }
                    let writing = within(context.stall_timeout, answers.write_all(&out));
                    match beside(writing, &mut ready, &mut in_flight).await {
                        Some(Ok(())) => {}
                        Some(Err(_)) => return End::Gone,
                        None => return End::Stalled,
                    }
                    drop(unwritten);
                    frames.waits_from_now();
                    out.clear();
                    if out.capacity() > WRITE_SIZE / 16 {
                        out = Vec::new();
                    }
                }
                () = context.stop.cancelled(), if !is_stopping => is_stopping = true,
                permit = Arc::clone(&budget.requests).acquire_many_owned(waits_for_budget.unwrap_or(1)),
                    if waits_for_budget.is_some() =>
                {
                    got = waits_for_budget.zip(permit.ok());
                }
                // Nothing else would notice it.
                () = visit.closed(), if waits_for_budget.is_some() => return End::Gone,
                filled = fill(&mut frames, &mut room, (context, visit, budget)), if wants_bytes => match filled {
                    Some(Ok(())) => {}
                    Some(Err(FrameError::Broken)) => return End::Broken,
                    Some(Err(FrameError::Gone)) => return End::Gone,
                    None => return End::Stalled,
                },
            }
        }
    }
    .await;
    // What was begun is done, and told to whoever waits for it, although nobody is answered: somebody whose alert is on its
    // way to the disk may be taken now.
    while in_flight.next().await.is_some() {}
    end
}

/// The next answer of a stream. Cancellation-safe.
async fn next_answer<F: Future>(
    ready: &mut VecDeque<F::Output>,
    in_flight: &mut FuturesUnordered<F>,
) -> Option<F::Output> {
    match ready.pop_front() {
        Some(answered) => Some(answered),
        None => in_flight.next().await,
    }
}

/// Does something that may take long, and goes on with what is in flight: what is not polled keeps what it holds of the memory that all
/// share.
async fn beside<F: Future, T>(
    work: impl Future<Output = T>,
    ready: &mut VecDeque<F::Output>,
    in_flight: &mut FuturesUnordered<F>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(answered) = in_flight.next(), if !in_flight.is_empty() => ready.push_back(answered),
        }
    }
}

/// Whether what follows on the stream may depend on its effect.
fn is_barrier(body: &RequestBody) -> bool {
    match body {
        RequestBody::Append(_)
        | RequestBody::Read(_)
        | RequestBody::Ack(_)
        | RequestBody::BlobGet(_)
        | RequestBody::Lineage
        | RequestBody::Token(_) => false,
        RequestBody::Prove(_)
        | RequestBody::Create(_)
        | RequestBody::Close(_)
        | RequestBody::Subscribe(_)
        | RequestBody::Unsubscribe(_)
        | RequestBody::BlobPut(_)
        | RequestBody::Arm(_)
        | RequestBody::Trigger(_)
        | RequestBody::Anchor(_)
        | RequestBody::Disarm(_) => true,
    }
}

/// Whether the answer may have more than some bytes.
fn may_be_large(body: &RequestBody) -> bool {
    matches!(body, RequestBody::Read(_) | RequestBody::Subscribe(_) | RequestBody::BlobGet(_))
}

async fn answer(
    context: &Context,
    (connection, visit): (&ConnectionState, &Visit),
    request: Result<Request, u64>,
    was_barrier: bool,
    (permit, share, budget): (OwnedSemaphorePermit, Option<Share>, &Budget),
) -> Answered {
    visit.asks();
    // Who has proved nothing is only refused, but for a file whose name he knows.
    let is_large = request.as_ref().is_ok_and(|request| {
        may_be_large(&request.body) && (visit.is_known() || matches!(request.body, RequestBody::BlobGet(_)))
    });
    let room = if is_large { room_for_answer(context, visit, budget).await } else { None };
    let is_refused = is_large && room.is_none();
    let permits = Permits { _request: permit, _frame: share, answer: room };
    let response = match request {
        // FRM-03
        Err(id) => Response { id, body: ResponseBody::Refused(Refusal::Unsupported) },
        Ok(Request { id, .. }) if is_refused => {
            let body = ResponseBody::Refused(Refusal::Busy);
            context.counters.answered(&body);
            Response { id, body }
        }
        Ok(Request { id, body }) => {
            let is_quiet =
                matches!(body, RequestBody::Token(_) | RequestBody::Trigger(_) | RequestBody::Anchor(_));
            let (is_put, is_get) =
                (matches!(body, RequestBody::BlobPut(_)), matches!(body, RequestBody::BlobGet(_)));
            let held_back = is_quiet.then(Instant::now);
            let body = context.service.handle(connection, body, context.clock.now()).await;
            // Who knows the name of a file here was told by somebody who is no stranger.
            let is_moved = (is_put || is_get) && !matches!(body, ResponseBody::Refused(_));
            if visit.answered(connection) || (is_moved && visit.admit()) {
                budget.admit();
            }
            if is_moved {
                visit.moves_file(&context.windows, is_put);
            }
            context.counters.answered(&body);
            if let Some(begun) = held_back {
                hold_back(begun).await;
            }
            Response { id, body }
        }
    };
    Answered { response, was_barrier, permits }
}

/// Waits for others of this connection, and they are written first; then for others of this network, who may not be. `None` if that takes
/// too long.
async fn room_for_answer(
    context: &Context,
    visit: &Visit,
    budget: &Budget,
) -> Option<(OwnedSemaphorePermit, Share)> {
    // Never closed. Its own answers, which are written first: no sign of a shortage.
    let permit = within(ROOM, Arc::clone(&budget.answers).acquire_owned()).await?.ok()?;
    // One after the other would be more than anybody waits.
    let wait = if budget.was_short_at(Instant::now()) { Duration::ZERO } else { ROOM };
    let found = within(wait, share(context, visit, LARGE_ANSWER)).await;
    if found.is_none() && !wait.is_zero() {
        budget.note_short(Instant::now());
    }
    Some((permit, found??))
}

/// TRP-08: waits for the next multiple of the step.
async fn hold_back(begun: Instant) {
    let step = TOKEN_ANSWER_STEP.as_micros().max(1);
    let steps = u32::try_from(begun.elapsed().as_micros() / step).unwrap_or(u32::MAX).saturating_add(1);
    tokio::time::sleep_until(begun + TOKEN_ANSWER_STEP.saturating_mul(steps)).await;
}

/// Waits for bytes; for ever between frames, bounded inside one.
async fn fill(
    frames: &mut Frames,
    room: &mut Option<FrameRoom>,
    (context, visit, budget): (&Context, &Visit, &Budget),
) -> Option<Result<(), FrameError>> {
    if room.is_none()
        && let Some(bytes) = frames.needs_room()
    {
        let both = async {
            // Never closed.
            let begun = Arc::clone(&budget.begun).acquire_many_owned(bytes).await.ok()?;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            Some(FrameRoom { _begun: begun, share: share(context, visit, bytes).await? })
        };
        match within(context.stall_timeout, both).await? {
            Some(found) => *room = Some(found),
            None => return Some(Err(FrameError::Gone)),
        }
        frames.waits_from_now();
    }
    let deadline = frames.deadline(context.stall_timeout);
    let work = frames.fill(room.is_some());
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// Waits for everybody's room. Who has proved nothing shares little with others of that kind, until he proves something. `None` if the
/// client goes meanwhile.
async fn share(context: &Context, visit: &Visit, bytes: usize) -> Option<Share> {
    let mut again = tokio::time::interval(AGAIN);
    while !visit.is_over() {
        let pool = if visit.is_known() { &context.frames } else { &context.strangers };
        if let Some(share) = pool.try_take(visit.site(), bytes) {
            return Some(share);
        }
        again.tick().await;
    }
    None
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

#[cfg(test)]
mod shortage;

#[cfg(test)]
mod tests {
    use super::*;

    /// Else what waits for others would keep what it holds from everybody for as long as one client takes no answer.
    #[tokio::test]
    async fn what_is_in_flight_goes_on_while_an_answer_is_written() {
        let room = Arc::new(Semaphore::new(1));
        let first = room.acquire().await.unwrap();
        let change = |number| {
            let room = Arc::clone(&room);
            async move {
                drop(room.acquire().await.unwrap());
                number
            }
        };
        let (mut ready, mut in_flight): (VecDeque<u8>, _) = (VecDeque::new(), FuturesUnordered::new());
        in_flight.push(change(1));
        in_flight.push(change(2));
        assert!(next_answer(&mut ready, &mut in_flight).now_or_never().is_none(), "they wait for the room");
        drop(first);
        // Written when somebody else got the room.
        let written = tokio::time::timeout(Duration::from_secs(30), async {
            drop(room.acquire().await.unwrap());
            "written"
        });
        assert_eq!(beside(written, &mut ready, &mut in_flight).await, Ok("written"));
        let mut all = Vec::new();
        while let Some(number) = next_answer(&mut ready, &mut in_flight).await {
            all.push(number);
        }
        assert_eq!(all, [1, 2]);
    }
}
