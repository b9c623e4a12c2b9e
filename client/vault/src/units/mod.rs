//! The database's storage: pages sealed in data units.
//!
//! ```text
//! unit n, 4,136 bytes every 4,608 = nonce 24 | XChaCha20-Poly1305(unit key, page n + 1) | tag 16
//! ```
//!
//! Invariants: a unit fills nine sectors of its own, so a torn sector never touches two units (VLT-52); every
//! unit of an owned region opens from creation on, as sealed zeros, so no map of used units exists (VLT-53);
//! page 0 lies in the superblocks. Nothing is written before the database has a page to write: opening, reading and
//! closing leave the disk as it is (VLT-58). From the first page on the superblock says that the region is not
//! scrubbed, and says so on the disk before any page is there; when the database is closed, zeros are sealed over
//! every unit that held something and is live no more, and only then the superblock says that it is scrubbed
//! (VLT-57). Pages leave for the disk when the database syncs, with zeros behind their used part (VLT-59).
//!
//! Known gaps: who has several images sees which units changed.

mod copy;
mod sealed;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rand_core::CryptoRng;

use crate::{
    backend::Backend,
    btree::{self, HeaderPage, Leaves, Malformed, PageRef, SLOTS_END, Unsettled},
    geometry::{Geometry, PAGE_LEN},
    memory::Wiped,
    pageset::PageSet,
    payload::Grant,
    sector::FillRng,
    superblock::{Superblock, SuperblockPair},
};

pub(crate) use copy::{copy, is_same};
use sealed::{SealedUnits, whole_page};
pub(crate) use storage::SharedUnits;

const PAGE: u64 = PAGE_LEN as u64;
/// Pages that wait in memory for the next sync: 4 MiB, as much as the database itself keeps back. Past it they are
/// written at once, and read again if they are found to need clearing.
const WAITING_MAX: usize = 1024;

/// The pages of one volume.
pub(crate) struct Units {
    disk: SealedUnits,
    state: Mutex<State>,
    /// Pages written since this was opened: an upper bound of how much the database grew.
    written: AtomicU64,
    failed: AtomicBool,
    /// The last call that failed may have made a commit count.
    uncertain: AtomicBool,
    /// A session that did not end had the volume before.
    left_open: bool,
}

struct State {
    superblocks: SuperblockPair,
    rng: FillRng,
    /// Pages that wait for the next sync.
    waiting: BTreeMap<u64, Wiped>,
    /// Pages written since the last commit was settled, waiting or not.
    fresh: PageSet,
    /// Page 0 as it was at the opening.
    opened: Box<[u8; PAGE_LEN]>,
    /// Page 0, up to the end of its slots, when the last commit was settled.
    settled: Vec<u8>,
    /// Since the first page went to the disk: which units may hold something, live or not. Those that were live
    /// before, and those written since.
    traces: Option<PageSet>,
    /// Units written since the opening that hold the first part of a branch page.
    branches: PageSet,
    /// Something was written to the disk since the last sync.
    unsynced: bool,
    phase: Phase,
}

/// What may lie in units, live or not: what the next scrub looks at.
pub(crate) struct Traces {
    units: PageSet,
    branches: PageSet,
}

/// Where the life of an opened volume stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The database closes: its last change of page 0 waits until the region is scrubbed.
    Closing,
    /// The database closes, and nothing was written before: what it writes is forgotten.
    Forgetting,
}

/// What a sync of the database finds in page 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// No commit.
    Nothing,
    /// A commit that does not count yet: the next sync makes it count.
    FirstPhase,
    /// A commit that counts already.
    Counts,
}

impl Traces {
    /// Nothing was written yet, and what is written now is not to be forgotten at the close.
    pub(crate) fn none(geometry: &Geometry) -> Self {
        let units = PageSet::empty(geometry.unit_count());
        Self { branches: units.clone(), units }
    }
}

impl Units {
    /// Seals zeros into every unit of the region, and superblocks of an empty volume; the caller syncs.
    pub(crate) fn create(
        backend: &Arc<dyn Backend>,
        geometry: Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let disk = SealedUnits::new(Arc::clone(backend), geometry, grant.duplicate());
        for unit in 0..geometry.unit_count() {
            disk.wipe(unit, rng)?;
            progress(crate::geometry::UNIT_STRIDE);
        }
        SuperblockPair::create(&**backend, &geometry, grant, rng)
    }

