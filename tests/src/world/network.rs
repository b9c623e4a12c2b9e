//! Links in memory, and what may happen to what travels on them.
//!
//! A link keeps the order of requests, as one stream does; it may die at any of them, before or after the relay has
//! acted. A relay may answer late, wrongly, or not at all.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use lapwing::net::{ConnectError, Link, LinkError, Transport};
use lapwing_relay::service::{ConnectionState, Service};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::ChannelBinding,
    codec,
    frame::{Notice, Refusal, Request, RequestBody, Response, ResponseBody, decode_request, encode_frame},
    limits::{FRAME_PREFIX, MAX_FRAME},
    time::Timestamp,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::{
    ManualClock,
    relay::{Relay, RelayNumber},
};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried and answered.
    Answered,
    /// It is carried twice; the second answer counts.
    Twice,
    /// The link dies before the relay has it.
    Lost,
    /// The relay acts, then the link dies.
    ReplyLost,
    /// The relay acts, and its answer does not come in time; the link works on.
    TimedOut,
}

/// How a network misbehaves by chance, in parts of a thousand requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// See [`Fate::Twice`].
    pub twice: u32,
    /// See [`Fate::Lost`].
    pub lost: u32,
    /// See [`Fate::ReplyLost`].
    pub reply_lost: u32,
    /// See [`Fate::TimedOut`].
    pub timed_out: u32,
    /// Longest delay of an answer.
    pub delay: Duration,
}

impl Faults {
    /// A bad day: one request in ten goes wrong.
    pub const BAD: Self =
        Self { twice: 30, lost: 30, reply_lost: 30, timed_out: 10, delay: Duration::from_millis(300) };
}

/// Changes a relay's answer to a request of the client with that number.
pub type Tamper = Box<dyn FnMut(usize, &RequestBody, ResponseBody) -> ResponseBody + Send>;

/// Changes what a relay says unasked.
pub type TamperNotice = Box<dyn FnMut(usize, Notice) -> Notice + Send>;

/// Decides the fate of a request of the client with that number.
pub type Script = Box<dyn FnMut(usize, &RequestBody) -> Fate + Send>;

/// All wires of a world.
pub struct Network {
    clock: ManualClock,
    state: Mutex<State>,
}

struct State {
    rng: ChaCha20Rng,
    relays: Vec<Relay>,
    down: HashSet<usize>,
    clients: usize,
    faults: Faults,
    script: Option<Script>,
    tamper: Option<Tamper>,
    tamper_notice: Option<TamperNotice>,
    requests: HashMap<usize, u64>,
}

impl Network {
    pub(super) fn new(clock: ManualClock, rng: ChaCha20Rng) -> Self {
        let state = State {
            rng,
            relays: Vec::new(),
            down: HashSet::new(),
            clients: 0,
            faults: Faults::default(),
            script: None,
            tamper: None,
            tamper_notice: None,
            requests: HashMap::new(),
        };
        Self { clock, state: Mutex::new(state) }
    }

    pub(super) fn add_relay(&self, relay: Relay) {
        self.state().relays.push(relay);
    }

    pub(super) fn relay_count(&self) -> usize {
        self.state().relays.len()
    }

    /// The transport of one more client; the number names it in scripts.
    pub fn client(self: &Arc<Self>) -> (usize, Arc<dyn Transport>) {
        let mut state = self.state();
        let number = state.clients;
        state.clients += 1;
        (number, Arc::new(SimTransport { net: Arc::clone(self), client: number }))
    }

    /// Looks at a relay, or changes it.
    pub fn with_relay<T>(&self, relay: RelayNumber, look: impl FnOnce(&mut Relay) -> T) -> T {
        look(&mut self.state().relays[relay.0])
    }

    /// Takes a relay out, lets it be changed by something that waits, and puts it back.
    pub async fn change_relay(&self, relay: RelayNumber, change: impl AsyncFnOnce(&mut Relay, Timestamp)) {
        let rng = ChaCha20Rng::seed_from_u64(self.state().rng.next_u64());
        let now = self.clock.now();
        // Found by nobody: a relay of no world.
        let stand_in = Relay::start(usize::MAX, rng, now).await;
        let mut taken = std::mem::replace(&mut self.state().relays[relay.0], stand_in);
        change(&mut taken, now).await;
        self.state().relays[relay.0] = taken;
    }

    /// Where a relay is.
    #[must_use]
    pub fn address(&self, relay: RelayNumber) -> RelayAddress {
        self.with_relay(relay, |relay| relay.address.clone())
    }

    /// Nobody reaches this relay any more; connections end.
    pub async fn take_down(&self, relay: RelayNumber) {
        self.state().down.insert(relay.0);
        self.change_relay(relay, async |relay, now| relay.restart(now).await).await;
    }

    /// The relay is back.
    pub fn bring_back(&self, relay: RelayNumber) {
        self.state().down.remove(&relay.0);
    }

    /// From now on things go wrong this often.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// From now on the script decides each request's fate; `None` leaves it to chance.
    pub fn set_script(&self, script: Option<Script>) {
        self.state().script = script;
    }

    /// From now on answers are changed.
    pub fn set_tamper(&self, tamper: Option<Tamper>) {
        self.state().tamper = tamper;
    }

