//! One relay's turn: what waits for it, and what waits there.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::{
    address::RelayKey,
    frame::{Refusal, ResponseBody, Seq, Window},
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
    sweep,
};
use crate::{
    engine::{self, Event, Fault},
    net::LinkError,
    store::{GroupRow, MailboxRow, MailboxState, OpId, OpKind, OpRow, Purpose, RelayRow, Unit, UnsealedRow},
};

/// Envelopes asked for at once.
const WINDOW: u16 = 64;

/// Mailboxes read at once on one link.
const READERS: usize = 64;

/// Windows taken from one mailbox in one settling: a mailbox of the usual 64 MiB full of the smallest envelopes, twice.
/// What a relay invents beyond that comes another time.
const MAX_WINDOWS: usize = 2048;

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
    fresh: HashSet<(usize, MailboxId)>,
    /// Mailboxes that the relay said it does not have.
    gone: HashSet<MailboxId>,
}

impl Progress {
    /// Whatever was read is read again.
    pub(super) fn begin_again(&mut self) {
        self.read.clear();
        self.fresh.clear();
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
    fn use_of(&self, number: usize) {
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
                active |= self.read(line, number, logs, progress).await?;
                active |= self.operations(relay, line, number, progress).await?;
                let rest = self.readable(relay, number, line, progress, Wanted::All);
                active |= self.read(line, number, rest, progress).await?;
            }
            if !active {
                break;
            }
        }
        Ok(())
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

    /// The mailboxes to read at a relay that were not read in this settling.
    fn readable(
        &self,
        relay: &RelayKey,
        number: usize,
        line: &Line,
        progress: &Progress,
        wanted: Wanted,
    ) -> Vec<Reading> {
        let Some(compartment) = self.compartments.get(number) else { return Vec::new() };
        let unit = Unit::new(&*compartment.base);
        let found = match wanted {
            Wanted::All => open_mailboxes(&unit, relay),
            Wanted::LogsToWrite => logs_to_write(&unit, relay),
        };
        let found = match found {
            Ok(found) => found,
            Err(fault) => {
                self.report().faults.push(fault);
                return Vec::new();
            }
        };
        let now = self.now();
        found
            .into_iter()
            .filter(|Reading { mailbox, row }| {
                let comes_by_itself = wanted == Wanted::All && line.is_subscribed(mailbox);
                !progress.read.contains(&(number, *mailbox))
                    && !progress.gone.contains(mailbox)
                    && (!comes_by_itself || is_due(&unit, row, now))
            })
            .collect()
    }

    /// Reads mailboxes to their ends. Answers whether anything came.
    async fn read(
        &self,
        line: &Line,
        number: usize,
        mailboxes: Vec<Reading>,
        progress: &mut Progress,
    ) -> Result<bool, Lost> {
        let Some(compartment) = self.compartments.get(number) else { return Ok(false) };
        let mut mailboxes: Vec<(usize, Reading)> = {
            let unit = Unit::new(&*compartment.base);
            mailboxes.into_iter().map(|reading| (age(&unit, &reading), reading)).collect()
        };
        // DRV-03: the younger of two mailboxes is asked for first, and what it holds is taken last: then whatever
        // its sender had put into the older one before is in our hands.
        mailboxes.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let mut readings: Vec<Reading> = mailboxes.into_iter().map(|(_, reading)| reading).collect();
        let mut came = false;
        while !readings.is_empty() {
            let count = readings.len().min(READERS);
            let chunk: Vec<Reading> = readings.drain(..count).collect();
            came |= self.read_chunk(line, number, chunk, progress).await?;
        }
        Ok(came)
    }

    async fn read_chunk(
        &self,
        line: &Line,
        number: usize,
        chunk: Vec<Reading>,
        progress: &mut Progress,
    ) -> Result<bool, Lost> {
        let answers = line.windows(&chunk, WINDOW, self.ask).await;
        let mut came = false;
        let mut lost = false;
        for (Reading { mailbox, row }, answer) in chunk.iter().zip(answers).rev() {
            progress.read.insert((number, *mailbox));
            match answer {
                Ok(ResponseBody::Window(window)) if window.mailbox == *mailbox => {
                    came |= self.drain(line, number, window, progress).await?;
                }
                Ok(ResponseBody::Refused(Refusal::NotAllowed)) if progress.gone.insert(*mailbox) => {
                    self.handle(number, Event::Gone { mailbox: *mailbox });
                }
                Ok(ResponseBody::Refused(Refusal::NotAllowed)) => {}
                // Not `Lost`: one mailbox that the relay cannot read must not keep others from being acknowledged.
                Ok(_) | Err(LinkError::Malformed | LinkError::TooLarge) => {
                    self.left_unread(line, number, mailbox, row);
                }
                Err(_) => lost = true,
            }
        }
        let taken = chunk.iter().filter_map(|reading| self.to_acknowledge(number, &reading.mailbox));
        if lost || line.acknowledge(taken.collect()).await.is_err() { Err(Lost) } else { Ok(came) }
    }

