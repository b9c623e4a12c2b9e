//! The QUIC transport against a relay of this test's own: raw public key, loopback, and as much bad faith as wanted.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as it must be"
)]

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

#[tokio::test]
async fn a_request_gets_its_answer_and_both_ends_export_the_same_binding() {
    let (binding, bound) = tokio::sync::oneshot::channel();
    let binding = std::sync::Mutex::new(Some(binding));
    let relay = TestRelay::start(move |connection| {
        let mut bytes = [0; 32];
        connection.export_keying_material(&mut bytes, labels::EXPORTER, b"").unwrap();
        let sender = binding.lock().unwrap().take().unwrap();
        sender.send(bytes).unwrap();
        echo(connection)
    });
    let link = relay.link().await;
    assert_eq!(link.request(ask(5)).await.unwrap(), part(5));
    assert_eq!(link.binding().as_bytes(), &bound.await.unwrap());
}

#[tokio::test]
async fn answers_out_of_order_reach_their_requests() {
    let relay = TestRelay::start(async |connection: Connection| {
        let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
        let mut requests = Vec::new();
        for _ in 0..50 {
            requests.push(read_request(&mut rx).await.unwrap());
        }
        for request in requests.iter().rev() {
            send(&mut tx, &answer_to(request)).await;
        }
        connection.closed().await;
    });
    let link = relay.link().await;
    let mut asked = JoinSet::new();
    for n in 0..50 {
        let link = Arc::clone(&link);
        asked.spawn(async move { (n, link.request(ask(n)).await) });
    }
    while let Some(done) = asked.join_next().await {
        let (n, got) = done.unwrap();
        assert_eq!(got.unwrap(), part(n));
    }
}

#[tokio::test]
async fn a_thousand_requests_are_pipelined_within_the_bound() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let relay = TestRelay::start(move |connection| {
        let seen = Arc::clone(&seen);
        async move {
            let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
            let mut answered = 0;
            // Answers only when the client cannot send more: the bound, or the rest.
            while answered < 1000 {
                let batch = MAX_IN_FLIGHT.min(1000 - answered);
                let mut held = Vec::new();
                while held.len() < batch {
                    held.push(read_request(&mut rx).await.unwrap());
                }
                seen.fetch_max(held.len(), Ordering::Relaxed);
                answered += held.len();
                for request in &held {
                    send(&mut tx, &answer_to(request)).await;
                }
            }
            connection.closed().await;
        }
    });
    let link = relay.link().await;
    let mut asked = JoinSet::new();
    for n in 0..1000 {
        let link = Arc::clone(&link);
        asked.spawn(async move { assert_eq!(link.request(ask(n)).await.unwrap(), part(n)) });
    }
    tokio::time::timeout(LONG, async { while asked.join_next().await.is_some_and(|done| done.is_ok()) {} })
        .await
        .unwrap();
    assert!(asked.is_empty());
    assert_eq!(most.load(Ordering::Relaxed), MAX_IN_FLIGHT);
}

#[tokio::test]
async fn large_requests_share_a_bounded_room() {
    let relay = TestRelay::start(async |connection: Connection| {
        let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
        while let Some(request) = read_request(&mut rx).await {
            send(&mut tx, &Response { id: request.id, body: ResponseBody::Done }).await;
        }
    });
    let link = relay.link().await;
    let append = || {
        RequestBody::Append(Append {
            mailbox: MailboxId::from_bytes([1; 32]),
            envelope: ByteBuf::from(vec![7; 64 << 10]),
        })
    };
    let mut asked = JoinSet::new();
    for _ in 0..100 {
        let (link, body) = (Arc::clone(&link), append());
        asked.spawn(async move { link.request(body).await });
    }
    while let Some(done) = asked.join_next().await {
        assert_eq!(done.unwrap().unwrap(), ResponseBody::Done);
    }
    let RequestBody::Append(mut huge) = append() else { unreachable!() };
    huge.envelope = ByteBuf::from(vec![7; MAX_FRAME]);
    assert_eq!(link.request(RequestBody::Append(huge)).await.unwrap_err(), LinkError::TooLarge);
    assert!(link.request(append()).await.is_ok(), "the link works on");
}