    /// From now on notices are changed.
    pub fn set_tamper_notice(&self, tamper: Option<TamperNotice>) {
        self.state().tamper_notice = tamper;
    }

    /// How many requests a client has made so far.
    #[must_use]
    pub fn requests(&self, client: usize) -> u64 {
        self.state().requests.get(&client).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, client: usize, body: &RequestBody) -> (Fate, Duration) {
        let mut state = self.state();
        *state.requests.entry(client).or_default() += 1;
        let longest = u64::try_from(state.faults.delay.as_millis()).unwrap_or(u64::MAX);
        let delay = if longest == 0 { 0 } else { state.rng.next_u64() % (longest + 1) };
        let delay = Duration::from_millis(delay);
        if let Some(script) = &mut state.script {
            return (script(client, body), delay);
        }
        let Faults { twice, lost, reply_lost, timed_out, delay: _ } = state.faults;
        let drawn = state.rng.next_u32() % 1000;
        let fates = [
            (twice, Fate::Twice),
            (lost, Fate::Lost),
            (reply_lost, Fate::ReplyLost),
            (timed_out, Fate::TimedOut),
        ];
        let mut bound = 0;
        for (chance, fate) in fates {
            bound += chance;
            if drawn < bound {
                return (fate, delay);
            }
        }
        (Fate::Answered, delay)
    }
}

struct SimTransport {
    net: Arc<Network>,
    client: usize,
}

#[async_trait]
impl Transport for SimTransport {
    async fn connect(&self, relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError> {
        let found = {
            let state = self.net.state();
            let found = state.relays.iter().position(|known| is_at(known, relay.key()));
            found.filter(|number| !state.down.contains(number))
        };
        let Some(number) = found else {
            // Nothing says that nobody is there.
            tokio::time::sleep(CONNECT).await;
            return Err(ConnectError::Unreachable);
        };
        let mut state = self.net.state();
        let mut binding = [0; 32];
        state.rng.fill_bytes(&mut binding);
        let binding = ChannelBinding::from_bytes(binding);
        let there = &state.relays[number];
        let service = there.service();
        let link = SimLink {
            net: Arc::clone(&self.net),
            client: self.client,
            connection: service.connect(binding),
            service,
            dead: there.alive().child_token(),
        };
        Ok(Arc::new(link))
    }
}

fn is_at(relay: &Relay, key: &RelayKey) -> bool {
    relay.address.key() == key
}

/// How long a client waits for a link.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

struct SimLink {
    net: Arc<Network>,
    client: usize,
    service: Arc<Service>,
    connection: ConnectionState,
    dead: CancellationToken,
}

impl SimLink {
    /// What the relay makes of the bytes of a request, and the client of the bytes of its answer.
    async fn carry(&self, frame: &[u8]) -> Result<ResponseBody, LinkError> {
        let now = self.net.clock.now();
        let (id, body) = match decode_request(&frame[FRAME_PREFIX..]) {
            Ok(Ok(Request { id, body })) => (id, self.service.handle(&self.connection, body, now).await),
            Ok(Err(id)) => (id, ResponseBody::Refused(Refusal::Unsupported)),
            Err(_) => return Err(LinkError::Closed),
        };
        let answer = encode_frame(&Response { id, body }).expect("an answer fits");
        let answer: Response =
            codec::decode(&answer[FRAME_PREFIX..], MAX_FRAME).map_err(|_| LinkError::Malformed)?;
        Ok(answer.body)
    }
}

#[async_trait]
impl Link for SimLink {
    fn binding(&self) -> ChannelBinding {
        *self.connection.binding()
    }

    async fn request(&self, body: RequestBody) -> Result<ResponseBody, LinkError> {
        if self.dead.is_cancelled() {
            return Err(LinkError::Closed);
        }
        let frame = encode_frame(&Request { id: 1, body: body.clone() }).map_err(|_| LinkError::TooLarge)?;
        let (fate, delay) = self.net.fate(self.client, &body);
        if fate == Fate::Lost {
            self.dead.cancel();
            return Err(LinkError::Closed);
        }
        let mut answer = self.carry(&frame).await?;
        if fate == Fate::Twice {
            answer = self.carry(&frame).await?;
        }
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        match fate {
            Fate::ReplyLost => {
                self.dead.cancel();
                return Err(LinkError::Closed);
            }
            Fate::TimedOut => {
                tokio::time::sleep(PATIENCE).await;
                return Err(LinkError::Timeout);
            }
            Fate::Answered | Fate::Twice | Fate::Lost => {}
        }
        if self.dead.is_cancelled() {
            return Err(LinkError::Closed);
        }
        let mut state = self.net.state();
        Ok(match &mut state.tamper {
            Some(tamper) => tamper(self.client, &body, answer),
            None => answer,
        })
    }

    async fn notice(&self) -> Result<Notice, LinkError> {
        let notice = tokio::select! {
            biased;
            () = self.dead.cancelled() => return Err(LinkError::Closed),
            notice = self.service.next_notice(&self.connection) => notice,
        };
        let mut state = self.net.state();
        Ok(match &mut state.tamper_notice {
            Some(tamper) => tamper(self.client, notice),
            None => notice,
        })
    }

    fn close(&self) {
        self.dead.cancel();
    }
}
