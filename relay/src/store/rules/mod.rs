//! What each change does. Pure: a batch of changes over any tables, no clock, and no randomness but what comes with the
//! change.
//!
//! Invariant: a rule that refuses has staged nothing; a rule that fails with an error makes its whole batch void.

mod access;
mod anchor;
mod blob;
mod leftovers;
mod mailbox;
mod sweep;
mod tripwire;

use lapwing_wire::{frame::Refusal, ids::MailboxId};
use rand::{SeedableRng, rngs::StdRng};
use rand_core::RngCore;

use super::{
    AnchorChange, Change, Day, Mutation, Outcome, StoreError, Withdrawn,
    record::key,
    tables::{Batch, Space, Tables},
};

/// What a change that may set something off works with.
struct Scene {
    day: Day,
    rng: StdRng,
    /// Mailboxes that have something new to read.
    appended: Vec<MailboxId>,
    /// What became unreadable.
    withdrawn: Vec<Withdrawn>,
}

impl Scene {
    fn new(day: Day, seed: &[u8; 32]) -> Self {
        Self { day, rng: StdRng::from_seed(*seed), appended: Vec::new(), withdrawn: Vec::new() }
    }

    /// TRP-05: a write that comes in any case. A lot.
    fn fill<T: Tables>(&mut self, batch: &mut Batch<'_, T>) -> u8 {
        let mut filler = [0; 32];
        self.rng.fill_bytes(&mut filler);
        batch.put(Space::State, key::FILLER.to_vec(), filler.to_vec());
        let mut lot = [0; 1];
        self.rng.fill_bytes(&mut lot);
        lot[0]
    }
}

/// How short of room the disk is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Pressure {
    /// There is room.
    #[default]
    None,
    /// Less than twice the reserve: nothing begins, so that what is there has room to go on.
    NothingBegins,
    /// Less than the reserve: nothing new is taken; what frees or reads goes on.
    NothingNew,
}

/// Stages one change.
pub(crate) fn stage<T: Tables>(
    batch: &mut Batch<'_, T>,
    change: &Change,
    pressure: Pressure,
) -> Result<Outcome, StoreError> {
    let Change { mutation, now, day } = change;
    if (pressure >= Pressure::NothingNew && is_growth(mutation))
        || (pressure >= Pressure::NothingBegins && is_beginning(batch, mutation)?)
    {
        return Ok(Outcome::Refused(Refusal::Busy));
    }
    match mutation {
        Mutation::Create { keys, kind, charge, born } => {
            mailbox::create(batch, *keys, *kind, *charge, *born, *now)
        }
        Mutation::Close { mailbox, born } => mailbox::close(batch, mailbox, *born),
        Mutation::Append { mailbox, born, id, envelope, limit, reserve } => {
            mailbox::append(batch, mailbox, *born, id, envelope, *limit, *reserve, *day)
        }
        Mutation::Ack { mailbox, born, upto, also } => mailbox::ack(batch, mailbox, *born, *upto, also),
        Mutation::BlobPut { hash, total, offset, bytes, charge, limit } => {
            let part = blob::Part { hash, total: *total, offset: *offset, bytes, limit: *limit };
            blob::put(batch, &part, *charge, *now, *day)
        }
        Mutation::BlobFinish { hash, genuine } => blob::finish(batch, hash, *genuine, *day),
        Mutation::Arm { owner, serial, records, list, causes, charge } => {
            let armed = tripwire::Armed { owner, serial: *serial, records, list, causes };
            tripwire::arm(batch, &armed, *charge, *now)
        }
        Mutation::Disarm { owner } => tripwire::disarm(batch, owner),
        Mutation::Token { token, filler } => {
            let mut scene = Scene::new(*day, filler);
            let tripwire::token::Presented { status, is_whole } =
                tripwire::token::present(batch, token, &mut scene)?;
            let Scene { appended, withdrawn, .. } = scene;
            Ok(Outcome::Token { status, appended, withdrawn, is_whole })
        }
        Mutation::Trigger { raise, filler } => {
            tripwire::quorum::raise(batch, raise, Scene::new(*day, filler))
        }
        Mutation::Watch { elapsed, filler } => {
            tripwire::deadline::watch(batch, *elapsed, Scene::new(*day, filler))
        }
        Mutation::Anchor { change, filler } => {
            let mut scene = Scene::new(*day, filler);
            let outcome = anchor::change(batch, change, &mut scene, *now)?;
            let Scene { appended, withdrawn, .. } = scene;
            Ok(Outcome::Anchor { outcome, appended, withdrawn })
        }
        Mutation::IssueTicket(ticket) => access::issue(batch, ticket),
        Mutation::RevokeTicket(key) => access::revoke(batch, key),
        Mutation::Tick => sweep::tick(batch, *now),
        Mutation::Sweep { from, keep_from, blobs_from, unfinished_from } => {
            sweep::step(batch, from.as_ref(), *keep_from, (*blobs_from, *unfinished_from))
        }
        Mutation::Forget { from } => leftovers::step(batch, from.as_ref()),
    }
}

/// Whether a change takes room that it was not promised. What sets a tripwire off does not count: its lists were accepted
/// at arming.
fn is_growth(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Anchor { change: AnchorChange::Create { .. }, .. } => true,
        Mutation::Create { .. }
        | Mutation::Append { .. }
        | Mutation::BlobPut { .. }
        | Mutation::Arm { .. } => true,
        Mutation::Close { .. }
        | Mutation::Ack { .. }
        | Mutation::BlobFinish { .. }
        | Mutation::Disarm { .. }
        | Mutation::Token { .. }
        | Mutation::Trigger { .. }
        | Mutation::Watch { .. }
        | Mutation::Anchor { .. }
        | Mutation::IssueTicket(_)
        | Mutation::RevokeTicket(_)
        | Mutation::Tick
        | Mutation::Sweep { .. }
        | Mutation::Forget { .. } => false,
    }
}

/// Whether a change begins something that was not there: under pressure those who are there come first. Arming does not
/// count: it may be somebody's way to change a plan in danger.
fn is_beginning<T: Tables>(batch: &Batch<'_, T>, mutation: &Mutation) -> Result<bool, StoreError> {
    match mutation {
        Mutation::Create { .. } => Ok(true),
        // Whoever goes on with an upload asks with its first part how much is there.
        Mutation::BlobPut { hash, offset: 0, .. } => Ok(!batch.has(Space::State, &key::blob(hash))?),
        _ => Ok(false),
    }
}
