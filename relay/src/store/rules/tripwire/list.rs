//! What a tripwire sets off.
//!
//! Invariant: TRP-07 an action is done only with the permission of whoever owns what it names.

use lapwing_wire::{
    anchor::GroupKey,
    capability::Signature,
    frame::{Seq, Stored},
    ids::{AnchorId, EnvelopeId, MailboxId, TripwireId},
    padding::SizeClass,
    tripwire::Action,
};

use super::super::{
    super::{
        Mailbox, Outcome, StoreError, Withdrawn, damage,
        record::{Anchor, Cause, Tripwire, anchor_key, key, list_key},
        tables::{Batch, Space, Tables},
    },
    Scene,
    access::{self, Cost},
    anchor, leftovers, mailbox,
};

/// Does what can be done of a list: what an action names may be damaged, and keeps no other action from being done. Whether all are.
///
/// Where not, the list is kept and run again: an envelope is appended once, and a sink or an anchor's new entries are what they were.
#[must_use = "a list that was not done whole is not spent"]
pub(super) fn run<T: Tables>(
    batch: &mut Batch<'_, T>,
    actions: &[Action],
    scene: &mut Scene,
) -> Result<bool, StoreError> {
    let mut is_whole = true;
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
                damage::found();
                is_whole = false;
            }
            done => done?,
        }
    }
    Ok(is_whole)
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
    let (born, writer, next) = (there.born, there.keys.write, there.newest.next());
    let kept_in = (!there.sink).then_some(there.slot);
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
    // What cannot be sealed would make everything void that is done with it.
    if kept_in.is_some_and(|slot| !batch.has_keys(slot, next.value())) {
        return Err(StoreError::Damaged);
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
            let (born, newest, admin, is_done) = (there.born, there.newest, there.keys.admin, there.sink);
            // TRP-07
            if is_done || Action::check_sink(&admin, mailbox, permission).is_err() {
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
            if there.sink || Action::check_sink(&there.keys.admin, mailbox, permission).is_err() {
                return Ok(());
            }
            let born = batch.sink_unreadable_mailbox(*mailbox, &fixed)?;
            // Which of its places count what it would hold is not known: none of them is passed over.
            leftovers::of_sink(batch, born, Seq::START)?;
            born
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
