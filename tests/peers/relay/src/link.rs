//! A client of our relay: as little as the wire protocol needs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lapwing_wire::{
    address::RelayKey,
    capability::{
        Access, Admin, ChannelBinding, Purpose, Read as ReadRight, Right, SecretKey, Subject, Write,
    },
    codec,
    frame::*,
    ids::MailboxId,
    labels,
    limits::{FRAME_PREFIX, MAX_FRAME},
};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
};
use serde_bytes::ByteBuf;

/// Accepts one key, as every client does.
#[derive(Debug)]
struct Pinned(RelayKey);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if RelayKey::of_spki(shown) == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another key".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(shown.as_ref()),
            signed,
            &aws_lc_rs::default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The key exchange of every connection to a relay.
pub const HYBRID: &dyn SupportedKxGroup = aws_lc_rs::kx_group::X25519MLKEM768;

/// The library's own primitives, with one key exchange.
pub fn provider(exchange: &'static dyn SupportedKxGroup) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![exchange];
    Arc::new(provider)
}

/// A client's settings of QUIC and TLS, for servers with this key.
pub fn client_config(key: &RelayKey, exchange: &'static dyn SupportedKxGroup) -> ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider(exchange))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(*key)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    // The windows of the real client.
    transport
        .stream_receive_window(VarInt::from_u32(512 << 10))
        .receive_window(VarInt::from_u32(2 << 20))
        .keep_alive_interval(Some(Duration::from_secs(20)));
    config.transport_config(Arc::new(transport));
    config
}

/// A socket of one's own, as every client has.
pub fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let wide = socket2::SockRef::from(&socket);
    wide.set_recv_buffer_size(1 << 20).unwrap();
    wide.set_send_buffer_size(1 << 20).unwrap();
    let config = quinn::EndpointConfig::default();
    Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

/// The keys of one mailbox.
pub struct Keys {
    admin: SecretKey<Admin>,
    read: SecretKey<ReadRight>,
    write: SecretKey<Write>,
}

impl Keys {
    /// New ones.
    pub fn generate() -> Self {
        let mut rng = rand::rng();
        Self {
            admin: SecretKey::generate(&mut rng),
            read: SecretKey::generate(&mut rng),
            write: SecretKey::generate(&mut rng),
        }
    }

    /// The mailbox's name.
    pub fn id(&self) -> MailboxId {
        MailboxId::of_admin(&self.admin.public())
    }
}

/// One connection with one stream of requests.
pub struct Link {
    /// The connection.
    pub connection: Connection,
    binding: ChannelBinding,
    /// Where requests go.
    pub requests: SendStream,
    /// Where answers come from.
    pub answers: Frames,
    next: u64,
    _endpoint: Endpoint,
}

impl Link {
    /// Connects from a socket.
    pub async fn connect(endpoint: Endpoint, config: ClientConfig, server: SocketAddr) -> Self {
        let connection = endpoint.connect_with(config, server, "relay").unwrap().await.unwrap();
        let mut exported = [0; 32];
        connection.export_keying_material(&mut exported, labels::EXPORTER, b"").unwrap();
        let (requests, answers) = connection.open_bi().await.unwrap();
        let binding = ChannelBinding::from_bytes(exported);
        Self { connection, binding, requests, answers: Frames::new(answers), next: 1, _endpoint: endpoint }
    }

    /// The bytes of a request, and its number.
    pub fn encode(&mut self, body: RequestBody) -> (u64, Vec<u8>) {
        let id = self.next;
        self.next += 1;
        (id, encode(id, body))
    }

    /// One request and its answer.
    pub async fn ask(&mut self, body: RequestBody) -> ResponseBody {
        let (id, frame) = self.encode(body);
        self.requests.write_all(&frame).await.unwrap();
        let response: Response = self.answers.next().await;
        assert_eq!(response.id, id);
        response.body
    }

    /// Proves a right.
    pub async fn prove<P: Purpose>(&mut self, subject: Subject, key: &SecretKey<P>) {
        let signature = subject.prove(key, &self.binding);
        let answer = self.ask(RequestBody::Prove(Prove { subject, signature })).await;
        assert_eq!(answer, ResponseBody::Done);
    }

    /// Creates a queue.
    pub async fn create(&mut self, keys: &Keys, access: &SecretKey<Access>) {
        self.prove(Subject::Access(access.public()), access).await;
        let create = Create::signed(
            &keys.admin,
            keys.read.public(),
            keys.write.public(),
            MailboxKind::Queue,
            Some(access.public()),
            &self.binding,
        );
        assert_eq!(self.ask(RequestBody::Create(create)).await, ResponseBody::Done);
    }

    /// Proves the right to append.
    pub async fn writes(&mut self, keys: &Keys) {
        self.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    }

    /// Proves the right to read.
    pub async fn reads(&mut self, keys: &Keys) {
        self.prove(Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
    }

    /// Subscribes from the beginning. The first window.
    pub async fn subscribe(&mut self, keys: &Keys) -> Window {
        let read = Read { mailbox: keys.id(), after: Seq::START, count: 128 };
        match self.ask(RequestBody::Subscribe(read)).await {
            ResponseBody::Window(window) => window,
            other => panic!("a window, not {other:?}"),
        }
    }

    /// The stream of notices; there is one once there is something to say.
    pub async fn notices(&self) -> Frames {
        Frames::new(self.connection.accept_uni().await.unwrap())
    }
}

/// The bytes of a request.
pub fn encode(id: u64, body: RequestBody) -> Vec<u8> {
    encode_frame(&Request { id, body }).unwrap()
}

/// An append.
pub fn append(mailbox: MailboxId, envelope: Vec<u8>) -> RequestBody {
    RequestBody::Append(Append { mailbox, envelope: ByteBuf::from(envelope) })
}

/// Frames out of a stream.
pub struct Frames {
    stream: RecvStream,
    buffer: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Of a stream.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), taken: 0 }
    }

    /// What is here already, if it is a whole frame.
    pub fn ready<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        self.ready_bytes().map(|frame| codec::decode(frame, MAX_FRAME).unwrap())
    }

    /// The same, as it came.
    pub fn ready_bytes(&mut self) -> Option<&[u8]> {
        let rest = &self.buffer[self.taken..];
        let (prefix, body) = rest.split_first_chunk::<FRAME_PREFIX>()?;
        let frame = body.get(..frame_length(*prefix).unwrap())?;
        self.taken += FRAME_PREFIX + frame.len();
        Some(frame)
    }

    /// The next frame.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> T {
        loop {
            if let Some(value) = self.ready() {
                return value;
            }
            assert!(self.fill().await, "the stream ended");
        }
    }

    /// Waits for more bytes. Whether some came: else the stream has ended, or its connection is gone.
    pub async fn fill(&mut self) -> bool {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let Ok(Some(chunk)) = self.stream.read_chunk(64 << 10, true).await else { return false };
        self.buffer.extend_from_slice(&chunk.bytes);
        true
    }
}
