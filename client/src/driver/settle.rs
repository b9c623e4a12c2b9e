//! Everything once: which relays to talk to, all at the same time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    ids::MailboxId,
    time::Timestamp,
};

use super::{
    Compartment, Driver, Report, Trouble,
    heirs::Heirs,
    line::{Ask, Line, Reading},
    pass::{Lost, Progress, Shared},
    reading::is_readable,
};
use crate::{
    engine::{Event, Fault},
    net::{ConnectError, Link},
    store::{MailboxRow, MailboxState, OpKind, OpRow, RelayRow, Unit},
};

/// How often a link that ended is made again in one settling.
const RECONNECTS: u32 = 2;

/// Passes in one settling, over all relays: far more than any honest conversation needs.
const MAX_PASSES: usize = 4096;

/// What ended while settling.
enum Done {
    Connected(RelayAddress, Result<Arc<dyn Link>, ConnectError>),
    Passed(RelayAddress, Progress, Result<(), Lost>),
}

/// Relays to which something is under way, and whether there is a link by now.
type Busy = BTreeMap<RelayKey, (RelayAddress, bool)>;

/// A relay that is needed, and whether there is something new to do there.
struct Need {
    relay: RelayAddress,
    has_work: bool,
}

impl Driver {
    /// Settles with all relays but those `without`.
    pub(super) async fn settle_as(
        &mut self,
        compartments: &[Compartment],
        budget: Duration,
        ask: Ask,
        without: &HashSet<RelayKey>,
    ) -> Report {
        let mut report = Report::default();
        let busy = Mutex::default();
        let work = self.work(compartments, (&mut report, &busy), ask, without);
        // What is cut off is in the records, or comes again.
        if tokio::time::timeout(budget, work).await.is_err() {
            let cut_off = busy.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (relay, is_connected) in cut_off.into_values() {
                let error = if is_connected { ConnectError::Slow } else { ConnectError::Unreachable };
                report.trouble.push(Trouble { relay, error });
            }
        }
        report
    }

    async fn work(
        &mut self,
        compartments: &[Compartment],
        (report, busy): (&mut Report, &Mutex<Busy>),
        ask: Ask,
        without: &HashSet<RelayKey>,
    ) {
        self.learn_heirs_from(compartments);
        let Self { transport, clock, rng, lines, heirs, begun, used } = self;
        let heirs = &*heirs;
        let shared = Shared {
            compartments,
            clock: &*clock,
            rng: Mutex::new(&mut **rng),
            report: Mutex::new(report),
            used: Mutex::new(used),
            ask,
        };
        let shared = &shared;
        for (number, compartment) in compartments.iter().enumerate() {
            shared.sweep(number);
            let begins = !begun.contains(&compartment.place);
            if shared.handle(number, Event::Tick { begins }) {
                begun.insert(compartment.place);
            }
            // A command that does not stay has left the one that it needs.
            if !begins && ask == Ask::Subscribe {
                shared.mark_again(number);
            }
        }
        // What was followed while tokens were presented.
        shared.inherit(heirs);
        let mut progress: HashMap<RelayKey, Progress> = HashMap::new();
        let mut ends: HashMap<RelayKey, u32> = HashMap::new();
        let mut failed: HashSet<RelayKey> = without.clone();
        let mut running: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        let mut passes = 0;
        let busy = || busy.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for Need { relay, has_work } in shared.needs(&progress, lines) {
                let key = *relay.key();
                if busy().contains_key(&key) || failed.contains(&key) || !has_work || passes >= MAX_PASSES {
                    continue;
                }
                passes += 1;
                let line = lines.get(&key).cloned();
                busy().insert(key, (relay.clone(), line.is_some()));
                match line {
                    Some(line) => {
                        let mut progress = progress.remove(&key).unwrap_or_default();
                        let pass = async move {
                            let end = shared.pass(relay.key(), &line, &mut progress).await;
                            Done::Passed(relay, progress, end)
                        };
                        running.push(pass.boxed());
                    }
                    None => {
                        let transport = Arc::clone(transport);
                        let connect = async move {
                            let link = heirs.connect(&transport, &relay).await;
                            Done::Connected(relay, link)
                        };
                        running.push(connect.boxed());
                    }
                }
            }
            let Some(done) = running.next().await else { return };
            match done {
                Done::Connected(relay, link) => {
                    busy().remove(relay.key());
                    match link {
                        Ok(link) => {
                            if link.heir().is_some() {
                                shared.inherit(heirs);
                            }
                            lines.insert(*relay.key(), Arc::new(Line::new(link)));
                        }
                        Err(error) => {
                            failed.insert(*relay.key());
                            shared.report().trouble.push(Trouble { relay, error });
                        }
                    }
                }
                Done::Passed(relay, past, end) => {
                    busy().remove(relay.key());
                    let known = progress.entry(*relay.key()).or_default();
                    *known = past;
                    if end.is_err() {
                        lines.remove(relay.key());
                        // On another link what was read must be read again: it may not be all.
                        known.begin_again();
                        let count = ends.entry(*relay.key()).or_default();
                        *count += 1;
                        if *count > RECONNECTS {
                            failed.insert(*relay.key());
                            let error = ConnectError::Unreachable;
                            shared.report().trouble.push(Trouble { relay, error });
                        }
                    }
                }
            }
        }
    }
}

