//! A file as parts of another, with a little in between.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes that can be read at any place.
pub(super) trait Bytes {
    /// How many.
    fn size(&self) -> u64;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// They cannot be read, or there are not so many.
    fn fill(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// An open file, as long as it was when it was looked at.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) size: u64,
}

impl Bytes for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn fill(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}

#[cfg(test)]
impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len().try_into().unwrap()
    }

    fn fill(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let found = start.checked_add(out.len()).and_then(|end| self.get(start..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A part of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Of the other file, from here on, so many bytes.
    Range(u64, u64),
    /// These.
    Literal(Vec<u8>),
}

impl Piece {
    fn size(&self) -> u64 {
        match self {
            Self::Range(_, size) => *size,
            Self::Literal(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }
    }
}

/// Most parts of a layout (40 bytes each): a picture has some dozen, an animation some for each frame. What needs more
/// is treated as a picture that cannot be read.
const MAX_PIECES: usize = 1 << 15;

/// Parts of another file in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pieces: Vec<Piece>,
    /// Where each part begins.
    starts: Vec<u64>,
    size: u64,
}

impl Layout {
    /// All of a file of this size.
    pub(super) fn whole(size: u64) -> Self {
        let mut layout = Self::default();
        layout.range(0, size);
        layout
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a part of the other file.
    pub(super) fn range(&mut self, start: u64, size: u64) {
        if let Some(Piece::Range(before, length)) = self.pieces.last_mut()
            && *before + *length == start
        {
            *length += size;
            self.size += size;
            return;
        }
        self.push(Piece::Range(start, size));
    }

    /// Appends bytes of its own.
    pub(super) fn literal(&mut self, bytes: Vec<u8>) {
        self.push(Piece::Literal(bytes));
    }

    fn push(&mut self, piece: Piece) {
        let size = piece.size();
        if size > 0 {
            self.starts.push(self.size);
            self.pieces.push(piece);
            self.size += size;
        }
    }

    /// These parts, then those of `later`.
    pub(super) fn followed_by(mut self, later: Self) -> Self {
        for piece in later.pieces {
            match piece {
                Piece::Range(start, size) => self.range(start, size),
                Piece::Literal(bytes) => self.literal(bytes),
            }
        }
        self
    }

    /// Whether there are more parts than a picture has.
    pub(super) fn is_scattered(&self) -> bool {
        self.pieces.len() > MAX_PIECES
    }

    /// Fills `out` from `offset` of the laid-out file on.
    ///
    /// # Errors
    /// The other file cannot be read, or is shorter than it was.
    pub(super) fn fill(&self, from: &dyn Bytes, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut rest = out;
        let mut number = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        while !rest.is_empty() {
            let (piece, start) = self.pieces.get(number).zip(self.starts.get(number)).ok_or_else(end)?;
            let within = at - start;
            let left = piece.size().saturating_sub(within);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            match piece {
                Piece::Range(first, _) => from.fill(first + within, now)?,
                Piece::Literal(bytes) => {
                    let skip = usize::try_from(within).unwrap_or(usize::MAX);
                    let found = bytes.get(skip..).and_then(|bytes| bytes.get(..count)).ok_or_else(end)?;
                    now.copy_from_slice(found);
                }
            }
            at += u64::try_from(count).unwrap_or_default();
            rest = later;
            number += 1;
        }
        Ok(())
    }
}

fn end() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// Reads on from a place, a buffer at a time.
pub(super) struct Scan<'a> {
    from: &'a dyn Bytes,
    /// Where the buffer begins.
    base: u64,
    buffer: Vec<u8>,
    at: usize,
}

/// Bytes looked at in one go.
const WINDOW: usize = 64 << 10;

impl<'a> Scan<'a> {
    pub(super) fn new(from: &'a dyn Bytes) -> Self {
        Self { from, base: 0, buffer: Vec::new(), at: 0 }
    }

    /// Where the next byte lies.
    pub(super) fn position(&self) -> u64 {
        self.base + u64::try_from(self.at).unwrap_or_default()
    }

    /// What is buffered of what comes next; empty at the end.
    pub(super) fn next_bytes(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.buffer.len() {
            self.base = self.position();
            let left = self.from.size().saturating_sub(self.base);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(WINDOW);
            self.buffer.resize(count, 0);
            self.at = 0;
            self.from.fill(self.base, &mut self.buffer)?;
        }
        Ok(self.buffer.get(self.at..).unwrap_or_default())
    }

    /// The next byte; `None` at the end.
    pub(super) fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.next_bytes()?.first().copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    /// The next `N` bytes; `None` where there are fewer.
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut out = [0; N];
        for slot in &mut out {
            let Some(byte) = self.byte()? else { return Ok(None) };
            *slot = byte;
        }
        Ok(Some(out))
    }

    /// So many bytes further on. `false` behind the end.
    pub(super) fn skip(&mut self, count: u64) -> bool {
        let Some(to) = self.position().checked_add(count).filter(|to| *to <= self.from.size()) else {
            return false;
        };
        let buffered = u64::try_from(self.buffer.len()).unwrap_or_default();
        match to.checked_sub(self.base).filter(|within| *within <= buffered) {
            Some(within) => self.at = usize::try_from(within).unwrap_or(usize::MAX),
            None => {
                self.base = to;
                self.buffer.clear();
                self.at = 0;
            }
        }
        true
    }

    /// Back to a place.
    pub(super) fn back_to(&mut self, place: u64) {
        self.base = place;
        self.buffer.clear();
        self.at = 0;
    }

    /// So many bytes further on within what [`next_bytes`](Self::next_bytes) gave.
    pub(super) fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.buffer.len());
    }

    /// The next `count` bytes; `None` where there are fewer.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        let start = self.position();
        if !self.skip(u64::try_from(count).unwrap_or(u64::MAX)) {
            return Ok(None);
        }
        let mut out = vec![0; count];
        self.from.fill(start, &mut out)?;
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_read_at_any_place() {
        let from: Vec<u8> = (0..100).collect();
        let mut layout = Layout::default();
        layout.range(10, 5);
        layout.range(15, 5);
        layout.literal(vec![200, 201, 202]);
        layout.range(90, 10);
        assert_eq!(layout.pieces.len(), 3);
        let all = [&from[10..20], &[200, 201, 202], &from[90..]].concat();
        assert_eq!(layout.size(), all.len() as u64);
        for start in 0..all.len() {
            for end in start..=all.len() {
                let mut out = vec![0; end - start];
                layout.fill(&from, start as u64, &mut out).unwrap();
                assert_eq!(out, all[start..end]);
            }
        }
        assert!(layout.fill(&from, 20, &mut [0; 4]).is_err());
        assert!(layout.fill(&from[..50].to_vec(), 13, &mut [0; 4]).is_err(), "the file became shorter");
        assert_eq!(Layout::whole(7).size(), 7);
    }

    #[test]
    fn scanning_goes_over_the_edges_of_its_buffer() {
        let from: Vec<u8> = (0..3 * WINDOW).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut scan = Scan::new(&from);
        assert!(scan.skip(WINDOW as u64 - 1));
        let expected = [from[WINDOW - 1], from[WINDOW], from[WINDOW + 1]];
        assert_eq!(scan.array::<3>().unwrap(), Some(expected));
        assert_eq!(scan.position(), WINDOW as u64 + 2);
        assert_eq!(scan.take(WINDOW).unwrap().unwrap(), from[WINDOW + 2..2 * WINDOW + 2]);
        assert!(!scan.skip(WINDOW as u64));
        assert_eq!(scan.take(WINDOW).unwrap(), None);
        assert!(scan.skip(WINDOW as u64 - 2));
        assert_eq!((scan.byte().unwrap(), scan.array::<1>().unwrap()), (None, None));
    }
}
