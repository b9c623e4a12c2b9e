//! A volume: a database and a key table in one region.
//!
//! Invariants: every commit is a two-phase commit, because one-phase commits lose the database in a power cut
//! on this storage (VLT-54); writing stops while there is still room for deleting, which copies before it frees
//! (VLT-56); a volume that is closed is scrubbed, and one that could not be is scrubbed when it is opened (VLT-57).
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
    keytable::{Held, KeyTable},
    payload::{Grant, VolumeId},
    sector::FillRng,
    units::{SharedUnits, Traces, Units},
};

/// Plaintext the database may cache, in bytes. redb's own default of 1 GiB would hold the whole volume.
const CACHE_LEN: usize = 8 << 20;
/// Of the region's capacity, what may be used before people should be told.
const WARN_PERCENT: u64 = 80;
/// Of the region's capacity, what ordinary writing leaves free: deleting copies pages before it frees them.
const RESERVE_PERCENT: u64 = 6;
/// Pages that ordinary writing leaves free in a small region, where the share above would be less.
const RESERVE_MIN: u64 = 48;
/// Which part of those pages small writing may take: deleting needs the others, twice what one commit replaces.
const SMALL_PART: u64 = 4;
/// Packing cuts the database to what is in use and doubles it from there, which must stay in the region.
const PACKABLE_PERCENT: u64 = 40;
const PAGE: u64 = PAGE_LEN as u64;

/// An open volume. Dropping it closes the database and scrubs what the session left, as [`Volume::close`] does, which
/// also tells whether that worked.
///
/// Transactions keep the volume in use: end them before [`Volume::scrub`] and before the volume is dropped.
///
/// # When to scrub
///
/// What was deleted or replaced can be read from the file, by who has the volume's key, until the volume is scrubbed.
/// Closing does it. A session that goes on for long calls [`Volume::scrub`] when it has nothing else to do, and at
/// once after a deletion that a person asked for. After a session that ended without closing, the next opening does it.
pub struct Volume {
    id: VolumeId,
    opener: Opener,
    state: Mutex<State>,
    keys: Arc<KeyTable>,
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
    /// The next commit frees what the last one replaced, this session's or that of one that did not end.
    owes: bool,
}

