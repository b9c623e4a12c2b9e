//! Many clients, relays in process, one manual clock, a network that can be told to misbehave, and a seed.
//!
//! Everything real but the wires: the client's engine, driver and records; the relay's service over its reference
//! store; every frame encoded and decoded as on a real link. Time stands still unless a test moves it; waiting is
//! tokio's paused time. A failing test prints its seed.
//!
//! | module | what |
//! | --- | --- |
//! | [`company`] | people who know each other |
//! | [`crash`] | records that crash at a chosen commit, or fill up |
//! | [`network`] | links, and what may happen to what travels on them |
//! | [`person`] | one client with its records |
//! | [`records`] | what a person's records say of each other |
//! | [`remembered`] | a store that can be what it once was |
//! | [`relay`] | a relay whose past can be played again |
//! | [`vault`] | a vault with two compartments |

pub mod company;
pub mod crash;
pub mod network;
pub mod person;
pub mod records;
pub mod relay;
pub mod remembered;
pub mod vault;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lapwing_wire::time::Timestamp;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

pub use crash::{Crash, CrashBase};
pub use network::{Fate, Faults, Network};
pub use person::{Line, Person};
pub use relay::{Relay, RelayNumber};
pub use remembered::RememberedStore;

/// When every world begins: some day in June 2025.
const BEGINNING_MS: u64 = 1_750_000_000_000;

/// The one clock of a world.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(BEGINNING_MS)))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Moves on.
    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).expect("a span of a test");
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// Is set back.
    pub fn turn_back(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).expect("a span of a test");
        self.0.fetch_sub(ms, Ordering::Relaxed);
    }
}

/// A world.
pub struct World {
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// The clock.
    pub clock: ManualClock,
    /// The network.
    pub net: Arc<Network>,
    rng: ChaCha20Rng,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = ManualClock::new();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let net = Arc::new(Network::new(clock.clone(), ChaCha20Rng::seed_from_u64(rng.next_u64())));
        Self { seed, clock, net, rng }
    }

    /// A generator for the test itself.
    pub fn rng(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(self.rng.next_u64())
    }

    /// Starts a relay.
    pub async fn relay(&mut self) -> RelayNumber {
        let rng = self.rng();
        let number = self.net.relay_count();
        let relay = Relay::start(number, rng, self.clock.now()).await;
        self.net.add_relay(relay);
        RelayNumber(number)
    }

    /// Somebody whose client uses these relays, the first of which receives what is for new chats.
    pub fn person(&mut self, name: &str, relays: &[RelayNumber]) -> Person {
        let mut person = Person::new(self, name);
        for relay in relays {
            person.add_relay(self, *relay);
        }
        person
    }

    /// Two people with a relay each, who know each other: `(alice, bob)`, each under the other's name.
    pub async fn acquainted(&mut self) -> (Person, Person) {
        let (a, b) = (self.relay().await, self.relay().await);
        let mut alice = self.person("alice", &[a]);
        let mut bob = self.person("bob", &[b]);
        introduce(&mut alice, &mut bob).await;
        (alice, bob)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failing test tells how to repeat it")]
            {
                eprintln!("the world's seed was {}", self.seed);
            }
        }
    }
}

/// Lets two people exchange a ticket and all that follows from it.
pub async fn introduce(inviter: &mut Person, joiner: &mut Person) {
    let ticket = inviter.invite(&joiner.name.clone());
    inviter.sync().await;
    joiner.join(&ticket, &inviter.name.clone());
    calm(&mut [inviter, joiner]).await;
}

/// Everybody in turn until nobody has anything left to do.
pub async fn calm(people: &mut [&mut Person]) {
    for _ in 0..20 {
        let mut busy = false;
        for person in people.iter_mut() {
            let before = person.commits();
            person.sync().await;
            busy |= person.commits() != before;
        }
        if !busy {
            return;
        }
    }
    panic!("these people never come to rest");
}
