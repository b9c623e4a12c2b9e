//! Durable appends a second: publishers that wait for their answers, each with a connection of its own.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapwing_wire::{
    frame::{Response, ResponseBody},
    ids::MailboxId,
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::net::UdpSocket;

use crate::{
    bare::{self, ANSWERED, ASKED, BareServer},
    link::{HYBRID, Keys, Link, append, client_config, endpoint},
    process::{Disk, Process, local, own_spent},
    ratios::{Better, Comparison, Run, waits},
    servers::{Programs, Relay, Server},
};

/// Bytes of a message.
pub const LENGTH: usize = 1024;
/// Before it counts: connections warm up, tables grow.
const WARM: Duration = Duration::from_millis(300);

/// What publishers do.
#[derive(clap::Args, Clone, Debug)]
pub struct Load {
    /// Publishers, each with a connection of its own
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    /// Messages of one publisher that wait for their answer
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// Times of the answers while it counted.
type Publishing = Pin<Box<dyn Future<Output = Vec<Duration>> + Send>>;
/// One that is connected and waits for the beginning.
type Publisher = Box<dyn FnOnce(Phase) -> Publishing + Send>;

/// What is required on a disk like this: against redis, NATS, mosquitto. The last two do not wait for any disk, so
/// nothing is asked against them where a flush takes a millisecond.
fn musts(disk: &Disk) -> [Option<f64>; 3] {
    match disk.least().as_micros() {
        0..=100 => [Some(0.60), Some(0.75), Some(0.40)],
        1000 => [Some(0.85), None, None],
        _ => [None; 3],
    }
}

/// All arms in turns.
pub async fn compare(programs: &Programs, load: &Load, disk: &Disk, rounds: usize) -> Vec<String> {
    let [redis, nats, mosquitto] = musts(disk);
    let what = format!(
        "appends, {} publishers, {} in flight, {LENGTH} bytes, {}",
        load.publishers,
        load.in_flight,
        disk.name()
    );
    let mut comparison = Comparison::new(what, "answers/s", Better::More);
    for _ in 0..rounds {
        let relay = programs.relay(disk);
        let run = measure(&relay.process, relay_publishers(&relay, load).await, load, disk.least()).await;
        comparison.add("lapwing-relay", "", None, run);
        drop(relay);
        comparison.add(bare::NAME, bare::NOTE, None, over_bare(load, disk).await);
        let (process, address) = bare::datagrams(disk);
        let run = measure(&process, datagram_publishers(address, load).await, load, Duration::ZERO).await;
        comparison.add("bare datagrams", "no QUIC either: the kernel and the runtime", None, run);
        drop(process);
        let server = programs.redis(disk);
        let run = measure(&server.process, redis_publishers(&server, load).await, load, disk.least()).await;
        let note = "syncs before it answers; does not encrypt, seal or know who writes";
        comparison.add("redis, appendfsync always", note, redis, run);
        drop(server);
        // The flushes of these two, if any, come after the answer.
        let server = programs.nats(disk);
        let run = measure(&server.process, nats_publishers(&server, load).await, load, Duration::ZERO).await;
        comparison.add("NATS JetStream", "answers from memory: no sync, no encryption", nats, run);
        drop(server);
        let server = programs.mosquitto(disk);
        let run =
            measure(&server.process, mosquitto_publishers(&server, load).await, load, Duration::ZERO).await;
        let note = "answers from memory: no sync, no encryption, writes no file";
        comparison.add("mosquitto, QoS 1", note, mosquitto, run);
    }
    let missed = comparison.print();
    comparison.print_against_others(bare::NAME);
    missed
}

/// Only our relay, for a profiler.
pub async fn ours(programs: &Programs, load: &Load, disk: &Disk, rounds: usize) {
    let mut comparison = Comparison::new(format!("appends, {}", disk.name()), "answers/s", Better::More);
    for _ in 0..rounds {
        let relay = programs.relay(disk);
        let run = measure(&relay.process, relay_publishers(&relay, load).await, load, disk.least()).await;
        comparison.add("lapwing-relay", "", None, run);
    }
    comparison.print_values();
}

/// Only the QUIC server that keeps nothing, for a profiler.
pub async fn bare(load: &Load, disk: &Disk, rounds: usize) {
    let mut comparison = Comparison::new(format!("appends, {}", disk.name()), "answers/s", Better::More);
    for _ in 0..rounds {
        comparison.add(bare::NAME, "", None, over_bare(load, disk).await);
    }
    comparison.print_values();
}

/// Its answers follow no flush.
async fn over_bare(load: &Load, disk: &Disk) -> Run {
    let server = BareServer::quic(disk);
    measure(&server.process, bare_publishers(&server, load).await, load, Duration::ZERO).await
}

/// What publishers are told.
#[derive(Clone)]
struct Phase(Arc<AtomicU8>);

impl Phase {
    const WARMS: u8 = 0;
    const COUNTS: u8 = 1;
    const OVER: u8 = 2;

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OVER
    }

