//! Trusted contacts say so.
//!
//! Invariants: TRP-13 fewer voices than needed set off nothing, and the relay cannot read the list before; TRP-16 every
//! voice, right, wrong, late or twice, writes and gets one answer.

use lapwing_wire::{
    frame::RaiseTrigger,
    limits::VOICE_DAYS,
    sharing::Share,
    tripwire::{SealedList, open_list},
};

use super::{
    super::{
        super::{
            Outcome, StoreError, damage,
            record::{Cause, Raised, Tripwire, key, list_key},
            tables::{Batch, Space, Tables},
        },
        Scene,
    },
    list, save,
};

/// TRP-16: takes a voice, and does what the list says once there are enough.
pub(in super::super) fn raise<T: Tables>(
    batch: &mut Batch<'_, T>,
    raise: &RaiseTrigger,
    mut scene: Scene,
) -> Result<Outcome, StoreError> {
    scene.fill(batch);
    let id = &raise.tripwire;
    let mut is_whole = true;
    if let Some(mut tripwire) = batch.load_as::<Tripwire>(Space::State, &key::tripwire(id))?
        && take(&mut tripwire, raise, &scene)
    {
        match agreed(batch, raise, &tripwire) {
            // The voices are kept: whoever raised this one comes again.
            Err(StoreError::Damaged) => is_whole = false,
            agreed => {
                if let Some(actions) = agreed? {
                    is_whole = list::run(batch, &actions, &mut scene)?;
                    if is_whole {
                        list::spend(batch, id, &mut tripwire, Cause::Quorum)?;
                        tripwire.came.quorum = true;
                        tripwire.quorum = None;
                    }
                }
            }
        }
        save(batch, id, &tripwire);
    }
    let Scene { appended, withdrawn, .. } = scene;
    Ok(Outcome::Triggered { appended, withdrawn, is_whole })
}

/// Whether the voice is one of the quorum's with its own share; then it counts from today on.
fn take(tripwire: &mut Tripwire, raise: &RaiseTrigger, scene: &Scene) -> bool {
    let Some(quorum) = &mut tripwire.quorum else { return false };
    let hash = raise.share.hash(&raise.tripwire);
    let own = quorum.voices.iter().find(|voice| voice.key == raise.key && voice.share == hash);
    let Some(voice) = own.copied() else { return false };
    let is_fresh = |raised: &Raised| scene.day.value().saturating_sub(raised.day.value()) < VOICE_DAYS;
    quorum.raised.retain(|raised| is_fresh(raised) && raised.voice != voice);
    quorum.raised.push(Raised { voice, share: raise.share.clone(), day: scene.day });
    true
}

/// What the list says, if enough voices agree.
fn agreed<T: Tables>(
    batch: &Batch<'_, T>,
    raise: &RaiseTrigger,
    tripwire: &Tripwire,
) -> Result<Option<Vec<lapwing_wire::tripwire::Action>>, StoreError> {
    let Some(quorum) = tripwire.quorum.as_ref().filter(|q| q.raised.len() >= usize::from(q.threshold)) else {
        return Ok(None);
    };
    // Its voices are kept.
    let sealed =
        batch.load_sealed(&list_key(&raise.tripwire, Cause::Quorum)).inspect_err(|_| damage::found())?;
    let Some(sealed) = sealed else { return Ok(None) };
    let shares: Vec<&Share> = quorum.raised.iter().map(|raised| &raised.share).collect();
    Ok(open_list(&SealedList::from_bytes(sealed.to_vec()), quorum.threshold, &raise.tripwire, &shares))
}
