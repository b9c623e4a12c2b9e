//! Which records a session reads and writes in allocation units, and who could see them.
//!
//! Invariants: a record never lies where a payload can read it that must not know of it (VLT-43): before a
//! payload is written, the units of its volumes are cleared of all records that lead outside of them, and a
//! new record is refused a home that such a payload opens.

use rand_core::CryptoRng;

use super::{LiveEntry, Session};
use crate::{
    allocation::{Allocation, PayloadRecord, StoreError, VolumeRecord},
    error::ChangeError,
    geometry::{REGION_COUNT, RegionIndex},
    header::Header,
    payload::{Payload, PayloadId, VolumeId},
    slot::SlotSet,
};

/// New contents of allocation units, in the order in which they are to be written.
pub(super) struct RecordPlan(Vec<(RegionIndex, Allocation)>);

impl RecordPlan {
    /// The new content of a region's units, if the plan changes them.
    pub(super) fn content(&self, region: RegionIndex) -> Option<&Allocation> {
        self.0.iter().find(|(changed, _)| *changed == region).map(|(_, content)| content)
    }

    /// As [`content`](Self::content), to add to it; what the plan left alone is changed from `unchanged`, last.
    pub(super) fn content_mut(
        &mut self,
        region: RegionIndex,
        unchanged: impl FnOnce() -> Allocation,
    ) -> &mut Allocation {
        let at = self.0.iter().position(|(changed, _)| *changed == region).unwrap_or_else(|| {
            self.0.push((region, unchanged()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

/// What is to be recorded.
pub(super) enum NewRecord {
    Payload(PayloadRecord),
    Volume(VolumeRecord),
}

/// A set of regions.
pub(super) type RegionSet = [bool; REGION_COUNT];

impl Session {
    /// VLT-40: of all records, those count whose keys open their slots to the payload they name.
    pub(super) fn find_entries(&mut self, header: &Header) {
        let mut entries: Vec<LiveEntry> = Vec::new();
        let mut dead = SlotSet::EMPTY;
        let mut moved: Vec<(RegionIndex, &PayloadRecord)> = Vec::new();
        for units in self.regions.iter().flatten() {
            for record in &units.content.payloads {
                if record.id == self.payload.id || entries.iter().any(|entry| entry.record.id == record.id) {
                    continue;
                }
                let opened =
                    record.slots.iter().zip(&record.keys).find_map(|(slot, key)| header.payload(*slot, key));
                match opened {
                    Some(payload) if payload.id == record.id && payload.slots == record.slots => {
                        let home = units.grant.region;
                        entries.push(LiveEntry { home, record: record.duplicate(), payload });
                    }
                    _ => {
                        let sealed = record.slots.iter().zip(&record.keys);
                        if sealed.clone().any(|(slot, key)| header.authenticates(*slot, key)) {
                            self.unreadable = self.unreadable.union(record.slot_set());
                        } else {
                            dead = dead.union(record.slot_set());
                            moved.push((units.grant.region, record));
                        }
                    }
                }
            }
        }
        // Whoever changed its passphrase did not know the label under which its maker keeps it.
        for (home, record) in moved {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.record.id == record.id)
                && entry.record.label.is_empty()
            {
                entry.record.label = record.label.clone();
                entry.home = home;
            }
        }
        // A payload that moved on leaves its old slots in this payload's keep set: nobody is in them.
        let live = entries.iter().fold(SlotSet::EMPTY, |set, entry| set.union(entry.slot_set()));
        self.payload.keep = self.payload.keep.without(dead).union(live);
        self.entries = entries;
    }

    /// Finishes what a crash left of earlier changes of records: what was removed leaves both copies, and so does
    /// every record that means nothing. Where no crash was it reads and writes nothing. Callers do this before they
    /// lock; an unlock does not, since its calls must not tell what it found (VLT-13).
    ///
    /// # Errors
    ///
    /// [`ChangeError::SessionEnded`], [`ChangeError::Damaged`], or the system's error. Nothing is lost, and the next
    /// call makes up for it.
    pub fn complete_records(&mut self, rng: &mut impl CryptoRng) -> Result<(), ChangeError> {
        let candidates = self.plan_removal(|record| self.is_unused(record), |_| false);
        if candidates.0.is_empty() {
            return Ok(());
        }
        // A header write whose outcome this session did not learn may have put a payload in after all.
        let (_, header) = self.disk.newest_header(&self.keys)?.ok_or(ChangeError::Damaged)?;
        if !self.is_in(&header) {
            return Err(ChangeError::SessionEnded);
        }
        let opens = |record: &PayloadRecord| {
            record.slots.iter().zip(&record.keys).any(|(slot, key)| header.authenticates(*slot, key))
        };
        let plan = self.plan_removal(|record| self.is_unused(record) && !opens(record), |_| false);
        self.write_records(plan, rng)
    }

    /// Whether a payload record means nothing (VLT-40), and has no label that one of the same payload lacks.
    fn is_unused(&self, record: &PayloadRecord) -> bool {
        match self.entries.iter().find(|entry| entry.record.id == record.id) {
            Some(entry) => record.slots != entry.record.slots && record.label.is_empty(),
            None => matches!(self.fate(record, None, None), Fate::Goes),
        }
    }

    /// Whether a volume record means nothing (VLT-40), and no known payload lists the volume: one that is listed is
    /// damaged, which is not for this session to forget.
    fn is_dead(&self, record: &VolumeRecord) -> bool {
        let named = record.grant.key.id();
        let mut payloads = self.entries.iter().map(|entry| &entry.payload).chain([&self.payload]);
        !self.is_current(record) && payloads.all(|payload| payload.grant(named).is_none())
    }

    pub(super) fn region_of(&self, volume: VolumeId) -> Option<RegionIndex> {
        self.regions
            .iter()
            .flatten()
            .find(|units| units.grant.key.id() == volume)
            .map(|units| units.grant.region)
    }

    pub(super) fn home_of(&self, volume: VolumeId) -> Result<RegionIndex, ChangeError> {
        self.region_of(volume).ok_or(ChangeError::UnknownVolume)
    }

    /// The regions that a payload's volumes lie in, as far as this session can open them.
    pub(super) fn regions_of(&self, payload: &Payload) -> RegionSet {
        let mut set = [false; REGION_COUNT];
        for grant in &payload.volumes {
            if self.region_of(grant.key.id()) == Some(grant.region) {
                set[grant.region.as_usize()] = true;
            }
        }
        set
    }

    /// The regions that this session can open.
    pub(super) fn opened_regions(&self) -> RegionSet {
        std::array::from_fn(|region| self.regions[region].is_some())
    }

    /// All regions that the records in `set` lead to, `set` included.
    fn reach(&self, mut set: RegionSet) -> RegionSet {
        loop {
            let before = set;
            for units in self.regions.iter().flatten() {
                if set[units.grant.region.as_usize()] {
                    for record in &units.content.volumes {
                        if self.is_current(record) {
                            set[record.grant.region.as_usize()] = true;
                        }
                    }
                }
            }
            if set == before {
                return set;
            }
        }
    }

    /// Whether a volume record names a volume that exists.
    pub(super) fn is_current(&self, record: &VolumeRecord) -> bool {
        self.region_of(record.grant.key.id()) == Some(record.grant.region)
    }

    /// Refuses a home in which another known payload could read of `subject` though it must not. Who opens all
    /// that this session opens may read of what it makes.
    fn check_home(
        &self,
        home: RegionIndex,
        subject: Option<PayloadId>,
        subject_regions: &RegionSet,
    ) -> Result<(), ChangeError> {
        for entry in self.entries.iter().filter(|entry| Some(entry.record.id) != subject) {
            let reach = self.reach(self.regions_of(&entry.payload));
            if reach[home.as_usize()]
                && !contains(&reach, subject_regions)
                && !contains(&reach, &self.opened_regions())
            {
                return Err(ChangeError::WouldExpose);
            }
        }
        Ok(())
    }

    /// Plans a new record in `home`, and what must leave the units of the volumes of `payload`, which is
    /// about to be written (with `None`: nothing, the record is of a volume or of this session itself).
    pub(super) fn plan_record(
        &self,
        home: RegionIndex,
        new: NewRecord,
        payload: Option<&Payload>,
    ) -> Result<RecordPlan, ChangeError> {
        let subject = match &new {
            NewRecord::Payload(record) => Some(record.id),
            NewRecord::Volume(_) => None,
        };
        let mut subject_regions = match (&new, payload) {
            (_, Some(payload)) => self.regions_of(payload),
            (NewRecord::Payload(_), None) => self.regions_of(&self.payload),
            (NewRecord::Volume(_), None) => [false; REGION_COUNT],
        };
        if let NewRecord::Volume(record) = &new {
            subject_regions[record.grant.region.as_usize()] = true;
        }
        self.check_home(home, subject, &subject_regions)?;

        let mut moved = Allocation::default();
        let mut changed: Vec<(RegionIndex, Allocation)> = Vec::new();
        for units in self.regions.iter().flatten().filter(|units| units.grant.region != home) {
            let readers = payload.filter(|_| subject_regions[units.grant.region.as_usize()]);
            let mut kept = Allocation::default();
            let mut left = 0;
            for record in &units.content.payloads {
                match self.fate(record, subject, readers.map(|_| &subject_regions)) {
                    Fate::Stays => kept.payloads.push(self.current(record)),
                    Fate::Goes => left += 1,
                    Fate::Moves => {
                        left += 1;
                        moved.payloads.push(self.current(record));
                    }
                }
            }
            for record in &units.content.volumes {
                let current = self.is_current(record);
                let visible = readers.is_none() || subject_regions[record.grant.region.as_usize()];
                if current && visible {
                    kept.volumes.push(record.duplicate());
                    continue;
                }
                left += 1;
                if current {
                    gather(&mut moved.volumes, record);
                }
            }
            if left > 0 || units.is_interrupted() {
                changed.push((units.grant.region, kept));
            }
        }

        let units = self.regions[home.as_usize()].as_ref().ok_or(ChangeError::UnknownVolume)?;
        let home_is_read = payload.is_some() && subject_regions[home.as_usize()];
        let mut content = moved;
        if home_is_read && !(content.payloads.is_empty() && content.volumes.is_empty()) {
            return Err(ChangeError::WouldExpose);
        }
        for record in &units.content.payloads {
            match self.fate(record, subject, home_is_read.then_some(&subject_regions)) {
                Fate::Stays => content.payloads.push(self.current(record)),
                Fate::Goes => {}
                Fate::Moves => return Err(ChangeError::WouldExpose),
            }
        }
        for record in units.content.volumes.iter().filter(|record| self.is_current(record)) {
            if home_is_read && !subject_regions[record.grant.region.as_usize()] {
                return Err(ChangeError::WouldExpose);
            }
            gather(&mut content.volumes, record);
        }
        // A volume that names itself tells that its record was moved, and is of use only for its label.
        content.volumes.retain(|record| record.grant.region != home || !record.label.is_empty());
        match new {
            NewRecord::Payload(record) => content.payloads.push(record),
            NewRecord::Volume(record) => content.volumes.push(record),
        }
        // The home first: what leaves one unit is in the other before.
        changed.insert(0, (home, content));
        Ok(RecordPlan(changed))
    }

    /// What becomes of a payload's record in units that a payload opening exactly `readers` will read.
    fn fate(&self, record: &PayloadRecord, subject: Option<PayloadId>, readers: Option<&RegionSet>) -> Fate {
        if Some(record.id) == subject {
            // The session's own old record must outlive a crash before the header write that moves it.
            return if record.id == self.payload.id { Fate::Stays } else { Fate::Goes };
        }
        let regions = if record.id == self.payload.id {
            if record.slots != self.payload.slots {
                return Fate::Goes;
            }
            self.regions_of(&self.payload)
        } else {
            match self.entries.iter().find(|entry| entry.record.id == record.id) {
                Some(entry) => self.regions_of(&entry.payload),
                None if self.unreadable.intersects(record.slot_set()) => return Fate::Stays,
                _ => return Fate::Goes,
            }
        };
        match readers {
            Some(readers) if !contains(readers, &regions) => Fate::Moves,
            _ => Fate::Stays,
        }
    }

    /// A record with where its payload lies now. The label stays this record's own: units that a cover reads
    /// must not learn the label that its maker keeps elsewhere.
    fn current(&self, record: &PayloadRecord) -> PayloadRecord {
        let mut current = match self.entries.iter().find(|entry| entry.record.id == record.id) {
            Some(entry) => entry.record.duplicate(),
            None => return record.duplicate(),
        };
        current.label = record.label.clone();
        current
    }

    /// Plans to take out everything that `drop_payload` and `drop_volume` name, and volume records that mean nothing;
    /// and to finish changes that a crash interrupted.
    pub(super) fn plan_removal(
        &self,
        drop_payload: impl Fn(&PayloadRecord) -> bool,
        drop_volume: impl Fn(&VolumeRecord) -> bool,
    ) -> RecordPlan {
        let mut changed = Vec::new();
        for units in self.regions.iter().flatten() {
            let mut content = units.content.duplicate();
            let before = (content.payloads.len(), content.volumes.len());
            content.payloads.retain(|record| !drop_payload(record));
            content.volumes.retain(|record| !drop_volume(record) && !self.is_dead(record));
            if units.is_interrupted() || before != (content.payloads.len(), content.volumes.len()) {
                changed.push((units.grant.region, content));
            }
        }
        RecordPlan(changed)
    }

    /// Writes the plan; every unit is synced before the next one is touched.
    pub(super) fn write_records(
        &mut self,
        plan: RecordPlan,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChangeError> {
        if self.ended {
            return Err(ChangeError::SessionEnded);
        }
        for (region, content) in plan.0 {
            let Some(units) = &mut self.regions[region.as_usize()] else { continue };
            units.store(content, &*self.disk.backend, &self.disk.geometry, rng).map_err(
                |error| match error {
                    StoreError::TooManyRecords => ChangeError::RecordsFull,
                    StoreError::Io(error) => ChangeError::Io(error),
                },
            )?;
        }
        Ok(())
    }
}

enum Fate {
    Stays,
    Moves,
    Goes,
}

/// Adds a record, or what it adds to one of the same volume: a label.
fn gather(records: &mut Vec<VolumeRecord>, record: &VolumeRecord) {
    match records.iter_mut().find(|known| known.grant.key.id() == record.grant.key.id()) {
        Some(known) if known.label.is_empty() => known.label = record.label.clone(),
        Some(_) => {}
        None => records.push(record.duplicate()),
    }
}

fn contains(set: &RegionSet, part: &RegionSet) -> bool {
    set.iter().zip(part).all(|(set, part)| *set || !*part)
}
