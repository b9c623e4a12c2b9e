//! Frames out of a stream, bounded before they are read.

use lapwing_wire::{
    codec::DecodeError,
    frame::{Request, decode_request, frame_length},
    limits::{FRAME_PREFIX, MAX_FRAME},
};
use quinn::{ReadError, RecvStream};
use tokio::time::{Duration, Instant};

/// Largest piece that is taken from the transport at once.
const PIECE: usize = 64 << 10;
/// A buffer that is larger than this is given back when it is empty, so that idle connections stay small.
const KEPT: usize = 4 << 10;

/// Collects bytes of one stream; holds less than two frames.
pub(super) struct Frames {
    stream: RecvStream,
    buffer: Vec<u8>,
    taken: usize,
    is_ended: bool,
    /// Since when the rest of the frame that has begun is awaited.
    waits_since: Option<Instant>,
}

/// A frame that does not hold a request.
#[derive(Debug)]
pub(super) enum FrameError {
    /// FRM-01, or no request number can be read: the client is broken or hostile.
    Broken,
    /// The connection is gone.
    Gone,
}

/// One request, or the number of one that this relay does not know (FRM-03).
pub(super) struct Taken {
    pub(super) request: Result<Request, u64>,
    /// Bytes of the frame.
    pub(super) length: usize,
}

impl Frames {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), taken: 0, is_ended: false, waits_since: None }
    }

    /// Whether the client has finished its side.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// It was the relay that let the client wait.
    pub(super) fn waits_from_now(&mut self) {
        self.waits_since = None;
    }

    /// When a frame that has begun must be whole; bytes that trickle in move it no further.
    pub(super) fn deadline(&mut self, limit: Duration) -> Option<Instant> {
        if self.taken == self.buffer.len() {
            return None;
        }
        Some(*self.waits_since.get_or_insert_with(Instant::now) + limit)
    }

    /// Bytes of the next frame if all of it is here.
    pub(super) fn next_length(&self) -> Result<Option<usize>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((prefix, body)) = rest.split_first_chunk::<FRAME_PREFIX>() else { return Ok(None) };
        let length = frame_length(*prefix).map_err(|_| FrameError::Broken)?;
        Ok((body.len() >= length).then_some(length))
    }

    /// Bytes of the frame that has begun and is not here yet, if they are many: whoever waits for them needs room.
    pub(super) fn needs_room(&self) -> Option<u32> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let (prefix, _) = rest.split_first_chunk::<FRAME_PREFIX>()?;
        let length = frame_length(*prefix).ok().filter(|length| *length > KEPT)?;
        u32::try_from(length).ok()
    }

    /// Takes the next frame if all of it is here.
    pub(super) fn take(&mut self) -> Result<Option<Taken>, FrameError> {
        let Some(length) = self.next_length()? else { return Ok(None) };
        let start = self.taken + FRAME_PREFIX;
        let body = self.buffer.get(start..start + length).unwrap_or_default();
        let request = decode_request(body).map_err(|_: DecodeError| FrameError::Broken)?;
        self.taken = start + length;
        self.waits_since = None;
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        // Nobody keeps the room of a frame by the first byte of another. What is copied by that is less than what was taken.
        if self.buffer.capacity() > KEPT.max(2 * rest.len()) {
            self.buffer = rest.to_vec();
            self.taken = 0;
        } else if rest.is_empty() {
            self.taken = 0;
            self.buffer.clear();
        }
        Ok(Some(Taken { request, length }))
    }

    /// Waits for more bytes: as many as a large frame lacks that the stream has room for, and nothing behind it, else few.
    ///
    /// # Cancellation
    /// Safe: nothing is taken from the stream before it is in the buffer.
    pub(super) async fn fill(&mut self, has_room: bool) -> Result<(), FrameError> {
        let here = self.buffer.len() - self.taken;
        let room = match self.needs_room().filter(|_| has_room) {
            Some(length) => {
                let whole = usize::try_from(length).unwrap_or(MAX_FRAME) + FRAME_PREFIX;
                whole.saturating_sub(here).clamp(1, PIECE)
            }
            None => KEPT,
        };
        match self.stream.read_chunk(room, true).await {
            Ok(Some(chunk)) => {
                if self.taken > 0 {
                    self.buffer.drain(..self.taken);
                    self.taken = 0;
                }
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(())
            }
            Ok(None) => {
                self.is_ended = true;
                Ok(())
            }
            // A stream that the client resets ends like one that it finishes.
            Err(ReadError::Reset(_)) => {
                self.is_ended = true;
                self.buffer = Vec::new();
                self.taken = 0;
                Ok(())
            }
            Err(_) => Err(FrameError::Gone),
        }
    }
}
