//! The relay's end of connections over loopback, for tests of what only that end sees.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lapwing_wire::{
    capability::{Access, ChannelBinding, Purpose, SecretKey, Subject},
    codec,
    frame::{ALPN, Prove, Request, RequestBody, Response, ResponseBody, encode_frame, frame_length},
    labels,
    limits::{FRAME_PREFIX, MAX_FRAME},
};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Context, FRAMES, STRANGERS_FRAMES, ServerOptions, connection,
    crowd::{Crowd, Prefix, Seat},
    handshake,
    pool::Pool,
};
use crate::{
    clock::{Clock, SystemClock},
    key::RelaySecret,
    limits::Limits,
    metrics::Counters,
    probe::{self, Seen},
    service::Service,
    store::{Ticket, memory::MemoryStore},
};

/// Longest that a test waits for anything: it ends only what hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Where all of it takes place.
pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) async fn within<T>(work: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}

/// Loopback, any port, and nobody is sent away for what he does not do.
pub(super) fn local() -> ServerOptions {
    let day = Duration::from_secs(24 * 3600);
    ServerOptions {
        listen: (HERE, 0).into(),
        stranger_timeout: day,
        stall_timeout: day,
        ..ServerOptions::default()
    }
}

/// A service over a store in memory, and a ticket of it.
pub(super) async fn service() -> (Arc<Service>, SecretKey<Access>) {
    let (now, mut rng) = (SystemClock.now(), rand::rng());
    let store = Arc::new(MemoryStore::new());
    let service = Service::start(store, Limits::default(), &mut rng, now).await.unwrap();
    let access = SecretKey::generate(&mut rng);
    service.issue_access(Ticket::new(access.public(), 1 << 30, 1000, None), now).await.unwrap();
    (Arc::new(service), access)
}

/// What a server's connections share, without the server.
pub(super) struct Scene {
    pub(super) context: Arc<Context>,
    pub(super) access: SecretKey<Access>,
    endpoint: Endpoint,
}

impl Scene {
    /// With so many bytes for those who move files.
    pub(super) async fn new(windows: usize) -> Self {
        let (service, access) = service().await;
        let options = local();
        let secret = RelaySecret::generate(&mut rand::rng());
        let endpoint = Endpoint::server(handshake(&options, &secret).unwrap(), options.listen).unwrap();
        let context = Arc::new(Context {
            service,
            clock: Arc::new(SystemClock),
            stall_timeout: options.stall_timeout,
            stop: CancellationToken::new(),
            crowd: Crowd::new(),
            frames: Pool::new(FRAMES),
            strangers: Pool::new(STRANGERS_FRAMES),
            windows: Pool::new(windows),
            counters: Arc::new(Counters::default()),
        });
        Self { context, access, endpoint }
    }

    /// Somebody comes: his end, and the relay's.
    pub(super) async fn come(&self) -> (Peer, Connection, Arc<Seat>) {
        let relay = self.endpoint.local_addr().unwrap();
        let accepted = async { within(self.endpoint.accept()).await.unwrap().accept().unwrap().await };
        let (peer, connection) = tokio::join!(connect(HERE, relay), accepted);
        (peer.unwrap(), connection.unwrap(), Arc::new(self.context.crowd.seat(Prefix::of(HERE))))
    }

    /// Somebody comes and is served; what serves him ends with him.
    pub(super) async fn visit(&self) -> (Peer, JoinHandle<()>) {
        let (peer, connection, seat) = self.come().await;
        let context = Arc::clone(&self.context);
        (peer, tokio::spawn(async move { connection::serve(connection, seat, &context).await }))
    }
}

/// Connects from one of this computer's own addresses.
pub(super) async fn connect(own: IpAddr, relay: SocketAddr) -> Result<Peer, ConnectionError> {
    let config = probe::config(&Arc::new(Seen::new()), ALPN).unwrap();
    let endpoint = Endpoint::client((own, 0).into()).unwrap();
    let connection = within(endpoint.connect_with(config, relay, "relay").unwrap()).await?;
    let mut binding = [0; 32];
    connection.export_keying_material(&mut binding, labels::EXPORTER, b"").unwrap();
    Ok(Peer { connection, binding: ChannelBinding::from_bytes(binding), _endpoint: endpoint })
}

/// A client's end.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) binding: ChannelBinding,
    _endpoint: Endpoint,
}

impl Peer {
    pub(super) async fn open(&self) -> Talk {
        let (requests, answers) = within(self.connection.open_bi()).await.unwrap();
        Talk { requests, answers, next: 1 }
    }

    /// The proof of a key.
    pub(super) fn proof<P: Purpose>(&self, subject: Subject, key: &SecretKey<P>) -> RequestBody {
        let signature = subject.prove(key, &self.binding);
        RequestBody::Prove(Prove { subject, signature })
    }
}

/// One stream of a client.
pub(super) struct Talk {
    pub(super) requests: SendStream,
    answers: RecvStream,
    next: u64,
}

impl Talk {
    /// Sends requests, numbered from 1 on, as one piece.
    pub(super) async fn send(&mut self, bodies: impl IntoIterator<Item = RequestBody>) {
        let mut frames = Vec::new();
        for body in bodies {
            frames.extend(encode_frame(&Request { id: self.next, body }).unwrap());
            self.next += 1;
        }
        within(self.requests.write_all(&frames)).await.unwrap();
    }

    /// The next answer, with the number of what it answers.
    pub(super) async fn receive(&mut self) -> (u64, ResponseBody) {
        let mut prefix = [0; FRAME_PREFIX];
        within(self.answers.read_exact(&mut prefix)).await.unwrap();
        let mut body = vec![0; frame_length(prefix).unwrap()];
        within(self.answers.read_exact(&mut body)).await.unwrap();
        let Response { id, body } = codec::decode(&body, MAX_FRAME).unwrap();
        (id, body)
    }

    pub(super) async fn ask(&mut self, body: RequestBody) -> ResponseBody {
        self.send([body]).await;
        self.receive().await.1
    }
}
