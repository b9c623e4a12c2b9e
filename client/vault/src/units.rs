//! The database's storage: pages sealed in data units.
//!
//! ```text
//! unit n, 4,136 bytes every 4,608 = nonce 24 | XChaCha20-Poly1305(unit key, page n + 1) | tag 16
//! ```
//!
//! Invariants: a unit fills nine sectors of its own, so a torn sector never touches two units (VLT-52); every
//! unit of an owned region opens from creation on, as sealed zeros, so no map of used units exists (VLT-53);
//! page 0 lies in the superblocks. What is cut off the end is overwritten with sealed zeros (VLT-55).
//!
//! Known gaps: who has several images sees which units changed.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rand_core::CryptoRng;
use redb::StorageBackend;

use crate::{
    backend::Backend,
    geometry::{Geometry, PAGE_LEN},
    kdf::subkey,
    labels,
    memory::Secret,
    payload::Grant,
    sector::{self, FillRng, Place, SEAL_OVERHEAD},
    superblock::SuperblockPair,
};

const UNIT_LEN: usize = PAGE_LEN + SEAL_OVERHEAD;
const PAGE: u64 = PAGE_LEN as u64;

/// The pages of one volume.
pub(crate) struct Units {
    backend: Arc<dyn Backend>,
    geometry: Geometry,
    grant: Grant,
    key: Secret<32>,
    state: Mutex<State>,
    /// Pages written since this was opened: an upper bound of how much the database grew.
    written: AtomicU64,
    failed: AtomicBool,
    /// While the database is walked: which pages it read or wrote.
    touched: Mutex<Option<Vec<bool>>>,
}

struct State {
    superblocks: SuperblockPair,
    rng: FillRng,
}

impl Units {
    /// Seals zeros into every unit of the region, and superblocks of an empty volume; the caller syncs.
    pub(crate) fn create(
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let key = subkey(&grant.key.0, labels::UNITS);
        let mut stored = [0; UNIT_LEN];
        for unit in 0..geometry.unit_count() {
            seal_unit(&key, unit, &[0; PAGE_LEN], &mut stored, rng)?;
            backend.write_at(geometry.unit(grant.region, unit), &stored)?;
            progress(crate::geometry::UNIT_STRIDE);
        }
        SuperblockPair::create(backend, geometry, grant, rng)
    }