    fn counts(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::COUNTS
    }
}

/// Runs publishers against a server, and checks that no answer came before a flush could have ended.
async fn measure(server: &Process, publishers: Vec<Publisher>, load: &Load, least: Duration) -> Run {
    let phase = Phase(Arc::new(AtomicU8::new(Phase::WARMS)));
    let running: Vec<_> = publishers.into_iter().map(|run| tokio::spawn(run(phase.clone()))).collect();
    tokio::time::sleep(WARM).await;
    let (begun, spent, own) = (Instant::now(), server.spent(), own_spent());
    phase.0.store(Phase::COUNTS, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(load.seconds)).await;
    phase.0.store(Phase::OVER, Ordering::Relaxed);
    let (wall, spent, own) = (begun.elapsed(), server.spent() - spent, own_spent() - own);
    let mut times = Vec::new();
    for running in running {
        times.extend(running.await.unwrap());
    }
    assert!(times.iter().min().is_some_and(|time| *time >= least), "an answer came before its flush");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times.len() as f64;
    Run {
        value: times.len() as f64 / wall.as_secs_f64(),
        server: each(spent),
        clients: each(own),
        waits: Some(waits(&times)),
    }
}

/// A message that no other is like.
pub fn message(publisher: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; LENGTH];
    bytes[..8].copy_from_slice(&(publisher as u64).to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    bytes
}

async fn relay_publishers(relay: &Relay, load: &Load) -> Vec<Publisher> {
    let mut all: Vec<Publisher> = Vec::new();
    for publisher in 0..load.publishers {
        let config = client_config(relay.address.key(), HYBRID);
        let mut link = Link::connect(endpoint(), config, local(relay.address.port())).await;
        let keys = Keys::generate();
        link.create(&keys, relay.ticket.secret()).await;
        link.writes(&keys).await;
        let (mailbox, in_flight) = (keys.id(), load.in_flight);
        all.push(Box::new(move |phase| {
            Box::pin(async move {
                let Published { times, count, places } =
                    publish(link, mailbox, (publisher, in_flight), &phase).await;
                assert_eq!(places, count * (count + 1) / 2, "each envelope has a place of its own");
                times
            })
        }));
    }
    all
}

/// The same clients, but that they have no mailbox and prove nothing.
async fn bare_publishers(server: &BareServer, load: &Load) -> Vec<Publisher> {
    let mut all: Vec<Publisher> = Vec::new();
    for publisher in 0..load.publishers {
        let link = Link::connect(endpoint(), client_config(&server.key, HYBRID), server.address).await;
        let (mailbox, in_flight) = (Keys::generate().id(), load.in_flight);
        all.push(Box::new(move |phase| {
            Box::pin(async move { publish(link, mailbox, (publisher, in_flight), &phase).await.times })
        }));
    }
    all
}

/// What one publisher has done.
struct Published {
    /// Times of the answers while it counted.
    times: Vec<Duration>,
    /// Messages, counted or not.
    count: u64,
    /// Sum of the numbers that they were given.
    places: u64,
}

/// Publishes over QUIC.
async fn publish(
    mut link: Link,
    mailbox: MailboxId,
    (publisher, in_flight): (usize, usize),
    phase: &Phase,
) -> Published {
    let (mut number, mut places, mut waiting) = (0, 0, HashMap::new());
    let mut times = Vec::new();
    while !phase.is_over() || !waiting.is_empty() {
        let mut out = Vec::new();
        while waiting.len() < in_flight && !phase.is_over() {
            let (id, frame) = link.encode(append(mailbox, message(publisher, number)));
            number += 1;
            out.extend_from_slice(&frame);
            waiting.insert(id, Instant::now());
        }
        if !out.is_empty() {
            link.requests.write_all(&out).await.unwrap();
        }
        let mut next = Some(link.answers.next::<Response>().await);
        while let Some(answer) = next {
            let ResponseBody::Stored(place) = answer.body else { panic!("it was not stored") };
            places += place.seq.value();
            let sent = waiting.remove(&answer.id).unwrap();
            if phase.counts() {
                times.push(sent.elapsed());
            }
            next = link.answers.ready();
        }
    }
    Published { times, count: number, places }
}

/// Sockets that ask and wait for an answer. None is lost where no buffer fills.
async fn datagram_publishers(server: SocketAddr, load: &Load) -> Vec<Publisher> {
    let mut all: Vec<Publisher> = Vec::new();
    for _ in 0..load.publishers {
        let socket = UdpSocket::bind(local(0)).await.unwrap();
        socket.connect(server).await.unwrap();
        let in_flight = load.in_flight;
        all.push(Box::new(move |phase| {
            Box::pin(async move {
                let (asked, mut answered) = ([0x5a; ASKED], [0; 2 * ANSWERED]);
                let (mut times, mut waiting) = (Vec::new(), VecDeque::new());
                loop {
                    while waiting.len() < in_flight && !phase.is_over() {
                        waiting.push_back(Instant::now());
                        socket.send(&asked).await.unwrap();
                    }
                    let Some(sent) = waiting.pop_front() else { return times };
                    assert_eq!(socket.recv(&mut answered).await.unwrap(), ANSWERED);
                    if phase.counts() {
                        times.push(sent.elapsed());
                    }
                }
            })
        }));
    }
    all
}

