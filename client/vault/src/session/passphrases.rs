//! Passphrases and the payloads they open: adding, sealing again, removing, changing.

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{Access, HeaderChange, LiveEntry, Session, check_application, records::NewRecord};
use crate::{
    allocation::{LABEL_MAX, PayloadRecord},
    container::draw_pair,
    error::ChangeError,
    geometry::REGION_COUNT,
    header::Trial,
    kdf::{Passphrase, Root, SlotKey, TrialKeys},
    memory::Secret,
    payload::{Grant, HeaderKey, Others, Payload, PayloadId, VolumeId},
    slot::SlotSet,
};

/// What a passphrase is to open, and what its sessions do with everybody else's slots.
#[derive(Clone)]
pub struct Spec<'a> {
    /// One to four volumes of this session, in the order in which the payload lists them. Its sessions will
    /// have to name homes for their own records without knowing who else opens what: a convention between
    /// callers, such as "the first", lets the maker put first the one that fewest others open. Every other
    /// volume is recorded in the units of one before it, as if the passphrase had made it; where that would
    /// show a volume to a passphrase that does not open it, another volume comes first.
    pub volumes: &'a [VolumeId],
    /// What its unlocks do with slots that it does not keep. [`Others::Refresh`] destroys the caller's own
    /// payload as well, unless `spare` names it.
    pub others: Others,
    /// Payloads whose slots it keeps whatever happens: [`Session::id`], or entries of this session.
    pub spare: &'a [PayloadId],
    /// The caller's field for that payload, at most [`APPLICATION_MAX`](crate::APPLICATION_MAX) bytes.
    pub application: &'a [u8],
    /// What the record is called, at most [`LABEL_MAX`] bytes; only who opens `home` can read it.
    pub label: &'a [u8],
    /// The volume in whose allocation units the record is kept: one that no passphrase opens which must not
    /// know of this one.
    pub home: VolumeId,
}

impl fmt::Debug for Spec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spec(..)")
    }
}

/// Another payload that this session knows.
pub struct Entry<'a> {
    entry: &'a LiveEntry,
    home: VolumeId,
}

impl Entry<'_> {
    /// Its name.
    pub fn id(&self) -> PayloadId {
        self.entry.record.id
    }

    /// The label that was given with it.
    pub fn label(&self) -> &[u8] {
        &self.entry.record.label
    }

    /// The volume that keeps the record.
    pub fn home(&self) -> VolumeId {
        self.home
    }

    /// The volumes it opens.
    pub fn volumes(&self) -> Vec<VolumeId> {
        self.entry.payload.volumes.iter().map(|grant| grant.key.id()).collect()
    }

    /// What it does with slots that it does not keep.
    pub fn others(&self) -> Others {
        self.entry.payload.others
    }

    /// Its application field.
    pub fn application(&self) -> &[u8] {
        &self.entry.payload.application
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry(..)")
    }
}

