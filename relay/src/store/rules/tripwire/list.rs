//! What a tripwire sets off.
//!
//! Invariant: TRP-07 an action is done only with the permission of whoever owns what it names.

use lapwing_wire::{
    anchor::GroupKey,
    capability::Signature,
    frame::Stored,
    ids::{AnchorId, EnvelopeId, MailboxId, TripwireId},
    padding::SizeClass,
    tripwire::Action,
};

use super::super::{
    super::{
        Mailbox, Outcome, StoreError, Withdrawn,
        record::{Anchor, Cause, Tripwire, anchor_key, key, list_key},
        tables::{Batch, Space, Tables},
    },
    Scene,
    access::{self, Cost},
    anchor, leftovers, mailbox,
};

/// Does what can be done of a list: what an action names may be damaged, and keeps no other action from being done. The list is spent in
/// any case, since what the disk has spoilt stays as it is, and the others must not be done twice.
pub(super) fn run<T: Tables>(
    batch: &mut Batch<'_, T>,
    actions: &[Action],
    scene: &mut Scene,
) -> Result<(), StoreError> {
    for action in actions {
        let done = match action {
            Action::Append { mailbox, envelope, permission } => {
                append(batch, mailbox, envelope, permission, scene)
            }
            Action::Sink { mailbox, permission } => sink(batch, mailbox, permission, scene),
            Action::Refresh { anchor, spare, permission } => {
                refresh(batch, anchor, spare.as_ref(), permission, scene)
            }
        };
        match done {
            Err(StoreError::Damaged) => {
                tracing::error!("what an action of a tripwire names is damaged; the other actions are done");
            }
            done => done?,
        }
    }
    Ok(())
}

fn append<T: Tables>(
    batch: &mut Batch<'_, T>,
    mailbox: &MailboxId,
    envelope: &[u8],
    permission: &Signature,
    scene: &mut Scene,
) -> Result<(), StoreError> {
    let envelope_id = EnvelopeId::of(envelope);
    let Some(there) = batch.mailbox(mailbox)? else { return Ok(()) };
    let (born, writer) = (there.born, there.keys.write);
    // TRP-07
    if Action::check_append(&writer, mailbox, &envelope_id, permission).is_err()
        || SizeClass::of_sealed(envelope.len()).is_none()
    {
        return Ok(());
    }
    // Where it cannot be known, twice is better than never.
    match mailbox::placed(batch, born, &envelope_id) {
        Ok(None) | Err(StoreError::Damaged) => {}
        placed => return placed.map(|_| ()),
    }
    // Beyond every quota: the list was charged when it was armed.
    let outcome = mailbox::store(batch, mailbox, &envelope_id, envelope, scene.day)?;
    if let Outcome::Stored { place: Stored { .. }, is_new: true } = outcome {
        scene.appended.push(*mailbox);
    }
    Ok(())
}

fn sink<T: Tables>(
    batch: &mut Batch<'_, T>,
    mailbox: &MailboxId,
    permission: &Signature,
    scene: &mut Scene,
) -> Result<(), StoreError> {
    let born = match batch.mailbox(mailbox) {
        Ok(None) => return Ok(()),
        Ok(Some(there)) => {
            let (born, newest, admin) = (there.born, there.newest, there.keys.admin);
            // TRP-07
            if Action::check_sink(&admin, mailbox, permission).is_err() {
                return Ok(());
            }
            batch.sink_mailbox(*mailbox)?;
            leftovers::of_sink(batch, born, newest)?;
            born
        }
        // Its keys can go as long as it is known where they lie.
        Err(StoreError::Damaged) => {
            let Some(fixed) = batch.load(Space::State, &key::mailbox(mailbox))? else { return Ok(()) };
            let there = Mailbox::of_fixed(&fixed)?;
            // TRP-07
            if Action::check_sink(&there.keys.admin, mailbox, permission).is_err() {
                return Ok(());
            }
            batch.sink_unreadable_mailbox(*mailbox, &fixed)?
        }
        Err(failure) => return Err(failure),
    };
    // What it holds is unreadable from here on; the sweep deletes it.
    scene.withdrawn.push(Withdrawn::all(*mailbox, born));
    Ok(())
}

fn refresh<T: Tables>(
    batch: &mut Batch<'_, T>,
    anchor: &AnchorId,
    spare: Option<&GroupKey>,
    permission: &Signature,
    scene: &mut Scene,
) -> Result<(), StoreError> {
    let there: Option<Anchor> = batch.load_as(Space::State, &anchor_key(anchor))?;
    let Some(there) = there else { return Ok(()) };
    // TRP-07
    if Action::check_refresh(&there.owner, spare, permission).is_err() {
        return Ok(());
    }
    anchor::refresh(batch, anchor, there, spare, scene)
}

/// Deletes a list, forgets what opens it, and gives back what it was charged.
pub(super) fn spend<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    tripwire: &mut Tripwire,
    cause: Cause,
) -> Result<(), StoreError> {
    batch.drop_alone(list_key(id, cause))?;
    let Some(at) = tripwire.lists.iter().position(|(of, _)| *of == cause) else { return Ok(()) };
    let (_, bytes) = tripwire.lists.swap_remove(at);
    let freed = bytes.min(tripwire.charged);
    tripwire.charged -= freed;
    access::give(batch, tripwire.access.as_ref(), Cost { bytes: freed, mailboxes: 0 })
}
