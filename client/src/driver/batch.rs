//! Which operations may leave together.
//!
//! A relay may refuse one of several requests that were sent at once, and answer others: it is full for a large
//! envelope and not for a small one. So that what must follow never overtakes what must come first, an append that
//! carries no message of a person (an introduction, a commit, a sender key) leaves alone for its mailbox, messages
//! leave together only as long as each is at least as large as the one before, and once something was refused all
//! that follows to the same place waits for another time.

use std::collections::{HashMap, HashSet};

use lapwing_wire::{address::RelayKey, capability::ChannelBinding, ids::MailboxId, time::Timestamp};
use rand_core::CryptoRng;

use super::{Compartment, line::Work};
use crate::{
    engine::{Fault, OpStep, request_of},
    store::{MailboxRow, OpId, OpKind, OpRow, Purpose, Unit},
};

/// Operations in flight at once on one link: enough to fill a flush of the relay, far below its bound.
const BATCH: usize = 64;

/// Operations read from the records at once.
const PAGE: usize = 128;

/// Where an operation changes something, so that its order matters there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Mailbox(MailboxId),
    Plan([u8; 16]),
}

fn target(kind: &OpKind) -> Option<Target> {
    match kind {
        OpKind::Append { mailbox, .. } => Some(Target::Mailbox(*mailbox)),
        OpKind::Arm { plan } => Some(Target::Plan(*plan)),
        _ => None,
    }
}

/// What has left in this batch for one place.
#[derive(Clone, Copy)]
enum Leaving {
    /// Something that must be answered before anything follows.
    Alone,
    /// Messages, the last of this size.
    Messages(usize),
}

/// Whether another operation may leave right behind, and what that makes of the place.
fn behind(leaving: Option<Leaving>, kind: &OpKind) -> Option<Leaving> {
    let size = match kind {
        OpKind::Append { envelope, order: Some(_), .. } => Some(envelope.len()),
        _ => None,
    };
    match (leaving, size) {
        (None, None) => Some(Leaving::Alone),
        (None, Some(size)) => Some(Leaving::Messages(size)),
        (Some(Leaving::Messages(last)), Some(size)) if size >= last => Some(Leaving::Messages(size)),
        (Some(_), _) => None,
    }
}

/// What a batch came to.
#[derive(Default)]
pub(super) struct Batch {
    /// To be sent.
    pub(super) work: Vec<Work>,
    /// Nothing is left to do for these.
    pub(super) obsolete: Vec<OpId>,
    /// Not before the next settling: something before them was refused, or has to be read first.
    pub(super) held: Vec<OpId>,
    /// Records that contradict each other.
    pub(super) faults: Vec<Fault>,
}

/// What is known of one compartment at one relay.
pub(super) struct Standing<'a> {
    pub(super) relay: &'a RelayKey,
    pub(super) compartment: &'a Compartment,
    pub(super) binding: ChannelBinding,
    pub(super) now: Timestamp,
    /// Operations that had their try in this settling.
    pub(super) tried: &'a HashSet<OpId>,
    /// Logs that were read to their end in this settling.
    pub(super) fresh: &'a HashSet<MailboxId>,
}

/// The next operations for a relay, in their order.
pub(super) fn next(standing: &Standing<'_>, rng: &mut dyn CryptoRng) -> Result<Batch, Fault> {
    let Standing { relay, compartment, binding, now, tried, fresh } = standing;
    let unit = Unit::new(&*compartment.base);
    let mut held: HashSet<Target> = HashSet::new();
    let mut leaving: HashMap<Target, Leaving> = HashMap::new();
    let mut batch = Batch::default();
    let mut after = None;
    while batch.work.len() < BATCH {
        let page = unit.range::<OpRow>(&[], after.as_ref(), PAGE, false)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (op, row) in page {
            if row.relay.key() != *relay || batch.work.len() >= BATCH {
                continue;
            }
            let place = target(&row.kind);
            if tried.contains(&op) {
                held.extend(place);
                continue;
            }
            if place.is_some_and(|place| held.contains(&place)) || is_stale(&unit, &row.kind, fresh)? {
                held.extend(place);
                batch.held.push(op);
                continue;
            }
            let next = place.map(|place| (place, behind(leaving.get(&place).copied(), &row.kind)));
            if let Some((place, None)) = next {
                // In one of the next batches of this settling, and nothing of this place before it.
                leaving.insert(place, Leaving::Alone);
                continue;
            }
            match request_of(&unit, &row, binding, *now, rng) {
                Ok(OpStep::Send { proofs, body }) => {
                    if let Some((place, Some(now_leaving))) = next {
                        leaving.insert(place, now_leaving);
                    }
                    batch.work.push(Work { op, proofs, body: *body });
                }
                // What waits for a mailbox of ours holds up nothing else: whatever must not overtake it waits for
                // the same mailbox.
                Ok(OpStep::Wait) => {}
                Ok(OpStep::Obsolete) => batch.obsolete.push(op),
                Err(fault) => {
                    held.extend(place);
                    batch.held.push(op);
                    batch.faults.push(fault);
                }
            }
        }
    }
    Ok(batch)
}

/// GRW-01: a message that was sealed for a group leaves only when its log has been read to the end since, so that
/// whoever was removed meanwhile does not get it.
fn is_stale(unit: &Unit<'_>, kind: &OpKind, fresh: &HashSet<MailboxId>) -> Result<bool, Fault> {
    match kind {
        OpKind::Append { mailbox, order: Some(_), .. } if !fresh.contains(mailbox) => is_log(unit, mailbox),
        _ => Ok(false),
    }
}

pub(super) fn is_log(unit: &Unit<'_>, mailbox: &MailboxId) -> Result<bool, Fault> {
    Ok(unit.get::<MailboxRow>(mailbox)?.is_some_and(|row| matches!(row.purpose, Purpose::Group(_))))
}
