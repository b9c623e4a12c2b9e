//! Reading the database's own pages: which units its trees lead to, and where the used part of a page ends.
//!
//! ```text
//! page 0    9  flags: bit 0 which slot is the primary, bit 1 not closed
//!          24  full regions 4 | 28 pages of the last region 4       (little-endian, as everything)
//!     64, 192  slots, 128 each: version 1 | table tree? 1 | system tree? 1 | 5 | root 32 | root 32 | ...
//! root         page number 8 | checksum 16 | entries 8
//! number       index: the lowest 20 bits, less the order | region 20 bits | order: the highest 5 bits
//! branch       2 | 0 | keys 2 | 0 4 | checksums 16 each | numbers 8 each | key ends 4 each, unless fixed | keys
//! leaf         1 | 0 | pairs 2 | key ends 4 each, unless fixed | value ends 4 each, unless fixed | keys | values
//! table        3 | entries 8 | root? 1 | root 32 | fixed key? 1 | 4 | fixed value? 1 | 4 | ...
//! ```
//!
//! This is redb's file format 3, from its `docs/design.md` and the code of 4.5.0.
//!
//! Invariants: no byte is trusted: every number is checked against the page and the region, and what does not fit is
//! [`Malformed`], upon which callers change nothing. A page that two pointers lead to is malformed, so every
//! walk ends. Both trees of a slot are trees of tables, whose leaves hold the roots of all others.
//!
//! Known gaps: tables with several values for one key are malformed here; a volume does not let them be made.

use std::{io, ops::Range};

use crate::{geometry::PAGE_LEN, memory::Wiped, pageset::PageSet};

const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
const FLAGS_AT: usize = 9;
const NOT_CLOSED: u8 = 2;
const FULL_REGIONS_AT: usize = 24;
const LAST_REGION_PAGES_AT: usize = 28;
const SLOTS_AT: usize = 64;
const SLOT_LEN: usize = 128;
/// Where the slots of page 0 end.
pub(crate) const SLOTS_END: usize = SLOTS_AT + 2 * SLOT_LEN;
const VERSION: u8 = 3;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const NORMAL_TABLE: u8 = 3;
const ROOT_LEN: usize = 32;
/// Deeper than any tree of a region: a branch page has two children at least.
const MAX_DEPTH: usize = 40;

/// Not a page, or a tree, as the format has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<Malformed> for io::Error {
    fn from(_: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, "a page of the database does not have its format")
    }
}

/// A page of the database: one data unit, or a power of two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl PageRef {
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let number = u64::from_le_bytes(*bytes.first_chunk().ok_or(Malformed)?);
        let order = number >> 59;
        if order > 20 || number >> 20 & 0xf_ffff != 0 {
            return Err(Malformed);
        }
        let index = number & (0xf_ffff >> order);
        Ok(Self { first: index << order, count: 1 << order })
    }

    pub(crate) fn units(self) -> Range<u64> {
        self.first..self.first + self.count
    }
}

/// Widths of keys and values, where a table has fixed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    key: Option<usize>,
    value: Option<usize>,
}

impl Widths {
    /// Of a tree of tables: name to definition.
    const TABLES: Self = Self { key: None, value: None };
}

/// What page 0 says.
#[derive(Clone, Copy)]
pub(crate) struct HeaderPage<'a>(pub(crate) &'a [u8; PAGE_LEN]);

/// The tree of tables and the database's own tree of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roots([Option<PageRef>; 2]);

