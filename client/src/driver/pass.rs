//! One relay's turn: what waits for it, and what waits there (`reading`).

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::{
    address::RelayKey,
    frame::{Refusal, ResponseBody},
    ids::MailboxId,
    limits::MIN_BLOB_PART,
    time::Timestamp,
};
use rand_core::CryptoRng;

use super::{
    Clock, Compartment, Report,
    batch::{self, Batch, Standing},
    commit_event,
    line::{Ask, Line, Reading},
    reading::{Wanted, is_due},
    sweep,
};
use crate::{
    engine::{self, Event},
    net::LinkError,
    store::{OpId, OpKind, OpRow, Unit},
};

/// Rounds in one pass: each may answer what the one before delivered. A conversation between two programs that never
/// ends would be a defect; this bounds it.
const MAX_ROUNDS: usize = 32;

/// The link ended, or the relay did not answer in time.
pub(super) struct Lost;

/// What was done for one relay in one settling.
#[derive(Default)]
pub(super) struct Progress {
    /// Operations that had their try, per compartment.
    pub(super) tried: HashSet<(usize, OpId)>,
    /// Mailboxes that were asked for, per compartment.
    pub(super) read: HashSet<(usize, MailboxId)>,
    /// Those that were read to their end.
    pub(super) fresh: HashSet<(usize, MailboxId)>,
    /// Mailboxes that the relay said it does not have.
    pub(super) gone: HashSet<MailboxId>,
}

impl Progress {
    /// Whatever was read is read again.
    pub(super) fn begin_again(&mut self) {
        self.read.clear();
        self.fresh.clear();
    }

    /// Whether a mailbox is to be asked for that was not in this settling: not if it tells by itself what comes, unless it is due. The
    /// one measure of it, so that what is not asked for counts as nothing left to do.
    pub(super) fn wants(
        &self,
        unit: &Unit<'_>,
        (number, Reading { mailbox, row }): (usize, &Reading),
        line: Option<&Line>,
        now: Timestamp,
    ) -> bool {
        !self.read.contains(&(number, *mailbox))
            && !self.gone.contains(mailbox)
            && (line.is_none_or(|line| !line.is_subscribed(mailbox)) || is_due(unit, row, now))
    }
}

/// What all passes of one settling share.
pub(super) struct Shared<'a> {
    pub(super) compartments: &'a [Compartment],
    pub(super) clock: &'a Clock,
    pub(super) rng: Mutex<&'a mut (dyn CryptoRng + Send)>,
    pub(super) report: Mutex<&'a mut Report>,
    pub(super) used: Mutex<&'a mut BTreeSet<[u8; 16]>>,
    pub(super) ask: Ask,
}

impl<'a> Shared<'a> {
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn rng(&self) -> MutexGuard<'_, &'a mut (dyn CryptoRng + Send)> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> MutexGuard<'_, &'a mut Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles an event; `false` if the engine refused it.
    pub(super) fn handle(&self, number: usize, event: Event) -> bool {
        let Some(compartment) = self.compartments.get(number) else { return false };
        let outcome = commit_event(compartment, event, self.now(), &mut **self.rng());
        match outcome {
            Ok(effects) => {
                self.report().absorb(number, effects);
                true
            }
            Err(fault) => {
                self.report().faults.push(fault);
                false
            }
        }
    }

    /// Erases what is due.
    pub(super) fn sweep(&self, number: usize) {
        let Some(compartment) = self.compartments.get(number) else { return };
        if let Err(fault) = sweep(compartment, self.now(), &mut **self.rng()) {
            self.report().faults.push(fault);
        }
    }

    /// CPY-06: something was taken or sent.
    pub(super) fn use_of(&self, number: usize) {
        let Some(compartment) = self.compartments.get(number) else { return };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(compartment.place);
    }

    /// CPY-06: leaves another mark where something was taken or sent since the last one and that is long ago.
    pub(super) fn mark_again(&self, number: usize) {
        let Some(compartment) = self.compartments.get(number) else { return };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = engine::copies::is_due_again(&Unit::new(&*compartment.base), self.now());
        if used.contains(&compartment.place) && is_due.unwrap_or(false) && self.handle(number, Event::Mark) {
            used.remove(&compartment.place);
        }
    }