    /// `None` when no superblock authenticates. `traces` are those of the opening before, if this one goes on where
    /// that one failed: then the region is not scrubbed, and the next scrub knows where to look. What a session that did
    /// not end left elsewhere in the region is completed by `before_scrub`: after it the disk says that nothing is left.
    pub(crate) fn open(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: Grant,
        rng: FillRng,
        traces: Option<Traces>,
        before_scrub: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Option<Self>> {
        let capacity = capacity(&geometry);
        let read = || SuperblockPair::open(&*backend, &geometry, &grant, capacity);
        let found = match read()? {
            Some(found) if traces.is_none() && found.current.scrubbed => Some(found),
            // VLT-66: what a session left that did not end may lie in the system's copy alone.
            _ => {
                backend.sync()?;
                backend.forget_copy();
                read()?
            }
        };
        let Some(superblocks) = found else { return Ok(None) };
        let left_open = traces.is_some() || !superblocks.current.scrubbed;
        let opened = superblocks.current.page.clone();
        let settled = superblocks.current.page[..SLOTS_END].to_vec();
        let (traces, branches) = match traces {
            Some(Traces { units, branches }) => (Some(units), branches),
            None => (None, PageSet::empty(geometry.unit_count())),
        };
        let units = Self {
            disk: SealedUnits::new(backend, geometry, grant),
            state: Mutex::new(State {
                superblocks,
                rng,
                waiting: BTreeMap::new(),
                fresh: PageSet::empty(geometry.unit_count()),
                opened,
                settled,
                traces,
                branches,
                unsynced: false,
                phase: Phase::Open,
            }),
            written: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            uncertain: AtomicBool::new(false),
            left_open,
        };
        units.make_ready(before_scrub)?;
        Ok(Some(units))
    }

    /// Scrubs what a session left that did not end, and gives the database its whole region.
    fn make_ready(&self, before_scrub: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let Superblock { scrubbed, page, generation: _, len: _ } = &state.superblocks.current;
        let (scrubbed, closed) = (*scrubbed, HeaderPage(page).is_closed());
        if state.traces.is_none() && !scrubbed {
            before_scrub()?;
            self.scrub_everything(&mut state)?;
        } else if state.traces.is_none() && !closed {
            // As earlier programs left it that scrubbed after a session that did not end.
            self.say_scrubbed(&mut state)?;
        }
        let superblocks = &mut state.superblocks;
        if HeaderPage(&superblocks.current.page).exists() {
            // In memory: on the disk with the first page that is written. After a power cut the database takes the
            // length for granted, and works out the rest from it.
            let pages = self.disk.geometry.unit_count();
            superblocks.edit_page(|page| btree::set_pages(page, pages))?;
            superblocks.set_len(self.capacity());
        }
        Ok(())
    }

    /// Bytes the database may have in all.
    pub(crate) fn capacity(&self) -> u64 {
        capacity(&self.disk.geometry)
    }

    pub(crate) fn virtual_len(&self) -> u64 {
        self.state().superblocks.current.len
    }

    pub(crate) fn pages_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether a call failed: redb then refuses writes until it is opened again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether the call that failed may have made a commit count: what the database shows is what was there before.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain.load(Ordering::Acquire)
    }

    /// Whether this goes on where a session did not end: what its last commit replaced may still wait to be freed.
    pub(crate) const fn was_left_open(&self) -> bool {
        self.left_open
    }

    /// Units that the last commit leads to. No commit may happen meanwhile.
    pub(crate) fn live_units(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(self.live(&state, &state.superblocks.current.page)?.count())
    }

    /// Where a later scrub has to look, if anything was written.
    pub(crate) fn traces(&self) -> Option<Traces> {
        let state = self.state();
        let units = state.traces.clone()?;
        Some(Traces { units, branches: state.branches.clone() })
    }

    /// The database is about to close.
    pub(crate) fn begin_close(&self) {
        let mut state = self.state();
        state.phase = if state.traces.is_some() { Phase::Closing } else { Phase::Forgetting };
    }

    /// The database is closed: scrubs, and lets the superblock say so. Two syncs, if anything was written; nothing
    /// otherwise.
    pub(crate) fn finish_close(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.phase == Phase::Forgetting {
            return Ok(());
        }
        if !HeaderPage(&state.superblocks.current.page).is_closed() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // VLT-57: what may hold something, less what is live.
        let live = self.live(&state, &state.superblocks.current.page)?;
        let State { rng, traces, .. } = &mut *state;
        let Some(mut stale) = traces.clone() else { return Ok(()) };
        stale.remove(&live);
        for unit in stale.iter() {
            self.disk.wipe(unit, rng)?;
        }
        self.disk.backend.sync()?;
        self.say_scrubbed(&mut state)
    }

