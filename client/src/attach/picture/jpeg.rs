//! JPEG: markers, the segments behind them, and the scans.

use std::io;

use super::super::layout::{Bytes, Layout, Scan};

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DNL: u8 = 0xdc;
const DRI: u8 = 0xdd;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;

/// Whether a marker begins a frame.
const fn is_frame(marker: u8) -> bool {
    // C4, C8 and CC are tables, and what is reserved.
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// Whether a decoder needs the segment: frames, tables, scans, restart intervals, number of lines, hierarchy.
const fn is_needed(marker: u8) -> bool {
    is_frame(marker) || matches!(marker, 0xc4 | 0xcc | SOS | 0xdb | DNL | DRI | 0xde | 0xdf)
}

/// Whether a segment has the length that its kind has: nothing hides behind its fields.
fn has_its_length(marker: u8, contents: &[u8]) -> bool {
    let counted = |at: usize, each: usize, more: usize| {
        contents.get(at).is_some_and(|count| contents.len() == usize::from(*count) * each + more)
    };
    match marker {
        _ if is_frame(marker) => counted(5, 3, 6),
        SOS => counted(0, 2, 4),
        DRI | DNL => contents.len() == 2,
        _ => true,
    }
}

pub(super) fn layout(from: &dyn Bytes) -> io::Result<Option<Layout>> {
    let mut scan = Scan::new(from);
    if scan.array()? != Some([0xff, SOI]) {
        return Ok(None);
    }
    let mut rest = Layout::default();
    let mut orientation = None;
    let (mut frames, mut scans) = (0u32, 0u32);
    loop {
        let Some(marker) = next_marker(&mut scan)? else { return Ok(None) };
        if marker == EOI {
            if frames == 0 || scans == 0 {
                return Ok(None);
            }
            rest.literal(vec![0xff, EOI]);
            let mut all = Layout::default();
            all.literal(vec![0xff, SOI]);
            if let Some(number) = orientation {
                all.literal(orientation_segment(number));
            }
            // One row of parts: what comes before the first segment is not in the file.
            return Ok(Some(all.followed_by(rest)));
        }
        let start = scan.position();
        let Some(length) = scan.array()?.map(u16::from_be_bytes).filter(|length| *length >= 2) else {
            return Ok(None);
        };
        let Some(contents) = scan.take(usize::from(length - 2))? else { return Ok(None) };
        if marker == APP1 && orientation.is_none() {
            orientation = orientation_of(&contents);
        } else if marker == APP14 {
            rest.literal(adobe_segment(&contents).unwrap_or_default());
        } else if is_needed(marker) {
            if !has_its_length(marker, &contents) {
                return Ok(None);
            }
            // With its marker, which stands right in front.
            rest.range(start - 2, 2 + u64::from(length));
        }
        frames += u32::from(is_frame(marker));
        if marker == SOS {
            scans += 1;
            let start = scan.position();
            let Some(end) = end_of_scan(&mut scan)? else { return Ok(None) };
            rest.range(start, end - start);
        }
    }
}

/// The next marker that has a segment, or the end. `None` where something else stands there.
fn next_marker(scan: &mut Scan<'_>) -> io::Result<Option<u8>> {
    if scan.byte()? != Some(0xff) {
        return Ok(None);
    }
    loop {
        match scan.byte()? {
            // Fill bytes.
            Some(0xff) => {}
            Some(0x00 | 0x01 | 0xd0..=0xd8) | None => return Ok(None),
            Some(marker) => return Ok(Some(marker)),
        }
    }
}

/// Goes to the marker that ends a scan, and answers where it stands.
fn end_of_scan(scan: &mut Scan<'_>) -> io::Result<Option<u64>> {
    loop {
        let bytes = scan.next_bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(found) = memchr::memchr(0xff, bytes) else {
            let count = bytes.len();
            scan.consume(count);
            continue;
        };
        scan.consume(found);
        let at = scan.position();
        scan.consume(1);
        match scan.next_bytes()?.first().copied() {
            // A byte of the data that is FF, and restarts, belong to the scan.
            Some(0x00 | 0xd0..=0xd7) => scan.consume(1),
            // Fill bytes belong to the marker behind them.
            Some(_) => {
                scan.back_to(at);
                return Ok(Some(at));
            }
            None => return Ok(None),
        }
    }
}

/// What Adobe's programs note about the colours, without the version and what follows.
fn adobe_segment(contents: &[u8]) -> Option<Vec<u8>> {
    let (_, fields) = contents.split_at_checked(5).filter(|(name, _)| *name == b"Adobe")?;
    let transform = *fields.get(6)?;
    Some([&[0xff, APP14, 0, 14][..], b"Adobe", &[0, 100, 0, 0, 0, 0, transform.min(2)]].concat())
}

/// The orientation that an EXIF segment tells.
fn orientation_of(contents: &[u8]) -> Option<u8> {
    const ORIENTATION: u16 = 0x0112;
    const SHORT: u16 = 3;
    let tiff = contents.strip_prefix(b"Exif\0\0")?;
    let is_little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if is_little { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) })
    };
    let long = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if is_little { u32::from_le_bytes(*bytes) } else { u32::from_be_bytes(*bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = short(directory)?;
    for number in 0..usize::from(entries) {
        let entry = directory.checked_add(2)?.checked_add(number * 12)?;
        if short(entry)? == ORIENTATION && short(entry + 2)? == SHORT && long(entry + 4)? == 1 {
            return u8::try_from(short(entry + 8)?).ok().filter(|number| (2..=8).contains(number));
        }
    }
    None
}

/// An EXIF segment with the orientation and nothing else.
fn orientation_segment(orientation: u8) -> Vec<u8> {
    let tiff: [&[u8]; 5] =
        [b"MM\0*", &[0, 0, 0, 8, 0, 1], &[0x01, 0x12, 0, 3, 0, 0, 0, 1], &[0, orientation, 0, 0], &[0; 4]];
    [&[0xff, APP1, 0, 34], &b"Exif\0\0"[..], &tiff.concat()].concat()
}
