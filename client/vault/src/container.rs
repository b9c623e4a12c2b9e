//! The file as a whole: creating it, unlocking it, reading and writing its header.
//!
//! Invariants: unlocking has one path (VLT-13): derive once, try all slots of both copies, take the lock,
//! look again under the lock, read the allocation units of all regions, write both header copies. A wrong
//! passphrase takes no lock and writes nothing (VLT-12).

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand_core::CryptoRng;

use crate::{
    allocation::{AllocationUnits, StoreError, StoredUnits},
    backend::{Backend, Replacement},
    error::{CreateError, HeldField, OpenError, UnlockError, VolumeError},
    geometry::{COPY_LEN, ContainerSize, Geometry, RegionIndex, SALT_BLOCK_LEN, SLOT_COUNT},
    header::{CopyImage, Header, HeaderKeys, Trial, slot_index},
    kdf::{Cost, Passphrase, Root, SALT_LEN, TrialKeys},
    keytable::KeyTable,
    memory::Secret,
    payload::{Grant, HeaderKey, Others, Payload, PayloadId, VolumeKey},
    sector::{FillRng, random_below},
    session::{Access, Session},
    slot::{Inner, SlotSet},
    units::Units,
    volume::Volume,
};

/// Bytes written at once while a container is filled.
pub(crate) const FILL_CHUNK: usize = 1 << 20;

/// A container: where to start.
#[derive(Debug, Clone, Copy)]
pub struct Container;

impl Container {
    /// Makes a container with one passphrase and one empty volume, and leaves it unlocked.
    ///
    /// `progress` is told bytes done and bytes in all, many times a second.
    ///
    /// # Errors
    ///
    /// See [`CreateError`]. A file that [`FileBackend::create`](crate::FileBackend::create) began is removed
    /// when the backend is dropped, which a failure does.
    pub fn create(
        backend: impl Backend + 'static,
        size: ContainerSize,
        passphrase: &Passphrase,
        cost: Cost,
        rng: &mut impl CryptoRng,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Session, CreateError> {
        let rng: &mut dyn CryptoRng = rng;
        if !backend.is_empty()? {
            return Err(CreateError::Exists);
        }
        if !backend.lock(Duration::ZERO)? {
            return Err(CreateError::Exists);
        }
        let mut fill = FillRng::seeded(rng);
        let mut salt_block = Box::new([0; SALT_BLOCK_LEN]);
        rand_core::RngCore::fill_bytes(&mut fill, salt_block.as_mut_slice());
        let disk = Arc::new(Disk::new(Arc::new(backend), Geometry::new(size), salt_block));
        let keys = Root::derive(passphrase, disk.salt(), cost)?.trial_keys();

        let total = size.bytes() + disk.geometry.region_len();
        disk.backend.reserve(size.bytes())?;
        disk.fill(0, size.bytes(), &mut fill, &mut |done| progress(done, total))?;
        disk.backend.write_at(0, disk.salt_block.as_slice())?;

        let region = RegionIndex::all()[random_below(4, rng)];
        let grant = Grant { region, key: VolumeKey(Secret::random(rng)) };
        let mut done = size.bytes();
        let units = disk
            .create_region(&grant, rng, &mut |step| {
                done += step;
                progress(done.min(total), total);
            })
            .map_err(|error| match error {
                VolumeError::Io(error) => error.into(),
                VolumeError::Full => CreateError::DiskFull,
                other => CreateError::Volume(other),
            })?;

        let mut header = Header::random(rng);
        let slots = draw_pair(SlotSet::EMPTY, rng).ok_or_else(invalid)?;
        let others = if random_below(2, rng) == 0 { Others::Keep } else { Others::Refresh };
        let payload = Payload {
            id: PayloadId::random(rng),
            header_key: HeaderKey(Secret::random(rng)),
            volumes: vec![grant],
            slots,
            keep: SlotSet::EMPTY,
            others,
            application: zeroize::Zeroizing::new(Vec::new()),
        };
        let header_keys = HeaderKeys::derive(&payload.header_key);
        let access = Access::from_trial(keys, slots);
        for (slot, key, opener) in access.each() {
            let inner = Inner::seal(&payload, slot, key, rng).map_err(|_| invalid())?;
            header.set(slot, inner, Some(opener));
        }
        disk.write_header(1, &mut header, &header_keys, rng)?;
        disk.backend.finish_creation()?;
        progress(total, total);
        let mut regions = std::array::from_fn(|_| None);
        regions[region.as_usize()] = Some(units);
        Ok(Session::new(disk, cost, header_keys, payload, access, regions, &header))
    }

    /// Looks at a container without a passphrase: at its size, which is all that can be seen.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotAContainer`] when no container has this size, else the system's error.
    pub fn open(backend: impl Backend + 'static) -> Result<Locked, OpenError> {
        let size = ContainerSize::new(backend.len()?).map_err(|_| OpenError::NotAContainer)?;
        Ok(Locked { backend: Arc::new(backend), geometry: Geometry::new(size), replaced: None })
    }
}

/// A container of which nothing is known but its size.
pub struct Locked {
    backend: Arc<dyn Backend>,
    geometry: Geometry,
    replaced: Option<Replacement>,
}

impl Locked {
    /// Lets the unlock close what a crash left beside this container when it was replaced, before it writes the header
    /// (VLT-73).
    #[must_use]
    pub fn closing_leftovers_of(self, files: Replacement) -> Self {
        Self { replaced: Some(files), ..self }
    }