    /// Whatever can be done at this relay now.
    pub(super) async fn pass(
        &self,
        relay: &RelayKey,
        line: &Line,
        progress: &mut Progress,
    ) -> Result<(), Lost> {
        for _ in 0..MAX_ROUNDS {
            let mut active = false;
            for number in 0..self.compartments.len() {
                let logs = self.readable(relay, number, line, progress, Wanted::LogsToWrite);
                active |= self.read(line, number, (logs, Wanted::LogsToWrite), progress).await?;
                active |= self.operations(relay, line, number, progress).await?;
                let rest = self.readable(relay, number, line, progress, Wanted::All);
                active |= self.read(line, number, (rest, Wanted::All), progress).await?;
            }
            if !active {
                break;
            }
        }
        self.acknowledge_again(relay, line).await
    }

    /// Carries out operations. Answers whether there were any.
    pub(super) async fn operations(
        &self,
        relay: &RelayKey,
        line: &Line,
        number: usize,
        progress: &mut Progress,
    ) -> Result<bool, Lost> {
        let Some(compartment) = self.compartments.get(number) else { return Ok(false) };
        let mut active = false;
        loop {
            let of_compartment = |(of, op): &(usize, OpId)| (*of == number).then_some(*op);
            let tried: HashSet<OpId> = progress.tried.iter().filter_map(of_compartment).collect();
            let fresh = progress.fresh.iter().filter(|(of, _)| *of == number);
            let fresh: HashSet<MailboxId> = fresh.map(|(_, mailbox)| *mailbox).collect();
            let binding = line.link.binding();
            let standing =
                Standing { relay, compartment, binding, now: self.now(), tried: &tried, fresh: &fresh };
            let next = batch::next(&standing, &mut **self.rng());
            let Batch { work, obsolete, held, faults } = match next {
                Ok(batch) => batch,
                Err(fault) => {
                    self.report().faults.push(fault);
                    return Ok(active);
                }
            };
            self.report().faults.extend(faults);
            progress.tried.extend(held.into_iter().map(|op| (number, op)));
            let dropped = !obsolete.is_empty();
            for op in obsolete {
                progress.tried.insert((number, op));
                self.handle(number, Event::Obsolete { op });
            }
            if work.is_empty() && !dropped {
                return Ok(active);
            }
            active = true;
            let mut lost = false;
            for (op, answer) in line.carry_out(work).await {
                match answer {
                    Ok(body) => self.answered(number, op, body, progress),
                    Err(LinkError::TooLarge) => {
                        self.answered(number, op, ResponseBody::Refused(Refusal::TooLarge), progress);
                    }
                    Err(LinkError::Malformed) => {
                        progress.tried.insert((number, op));
                    }
                    Err(_) => lost = true,
                }
            }
            if lost {
                return Err(Lost);
            }
        }
    }

    fn answered(&self, number: usize, op: OpId, body: ResponseBody, progress: &mut Progress) {
        progress.tried.insert((number, op));
        let before = self.stage_of(number, op);
        let is_mark = self.is_mark(number, op);
        if !self.handle(number, Event::Answer { op, body }) {
            return;
        }
        if !is_mark {
            self.use_of(number);
        }
        // DRV-05: one that takes several requests goes on only if it got on by the least that a part may be.
        let least = u64::try_from(MIN_BLOB_PART).unwrap_or(u64::MAX);
        if let (Some(before), Some(after)) = (before, self.stage_of(number, op))
            && after >= before.saturating_add(least)
        {
            progress.tried.remove(&(number, op));
        }
    }

    fn is_mark(&self, number: usize, op: OpId) -> bool {
        let Some(compartment) = self.compartments.get(number) else { return false };
        let unit = Unit::new(&*compartment.base);
        let row = unit.get::<OpRow>(&op).ok().flatten();
        row.is_some_and(|row| engine::copies::is_mark(&unit, &row).unwrap_or(false))
    }

    /// How far an operation of several requests has come. `None` once it is done.
    fn stage_of(&self, number: usize, op: OpId) -> Option<u64> {
        let compartment = self.compartments.get(number)?;
        let row = Unit::new(&*compartment.base).get::<OpRow>(&op).ok().flatten()?;
        match row.kind {
            OpKind::PutBlob { offset, .. } => Some(offset),
            OpKind::GetChain { got, .. } => u64::try_from(got.len()).ok(),
            _ => Some(0),
        }
    }
}
