//! How links end: garbage, silence, closing.

use super::*;

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
