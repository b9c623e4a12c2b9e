//! Volumes of a session: opening, creating, deleting.

use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{HeaderChange, Session, passphrases::Replaced, records::NewRecord};
use crate::{
    allocation::{LABEL_MAX, VolumeRecord},
    error::{ChangeError, VolumeError},
    geometry::{ALLOCATION_LEN, PAGE_LEN, REGION_COUNT, RegionIndex},
    memory::Secret,
    payload::{Grant, Payload, VolumeId, VolumeKey},
    sector::{FillRng, random_below},
    superblock::SuperblockPair,
    volume::Volume,
};

/// Where the two slots of the database's header lie in page 0; the second byte of each tells whether there are tables.
const DATABASE_SLOTS: [usize; 2] = [64, 192];

impl Session {
    /// Volumes that this session can open although its payload does not list them: those created by other
    /// sessions from a volume that both have, and what a power cut in [`create_volume`](Self::create_volume)
    /// or [`delete_volume`](Self::delete_volume) left. One of these that is a remnant
    /// ([`is_remnant`](Self::is_remnant)) is not needed any more: it is to be deleted (again).
    pub fn found_volumes(&self) -> Vec<VolumeId> {
        self.regions
            .iter()
            .flatten()
            .map(|units| units.grant.key.id())
            .filter(|id| self.payload.grant(*id).is_none())
            .collect()
    }

    /// The label with which a volume was created; empty for the first one.
    ///
    /// # Errors
    ///
    /// [`ChangeError::UnknownVolume`].
    pub fn volume_label(&self, volume: VolumeId) -> Result<&[u8], ChangeError> {
        self.grant(volume)?;
        let records = self.regions.iter().flatten().flat_map(|units| &units.content.volumes);
        Ok(records
            .filter(|record| record.grant.key.id() == volume)
            .map(|record| record.label.as_slice())
            .find(|label| !label.is_empty())
            .unwrap_or_default())
    }

    /// The other volumes whose keys the allocation units of this one hold, those that are gone included.
    pub fn recorded_volumes(&self, volume: VolumeId) -> Vec<VolumeId> {
        let units = self.regions.iter().flatten().filter(|units| units.grant.key.id() == volume);
        let named = units.flat_map(|units| &units.content.volumes).map(|record| record.grant.key.id());
        named.filter(|named| *named != volume).collect()
    }

    /// Whether the allocation units of a volume hold keys of payloads, this session's own or those that are gone
    /// included.
    pub fn records_payloads(&self, volume: VolumeId) -> bool {
        let mut units = self.regions.iter().flatten().filter(|units| units.grant.key.id() == volume);
        units.any(|units| !units.content.payloads.is_empty())
    }

    /// Opens a volume. Several may be open at once, each once.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Unknown`], [`VolumeError::InUse`], or [`VolumeError::Damaged`] when its units do not
    /// open: it was destroyed by a session that did not know of this one, or damaged.
    pub fn open_volume(&self, volume: VolumeId, rng: &mut impl CryptoRng) -> Result<Volume, VolumeError> {
        let grant = self.grant(volume).map_err(|_| VolumeError::Unknown)?;
        if self.region_of(volume).is_none() {
            return Err(VolumeError::Damaged);
        }
        let mark = self.disk.mark_open(grant.region).ok_or(VolumeError::InUse)?;
        let backend = Arc::clone(&self.disk.backend);
        Volume::open(backend, self.disk.geometry, grant.duplicate(), FillRng::seeded(rng), Box::new(mark))
    }

    /// VLT-48: whether nothing can ever be read from a volume: no superblock opens, or nothing was ever committed to its
    /// database. So it is with what a kill left of creating or deleting one, and not where a unit rots.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Unknown`], or the system's error.
    pub fn is_remnant(&self, volume: VolumeId) -> Result<bool, VolumeError> {
        let grant = self.grant(volume).map_err(|_| VolumeError::Unknown)?;
        let (backend, geometry) = (&*self.disk.backend, &self.disk.geometry);
        let capacity = (geometry.unit_count() + 1) * PAGE_LEN as u64;
        let pair = SuperblockPair::open(backend, geometry, grant, capacity)?;
        Ok(pair.is_none_or(|pair| DATABASE_SLOTS.iter().all(|at| pair.current.page[at + 1] == 0)))
    }

