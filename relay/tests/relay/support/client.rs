//! The client's side of the wire, as small as it can be.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lapwing_wire::{
    address::RelayKey,
    capability::{Access, ChannelBinding, Purpose, Right, SecretKey, Subject},
    codec,
    frame::*,
    ids::MailboxId,
    labels,
    limits::MAX_FRAME,
};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
};
use serde_bytes::ByteBuf;

use super::{Keys, PATIENCE};

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

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// One connection with one stream of requests.
pub struct Client {
    pub connection: Connection,
    pub binding: ChannelBinding,
    pub requests: SendStream,
    pub answers: RecvStream,
    notices: Option<RecvStream>,
    next: u64,
    _endpoint: Endpoint,
}

impl Client {
    pub async fn connect(address: SocketAddr, key: &RelayKey) -> Result<Self, String> {
        Self::connect_with(address, key, ALPN, aws_lc_rs::default_provider()).await
    }

    pub async fn connect_with(
        address: SocketAddr,
        key: &RelayKey,
        alpn: &[u8],
        provider: CryptoProvider,
    ) -> Result<Self, String> {
        Self::connect_over(address, key, alpn, provider, TransportConfig::default()).await
    }

    pub async fn connect_over(
        address: SocketAddr,
        key: &RelayKey,
        alpn: &[u8],
        provider: CryptoProvider,
        transport: TransportConfig,
    ) -> Result<Self, String> {
        let own = if address.is_ipv6() { "::1" } else { "127.0.0.1" }.parse().unwrap();
        Self::connect_from(own, address, key, alpn, provider, transport).await
    }

    /// From one of this computer's own addresses.
    pub async fn connect_from(
        own: IpAddr,
        address: SocketAddr,
        key: &RelayKey,
        alpn: &[u8],
        provider: CryptoProvider,
        transport: TransportConfig,
    ) -> Result<Self, String> {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(*key)))
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_sni = false;
        tls.resumption = Resumption::disabled();
        let quic = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
        let mut endpoint = Endpoint::client((own, 0).into()).map_err(|error| error.to_string())?;
        let mut config = ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        let connecting = endpoint.connect(address, "relay").map_err(|error| error.to_string())?;
        let connection = within(connecting).await.map_err(|error| error.to_string())?;
        let mut exported = [0; 32];
        connection.export_keying_material(&mut exported, labels::EXPORTER, b"").unwrap();
        let (requests, answers) = within(connection.open_bi()).await.map_err(|error| error.to_string())?;
        let binding = ChannelBinding::from_bytes(exported);
        Ok(Self { connection, binding, requests, answers, notices: None, next: 1, _endpoint: endpoint })
    }

    /// Sends a request and returns its number.
    pub async fn send(&mut self, body: RequestBody) -> Result<u64, String> {
        let id = self.next;
        self.next += 1;
        let frame = encode_frame(&Request { id, body }).unwrap();
        within(self.requests.write_all(&frame)).await.map_err(|error| error.to_string())?;
        Ok(id)
    }

    pub async fn receive(&mut self) -> Result<Response, String> {
        read_frame(&mut self.answers).await
    }

    /// One request, one answer.
    pub async fn try_ask(&mut self, body: RequestBody) -> Result<ResponseBody, String> {
        let id = self.send(body).await?;
        let response = self.receive().await?;
        assert_eq!(response.id, id);
        Ok(response.body)
    }

    pub async fn ask(&mut self, body: RequestBody) -> ResponseBody {
        self.try_ask(body).await.unwrap()
    }

    pub async fn notice(&mut self) -> Window {
        if self.notices.is_none() {
            self.notices = Some(within(self.connection.accept_uni()).await.unwrap());
        }
        let Notice::Window(window) = read_frame(self.notices.as_mut().unwrap()).await.unwrap();
        window
    }

    pub async fn prove<P: Purpose>(&mut self, subject: Subject, key: &SecretKey<P>) -> ResponseBody {
        let signature = subject.prove(key, &self.binding);
        self.ask(RequestBody::Prove(Prove { subject, signature })).await
    }

    pub async fn prove_access(&mut self, access: &SecretKey<Access>) {
        let answer = self.prove(Subject::Access(access.public()), access).await;
        assert_eq!(answer, ResponseBody::Done);
    }

    /// Proves every right.
    pub async fn prove_all(&mut self, keys: &Keys) {
        let id = keys.id();
        for answer in [
            self.prove(Subject::Mailbox(id, Right::Read), &keys.read).await,
            self.prove(Subject::Mailbox(id, Right::Write), &keys.write).await,
            self.prove(Subject::Mailbox(id, Right::Admin), &keys.admin).await,
        ] {
            assert_eq!(answer, ResponseBody::Done);
        }
    }

    /// Creates a mailbox and proves all of its rights.
    pub async fn mailbox(&mut self, access: &SecretKey<Access>, kind: MailboxKind) -> Keys {
        let keys = Keys::new();
        self.prove_access(access).await;
        let create = keys.create(kind, Some(access.public()), &self.binding);
        assert_eq!(self.ask(RequestBody::Create(create)).await, ResponseBody::Done);
        self.prove_all(&keys).await;
        keys
    }

    pub async fn append(&mut self, mailbox: MailboxId, envelope: Vec<u8>) -> ResponseBody {
        self.ask(append(mailbox, envelope)).await
    }

    pub async fn read(&mut self, mailbox: MailboxId, after: u64, count: u16) -> ResponseBody {
        self.ask(RequestBody::Read(Read { mailbox, after: Seq::new(after), count })).await
    }

    pub async fn window(&mut self, mailbox: MailboxId, after: u64) -> Window {
        match self.read(mailbox, after, 128).await {
            ResponseBody::Window(window) => window,
            other => panic!("a window, not {other:?}"),
        }
    }
}

pub fn append(mailbox: MailboxId, envelope: Vec<u8>) -> RequestBody {
    RequestBody::Append(Append { mailbox, envelope: ByteBuf::from(envelope) })
}

pub fn stored(answer: &ResponseBody) -> Stored {
    match answer {
        ResponseBody::Stored(stored) => *stored,
        other => panic!("stored, not {other:?}"),
    }
}

pub async fn read_frame<T: serde::de::DeserializeOwned>(stream: &mut RecvStream) -> Result<T, String> {
    let mut prefix = [0; 4];
    within(stream.read_exact(&mut prefix)).await.map_err(|error| error.to_string())?;
    let mut body = vec![0; frame_length(prefix).map_err(|error| error.to_string())?];
    within(stream.read_exact(&mut body)).await.map_err(|error| error.to_string())?;
    codec::decode(&body, MAX_FRAME).map_err(|error| error.to_string())
}

pub async fn within<T>(work: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}
