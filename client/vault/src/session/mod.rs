//! What an unlocked container can do.
//!
//! Invariants: a session sees exactly what its payload and the allocation units behind it open; every change
//! writes its records first and the header last, so that a power cut leaves the state before or after
//! (VLT-40); a session whose own slots are gone ends (VLT-28).

mod growth;
mod naming;
mod passphrases;
mod records;
mod volumes;

use std::{fmt, sync::Arc};

use rand_core::CryptoRng;

pub(crate) use growth::{erase_all_but_salt, erase_header};
pub use passphrases::{Entry, Spec};

use crate::{
    allocation::{AllocationUnits, PayloadRecord},
    container::Disk,
    error::ChangeError,
    geometry::RegionIndex,
    header::{Header, HeaderKeys},
    kdf::{Cost, OpenerKey, SlotKey, TrialKeys},
    payload::{APPLICATION_MAX, Grant, Others, Payload, PayloadId, VolumeId},
    slot::{Inner, SlotSet},
};

/// An unlocked container. It holds the container's lock until it and all its volumes are dropped.
pub struct Session {
    disk: Arc<Disk>,
    cost: Cost,
    keys: HeaderKeys,
    payload: Payload,
    access: Access,
    /// The allocation units that this session can open.
    regions: [Option<AllocationUnits>; 4],
    entries: Vec<LiveEntry>,
    /// Slots that open with known keys to something this version cannot read: never touched.
    unreadable: SlotSet,
    ended: bool,
}

/// The keys of a payload's own two slots.
pub(crate) struct Access {
    slots: [u8; 2],
    keys: [SlotKey; 2],
    openers: [OpenerKey; 2],
}

