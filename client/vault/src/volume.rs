//! A volume: a database and a key table in one region.
//!
//! Invariants: every commit is a two-phase commit, because one-phase commits lose the database in a power cut
//! on this storage (VLT-54); writing stops at 80 % of the region, before a full database could no longer
//! delete (VLT-56).
//!
//! Known gaps: a transaction that is itself larger than the room that is left fails with `Full` at some
//! operation or at its commit; it is then gone as a whole, and the volume goes on.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{Builder, Database};

use crate::{
    backend::Backend,
    error::VolumeError,
    geometry::{Geometry, PAGE_LEN},
    keytable::KeyTable,
    payload::{Grant, VolumeId},
    sector::FillRng,
    units::{SharedUnits, Units},
};

/// Plaintext the database may cache, in bytes. redb's own default of 1 GiB would hold the whole volume.
const CACHE_LEN: usize = 8 << 20;
/// Of the region's capacity, what ordinary writing may use: a full database cannot delete any more.
const SOFT_LIMIT_PERCENT: u64 = 80;
/// Growth past a known size that is tolerated before it is measured again, in percent of the capacity:
/// measuring reads every page.
const MEASURE_STEP_PERCENT: u64 = 2;
/// Free pages below which the database is given the rest of its region: a quarter of it. A single transaction
/// of that size fits whenever the region has the room; a larger one may have to be repeated after `Full`.
const HEADROOM_SHARE: u64 = 4;
const PAGE: u64 = PAGE_LEN as u64;

/// An open volume. Dropping it closes the database.
///
/// Transactions keep the volume in use: end them before [`Volume::compact_and_scrub`].
pub struct Volume {
    id: VolumeId,
    opener: Opener,
    state: Mutex<State>,
    keys: KeyTable,
    /// Held until the volume is closed: it marks the volume as open, and keeps the container's lock.
    _open: Box<dyn Send + Sync>,
}

/// All it takes to open the database again.
struct Opener {
    backend: Arc<dyn Backend>,
    geometry: Geometry,
    grant: Grant,
    rng: Mutex<FillRng>,
}

struct State {
    database: Option<Opened>,
    /// One clone is in every live transaction.
    live: Arc<()>,
}

struct Opened {
    database: Arc<Database>,
    units: Arc<Units>,
    /// Pages in use when they were last counted, and the pages written up to then.
    measured: Option<(u64, u64)>,
}

/// How full a volume is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In use now, including what deleted rows hold until the next commits.
    pub used: u64,
    /// Past this, [`Volume::begin_write`] refuses.
    pub soft_limit: u64,
    /// What the region holds at the very most.
    pub capacity: u64,
}

impl Volume {
    /// Makes the empty database of a new volume. Its units, superblocks and key table exist already.
    pub(crate) fn create_database(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: Grant,
        rng: FillRng,
    ) -> Result<(), VolumeError> {
        let units = Units::open(backend, geometry, grant, rng)?.ok_or(VolumeError::Damaged)?;
        let database = builder().create_with_backend(SharedUnits(Arc::new(units))).map_err(database_error)?;
        database.close().map_err(database_error)
    }

    pub(crate) fn open(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: Grant,
        mut rng: FillRng,
        open: Box<dyn Send + Sync>,
    ) -> Result<Self, VolumeError> {
        let table_rng = FillRng::seeded(&mut rng);
        let keys = KeyTable::open(Arc::clone(&backend), geometry, &grant, table_rng)?;
        let id = grant.key.id();
        let opener = Opener { backend, geometry, grant, rng: Mutex::new(rng) };
        let opened = opener.open(false)?;
        let state = Mutex::new(State { database: Some(opened), live: Arc::new(()) });
        Ok(Self { id, opener, state, keys, _open: open })
    }

    /// Which volume this is.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// A consistent view of everything committed so far. Never blocks, and works in a full volume.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Damaged`] when a unit does not authenticate, else the database's error.
    pub fn begin_read(&self) -> Result<ReadTransaction, VolumeError> {
        let mut state = self.state();
        // After a failed write redb still reads what was committed; only a writer needs it opened anew.
        if state.database.is_none() {
            self.reopen(&mut state, false)?;
        }
        let database = &state.database.as_ref().ok_or(VolumeError::Damaged)?.database;
        let transaction = redb::ReadableDatabase::begin_read(&**database).map_err(database_error)?;
        Ok(ReadTransaction { transaction, _live: Arc::clone(&state.live) })
    }

    /// The one write transaction; waits for another one to end. All of it is committed, or nothing.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Full`] when the volume is past its soft limit.
    pub fn begin_write(&self) -> Result<WriteTransaction, VolumeError> {
        self.begin(true)
    }