#[tokio::test]
async fn a_relay_that_takes_nothing_holds_nobody_up() {
    let relay = TestRelay::start(async |connection: Connection| {
        let _streams = connection.accept_bi().await.unwrap();
        connection.closed().await;
    });
    let mut options = Options::default();
    options.request_timeout = Duration::from_secs(1);
    let link = relay.link_with(options).await;
    let mut asked = JoinSet::new();
    for _ in 0..100 {
        let link = Arc::clone(&link);
        let body = RequestBody::Append(Append {
            mailbox: MailboxId::from_bytes([1; 32]),
            envelope: ByteBuf::from(vec![7; 64 << 10]),
        });
        asked.spawn(async move { link.request(body).await });
    }
    while let Some(done) = tokio::time::timeout(LONG, asked.join_next()).await.unwrap() {
        assert_eq!(done.unwrap().unwrap_err(), LinkError::Timeout);
    }
    let got = tokio::time::timeout(LONG, link.notice()).await.unwrap();
    assert_eq!(got.unwrap_err(), LinkError::Timeout, "the link has ended");
}

#[tokio::test]
async fn another_key_is_no_relay() {
    let relay = TestRelay::start(echo);
    let address = RelayAddress::new(RelayKey::of_spki(b"another"), "127.0.0.1", relay.port).unwrap();
    let got = QuicTransport::default().connect(&address).await;
    assert_eq!(got.err(), Some(ConnectError::WrongKey));
}

#[tokio::test]
async fn a_key_shown_but_not_held_is_no_relay() {
    // The right public key, and signatures by another.
    let thief = |tls: &mut rustls::ServerConfig| {
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let pair = |seed: u8| {
            let mut der = PKCS8_ED25519.to_vec();
            der.extend_from_slice(&[seed; 32]);
            aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap()
        };
        let victim = pair(7);
        let shown = victim.public_key().unwrap();
        let certified = CertifiedKey::new(vec![CertificateDer::from(shown.to_vec())], pair(8));
        tls.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified)));
    };
    let relay = TestRelay::with_tls(thief, echo);
    let got = QuicTransport::default().connect(&relay.address()).await;
    assert_eq!(got.err(), Some(ConnectError::Protocol));
}

#[tokio::test]
async fn another_protocol_is_no_relay() {
    let relay = TestRelay::with_tls(|tls| tls.alpn_protocols = vec![b"h3".to_vec()], echo);
    let got = QuicTransport::default().connect(&relay.address()).await;
    assert_eq!(got.err(), Some(ConnectError::Protocol));
    let mut options = Options::default();
    options.alpn = b"h3".to_vec();
    assert!(
        QuicTransport::new(options).connect(&relay.address()).await.is_ok(),
        "the name is the operator's choice"
    );
}

#[tokio::test]
async fn a_classical_key_exchange_is_refused() {
    let mut classical = aws_lc_rs::default_provider();
    classical.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut der = PKCS8_ED25519.to_vec();
    der.extend_from_slice(&[7; 32]);
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap();
    let spki = signer.public_key().unwrap().to_vec();
    let certified = CertifiedKey::new(vec![CertificateDer::from(spki)], signer);
    let relay = TestRelay::with_tls(
        |tls| {
            *tls = rustls::ServerConfig::builder_with_provider(Arc::new(classical))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
            tls.alpn_protocols = vec![ALPN.to_vec()];
        },
        echo,
    );
    let got = QuicTransport::default().connect(&relay.address()).await;
    assert_eq!(got.err(), Some(ConnectError::Protocol));
}

#[tokio::test]
async fn the_client_names_nobody_and_offers_nothing_to_resume() {
    let named = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&named);
    let relay = TestRelay::start(move |connection| {
        let data = connection.handshake_data().unwrap();
        let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
        *seen.lock().unwrap() = Some(data.server_name);
        echo(connection)
    });
    let transport = QuicTransport::default();
    for n in 0..2 {
        let link = transport.connect(&relay.address()).await.unwrap();
        assert_eq!(link.request(ask(n)).await.unwrap(), part(n));
        assert_eq!(*named.lock().unwrap(), Some(None));
    }
}

