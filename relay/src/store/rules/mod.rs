//! What each change does. Pure: a batch of changes over any tables, no clock, no randomness.
//!
//! Invariant: a rule that refuses has staged nothing; a rule that fails with an error makes its whole batch void.

mod access;
mod blob;
mod mailbox;
mod sweep;
mod tripwire;

use lapwing_wire::frame::Refusal;

use super::{
    Change, Mutation, Outcome, StoreError,
    tables::{Batch, Tables},
};

/// Stages one change.
///
/// `pressed`: the disk is so full that nothing new is taken; what frees or reads goes on.
pub(crate) fn stage<T: Tables>(
    batch: &mut Batch<'_, T>,
    change: &Change,
    pressed: bool,
) -> Result<Outcome, StoreError> {
    let Change { mutation, now, day } = change;
    if pressed && is_growth(mutation) {
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
        Mutation::BlobPut { hash, total, offset, bytes, charge } => {
            blob::put(batch, &blob::Part { hash, total: *total, offset: *offset, bytes }, *charge, *now, *day)
        }
        Mutation::BlobFinish { hash, genuine } => blob::finish(batch, hash, *genuine, *day),
        Mutation::Arm { owner, serial, records, list, charge } => {
            let armed = tripwire::Armed { owner, serial: *serial, records, list };
            tripwire::arm(batch, &armed, *charge, *now)
        }
        Mutation::Disarm { owner } => tripwire::disarm(batch, owner),
        Mutation::Token { token, filler } => tripwire::present(batch, token, filler, *day),
        Mutation::IssueTicket(ticket) => access::issue(batch, ticket),
        Mutation::RevokeTicket(key) => access::revoke(batch, key),
        Mutation::Tick => sweep::tick(batch, *now),
        Mutation::Sweep { from, keep_from, unfinished_from } => {
            sweep::step(batch, from.as_ref(), *keep_from, *unfinished_from)
        }
    }
}

/// Whether a change takes room that it was not promised. A token does not count: its list was accepted at arming.
fn is_growth(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Create { .. }
        | Mutation::Append { .. }
        | Mutation::BlobPut { .. }
        | Mutation::Arm { .. } => true,
        Mutation::Close { .. }
        | Mutation::Ack { .. }
        | Mutation::BlobFinish { .. }
        | Mutation::Disarm { .. }
        | Mutation::Token { .. }
        | Mutation::IssueTicket(_)
        | Mutation::RevokeTicket(_)
        | Mutation::Tick
        | Mutation::Sweep { .. } => false,
    }
}