impl HeaderPage<'_> {
    /// Whether there is a database at all: before its creation page 0 holds zeros.
    pub(crate) fn exists(self) -> bool {
        self.0.starts_with(MAGIC)
    }

    /// Whether the database was closed after its last change.
    pub(crate) fn is_closed(self) -> bool {
        self.0[FLAGS_AT] & NOT_CLOSED == 0
    }

    /// Which slot counts.
    pub(crate) fn primary_slot(self) -> usize {
        usize::from(self.0[FLAGS_AT] & 1)
    }

    /// The roots that count; nothing where no database exists.
    pub(crate) fn primary(self) -> Result<Roots, Malformed> {
        if !self.exists() {
            return Ok(Roots([None; 2]));
        }
        self.slot(self.primary_slot())
    }

    pub(crate) fn slot(self, slot: usize) -> Result<Roots, Malformed> {
        let bytes = self.0.get(SLOTS_AT + slot * SLOT_LEN..).ok_or(Malformed)?;
        if bytes[0] != VERSION {
            return Err(Malformed);
        }
        let root = |flag: usize, at: usize| match bytes[flag] {
            0 => Ok(None),
            _ => PageRef::read(bytes.get(at..).ok_or(Malformed)?).map(Some),
        };
        Ok(Roots([root(1, 8)?, root(2, 8 + ROOT_LEN)?]))
    }
}

/// Where a slot lies in page 0.
pub(crate) fn slot_range(slot: usize) -> Range<usize> {
    SLOTS_AT + slot * SLOT_LEN..SLOTS_AT + (slot + 1) * SLOT_LEN
}

/// Gives a database that is closed all pages of its region: redb takes the length that its header names, and would
/// double its file, and so overshoot the region, if it had to grow by itself.
pub(crate) fn set_pages(page: &mut [u8; PAGE_LEN], pages: u64) -> Result<(), Malformed> {
    let pages = u32::try_from(pages).map_err(|_| Malformed)?;
    page[FULL_REGIONS_AT..][..4].fill(0);
    page[LAST_REGION_PAGES_AT..][..4].copy_from_slice(&pages.to_le_bytes());
    Ok(())
}

/// Says that the database was closed. Only of a page 0 that is on the disk with all that it leads to: then there is
/// nothing to recover from, and the database makes its list of free pages anew wherever it is not of the last commit.
pub(crate) fn set_closed(page: &mut [u8; PAGE_LEN]) {
    page[FLAGS_AT] &= !NOT_CLOSED;
}

/// Whether these are the bytes of a branch page: what no leaf begins with.
pub(crate) fn is_branch(page: &[u8]) -> bool {
    page.first() == Some(&BRANCH)
}

/// Where pages are read from.
pub(crate) trait Source {
    /// The bytes of a page, all of its units.
    fn read(&mut self, page: PageRef) -> io::Result<Wiped>;
}

/// Reads and checks what lies in a page.
struct Node<'a> {
    bytes: &'a [u8],
    entries: usize,
}

impl<'a> Node<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let entries = bytes.get(2..4).ok_or(Malformed)?;
        let entries = usize::from(u16::from_le_bytes([entries[0], entries[1]]));
        if entries == 0 || !matches!(bytes[0], LEAF | BRANCH) {
            return Err(Malformed);
        }
        Ok(Self { bytes, entries })
    }

    fn is_branch(&self) -> bool {
        is_branch(self.bytes)
    }

    /// A branch page has one child more than keys.
    fn children(&self) -> Result<Vec<PageRef>, Malformed> {
        let numbers = 8 + 16 * (self.entries + 1);
        let numbers = self.bytes.get(numbers..numbers + 8 * (self.entries + 1)).ok_or(Malformed)?;
        numbers.chunks_exact(8).map(PageRef::read).collect()
    }

    fn end_at(&self, at: usize) -> Result<usize, Malformed> {
        let end = self.bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
        usize::try_from(u32::from_le_bytes(*end)).map_err(|_| Malformed)
    }

    /// Where the used part ends: what lies beyond is not even covered by the database's checksums.
    fn end(&self, widths: Widths) -> Result<usize, Malformed> {
        let Self { bytes, entries } = *self;
        let last = entries - 1;
        let (least, end) = if self.is_branch() {
            let head = 8 + 24 * (entries + 1);
            match widths.key {
                Some(width) => (head, head.saturating_add(width.saturating_mul(entries))),
                None => (head + 4 * entries, self.end_at(head + 4 * last)?),
            }
        } else {
            let keys = if widths.key.is_none() { 4 * entries } else { 0 };
            let values = if widths.value.is_none() { 4 * entries } else { 0 };
            let head = 4 + keys + values;
            let keys_end = match widths.key {
                Some(width) => head.saturating_add(width.saturating_mul(entries)),
                None => self.end_at(4 + 4 * last)?,
            };
            match widths.value {
                Some(width) => (head, keys_end.saturating_add(width.saturating_mul(entries))),
                None => (keys_end.max(head), self.end_at(4 + keys + 4 * last)?),
            }
        };
        if end < least || end > bytes.len() { Err(Malformed) } else { Ok(end) }
    }

    /// The roots of the tables whose definitions lie in this leaf of a tree of tables.
    fn tables(&self) -> Result<Vec<(PageRef, Widths)>, Malformed> {
        let entries = self.entries;
        let mut start = self.end_at(4 + 4 * (entries - 1))?;
        let mut found = Vec::new();
        for entry in 0..entries {
            let end = self.end_at(4 + 4 * (entries + entry))?;
            let definition = self.bytes.get(start..end).ok_or(Malformed)?;
            found.extend(table(definition)?);
            start = end;
        }
        Ok(found)
    }
}