    /// `None` when no superblock authenticates.
    pub(crate) fn open(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: Grant,
        rng: FillRng,
    ) -> io::Result<Option<Self>> {
        let capacity = capacity(&geometry);
        let Some(superblocks) = SuperblockPair::open(&*backend, &geometry, &grant, capacity)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            key: subkey(&grant.key.0, labels::UNITS),
            backend,
            geometry,
            grant,
            state: Mutex::new(State { superblocks, rng }),
            written: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            touched: Mutex::new(None),
        }))
    }

    /// Bytes the database may have in all.
    pub(crate) fn capacity(&self) -> u64 {
        capacity(&self.geometry)
    }

    pub(crate) fn virtual_len(&self) -> u64 {
        self.state().superblocks.current.len
    }

    /// Gives the database the whole region. Only between two openings: redb takes a length that grew while
    /// it was closed, and would double, and so overshoot, while it is open.
    pub(crate) fn extend_to_capacity(&self) -> io::Result<()> {
        let capacity = self.capacity();
        self.state().superblocks.set_len(capacity);
        self.sync_data()
    }

    /// From now on, notes which pages the database reads or writes.
    pub(crate) fn note_touched(&self) {
        let units = usize::try_from(self.geometry.unit_count()).unwrap_or(0);
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Some(vec![false; units]);
    }

    /// Seals zeros over every unit that was not touched since [`note_touched`](Self::note_touched), and
    /// syncs. The database must be closed, and must have walked all its trees in between.
    pub(crate) fn wipe_untouched(&self) -> io::Result<()> {
        let noted = self.touched.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(touched) = noted else { return Ok(()) };
        let mut state = self.state();
        for (page, touched) in (1..).zip(touched) {
            if touched {
                continue;
            }
            self.wipe_page(page, &mut state.rng)?;
        }
        self.backend.sync()
    }

    fn note(&self, unit: u64) {
        if let Some(touched) = &mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(mark) = usize::try_from(unit).ok().and_then(|unit| touched.get_mut(unit))
        {
            *mark = true;
        }
    }

    pub(crate) fn pages_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether a call failed: redb then refuses writes until it is opened again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noting<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn read_page(&self, page: u64, out: &mut [u8]) -> io::Result<()> {
        let unit = page - 1;
        self.note(unit);
        let mut stored = [0; UNIT_LEN];
        self.backend.read_at(self.geometry.unit(self.grant.region, unit), &mut stored)?;
        if sector::open_into(&self.key, Place::single(unit), &stored, out) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a unit does not authenticate"))
        }
    }

    fn write_page(&self, page: u64, bytes: &[u8], rng: &mut dyn CryptoRng) -> io::Result<()> {
        let unit = page - 1;
        self.note(unit);
        let mut stored = [0; UNIT_LEN];
        seal_unit(&self.key, unit, bytes, &mut stored, rng)?;
        self.written.fetch_add(1, Ordering::Relaxed);
        self.backend.write_at(self.geometry.unit(self.grant.region, unit), &stored)
    }

    /// Seals zeros over a page that nothing leads to, unless it holds zeros already. A power cut may have left
    /// such a page torn: one that does not open is overwritten as well.
    fn wipe_page(&self, page: u64, rng: &mut dyn CryptoRng) -> io::Result<()> {
        let mut whole = zeroize::Zeroizing::new([0; PAGE_LEN]);
        match self.read_page(page, whole.as_mut_slice()) {
            Ok(()) if whole.iter().all(|byte| *byte == 0) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
            Ok(()) | Err(_) => self.write_page(page, &[0; PAGE_LEN], rng),
        }
    }

    fn read_range(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        let mut position = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let (page, start, take) = piece(position, rest.len());
            let (part, remaining) = rest.split_at_mut(take);
            if page == 0 {
                part.copy_from_slice(&self.state().superblocks.current.page[start..start + take]);
            } else if take == PAGE_LEN {
                self.read_page(page, part)?;
            } else {
                let mut whole = zeroize::Zeroizing::new([0; PAGE_LEN]);
                self.read_page(page, whole.as_mut_slice())?;
                part.copy_from_slice(&whole[start..start + take]);
            }
            position += take as u64;
            rest = remaining;
        }
        Ok(())
    }

    fn write_range(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len())?;
        let mut state = self.state();
        let mut position = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, start, take) = piece(position, rest.len());
            let (part, remaining) = rest.split_at(take);
            if page == 0 {
                if !state.superblocks.write_page(start, part) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            } else if take == PAGE_LEN {
                self.write_page(page, part, &mut state.rng)?;
            } else {
                let mut whole = zeroize::Zeroizing::new([0; PAGE_LEN]);
                self.read_page(page, whole.as_mut_slice())?;
                whole[start..start + take].copy_from_slice(part);
                self.write_page(page, whole.as_slice(), &mut state.rng)?;
            }
            position += take as u64;
            rest = remaining;
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.virtual_len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        if len > self.capacity() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the region is full"));
        }
        if !len.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.state();
        // VLT-55: what is cut off is overwritten, so growing again finds zeros and old rows are gone.
        for page in (len / PAGE).max(1)..state.superblocks.current.len / PAGE {
            self.wipe_page(page, &mut state.rng)?;
        }
        state.superblocks.set_len(len);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        let State { superblocks, rng } = &mut *state;
        superblocks.write(&*self.backend, &self.geometry, rng)?;
        self.backend.sync()?;
        superblocks.synced();
        Ok(())
    }
}

fn capacity(geometry: &Geometry) -> u64 {
    (geometry.unit_count() + 1) * PAGE
}

/// Page, offset in it, and how much of `len` lies in it.
fn piece(position: u64, len: usize) -> (u64, usize, usize) {
    let start = usize::try_from(position % PAGE).unwrap_or(0);
    (position / PAGE, start, len.min(PAGE_LEN - start))
}

fn seal_unit(
    key: &Secret<32>,
    unit: u64,
    page: &[u8],
    stored: &mut [u8; UNIT_LEN],
    rng: &mut dyn CryptoRng,
) -> io::Result<()> {
    if sector::seal_into(key, Place::single(unit), page, stored, rng) {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Units(..)")
    }
}

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
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.noting(self.0.write_range(offset, data))
    }
}

impl Units {
    fn sync_data(&self) -> io::Result<()> {
        self.noting(self.flush())
    }
}