/// How full a volume is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub used: u64,
    /// Past this, people should be told: 80 % of the capacity.
    pub warn_at: u64,
    /// From here on [`Volume::begin_write`] refuses. What lies beyond is for deleting.
    pub limit: u64,
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
        let units =
            Units::open(backend, geometry, grant, rng, Some(Traces::none(&geometry)), &mut || Ok(()))?;
        let units = Arc::new(units.ok_or(VolumeError::Damaged)?);
        let database =
            builder().create_with_backend(SharedUnits(Arc::clone(&units))).map_err(database_error)?;
        Opened { database: Arc::new(database), units, measured: None, owes: false }.close()
    }

    pub(crate) fn open(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: Grant,
        mut rng: FillRng,
        open: Box<dyn Send + Sync>,
    ) -> Result<Self, VolumeError> {
        let table_rng = FillRng::seeded(&mut rng);
        let id = grant.key.id();
        let opener = Opener { backend: Arc::clone(&backend), geometry, grant, rng: Mutex::new(rng) };
        let keys = Arc::new(KeyTable::new(backend, geometry, &opener.grant, table_rng));
        let opened = opener.open(None, &mut keys.hold())?;
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
    /// [`VolumeError::Damaged`] when a unit does not authenticate; [`VolumeError::InUse`] after a commit of which nobody
    /// knows whether it counts, while a transaction from before it is alive; else the database's error.
    pub fn begin_read(&self) -> Result<ReadTransaction, VolumeError> {
        let mut state = self.state();
        // After a failed write redb still reads what was committed before. Unless that write may count (VLT-68), only a
        // writer needs it opened anew.
        if state.database.as_ref().is_none_or(|opened| opened.units.is_uncertain()) {
            self.reopen(&mut state)?;
        }
        let database = &state.database.as_ref().ok_or(VolumeError::Damaged)?.database;
        let transaction = redb::ReadableDatabase::begin_read(&**database).map_err(database_error)?;
        Ok(ReadTransaction { transaction, _live: Arc::clone(&state.live) })
    }

    /// The one write transaction; waits for another one to end. All of it is committed, or nothing.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Full`] when the volume is past its limit.
    pub fn begin_write(&self) -> Result<WriteTransaction, VolumeError> {
        let mut transaction = self.begin_below(self.limit())?;
        transaction.before = self.view_where_room_is_plenty()?;
        Ok(transaction)
    }

    /// A write transaction for what keeps a full volume usable: small, and allowed past the limit by a quarter of what
    /// the limit leaves. The rest is for deleting.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Full`] when that quarter is used too.
    pub fn begin_small(&self) -> Result<WriteTransaction, VolumeError> {
        let limit = self.limit();
        self.begin_below(limit + (self.capacity_pages() - limit) / SMALL_PART)
    }

    fn begin_below(&self, limit: u64) -> Result<WriteTransaction, VolumeError> {
        let transaction = self.begin()?;
        if self.is_past(limit)? {
            transaction.abort()?;
            return Err(VolumeError::Full);
        }
        Ok(transaction)
    }

    /// A write transaction for deleting: it is allowed past the limit, to the last page. Nothing that leaves more than there
    /// was may use it. Delete in small batches.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn begin_cleanup(&self) -> Result<WriteTransaction, VolumeError> {
        self.begin()
    }

    /// The keys that outlive sessions and can be destroyed one by one.
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// How full the volume is. Waits for a write transaction to end, and reads about one page in a hundred.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn usage(&self) -> Result<Usage, VolumeError> {
        let transaction = self.begin_next()?;
        let used = self.measure(&mut self.state())?;
        transaction.abort()?;
        let capacity = self.capacity_pages();
        Ok(Usage {
            used: used * PAGE,
            warn_at: share(capacity, WARN_PERCENT) * PAGE,
            limit: self.limit() * PAGE,
            capacity: capacity * PAGE,
        })
    }

    /// Overwrites everything that was written and is live no more, so that deleted and replaced rows cannot be read
    /// from the file even with the volume's key (VLT-57). It costs the pages that were written since the last time,
    /// six syncs, and one page read in a hundred; where nothing was written, nothing.
    ///
    /// # Errors
    ///
    /// [`VolumeError::InUse`] while a transaction is alive, else the database's error; it can be repeated.
    pub fn scrub(&self) -> Result<(), VolumeError> {
        self.close_and_reopen(|_, _| Ok(()))
    }

    /// As [`Volume::scrub`], and packs the database before, if there is room for that.
    ///
    /// # Errors
    ///
    /// As [`Volume::scrub`].
    pub fn compact_and_scrub(&self) -> Result<(), VolumeError> {
        self.close_and_reopen(Opened::pack)
    }

    /// Closes the volume: scrubs as [`Volume::scrub`] does. A session in which nothing was written leaves the disk as
    /// it was.
    ///
    /// # Errors
    ///
    /// [`VolumeError::InUse`] while a transaction is alive, else the database's error. Nothing that was committed is
    /// lost; the next opening scrubs.
    pub fn close(self) -> Result<(), VolumeError> {
        self.shut(&mut self.state())
    }

    fn shut(&self, state: &mut State) -> Result<(), VolumeError> {
        if Arc::strong_count(&state.live) != 1 {
            return Err(VolumeError::InUse);
        }
        match state.database.take() {
            // It failed before: what it left is repaired and scrubbed by the next opening.
            Some(opened) if opened.units.has_failed() => Err(VolumeError::Damaged),
            Some(opened) => {
                // VLT-62: what the table of keys has not finished is left to the next opening as well.
                let mut keys = self.keys.hold();
                keys.finish().and_then(|()| opened.close())
            }
            None => Ok(()),
        }
    }

    fn close_and_reopen(
        &self,
        before: impl FnOnce(&mut Opened, u64) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let mut state = self.state();
        if Arc::strong_count(&state.live) != 1 {
            return Err(VolumeError::InUse);
        }
        if self.must_reopen(&state) {
            self.reopen(&mut state)?;
        }
        let mut keys = self.keys.hold();
        keys.finish()?;
        let mut opened = state.database.take().ok_or(VolumeError::Damaged)?;
        let units = Arc::clone(&opened.units);
        let done = before(&mut opened, self.capacity_pages()).and_then(|()| opened.close());
        // Whatever came of it, the volume goes on with what is on the disk.
        state.database = Some(self.opener.open(units.traces(), &mut keys)?);
        done
    }

    fn begin(&self) -> Result<WriteTransaction, VolumeError> {
        let transaction = self.begin_next()?;
        if !self.must_free() {
            return Ok(transaction);
        }
        match transaction.commit() {
            // Where not even this fits, a small deletion still may.
            Ok(()) | Err(VolumeError::Full) => self.begin_next(),
            Err(error) => Err(error),
        }
    }

    fn begin_next(&self) -> Result<WriteTransaction, VolumeError> {
        let (database, live) = {
            let mut state = self.state();
            if self.must_reopen(&state) {
                self.reopen(&mut state)?;
            }
            let opened = state.database.as_ref().ok_or(VolumeError::Damaged)?;
            (Arc::clone(&opened.database), Arc::clone(&state.live))
        };
        // Not under the lock: this waits for another writer, who may need it to finish.
        let mut transaction = database.begin_write().map_err(database_error)?;
        // VLT-54.
        transaction.set_two_phase_commit(true);
        Ok(WriteTransaction { transaction, before: None, keys: Arc::clone(&self.keys), _live: live })
    }

    /// VLT-56: estimates from the pages written since the last count, and counts when the estimate runs out. The
    /// caller holds the write transaction.
    fn is_past(&self, limit: u64) -> Result<bool, VolumeError> {
        let mut state = self.state();
        let opened = state.database.as_ref().ok_or(VolumeError::Damaged)?;
        if let Some((used, at)) = opened.measured
            && used + (opened.units.pages_written() - at) < limit
        {
            return Ok(false);
        }
        Ok(self.measure(&mut state)? >= limit)
    }

    /// A view of what is committed, unless pages may be scarce. While somebody reads what was there before, the next commit
    /// frees the pages that this one replaces; otherwise the database frees them at once, by a second commit of its own,
    /// which takes a tenth of the time.
    fn view_where_room_is_plenty(&self) -> Result<Option<redb::ReadTransaction>, VolumeError> {
        let mut state = self.state();
        let is_plenty = self.has_plenty(&state);
        let Some(opened) = state.database.as_mut().filter(|_| is_plenty) else { return Ok(None) };
        opened.owes = true;
        redb::ReadableDatabase::begin_read(&*opened.database).map(Some).map_err(database_error)
    }

    /// Whether so much is free, by what was written since it was counted, that what waits to be freed does not matter.
    fn has_plenty(&self, state: &State) -> bool {
        let opened = state.database.as_ref();
        let used = opened.and_then(|opened| Some((opened, opened.measured?)));
        used.is_some_and(|(opened, (used, at))| {
            used + (opened.units.pages_written() - at) < share(self.capacity_pages(), WARN_PERCENT)
        })
    }

    /// Whether a commit has to come first that frees what the last one replaced: it may have been large (VLT-56).
    fn must_free(&self) -> bool {
        let mut state = self.state();
        let is_plenty = self.has_plenty(&state);
        let owes = state.database.as_mut().filter(|_| !is_plenty).map(|opened| &mut opened.owes);
        owes.is_some_and(std::mem::take)
    }

    /// Pages in use. The caller holds the write transaction.
    fn measure(&self, state: &mut State) -> Result<u64, VolumeError> {
        let opened = state.database.as_mut().ok_or(VolumeError::Damaged)?;
        let written = opened.units.pages_written();
        // Page 0 is in use as well.
        let used = opened.units.live_units()? + 1;
        // What waits to be freed is not counted, and cannot be used: until then the estimate stays, which has it.
        if !opened.owes {
            opened.measured = Some((used, written));
        }
        Ok(used)
    }

    fn must_reopen(&self, state: &State) -> bool {
        state.database.as_ref().is_none_or(|opened| opened.units.has_failed())
    }

    fn reopen(&self, state: &mut State) -> Result<(), VolumeError> {
        if Arc::strong_count(&state.live) != 1 {
            return Err(VolumeError::InUse);
        }
        let traces = state.database.take().and_then(|opened| opened.units.traces());
        state.database = Some(self.opener.open(traces, &mut self.keys.hold())?);
        Ok(())
    }

    fn capacity_pages(&self) -> u64 {
        self.opener.geometry.unit_count() + 1
    }

    fn limit(&self) -> u64 {
        let capacity = self.capacity_pages();
        capacity.saturating_sub(share(capacity, RESERVE_PERCENT).max(RESERVE_MIN))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Nobody can be told. The superblock does not say that the region is scrubbed: the next opening does it.
        let _failed = self.shut(&mut self.state());
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Volume(..)")
    }
}