/// Root and widths of a table; `None` for an empty one.
fn table(definition: &[u8]) -> Result<Option<(PageRef, Widths)>, Malformed> {
    let (head, widths) = definition.split_at_checked(10 + ROOT_LEN).ok_or(Malformed)?;
    let width = |at: usize| {
        let field = widths.get(at..at + 5).ok_or(Malformed)?;
        let width = u32::from_le_bytes([field[1], field[2], field[3], field[4]]);
        let width = usize::try_from(width).map_err(|_| Malformed)?;
        Ok((field[0] != 0).then_some(width))
    };
    let widths = Widths { key: width(0)?, value: width(5)? };
    if head[0] != NORMAL_TABLE {
        return Err(Malformed);
    }
    if head[9] == 0 {
        return Ok(None);
    }
    Ok(Some((PageRef::read(&head[10..])?, widths)))
}

/// Whether a walk reads leaves too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Every page is read: nothing is assumed about the shape of trees.
    Read,
    /// All leaves of a tree are taken to be as deep as its first one, which is the rule for B-trees, and are not
    /// read: a hundredth of the work.
    Skip,
}

/// Walks from the roots and adds all units that they lead to.
///
/// `known_branch` says whether a page is known to be a branch: one that a walk which skips leaves takes for a leaf
/// makes it fail, so that a tree which is not as even as assumed is noticed wherever it was changed.
///
/// # Errors
///
/// `InvalidData` for what is not as the format has it, and the source's errors.
pub(crate) fn mark_live(
    roots: Roots,
    source: &mut dyn Source,
    leaves: Leaves,
    known_branch: &dyn Fn(u64) -> bool,
    live: &mut PageSet,
) -> io::Result<()> {
    let mut walk = Walk { source, leaves, known_branch, live };
    for root in roots.0.into_iter().flatten() {
        walk.tables(root, 0)?;
    }
    Ok(())
}

struct Walk<'a> {
    source: &'a mut dyn Source,
    leaves: Leaves,
    known_branch: &'a dyn Fn(u64) -> bool,
    live: &'a mut PageSet,
}

