//! The only place that awaits: carries operations to relays and what relays deliver to the engine.
//!
//! ```text
//! loop { unit = engine.handle(event); commit(unit); tell(effects); acknowledge }
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | `settle` | everything once: which relays to talk to, all at the same time |
//! | `pass` | one relay's turn: what waits for it, what waits there |
//! | `batch` | which operations may leave together |
//! | `files` | files on their way to a relay and from one |
//! | `follow` | staying connected |
//! | `moving` | a chat goes from one compartment to another |
//! | `heirs` | relays that have changed their keys |
//! | `line` | a link, and what was proved and subscribed on it |
//!
//! Invariants: DRV-01 nothing is acknowledged to a relay, and no effect is told, before the unit that it belongs to is
//! committed; DRV-02 an operation is sent again until its answer is committed, which the relay's own idempotence makes
//! harmless; DRV-03 what one mailbox or log was left for is taken after all that it gives; DRV-04 a relay that
//! hangs delays nobody else's; DRV-05 every loop is bounded, whatever a relay answers.
//! One driver serves every open compartment over the same links.

mod batch;
mod files;
mod follow;
mod heirs;
mod line;
mod moving;
mod pass;
mod reading;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{PresentToken, RequestBody, ResponseBody},
    time::Timestamp,
    tripwire::{Status, Token},
};
use rand_core::CryptoRng;

pub use self::files::{FetchError, Take, UploadReport, Watch};
pub use self::follow::{Next, Parting};
use self::{
    heirs::Heirs,
    line::{Ask, Line},
};
use crate::{
    engine::{self, Command, Effect, Event, Fault, Reply},
    net::{ConnectError, Transport},
    store::{Base, ChatId, DoomedKeyRow, Order, Unit, destroy_doomed_keys},
};

/// How long after a failed try a token is presented again, while its bounded wait lasts.
const TOKEN_RETRY: Duration = Duration::from_millis(300);

/// See [`Driver::rest`]. Acknowledgements wait 25 ms at most for something to travel with (RFC 9000, section 18.2,
/// `max_ack_delay`).
const REST: Duration = Duration::from_millis(40);

/// One open compartment.
#[derive(Clone)]
pub struct Compartment {
    /// Its name, as its owner chose it.
    pub name: String,
    /// What names it for ever, to the owner alone: the id of its volume.
    pub place: [u8; 16],
    /// Its records.
    pub base: Arc<dyn Base + Send + Sync>,
}

impl Compartment {
    /// Remembers what was shown, while a driver is at work: between two of its awaits.
    ///
    /// # Errors
    /// [`Fault`]: nothing was changed.
    pub fn mark_read(
        &self,
        chat: ChatId,
        order: Order,
        now: Timestamp,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Fault> {
        let event = Event::Command(Command::MarkRead { chat, order });
        commit_event(self, event, now, rng).map(|_| ())
    }
}

/// A relay that could not be used.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Which.
    pub relay: RelayAddress,
    /// Why.
    pub error: ConnectError,
}

/// The number of a compartment, and what is to be told of it.
pub type Told = (usize, Effect);

/// What a round of settling came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What is to be told.
    pub effects: Vec<Told>,
    /// Relays that could not be reached, went away again and again, or had not done all when the time was over.
    pub trouble: Vec<Trouble>,
    /// Relays that answered, and did not give all that lies in a mailbox there: it is asked for again. Each once.
    pub unread: Vec<RelayAddress>,
    /// Events that the engine refused: defects, counted for `doctor`, or a compartment that is full.
    pub faults: Vec<Fault>,
}

impl Report {
    fn left_unread(&mut self, relay: &RelayAddress) {
        if self.unread.iter().all(|known| known.key() != relay.key()) {
            self.unread.push(relay.clone());
        }
    }

    fn absorb(&mut self, compartment: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Defect(fault) => self.faults.push(fault),
                effect => self.effects.push((compartment, effect)),
            }
        }
    }
}

/// Reads the clock for the driver.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Carries what the engine wants to relays, and what they say to the engine.
pub struct Driver {
    transport: Arc<dyn Transport>,
    clock: Clock,
    rng: Box<dyn CryptoRng + Send>,
    lines: BTreeMap<RelayKey, Arc<Line>>,
    heirs: Heirs,
    /// Compartments whose session was begun.
    begun: BTreeSet<[u8; 16]>,
    /// CPY-06: compartments in which something was taken or sent since this session left a mark.
    used: BTreeSet<[u8; 16]>,
}

impl Driver {
    /// A driver without links; they are made when something needs them.
    pub fn new(transport: Arc<dyn Transport>, clock: Clock, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self {
            transport,
            clock,
            rng,
            lines: BTreeMap::new(),
            heirs: Heirs::default(),
            begun: BTreeSet::new(),
            used: BTreeSet::new(),
        }
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
        commit_event(compartment, event, now, &mut *self.rng)
    }

