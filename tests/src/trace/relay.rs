//! A relay for people who are real processes, whose running time the test moves, and which can be what it once was.
//!
//! Server and service are the program's own, over QUIC on a port of loopback that stays the same. The store is the reference
//! store in memory: it goes back to a moment without any file being copied. Deadlines, which are ten minutes and more, come
//! when the test says so.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lapwing_relay::{
    clock::{Clock, SystemClock},
    key::RelaySecret,
    limits::Limits,
    server::{Server, ServerOptions},
    service::Service,
    store::{MailboxStore, Ticket},
};
use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    capability::{Access, SecretKey},
    time::Timestamp,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::runtime::{Builder, Runtime};

use crate::world::RememberedStore;

/// Longest step of the running time that counts whole.
const STEP: Duration = Duration::from_secs(60);

/// A relay that goes on while the thread of the test waits for a process.
pub struct ClockedRelay {
    /// An access ticket, as it is typed.
    pub access: String,
    store: Arc<RememberedStore>,
    service: Arc<Service>,
    // Before the runtime, in which it ends.
    _server: Server,
    runtime: Runtime,
}

impl ClockedRelay {
    /// Listens on a port that is free.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let mut rng = ChaCha20Rng::from_os_rng();
        let store = Arc::new(RememberedStore::default());
        let kept: Arc<dyn MailboxStore> = Arc::<RememberedStore>::clone(&store);
        let service = runtime.block_on(Service::start(kept, Limits::default(), &mut rng, now()));
        let service = Arc::new(service.expect("a store in memory"));
        let options =
            ServerOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerOptions::default() };
        let secret = RelaySecret::generate(&mut rng);
        let server = Server::start(&options, &secret, Arc::clone(&service), Arc::new(SystemClock));
        let server = server.expect("a free port");
        let address = RelayAddress::new(server.key(), "127.0.0.1", server.address().port());
        let key = SecretKey::<Access>::generate(&mut rng);
        let ticket = Ticket::new(key.public(), 1 << 32, 100_000, None);
        runtime.block_on(service.issue_access(ticket, now())).expect("a store in memory");
        let access = AccessTicket::new(address.expect("an address"), key).to_text();
        Self { access, store, service, _server: server, runtime }
    }

    /// How much was asked of it: a point to come back to.
    #[must_use]
    pub fn moment(&self) -> usize {
        self.store.moment()
    }

    /// Is from now on what it was at that moment.
    pub fn go_back(&self, moment: usize) {
        self.runtime.block_on(self.store.go_back(moment));
    }

    /// Runs for so long, at once.
    ///
    /// # Panics
    /// The store refuses.
    pub fn run_for(&self, span: Duration) {
        let mut left = span;
        while !left.is_zero() {
            let watched = self.runtime.block_on(self.service.watch(left.min(STEP), now()));
            watched.expect("a store in memory");
            left = left.saturating_sub(STEP);
        }
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}
