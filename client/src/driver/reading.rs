//! What waits at one relay: windows are asked for, taken, and only then acknowledged.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use futures_util::future::join_all;
use lapwing_wire::{
    address::RelayKey,
    frame::{Refusal, ResponseBody, Seq, Window},
    ids::MailboxId,
    time::Timestamp,
};
use tokio::sync::watch;

use super::{
    line::{Ask, Line, Reading},
    pass::{Lost, Progress, Shared},
};
use crate::{
    engine::{self, Event, Fault},
    net::LinkError,
    store::{GroupRow, MailboxRow, MailboxState, OpKind, OpRow, Purpose, RelayRow, Unit, UnsealedRow},
};

/// Envelopes asked for at once.
const WINDOW: u16 = 64;

/// Mailboxes read at once on one link.
const READERS: usize = 64;

/// Windows taken from one mailbox in one settling: a mailbox of the usual 64 MiB full of the smallest envelopes, twice.
/// What a relay invents beyond that comes another time.
const MAX_WINDOWS: usize = 2048;

impl Shared<'_> {
    /// What was taken on this link and whose acknowledgement was refused (`busy`): no new envelope may ever come to a mailbox that is full.
    pub(super) async fn acknowledge_again(&self, relay: &RelayKey, line: &Line) -> Result<(), Lost> {
        let mut taken = Vec::new();
        for compartment in self.compartments {
            let open = open_mailboxes(&Unit::new(&*compartment.base), relay).unwrap_or_default();
            taken.extend(open.iter().filter_map(|reading| {
                engine::acknowledged_to(&reading.row).map(|upto| (reading.mailbox, upto))
            }));
        }
        line.acknowledge(taken).await.map_err(|_| Lost)
    }

    /// The mailboxes to read at a relay that were not read in this settling.
    pub(super) fn readable(
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
        // A log that messages wait to be written to is asked for in any case.
        let asked_of = (wanted == Wanted::All).then_some(line);
        found.into_iter().filter(|reading| progress.wants(&unit, (number, reading), asked_of, now)).collect()
    }

    /// Reads mailboxes to their ends. Answers whether anything came.
    pub(super) async fn read(
        &self,
        line: &Line,
        number: usize,
        (mailboxes, wanted): (Vec<Reading>, Wanted),
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
            let mut chunk: Vec<Reading> = readings.drain(..count).collect();
            // What has to leave does not wait for an older log that hangs.
            if wanted == Wanted::All {
                add_older(&Unit::new(&*compartment.base), &mut chunk, &mut readings, |id| {
                    !progress.read.contains(&(number, *id)) && !progress.gone.contains(id)
                });
            }
            came |= self.read_chunk(line, number, chunk, progress).await?;
        }
        Ok(came)
    }

    /// Each mailbox is taken and acknowledged as soon as it comes, so that one that hangs or is long keeps no other back.
    async fn read_chunk(
        &self,
        line: &Line,
        number: usize,
        chunk: Vec<Reading>,
        progress: &mut Progress,
    ) -> Result<bool, Lost> {
        let Some(compartment) = self.compartments.get(number) else { return Ok(false) };
        let older: Vec<Vec<MailboxId>> = {
            let unit = Unit::new(&*compartment.base);
            let here: HashSet<MailboxId> = chunk.iter().map(|reading| reading.mailbox).collect();
            let older = chunk.iter().map(|Reading { mailbox, row }| older_than(&unit, mailbox, row));
            older
                .map(|all| all.unwrap_or_default().into_iter().filter(|id| here.contains(id)).collect())
                .collect()
        };
        // Which are over, and whether they were lost.
        let (done, _) = watch::channel(HashMap::new());
        let progress = Mutex::new(progress);
        let asked = line.ask(&chunk, WINDOW, self.ask).await;
        let all = chunk.iter().zip(asked).zip(&older).map(|((reading, asked), older)| {
            let (done, progress, mut waits) = (&done, &progress, done.subscribe());
            async move {
                let answer = asked.await;
                // The sender outlives this.
                let is_lost = match waits.wait_for(|done| older.iter().all(|id| done.contains_key(id))).await
                {
                    Ok(done) => older.iter().any(|id| done.get(id) == Some(&true)),
                    Err(_) => true,
                };
                let end = if is_lost {
                    Err(Lost)
                } else {
                    self.read_one(line, number, reading, answer, progress).await
                };
                done.send_modify(|done| {
                    done.insert(reading.mailbox, end.is_err());
                });
                end
            }
        });
        let ends = join_all(all).await;
        ends.into_iter().try_fold(false, |came, end| Ok(came | end?))
    }

    async fn read_one(
        &self,
        line: &Line,
        number: usize,
        Reading { mailbox, row }: &Reading,
        answer: Result<ResponseBody, LinkError>,
        progress: &Mutex<&mut Progress>,
    ) -> Result<bool, Lost> {
        let known = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        known().read.insert((number, *mailbox));
        match answer {
            Ok(ResponseBody::Window(window)) if window.mailbox == *mailbox => {
                let came = self.drain(line, number, window, progress).await?;
                let taken = self.to_acknowledge(number, mailbox);
                line.acknowledge(taken.into_iter().collect()).await.map_err(|_| Lost)?;
                return Ok(came);
            }
            Ok(ResponseBody::Refused(Refusal::NotAllowed)) => {
                if known().gone.insert(*mailbox) {
                    self.handle(number, Event::Gone { mailbox: *mailbox });
                }
            }
            // Not `Lost`: one mailbox that the relay cannot read must not keep others from being acknowledged.
            Ok(_) | Err(LinkError::Malformed | LinkError::TooLarge) => {
                self.left_unread(line, number, mailbox, row);
            }
            Err(_) => return Err(Lost),
        }
        Ok(false)
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
        progress: &Mutex<&mut Progress>,
    ) -> Result<bool, Lost> {
        let mailbox = first.mailbox;
        let mut window = first;
        let mut came = false;
        let mut resets = 0;
        let mut has_looked_behind = false;
        for _ in 0..MAX_WINDOWS {
            let is_empty = window.items.is_empty();
            let before = self.mailbox_row(number, &mailbox).map(|row| row.cursor);
            came |= window.items.last().map(|item| item.place.seq) > before;
            match self.take(number, window) {
                Taken::All => {
                    self.begun(line, &mailbox);
                    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                    progress.fresh.insert((number, mailbox));
                    break;
                }
                Taken::Stuck => {
                    // What comes later must not be taken before this.
                    line.forget(&mailbox);
                    break;
                }
                // What was taken before may be all that a window has if what lies behind it cannot be read: then that is told.
                Taken::Nothing if !is_empty && !has_looked_behind => {
                    has_looked_behind = true;
                    self.begun(line, &mailbox);
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
                Some(Ok(ResponseBody::Refused(Refusal::NotAllowed))) => {
                    line.forget(&mailbox);
                    break;
                }
                _ => {
                    let [Reading { mailbox, row }] = &reading;
                    self.left_unread(line, number, mailbox, row);
                    break;
                }
            };
        }
        Ok(came)
    }

    /// A window of a mailbox was taken: it may be acknowledged, and if it was subscribed to, what is told of it may be taken now.
    fn begun(&self, line: &Line, mailbox: &MailboxId) {
        line.shown(mailbox);
        if self.ask == Ask::Subscribe {
            line.subscribed(mailbox);
        }
    }

    /// Gives a window to the engine.
    pub(super) fn take(&self, number: usize, window: Window) -> Taken {
        let mailbox = window.mailbox;
        let Some(before) = self.mailbox_row(number, &mailbox) else { return Taken::Stuck };
        let last = window.items.last().map(|item| item.place.seq);
        let caught_up = last.unwrap_or(before.cursor).max(before.cursor) >= window.newest;
        let is_empty = last.is_none_or(|last| last <= before.cursor);
        let is_use = !is_empty && before.purpose != Purpose::Home;
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

    /// DRV-03: reads what was left for this mailbox, before a notice of it is taken. Answers whether anything came.
    pub(super) async fn read_older(
        &self,
        line: &Line,
        number: usize,
        mailbox: &MailboxId,
        row: &MailboxRow,
    ) -> Result<bool, Lost> {
        let Some(compartment) = self.compartments.get(number) else { return Ok(false) };
        let older: Vec<Reading> = {
            let unit = Unit::new(&*compartment.base);
            let older = older_than(&unit, mailbox, row).unwrap_or_default().into_iter();
            let row_of = |id: MailboxId| Some(Reading { mailbox: id, row: unit.get(&id).ok().flatten()? });
            older.filter_map(row_of).filter(|reading| is_readable(&reading.row, row.relay.key())).collect()
        };
        self.read(line, number, (older, Wanted::All), &mut Progress::default()).await
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
pub(super) enum Wanted {
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
pub(super) fn is_due(unit: &Unit<'_>, row: &MailboxRow, now: Timestamp) -> bool {
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

/// DRV-03: puts what a chunk's mailboxes were left for, and what is to be read before them, behind them: from the rest, or because it
/// tells by itself what comes, and may have been told of something that is not here yet.
fn add_older(
    unit: &Unit<'_>,
    chunk: &mut Vec<Reading>,
    rest: &mut Vec<Reading>,
    is_wanted: impl Fn(&MailboxId) -> bool,
) {
    let older: Vec<(MailboxId, RelayKey)> = chunk
        .iter()
        .flat_map(|Reading { mailbox, row }| {
            let older = older_than(unit, mailbox, row).unwrap_or_default().into_iter().rev();
            older.map(|id| (id, *row.relay.key()))
        })
        .collect();
    for (id, relay) in older {
        if !is_wanted(&id) || chunk.iter().any(|reading| reading.mailbox == id) {
            continue;
        }
        let waiting = rest.iter().position(|reading| reading.mailbox == id).map(|at| rest.remove(at));
        let reading = waiting.or_else(|| {
            let row = unit.get::<MailboxRow>(&id).ok().flatten().filter(|row| is_readable(row, &relay))?;
            Some(Reading { mailbox: id, row })
        });
        chunk.extend(reading);
    }
}

/// How many mailboxes were left for this one.
fn age(unit: &Unit<'_>, Reading { mailbox, row }: &Reading) -> usize {
    match row.purpose {
        Purpose::Direct(_) => 1,
        Purpose::Group(_) => older_than(unit, mailbox, row).map_or(0, |older| older.len()),
        _ => 0,
    }
}
