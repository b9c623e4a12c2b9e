//! The TLS half of a connection: which key the relay must show, and nothing else that a network could learn or use.
//!
//! Invariants: one key exchange (X25519MLKEM768), TLS 1.3 only; the relay shows a raw public key (RFC 7250) whose hash
//! is the one in its address, and signs the handshake with it; no server name, no resumption, no early data.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

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

/// TLS for one connection to the relay with this key.
///
/// A configuration is never used twice: it carries the verdict on the key, and what a relay could leave in it to
/// recognise the client by ends with it.
pub(super) fn client_config(
    provider: &Arc<CryptoProvider>,
    alpn: &[u8],
    expected: RelayKey,
) -> Result<(QuicClientConfig, Arc<Pin>), TlsError> {
    let pin = Arc::new(Pin {
        expected,
        algorithms: provider.signature_verification_algorithms,
        mismatch: AtomicBool::new(false),
    });
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

/// Accepts one key.
#[derive(Debug)]
pub(super) struct Pin {
    expected: RelayKey,
    algorithms: WebPkiSupportedAlgorithms,
    mismatch: AtomicBool,
}

impl Pin {
    /// Whether somebody showed another key.
    pub(super) fn saw_another_key(&self) -> bool {
        self.mismatch.load(Ordering::Acquire)
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
        // The hash of a public key is no secret, so an ordinary comparison does.
        if RelayKey::of_spki(end_entity) == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            self.mismatch.store(true, Ordering::Release);
            Err(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
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
