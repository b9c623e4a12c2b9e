//! A relay that has changed its key says so, and is followed if the old key vouches for the new one.
//!
//! ```text
//! client                                   relay (shows a key that is not the pinned one)
//!   one stream: the request `lineage` ──▶
//!                                     ◀── every change of its key, signed by the key before (SUC-01)
//! ```
//! Invariant: the request says nothing but that somebody uses this protocol, and it is all that is said before signatures
//! lead from the pinned key to the one that was shown.

use std::time::Duration;

use lapwing_wire::{
    address::RelayKey,
    codec,
    frame::{Request, RequestBody, Response, ResponseBody, encode_frame},
    limits::MAX_FRAME,
    succession,
};
use quinn::Connection;
use tokio::time::timeout;

use super::frames::FrameReader;

/// How long a relay may take to answer. A whole connect has five seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// The number of the only request.
const ID: u64 = 1;

/// Whether the relay at the other end may show this key where another one is pinned.
pub(super) async fn is_heir(connection: &Connection, pinned: &RelayKey, shown: &RelayKey) -> bool {
    match timeout(PATIENCE, ask(connection)).await {
        Ok(Some(lineage)) => succession::leads(&lineage, pinned, shown),
        _ => false,
    }
}

async fn ask(connection: &Connection) -> Option<Vec<succession::Succession>> {
    let (mut requests, answers) = connection.open_bi().await.ok()?;
    let frame = encode_frame(&Request { id: ID, body: RequestBody::Lineage }).ok()?;
    requests.write_all(&frame).await.ok()?;
    requests.finish().ok()?;
    let mut frames = FrameReader::new(answers);
    let frame = frames.next().await.ok()??;
    match codec::decode::<Response>(frame, MAX_FRAME).ok()? {
        Response { id: ID, body: ResponseBody::Lineage(lineage) } => Some(lineage),
        _ => None,
    }
}