impl Access {
    /// Keeps the two slots' keys, in guarded memory; the other thirty are wiped.
    pub(crate) fn from_trial(trial: TrialKeys, slots: [u8; 2]) -> Self {
        let key = |slot: u8| SlotKey(trial.slots[usize::from(slot)].0.duplicate());
        let opener = |slot: u8| OpenerKey(trial.openers[usize::from(slot)].0.duplicate());
        Self { slots, keys: [key(slots[0]), key(slots[1])], openers: [opener(slots[0]), opener(slots[1])] }
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (u8, &SlotKey, &OpenerKey)> {
        self.slots.iter().zip(&self.keys).zip(&self.openers).map(|((slot, key), opener)| (*slot, key, opener))
    }
}

/// Another payload that this session knows, and can seal again.
struct LiveEntry {
    home: RegionIndex,
    record: PayloadRecord,
    payload: Payload,
}

impl LiveEntry {
    fn slot_set(&self) -> SlotSet {
        self.record.slot_set()
    }
}

/// What one header write changes; everything else is carried over.
#[derive(Default)]
struct HeaderChange {
    set: Vec<(u8, Inner, Option<OpenerKey>)>,
    refresh: SlotSet,
}

impl HeaderChange {
    /// Puts `payload` into both its slots, under keys those slots have already.
    fn seal(
        &mut self,
        payload: &Payload,
        keys: &[SlotKey; 2],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChangeError> {
        for (slot, key) in payload.slots.iter().zip(keys) {
            // Bounds were checked before; a payload that does not encode would be lost otherwise.
            let inner = Inner::seal(payload, *slot, key, rng).map_err(|_| ChangeError::ApplicationTooLong)?;
            self.set.push((*slot, inner, None));
        }
        Ok(())
    }

    /// Puts `payload` into the slots of a new passphrase.
    fn seal_new(
        &mut self,
        payload: &Payload,
        access: &Access,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChangeError> {
        for (slot, key, opener) in access.each() {
            let inner = Inner::seal(payload, slot, key, rng).map_err(|_| ChangeError::ApplicationTooLong)?;
            self.set.push((slot, inner, Some(OpenerKey(opener.0.duplicate()))));
        }
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(
        disk: Arc<Disk>,
        cost: Cost,
        keys: HeaderKeys,
        payload: Payload,
        access: Access,
        regions: [Option<AllocationUnits>; 4],
        header: &Header,
    ) -> Self {
        let mut session = Self {
            disk,
            cost,
            keys,
            payload,
            access,
            regions,
            entries: Vec::new(),
            unreadable: SlotSet::EMPTY,
            ended: false,
        };
        session.find_entries(header);
        session
    }

    pub(crate) fn header_keys(&self) -> &HeaderKeys {
        &self.keys
    }

    /// What the header write of an unlock destroys: nothing, or all that this payload does not keep.
    pub(crate) fn slots_to_refresh(&self) -> SlotSet {
        match self.payload.others {
            Others::Keep => SlotSet::EMPTY,
            Others::Refresh => SlotSet::from_bits(u16::MAX).without(self.taken_slots()),
        }
    }

    /// The name of the payload that this session's passphrase opened.
    pub fn id(&self) -> PayloadId {
        self.payload.id
    }

    /// The volumes of this session's payload, in its order.
    pub fn volumes(&self) -> Vec<VolumeId> {
        self.payload.volumes.iter().map(|grant| grant.key.id()).collect()
    }

    /// The caller's own field: opaque here, at most [`APPLICATION_MAX`] bytes, empty at creation.
    pub fn application(&self) -> &[u8] {
        &self.payload.application
    }

    /// Replaces the caller's own field, with one header write.
    ///
    /// # Errors
    ///
    /// [`ChangeError::ApplicationTooLong`], [`ChangeError::SessionEnded`], or the system's error.
    pub fn set_application(
        &mut self,
        application: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(), ChangeError> {
        check_application(application)?;
        let mut payload = self.payload.duplicate();
        payload.application = zeroize::Zeroizing::new(application.to_vec());
        let mut change = HeaderChange::default();
        change.seal(&payload, &self.access.keys, rng)?;
        self.write_header(change, rng)?;
        self.payload = payload;
        Ok(())
    }

    /// Whether another process waits for the container: finish the transaction, drop everything, end.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn lock_requested(&self) -> std::io::Result<bool> {
        self.disk.backend.lock_requested()
    }

    /// Whether the container is where it was opened: who goes on in a file that was replaced works for nobody.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn is_at_its_path(&self) -> std::io::Result<bool> {
        self.disk.backend.is_at_its_path()
    }

    /// Makes every slot unopenable for ever, this session's own included. What is left of the file is random
    /// bytes. Volumes that are still open keep working until they are dropped.
    ///
    /// # Errors
    ///
    /// [`ChangeError::SessionEnded`], or the system's error; it can be repeated after the next unlock.
    pub fn sign_off(mut self, rng: &mut impl CryptoRng) -> Result<(), ChangeError> {
        let change = HeaderChange { set: Vec::new(), refresh: SlotSet::from_bits(u16::MAX) };
        self.write_header(change, rng)
    }

    /// For tests that look at the disk with a volume's key.
    pub(crate) fn dangerously_borrow(&self, volume: VolumeId) -> Option<(&Disk, &Grant)> {
        Some((&self.disk, self.grant(volume).ok()?))
    }

    /// Slots that this session must neither overwrite nor hand out: its own, those its payload keeps, and
    /// those of every payload it knows.
    fn taken_slots(&self) -> SlotSet {
        self.entries
            .iter()
            .fold(SlotSet::of(self.payload.slots), |set, entry| set.union(entry.slot_set()))
            .union(self.payload.keep)
            .union(self.unreadable)
    }

    /// Whether both of this session's own slots are in the header.
    fn is_in(&self, header: &Header) -> bool {
        self.access.each().all(|(slot, key, _)| {
            header.payload(slot, key).is_some_and(|payload| payload.id == self.payload.id)
        })
    }

    /// One header write: reads the newest whole copy, checks that this session is still in it, changes it,
    /// writes both copies.
    fn write_header(&mut self, change: HeaderChange, rng: &mut dyn CryptoRng) -> Result<(), ChangeError> {
        if self.ended {
            return Err(ChangeError::SessionEnded);
        }
        let (newest_copy, mut header) = self.disk.newest_header(&self.keys)?.ok_or(ChangeError::Damaged)?;
        // VLT-28.
        if !self.is_in(&header) {
            self.ended = true;
            return Err(ChangeError::SessionEnded);
        }
        let HeaderChange { set, refresh } = change;
        header.refresh(refresh, rng);
        for (slot, inner, opener) in set {
            header.set(slot, inner, opener.as_ref());
        }
        self.disk.write_header(newest_copy, &mut header, &self.keys, rng)?;
        Ok(())
    }
}

fn check_application(application: &[u8]) -> Result<(), ChangeError> {
    if application.len() > APPLICATION_MAX {
        return Err(ChangeError::ApplicationTooLong);
    }
    Ok(())
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}