/// A connection that waits as long as it takes.
pub async fn redis_connection(port: u16) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

async fn redis_publishers(server: &Server, load: &Load) -> Vec<Publisher> {
    let mut all: Vec<Publisher> = Vec::new();
    for publisher in 0..load.publishers {
        let connection = redis_connection(server.port).await;
        let in_flight = load.in_flight;
        all.push(Box::new(move |phase| {
            Box::pin(async move {
                let key = format!("mailbox-{publisher}");
                let send = |number| {
                    let (mut connection, key) = (connection.clone(), key.clone());
                    async move {
                        let sent = Instant::now();
                        let bytes = message(publisher, number);
                        let mut add = redis::cmd("XADD");
                        add.arg(&key).arg("*").arg("e").arg(bytes);
                        add.query_async::<String>(&mut connection).await.unwrap();
                        sent.elapsed()
                    }
                };
                let times = pipelined(&phase, in_flight, send).await;
                let kept: u64 =
                    redis::cmd("XLEN").arg(&key).query_async(&mut connection.clone()).await.unwrap();
                assert!(kept >= times.len() as u64, "it holds what it answered");
                times
            })
        }));
    }
    all
}

async fn nats_publishers(server: &Server, load: &Load) -> Vec<Publisher> {
    let mut all: Vec<Publisher> = Vec::new();
    for publisher in 0..load.publishers {
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
        let context = async_nats::jetstream::new(client);
        if publisher == 0 {
            let stream = async_nats::jetstream::stream::Config {
                name: "MAILBOXES".to_owned(),
                subjects: vec!["mailbox.*".to_owned()],
                ..Default::default()
            };
            context.create_stream(stream).await.unwrap();
        }
        let in_flight = load.in_flight;
        all.push(Box::new(move |phase| {
            Box::pin(async move {
                let send = |number| {
                    let (context, subject) = (context.clone(), format!("mailbox.{publisher}"));
                    async move {
                        let sent = Instant::now();
                        let published =
                            context.publish(subject, message(publisher, number).into()).await.unwrap();
                        published.await.unwrap();
                        sent.elapsed()
                    }
                };
                pipelined(&phase, in_flight, send).await
            })
        }));
    }
    all
}

/// Keeps `in_flight` requests of one connection waiting.
async fn pipelined<F: Future<Output = Duration>>(
    phase: &Phase,
    in_flight: usize,
    mut send: impl FnMut(u64) -> F,
) -> Vec<Duration> {
    let (mut number, mut times, mut waiting) = (0, Vec::new(), FuturesUnordered::new());
    loop {
        while waiting.len() < in_flight && !phase.is_over() {
            waiting.push(send(number));
            number += 1;
        }
        let Some(time) = waiting.next().await else { return times };
        if phase.counts() {
            times.push(time);
        }
    }
}

/// A client that is connected.
pub async fn mosquitto_client(port: u16, name: &str, is_kept: bool) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_clean_session(!is_kept).set_keep_alive(Duration::from_secs(60));
    let (client, mut events) = AsyncClient::new(options, 1024);
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
    (client, events)
}

async fn mosquitto_publishers(server: &Server, load: &Load) -> Vec<Publisher> {
    // Somebody who is away, for whom it is kept.
    let (client, mut events) = mosquitto_client(server.port, "reader", true).await;
    client.subscribe("mailbox/#", QoS::AtLeastOnce).await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    drop((client, events));
    let mut all: Vec<Publisher> = Vec::new();
    for publisher in 0..load.publishers {
        let (client, mut events) = mosquitto_client(server.port, &format!("writer-{publisher}"), false).await;
        let in_flight = load.in_flight;
        all.push(Box::new(move |phase| {
            Box::pin(async move {
                let topic = format!("mailbox/{publisher}");
                let (mut number, mut times, mut waiting) = (0, Vec::new(), VecDeque::new());
                loop {
                    while waiting.len() < in_flight && !phase.is_over() {
                        waiting.push_back(Instant::now());
                        let bytes = message(publisher, number);
                        client.publish(&topic, QoS::AtLeastOnce, false, bytes).await.unwrap();
                        number += 1;
                    }
                    if waiting.is_empty() {
                        return times;
                    }
                    if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
                        let sent = waiting.pop_front().unwrap();
                        if phase.counts() {
                            times.push(sent.elapsed());
                        }
                    }
                }
            })
        }));
    }
    all
}
