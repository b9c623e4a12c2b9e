//! Frames out of a QUIC stream: FRM-01, a longer claim than allowed is an error before a byte of it is read.

use std::ops::Range;

use lapwing_wire::{frame::frame_length, limits::FRAME_PREFIX};

use super::transport::LinkError;

/// Most bytes taken from the stream at once.
const CHUNK: usize = 64 << 10;

/// Cuts frames out of bytes as they come. Holds at most one frame and one chunk.
pub(super) struct FrameReader {
    stream: quinn::RecvStream,
    buffer: Vec<u8>,
    /// Where the bytes that no frame has taken begin.
    start: usize,
}

impl FrameReader {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), start: 0 }
    }

    /// The next frame without its prefix; `None` where the stream ends between two frames.
    ///
    /// Not cancel-safe in its result but in its state: a dropped future loses no byte that came.
    ///
    /// # Errors
    /// [`LinkError::Malformed`] for a claim that is too long and for half a frame at the end of the stream;
    /// [`LinkError::Closed`] where the connection has ended.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, LinkError> {
        loop {
            if let Some(frame) = take_frame(&self.buffer, &mut self.start)? {
                return Ok(self.buffer.get(frame));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            match self.stream.read_chunk(CHUNK, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(LinkError::Malformed),
                Err(_) => return Err(LinkError::Closed),
            }
        }
    }
}

/// Where in `buffer` the frame that begins at `start` lies, if all of it is there; moves `start` behind it.
fn take_frame(buffer: &[u8], start: &mut usize) -> Result<Option<Range<usize>>, LinkError> {
    let Some(prefix) = buffer.get(*start..).and_then(|rest| rest.first_chunk::<FRAME_PREFIX>()) else {
        return Ok(None);
    };
    let length = frame_length(*prefix).map_err(|_| LinkError::Malformed)?;
    let body = *start + FRAME_PREFIX;
    if buffer.len() - body < length {
        return Ok(None);
    }
    *start = body + length;
    Ok(Some(body..body + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use lapwing_wire::limits::MAX_FRAME;

    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_claim_above_the_limit_is_refused_by_its_prefix() {
        let claim = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
        assert_eq!(take_frame(&claim, &mut 0), Err(LinkError::Malformed));
        assert_eq!(take_frame(&[0xff; 4], &mut 0), Err(LinkError::Malformed));
        let allowed = u32::try_from(MAX_FRAME).unwrap().to_be_bytes();
        assert_eq!(take_frame(&allowed, &mut 0), Ok(None));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)
        ) {
            let all: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
            let (mut start, mut seen) = (0, Vec::new());
            while let Some(range) = take_frame(&all, &mut start).unwrap() {
                seen.push(all[range].to_vec());
            }
            prop_assert_eq!(start, all.len());
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn half_a_frame_waits(body in proptest::collection::vec(any::<u8>(), 1..300), cut in any::<prop::sample::Index>()) {
            let all = frame(&body);
            let cut = cut.index(all.len());
            let mut start = 0;
            prop_assert_eq!(take_frame(&all[..cut], &mut start), Ok(None));
            prop_assert_eq!(start, 0);
        }
    }
}
