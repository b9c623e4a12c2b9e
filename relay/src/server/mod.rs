//! QUIC (RFC 9000) around a [`Service`].
//!
//! Every task hangs on a handle: dropping [`Server`] ends them, [`Server::shutdown`] drains first.

mod connection;
mod crowd;
mod exchange;
mod frames;
#[cfg(test)]
mod places;
mod pool;
mod reset;
#[cfg(test)]
mod scene;
mod upkeep;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing_wire::{address::RelayKey, frame};
use quinn::{
    Endpoint, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt, congestion::CubicConfig,
    crypto::rustls::QuicServerConfig,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crowd::{Crowd, Place, Prefix, STRANGER, Seat};
use pool::Pool;
use reset::Resets;

use crate::{
    clock::Clock,
    key::{KeyError, RelaySecret},
    metrics::Counters,
    service::Service,
};

/// How long streams may take to finish what they hold when the relay stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a handshake may take; a handshake holds some 20 KiB.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Unread bytes of one stream that a client may send ahead: two of the largest frames.
const STREAM_WINDOW: u32 = 512 << 10;
/// Between two looks at whether it is crowded; what may be closed is closed this much later at most.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that the relay sends ahead before it knows what the line carries, spread over a round trip: half of what one window of
/// envelopes has at most. Who comes back finds a full mailbox, often over a line with long delay and loss, where the
/// transport's own 14 KiB take four round trips to grow and shrink at every loss. Twice as much saves one more round trip
/// (measured; `docs/performance.md`) and would overrun slow lines: a buffer of 64 KiB is usual there.
const FIRST_WINDOW: u64 = 64 << 10;
/// Bytes of all connections together: large frames from their beginning until they are answered, and large answers until they are
/// written. Beyond it, streams with such frames wait, as long as they may take to be whole.
const FRAMES: usize = 128 << 20;
/// The same of those who have proved nothing, and need no large frame but to hear why it is refused.
const STRANGERS_FRAMES: usize = 16 << 20;
/// Bytes that those who move files may send ahead, or the relay to them, all together. Beyond it files move at the pace of messages.
const WINDOWS: usize = 192 << 20;
/// One in so many of all connections may be one that has proved nothing; above, new ones are refused, first those from networks that
/// have many of them.
const STRANGERS: usize = 8;
/// Strangers that a small relay takes all the same.
const MIN_STRANGERS: usize = 64;

/// How a server listens. Each bound is one connection's or the whole server's, with what happens at it.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address and port; port 0 takes a free one. `[::]` listens for IPv4 too.
    pub listen: SocketAddr,
    /// Name of the protocol in the handshake.
    pub alpn: Vec<u8>,
    /// Connections at a time (some 50 KiB each when idle); above, new ones are refused. Of an eighth of them, or 64, may
    /// those be that have proved nothing.
    pub max_connections: usize,
    /// Connections and handshakes at a time from one network (an IPv4 address, an IPv6 /56); above, new ones are refused.
    /// All users behind one proxy, provider's translator or onion service count as one network.
    pub connections_per_network: usize,
    /// Above three quarters of `max_connections`, connections that have proved nothing and asked nothing for this long
    /// are closed, oldest first.
    pub stranger_timeout: Duration,
    /// Handshakes at a time above which an address must prove that it receives (RFC 9000 section 8.1.2).
    pub retry_above: usize,
    /// Silence after which a connection is dead.
    pub idle_timeout: Duration,
    /// Silence after which the relay sends a packet, so that address translators keep the path.
    pub keep_alive: Duration,
    /// How long a client may take to accept one answer or to complete one frame; then its connection ends.
    pub stall_timeout: Duration,
    /// Bytes of each UDP socket buffer that are asked for; the system may grant less.
    pub socket_buffer: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 4433)),
            alpn: frame::ALPN.to_vec(),
            max_connections: 8192,
            connections_per_network: 512,
            stranger_timeout: Duration::from_secs(30),
            retry_above: 64,
            idle_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(30),
            socket_buffer: 8 << 20,
        }
    }
}

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is taken, not of this host, or needs rights that this process lacks.
    #[error("cannot listen on the configured address: {0}")]
    Listen(#[source] std::io::Error),
    /// The key or the TLS configuration.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A timeout that QUIC cannot express.
    #[error("the idle timeout is too long")]
    IdleTimeout,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    key: Mutex<RelayKey>,
    resets: Arc<Resets>,
    options: ServerOptions,
    endpoint: Endpoint,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    counters: Arc<Counters>,
    socket_buffers: (usize, usize),
}

