//! Too many guesses at an anchor.

use lapwing_wire::{
    ids::{AnchorId, TripwireId},
    tripwire::Action,
};

use super::{
    super::{
        super::{
            StoreError, damage,
            record::{self, Cause, Tripwire, key, link_key, linked_in, links_of, list_key},
            tables::{Batch, Scan, Space, Tables},
        },
        Scene,
    },
    list, save,
};

/// Tripwires that tell of one anchor, at most: more than its owner has relations to alert by.
const MAX_LINKS: usize = 64;

/// TRP-15: an anchor froze, and the tripwires of its owner tell, each once. Whether all have; the others stay linked.
pub(in super::super) fn tell<T: Tables>(
    batch: &mut Batch<'_, T>,
    anchor: &AnchorId,
    scene: &mut Scene,
) -> Result<bool, StoreError> {
    let (first, last) = links_of(anchor);
    let mut linked = Vec::new();
    let around = batch.scan_around(Space::State, &first, &last, &mut |key, _| {
        linked.extend(linked_in(key));
        Ok(if linked.len() < MAX_LINKS { Scan::More } else { Scan::Stop })
    })?;
    let mut is_whole = !around.is_damaged;
    for id in linked {
        // One that the disk has spoilt keeps no other from telling, and no anchor from freezing.
        match tell_of(batch, anchor, &id, scene) {
            Err(StoreError::Damaged) => {
                damage::found();
                is_whole = false;
            }
            told => is_whole &= told?,
        }
    }
    Ok(is_whole)
}

fn tell_of<T: Tables>(
    batch: &mut Batch<'_, T>,
    anchor: &AnchorId,
    id: &TripwireId,
    scene: &mut Scene,
) -> Result<bool, StoreError> {
    let there = batch.load_as::<Tripwire>(Space::State, &key::tripwire(id))?;
    let actions = batch.load_sealed(&list_key(id, Cause::Frozen))?;
    let actions: Vec<Action> = actions.map_or(Ok(Vec::new()), |actions| record::decode_list(&actions))?;
    let Some(mut tripwire) = there else {
        batch.delete(Space::State, link_key(anchor, id));
        return Ok(true);
    };
    if !list::run(batch, &actions, scene)? {
        return Ok(false);
    }
    batch.delete(Space::State, link_key(anchor, id));
    list::spend(batch, id, &mut tripwire, Cause::Frozen)?;
    tripwire.came.frozen = true;
    tripwire.anchor = None;
    save(batch, id, &tripwire);
    Ok(true)
}
