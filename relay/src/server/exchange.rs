//! One stream: requests in, answers out, each stream one task.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapwing_wire::{
    frame::{Refusal, Request, RequestBody, Response, ResponseBody, encode_frame},
    limits::MAX_IN_FLIGHT,
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

/// What all streams of one connection share: requests that may be unanswered.
pub(super) fn budget() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_IN_FLIGHT))
}

/// An answer, and whether later requests of the stream waited for it.
struct Answered {
    response: Response,
    was_barrier: bool,
    _permit: OwnedSemaphorePermit,
}

/// Serves one stream until the client finishes it or the relay stops.
///
/// FRM-05: requests take effect in the order of the stream. FRM-02: answers come as they are ready, one each.
pub(super) async fn serve(
    mut answers: SendStream,
    stream: quinn::RecvStream,
    context: &Context,
    (connection, visit): (&ConnectionState, &Visit),
    budget: &Arc<Semaphore>,
) -> End {
    let mut frames = Frames::new(stream);
    let mut in_flight = FuturesUnordered::new();
    let mut out = Vec::new();
    // Set while a request that others depend on is not answered.
    let mut has_barrier = false;
    let mut is_stopping = false;
    loop {
        let mut waits_for_budget = None;
        while !has_barrier && !is_stopping {
            let length = match frames.next_length() {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(_) => return End::Broken,
            };
            let units = u32::try_from(1 + length / UNIT).unwrap_or(1);
            let Ok(permit) = Arc::clone(budget).try_acquire_many_owned(units) else {
                waits_for_budget = Some(units);
                break;
            };
            let taken = match frames.take() {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(_) => return End::Broken,
            };
            debug_assert_eq!(taken.length, length);
            let is_barrier = taken.request.as_ref().is_ok_and(|request| is_barrier(&request.body));
            has_barrier |= is_barrier;
            let answered = answer(context, (connection, visit), taken.request, is_barrier, permit);
            // The runtime's cooperative budget would let a later request overtake an earlier one at its first poll.
            in_flight.push(tokio::task::unconstrained(answered));
        }
        let is_idle = in_flight.is_empty();
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
        let wants_bytes = !has_barrier && !is_stopping && !frames.is_ended() && waits_for_budget.is_none();
        tokio::select! {
            // Answers first: they free memory.
            biased;
            Some(answered) = in_flight.next(), if !is_idle => {
                let mut next = Some(answered);
                while let Some(Answered { response, was_barrier, _permit }) = next {
                    if was_barrier {
                        has_barrier = false;
                    }
                    match encode_frame(&response) {
                        Ok(frame) => out.extend_from_slice(&frame),
                        Err(_) => return End::Broken,
                    }
                    next = if out.len() < WRITE_SIZE { in_flight.next().now_or_never().flatten() } else { None };
                }
                match within(context.stall_timeout, answers.write_all(&out)).await {
                    Some(Ok(())) => {}
                    Some(Err(_)) => return End::Gone,
                    None => return End::Stalled,
                }
                out.clear();
                if out.capacity() > WRITE_SIZE / 16 {
                    out = Vec::new();
                }
            }
            () = context.stop.cancelled(), if !is_stopping => is_stopping = true,
            // Woken when another stream of the connection gives back; taken again above.
            permit = budget.acquire_many(waits_for_budget.unwrap_or(1)), if waits_for_budget.is_some() => {
                drop(permit);
            }
            filled = fill(&mut frames, context.stall_timeout), if wants_bytes => match filled {
                Some(Ok(())) => {}
                Some(Err(FrameError::Broken)) => return End::Broken,
                Some(Err(FrameError::Gone)) => return End::Gone,
                None => return End::Stalled,
            },
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

async fn answer(
    context: &Context,
    (connection, visit): (&ConnectionState, &Visit),
    request: Result<Request, u64>,
    was_barrier: bool,
    permit: OwnedSemaphorePermit,
) -> Answered {
    visit.asks();
    let response = match request {
        // FRM-03
        Err(id) => Response { id, body: ResponseBody::Refused(Refusal::Unsupported) },
        Ok(Request { id, body }) => {
            let is_quiet =
                matches!(body, RequestBody::Token(_) | RequestBody::Trigger(_) | RequestBody::Anchor(_));
            let held_back = is_quiet.then(Instant::now);
            let body = context.service.handle(connection, body, context.clock.now()).await;
            visit.answered(connection);
            if let Some(begun) = held_back {
                hold_back(begun).await;
            }
            Response { id, body }
        }
    };
    Answered { response, was_barrier, _permit: permit }
}

/// TRP-08: waits for the next multiple of the step.
async fn hold_back(begun: Instant) {
    let step = TOKEN_ANSWER_STEP.as_micros().max(1);
    let steps = u32::try_from(begun.elapsed().as_micros() / step).unwrap_or(u32::MAX).saturating_add(1);
    tokio::time::sleep_until(begun + TOKEN_ANSWER_STEP.saturating_mul(steps)).await;
}

/// Waits for bytes; for ever between frames, bounded inside one.
async fn fill(frames: &mut Frames, stall_timeout: Duration) -> Option<Result<(), FrameError>> {
    match frames.deadline(stall_timeout) {
        Some(deadline) => tokio::time::timeout_at(deadline, frames.fill()).await.ok(),
        None => Some(frames.fill().await),
    }
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}