    /// What a relay does not give is told, under the address that is in use, and asked for again: nothing else would come of a
    /// subscription from which something is missing.
    fn left_unread(&self, line: &Line, number: usize, mailbox: &MailboxId, row: &MailboxRow) {
        line.forget(mailbox);
        let base = self.compartments.get(number).map(|compartment| Unit::new(&*compartment.base));
        let relays = base.and_then(|unit| unit.scan::<RelayRow>(&[]).ok()).unwrap_or_default();
        let known = relays.iter().find(|(_, relay)| relay.address.key() == row.relay.key());
        self.report().left_unread(known.map_or(&row.relay, |(_, relay)| &relay.address));
    }

    /// Takes a window and all that lies behind it. Answers whether anything came.
    async fn drain(
        &self,
        line: &Line,
        number: usize,
        first: Window,
        progress: &mut Progress,
    ) -> Result<bool, Lost> {
        let mailbox = first.mailbox;
        let mut window = first;
        let mut came = false;
        let mut resets = 0;
        for _ in 0..MAX_WINDOWS {
            came |= !window.items.is_empty();
            match self.take(number, window) {
                Taken::All => {
                    self.begun(line, &mailbox);
                    progress.fresh.insert((number, mailbox));
                    break;
                }
                Taken::Stuck => {
                    // What comes later must not be taken before this.
                    line.forget(&mailbox);
                    break;
                }
                Taken::Nothing => {
                    self.begun(line, &mailbox);
                    break;
                }
                Taken::More => self.begun(line, &mailbox),
                Taken::Reset if resets == 0 => {
                    resets += 1;
                    line.forget(&mailbox);
                }
                Taken::Reset => {
                    line.forget(&mailbox);
                    break;
                }
            }
            if let Some(taken) = self.to_acknowledge(number, &mailbox) {
                line.acknowledge(vec![taken]).await.map_err(|_| Lost)?;
            }
            let Some(row) = self.mailbox_row(number, &mailbox) else { break };
            let reading = [Reading { mailbox, row }];
            // Of what is not subscribed to any more, as after a rollback, it is begun anew.
            window = match line.windows(&reading, WINDOW, self.ask).await.pop() {
                Some(Ok(ResponseBody::Window(window))) if window.mailbox == mailbox => window,
                Some(Err(LinkError::Closed | LinkError::Timeout)) => return Err(Lost),
                // Taken away meanwhile: the next settling hears of it.
                Some(Ok(ResponseBody::Refused(Refusal::NotAllowed))) => break,
                _ => {
                    let [Reading { mailbox, row }] = &reading;
                    self.left_unread(line, number, mailbox, row);
                    break;
                }
            };
        }
        Ok(came)
    }

    /// A window of a mailbox was taken: if it was subscribed to, what is told of it may be taken now.
    fn begun(&self, line: &Line, mailbox: &MailboxId) {
        if self.ask == Ask::Subscribe {
            line.subscribed(mailbox);
        }
    }

    /// Gives a window to the engine.
    pub(super) fn take(&self, number: usize, window: Window) -> Taken {
        let mailbox = window.mailbox;
        let Some(before) = self.mailbox_row(number, &mailbox) else { return Taken::Stuck };
        let last = window.items.last().map(|item| item.place.seq);
        let caught_up = last.unwrap_or(before.cursor) >= window.newest;
        let is_empty = window.items.is_empty();
        let is_use = last.is_some() && before.purpose != Purpose::Home;
        if !self.handle(number, Event::Window { window, caught_up }) {
            // Not acknowledged: it comes again. A full disk must not make us lose a message.
            return Taken::Stuck;
        }
        if is_use {
            self.use_of(number);
        }
        match self.mailbox_row(number, &mailbox) {
            Some(after) if after.cursor < before.cursor => Taken::Reset,
            Some(after) if !caught_up && after.cursor > before.cursor => Taken::More,
            _ if caught_up => Taken::All,
            _ if is_empty => Taken::Nothing,
            _ => Taken::Stuck,
        }
    }

    pub(super) fn to_acknowledge(&self, number: usize, mailbox: &MailboxId) -> Option<(MailboxId, Seq)> {
        let row = self.mailbox_row(number, mailbox)?;
        engine::acknowledged_to(&row).map(|upto| (*mailbox, upto))
    }

