//! Staying connected: what comes is taken as it comes, what waits is sent as soon as it can be.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{join_all, select_all},
};
use lapwing_wire::{
    address::RelayKey,
    frame::{Notice, Window},
};

use super::{
    Compartment, Driver, Report, Told,
    line::Ask,
    pass::{Lost, Progress, Shared},
    reading::Taken,
};
use crate::{
    engine::{self, Event},
    net::{Backoff, backoff::FIRST},
    store::{MailboxRow, OpId, OpRow, Unit},
};

/// How often a follower looks whether it has to end.
const TICK: Duration = Duration::from_millis(250);

/// How often everything is gone through while nothing is told: for what becomes due by the clock alone.
const IDLE: Duration = Duration::from_secs(30);

/// How often it is looked for messages whose time is over.
const LOOK: Duration = Duration::from_secs(5);

/// Longest that one round of settling may take while following.
const ROUND: Duration = Duration::from_secs(20);

/// How long the last mark may take to reach its relays: whoever ended it waits.
const LAST_MARK: Duration = Duration::from_secs(2);

/// The same where another command waits for the vault: that one gives up after twenty seconds, and after two it takes whoever
/// has the vault for hung. A relay that is away has to cost less.
const LAST_MARK_ASKED: Duration = Duration::from_secs(1);

/// Why following ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// As decided, or by a signal: what waits leaves with the mark.
    Ended,
    /// Another command wants the vault: nothing but the mark leaves, and it has half the time.
    Asked,
    /// The file is not at its path any more: nothing but the mark leaves.
    Replaced,
}

impl Parting {
    const fn limit(self) -> Duration {
        match self {
            Self::Ended | Self::Replaced => LAST_MARK,
            Self::Asked => LAST_MARK_ASKED,
        }
    }

    /// Operations that do not leave any more, of all that wait. Nothing where they cannot be read: then none may leave.
    fn held(self, number: usize, compartment: &Compartment) -> Option<HashSet<(usize, OpId)>> {
        if self == Self::Ended {
            return Some(HashSet::new());
        }
        let unit = Unit::new(&*compartment.base);
        let waiting = unit.scan::<OpRow>(&[]).ok()?.into_iter();
        let held = waiting.filter(|(_, row)| !engine::copies::is_mark(&unit, row).unwrap_or(false));
        Some(held.map(|(op, _)| (number, op)).collect())
    }
}

/// Whether following goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    On,
    /// It ends.
    End,
}