    /// Handles a command and answers its reply; other effects of commands are not told.
    ///
    /// # Errors
    /// [`Fault::NotErased`]: what was to be erased is decided on, and not all of it is gone from the file. Any other
    /// [`Fault`]: nothing was changed.
    pub fn command(&mut self, compartment: &Compartment, command: Command) -> Result<Reply, Fault> {
        let effects = self.handle(compartment, Event::Command(command))?;
        if effects.iter().any(|effect| matches!(effect, Effect::Erased)) {
            // It is decided; what a fault leaves is erased by the next sweep. ERA-07: nobody is told that it is gone.
            self.sweep(compartment).map_err(not_erased)?;
        }
        effects
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Reply(reply) => Some(reply),
                _ => None,
            })
            .ok_or(Fault::Inconsistent("a command without reply"))
    }

    /// Erases what is due by now, and what earlier commands had left to erase. Answers whether anything was.
    ///
    /// # Errors
    /// [`Fault::NotErased`] if keys could not be destroyed; everything else that was due is removed all the same. Any other
    /// [`Fault`]: the rest stays for the next sweep.
    pub fn sweep(&mut self, compartment: &Compartment) -> Result<bool, Fault> {
        let now = self.now();
        sweep(compartment, now, &mut *self.rng)
    }

    /// Takes from a payload which relays have changed their keys, before anything is sent.
    pub fn learn_heirs(&self, recorded: &[(RelayKey, RelayKey)]) {
        self.heirs.learn(recorded);
    }

    /// SUC-02: takes the same from compartments, and gives up links to whoever showed an earlier key. Answers which relays these were
    /// taken for, of links that have ended too.
    pub fn learn_heirs_from(&mut self, compartments: &[Compartment]) -> Vec<RelayKey> {
        self.heirs.learn_from(compartments);
        let stale = self.heirs.stale();
        for relay in &stale {
            if let Some(line) = self.lines.remove(relay) {
                line.link.close();
            }
        }
        stale
    }

    /// The relays that have changed their keys: the key under which each is known, and the one that it has.
    pub fn heirs(&self) -> Vec<(RelayKey, RelayKey)> {
        self.heirs.all()
    }

    /// Whether there is a link to this relay.
    pub fn is_connected(&self, relay: &RelayKey) -> bool {
        self.lines.contains_key(relay)
    }

    /// Presents tokens, each to its relay, all at once, and answers what came back within `wait`. A relay that does
    /// not answer holds up no other; what fails is tried again while the wait lasts.
    pub async fn present(
        &mut self,
        tokens: &[(RelayAddress, Token)],
        wait: Duration,
    ) -> Vec<(RelayKey, Status)> {
        let deadline = tokio::time::Instant::now() + wait;
        let (transport, heirs, lines) = (&self.transport, &self.heirs, Mutex::new(&mut self.lines));
        let asked = tokens.iter().map(|(relay, token)| async {
            let presented = present_one((transport, heirs), &lines, relay, token);
            let answer = tokio::time::timeout_at(deadline, presented).await;
            answer.ok().map(|status| (*relay.key(), status))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Carries out what waits and takes what came, until nothing more happens or `budget` is over.
    pub async fn settle(&mut self, compartments: &[Compartment], budget: Duration) -> Report {
        self.settle_as(compartments, budget, Ask::Read, &HashSet::new()).await
    }

    /// Waits until everything that came is acknowledged, so that no acknowledgement leaves later by itself or not,
    /// depending on how long this process is busy until it sends again. Nothing without links.
    pub async fn rest(&self) {
        if !self.lines.is_empty() {
            tokio::time::sleep(REST).await;
        }
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

/// ERA-07: what kept something from being erased that is decided on.
fn not_erased(fault: Fault) -> Fault {
    match fault {
        fault @ Fault::NotErased(_) => fault,
        other => Fault::NotErased(other.to_string()),
    }
}

/// DRV-01: the one way of an event into the records.
fn commit_event(
    compartment: &Compartment,
    event: Event,
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<Effect>, Fault> {
    let mut unit = Unit::new(&*compartment.base);
    let effects = engine::handle(&mut unit, event, now, rng)?;
    let changes = unit.into_changes();
    let dooms = changes.puts::<DoomedKeyRow>();
    if !changes.is_empty() {
        compartment.base.commit(changes)?;
    }
    if dooms {
        // ERA-01. The event has happened, whatever comes of this; what fails is done by the next sweep, or told by it.
        let _ = destroy_doomed_keys(&*compartment.base);
    }
    Ok(effects)
}

/// Sweeps of one compartment in a row: each erases hundreds of records.
const MAX_SWEEPS: usize = 100_000;

/// Erases what is due and what was left to be erased. Answers whether anything was.
fn sweep(compartment: &Compartment, now: Timestamp, rng: &mut dyn CryptoRng) -> Result<bool, Fault> {
    // ERA-07: keys that cannot be destroyed keep no message whose time is over. What fails here fails below again.
    let _ = destroy_doomed_keys(&*compartment.base);
    let mut erased = false;
    for _ in 0..MAX_SWEEPS {
        let effects = commit_event(compartment, Event::Sweep, now, rng)?;
        let more = effects.iter().any(|effect| matches!(effect, Effect::MoreToErase));
        erased |= more || effects.iter().any(|effect| matches!(effect, Effect::Erased));
        if !more {
            break;
        }
    }
    destroy_doomed_keys(&*compartment.base).map_err(|error| Fault::NotErased(error.to_string()))?;
    Ok(erased)
}

type Lines<'a> = Mutex<&'a mut BTreeMap<RelayKey, Arc<Line>>>;

/// Tries until it is answered; whoever awaits it bounds it.
async fn present_one(
    (transport, heirs): (&Arc<dyn Transport>, &Heirs),
    lines: &Lines<'_>,
    relay: &RelayAddress,
    token: &Token,
) -> Status {
    let locked = || lines.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let known = locked().get(relay.key()).cloned();
        let line = match known {
            Some(line) => Some(line),
            None => heirs.connect(transport, relay).await.ok().map(|link| Arc::new(Line::new(link))),
        };
        if let Some(line) = line {
            locked().insert(*relay.key(), Arc::clone(&line));
            let body = RequestBody::Token(PresentToken { token: token.clone() });
            match line.link.request(body).await {
                Ok(ResponseBody::Token(status)) => return status,
                Ok(_) => {}
                Err(_) => {
                    locked().remove(relay.key());
                }
            }
        }
        tokio::time::sleep(TOKEN_RETRY).await;
    }
}
