//! Handshakes a second, beside a server that does nothing but answer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use lapwing_relay::key::RelaySecret;
use lapwing_wire::frame::{ALPN, RequestBody, Response, ResponseBody};
use quinn::{ClientConfig, Endpoint, ServerConfig, crypto::rustls::QuicServerConfig};
use rustls::crypto::aws_lc_rs::kx_group::X25519;

use crate::{
    bare::{BareServer, announce},
    link::{Frames, HYBRID, client_config, encode, endpoint, provider},
    process::{Disk, Process, local, own_spent},
    ratios::{Better, Comparison, Run, waits},
    servers::Programs,
};

/// Clients that connect at a time.
const AT_ONCE: usize = 16;

/// All arms in turns.
pub async fn compare(programs: &Programs, length: Duration, disk: &Disk, rounds: usize) -> Vec<String> {
    let what = format!("full handshakes and one answer, {AT_ONCE} at once");
    let mut comparison = Comparison::new(what, "handshakes/s", Better::More);
    for _ in 0..rounds {
        let relay = programs.relay(disk);
        let config = client_config(relay.address.key(), HYBRID);
        let run = measure(&relay.process, config, local(relay.address.port()), length).await;
        comparison.add("lapwing-relay", "", None, run);
        drop(relay);
        for (name, note, is_hybrid) in [
            ("quinn echo, X25519MLKEM768", "keeps no list of who is there, bounds nothing", true),
            ("quinn echo, X25519", "a quantum computer of the future opens what was recorded", false),
        ] {
            let server = BareServer::start("echo", if is_hybrid { &[] } else { &["--classical"] }, disk);
            let config = client_config(&server.key, if is_hybrid { HYBRID } else { X25519 });
            let run = measure(&server.process, config, server.address, length).await;
            comparison.add(name, note, None, run);
        }
    }
    comparison.print()
}

/// Clients that connect, ask once, and leave.
async fn measure(server: &Process, config: ClientConfig, address: SocketAddr, length: Duration) -> Run {
    let (begun, spent, own) = (Instant::now(), server.spent(), own_spent());
    let clients: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (endpoint, config) = (endpoint(), config.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < length {
                    let connecting = Instant::now();
                    let connection =
                        endpoint.connect_with(config.clone(), address, "relay").unwrap().await.unwrap();
                    let (mut requests, answers) = connection.open_bi().await.unwrap();
                    requests.write_all(&encode(1, RequestBody::Lineage)).await.unwrap();
                    let answer: Response = Frames::new(answers).next().await;
                    assert_eq!(answer.body, ResponseBody::Lineage(Vec::new()));
                    times.push(connecting.elapsed());
                    connection.close(0u32.into(), b"");
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.unwrap());
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times.len() as f64;
    Run {
        value: times.len() as f64 / begun.elapsed().as_secs_f64(),
        server: each(server.spent() - spent),
        clients: each(own_spent() - own),
        waits: Some(waits(&times)),
    }
}

/// The echo server: the same library, key and exchange, and one answer to whatever comes. Says its key when it listens.
pub async fn echo(port: u16, is_classical: bool) {
    let secret = RelaySecret::generate(&mut rand::rng());
    let hybrid = secret.tls(ALPN).unwrap();
    let mut tls =
        rustls::ServerConfig::builder_with_provider(provider(if is_classical { X25519 } else { HYBRID }))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&hybrid.cert_resolver));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::server(config, local(port)).unwrap();
    announce(&secret);
    let answer =
        lapwing_wire::frame::encode_frame(&Response { id: 1, body: ResponseBody::Lineage(Vec::new()) });
    let answer = Arc::new(answer.unwrap());
    while let Some(incoming) = endpoint.accept().await {
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut answers, mut requests)) = connection.accept_bi().await {
                let mut bytes = [0; 64];
                while let Ok(Some(_)) = requests.read(&mut bytes).await {
                    if answers.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}
