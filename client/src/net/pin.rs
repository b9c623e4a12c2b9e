//! The TLS half of a connection: which key the relay must show, and nothing else that a network could learn or use.
//!
//! Invariants: one key exchange (X25519MLKEM768), TLS 1.3 only; the relay shows a raw public key (RFC 7250) and signs the
//! handshake with it; no server name, no resumption, no early data.
//!
//! Which key that is, is looked at when the handshake is complete: a relay that has changed its key must be able to say so
//! first (`lineage`). Nothing else is said to anybody whose key is another one than the address names.

use std::sync::{Arc, OnceLock};

use lapwing_wire::address::RelayKey;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, PeerIncompatible, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
};

/// The only primitives that are offered: those of the provider, with one key exchange.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(provider)
}

/// TLS for one connection to a relay.
///
/// A configuration is never used twice: it carries the key that was shown, and what a relay could leave in it to
/// recognise the client by ends with it.
///
/// # Security
/// The handshake completes with whatever key is shown. The caller MUST compare [`Pin::shown`] with the key that it wants
/// before it hands the connection to anybody.
pub(super) fn client_config(
    provider: &Arc<CryptoProvider>,
    alpn: &[u8],
) -> Result<(QuicClientConfig, Arc<Pin>), TlsError> {
    let pin =
        Arc::new(Pin { algorithms: provider.signature_verification_algorithms, shown: OnceLock::new() });
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&pin) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    let quic = QuicClientConfig::try_from(tls).map_err(|error| TlsError::General(error.to_string()))?;
    Ok((quic, pin))
}

/// Remembers the key that was shown.
#[derive(Debug)]
pub(super) struct Pin {
    algorithms: WebPkiSupportedAlgorithms,
    shown: OnceLock<RelayKey>,
}

impl Pin {
    /// Whose key the other side showed, once the handshake has got so far. That it holds the key is known when the
    /// handshake is complete.
    pub(super) fn shown(&self) -> Option<RelayKey> {
        self.shown.get().copied()
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if !intermediates.is_empty() {
            return Err(TlsError::InvalidCertificate(CertificateError::BadEncoding));
        }
        // One handshake, one key.
        match self.shown.set(RelayKey::of_spki(end_entity)) {
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
