//! The only place that awaits: carries operations to relays and what relays deliver to the engine.
//!
//! ```text
//! loop { unit = engine.handle(event); commit(unit); tell(effects); acknowledge }
//! ```
//! Invariants: nothing is acknowledged to a relay, and no effect is told, before the unit that it belongs to is
//! committed; an operation is sent again until its answer is committed, which the relay's own idempotence makes
//! harmless. One driver serves every open compartment over the same links.

mod follow;
mod line;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{self, PresentToken, Refusal, RequestBody, ResponseBody, Seq, Window},
    ids::MailboxId,
    time::Timestamp,
    tripwire::{Status, Token},
};
use rand_core::CryptoRng;

use self::line::Line;
use crate::{
    engine::{self, Command, Effect, Event, Fault, OpStep, Reply, connected_relays, request_of},
    net::{ConnectError, Transport},
    store::{Base, MailboxRow, MailboxState, OpId, OpRow, Purpose, Unit},
};

/// Envelopes asked for at once.
const WINDOW: u16 = 64;

/// Operations in flight at once on one link: enough to fill a flush of the relay, far below its bound.
const BATCH: usize = 64;

/// Rounds in one [`Driver::settle`]: each may answer what the one before delivered. A conversation between two
/// programs that never ends would be a defect; this bounds it.
const MAX_ROUNDS: usize = 32;

/// One open compartment.
#[derive(Clone)]
pub struct Compartment {
    /// Its name, as its owner chose it.
    pub name: String,
    /// Its records.
    pub base: Arc<dyn Base + Send + Sync>,
}

/// A relay that could not be used.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Which.
    pub relay: RelayAddress,
    /// Why.
    pub error: ConnectError,
}

/// What a round of settling came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What is to be told, with the number of the compartment.
    pub effects: Vec<(usize, Effect)>,
    /// Relays that could not be reached.
    pub trouble: Vec<Trouble>,
    /// Events that the engine refused: defects, counted for `doctor`.
    pub faults: Vec<Fault>,
}

impl Report {
    fn absorb(&mut self, compartment: usize, effects: Vec<Effect>) {
        self.effects.extend(effects.into_iter().map(|effect| (compartment, effect)));
    }
}

/// Reads the clock for the driver.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Carries what the engine wants to relays, and what they say to the engine.
pub struct Driver {
    transport: Arc<dyn Transport>,
    clock: Clock,
    rng: Box<dyn CryptoRng + Send>,
    lines: BTreeMap<RelayKey, Line>,
}

impl Driver {
    /// A driver without links; they are made when something needs them.
    pub fn new(transport: Arc<dyn Transport>, clock: Clock, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self { transport, clock, rng, lines: BTreeMap::new() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The generator.
    pub fn rng(&mut self) -> &mut (dyn CryptoRng + Send) {
        &mut *self.rng
    }

    /// Handles one event of a compartment and commits what it changed.
    ///
    /// # Errors
    /// [`Fault`]: nothing was changed.
    pub fn handle(&mut self, compartment: &Compartment, event: Event) -> Result<Vec<Effect>, Fault> {
        let now = self.now();
        let mut unit = Unit::new(&*compartment.base);
        let effects = engine::handle(&mut unit, event, now, &mut *self.rng)?;
        let changes = unit.into_changes();
        if !changes.is_empty() {
            compartment.base.commit(changes)?;
        }
        Ok(effects)
    }

    /// Handles a command and answers its reply; other effects of commands are not told.
    ///
    /// # Errors
    /// [`Fault`]: nothing was changed.
    pub fn command(&mut self, compartment: &Compartment, command: Command) -> Result<Reply, Fault> {
        let effects = self.handle(compartment, Event::Command(command))?;
        effects
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Reply(reply) => Some(reply),
                _ => None,
            })
            .ok_or(Fault::Inconsistent("a command without reply"))
    }

    /// Presents tokens, each to its relay, all at once, and answers what came back within `wait`.
    pub async fn present(
        &mut self,
        tokens: &[(RelayAddress, Token)],
        wait: Duration,
    ) -> Vec<(RelayKey, Status)> {
        let due: Vec<RelayAddress> = tokens.iter().map(|(relay, _)| relay.clone()).collect();
        let deadline = tokio::time::Instant::now() + wait;
        let _ = tokio::time::timeout_at(deadline, self.connect(&due)).await;
        let asked = tokens.iter().filter_map(|(relay, token)| {
            let link = Arc::clone(&self.lines.get(relay.key())?.link);
            let body = RequestBody::Token(PresentToken { token: token.clone() });
            Some(async move { (*relay.key(), tokio::time::timeout_at(deadline, link.request(body)).await) })
        });
        join_all(asked)
            .await
            .into_iter()
            .filter_map(|(relay, answer)| match answer {
                Ok(Ok(ResponseBody::Token(status))) => Some((relay, status)),
                _ => None,
            })
            .collect()
    }