/// What connections share.
struct Context {
    service: Arc<Service>,
    clock: Arc<dyn Clock>,
    stall_timeout: Duration,
    stop: CancellationToken,
    crowd: Arc<Crowd>,
    frames: Arc<Pool>,
    strangers: Arc<Pool>,
    windows: Arc<Pool>,
    counters: Arc<Counters>,
}

impl Server {
    /// Listens and serves until dropped or shut down. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(
        options: &ServerOptions,
        secret: &RelaySecret,
        service: Arc<Service>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServerError> {
        let key = Mutex::new(secret.public()?);
        let config = handshake(options, secret)?;
        let socket = bind(options).map_err(ServerError::Listen)?;
        let granted = socket2::SockRef::from(&socket);
        // Linux tells twice what it grants: half of it is for its own records (socket(7)).
        let told = if cfg!(target_os = "linux") { 2 } else { 1 };
        let socket_buffers = (
            granted.recv_buffer_size().unwrap_or_default() / told,
            granted.send_buffer_size().unwrap_or_default() / told,
        );
        let resets = Resets::of(secret)?;
        let endpoint = Endpoint::new(resets.endpoint(), Some(config), socket, Arc::new(TokioRuntime))
            .map_err(ServerError::Listen)?;
        let address = endpoint.local_addr().map_err(ServerError::Listen)?;
        let stop = CancellationToken::new();
        let counters = Arc::new(Counters::default());
        let context = Arc::new(Context {
            service: Arc::clone(&service),
            clock: Arc::clone(&clock),
            stall_timeout: options.stall_timeout,
            stop: stop.clone(),
            crowd: Crowd::new(),
            frames: Pool::new(FRAMES),
            strangers: Pool::new(STRANGERS_FRAMES),
            windows: Pool::new(WINDOWS),
            counters: Arc::clone(&counters),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(endpoint.clone(), context, options.clone()));
        tasks.spawn(upkeep::watch(Arc::clone(&service), Arc::clone(&clock), stop.clone()));
        tasks.spawn(upkeep::forget(Arc::clone(&service), Arc::clone(&clock), stop.clone()));
        tasks.spawn(upkeep::sweep(service, clock, stop.clone()));
        let options = options.clone();
        Ok(Self { address, key, resets, options, endpoint, stop, tasks, counters, socket_buffers })
    }

    /// Where it listens, with the port that was taken.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key that it shows.
    pub fn key(&self) -> RelayKey {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows another key from the next handshake on. Connections that are open go on: they proved the old one while it
    /// was the relay's. The next life of the relay knows those that begin from now on, as it has this key.
    ///
    /// # Errors
    /// [`ServerError`]; then the key is as it was.
    pub fn set_key(&self, secret: &RelaySecret) -> Result<(), ServerError> {
        let (key, config) = (secret.public()?, handshake(&self.options, secret)?);
        self.endpoint.set_server_config(Some(config));
        self.resets.set_key(secret);
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Bytes that the system granted for receiving and for sending.
    pub const fn socket_buffers(&self) -> (usize, usize) {
        self.socket_buffers
    }

    /// Takes nothing new, answers what came, closes connections and the store.
    pub async fn shutdown(mut self, service: &Service) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        service.shutdown().await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server(..)")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What every handshake is made with.
fn handshake(options: &ServerOptions, secret: &RelaySecret) -> Result<ServerConfig, ServerError> {
    let tls = secret.tls(&options.alpn)?;
    let quic = QuicServerConfig::try_from(tls).map_err(|_| KeyError::Refused)?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(Arc::new(transport(options)?));
    Ok(config)
}

fn transport(options: &ServerOptions) -> Result<TransportConfig, ServerError> {
    let mut transport = TransportConfig::default();
    let idle = options.idle_timeout.try_into().map_err(|_| ServerError::IdleTimeout)?;
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(options.keep_alive))
        .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STRANGER.receive))
        .send_window(u64::from(STRANGER.send))
        .datagram_receive_buffer_size(None);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(FIRST_WINDOW);
    transport.congestion_controller_factory(Arc::new(congestion));
    Ok(transport)
}

/// Whether a server could listen with these options.
///
/// # Errors
/// What the system says.
pub fn try_bind(options: &ServerOptions) -> std::io::Result<()> {
    bind(options).map(|_| ())
}

fn bind(options: &ServerOptions) -> std::io::Result<UdpSocket> {
    match socket(options.listen, options.socket_buffer) {
        // A host without IPv6.
        Err(_) if options.listen.is_ipv6() && options.listen.ip().is_unspecified() => {
            socket((Ipv4Addr::UNSPECIFIED, options.listen.port()).into(), options.socket_buffer)
        }
        other => other,
    }
}

fn socket(address: SocketAddr, buffer: usize) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Small buffers drop packets in bursts. The system grants what its limits allow; `status` shows it.
    socket.set_recv_buffer_size(buffer).ok();
    socket.set_send_buffer_size(buffer).ok();
    socket.bind(&address.into())?;
    Ok(socket.into())
}