impl Opener {
    /// What a session that did not end left in the table of keys is completed before the disk says that nothing is left.
    fn open(&self, traces: Option<Traces>, keys: &mut Held<'_>) -> Result<Opened, VolumeError> {
        keys.detach(true);
        let opened = self.open_units(traces, keys);
        match &opened {
            Ok(opened) => keys.attach(&opened.units),
            Err(_) => keys.detach(false),
        }
        opened
    }

    fn open_units(&self, traces: Option<Traces>, keys: &mut Held<'_>) -> Result<Opened, VolumeError> {
        let rng = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            FillRng::seeded(&mut *rng)
        };
        let grant = self.grant.duplicate();
        let mut complete = || {
            keys.complete().map_err(|error| match error {
                VolumeError::Io(error) => error,
                other => std::io::Error::other(other),
            })
        };
        let units = Units::open(Arc::clone(&self.backend), self.geometry, grant, rng, traces, &mut complete)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::InvalidData => VolumeError::Damaged,
                _ => VolumeError::Io(error),
            })?
            .ok_or(VolumeError::Damaged)?;
        // A volume always has a database; redb would silently make a new one in an empty storage.
        if units.virtual_len() == 0 {
            return Err(VolumeError::Damaged);
        }
        let units = Arc::new(units);
        let database =
            builder().create_with_backend(SharedUnits(Arc::clone(&units))).map_err(database_error)?;
        let owes = units.was_left_open();
        Ok(Opened { database: Arc::new(database), units, measured: None, owes })
    }
}