    /// A write transaction for deleting: it is allowed past the soft limit. Delete in small batches.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn begin_cleanup(&self) -> Result<WriteTransaction, VolumeError> {
        self.begin(false)
    }

    /// The keys that outlive sessions and can be destroyed one by one.
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// How full the volume is. Waits for a write transaction to end, and reads the whole database.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn usage(&self) -> Result<Usage, VolumeError> {
        let transaction = self.begin(false)?;
        let pages = transaction.transaction.stats().map_err(database_error)?.allocated_pages();
        let capacity = self.capacity_pages() * PAGE;
        transaction.abort()?;
        Ok(Usage { used: pages * PAGE, soft_limit: soft_limit(capacity), capacity })
    }

    /// Packs the database if there is room for that, and overwrites everything that is not live, so that
    /// deleted rows cannot be read from the file even with the volume's key (VLT-57). For locking and idle
    /// times: it reads the whole region, and writes up to all of it.
    ///
    /// # Errors
    ///
    /// [`VolumeError::InUse`] while a transaction or a savepoint is alive, else the database's error; it can
    /// be repeated.
    pub fn compact_and_scrub(&self) -> Result<(), VolumeError> {
        let mut state = self.state();
        if Arc::strong_count(&state.live) != 1 {
            return Err(VolumeError::InUse);
        }
        if self.must_reopen(&state) {
            self.reopen(&mut state, true)?;
        }
        let opened = state.database.take().ok_or(VolumeError::Damaged)?;
        let scrubbed = opened.close(self.capacity_pages()).and_then(|()| self.opener.scrub());
        // Whatever came of it, the volume goes on with what is on the disk.
        state.database = Some(self.opener.open(false)?);
        scrubbed
    }

    fn begin(&self, within_limit: bool) -> Result<WriteTransaction, VolumeError> {
        // Two rounds: a database that is to get more room is opened anew in between.
        for round in 0..2 {
            let (database, live) = {
                let mut state = self.state();
                if self.must_reopen(&state) {
                    self.reopen(&mut state, true)?;
                }
                let opened = state.database.as_ref().ok_or(VolumeError::Damaged)?;
                (Arc::clone(&opened.database), Arc::clone(&state.live))
            };
            // Not under the lock: this waits for another writer, who may need it to finish.
            let mut transaction = database.begin_write().map_err(database_error)?;
            drop(database);
            // VLT-54.
            transaction.set_two_phase_commit(true);
            let transaction = WriteTransaction { transaction, _live: live };
            match self.room(&transaction, within_limit)? {
                Room::Enough => return Ok(transaction),
                Room::PastLimit => {
                    transaction.abort()?;
                    return Err(VolumeError::Full);
                }
                Room::NeedsRegion => {
                    let mut state = self.state();
                    // Another transaction may be alive; then this one makes do with the room there is.
                    if round > 0 || Arc::strong_count(&state.live) != 2 {
                        return Ok(transaction);
                    }
                    transaction.abort()?;
                    self.reopen(&mut state, true)?;
                }
            }
        }
        Err(VolumeError::Full)
    }

    /// Estimates from the pages written since the last count, and counts when the estimate runs out.
    fn room(&self, transaction: &WriteTransaction, within_limit: bool) -> Result<Room, VolumeError> {
        let capacity = self.capacity_pages();
        let limit = soft_limit(capacity);
        let headroom = capacity / HEADROOM_SHARE;
        let mut state = self.state();
        let opened = state.database.as_mut().ok_or(VolumeError::Damaged)?;
        let written = opened.units.pages_written();
        let len = opened.units.virtual_len() / PAGE;
        // Doubling past the region fails: before that, the database is given the region's exact length.
        let can_grow = len >= capacity || len * 2 <= capacity;
        let enough = |used: u64| (!within_limit || used < limit) && (can_grow || used + headroom < len);
        if let Some((used, at)) = opened.measured {
            let grown = written - at;
            let tolerated = grown < capacity * MEASURE_STEP_PERCENT / 100 && enough(used);
            if enough(used + grown) || tolerated {
                return Ok(Room::Enough);
            }
        }
        let used = transaction.transaction.stats().map_err(database_error)?.allocated_pages();
        opened.measured = Some((used, written));
        Ok(match enough(used) {
            true => Room::Enough,
            false if within_limit && used >= limit => Room::PastLimit,
            false => Room::NeedsRegion,
        })
    }

    fn must_reopen(&self, state: &State) -> bool {
        state.database.as_ref().is_none_or(|opened| opened.units.has_failed())
    }

    fn reopen(&self, state: &mut State, extend: bool) -> Result<(), VolumeError> {
        if Arc::strong_count(&state.live) != 1 {
            return Err(VolumeError::InUse);
        }
        state.database = None;
        state.database = Some(self.opener.open(extend)?);
        Ok(())
    }

    fn capacity_pages(&self) -> u64 {
        self.opener.geometry.unit_count() + 1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Volume(..)")
    }
}