    /// Carries out what waits and takes what came, until nothing more happens or `budget` is over.
    pub async fn settle(&mut self, compartments: &[Compartment], budget: Duration) -> Report {
        let mut report = Report::default();
        let work = self.rounds(compartments, &mut report);
        // What is cut off is in the records, or comes again.
        let _ = tokio::time::timeout(budget, work).await;
        report
    }

    async fn rounds(&mut self, compartments: &[Compartment], report: &mut Report) {
        let mut failed: HashSet<RelayKey> = HashSet::new();
        let mut tried: HashSet<(usize, OpId)> = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            self.tick(compartments, report);
            let needed = needed(compartments, report);
            let missing: Vec<RelayAddress> =
                needed.into_iter().filter(|relay| !failed.contains(relay.key())).collect();
            for trouble in self.connect(&missing).await {
                failed.insert(*trouble.relay.key());
                report.trouble.push(trouble);
            }
            let mut progress = false;
            let newest = newest_operations(compartments);
            let relays: Vec<RelayKey> = self.lines.keys().copied().collect();
            for relay in relays {
                for (number, compartment) in compartments.iter().enumerate() {
                    progress |= self.operations(&relay, number, compartment, &mut tried, report).await;
                    progress |= self.deliveries(&relay, number, compartment, report).await;
                }
            }
            // What came may have asked for more, in this compartment or at another relay.
            if !progress && newest_operations(compartments) == newest {
                return;
            }
        }
    }

    fn tick(&mut self, compartments: &[Compartment], report: &mut Report) {
        for (number, compartment) in compartments.iter().enumerate() {
            match self.handle(compartment, Event::Tick) {
                Ok(effects) => report.absorb(number, effects),
                Err(fault) => report.faults.push(fault),
            }
        }
    }

    /// Makes the links that are missing, all at once.
    async fn connect(&mut self, relays: &[RelayAddress]) -> Vec<Trouble> {
        let missing: Vec<&RelayAddress> =
            relays.iter().filter(|relay| !self.lines.contains_key(relay.key())).collect();
        let transport = &self.transport;
        let made = join_all(missing.iter().map(|relay| transport.connect(relay))).await;
        let mut trouble = Vec::new();
        for (relay, link) in missing.into_iter().zip(made) {
            match link {
                Ok(link) => {
                    self.lines.insert(*relay.key(), Line::new(link));
                }
                Err(error) => trouble.push(Trouble { relay: relay.clone(), error }),
            }
        }
        trouble
    }

    /// Carries out the operations of one compartment at one relay. Answers whether anything changed.
    async fn operations(
        &mut self,
        relay: &RelayKey,
        number: usize,
        compartment: &Compartment,
        tried: &mut HashSet<(usize, OpId)>,
        report: &mut Report,
    ) -> bool {
        let mut progress = false;
        loop {
            let Ok(batch) = self.next_batch(relay, number, compartment, tried, report) else {
                return progress;
            };
            if batch.is_empty() {
                return progress;
            }
            let Some(line) = self.lines.get_mut(relay) else { return progress };
            let Ok(answers) = line.carry_out(batch).await else {
                self.lines.remove(relay);
                return progress;
            };
            for (op, body) in answers {
                tried.insert((number, op));
                let moved = matches!(&body, ResponseBody::BlobProgress(_) | ResponseBody::BlobPart(_));
                let refused = matches!(&body, ResponseBody::Refused(_));
                match self.handle(compartment, Event::Answer { op, body }) {
                    Ok(effects) => report.absorb(number, effects),
                    Err(fault) => report.faults.push(fault),
                }
                if moved {
                    tried.remove(&(number, op));
                }
                progress |= !refused;
            }
        }
    }

    /// The next operations for a relay, in their order. One that has to wait holds back what follows it to the same
    /// mailbox, so that messages stay in order.
    fn next_batch(
        &mut self,
        relay: &RelayKey,
        number: usize,
        compartment: &Compartment,
        tried: &HashSet<(usize, OpId)>,
        report: &mut Report,
    ) -> Result<Vec<line::Work>, Fault> {
        let now = self.now();
        let Some(line) = self.lines.get(relay) else { return Ok(Vec::new()) };
        let binding = line.link.binding();
        let unit = Unit::new(&*compartment.base);
        let mut held: HashSet<MailboxId> = HashSet::new();
        let mut batch = Vec::new();
        let mut obsolete = Vec::new();
        for (op, row) in unit.scan::<OpRow>(&[])? {
            if row.relay.key() != relay || batch.len() >= BATCH {
                continue;
            }
            let target = match &row.kind {
                crate::store::OpKind::Append { mailbox, .. } => Some(*mailbox),
                _ => None,
            };
            if target.is_some_and(|mailbox| held.contains(&mailbox)) {
                continue;
            }
            if tried.contains(&(number, op)) {
                held.extend(target);
                continue;
            }
            match request_of(&unit, &row, &binding, now, &mut *self.rng) {
                Ok(OpStep::Send { proofs, body }) => batch.push(line::Work { op, proofs, body }),
                Ok(OpStep::Wait) => held.extend(target),
                Ok(OpStep::Obsolete) => obsolete.push(op),
                Err(fault) => {
                    held.extend(target);
                    report.faults.push(fault);
                }
            }
        }
        drop(unit);
        for op in obsolete {
            // An answer of `done` drops an operation that has nothing left to do.
            self.handle(compartment, Event::Answer { op, body: ResponseBody::Done })?;
        }
        Ok(batch)
    }

    /// Takes what waits in the mailboxes of one compartment at one relay. Answers whether anything came.
    async fn deliveries(
        &mut self,
        relay: &RelayKey,
        number: usize,
        compartment: &Compartment,
        report: &mut Report,
    ) -> bool {
        let mut progress = false;
        for mailbox in readable(compartment, relay, report) {
            loop {
                let Some(row) = mailbox_row(compartment, &mailbox) else { break };
                let Some(line) = self.lines.get_mut(relay) else { return progress };
                if line.is_subscribed(&mailbox) && row.closes.is_none_or(|closes| closes > (self.clock)()) {
                    break;
                }
                let answer = line.read(&mailbox, &row, WINDOW).await;
                let window = match answer {
                    Ok(ResponseBody::Window(window)) => window,
                    Ok(ResponseBody::Refused(Refusal::NotAllowed) | _) => break,
                    Err(_) => {
                        self.lines.remove(relay);
                        return progress;
                    }
                };
                let came = !window.items.is_empty();
                progress |= came;
                let caught_up = self.take(number, compartment, window, report).await;
                if caught_up || !came {
                    break;
                }
            }
        }
        progress
    }

    /// Gives a window to the engine, then acknowledges it. Answers whether the mailbox is empty now.
    async fn take(
        &mut self,
        number: usize,
        compartment: &Compartment,
        window: Window,
        report: &mut Report,
    ) -> bool {
        let mailbox = window.mailbox;
        let last = window.items.last().map(|item| item.place.seq);
        let before = mailbox_row(compartment, &mailbox).map_or(Seq::START, |row| row.cursor);
        let caught_up = last.unwrap_or(before) >= window.newest;
        match self.handle(compartment, Event::Window { window, caught_up }) {
            Ok(effects) => report.absorb(number, effects),
            Err(fault) => {
                // Not acknowledged: it comes again. A defect must not make us lose a message.
                report.faults.push(fault);
                return true;
            }
        }
        let Some(row) = mailbox_row(compartment, &mailbox) else { return true };
        if engine::is_acknowledged(&row)
            && row.cursor > Seq::START
            && let Some(line) = self.lines.get_mut(row.relay.key())
        {
            let ack = frame::Ack { mailbox, upto: row.cursor, also: Vec::new() };
            line.acknowledge(ack).await;
        }
        caught_up
    }

    /// Ends all links, after what was sent on them has left.
    pub async fn close(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        for line in lines.values() {
            line.link.close();
        }
        let gone = join_all(lines.values().map(|line| line.link.closed()));
        // A relay that vanished is not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(500), gone).await;
    }
}

