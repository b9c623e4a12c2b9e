//! A relay in process whose past is kept, so that it can come back as it once was.

use std::sync::Arc;

use lapwing_relay::{
    limits::Limits,
    service::Service,
    store::{Mailbox, MailboxStore, Mutation, Ticket, Totals},
};
use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    capability::{Access, PublicKey, SecretKey},
    ids::MailboxId,
    time::Timestamp,
};
use rand_chacha::ChaCha20Rng;
use tokio_util::sync::CancellationToken;

use super::RememberedStore;

/// Which relay of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayNumber(pub usize);

/// A relay.
pub struct Relay {
    /// Where it is.
    pub address: RelayAddress,
    access: SecretKey<Access>,
    limits: Limits,
    rng: ChaCha20Rng,
    store: Arc<RememberedStore>,
    service: Arc<Service>,
    /// Cancelled when this incarnation of the relay ends.
    alive: CancellationToken,
}

impl Relay {
    pub(super) async fn start(number: usize, mut rng: ChaCha20Rng, now: Timestamp) -> Self {
        let key = RelayKey::of_spki(format!("relay {number}").as_bytes());
        let address = RelayAddress::new(key, &format!("relay{number}.example"), 443).expect("an address");
        let access = SecretKey::generate(&mut rng);
        let limits = Limits::default();
        let store = Arc::new(RememberedStore::default());
        let service = serve(&store, &limits, &mut rng, now).await;
        service
            .issue_access(Ticket::new(access.public(), 1 << 32, 100_000, None), now)
            .await
            .expect("a store");
        Self { address, access, limits, rng, store, service, alive: CancellationToken::new() }
    }

    /// The text of an access ticket.
    #[must_use]
    pub fn access_ticket(&self) -> String {
        AccessTicket::new(self.address.clone(), SecretKey::from_seed(*self.access.expose_seed())).to_text()
    }

    /// The access ticket's key.
    #[must_use]
    pub fn access_key(&self) -> PublicKey<Access> {
        self.access.public()
    }

    /// The service that runs now.
    #[must_use]
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Cancelled when this incarnation ends.
    #[must_use]
    pub fn alive(&self) -> CancellationToken {
        self.alive.clone()
    }

    /// Puts other bounds in force.
    pub fn set_limits(&mut self, limits: Limits) {
        self.service.set_limits(limits.clone());
        self.limits = limits;
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// How much has happened: a point to come back to.
    #[must_use]
    pub fn moment(&self) -> usize {
        self.store.moment()
    }

    /// Runs for a while: what moves its deadlines, whatever any clock says.
    pub async fn run_for(&self, span: std::time::Duration, now: Timestamp) {
        const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
        let mut left = span;
        while !left.is_zero() {
            self.service.watch(left.min(MINUTE), now).await.expect("a store in memory");
            left = left.saturating_sub(MINUTE);
        }
    }

    /// Ends all connections and starts again with the same store.
    pub async fn restart(&mut self, now: Timestamp) {
        self.alive.cancel();
        self.alive = CancellationToken::new();
        self.service = serve(&self.store, &self.limits, &mut self.rng, now).await;
    }

    /// Starts again with the store as it was at that moment: an old backup, or malice.
    pub async fn roll_back(&mut self, moment: usize, now: Timestamp) {
        let store = Arc::new(RememberedStore::default());
        for change in self.store.past().into_iter().take(moment) {
            store.apply(change).await.expect("a store in memory");
        }
        self.store = store;
        self.restart(now).await;
    }

    /// Every envelope that was asked to be stored in a mailbox, repetitions included.
    #[must_use]
    pub fn appends(&self, mailbox: &MailboxId) -> Vec<Vec<u8>> {
        let log = self.store.log();
        let to = log.iter().filter_map(|change| match &change.mutation {
            Mutation::Append { mailbox: to, envelope, .. } if to == mailbox => Some(envelope.to_vec()),
            _ => None,
        });
        to.collect()
    }

    /// How many appends were asked of the relay, to all mailboxes.
    #[must_use]
    pub fn append_count(&self) -> usize {
        self.store.log().iter().filter(|change| matches!(change.mutation, Mutation::Append { .. })).count()
    }

    /// A mailbox, if it is there.
    pub async fn mailbox(&self, id: &MailboxId) -> Option<Mailbox> {
        self.store.mailbox(*id).await.expect("a store in memory")
    }

    /// What a relay's operator sees.
    pub async fn totals(&self, now: Timestamp) -> Totals {
        self.store.totals(now).await.expect("a store in memory")
    }
}

async fn serve(
    store: &Arc<RememberedStore>,
    limits: &Limits,
    rng: &mut ChaCha20Rng,
    now: Timestamp,
) -> Arc<Service> {
    let store: Arc<dyn MailboxStore> = Arc::<RememberedStore>::clone(store);
    Arc::new(Service::start(store, limits.clone(), rng, now).await.expect("a store in memory"))
}