enum Room {
    Enough,
    PastLimit,
    NeedsRegion,
}

impl Opener {
    /// VLT-57: walks every tree of the closed database; the units that no tree leads to are wiped.
    fn scrub(&self) -> Result<(), VolumeError> {
        let units = Arc::new(self.units()?);
        units.note_touched();
        let mut database =
            builder().create_with_backend(SharedUnits(Arc::clone(&units))).map_err(database_error)?;
        let whole = database.check_integrity().map_err(database_error)?;
        database.close().map_err(database_error)?;
        if !whole || units.has_failed() {
            return Err(VolumeError::Damaged);
        }
        Ok(units.wipe_untouched()?)
    }

    fn units(&self) -> Result<Units, VolumeError> {
        let rng = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            FillRng::seeded(&mut *rng)
        };
        let units = Units::open(Arc::clone(&self.backend), self.geometry, self.grant.duplicate(), rng)?
            .ok_or(VolumeError::Damaged)?;
        // A volume always has a database; redb would silently make a new one in an empty storage.
        if units.virtual_len() == 0 {
            return Err(VolumeError::Damaged);
        }
        Ok(units)
    }

    fn open(&self, extend: bool) -> Result<Opened, VolumeError> {
        let units = self.units()?;
        if extend && units.virtual_len() < units.capacity() {
            units.extend_to_capacity()?;
        }
        let units = Arc::new(units);
        let database =
            builder().create_with_backend(SharedUnits(Arc::clone(&units))).map_err(database_error)?;
        Ok(Opened { database: Arc::new(database), units, measured: None })
    }
}

impl Opened {
    /// Packs the database, if there is room to do so, and closes it.
    fn close(self, capacity: u64) -> Result<(), VolumeError> {
        let Self { database, units, measured: _ } = self;
        let mut database = Arc::try_unwrap(database).map_err(|_| VolumeError::InUse)?;
        let transaction = database.begin_write().map_err(database_error)?;
        let used = transaction.stats().map_err(database_error)?.allocated_pages();
        let savepoints = transaction.list_persistent_savepoints().map_err(database_error)?.count();
        transaction.abort().map_err(database_error)?;
        // What a savepoint holds is walked by nobody, and would be wiped.
        if savepoints > 0 {
            return Err(VolumeError::InUse);
        }
        // Packing cuts the length to what is in use and doubles it from there, which must stay in the region.
        if used * 5 < capacity * 2 {
            while database.compact().map_err(database_error)? {}
        }
        database.close().map_err(database_error)?;
        if units.has_failed() { Err(VolumeError::Damaged) } else { Ok(()) }
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_LEN);
    builder
}

fn soft_limit(capacity: u64) -> u64 {
    capacity / 100 * SOFT_LIMIT_PERCENT + capacity % 100 * SOFT_LIMIT_PERCENT / 100
}

/// A consistent view of the database: redb's read transaction.
pub struct ReadTransaction {
    transaction: redb::ReadTransaction,
    _live: Arc<()>,
}

impl Deref for ReadTransaction {
    type Target = redb::ReadTransaction;

    fn deref(&self) -> &redb::ReadTransaction {
        &self.transaction
    }
}

impl fmt::Debug for ReadTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadTransaction(..)")
    }
}

/// The write transaction: redb's, without the means to weaken its durability. Dropping it undoes it.
pub struct WriteTransaction {
    transaction: redb::WriteTransaction,
    _live: Arc<()>,
}

impl WriteTransaction {
    /// Makes everything durable, in two phases; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Full`] when it did not fit, else the database's error. Nothing was committed, and the
    /// volume can be used further; after an error of the disk itself it may have been committed after all,
    /// which the next read shows.
    pub fn commit(self) -> Result<(), VolumeError> {
        let Self { transaction, _live } = self;
        transaction.commit().map_err(database_error)
    }

    /// Undoes everything.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn abort(self) -> Result<(), VolumeError> {
        let Self { transaction, _live } = self;
        transaction.abort().map_err(database_error)
    }
}

/// Only shared access: tables can be opened, the kind of commit cannot be changed.
impl Deref for WriteTransaction {
    type Target = redb::WriteTransaction;

    fn deref(&self) -> &redb::WriteTransaction {
        &self.transaction
    }
}

impl fmt::Debug for WriteTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteTransaction(..)")
    }
}

fn database_error(error: impl Into<redb::Error>) -> VolumeError {
    VolumeError::from_database(error.into())
}

impl From<redb::Error> for VolumeError {
    fn from(error: redb::Error) -> Self {
        Self::from_database(error)
    }
}

impl From<redb::StorageError> for VolumeError {
    fn from(error: redb::StorageError) -> Self {
        database_error(error)
    }
}

impl From<redb::TableError> for VolumeError {
    fn from(error: redb::TableError) -> Self {
        database_error(error)
    }
}