    /// Creates an empty volume, last in this session's payload. Its key is recorded in the units of `home`:
    /// a volume that no passphrase opens which must not know of this one.
    ///
    /// The region is chosen among those that this session does not know to be taken: a volume of a
    /// passphrase that it does not know may be overwritten, since sparing it would betray it.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NoFreeRegion`], [`ChangeError::WouldExpose`], [`ChangeError::VolumeCount`] when the
    /// payload has four volumes, or the system's error.
    pub fn create_volume(
        &mut self,
        home: VolumeId,
        label: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<VolumeId, ChangeError> {
        if label.len() > LABEL_MAX {
            return Err(ChangeError::LabelTooLong);
        }
        let home = self.home_of(home)?;
        if self.payload.volumes.len() >= REGION_COUNT {
            return Err(ChangeError::NoFreeRegion);
        }
        let free: Vec<RegionIndex> =
            RegionIndex::all().into_iter().filter(|region| !self.is_taken(*region)).collect();
        if free.is_empty() {
            return Err(ChangeError::NoFreeRegion);
        }
        // VLT-44: any order but a random one would tell what was there before.
        let region = free[random_below(free.len(), rng)];
        let grant = Grant { region, key: VolumeKey(Secret::random(rng)) };
        let id = grant.key.id();
        let record = VolumeRecord { grant: grant.duplicate(), label: Zeroizing::new(label.to_vec()) };
        let plan = self.plan_record(home, NewRecord::Volume(record), None)?;
        self.write_records(plan, rng)?;

        let units = self.disk.create_region(&grant, rng, &mut |_| {}).map_err(|error| match error {
            VolumeError::Io(error) => ChangeError::Io(error),
            other => ChangeError::Volume(other),
        })?;
        // Known from here on, so that a failing header write leaves a found volume and no dead region.
        self.regions[region.as_usize()] = Some(units);
        let mut payload = self.payload.duplicate();
        payload.volumes.push(grant);
        let mut change = HeaderChange::default();
        change.seal(&payload, &self.access.keys, rng)?;
        self.write_header(change, rng)?;
        self.payload = payload;
        Ok(id)
    }

    /// Deletes a volume: its key leaves this session's payload, every known payload that opens all that this
    /// session opens, and all records; its region becomes random bytes.
    ///
    /// # Errors
    ///
    /// [`ChangeError::VolumeInUse`] while it is open, while another known payload opens it, while it keeps
    /// records of other payloads or the only record of another volume, or if it is the session's last.
    pub fn delete_volume(&mut self, volume: VolumeId, rng: &mut impl CryptoRng) -> Result<(), ChangeError> {
        let grant = self.grant(volume)?.duplicate();
        let region = grant.region;
        let listed = self.payload.grant(volume).is_some();
        let without = |payload: &Payload| {
            let mut payload = payload.duplicate();
            payload.volumes.retain(|grant| grant.key.id() != volume);
            payload
        };
        let opened = self.opened_regions();
        let readers = || self.entries.iter().filter(|entry| entry.payload.grant(volume).is_some());
        let opened_in_part = readers().any(|entry| self.regions_of(&entry.payload) != opened);
        let left: Vec<Payload> = readers().map(|entry| without(&entry.payload)).collect();
        let keeps_records = self.regions[region.as_usize()].as_ref().is_some_and(|units| {
            units.grant.key.id() == volume
                && (units
                    .content
                    .payloads
                    .iter()
                    .any(|record| self.entries.iter().any(|entry| entry.record.id == record.id))
                    || units
                        .content
                        .volumes
                        .iter()
                        .any(|record| self.is_current(record) && self.is_needed(record, region)))
        });
        let last = listed && self.payload.volumes.len() == 1;
        if self.disk.is_open(region) || opened_in_part || keeps_records || last {
            return Err(ChangeError::VolumeInUse);
        }
        if listed || !left.is_empty() {
            let own = without(&self.payload);
            let mut change = HeaderChange::default();
            change.seal(&own, &self.access.keys, rng)?;
            for payload in &left {
                change.seal(payload, &self.entry(payload.id)?.record.keys, rng)?;
            }
            self.write_header(change, rng)?;
            self.take_over(Replaced { own: Some(own), entries: left });
        }
        // Units that cannot be opened may belong to somebody else by now: only what is ours is overwritten.
        if self.region_of(volume) == Some(region) {
            let mut fill = FillRng::seeded(rng);
            let (start, len) = (self.disk.geometry.region(region), self.disk.geometry.region_len());
            let units = 2 * ALLOCATION_LEN as u64;
            // VLT-47: the allocation units last. As long as they open, whoever reads the record finds the volume and
            // can finish this; afterwards the region may be somebody else's.
            for (start, len) in [(start + units, len - units), (start, units)] {
                self.disk.fill(start, len, &mut fill, &mut |_| {})?;
                self.disk.backend.sync()?;
            }
            self.regions[region.as_usize()] = None;
        }
        let plan = self.plan_removal(|_| false, |record| record.grant.key.id() == volume);
        self.write_records(plan, rng)
    }

    /// The grant of a volume that the payload lists or the records lead to.
    pub(super) fn grant(&self, volume: VolumeId) -> Result<&Grant, ChangeError> {
        self.payload
            .grant(volume)
            .or_else(|| {
                let mut known = self.regions.iter().flatten().map(|units| &units.grant);
                known.find(|grant| grant.key.id() == volume)
            })
            .ok_or(ChangeError::UnknownVolume)
    }

    /// Whether somebody may find a volume only through its record in the units of `region`. What this session
    /// lists first is known to whoever made this session; what is recorded elsewhere is found there.
    fn is_needed(&self, record: &VolumeRecord, region: RegionIndex) -> bool {
        let named = record.grant.key.id();
        let first = self.payload.volumes.first().is_some_and(|grant| grant.key.id() == named);
        let elsewhere = self.regions.iter().flatten().any(|units| {
            units.grant.region != region
                && units.grant.region != record.grant.region
                && units.content.volumes.iter().any(|other| other.grant.key.id() == named)
        });
        !first && !elsewhere
    }

    /// Whether this session knows that a region belongs to somebody.
    fn is_taken(&self, region: RegionIndex) -> bool {
        self.regions[region.as_usize()].is_some()
            || self.payload.volumes.iter().any(|grant| grant.region == region)
            || self
                .entries
                .iter()
                .any(|entry| entry.payload.volumes.iter().any(|grant| grant.region == region))
    }
}