    /// Unlocks what `passphrase` opens. The one path, whatever that is: the same derivation, the same reads,
    /// the same writes in the same order. `wait` bounds how long another process may take to finish.
    ///
    /// # Errors
    ///
    /// See [`UnlockError`]. After `NotUnlocked` from a passphrase that opens nothing, `Damaged`, `Busy` and
    /// `NewerVersion` not a byte was written.
    ///
    /// # Security
    ///
    /// A payload with [`Others::Refresh`] destroys all other slots here, before this returns.
    pub fn unlock(
        self,
        passphrase: &Passphrase,
        cost: Cost,
        rng: &mut impl CryptoRng,
        wait: Duration,
    ) -> Result<Session, UnlockError> {
        let mut salt_block = Box::new([0; SALT_BLOCK_LEN]);
        self.backend.read_at(0, salt_block.as_mut_slice())?;
        let disk = Arc::new(Disk::new(self.backend, self.geometry, salt_block));
        let trial = Root::derive(passphrase, disk.salt(), cost)?.trial_keys();
        disk.unlock(trial, cost, rng, wait, self.replaced.as_ref())
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(..)")
    }
}

/// The storage of one unlocked container, shared by its session and volumes; the lock goes with the last.
pub(crate) struct Disk {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) geometry: Geometry,
    pub(crate) salt_block: Box<[u8; SALT_BLOCK_LEN]>,
    /// Which regions have an open volume.
    open_regions: Mutex<[bool; 4]>,
    /// A header write failed: what the disk has of it nobody knows.
    doubtful: AtomicBool,
}

/// What a passphrase comes to on both header copies.
enum Examined {
    Nothing,
    NewerVersion,
    /// Opens a slot, but no copy is whole.
    Damaged,
    /// Opens a slot only in a copy that does not count any more.
    Stale {
        keys: HeaderKeys,
        newest_copy: usize,
        header: Header,
    },
    Opened {
        keys: HeaderKeys,
        newest_copy: usize,
        header: Header,
        payload: Box<Payload>,
    },
}

