//! One handshake with a relay, to see whether it can be reached and which key it shows.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use lapwing_wire::address::RelayKey;
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, PeerIncompatible, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
};

use crate::key::provider;

/// As long as a client of people waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The key that a relay shows and proves at this address; `None` if nobody answers who speaks the protocol.
pub async fn shown(address: SocketAddr, alpn: &[u8]) -> Option<RelayKey> {
    let seen = Arc::new(Seen::new());
    let config = config(&seen, alpn)?;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local).ok()?;
    let connecting = endpoint.connect_with(config, address, "relay.invalid").ok()?;
    let connection = tokio::time::timeout(PATIENCE, connecting).await.ok()?.ok()?;
    connection.close(0u32.into(), b"");
    tokio::time::timeout(PATIENCE, endpoint.wait_idle()).await.ok();
    seen.key.get().copied()
}

/// A client that takes whoever answers, and remembers the key in `seen`.
pub(crate) fn config(seen: &Arc<Seen>, alpn: &[u8]) -> Option<ClientConfig> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    Some(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).ok()?)))
}

/// Takes any key and remembers it: nothing is said to whoever shows it.
#[derive(Debug)]
pub(crate) struct Seen {
    algorithms: WebPkiSupportedAlgorithms,
    key: OnceLock<RelayKey>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self { algorithms: provider().signature_verification_algorithms, key: OnceLock::new() }
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.key.set(RelayKey::of_spki(end_entity)) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(_) => Err(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
