//! PNG: a signature, then chunks of length, kind, contents and checksum.

use std::io;

use super::super::layout::{Bytes, Layout, Scan};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Around the contents of a chunk: length, kind, checksum.
const AROUND: u64 = 12;

/// The longest that a chunk may be which a decoder needs; `None` for every other.
const fn longest(kind: &[u8; 4]) -> Option<u64> {
    Some(match kind {
        b"IHDR" => 13,
        b"IDAT" | b"fdAT" => u32::MAX as u64 >> 1,
        b"IEND" => 0,
        b"PLTE" => 3 * 256,
        b"tRNS" => 256,
        b"gAMA" => 4,
        b"cHRM" => 32,
        b"sRGB" => 1,
        b"cICP" => 4,
        b"acTL" => 8,
        b"fcTL" => 26,
        _ => return None,
    })
}

pub(super) fn layout(from: &dyn Bytes) -> io::Result<Option<Layout>> {
    let mut scan = Scan::new(from);
    if scan.array()? != Some(SIGNATURE) {
        return Ok(None);
    }
    let mut layout = Layout::default();
    layout.range(0, 8);
    let (mut first, mut data) = (true, false);
    loop {
        let start = scan.position();
        let Some(length) = scan.array()?.map(u32::from_be_bytes).map(u64::from) else { return Ok(None) };
        let Some(kind) = scan.array::<4>()? else { return Ok(None) };
        // Checksum included.
        if !scan.skip(length + 4) || (first && (kind != *b"IHDR" || length != 13)) {
            return Ok(None);
        }
        first = false;
        data |= kind == *b"IDAT";
        if longest(&kind).is_some_and(|longest| length <= longest) {
            layout.range(start, length + AROUND);
        } else if kind[0].is_ascii_uppercase() {
            // A chunk that no decoder may pass over, and that is not one of the standard's or not as long.
            return Ok(None);
        }
        if kind == *b"IEND" {
            return Ok(data.then_some(layout));
        }
    }
}