impl Shared<'_> {
    /// SUC-02: what was followed is on disk before anything is sent there.
    fn inherit(&self, heirs: &Heirs) {
        for (relay, heir) in heirs.all() {
            for number in 0..self.compartments.len() {
                self.handle(number, Event::Heir { relay, heir });
            }
        }
    }

    /// Every relay that a compartment has to talk to, and where something was not done yet in this settling.
    fn needs(
        &self,
        progress: &HashMap<RelayKey, Progress>,
        lines: &BTreeMap<RelayKey, Arc<Line>>,
    ) -> Vec<Need> {
        let mut needs = Needs::default();
        for (number, compartment) in self.compartments.iter().enumerate() {
            let unit = Unit::new(&*compartment.base);
            if let Err(fault) = needs.of(&unit, number, (progress, lines), self.now()) {
                self.report().faults.push(fault);
            }
        }
        needs.0.into_values().collect()
    }
}

#[derive(Default)]
struct Needs(BTreeMap<RelayKey, Need>);

impl Needs {
    fn add(&mut self, relay: &RelayAddress, has_work: bool) {
        let need =
            self.0.entry(*relay.key()).or_insert_with(|| Need { relay: relay.clone(), has_work: false });
        need.has_work |= has_work;
    }

    fn of(
        &mut self,
        unit: &Unit<'_>,
        number: usize,
        (progress, lines): (&HashMap<RelayKey, Progress>, &BTreeMap<RelayKey, Arc<Line>>),
        now: Timestamp,
    ) -> Result<(), Fault> {
        for (_, row) in unit.scan::<RelayRow>(&[])? {
            self.add(&row.address, !progress.contains_key(row.address.key()));
        }
        let mut creating: HashSet<MailboxId> = HashSet::new();
        for (mailbox, row) in unit.scan::<MailboxRow>(&[])? {
            if row.state == MailboxState::Creating {
                creating.insert(mailbox);
            }
            if is_readable(&row, row.relay.key()) {
                let relay = row.relay.clone();
                let line = lines.get(relay.key()).map(Arc::as_ref);
                let reading = Reading { mailbox, row };
                let known = progress.get(relay.key());
                self.add(&relay, known.is_none_or(|known| known.wants(unit, (number, &reading), line, now)));
            }
        }
        for (op, row) in unit.scan::<OpRow>(&[])? {
            let waits = row.after.is_some_and(|first| creating.contains(&first))
                || matches!(&row.kind, OpKind::Append { mailbox, .. } if creating.contains(mailbox));
            let known = progress.get(row.relay.key());
            let untried = known.is_none_or(|known| !known.tried.contains(&(number, op)));
            self.add(&row.relay, untried && !waits);
        }
        Ok(())
    }
}