#[tokio::test]
async fn silence_and_names_that_do_not_exist_are_unreachable() {
    // Bound and never read: what is sent there vanishes.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let key = RelayKey::of_spki(b"any");
    let transport = QuicTransport::new(quick());
    let silent_address = RelayAddress::new(key, "127.0.0.1", port).unwrap();
    assert_eq!(transport.connect(&silent_address).await.err(), Some(ConnectError::Unreachable));
    // No name has a label this long, so no resolver on the network is asked.
    let nameless = RelayAddress::new(key, &"a".repeat(64), port).unwrap();
    assert_eq!(transport.connect(&nameless).await.err(), Some(ConnectError::Unreachable));
}

#[tokio::test]
async fn a_name_with_two_addresses_is_tried_at_both() {
    // `localhost` is ::1 and 127.0.0.1 on most machines; the relay listens at the second only.
    let relay = TestRelay::start(echo);
    let address = RelayAddress::new(relay.key, "localhost", relay.port).unwrap();
    let link = QuicTransport::default().connect(&address).await.unwrap();
    assert_eq!(link.request(ask(1)).await.unwrap(), part(1));
}

/// What a link says after the relay has sent these bytes where an answer belongs.
async fn after_bytes(bytes: Vec<u8>) -> LinkError {
    let relay = TestRelay::start(move |connection| {
        let bytes = bytes.clone();
        async move {
            let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
            read_request(&mut rx).await.unwrap();
            tx.write_all(&bytes).await.unwrap();
            let _ = tx.finish();
            connection.closed().await;
        }
    });
    let link = relay.link().await;
    let first = tokio::time::timeout(LONG, link.request(ask(1))).await.unwrap().unwrap_err();
    let later = tokio::time::timeout(LONG, link.request(ask(2))).await.unwrap().unwrap_err();
    assert_eq!(first, later, "the link has ended for the reason that it gave");
    assert_eq!(link.notice().await.unwrap_err(), first);
    first
}

#[tokio::test]
async fn garbage_ends_the_link() {
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    assert_eq!(after_bytes(frame(b"\xff\xff\xff")).await, LinkError::Malformed);
    assert_eq!(after_bytes(frame(b"")).await, LinkError::Malformed);
    assert_eq!(after_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await, LinkError::Malformed);
    assert_eq!(after_bytes(vec![0, 0, 1, 0, 5]).await, LinkError::Malformed, "half a frame, then the end");
    let stranger = encode_frame(&Response { id: 77, body: ResponseBody::Done }).unwrap();
    assert_eq!(after_bytes(stranger).await, LinkError::Malformed, "an answer to what was never asked");
    assert_eq!(after_bytes(Vec::new()).await, LinkError::Closed, "the relay ends the stream in order");
}

#[tokio::test]
async fn a_claim_above_the_limit_ends_the_link_before_its_bytes_come() {
    let relay = TestRelay::start(async |connection: Connection| {
        let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
        read_request(&mut rx).await.unwrap();
        tx.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        // No further byte: the claim alone must do.
        connection.closed().await;
    });
    let link = relay.link().await;
    let got = tokio::time::timeout(LONG, link.request(ask(1))).await.unwrap();
    assert_eq!(got.unwrap_err(), LinkError::Malformed);
}

#[tokio::test]
async fn an_answer_of_an_unknown_kind_fails_its_request_only() {
    #[derive(serde::Serialize)]
    struct Odd {
        id: u64,
        body: &'static str,
    }
    let relay = TestRelay::start(async |connection: Connection| {
        let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
        let first = read_request(&mut rx).await.unwrap();
        send(&mut tx, &Odd { id: first.id, body: "of a later version" }).await;
        let second = read_request(&mut rx).await.unwrap();
        send(&mut tx, &answer_to(&second)).await;
        connection.closed().await;
    });
    let link = relay.link().await;
    assert_eq!(link.request(ask(1)).await.unwrap_err(), LinkError::Malformed);
    assert_eq!(link.request(ask(2)).await.unwrap(), part(2));
}