impl Disk {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        salt_block: Box<[u8; SALT_BLOCK_LEN]>,
    ) -> Self {
        Self {
            backend,
            geometry,
            salt_block,
            open_regions: Mutex::new([false; 4]),
            doubtful: AtomicBool::new(false),
        }
    }

    pub(crate) fn salt(&self) -> &[u8; SALT_LEN] {
        // The constant bounds make this infallible; an empty salt would be a silent weakness otherwise.
        const { assert!(SALT_LEN <= SALT_BLOCK_LEN) };
        self.salt_block.first_chunk().unwrap_or(&[0; SALT_LEN])
    }

    fn unlock(
        self: Arc<Self>,
        trial: TrialKeys,
        cost: Cost,
        rng: &mut dyn CryptoRng,
        wait: Duration,
        replaced: Option<&Replacement>,
    ) -> Result<Session, UnlockError> {
        let before = self.examine(&trial)?;
        match before {
            Examined::Nothing => return Err(UnlockError::NotUnlocked),
            Examined::NewerVersion => return Err(UnlockError::NewerVersion),
            Examined::Damaged | Examined::Stale { .. } | Examined::Opened { .. } => {}
        }
        let refused = |error: io::Error, before: Examined| match before {
            Examined::Opened { payload, .. } => {
                UnlockError::Refused { error, application: HeldField(payload.application.clone()) }
            }
            _ => UnlockError::Io(error),
        };
        let is_locked = match self.backend.lock(wait) {
            Ok(is_locked) => is_locked,
            Err(error) => return Err(refused(error, before)),
        };
        if !is_locked {
            // A passphrase that is dead already must not be told apart by the lock.
            return Err(match before {
                Examined::Opened { payload, .. } => {
                    UnlockError::Busy { application: HeldField(payload.application.clone()) }
                }
                Examined::Damaged => UnlockError::Damaged,
                Examined::Stale { .. } | Examined::Nothing | Examined::NewerVersion => {
                    UnlockError::NotUnlocked
                }
            });
        }
        let mut is_dead = false;
        self.unlock_held((trial, &mut is_dead), cost, rng, replaced).map_err(|error| match error {
            UnlockError::Io(error) if !is_dead => refused(error, before),
            other => other,
        })
    }

    /// With the lock. `is_dead` is set where the passphrase opens nothing any more.
    fn unlock_held(
        self: Arc<Self>,
        (trial, is_dead): (TrialKeys, &mut bool),
        cost: Cost,
        rng: &mut dyn CryptoRng,
        replaced: Option<&Replacement>,
    ) -> Result<Session, UnlockError> {
        // VLT-67. Where the system tells only now that it lost something, what is read next is what the disk has.
        self.backend.sync().or_else(|_| self.backend.sync())?;
        // Whoever had the lock may have changed everything.
        let (keys, newest_copy, mut header, payload) = match self.examine(&trial)? {
            Examined::Nothing => return Err(UnlockError::NotUnlocked),
            Examined::NewerVersion => return Err(UnlockError::NewerVersion),
            // VLT-14: nothing is written over a damage.
            Examined::Damaged => return Err(UnlockError::Damaged),
            Examined::Stale { keys, newest_copy, mut header } => {
                *is_dead = true;
                // VLT-26: the copy in which it still opened is overwritten before the answer.
                self.write_header(newest_copy, &mut header, &keys, rng)?;
                return Err(UnlockError::NotUnlocked);
            }
            Examined::Opened { keys, newest_copy, header, payload } => (keys, newest_copy, header, payload),
        };
        let regions = self.open_allocation_units(&payload)?;
        let access = Access::from_trial(trial, payload.slots);
        let session = Session::new(Arc::clone(&self), cost, keys, *payload, access, regions, &header);
        if let Some(files) = replaced {
            // Before the header write, which may destroy: an older container beside this one must not outlive it. What
            // cannot be written must not keep this one shut.
            let _ = files.close(&self.salt_block, rng);
        }
        // VLT-27: one header write at every unlock; what differs is only what the slots hold.
        header.refresh(session.slots_to_refresh(), rng);
        self.write_header(newest_copy, &mut header, session.header_keys(), rng)?;
        Ok(session)
    }

    fn examine(&self, trial: &TrialKeys) -> io::Result<Examined> {
        let [one, other] = self.read_copies()?;
        let mut trials = [one.try_all(0, trial), other.try_all(1, trial)];
        let header_key = trials.iter().find_map(|trial| match trial {
            Trial::Opened(payload) => Some(&payload.header_key),
            Trial::Nothing | Trial::NewerVersion => None,
        });
        let Some(header_key) = header_key else {
            let newer = trials.iter().any(|trial| matches!(trial, Trial::NewerVersion));
            return Ok(if newer { Examined::NewerVersion } else { Examined::Nothing });
        };
        let keys = HeaderKeys::derive(header_key);
        let headers = (
            Header::open(&one, 0, &self.salt_block, &keys),
            Header::open(&other, 1, &self.salt_block, &keys),
        );
        let Some((newest_copy, header)) = Header::newer_copy(headers.0, headers.1) else {
            return Ok(Examined::Damaged);
        };
        Ok(match std::mem::replace(&mut trials[newest_copy], Trial::Nothing) {
            Trial::Opened(payload) => Examined::Opened { keys, newest_copy, header, payload },
            Trial::NewerVersion => Examined::NewerVersion,
            Trial::Nothing => Examined::Stale { keys, newest_copy, header },
        })
    }

    pub(crate) fn read_copies(&self) -> io::Result<[CopyImage; 2]> {
        let mut copies = [CopyImage(vec![0; COPY_LEN]), CopyImage(vec![0; COPY_LEN])];
        for (copy, image) in copies.iter_mut().enumerate() {
            self.backend.read_at(Geometry::header_copy(copy), &mut image.0)?;
        }
        Ok(copies)
    }

    /// The newest whole copy, if there is one. VLT-67: after a write that failed, of what is on the disk.
    pub(crate) fn newest_header(&self, keys: &HeaderKeys) -> io::Result<Option<(usize, Header)>> {
        if self.doubtful.load(Ordering::Acquire) {
            self.backend.sync()?;
            self.doubtful.store(false, Ordering::Release);
        }
        let [one, other] = self.read_copies()?;
        let one = Header::open(&one, 0, &self.salt_block, keys);
        let other = Header::open(&other, 1, &self.salt_block, keys);
        Ok(Header::newer_copy(one, other))
    }

    /// VLT-23: the next generation, both copies anew, the older one first, a sync after each.
    pub(crate) fn write_header(
        &self,
        newest_copy: usize,
        header: &mut Header,
        keys: &HeaderKeys,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<()> {
        header.generation = header.generation.wrapping_add(1);
        let images = header.compose(&self.salt_block, keys, rng).ok_or_else(invalid)?;
        let write = |copy: usize| {
            self.backend.write_at(Geometry::header_copy(copy), &images[copy].0)?;
            self.backend.sync()
        };
        let done = write(1 - newest_copy).and_then(|()| write(newest_copy));
        if done.is_err() {
            self.doubtful.store(true, Ordering::Release);
        }
        done
    }

    /// VLT-42: reads the units of all regions, and opens those whose keys the payload has, following keys
    /// that they hold.
    fn open_allocation_units(&self, payload: &Payload) -> io::Result<[Option<AllocationUnits>; 4]> {
        let stored = StoredUnits::read_all(&*self.backend, &self.geometry)?;
        let mut regions: [Option<AllocationUnits>; 4] = std::array::from_fn(|_| None);
        let mut known: Vec<Grant> = payload.volumes.iter().map(Grant::duplicate).collect();
        while let Some(grant) = known.pop() {
            let region = grant.region.as_usize();
            if regions[region].is_some() {
                continue;
            }
            if let Some(units) = stored[region].open(&grant) {
                known.extend(units.content.volumes.iter().map(|record| record.grant.duplicate()));
                regions[region] = Some(units);
            }
        }
        Ok(regions)
    }

    /// Everything a new volume needs, synced: allocation units, key table, units, superblocks, database.
    pub(crate) fn create_region(
        &self,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(u64),
    ) -> Result<AllocationUnits, VolumeError> {
        let mut fill = FillRng::seeded(rng);
        KeyTable::create(&*self.backend, &self.geometry, grant, &mut fill)?;
        Units::create(&self.backend, self.geometry, grant, &mut fill, progress)?;
        let mut units = AllocationUnits::empty(grant.duplicate(), &mut fill);
        let empty = units.content.duplicate();
        units.store(empty, &*self.backend, &self.geometry, &mut fill).map_err(|error| match error {
            StoreError::Io(error) => VolumeError::Io(error),
            StoreError::TooManyRecords => VolumeError::Damaged,
        })?;
        Volume::create_database(Arc::clone(&self.backend), self.geometry, grant.duplicate(), fill)?;
        self.backend.sync()?;
        Ok(units)
    }

    /// Random bytes over a range.
    pub(crate) fn fill(
        &self,
        start: u64,
        len: u64,
        rng: &mut FillRng,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let mut chunk = vec![0; FILL_CHUNK];
        let mut done = 0;
        while done < len {
            let take = usize::try_from(len - done).unwrap_or(FILL_CHUNK).min(FILL_CHUNK);
            rand_core::RngCore::fill_bytes(rng, &mut chunk[..take]);
            self.backend.write_at(start + done, &chunk[..take])?;
            done += take as u64;
            progress(done);
        }
        Ok(())
    }

    /// Marks a region's volume as open; `None` when it is open already.
    pub(crate) fn mark_open(self: &Arc<Self>, region: RegionIndex) -> Option<OpenMark> {
        let mut open = self.open_regions.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = &mut open[region.as_usize()];
        (!std::mem::replace(mark, true)).then(|| OpenMark { disk: Arc::clone(self), region })
    }

    pub(crate) fn is_open(&self, region: RegionIndex) -> bool {
        self.open_regions.lock().unwrap_or_else(PoisonError::into_inner)[region.as_usize()]
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.backend.unlock();
    }
}

/// An open volume's hold on its region, and on the container's lock.
pub(crate) struct OpenMark {
    disk: Arc<Disk>,
    region: RegionIndex,
}

impl Drop for OpenMark {
    fn drop(&mut self) {
        let mut open = self.disk.open_regions.lock().unwrap_or_else(PoisonError::into_inner);
        open[self.region.as_usize()] = false;
    }
}

/// Two different slots outside `taken`, at random.
pub(crate) fn draw_pair(taken: SlotSet, rng: &mut dyn CryptoRng) -> Option<[u8; 2]> {
    let mut free: Vec<u8> = (0..SLOT_COUNT).map(slot_index).filter(|slot| !taken.contains(*slot)).collect();
    if free.len() < 2 {
        return None;
    }
    let first = free.swap_remove(random_below(free.len(), rng));
    let second = free.swap_remove(random_below(free.len(), rng));
    Some([first, second])
}

/// For what the bounds of the format exclude, and a caller would see as an error of the disk.
fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
