//! The QUIC transport against a relay of this test's own: raw public key, loopback, and as much bad faith as wanted.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as it must be"
)]

mod endings;
mod requests;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing::net::{ConnectError, Link, LinkError, Options, QuicTransport, Transport};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    codec,
    frame::{
        ALPN, Append, BlobGet, BlobPart, Notice, Request, RequestBody, Response, ResponseBody, Seq, Window,
        encode_frame,
    },
    ids::{BlobHash, MailboxId},
    labels,
    limits::{MAX_FRAME, MAX_IN_FLIGHT},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, crypto::rustls::QuicServerConfig};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
};
use serde_bytes::ByteBuf;
use tokio::task::JoinSet;

/// RFC 8410 section 7: everything of an Ed25519 private key before its 32 bytes.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Nothing here takes this long; a test that waits for it has failed.
const LONG: Duration = Duration::from_secs(30);

/// A relay that does what its test says with each connection; it ends when dropped.
struct TestRelay {
    endpoint: Endpoint,
    key: RelayKey,
    port: u16,
    _tasks: JoinSet<()>,
}

impl TestRelay {
    fn start<F>(serve: impl Fn(Connection) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with_tls(|tls| tls.alpn_protocols = vec![ALPN.to_vec()], serve)
    }

    fn with_tls<F>(
        change: impl FnOnce(&mut rustls::ServerConfig),
        serve: impl Fn(Connection) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut der = PKCS8_ED25519.to_vec();
        der.extend_from_slice(&[7; 32]);
        let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap();
        let spki = signer.public_key().unwrap();
        let key = RelayKey::of_spki(&spki);
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], signer);
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
        change(&mut tls);
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let mut parameters = quinn::TransportConfig::default();
        // Little is held for a client that does not read, so that back pressure shows.
        parameters.send_window(256 << 10).stream_receive_window((128u32 << 10).into());
        config.transport_config(Arc::new(parameters));
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        let accepting = endpoint.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(incoming) = accepting.accept().await {
                if let Ok(connection) = incoming.await {
                    connections.spawn(serve(connection));
                }
            }
        });
        Self { endpoint, key, port, _tasks: tasks }
    }

    fn address(&self) -> RelayAddress {
        RelayAddress::new(self.key, "127.0.0.1", self.port).unwrap()
    }

    async fn link(&self) -> Arc<dyn Link> {
        self.link_with(Options::default()).await
    }

    async fn link_with(&self, options: Options) -> Arc<dyn Link> {
        QuicTransport::new(options).connect(&self.address()).await.unwrap()
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"");
    }
}

fn quick() -> Options {
    let mut options = Options::default();
    options.connect_timeout = Duration::from_millis(800);
    options.request_timeout = Duration::from_millis(300);
    options
}

async fn read_request(stream: &mut RecvStream) -> Option<Request> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.ok()?;
    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(prefix)).unwrap()];
    stream.read_exact(&mut frame).await.ok()?;
    Some(codec::decode(&frame, MAX_FRAME).unwrap())
}

/// The answer that tells which request it belongs to: a blob part whose length is the offset asked for.
fn answer_to(request: &Request) -> Response {
    let RequestBody::BlobGet(BlobGet { offset, .. }) = &request.body else {
        panic!("not asked by these tests")
    };
    Response { id: request.id, body: part(*offset) }
}

fn part(n: u64) -> ResponseBody {
    ResponseBody::BlobPart(BlobPart { total: n, bytes: ByteBuf::new() })
}

fn ask(n: u64) -> RequestBody {
    RequestBody::BlobGet(BlobGet { hash: BlobHash::of(b""), offset: n })
}

fn notice(n: u64) -> Notice {
    Notice::Window(Window { mailbox: MailboxId::from_bytes([1; 32]), newest: Seq::new(n), items: vec![] })
}

async fn send<T: serde::Serialize>(stream: &mut SendStream, value: &T) {
    stream.write_all(&encode_frame(value).unwrap()).await.unwrap();
}

async fn echo(connection: Connection) {
    let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
    while let Some(request) = read_request(&mut rx).await {
        if tx.write_all(&encode_frame(&answer_to(&request)).unwrap()).await.is_err() {
            return;
        }
    }
    let _ = tx.finish();
    connection.closed().await;
}
