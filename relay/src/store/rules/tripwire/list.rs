//! What a tripwire sets off.
//!
//! Invariant: TRP-07 an action is done only with the permission of whoever owns what it names.

use lapwing_wire::{
    frame::Stored,
    ids::{EnvelopeId, TripwireId},
    padding::SizeClass,
    tripwire::Action,
};

use super::super::{
    super::{
        Outcome, StoreError, Withdrawn,
        record::{Anchor, Cause, Tripwire, anchor_key, list_key},
        tables::{Batch, Space, Tables},
    },
    Scene,
    access::{self, Cost},
    anchor, mailbox,
};

/// Does what can be done of a list.
pub(super) fn run<T: Tables>(
    batch: &mut Batch<'_, T>,
    actions: &[Action],
    scene: &mut Scene,
) -> Result<(), StoreError> {
    for action in actions {
        match action {
            Action::Append { mailbox, envelope, permission } => {
                let envelope_id = EnvelopeId::of(envelope);
                let Some(there) = batch.mailbox(mailbox)? else { continue };
                let (born, writer) = (there.born, there.keys.write);
                // TRP-07
                if Action::check_append(&writer, mailbox, &envelope_id, permission).is_err()
                    || SizeClass::of_sealed(envelope.len()).is_none()
                    || mailbox::placed(batch, born, &envelope_id)?.is_some()
                {
                    continue;
                }
                // Beyond every quota: the list was charged when it was armed.
                let outcome = mailbox::store(batch, mailbox, &envelope_id, envelope, scene.day)?;
                if let Outcome::Stored { place: Stored { .. }, is_new: true } = outcome {
                    scene.appended.push(*mailbox);
                }
            }
            Action::Sink { mailbox, permission } => {
                let Some(there) = batch.mailbox(mailbox)? else { continue };
                let (born, admin) = (there.born, there.keys.admin);
                // TRP-07
                if Action::check_sink(&admin, mailbox, permission).is_err() {
                    continue;
                }
                // What it holds is unreadable from here on; the sweep deletes it.
                batch.sink_mailbox(*mailbox)?;
                scene.withdrawn.push(Withdrawn::all(*mailbox, born));
            }
            Action::Refresh { anchor, spare, permission } => {
                let there: Option<Anchor> = batch.load_as(Space::State, &anchor_key(anchor))?;
                let Some(there) = there else { continue };
                // TRP-07
                if Action::check_refresh(&there.owner, spare.as_ref(), permission).is_ok() {
                    anchor::refresh(batch, anchor, there, spare.as_ref(), scene)?;
                }
            }
        }
    }
    Ok(())
}

/// Deletes a list, forgets what opens it, and gives back what it was charged.
pub(super) fn spend<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    tripwire: &mut Tripwire,
    cause: Cause,
) -> Result<(), StoreError> {
    batch.forget_alone(list_key(id, cause))?;
    let Some(at) = tripwire.lists.iter().position(|(of, _)| *of == cause) else { return Ok(()) };
    let (_, bytes) = tripwire.lists.swap_remove(at);
    let freed = bytes.min(tripwire.charged);
    tripwire.charged -= freed;
    access::give(batch, tripwire.access.as_ref(), Cost { bytes: freed, mailboxes: 0 })
}