#[tokio::test]
async fn a_late_answer_harms_nobody() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let relay = TestRelay::start(move |connection| {
        let mut wait = wait.clone();
        async move {
            let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
            let late = read_request(&mut rx).await.unwrap();
            wait.wait_for(|go| *go).await.unwrap();
            send(&mut tx, &answer_to(&late)).await;
            let next = read_request(&mut rx).await.unwrap();
            send(&mut tx, &answer_to(&next)).await;
            connection.closed().await;
        }
    });
    let mut options = Options::default();
    options.request_timeout = Duration::from_secs(2);
    let link = relay.link_with(options).await;
    assert_eq!(link.request(ask(1)).await.unwrap_err(), LinkError::Timeout);
    go.send(true).unwrap();
    // Whether the late answer is there before or after the next request, only its own may be returned.
    assert_eq!(link.request(ask(2)).await.unwrap(), part(2));
}

#[tokio::test]
async fn a_relay_that_vanishes_without_a_word_costs_a_timeout() {
    let relay = TestRelay::start(async |connection: Connection| {
        let (_tx, mut rx) = connection.accept_bi().await.unwrap();
        while read_request(&mut rx).await.is_some() {}
        connection.closed().await;
    });
    let mut options = quick();
    options.connect_timeout = Duration::from_secs(5);
    options.idle_timeout = Duration::from_secs(5);
    options.keep_alive = Duration::from_secs(1);
    let link = relay.link_with(options).await;
    assert_eq!(link.request(ask(1)).await.unwrap_err(), LinkError::Timeout);
    // The relay's packets go nowhere from now on.
    let nowhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    relay.endpoint.rebind(nowhere).unwrap();
    drop(relay);
    let got = tokio::time::timeout(LONG, link.notice()).await.unwrap();
    assert_eq!(got.unwrap_err(), LinkError::Closed);
    assert_eq!(link.request(ask(2)).await.unwrap_err(), LinkError::Closed);
}

#[tokio::test]
async fn a_relay_that_shuts_down_ends_every_request() {
    let (got_it, mut all_there) = tokio::sync::mpsc::channel(64);
    let relay = TestRelay::start(move |connection| {
        let got_it = got_it.clone();
        async move {
            let (_tx, mut rx) = connection.accept_bi().await.unwrap();
            while let Some(request) = read_request(&mut rx).await {
                got_it.send(request.id).await.unwrap();
            }
        }
    });
    let link = relay.link().await;
    let mut asked = JoinSet::new();
    for n in 0..20 {
        let link = Arc::clone(&link);
        asked.spawn(async move { link.request(ask(n)).await });
    }
    for _ in 0..20 {
        all_there.recv().await.unwrap();
    }
    relay.endpoint.close(0u32.into(), b"");
    while let Some(done) = asked.join_next().await {
        assert_eq!(done.unwrap().unwrap_err(), LinkError::Closed);
    }
}

#[tokio::test]
async fn notices_arrive_in_order_and_wait_for_their_reader() {
    const COUNT: u64 = 20_000;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let relay = TestRelay::start(move |connection| {
        let counter = Arc::clone(&counter);
        async move {
            let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
            let asked = read_request(&mut rx).await.unwrap();
            send(&mut tx, &answer_to(&asked)).await;
            let mut notices = connection.open_uni().await.unwrap();
            let mut later = Vec::new();
            codec_later(&mut later);
            notices.write_all(&later).await.unwrap();
            for n in 0..COUNT {
                send(&mut notices, &notice(n)).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
            connection.closed().await;
        }
    });
    let link = relay.link().await;
    assert_eq!(link.request(ask(1)).await.unwrap(), part(1));
    assert_eq!(link.notice().await.unwrap(), notice(0), "a kind of a later version was passed over");
    // Until the relay stands still; it cannot get through while nobody reads.
    let mut before = usize::MAX;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < usize::try_from(COUNT).unwrap(), "back pressure");
    for n in 1..COUNT {
        let got = tokio::time::timeout(LONG, link.notice()).await.unwrap();
        assert_eq!(got.unwrap(), notice(n));
    }
}

/// A notice of a kind that this version does not know.
fn codec_later(out: &mut Vec<u8>) {
    out.extend_from_slice(&encode_frame(&std::collections::BTreeMap::from([("tide", 7u8)])).unwrap());
}

