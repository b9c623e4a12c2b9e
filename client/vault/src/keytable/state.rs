//! What is known of a key table: its units, where names are, and what is still to be written.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Weak,
};

use super::{
    KeyName,
    unit::{Opened, Unit, UnitContent},
};
use crate::{error::VolumeError, memory::Secret, sector::FillRng, units::Units};

pub(super) struct State {
    pub(super) units: Vec<Slot>,
    /// Which unit has the key of a name, of all units that were read.
    pub(super) places: HashMap<KeyName, usize>,
    /// Keys that no unit has yet.
    pub(super) prepared: BTreeMap<KeyName, Secret<32>>,
    /// Units whose older copy must be written again: it may have a key that is destroyed.
    pub(super) unfinished: BTreeSet<usize>,
    /// Units of which both copies must be written again: a writing failed, and nobody knows what the disk has of it.
    pub(super) doubtful: BTreeSet<usize>,
    /// What says on the disk that the region is not scrubbed; nothing while the volume is being opened, and where a
    /// table is on its own.
    pub(super) units_of_volume: Option<Weak<Units>>,
    pub(super) rng: FillRng,
}

/// What is known of a unit.
pub(super) enum Slot {
    Unread,
    /// Neither copy opens.
    Damaged,
    Known(Unit),
}

impl State {
    pub(super) fn new(units: usize, rng: FillRng) -> Self {
        Self {
            units: std::iter::repeat_with(|| Slot::Unread).take(units).collect(),
            places: HashMap::new(),
            prepared: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            units_of_volume: None,
            rng,
        }
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Unit> {
        self.units.iter().filter_map(|slot| match slot {
            Slot::Known(unit) => Some(unit),
            Slot::Unread | Slot::Damaged => None,
        })
    }

    pub(super) fn unit(&self, unit: usize) -> Result<&Unit, VolumeError> {
        match self.units.get(unit) {
            Some(Slot::Known(unit)) => Ok(unit),
            _ => Err(VolumeError::Damaged),
        }
    }

    pub(super) fn damaged(&self) -> impl Iterator<Item = usize> {
        let slots = self.units.iter().enumerate();
        slots.filter(|(_, slot)| matches!(slot, Slot::Damaged)).map(|(number, _)| number)
    }

    pub(super) fn check(&self) -> Result<(), VolumeError> {
        if self.damaged().next().is_some() { Err(VolumeError::Damaged) } else { Ok(()) }
    }

    /// VLT-65: the writing of a unit failed, before or after it reached the disk.
    pub(super) fn doubt(&mut self, number: usize) {
        self.unfinished.remove(&number);
        self.doubtful.insert(number);
        self.forget(number);
    }

    /// A unit is to be read again.
    pub(super) fn forget(&mut self, number: usize) {
        if let Some(slot) = self.units.get_mut(number) {
            *slot = Slot::Unread;
        }
        self.places.retain(|_, unit| *unit != number);
    }

    /// Whether each of these names is in a unit that opens, or in none yet.
    pub(super) fn has_all(&self, names: &BTreeSet<KeyName>) -> bool {
        names.iter().all(|name| self.places.contains_key(name) || self.prepared.contains_key(name))
    }

    pub(super) fn key(&self, name: KeyName) -> Option<Secret<32>> {
        self.unit(*self.places.get(&name)?).ok()?.content.key(name)
    }

    /// Takes in what a unit holds.
    pub(super) fn learn(&mut self, number: usize, opened: Opened) {
        let slot = match opened {
            Opened::Damaged => Slot::Damaged,
            Opened::Whole(unit, complete) => {
                if !complete {
                    self.unfinished.insert(number);
                }
                let names = unit.content.names().filter_map(|name| name.try_into().ok());
                self.places.extend(names.map(|name| (KeyName(name), number)));
                Slot::Known(unit)
            }
        };
        if let Some(place) = self.units.get_mut(number) {
            *place = slot;
        }
    }

    /// The older copy of a unit is the newer one now.
    pub(super) fn replace(&mut self, number: usize, content: Option<UnitContent>) {
        let Self { units, places, .. } = self;
        let Some(Slot::Known(known)) = units.get_mut(number) else { return };
        known.generation = known.generation.next();
        known.newest_copy = 1 - known.newest_copy;
        let Some(content) = content else { return };
        for name in known.content.names().filter(|name| !content.contains(name)) {
            if let Ok(name) = name.try_into() {
                places.remove(&KeyName(name));
            }
        }
        let names = content.names().filter_map(|name| name.try_into().ok());
        places.extend(names.map(|name| (KeyName(name), number)));
        known.content = content;
    }
}