impl Walk<'_> {
    fn mark(&mut self, page: PageRef) -> Result<(), Malformed> {
        if page.units().all(|unit| self.live.insert(unit)) { Ok(()) } else { Err(Malformed) }
    }

    fn tables(&mut self, page: PageRef, depth: usize) -> io::Result<()> {
        self.mark(page)?;
        let bytes = self.source.read(page)?;
        let node = Node::new(&bytes)?;
        if !node.is_branch() {
            for (root, _) in node.tables()? {
                self.table(root)?;
            }
        } else if depth < MAX_DEPTH {
            for child in node.children()? {
                self.tables(child, depth + 1)?;
            }
        } else {
            return Err(Malformed.into());
        }
        Ok(())
    }

    fn table(&mut self, root: PageRef) -> io::Result<()> {
        match self.leaves {
            Leaves::Read => self.any(root, 0),
            Leaves::Skip => {
                let height = self.height(root)?;
                self.even(root, height)
            }
        }
    }

    /// Branches above the first leaf.
    fn height(&mut self, root: PageRef) -> io::Result<usize> {
        let mut page = root;
        for height in 0..MAX_DEPTH {
            let bytes = self.source.read(page)?;
            let node = Node::new(&bytes)?;
            if !node.is_branch() {
                return Ok(height);
            }
            page = node.children()?.first().copied().ok_or(Malformed)?;
        }
        Err(Malformed.into())
    }

    fn even(&mut self, page: PageRef, height: usize) -> io::Result<()> {
        self.mark(page)?;
        if height == 0 {
            let surprising = (self.known_branch)(page.first);
            return if surprising { Err(Malformed.into()) } else { Ok(()) };
        }
        let bytes = self.source.read(page)?;
        let node = Node::new(&bytes)?;
        if !node.is_branch() {
            return Err(Malformed.into());
        }
        for child in node.children()? {
            self.even(child, height - 1)?;
        }
        Ok(())
    }

    fn any(&mut self, page: PageRef, depth: usize) -> io::Result<()> {
        self.mark(page)?;
        let bytes = self.source.read(page)?;
        let node = Node::new(&bytes)?;
        if node.is_branch() {
            if depth >= MAX_DEPTH {
                return Err(Malformed.into());
            }
            for child in node.children()? {
                self.any(child, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Pages that were written and can still be changed.
pub(crate) trait Unsettled {
    /// Whether the page was written since the last commit. Pages of older commits are never changed.
    fn is_new(&self, page: PageRef) -> bool;

    /// Lends the bytes of a page, all of its units, and takes them back: `true` says that they were changed.
    fn edit(
        &mut self,
        page: PageRef,
        edit: &mut dyn FnMut(&mut [u8]) -> Result<bool, Malformed>,
    ) -> io::Result<()>;
}

/// Overwrites with zeros what lies beyond the used part of every new page that the roots lead to. The database
/// removes and shortens rows in place in pages that it has not committed, and leaves their bytes behind the used
/// part; its checksums end there, so nothing notices.
///
/// # Errors
///
/// `InvalidData` for what is not as the format has it, and the source's errors.
pub(crate) fn clear_unused(roots: Roots, pages: &mut dyn Unsettled) -> io::Result<()> {
    for root in roots.0.into_iter().flatten() {
        clear_tree(root, Widths::TABLES, true, pages, 0)?;
    }
    Ok(())
}

fn clear_tree(
    page: PageRef,
    widths: Widths,
    of_tables: bool,
    pages: &mut dyn Unsettled,
    depth: usize,
) -> io::Result<()> {
    // A page that was not written leads only to pages that were not.
    if !pages.is_new(page) {
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(Malformed.into());
    }
    let (mut children, mut tables) = (Vec::new(), Vec::new());
    pages.edit(page, &mut |bytes| {
        let node = Node::new(bytes)?;
        let end = node.end(widths)?;
        match (node.is_branch(), of_tables) {
            (true, _) => children = node.children()?,
            (false, true) => tables = node.tables()?,
            (false, false) => {}
        }
        let unused = bytes.get_mut(end..).ok_or(Malformed)?;
        let is_clear = unused.iter().fold(0, |all, byte| all | byte) == 0;
        unused.fill(0);
        Ok(!is_clear)
    })?;
    for child in children {
        clear_tree(child, widths, of_tables, pages, depth + 1)?;
    }
    for (root, widths) in tables {
        clear_tree(root, widths, false, pages, 0)?;
    }
    Ok(())
}