#[tokio::test]
async fn a_damaged_notice_ends_the_link() {
    let relay = TestRelay::start(async |connection: Connection| {
        let (_tx, mut rx) = connection.accept_bi().await.unwrap();
        read_request(&mut rx).await.unwrap();
        let mut notices = connection.open_uni().await.unwrap();
        send(&mut notices, &notice(1)).await;
        send(&mut notices, &std::collections::BTreeMap::from([("window", 7u8)])).await;
        connection.closed().await;
    });
    let link = relay.link().await;
    assert_eq!(link.request(ask(1)).await.unwrap_err(), LinkError::Malformed);
    assert_eq!(link.notice().await.unwrap(), notice(1), "what came before is not lost");
    assert_eq!(link.notice().await.unwrap_err(), LinkError::Malformed);
}

#[tokio::test]
async fn closing_sends_what_waits_and_takes_its_answers() {
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    let relay = TestRelay::start(move |connection| {
        let counter = Arc::clone(&counter);
        async move {
            let (mut tx, mut rx) = connection.accept_bi().await.unwrap();
            while let Some(request) = read_request(&mut rx).await {
                counter.fetch_add(1, Ordering::Relaxed);
                send(&mut tx, &answer_to(&request)).await;
            }
            let _ = tx.finish();
            connection.closed().await;
        }
    });
    let link = relay.link().await;
    let mut asked: Vec<_> = (0..40).map(|n| Box::pin(link.request(ask(n)))).collect();
    for request in &mut asked {
        // One poll queues it.
        assert!(futures_poll_once(request.as_mut()).await.is_none());
    }
    link.close();
    link.close();
    for (n, request) in asked.into_iter().enumerate() {
        assert_eq!(request.await.unwrap(), part(u64::try_from(n).unwrap()));
    }
    tokio::time::timeout(LONG, link.closed()).await.unwrap();
    assert_eq!(served.load(Ordering::Relaxed), 40);
    assert_eq!(link.request(ask(1)).await.unwrap_err(), LinkError::Closed);
    assert_eq!(link.notice().await.unwrap_err(), LinkError::Closed);
}

async fn futures_poll_once<F: Future + ?Sized>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn closing_towards_a_relay_that_does_not_answer_takes_a_bounded_time() {
    let relay = TestRelay::start(async |connection: Connection| {
        let (_tx, mut rx) = connection.accept_bi().await.unwrap();
        while read_request(&mut rx).await.is_some() {}
        connection.closed().await;
    });
    let link = relay.link().await;
    let mut asked = Box::pin(link.request(ask(1)));
    assert!(futures_poll_once(asked.as_mut()).await.is_none());
    link.close();
    tokio::time::timeout(Duration::from_secs(10), link.closed()).await.unwrap();
    assert_eq!(asked.await.unwrap_err(), LinkError::Closed);
}

#[test]
fn no_task_outlives_its_link() {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let relay = server.block_on(async { TestRelay::start(echo) });
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, relay.port).into();
    client.block_on(async {
        let transport = QuicTransport::default();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks(), 0);
        let link = transport.connect(&relay.address()).await.unwrap();
        assert_eq!(link.request(ask(3)).await.unwrap(), part(3));
        assert!(tasks() > 0);
        drop(link);
        // A failed attempt leaves nothing either.
        let other = RelayAddress::new(RelayKey::of_spki(b"other"), &address.ip().to_string(), address.port());
        assert!(transport.connect(&other.unwrap()).await.is_err());
        // QUIC's own tasks end once the goodbye had its time to arrive.
        tokio::time::timeout(LONG, async {
            while tasks() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    });
}

#[test]
fn the_goodbye_has_left_when_the_link_is_closed() {
    let (gone, ended) = std::sync::mpsc::channel();
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let relay = server.block_on(async {
        TestRelay::start(move |connection| {
            let gone = gone.clone();
            async move {
                let reason = connection.closed().await;
                gone.send(matches!(reason, quinn::ConnectionError::ApplicationClosed(_))).unwrap();
            }
        })
    });
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(async {
        let link = relay.link().await;
        link.close();
        link.closed().await;
    });
    // A program that exits here says no further word.
    drop(client);
    assert!(ended.recv_timeout(LONG).unwrap(), "the relay was told, and did not have to wait for silence");
}