    /// Reads the whole region, and seals zeros over what is not live and not zeros.
    fn scrub_everything(&self, state: &mut State) -> io::Result<()> {
        let page = &state.superblocks.current.page;
        let live = match self.walk(state, page, Leaves::Read) {
            // A page that rotted costs what lies in it. It stays, and so does everything else.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.walk(state, page, Leaves::Skip)?
            }
            live => live?,
        };
        for unit in (0..self.disk.geometry.unit_count()).filter(|unit| !live.contains(*unit)) {
            self.disk.wipe_unless_zeros(unit, &mut state.rng)?;
        }
        self.disk.backend.sync()?;
        self.say_scrubbed(state)
    }

    /// Of page 0 as the disk has it, or as the database left it when it closed: all that it leads to is on the disk, so
    /// the database has nothing to recover (VLT-57).
    fn say_scrubbed(&self, state: &mut State) -> io::Result<()> {
        state.superblocks.set_scrubbed(true);
        state.superblocks.set_closed();
        self.write_superblock(state)?;
        self.sync(state)?;
        state.traces = None;
        state.branches.clear();
        Ok(())
    }

    /// What the last commit of this page 0 leads to. Reads leaves only if the trees are less even than they should be.
    fn live(&self, state: &State, page: &[u8; PAGE_LEN]) -> io::Result<PageSet> {
        match self.walk(state, page, Leaves::Skip) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.walk(state, page, Leaves::Read),
            live => live,
        }
    }

    fn walk(&self, state: &State, page: &[u8; PAGE_LEN], leaves: Leaves) -> io::Result<PageSet> {
        let mut live = PageSet::empty(self.disk.geometry.unit_count());
        let roots = HeaderPage(page).primary()?;
        let known_branch = |unit| state.branches.contains(unit);
        btree::mark_live(roots, &mut &self.disk, leaves, &known_branch, &mut live)?;
        Ok(live)
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

    /// A page other than page 0, or the part of it from `start` on.
    fn read_page(&self, page: u64, start: usize, out: &mut [u8]) -> io::Result<()> {
        if let Some(waiting) = self.state().waiting.get(&(page - 1)) {
            out.copy_from_slice(&waiting[start..start + out.len()]);
            return Ok(());
        }
        if out.len() == PAGE_LEN {
            return self.disk.read(page - 1, out);
        }
        let mut whole = Wiped::zeros(PAGE_LEN);
        self.disk.read(page - 1, &mut whole)?;
        out.copy_from_slice(&whole[start..start + out.len()]);
        Ok(())
    }

    fn write_page(&self, state: &mut State, page: u64, bytes: &[u8], branch: bool) -> io::Result<()> {
        state.branches.set(page - 1, branch);
        state.waiting.insert(page - 1, bytes.into());
        state.fresh.insert(page - 1);
        self.written.fetch_add(1, Ordering::Relaxed);
        if state.waiting.len() > WAITING_MAX && state.phase != Phase::Forgetting {
            self.write_out(state)?;
        }
        Ok(())
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        if len > self.capacity() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the region is full"));
        }
        if !len.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // VLT-55: what is cut off is stale like everything that is not live, and found by the scrub.
        self.state().superblocks.set_len(len);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.phase == Phase::Forgetting || state.traces.is_none() && state.waiting.is_empty() {
            // VLT-58: nothing but marks of being open.
            return Ok(());
        }
        let settled = self.settle(&mut state)?;
        self.write_out(&mut state)?;
        match settled {
            // The second phase writes page 0 with all that the first one changed in it. Until then the disk has that
            // of the last commit, and pages that nothing leads to.
            Settled::FirstPhase => return self.sync(&mut state),
            // Packing commits in one phase: its pages are on the disk before page 0 leads to them (VLT-54).
            Settled::Counts => self.sync(&mut state)?,
            Settled::Nothing => {}
        }
        if state.phase == Phase::Closing && HeaderPage(&state.superblocks.current.page).is_closed() {
            return Ok(());
        }
        let done = self.write_superblock(&mut state).and_then(|()| self.sync(&mut state));
        if done.is_err() {
            self.uncertain.store(true, Ordering::Release);
        }
        done
    }

    /// VLT-59: a slot that changed is a commit whose pages have all been handed over. None of them counts on the disk
    /// yet: they can still be changed, whatever happens to the power.
    fn settle(&self, state: &mut State) -> io::Result<Settled> {
        let page = state.superblocks.current.page.clone();
        let changed: Vec<usize> = (0..2)
            .filter(|slot| {
                let slot = btree::slot_range(*slot);
                state.settled.get(slot.clone()) != page.get(slot)
            })
            .collect();
        if changed.is_empty() {
            return Ok(Settled::Nothing);
        }
        let counts = changed.contains(&HeaderPage(&page).primary_slot());
        for slot in changed {
            let roots = HeaderPage(&page).slot(slot)?;
            btree::clear_unused(roots, &mut Handed { disk: &self.disk, state })?;
        }
        state.settled = page[..SLOTS_END].to_vec();
        state.fresh.clear();
        Ok(if counts { Settled::Counts } else { Settled::FirstPhase })
    }

    /// Seals the waiting pages into their units.
    fn write_out(&self, state: &mut State) -> io::Result<()> {
        if state.waiting.is_empty() {
            return Ok(());
        }
        if state.traces.is_none() {
            self.begin_writing(state)?;
        }
        let State { waiting, traces, rng, unsynced, .. } = state;
        let Some(traces) = traces else { return Ok(()) };
        *unsynced = true;
        for (unit, page) in &*waiting {
            traces.insert(*unit);
            self.disk.write(*unit, page, rng)?;
        }
        waiting.clear();
        Ok(())
    }

    /// VLT-57: before a page is on the disk, the disk says that the region is not scrubbed any more.
    fn begin_writing(&self, state: &mut State) -> io::Result<()> {
        let live = self.live(state, &state.opened)?;
        state.superblocks.set_scrubbed(false);
        self.write_superblock(state)?;
        self.sync(state)?;
        state.traces = Some(live);
        Ok(())
    }

    /// Something else of the region is about to be written: the disk says that it is not scrubbed when this returns.
    pub(crate) fn say_unscrubbed(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.traces.is_none() { self.begin_writing(&mut state) } else { Ok(()) }
    }

    fn write_superblock(&self, state: &mut State) -> io::Result<()> {
        let State { superblocks, rng, unsynced, .. } = state;
        *unsynced |= superblocks.write(&*self.disk.backend, &self.disk.geometry, rng)?;
        Ok(())
    }

    fn sync(&self, state: &mut State) -> io::Result<()> {
        if state.unsynced {
            self.disk.backend.sync()?;
            state.unsynced = false;
            state.superblocks.synced();
        }
        Ok(())
    }
}

