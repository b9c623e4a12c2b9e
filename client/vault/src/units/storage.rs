//! What the database sees: a file of bytes.

use std::{io, sync::Arc};

use redb::StorageBackend;

use super::{PAGE, Units};
use crate::{btree, geometry::PAGE_LEN};

/// redb wants to own its storage; the volume keeps a second handle to watch it.
#[derive(Debug, Clone)]
pub(crate) struct SharedUnits(pub(crate) Arc<Units>);

impl StorageBackend for SharedUnits {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.virtual_len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.noting(self.0.read_range(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.noting(self.0.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.noting(self.0.flush())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.noting(self.0.write_range(offset, data))
    }
}

impl Units {
    fn read_range(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        let mut position = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let (page, start, take) = piece(position, rest.len());
            let (part, remaining) = rest.split_at_mut(take);
            if page == 0 {
                part.copy_from_slice(&self.state().superblocks.current.page[start..start + take]);
            } else {
                self.read_page(page, start, part)?;
            }
            position += take as u64;
            rest = remaining;
        }
        Ok(())
    }

    /// The database writes page 0 in parts, and every other page whole: one call is one page of its trees.
    fn write_range(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len())?;
        let mut state = self.state();
        let (page, start, take) = piece(offset, bytes.len());
        if page == 0 {
            let whole = start == 0 || take == bytes.len();
            let written = whole && take == bytes.len() && state.superblocks.write_page(start, bytes);
            return if written { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) };
        }
        if start != 0 || !bytes.len().is_multiple_of(PAGE_LEN) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for ((page, part), number) in (page..).zip(bytes.chunks_exact(PAGE_LEN)).zip(0..) {
            self.write_page(&mut state, page, part, number == 0 && btree::is_branch(part))?;
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.virtual_len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Page, offset in it, and how much of `len` lies in it.
fn piece(position: u64, len: usize) -> (u64, usize, usize) {
    let start = usize::try_from(position % PAGE).unwrap_or(0);
    (position / PAGE, start, len.min(PAGE_LEN - start))
}
