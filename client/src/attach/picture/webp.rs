//! WebP: a RIFF header, then chunks of kind, length, contents and a byte of padding where the length is odd.

use std::io;

use super::super::layout::{Bytes, Layout, Scan};

/// Flags of `VP8X`: animation, alpha. Those of profile, EXIF and XMP go with what they announce.
const KEPT_FLAGS: u8 = 0b0001_0010;

/// In front of the contents of a chunk: kind, length.
const HEAD: u64 = 8;

/// In front of the chunks inside a frame of an animation.
const FRAME_HEAD: u64 = 16;

struct Chunk {
    kind: [u8; 4],
    /// Where the contents begin.
    start: u64,
    length: u64,
}

impl Chunk {
    /// With head and padding.
    const fn whole(&self) -> u64 {
        HEAD + self.length + self.length % 2
    }
}

/// The next chunk that ends at or before `end`; the scan stands behind its head.
fn next(scan: &mut Scan<'_>, end: u64) -> io::Result<Option<Chunk>> {
    let Some(kind) = scan.array::<4>()? else { return Ok(None) };
    let Some(length) = scan.array()?.map(u32::from_le_bytes).map(u64::from) else { return Ok(None) };
    let chunk = Chunk { kind, start: scan.position(), length };
    Ok(chunk.start.checked_add(length + length % 2).is_some_and(|last| last <= end).then_some(chunk))
}

pub(super) fn layout(from: &dyn Bytes) -> io::Result<Option<Layout>> {
    let mut scan = Scan::new(from);
    let (Some(riff), Some(size), Some(webp)) = (scan.array::<4>()?, scan.array()?, scan.array::<4>()?) else {
        return Ok(None);
    };
    let end = HEAD + u64::from(u32::from_le_bytes(size));
    if riff != *b"RIFF" || webp != *b"WEBP" || end > from.size() {
        return Ok(None);
    }
    let mut chunks = Layout::default();
    let mut pictures = 0u32;
    while scan.position() < end {
        let Some(chunk) = next(&mut scan, end)? else { return Ok(None) };
        match &chunk.kind {
            b"VP8 " | b"VP8L" | b"ALPH" => {
                pictures += 1;
                chunks.range(chunk.start - HEAD, chunk.whole());
            }
            b"ANIM" if chunk.length == 6 => chunks.range(chunk.start - HEAD, chunk.whole()),
            b"VP8X" if chunk.length == 10 => {
                let Some(flags) = scan.byte()? else { return Ok(None) };
                chunks.literal([b"VP8X", &10u32.to_le_bytes()[..], &[flags & KEPT_FLAGS]].concat());
                chunks.range(chunk.start + 1, 9);
            }
            b"ANMF" => {
                let Some(frame) = frame(from, &chunk)? else { return Ok(None) };
                pictures += 1;
                chunks = chunks.followed_by(frame);
            }
            _ => {}
        }
        let behind = chunk.start + chunk.length + chunk.length % 2;
        if !scan.skip(behind - scan.position()) {
            return Ok(None);
        }
    }
    let Ok(size) = u32::try_from(chunks.size() + 4) else { return Ok(None) };
    let mut all = Layout::default();
    all.literal([b"RIFF", &size.to_le_bytes()[..], b"WEBP"].concat());
    Ok((pictures > 0).then(|| all.followed_by(chunks)))
}

/// A frame of an animation, with what of it is a picture.
fn frame(from: &dyn Bytes, chunk: &Chunk) -> io::Result<Option<Layout>> {
    let end = chunk.start + chunk.length;
    let mut scan = Scan::new(from);
    if chunk.length < FRAME_HEAD || !scan.skip(chunk.start + FRAME_HEAD) {
        return Ok(None);
    }
    let mut inside = Layout::default();
    inside.range(chunk.start, FRAME_HEAD);
    while scan.position() < end {
        let Some(part) = next(&mut scan, end)? else { return Ok(None) };
        if matches!(&part.kind, b"VP8 " | b"VP8L" | b"ALPH") {
            inside.range(part.start - HEAD, part.whole());
        }
        if !scan.skip(part.length + part.length % 2) {
            return Ok(None);
        }
    }
    let Ok(size) = u32::try_from(inside.size()) else { return Ok(None) };
    let mut frame = Layout::default();
    frame.literal([b"ANMF", &size.to_le_bytes()[..]].concat());
    Ok(Some(frame.followed_by(inside)))
}