async fn accept(endpoint: Endpoint, context: Arc<Context>, options: ServerOptions) {
    let counters = Arc::clone(&context.counters);
    let mut connections = JoinSet::new();
    let crowded = options.max_connections - options.max_connections / 4;
    let places = (options.max_connections / STRANGERS).max(MIN_STRANGERS);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => break,
            // Ends first: their number is what the next decision looks at.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = look.tick() => {
                context.crowd.make_room(connections.len().saturating_sub(crowded), options.stranger_timeout);
                context.crowd.make_place(places, options.stranger_timeout);
            }
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                let prefix = Prefix::of(incoming.remote_address().ip());
                let near = context.crowd.from(prefix);
                let place = context.crowd.place(prefix, places);
                let is_validated = incoming.remote_address_validated();
                if connections.len() >= options.max_connections {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                    incoming.refuse();
                } else if !is_validated
                    // Who only pretends to be of a network takes half of its seats at most, and half of its places.
                    && (place != Place::Free
                        || near >= options.connections_per_network / 2
                        || counters.handshakes.load(Ordering::Relaxed) >= options.retry_above)
                {
                    // Fails only for an address that is already validated.
                    counters.retried.fetch_add(1, Ordering::Relaxed);
                    incoming.retry().ok();
                } else if near >= options.connections_per_network || place == Place::Taken {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                    context.crowd.want(prefix);
                    incoming.refuse();
                } else {
                    let seat = Arc::new(context.crowd.seat(prefix));
                    // Counted here: a burst is decided on before any of its tasks runs.
                    let handshake = Handshake::new(&counters);
                    connections.spawn(welcome(incoming, seat, handshake, Arc::clone(&context)));
                }
            }
        }
    }
    while connections.join_next().await.is_some() {}
    endpoint.close(connection::STOPPED, b"");
    tokio::time::timeout(DRAIN, endpoint.wait_idle()).await.ok();
}

async fn welcome(incoming: Incoming, seat: Arc<Seat>, handshake: Handshake, context: Arc<Context>) {
    let counters = &context.counters;
    let connection = match incoming.accept() {
        Ok(connecting) => tokio::time::timeout(HANDSHAKE, connecting).await,
        Err(_) => return,
    };
    drop(handshake);
    let Ok(Ok(connection)) = connection else { return };
    let _open = Count::new(&counters.connections);
    counters.accepted.fetch_add(1, Ordering::Relaxed);
    connection::serve(connection, seat, &context).await;
}

/// A handshake that is under way, for as long as it lives.
struct Handshake(Arc<Counters>);

impl Handshake {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one for as long as it lives.
struct Count<'a>(&'a AtomicUsize);

impl<'a> Count<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
