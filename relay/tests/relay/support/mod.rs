//! A small client over real QUIC, and real relay processes.

pub mod client;
pub mod process;

use lapwing_relay::{
    clock::Clock,
    key::RelaySecret,
    limits::Limits,
    server::{Server, ServerOptions},
    service::Service,
    store::{
        MailboxStore, Ticket,
        memory::MemoryStore,
        {StoreOptions, fjall::FjallStore},
    },
};
use lapwing_wire::{
    capability::{Access, Admin, ChannelBinding, PublicKey, Read, SecretKey, Write},
    frame::{Create, MailboxKind},
    ids::MailboxId,
    time::Timestamp,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use client::Client;

/// Longest that any test waits for anything: far beyond what a loaded machine needs, so that it ends only what hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// A clock that stands still.
pub struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn steady(&self) -> Duration {
        Duration::ZERO
    }
}

/// A relay in this process.
pub struct Relay {
    pub service: Arc<Service>,
    pub server: Server,
    pub access: SecretKey<Access>,
    pub address: SocketAddr,
    _dir: Option<tempfile::TempDir>,
}

impl Relay {
    /// Over a real store on disk.
    pub async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    /// Over a real store on disk, with other limits.
    pub async fn start_with(limits: Limits) -> Self {
        Self::on_disk(limits, local()).await
    }

    /// Over a real store on disk, with other options.
    pub async fn start_on(options: ServerOptions) -> Self {
        Self::on_disk(Limits::default(), options).await
    }

    async fn on_disk(limits: Limits, options: ServerOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallStore::open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        Self::over(Arc::new(store), limits, options, Some(dir)).await
    }

    /// Over a store in memory, with other options.
    pub async fn in_memory(limits: Limits, options: ServerOptions) -> Self {
        Self::over(Arc::new(MemoryStore::new()), limits, options, None).await
    }

    pub async fn over(
        store: Arc<dyn MailboxStore>,
        limits: Limits,
        options: ServerOptions,
        dir: Option<tempfile::TempDir>,
    ) -> Self {
        let mut rng = rand::rng();
        let service = Arc::new(Service::start(store, limits, &mut rng, NOW).await.unwrap());
        let secret = RelaySecret::generate(&mut rng);
        let server = Server::start(&options, &secret, Arc::clone(&service), Arc::new(StillClock)).unwrap();
        let access = SecretKey::generate(&mut rng);
        let ticket = Ticket::new(access.public(), 1 << 30, 1000, None);
        service.issue_access(ticket, NOW).await.unwrap();
        let address = server.address();
        Self { service, server, access, address, _dir: dir }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address, &self.server.key()).await.unwrap()
    }

    pub async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.server.shutdown(&self.service)).await.unwrap();
    }
}

/// Loopback, any port.
pub fn local() -> ServerOptions {
    ServerOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerOptions::default() }
}

/// The keys of one mailbox.
pub struct Keys {
    pub admin: SecretKey<Admin>,
    pub read: SecretKey<Read>,
    pub write: SecretKey<Write>,
}

impl Keys {
    pub fn new() -> Self {
        let mut rng = rand::rng();
        Self {
            admin: SecretKey::generate(&mut rng),
            read: SecretKey::generate(&mut rng),
            write: SecretKey::generate(&mut rng),
        }
    }

    /// From one byte: the same in another process.
    pub fn of_byte(byte: u8) -> Self {
        Self {
            admin: SecretKey::from_seed([byte; 32]),
            read: SecretKey::from_seed([byte ^ 0x40; 32]),
            write: SecretKey::from_seed([byte ^ 0x80; 32]),
        }
    }

    pub fn id(&self) -> MailboxId {
        MailboxId::of_admin(&self.admin.public())
    }

    pub fn create(
        &self,
        kind: MailboxKind,
        access: Option<PublicKey<Access>>,
        binding: &ChannelBinding,
    ) -> Create {
        Create::signed(&self.admin, self.read.public(), self.write.public(), kind, access, binding)
    }
}

/// An envelope of the smallest size, told from others by a number.
pub fn envelope(number: u64) -> Vec<u8> {
    let mut bytes = vec![0xa5; 1024];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}