impl Session {
    /// The other payloads that this session knows: those recorded in volumes it opens.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        self.entries
            .iter()
            .filter_map(|entry| {
                let home = self.regions[entry.home.as_usize()].as_ref()?.grant.key.id();
                Some(Entry { entry, home })
            })
            .collect()
    }

    /// Whether a passphrase opens anything in this container, whether or not this session knows it. Costs a
    /// whole derivation.
    ///
    /// # Errors
    ///
    /// Of the derivation, or the system's.
    pub fn opens(&self, passphrase: &Passphrase) -> Result<bool, ChangeError> {
        Ok(self.opens_trial(&self.derive(passphrase)?)?)
    }

    /// Adds a passphrase that opens some of this session's volumes. The session's payload keeps its slots
    /// from the same header write on.
    ///
    /// # Errors
    ///
    /// [`ChangeError::AlreadyOpens`], [`ChangeError::NoFreeSlot`], [`ChangeError::WouldExpose`] when `home`
    /// would show the record to somebody else, or no order of the volumes lets their records hide from
    /// everybody else, and the checks of [`Spec`].
    pub fn add_passphrase(
        &mut self,
        passphrase: &Passphrase,
        spec: &Spec<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<PayloadId, ChangeError> {
        self.check_spec(spec)?;
        let taken = self.taken_slots();
        let trial = self.derive_unused(passphrase)?;
        let slots = draw_pair(taken, rng).ok_or(ChangeError::NoFreeSlot)?;
        let access = Access::from_trial(trial, slots);
        let payload = self.payload_of(spec, PayloadId::random(rng), slots)?;
        let record = record_of(payload.id, &access, spec.label);
        self.store_entry(payload, record, Some(&access), spec, rng)
    }

    /// Records this session's own payload in the units of `home`, unless it is recorded where the session can read
    /// it. From then on the sessions of every payload that opens `home` know this one: they leave its slots alone
    /// (VLT-44), and can seal it again or remove it. For payloads that are to open all that this one opens.
    ///
    /// # Errors
    ///
    /// [`ChangeError::WouldExpose`] when `home` would show the record to somebody who opens less,
    /// [`ChangeError::LabelTooLong`], or the system's error.
    pub fn record_own(
        &mut self,
        home: VolumeId,
        label: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(), ChangeError> {
        if label.len() > LABEL_MAX {
            return Err(ChangeError::LabelTooLong);
        }
        if self.own_label().is_some() {
            return Ok(());
        }
        let home = self.home_of(home)?;
        let record = record_of(self.payload.id, &self.access, label);
        let plan = self.plan_record(home, NewRecord::Payload(record), None)?;
        self.write_records(plan, rng)
    }

    /// The label under which this session's own payload is recorded, where the session can read that.
    fn own_label(&self) -> Option<&[u8]> {
        let records = self.regions.iter().flatten().flat_map(|units| &units.content.payloads);
        let (id, slots) = (self.payload.id, self.payload.slots);
        records
            .filter(|record| record.id == id && record.slots == slots)
            .map(|record| record.label.as_slice())
            .max_by_key(|label| label.len())
    }

    /// Seals a known payload anew, with other volumes, another field, another label, without its passphrase.
    /// Its slots and its passphrase stay.
    ///
    /// # Errors
    ///
    /// [`ChangeError::UnknownEntry`], and as [`add_passphrase`](Self::add_passphrase).
    pub fn reseal(
        &mut self,
        entry: PayloadId,
        spec: &Spec<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ChangeError> {
        self.check_spec(spec)?;
        let known = self.entry(entry)?;
        let mut record = known.record.duplicate();
        record.label = Zeroizing::new(spec.label.to_vec());
        let payload = self.payload_of(spec, entry, record.slots)?;
        self.store_entry(payload, record, None, spec, rng)?;
        Ok(())
    }

    /// Makes a known payload unopenable for ever, without its passphrase.
    ///
    /// # Errors
    ///
    /// [`ChangeError::UnknownEntry`], [`ChangeError::SessionEnded`], or the system's error.
    pub fn remove_entry(&mut self, entry: PayloadId, rng: &mut impl CryptoRng) -> Result<(), ChangeError> {
        let slots = self.entry(entry)?.slot_set();
        let mut change = HeaderChange { set: Vec::new(), refresh: slots };
        let own = self.replace_kept(slots, SlotSet::EMPTY, Some(entry), &mut change, rng)?;
        self.write_header(change, rng)?;
        self.take_over(own);
        self.entries.retain(|known| known.record.id != entry);
        let plan = self.plan_removal(|record| record.id == entry, |_| false);
        self.write_records(plan, rng)
    }

    /// Replaces this session's own passphrase: its payload moves to fresh slots under the new one, and the
    /// old slots are refreshed, in one header write. `home` keeps the record of the move: a volume of this
    /// session that no passphrase opens which must not know of this one.
    ///
    /// An image from before the change, together with the old passphrase, still opens what it opened then;
    /// the volumes' keys stay the same.
    ///
    /// # Errors
    ///
    /// [`ChangeError::AlreadyOpens`] (also for the passphrase it has now), [`ChangeError::WouldExpose`],
    /// [`ChangeError::UnknownVolume`], or the system's error.
    pub fn change_passphrase(
        &mut self,
        passphrase: &Passphrase,
        home: VolumeId,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ChangeError> {
        let home = self.home_of(home)?;
        let old = SlotSet::of(self.payload.slots);
        let trial = self.derive_unused(passphrase)?;
        // With every slot taken the own two are used again: the same header write replaces them.
        let taken = self.taken_slots();
        let slots = draw_pair(taken, rng)
            .or_else(|| draw_pair(taken.without(old), rng))
            .ok_or(ChangeError::NoFreeSlot)?;
        let access = Access::from_trial(trial, slots);
        let record = record_of(self.payload.id, &access, self.own_label().unwrap_or_default());
        let plan = self.plan_record(home, NewRecord::Payload(record), None)?;
        self.write_records(plan, rng)?;

        let new = SlotSet::of(slots);
        let mut change = HeaderChange { set: Vec::new(), refresh: old.without(new) };
        let others = self.replace_kept(old, new, None, &mut change, rng)?;
        let mut payload = self.payload.duplicate();
        payload.slots = slots;
        payload.keep = payload.keep.without(new);
        change.seal_new(&payload, &access, rng)?;
        self.write_header(change, rng)?;
        self.take_over(Replaced { own: None, ..others });
        self.payload = payload;
        self.access = access;
        let (id, slots) = (self.payload.id, self.payload.slots);
        let plan = self.plan_removal(|record| record.id == id && record.slots != slots, |_| false);
        self.write_records(plan, rng)
    }

    /// Writes the record, then the header with the payload and this session's keep set.
    fn store_entry(
        &mut self,
        mut payload: Payload,
        record: PayloadRecord,
        new: Option<&Access>,
        spec: &Spec<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<PayloadId, ChangeError> {
        let home = self.home_of(spec.home)?;
        let mut plan = self.plan_record(home, NewRecord::Payload(record.duplicate()), Some(&payload))?;
        let reordered = self.name_volumes(&mut plan, &mut payload)?;
        self.write_records(plan, rng)?;

        let mut change = HeaderChange::default();
        match new {
            Some(access) => change.seal_new(&payload, access, rng)?,
            None => change.seal(&payload, &record.keys, rng)?,
        }
        for other in &reordered {
            change.seal(other, &self.entry(other.id)?.record.keys, rng)?;
        }
        let mut own = self.payload.duplicate();
        own.keep = own.keep.union(record.slot_set());
        change.seal(&own, &self.access.keys, rng)?;
        self.write_header(change, rng)?;

        self.take_over(Replaced { own: None, entries: reordered });
        self.payload = own;
        let id = record.id;
        self.entries.retain(|entry| entry.record.id != id);
        self.entries.push(LiveEntry { home, record, payload });
        Ok(id)
    }

    /// In all payloads that this session can seal, replaces kept slots: `old` by `new`.
    fn replace_kept(
        &self,
        old: SlotSet,
        new: SlotSet,
        except: Option<PayloadId>,
        change: &mut HeaderChange,
        rng: &mut dyn CryptoRng,
    ) -> Result<Replaced, ChangeError> {
        let mut replaced = Replaced { own: None, entries: Vec::new() };
        let swap = |payload: &Payload| {
            let mut payload = payload.duplicate();
            payload.keep = payload.keep.without(old).union(new);
            payload
        };
        for entry in self.entries.iter().filter(|entry| Some(entry.record.id) != except) {
            if entry.payload.keep.intersects(old) {
                let payload = swap(&entry.payload);
                change.seal(&payload, &entry.record.keys, rng)?;
                replaced.entries.push(payload);
            }
        }
        if self.payload.keep.intersects(old) {
            let payload = swap(&self.payload);
            change.seal(&payload, &self.access.keys, rng)?;
            replaced.own = Some(payload);
        }
        Ok(replaced)
    }

    pub(super) fn take_over(&mut self, replaced: Replaced) {
        let Replaced { own, entries } = replaced;
        if let Some(own) = own {
            self.payload = own;
        }
        for payload in entries {
            if let Some(entry) = self.entries.iter_mut().find(|entry| entry.record.id == payload.id) {
                entry.payload = payload;
            }
        }
    }

    pub(super) fn entry(&self, id: PayloadId) -> Result<&LiveEntry, ChangeError> {
        self.entries.iter().find(|entry| entry.record.id == id).ok_or(ChangeError::UnknownEntry)
    }

    fn check_spec(&self, spec: &Spec<'_>) -> Result<(), ChangeError> {
        check_application(spec.application)?;
        if spec.label.len() > LABEL_MAX {
            return Err(ChangeError::LabelTooLong);
        }
        let mut different = spec.volumes.to_vec();
        different.sort_unstable();
        different.dedup();
        if different.len() != spec.volumes.len() || !(1..=REGION_COUNT).contains(&different.len()) {
            return Err(ChangeError::VolumeCount);
        }
        Ok(())
    }

    fn payload_of(&self, spec: &Spec<'_>, id: PayloadId, slots: [u8; 2]) -> Result<Payload, ChangeError> {
        let volumes: Vec<Grant> = spec
            .volumes
            .iter()
            .map(|volume| Ok(self.grant(*volume)?.duplicate()))
            .collect::<Result<_, ChangeError>>()?;
        let mut keep = SlotSet::EMPTY;
        for spared in spec.spare.iter().filter(|spared| **spared != id) {
            keep = keep.union(if *spared == self.payload.id {
                SlotSet::of(self.payload.slots)
            } else {
                self.entry(*spared)?.slot_set()
            });
        }
        Ok(Payload {
            id,
            header_key: HeaderKey(self.payload.header_key.0.duplicate()),
            volumes,
            slots,
            keep,
            others: spec.others,
            application: Zeroizing::new(spec.application.to_vec()),
        })
    }

    fn derive(&self, passphrase: &Passphrase) -> Result<TrialKeys, ChangeError> {
        Ok(Root::derive(passphrase, self.disk.salt(), self.cost)?.trial_keys())
    }

    /// VLT-32: a passphrase that opens something already is refused.
    fn derive_unused(&self, passphrase: &Passphrase) -> Result<TrialKeys, ChangeError> {
        let trial = self.derive(passphrase)?;
        if self.opens_trial(&trial)? { Err(ChangeError::AlreadyOpens) } else { Ok(trial) }
    }

    fn opens_trial(&self, trial: &TrialKeys) -> std::io::Result<bool> {
        let copies = self.disk.read_copies()?;
        let mut opens = false;
        for (copy, image) in copies.iter().enumerate() {
            opens |= !matches!(image.try_all(copy, trial), Trial::Nothing);
        }
        Ok(opens)
    }
}

/// Payloads that a header write seals anew besides the one it is about.
pub(super) struct Replaced {
    pub(super) own: Option<Payload>,
    pub(super) entries: Vec<Payload>,
}

fn record_of(id: PayloadId, access: &Access, label: &[u8]) -> PayloadRecord {
    let copy = |key: &SlotKey| SlotKey(Secret::guarded(|out| *out = *key.0.expose()));
    PayloadRecord {
        id,
        slots: access.slots,
        keys: [copy(&access.keys[0]), copy(&access.keys[1])],
        label: Zeroizing::new(label.to_vec()),
    }
}
