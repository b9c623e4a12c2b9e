//! What a process leaves behind: all memory it could write to, at the moment at which it ends.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use memchr::memmem;

/// A range of memory that is mapped for nobody (between guarded pages, say) is read too, up to this many bytes: larger
/// ones are address space that an allocator keeps for later and has never touched.
const CLOSED_MAX: u64 = 1 << 20;

/// Memory of a process that has nothing left to do: its destructors have run, its threads are gone.
#[derive(Debug)]
pub struct Memory {
    /// Its ranges, with their bytes.
    pub spans: Vec<Span>,
}

/// One range of memory.
pub struct Span {
    /// What the system calls it: `[heap]`, `[stack]`, a file, or nothing.
    pub name: String,
    /// Its first address; 0 for registers.
    pub start: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {:#x} {}", self.bytes.len(), self.start, self.name)
    }
}

impl Memory {
    /// Reads every range that is private to the process and was ever writable, through `/proc`: `maps` and `mem` were
    /// opened before the program closed itself to others.
    pub(super) fn read(maps: &mut File, mem: &File) -> Self {
        let mut text = String::new();
        if maps.seek(SeekFrom::Start(0)).and_then(|_| maps.read_to_string(&mut text)).is_err() {
            return Self { spans: Vec::new() };
        }
        let spans = text.lines().filter_map(|line| span(line, mem)).collect();
        Self { spans }
    }

    /// In which ranges these bytes stand, and at which address.
    #[must_use]
    pub fn find(&self, needle: &[u8]) -> Vec<(&str, u64)> {
        let mut found = Vec::new();
        for span in &self.spans {
            for at in memmem::find_iter(&span.bytes, needle) {
                found.push((span.name.as_str(), span.start + at as u64));
            }
        }
        found
    }

    /// All ranges one after the other.
    #[must_use]
    pub fn all(&self) -> Vec<u8> {
        self.spans.iter().flat_map(|span| &span.bytes).copied().collect()
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.iter().map(|span| span.bytes.len()).sum()
    }

    /// Whether nothing could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// The bytes of one line of `maps`, unless the program's own file is mapped there unchanged.
fn span(line: &str, mem: &File) -> Option<Span> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    let rights = words.next()?;
    let name = words.nth(3).unwrap_or_default().to_owned();
    let readable = rights.starts_with('r');
    let from_a_file = name.starts_with('/');
    let kernels_own = name.starts_with("[v");
    let unchanged = from_a_file && !rights.contains('w');
    if kernels_own || unchanged || (!readable && end - start > CLOSED_MAX) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(end - start).ok()?];
    let read = mem.read_exact_at(&mut bytes, start).is_ok();
    read.then_some(Span { name, start, bytes })
}