impl Opened {
    fn pack(&mut self, capacity: u64) -> Result<(), VolumeError> {
        let database = Arc::get_mut(&mut self.database).ok_or(VolumeError::InUse)?;
        if self.units.live_units()? < share(capacity, PACKABLE_PERCENT) {
            while database.compact().map_err(database_error)? {}
        }
        Ok(())
    }

    fn close(self) -> Result<(), VolumeError> {
        let Self { database, units, measured: _, owes: _ } = self;
        let database = Arc::try_unwrap(database).map_err(|_| VolumeError::InUse)?;
        units.begin_close();
        database.close().map_err(database_error)?;
        if units.has_failed() {
            return Err(VolumeError::Damaged);
        }
        Ok(units.finish_close()?)
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_LEN);
    builder
}

fn share(capacity: u64, percent: u64) -> u64 {
    capacity / 100 * percent + capacity % 100 * percent / 100
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

/// The write transaction: redb's, without the means to weaken its durability, and without what a scrub could not
/// follow: savepoints and tables with several values for one key. Dropping it undoes it.
pub struct WriteTransaction {
    transaction: redb::WriteTransaction,
    /// See [`Volume::view_where_room_is_plenty`].
    before: Option<redb::ReadTransaction>,
    keys: Arc<KeyTable>,
    _live: Arc<()>,
}

impl WriteTransaction {
    /// Opens a table, and makes it if it is not there. Each table once at a time.
    ///
    /// # Security
    ///
    /// A value that is removed or replaced is gone after the next scrub. A key may outlive its row, whole or its
    /// beginning, for as long as its neighbours live: the database finds its way by such keys. Nothing that has to be
    /// erased belongs into a key.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn open_table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: redb::TableDefinition<'_, K, V>,
    ) -> Result<redb::Table<'_, K, V>, redb::TableError> {
        self.transaction.open_table(definition)
    }

    /// Deletes a table with all its rows, and tells whether it was there.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn delete_table(&self, table: impl redb::TableHandle) -> Result<bool, redb::TableError> {
        self.transaction.delete_table(table)
    }

    /// Makes everything durable, in two phases, and before it the keys that were prepared ([`KeyTable::prepare`]); it is on
    /// the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Full`] when it did not fit, else the database's error. Nothing was committed, and the
    /// volume can be used further; after an error of the disk itself it may have been committed after all,
    /// which the next read shows (VLT-68).
    pub fn commit(self) -> Result<(), VolumeError> {
        let Self { transaction, before: _before, keys, _live } = self;
        // VLT-60.
        keys.store_prepared()?;
        transaction.commit().map_err(database_error)
    }

    /// Undoes everything.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub fn abort(self) -> Result<(), VolumeError> {
        let Self { transaction, before: _, keys: _, _live } = self;
        transaction.abort().map_err(database_error)
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
