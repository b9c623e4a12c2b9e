//! The QUIC transport: RFC 9000 with TLS 1.3, one connection, one socket and one port for each link, so that links to
//! one relay have nothing in common but the network address they come from.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::ChannelBinding,
    frame::ALPN,
    labels,
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime,
    TransportConfig, TransportErrorCode, VarInt,
};
use rustls::crypto::CryptoProvider;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use super::{
    dial, lineage,
    link::QuicLink,
    pin,
    transport::{ConnectError, Link, Transport},
};

/// Room for a burst in the socket, where the system grants it: a window of envelopes at a few hundred megabits.
const SOCKET_BUFFER: usize = 2 << 20;

/// Unread bytes that the relay may send on one stream: two of the largest frames.
const STREAM_WINDOW: u32 = 512 << 10;

/// Unread bytes on all streams together.
const CONNECTION_WINDOW: u32 = 2 << 20;

/// What QUIC asks for as a server name. It is checked by nobody and sent to nobody: the key is the name.
const NO_NAME: &str = "relay.invalid";

/// Knobs of the transport. The defaults are for the open internet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Protocol name that both ends must say; the operator may configure another. Default: [`ALPN`].
    pub alpn: Vec<u8>,
    /// From the name to a checked key, all addresses together. Default: 5 s, above which a person thinks that the
    /// program hangs, and which leaves room for two lost packets.
    pub connect_timeout: Duration,
    /// From the moment a request is queued to its answer. Default: 20 s: a large envelope over a throttled line.
    pub request_timeout: Duration,
    /// How often a silent connection says that it is there. Default: 20 s, below the 30 s after which home routers
    /// forget a UDP flow.
    pub keep_alive: Duration,
    /// Silence after which a connection counts as dead. Default: 45 s, two lost signs of life.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            alpn: ALPN.to_vec(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(45),
        }
    }
}

/// Links over QUIC. Needs a tokio runtime with time and I/O.
pub struct QuicTransport {
    options: Options,
    provider: Arc<CryptoProvider>,
    parameters: Arc<TransportConfig>,
}

impl QuicTransport {
    /// A transport; opens nothing yet.
    pub fn new(options: Options) -> Self {
        let idle = u32::try_from(options.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let mut parameters = TransportConfig::default();
        parameters
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(1))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(options.keep_alive))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))));
        Self { options, provider: pin::provider(), parameters: Arc::new(parameters) }
    }
}

impl Default for QuicTransport {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn connect(&self, relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError> {
        let attempt = async {
            let addresses = dial::resolve(relay.host(), relay.port()).await?;
            dial::first_that_works(addresses, |remote| {
                connect_to(
                    remote,
                    *relay.key(),
                    self.options.alpn.clone(),
                    Arc::clone(&self.provider),
                    Arc::clone(&self.parameters),
                )
            })
            .await
        };
        let (endpoint, connection, shown) =
            timeout(self.options.connect_timeout, attempt).await.unwrap_or(Err(ConnectError::Unreachable))?;
        let binding = binding_of(&connection)?;
        // Opening needs a word from nobody: the relay allows streams from the handshake on, or none at all.
        let streams = timeout(self.options.connect_timeout, connection.open_bi())
            .await
            .map_err(|_| ConnectError::Protocol)?
            .map_err(|_| ConnectError::Unreachable)?;
        let heir = (shown != *relay.key()).then_some(shown);
        let timeout = self.options.request_timeout;
        Ok(Arc::new(QuicLink::new((endpoint, connection, streams), binding, heir, timeout)))
    }
}

/// One attempt at one address.
async fn connect_to(
    remote: SocketAddr,
    expected: RelayKey,
    alpn: Vec<u8>,
    provider: Arc<CryptoProvider>,
    parameters: Arc<TransportConfig>,
) -> Result<(Endpoint, Connection, RelayKey), ConnectError> {
    // Fails only if the provider could not speak TLS 1.3 with QUIC's first cipher suite; ours does.
    let (tls, pin) = pin::client_config(&provider, &alpn).map_err(|_| ConnectError::Protocol)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(parameters);
    let socket = local_socket(remote).map_err(|_| ConnectError::Unreachable)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
        .map_err(|_| ConnectError::Unreachable)?;
    let connecting = endpoint.connect_with(config, remote, NO_NAME).map_err(|_| ConnectError::Unreachable)?;
    let connection = connecting.await.map_err(|error| why_not_connected(&error))?;
    // A handshake that is complete has shown a key, and proved it.
    let shown = pin.shown().ok_or(ConnectError::Protocol)?;
    // The hash of a public key is no secret, so an ordinary comparison does.
    if shown != expected && !lineage::is_heir(&connection, &expected, &shown).await {
        connection.close(VarInt::from_u32(0), b"");
        return Err(ConnectError::WrongKey);
    }
    Ok((endpoint, connection, shown))
}

fn local_socket(remote: SocketAddr) -> std::io::Result<UdpSocket> {
    let local: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    // A smaller buffer than wanted works too, only slower on fast networks.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&local.into())?;
    Ok(socket.into())
}

fn why_not_connected(error: &ConnectionError) -> ConnectError {
    match error {
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            ConnectError::Unreachable
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_) => ConnectError::Protocol,
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => ConnectError::Unreachable,
    }
}

/// CAP-03: what proofs on this connection are bound to.
fn binding_of(connection: &Connection) -> Result<ChannelBinding, ConnectError> {
    let mut bytes = [0; 32];
    connection
        .export_keying_material(&mut bytes, labels::EXPORTER, b"")
        .map_err(|_| ConnectError::Protocol)?;
    Ok(ChannelBinding::from_bytes(bytes))
}