impl Driver {
    /// Receives and sends until `decide` says that it is enough. `decide` is asked with the effects of each round,
    /// and with none before anything is taken and, between rounds, at least four times a second. A round takes at most
    /// twenty seconds; whoever ends this future at one of its awaits loses nothing.
    pub async fn follow(
        &mut self,
        compartments: &[Compartment],
        decide: &mut dyn FnMut(&[Told]) -> Next,
    ) -> Report {
        let mut total = Report::default();
        let mut backoff = Backoff::default();
        let (mut unread, mut dropped) = (Backoff::new(FIRST, IDLE), Backoff::new(FIRST, IDLE));
        let mut due = tokio::time::Instant::now();
        let mut look = due;
        let (mut begun, mut came) = (false, None);
        loop {
            if std::mem::replace(&mut begun, true) && decide(&[]) == Next::End {
                return total;
            }
            let is_due = tokio::time::Instant::now() >= due;
            let told = came.take();
            if is_due || told.is_some() {
                // DRV-04: what came from one relay is answered at once, and does not wait for another that was away just now.
                let mut away = std::mem::take(&mut total.trouble);
                away.retain(|trouble| !is_due && told != Some(*trouble.relay.key()));
                let without = away.iter().map(|trouble| *trouble.relay.key()).collect();
                let report = self.settle_as(compartments, ROUND, Ask::Subscribe, &without).await;
                let is_quiet = report.trouble.is_empty() && !waiting(compartments, &without);
                if is_quiet && is_due {
                    backoff.reset();
                }
                let pause = if is_quiet { IDLE } else { backoff.after_failure(&mut *self.rng) };
                // By a measure of its own: a mailbox that stays damaged must not slow down all that becomes due.
                let is_whole = report.unread.is_empty();
                if is_whole && is_due {
                    unread.reset();
                }
                let pause = if is_whole { pause } else { pause.min(unread.after_failure(&mut *self.rng)) };
                let next = tokio::time::Instant::now() + pause;
                due = if is_due { next } else { due.min(next) };
                total.trouble = away;
                total.trouble.extend(report.trouble);
                total.unread = report.unread;
                total.faults.extend(report.faults);
                if decide(&report.effects) == Next::End {
                    return total;
                }
            }
            if tokio::time::Instant::now() >= look {
                look = tokio::time::Instant::now() + LOOK;
                self.sweep_due(compartments, &mut total);
            }
            let Some((relay, notice)) = self.next_notice().await else { continue };
            if decide(&[]) == Next::End {
                return total;
            }
            let mut report = Report::default();
            let noticed = match notice {
                // DRV-05: what a relay still answers to while this is taken must not keep everything else for long.
                Some(notice) => {
                    let noticed = self.noticed(&relay, notice, compartments, &mut report);
                    tokio::time::timeout(ROUND, noticed).await.unwrap_or(Err(Lost))
                }
                None => Err(Lost),
            };
            let now = tokio::time::Instant::now();
            match noticed {
                Ok(Noticed::Taken) => {
                    // Answers to what came leave at once.
                    dropped.reset();
                    came = Some(relay);
                }
                // DRV-05: a relay may tell of what cannot be taken as often as it likes.
                Ok(Noticed::Dropped) => due = due.min(now + dropped.after_failure(&mut *self.rng)),
                Ok(Noticed::Nothing) => {}
                Err(Lost) => {
                    self.lines.remove(&relay);
                    due = due.min(now + backoff.after_failure(&mut *self.rng));
                }
            }
            total.faults.extend(report.faults);
            if decide(&report.effects) == Next::End {
                return total;
            }
        }
    }

    /// CPY-06: leaves a last mark where something was taken or sent since the one before, over the links that there are.
    /// Call it when following ends. A mark that does not reach its relay in time waits in the records, as all that is sent
    /// does; the next session leaves another in its place.
    pub async fn end_following(&mut self, compartments: &[Compartment], parting: Parting) {
        let places = compartments.iter().map(|compartment| compartment.place).enumerate();
        let ending: Vec<_> = places.filter(|(_, place)| self.used.contains(place)).collect();
        if ending.is_empty() {
            return;
        }
        let mut report = Report::default();
        let Self { transport: _, clock, rng, lines, heirs: _, begun: _, used } = self;
        let shared = Shared {
            compartments,
            clock: &*clock,
            rng: Mutex::new(&mut **rng),
            report: Mutex::new(&mut report),
            used: Mutex::new(used),
            ask: Ask::Read,
        };
        for (number, _) in &ending {
            // What fails here is left by the next session.
            shared.handle(*number, Event::Mark);
        }
        let (shared, ending) = (&shared, &ending);
        let all = lines.iter().map(|(relay, line)| async move {
            for (number, _) in ending {
                let held = compartments.get(*number).and_then(|one| parting.held(*number, one));
                let Some(tried) = held else { continue };
                let mut progress = Progress { tried, ..Progress::default() };
                let _ = shared.operations(relay, line, *number, &mut progress).await;
            }
        });
        let _ = tokio::time::timeout(parting.limit(), join_all(all)).await;
        for (_, place) in ending {
            self.used.remove(place);
        }
    }