fn newest_operations(compartments: &[Compartment]) -> Vec<Option<OpId>> {
    let newest = |compartment: &Compartment| {
        let unit = Unit::new(&*compartment.base);
        unit.range::<OpRow>(&[], None, 1, true).ok().and_then(|rows| rows.first().map(|(op, _)| *op))
    };
    compartments.iter().map(newest).collect()
}

fn needed(compartments: &[Compartment], report: &mut Report) -> Vec<RelayAddress> {
    let mut all: Vec<RelayAddress> = Vec::new();
    for compartment in compartments {
        match connected_relays(&Unit::new(&*compartment.base)) {
            Ok(relays) => {
                for relay in relays {
                    if all.iter().all(|known| known.key() != relay.key()) {
                        all.push(relay);
                    }
                }
            }
            Err(fault) => report.faults.push(fault),
        }
    }
    all
}

fn mailbox_row(compartment: &Compartment, mailbox: &MailboxId) -> Option<MailboxRow> {
    Unit::new(&*compartment.base).get(mailbox).ok().flatten()
}

fn readable(compartment: &Compartment, relay: &RelayKey, report: &mut Report) -> Vec<MailboxId> {
    let rows = match Unit::new(&*compartment.base).scan::<MailboxRow>(&[]) {
        Ok(rows) => rows,
        Err(error) => {
            report.faults.push(error.into());
            return Vec::new();
        }
    };
    rows.into_iter()
        .filter(|(_, row)| {
            row.relay.key() == relay
                && row.state == MailboxState::Open
                && row.read.is_some()
                && !matches!(row.purpose, Purpose::AlertOutbox(_))
        })
        .map(|(id, _)| id)
        .collect()
}
