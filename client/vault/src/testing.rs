//! For tests only: a backend that records every call, and what a power cut would leave of it.
//!
//! Hidden from the documentation and of no use outside tests; kept in the library so that the client's and
//! the workspace's tests model power cuts in the same way.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand_core::RngCore;
use zeroize::Zeroizing;

use crate::{
    allocation::Allocation,
    backend::{Backend, MemoryBackend},
    container::Disk,
    geometry::{ALLOCATION_LEN, COPY_LEN, Geometry, PAGE_LEN, SALT_BLOCK_LEN, TABLE_UNIT_LEN},
    header::{CopyImage, Header, HeaderKeys, Trial},
    kdf::{Cost, Passphrase, Root, subkey},
    keytable::UnitContent,
    labels,
    map::MapReader,
    memory::Secret,
    payload::{Payload, VolumeId, unpad},
    sector::{self, Place, SEAL_OVERHEAD},
    session::Session,
    superblock::{self, Superblock},
};

pub use crate::work::{Work, take as take_work};

/// Sector size of the model: a write may be torn at multiples of it.
pub const SECTOR: usize = 512;

/// One call on a [`RecordingBackend`].
#[derive(Clone, PartialEq, Eq)]
pub enum Call {
    /// Read `len` bytes at `offset`.
    Read {
        /// Where.
        offset: u64,
        /// How many bytes.
        len: usize,
    },
    /// Wrote `bytes` at `offset`.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Synced.
    Sync,
}

/// Shows what an observer of the disk's traffic sees, without the bytes.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { offset, len } => write!(f, "read {len} at {offset}"),
            Self::Write { offset, bytes } => write!(f, "write {} at {offset}", bytes.len()),
            Self::Sync => f.write_str("sync"),
        }
    }
}

/// A container in memory whose calls are recorded, and which can be told to fail.
#[derive(Clone)]
pub struct RecordingBackend {
    memory: Arc<MemoryBackend>,
    calls: Arc<Mutex<Vec<Call>>>,
    full: Arc<AtomicBool>,
}

impl RecordingBackend {
    /// Over these bytes.
    pub fn with_image(image: Vec<u8>) -> Self {
        Self {
            memory: Arc::new(MemoryBackend::with_image(image)),
            calls: Arc::default(),
            full: Arc::default(),
        }
    }

    /// The bytes now.
    pub fn image(&self) -> Vec<u8> {
        self.memory.image()
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.recorded())
    }

    /// How many calls there were since they were last taken.
    pub fn call_count(&self) -> usize {
        self.recorded().len()
    }

    /// From now on every write fails for want of room, or works again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RecordingBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordingBackend(..)")
    }
}

impl Backend for RecordingBackend {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.memory.reserve(size)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.recorded().push(Call::Read { offset, len: out.len() });
        self.memory.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.recorded().push(Call::Write { offset, bytes: bytes.to_vec() });
        self.memory.write_at(offset, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.recorded().push(Call::Sync);
        Ok(())
    }

    fn finish_creation(&self) -> io::Result<()> {
        self.sync()
    }

    fn lock(&self, wait: Duration) -> io::Result<bool> {
        self.memory.lock(wait)
    }

    fn unlock(&self) {
        self.memory.unlock();
    }

    fn lock_requested(&self) -> io::Result<bool> {
        self.memory.lock_requested()
    }
}

/// What the disk holds after the power failed when `calls[..cut]` had been made on `image`: everything synced,
/// and of each later sector the old bytes, the new ones, or garbage. In half of the cuts whole writes are kept or lost, and
/// in a quarter the last one alone is kept: sectors by lot would hardly ever keep one that has nine, and lose what it leads
/// to.
pub fn power_cut(image: &[u8], calls: &[Call], cut: usize, rng: &mut impl RngCore) -> Vec<u8> {
    let mut disk = image.to_vec();
    let synced = calls[..cut].iter().rposition(|call| *call == Call::Sync).map_or(0, |at| at + 1);
    let last = calls[..cut].iter().rposition(|call| matches!(call, Call::Write { .. }));
    let how = rng.next_u32() % 4;
    for (at, call) in calls[..cut].iter().enumerate() {
        let Call::Write { offset, bytes } = call else { continue };
        let start = usize::try_from(*offset).unwrap_or(usize::MAX);
        let is_whole = match how {
            _ if at < synced => Some(true),
            0 => Some(Some(at) == last),
            1 => Some(rng.next_u32().is_multiple_of(2)),
            _ => None,
        };
        if let Some(is_kept) = is_whole {
            if is_kept {
                apply(&mut disk, start, bytes);
            }
            continue;
        }
        let mut position = 0;
        while position < bytes.len() {
            let sector_start = (start + position) / SECTOR * SECTOR;
            let take = (sector_start + SECTOR - start - position).min(bytes.len() - position);
            let part = &bytes[position..position + take];
            match rng.next_u32() % 4 {
                0 => {}
                1 | 2 => apply(&mut disk, start + position, part),
                _ => {
                    // A garbled sector is lost as a whole, whatever part of it was being written.
                    let mut garbage = [0; SECTOR];
                    rng.fill_bytes(&mut garbage);
                    apply(&mut disk, sector_start, &garbage);
                }
            }
            position += take;
        }
    }
    disk
}

