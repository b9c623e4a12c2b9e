//! Connections over loopback, for tests of what only the relay's end sees.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lapwing_wire::{
    capability::{Access, SecretKey},
    frame::ALPN,
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    DigitallySignedStruct, Error as TlsError, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::ServerOptions;
use crate::{
    clock::{Clock, SystemClock},
    key::provider,
    limits::Limits,
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

/// Connects from one of this computer's own addresses.
pub(super) async fn connect(own: IpAddr, relay: SocketAddr) -> Result<Peer, ConnectionError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client((own, 0).into()).unwrap();
    let connection = within(endpoint.connect_with(config, relay, "relay").unwrap()).await?;
    Ok(Peer { connection, _endpoint: endpoint })
}

/// A client's end.
pub(super) struct Peer {
    pub(super) connection: Connection,
    _endpoint: Endpoint,
}

/// Believes every relay.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