/// Pages that the database has handed over.
struct Handed<'a> {
    disk: &'a SealedUnits,
    state: &'a mut State,
}

impl Handed<'_> {
    fn read(&self, page: PageRef) -> io::Result<Wiped> {
        let mut bytes = whole_page(page, self.disk.geometry.unit_count())?;
        for (unit, part) in page.units().zip(bytes.chunks_exact_mut(PAGE_LEN)) {
            match self.state.waiting.get(&unit) {
                Some(waiting) => part.copy_from_slice(waiting),
                None => self.disk.read(unit, part)?,
            }
        }
        Ok(bytes)
    }
}

impl Unsettled for Handed<'_> {
    fn is_new(&self, page: PageRef) -> bool {
        self.state.fresh.contains(page.first)
    }

    fn edit(
        &mut self,
        page: PageRef,
        edit: &mut dyn FnMut(&mut [u8]) -> Result<bool, Malformed>,
    ) -> io::Result<()> {
        // As a rule a page is one unit, and still waits: then it is changed where it lies.
        if page.count == 1
            && let Some(waiting) = self.state.waiting.get_mut(&page.first)
        {
            edit(waiting)?;
            return Ok(());
        }
        let mut bytes = self.read(page)?;
        if edit(&mut bytes)? {
            for (unit, part) in page.units().zip(bytes.chunks_exact(PAGE_LEN)) {
                self.state.waiting.insert(unit, part.into());
            }
        }
        Ok(())
    }
}

fn capacity(geometry: &Geometry) -> u64 {
    (geometry.unit_count() + 1) * PAGE
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Units(..)")
    }
}