fn apply(disk: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    if disk.len() < start + bytes.len() {
        disk.resize(start + bytes.len(), 0);
    }
    disk[start..start + bytes.len()].copy_from_slice(bytes);
}

/// Everything that the volume's key opens in its region: data units, both copies of superblocks, allocation units and
/// units of the key table. The caller has unlocked the container: this is what a laboratory sees that has the
/// passphrase too.
pub fn plaintexts(session: &Session, volume: VolumeId) -> Vec<Zeroizing<Vec<u8>>> {
    let Some((disk, grant)) = session.dangerously_borrow(volume) else { return Vec::new() };
    let (geometry, region) = (&disk.geometry, grant.region);
    let open = |label: &[u8], place: Place, offset: u64, len: usize| {
        let mut stored = vec![0; len];
        disk.backend.read_at(offset, &mut stored).ok()?;
        sector::open(&subkey(&grant.key.0, label), place, &stored)
    };
    let whole = u64::from(region.as_u8());
    let units = (0..geometry.unit_count()).filter_map(|unit| {
        open(labels::UNITS, Place::single(unit), geometry.unit(region, unit), PAGE_LEN + SEAL_OVERHEAD)
    });
    let pairs = (0..2).flat_map(|copy| {
        let place = Place::copy_of(whole, copy);
        let allocation = geometry.allocation(region, copy);
        let superblock = geometry.superblock(region, copy);
        [
            open(labels::ALLOCATION, place, allocation, ALLOCATION_LEN),
            open(labels::SUPERBLOCK, place, superblock, superblock::STORED_LEN),
        ]
    });
    let keys =
        (0..geometry.table_units()).flat_map(|unit| [(unit, 0), (unit, 1)]).filter_map(|(unit, copy)| {
            let place = Place::copy_of(unit as u64, copy);
            open(labels::KEY_TABLE, place, geometry.table_unit(region, unit, copy), TABLE_UNIT_LEN)
        });
    units.chain(pairs.flatten()).chain(keys).collect()
}

/// In how many data units of a volume `needle` stands, live or not. The caller has unlocked the container:
/// this is what a laboratory sees that has the passphrase too.
pub fn pages_containing(session: &Session, volume: VolumeId, needle: &[u8]) -> usize {
    let Some((disk, grant)) = session.dangerously_borrow(volume) else { return 0 };
    let key = subkey(&grant.key.0, labels::UNITS);
    let units = 0..disk.geometry.unit_count();
    units
        .filter(|unit| {
            let offset = disk.geometry.unit(grant.region, *unit);
            opened_contains(disk, &key, Place::single(*unit), offset, PAGE_LEN + SEAL_OVERHEAD, needle)
        })
        .count()
}

/// Where the units of a volume's key table begin, each with its two copies one behind the other.
pub fn key_unit_offsets(session: &Session, volume: VolumeId) -> Vec<u64> {
    let Some((disk, grant)) = session.dangerously_borrow(volume) else { return Vec::new() };
    (0..disk.geometry.table_units()).map(|unit| disk.geometry.table_unit(grant.region, unit, 0)).collect()
}

/// In how many copies of key-table units of a volume `needle` stands.
pub fn key_units_containing(session: &Session, volume: VolumeId, needle: &[u8]) -> usize {
    let Some((disk, grant)) = session.dangerously_borrow(volume) else { return 0 };
    let key = subkey(&grant.key.0, labels::KEY_TABLE);
    let copies = (0..disk.geometry.table_units()).flat_map(|unit| [(unit, 0), (unit, 1)]);
    copies
        .filter(|(unit, copy)| {
            let offset = disk.geometry.table_unit(grant.region, *unit, *copy);
            opened_contains(disk, &key, Place::copy_of(*unit as u64, *copy), offset, TABLE_UNIT_LEN, needle)
        })
        .count()
}

fn opened_contains(
    disk: &Disk,
    key: &Secret<32>,
    place: Place,
    offset: u64,
    len: usize,
    needle: &[u8],
) -> bool {
    let mut stored = vec![0; len];
    let read = disk.backend.read_at(offset, &mut stored).is_ok();
    let opened = sector::open(key, place, &stored).filter(|_| read);
    opened.is_some_and(|plain| plain.windows(needle.len()).any(|window| window == needle))
}

