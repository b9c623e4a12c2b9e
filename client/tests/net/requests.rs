//! Requests and answers, keys, addresses.

use super::*;

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