    /// TMR-05: erases messages whose time is over, whether or not a relay can be reached.
    fn sweep_due(&mut self, compartments: &[Compartment], total: &mut Report) {
        let now = self.now();
        for compartment in compartments {
            let next = engine::next_due(&Unit::new(&*compartment.base));
            let is_due = matches!(next, Ok(Some(at)) if at <= now);
            if is_due && let Err(fault) = self.sweep(compartment) {
                total.faults.push(fault);
            }
        }
    }

    /// The next thing that any relay says, or `None` after a tick.
    async fn next_notice(&self) -> Option<(RelayKey, Option<Notice>)> {
        let links: Vec<_> = self.lines.iter().map(|(relay, line)| (*relay, Arc::clone(&line.link))).collect();
        if links.is_empty() {
            tokio::time::sleep(TICK).await;
            return None;
        }
        let all = links.iter().map(|(relay, link)| async { (*relay, link.notice().await.ok()) }.boxed());
        tokio::time::timeout(TICK, select_all(all)).await.ok().map(|(said, _, _)| said)
    }

    /// Takes what a relay tells. What is dropped comes with the next settling.
    async fn noticed(
        &mut self,
        relay: &RelayKey,
        notice: Notice,
        compartments: &[Compartment],
        report: &mut Report,
    ) -> Result<Noticed, Lost> {
        let Notice::Window(window) = notice;
        let Self { transport: _, clock, rng, lines, heirs: _, begun: _, used } = self;
        let Some(line) = lines.get(relay).cloned() else { return Ok(Noticed::Dropped) };
        let ask = Ask::Read;
        let shared = Shared {
            compartments,
            clock: &*clock,
            rng: Mutex::new(&mut **rng),
            report: Mutex::new(report),
            used: Mutex::new(used),
            ask,
        };
        let mailbox = window.mailbox;
        for number in 0..compartments.len() {
            let Some(row) = shared.mailbox_row(number, &mailbox).filter(|row| row.relay.key() == relay)
            else {
                continue;
            };
            if !line.is_subscribed(&mailbox) || !continues(&window, &row) {
                // Subscribed anew in the settling that follows: what was dropped before it must not be acknowledged with it.
                line.forget(&mailbox);
                return Ok(Noticed::Dropped);
            }
            let is_new = window.items.last().is_some_and(|item| item.place.seq > row.cursor);
            // May bring what the window has, too.
            let is_new = shared.read_older(&line, number, &mailbox, &row).await? || is_new;
            match shared.take(number, window) {
                Taken::All | Taken::More => {}
                Taken::Nothing => return Ok(Noticed::Dropped),
                // As above: from the beginning, or from what could not be taken.
                Taken::Reset | Taken::Stuck => {
                    line.forget(&mailbox);
                    return Ok(Noticed::Dropped);
                }
            }
            let taken = shared.to_acknowledge(number, &mailbox);
            line.acknowledge(taken.into_iter().collect()).await.map_err(|_| Lost)?;
            return Ok(if is_new { Noticed::Taken } else { Noticed::Nothing });
        }
        Ok(Noticed::Dropped)
    }
}

/// What became of what a relay told.
enum Noticed {
    /// There was something new in it.
    Taken,
    /// All of it was known.
    Nothing,
    /// It is asked for anew.
    Dropped,
}

/// Whether nothing lies between what was taken of a mailbox and what is told of it, as far as its numbers say. Numbers may be missing (what
/// has expired); then the relay is asked.
fn continues(window: &Window, row: &MailboxRow) -> bool {
    let mut numbers = window.items.iter().map(|item| item.place.seq);
    let first = numbers.find(|seq| *seq > row.cursor);
    window.newest >= row.cursor && first.is_none_or(|seq| seq == row.cursor.next())
}

/// Whether something waits for a relay that was asked.
fn waiting(compartments: &[Compartment], without: &HashSet<RelayKey>) -> bool {
    compartments.iter().any(|compartment| {
        let waiting = Unit::new(&*compartment.base).scan::<OpRow>(&[]).unwrap_or_default();
        waiting.iter().any(|(_, op)| !without.contains(op.relay.key()))
    })
}