/// Decodes as a payload, an allocation unit, a superblock and a unit of the key table: for fuzzing. The
/// decoders only ever see bytes that were authenticated; they must not trust them all the same.
pub fn decode_everything(bytes: &[u8]) {
    let _payload = Payload::decode(bytes);
    let _allocation = Allocation::decode(bytes);
    let _superblock = Superblock::decode(bytes, u64::MAX);
    let _keys = UnitContent::decode(bytes);
    let _map = MapReader::read(bytes);
}

/// Intermediate values of one unlock, for frozen vectors.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of docs/vault-format.md")]
pub struct Derived {
    pub root: [u8; 32],
    pub slots: [u8; 2],
    pub opener: [u8; 32],
    pub slot_key: [u8; 32],
    pub outer_key: [u8; 32],
    pub generation: u8,
    pub payload: Vec<u8>,
    pub region: u8,
    pub volume: VolumeId,
    pub volume_key: [u8; 32],
    pub allocation_key: [u8; 32],
    pub key_table_key: [u8; 32],
    pub superblock_key: [u8; 32],
    pub unit_key: [u8; 32],
    pub mac_key: [u8; 32],
    pub ring_key: [u8; 32],
    pub generation_key: [u8; 32],
}

/// Unlocks header copy A of an image by hand, as `docs/vault-format.md` describes it.
pub fn derive(image: &[u8], passphrase: &Passphrase, cost: Cost) -> Option<Derived> {
    let salt_block: &[u8; SALT_BLOCK_LEN] = image.first_chunk()?;
    let root = Root::derive(passphrase, salt_block.first_chunk()?, cost).ok()?;
    let trial = root.trial_keys();
    let start = usize::try_from(Geometry::header_copy(0)).ok()?;
    let copy = CopyImage(image.get(start..start + COPY_LEN)?.to_vec());
    let Trial::Opened(payload) = copy.try_all(0, &trial) else { return None };
    let header = Header::open(&copy, 0, salt_block, &HeaderKeys::derive(&payload.header_key))?;
    let grant = payload.volumes.first()?;
    let slot = usize::from(payload.slots[0]);
    let stored_box = copy.0.get(slot * 72..slot * 72 + 72)?;
    let outer = sector::open(&trial.openers[slot].0, Place::copy_of(slot as u64, 0), stored_box)?;
    let volume = |label: &[u8]| *subkey(&grant.key.0, label).expose();
    let shared = |label: &[u8]| *subkey(&payload.header_key.0, label).expose();
    let padded = payload.encode().ok()?;
    Some(Derived {
        root: *root.expose(),
        slots: payload.slots,
        opener: *trial.openers[slot].0.expose(),
        slot_key: *trial.slots[slot].0.expose(),
        outer_key: outer.as_slice().try_into().ok()?,
        generation: header.generation,
        payload: unpad(&padded)?.to_vec(),
        region: grant.region.as_u8(),
        volume: grant.key.id(),
        volume_key: *grant.key.0.expose(),
        allocation_key: volume(labels::ALLOCATION),
        key_table_key: volume(labels::KEY_TABLE),
        superblock_key: volume(labels::SUPERBLOCK),
        unit_key: volume(labels::UNITS),
        mac_key: shared(labels::HEADER_MAC),
        ring_key: shared(labels::HEADER_RING),
        generation_key: shared(labels::HEADER_GENERATION),
    })
}

/// How many boxes of both header copies a passphrase opens, whatever lies in their slots.
pub fn boxes_opened_by(image: &[u8], passphrase: &Passphrase, cost: Cost) -> usize {
    let salt = image.first_chunk().and_then(|salt_block: &[u8; SALT_BLOCK_LEN]| salt_block.first_chunk());
    let Some(Ok(root)) = salt.map(|salt| Root::derive(passphrase, salt, cost)) else { return 0 };
    let openers = root.trial_keys().openers;
    let boxes =
        (0..2).flat_map(|copy| openers.iter().enumerate().map(move |(slot, opener)| (copy, slot, opener)));
    boxes
        .filter(|(copy, slot, opener)| {
            let start = usize::try_from(Geometry::header_copy(*copy)).unwrap_or(usize::MAX);
            let stored = start.checked_add(slot * 72).and_then(|start| image.get(start..start + 72));
            stored.is_some_and(|stored| {
                sector::open(&opener.0, Place::copy_of(*slot as u64, *copy), stored).is_some()
            })
        })
        .count()
}

/// Changes an image as `script` says: per six bytes an offset of four (modulo the size), a length, a value.
pub fn damage(image: &[u8], script: &[u8]) -> Vec<u8> {
    let mut damaged = image.to_vec();
    for step in script.chunks_exact(6).take(64) {
        let offset = u32::from_le_bytes([step[0], step[1], step[2], step[3]]);
        let start = usize::try_from(offset).unwrap_or(0) % damaged.len().max(1);
        let end = (start + usize::from(step[4])).min(damaged.len());
        damaged[start..end].iter_mut().for_each(|byte| *byte ^= step[5]);
    }
    damaged
}