    pub(super) fn mailbox_row(&self, number: usize, mailbox: &MailboxId) -> Option<MailboxRow> {
        let compartment = self.compartments.get(number)?;
        Unit::new(&*compartment.base).get(mailbox).ok().flatten()
    }

    /// DRV-03: reads what was left for this mailbox, before a notice of it is taken.
    pub(super) async fn read_older(
        &self,
        line: &Line,
        number: usize,
        mailbox: &MailboxId,
        row: &MailboxRow,
    ) -> Result<(), Lost> {
        let Some(compartment) = self.compartments.get(number) else { return Ok(()) };
        let older: Vec<Reading> = {
            let unit = Unit::new(&*compartment.base);
            let older = older_than(&unit, mailbox, row).unwrap_or_default().into_iter();
            let row_of = |id: MailboxId| Some(Reading { mailbox: id, row: unit.get(&id).ok().flatten()? });
            older.filter_map(row_of).filter(|reading| is_readable(&reading.row, row.relay.key())).collect()
        };
        self.read(line, number, older, &mut Progress::default()).await.map(|_| ())
    }
}

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing lies behind it.
    All,
    /// The relay has numbers beyond, and nothing under them: it has expired, or cannot be read.
    Nothing,
    /// Nothing more can be taken now.
    Stuck,
    /// More lies behind it.
    More,
    /// The relay was rolled back: it is read from the beginning.
    Reset,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// Logs that messages wait to be written to.
    LogsToWrite,
}

pub(super) fn is_readable(row: &MailboxRow, relay: &RelayKey) -> bool {
    row.relay.key() == relay
        && row.state == MailboxState::Open
        && row.read.is_some()
        && !matches!(row.purpose, Purpose::AlertOutbox(_))
}

pub(super) fn open_mailboxes(unit: &Unit<'_>, relay: &RelayKey) -> Result<Vec<Reading>, Fault> {
    let rows = unit.scan::<MailboxRow>(&[])?.into_iter();
    Ok(rows
        .filter(|(_, row)| is_readable(row, relay))
        .map(|(mailbox, row)| Reading { mailbox, row })
        .collect())
}

fn logs_to_write(unit: &Unit<'_>, relay: &RelayKey) -> Result<Vec<Reading>, Fault> {
    let mut found = Vec::new();
    for (_, op) in unit.scan::<OpRow>(&[])? {
        if op.relay.key() != relay {
            continue;
        }
        if let OpKind::Append { mailbox, order: Some(_), .. } = op.kind
            && let Some(row) = unit.get::<MailboxRow>(&mailbox)?
            && matches!(row.purpose, Purpose::Group(_))
            && is_readable(&row, relay)
            && found.iter().all(|reading: &Reading| reading.mailbox != mailbox)
        {
            found.push(Reading { mailbox, row });
        }
    }
    Ok(found)
}

/// Whether a mailbox that tells by itself what comes is asked all the same: to be closed, or because messages wait to
/// be sealed until it was read to its end.
fn is_due(unit: &Unit<'_>, row: &MailboxRow, now: Timestamp) -> bool {
    let waits = match row.purpose {
        Purpose::Group(chat) => {
            unit.range::<UnsealedRow>(chat.as_bytes(), None, 1, false).is_ok_and(|rows| !rows.is_empty())
        }
        _ => false,
    };
    waits || row.closes.is_some_and(|closes| closes <= now)
}

/// The mailboxes that were left for this one, oldest first.
fn older_than(unit: &Unit<'_>, mailbox: &MailboxId, row: &MailboxRow) -> Result<Vec<MailboxId>, Fault> {
    Ok(match row.purpose {
        Purpose::Direct(chat) => unit
            .get::<crate::store::ContactRow>(&chat)?
            .and_then(|contact| contact.ticket_mailbox)
            .into_iter()
            .collect(),
        Purpose::Group(chat) => {
            let older = unit.get::<GroupRow>(&chat)?.map(|group| group.older).unwrap_or_default();
            older.into_iter().map(|epoch| epoch.mailbox).take_while(|older| older != mailbox).collect()
        }
        _ => Vec::new(),
    })
}

/// How many mailboxes were left for this one.
fn age(unit: &Unit<'_>, Reading { mailbox, row }: &Reading) -> usize {
    match row.purpose {
        Purpose::Direct(_) => 1,
        Purpose::Group(_) => older_than(unit, mailbox, row).map_or(0, |older| older.len()),
        _ => 0,
    }
}
