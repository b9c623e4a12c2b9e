//! From an append to a subscriber, at a steady rate.

use std::time::{Duration, Instant};

use async_nats::jetstream::{consumer::pull, stream};
use futures_util::StreamExt;
use lapwing_wire::{
    frame::{Ack, Notice, RequestBody, Response, ResponseBody, Window},
    ids::MailboxId,
};
use rumqttc::{AsyncClient, Event, Packet, QoS};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    appends::{LENGTH, mosquitto_client, redis_connection},
    bare::{self, BareServer},
    link::{HYBRID, Keys, Link, append, client_config, encode, endpoint},
    process::{Disk, Process, local, own_spent},
    ratios::{Better, Comparison, Run, waits},
    servers::{Programs, Relay, Server},
};

/// Messages before it counts.
const WARM: usize = 200;

/// What is sent.
#[derive(clap::Args, Clone, Debug)]
pub struct Rate {
    /// Messages a second
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Seconds of a round
    #[arg(long, default_value_t = 6)]
    seconds: u64,
}

impl Rate {
    fn count(&self) -> usize {
        WARM + usize::try_from(self.rate * self.seconds).unwrap()
    }
}

/// All arms in turns.
pub async fn compare(programs: &Programs, rate: &Rate, disk: &Disk, rounds: usize) -> Vec<String> {
    // Decisions 14 and 15: QUIC is most of it, and with a flush the flush; a server that answers from memory does not wait for it.
    let is_free = disk.is_quick() && disk.least().is_zero();
    let (of_bare, of_memory) = if is_free { (Some(1.6), Some(1.6)) } else { (None, None) };
    let what = format!("append to subscriber, {} a second, {LENGTH} bytes, {}", rate.rate, disk.name());
    let mut comparison = Comparison::new(what, "µs, the middle one", Better::Less);
    for _ in 0..rounds {
        let relay = programs.relay(disk);
        comparison.add("lapwing-relay", "", None, over_relay(&relay, rate).await);
        drop(relay);
        comparison.add(bare::NAME, bare::NOTE, of_bare, over_bare(rate, &BareServer::quic(disk)).await);
        if !is_free {
            let [name, note] = bare::FLUSHED;
            let run = over_bare(rate, &BareServer::that_flushes(disk)).await;
            comparison.add(name, note, Some(1.4), run);
        }
        let server = programs.redis(disk);
        let note = "as durable; not encrypted, nothing proved; taken messages are deleted, too";
        comparison.add("redis streams, always", note, None, over_redis_streams(&server, rate).await);
        drop(server);
        let server = programs.redis(disk);
        let note = "keeps nothing: who is away gets nothing";
        comparison.add("redis publish/subscribe", note, None, over_redis_channel(&server, rate).await);
        drop(server);
        let server = programs.nats(disk);
        let note = "keeps it in memory first: no sync, no encryption; each is acknowledged";
        comparison.add("NATS JetStream, work queue", note, of_memory, over_nats(&server, rate).await);
        drop(server);
        let server = programs.mosquitto(disk);
        let note = "keeps it in memory: no sync, no encryption; each is acknowledged";
        comparison.add("mosquitto, QoS 1", note, None, over_mosquitto(&server, rate).await);
    }
    let missed = comparison.print();
    comparison.print_against_others(bare::NAME);
    missed
}

/// Only our relay, for a profiler.
pub async fn ours(programs: &Programs, rate: &Rate, disk: &Disk, rounds: usize) {
    let mut comparison =
        Comparison::new(format!("append to subscriber, {}", disk.name()), "µs", Better::Less);
    for _ in 0..rounds {
        comparison.add("lapwing-relay", "", None, over_relay(&programs.relay(disk), rate).await);
    }
    comparison.print_values();
}

/// Only the QUIC server that keeps nothing, for a profiler.
pub async fn bare(rate: &Rate, disk: &Disk, rounds: usize) {
    let mut comparison =
        Comparison::new(format!("append to subscriber, {}", disk.name()), "µs", Better::Less);
    for _ in 0..rounds {
        comparison.add(bare::NAME, "", None, over_bare(rate, &BareServer::quic(disk)).await);
    }
    comparison.print_values();
}

/// When numbers were sent: what a message carries is its number.
fn bytes(number: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; LENGTH];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    bytes
}

fn number(bytes: &[u8]) -> usize {
    usize::try_from(u64::from_be_bytes(bytes[..8].try_into().unwrap())).unwrap()
}

/// One who sends without waiting for what it is answered.
trait Sends {
    /// Sends one message.
    async fn send(&mut self, bytes: Vec<u8>);

    /// Waits until all are answered.
    async fn finish(&mut self);
}

/// Sends at the rate, and waits until the other side has all. Each number must have come once.
async fn steadily(
    rate: &Rate,
    server: &Process,
    taken: JoinHandle<Vec<(usize, Instant)>>,
    sender: &mut impl Sends,
) -> Run {
    let mut sent = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate.rate).unwrap());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut spent = (server.spent(), own_spent());
    for number in 0..rate.count() {
        tick.tick().await;
        if number == WARM {
            spent = (server.spent(), own_spent());
        }
        sent.push(Instant::now());
        sender.send(bytes(number)).await;
    }
    let taken = tokio::time::timeout(Duration::from_secs(60), taken).await.expect("all come").unwrap();
    sender.finish().await;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (rate.count() - WARM) as f64;
    let (server, clients) = (each(server.spent() - spent.0), each(own_spent() - spent.1));
    let mut seen = vec![false; rate.count()];
    let mut times = Vec::new();
    for (number, at) in taken {
        assert!(!std::mem::replace(&mut seen[number], true), "nothing comes twice");
        if number >= WARM {
            times.push(at - sent[number]);
        }
    }
    assert!(seen.iter().all(|seen| *seen), "everything comes");
    let waits = waits(&times);
    Run { value: waits.0, server, clients, waits: Some(waits) }
}

async fn over_relay(relay: &Relay, rate: &Rate) -> Run {
    let keys = Keys::generate();
    let connect =
        || Link::connect(endpoint(), client_config(relay.address.key(), HYBRID), local(relay.address.port()));
    let mut reader = connect().await;
    reader.create(&keys, relay.ticket.secret()).await;
    reader.reads(&keys).await;
    reader.subscribe(&keys).await;
    let mut writer = connect().await;
    writer.writes(&keys).await;
    over_quic(rate, &relay.process, reader, writer, keys.id()).await
}

/// The same clients, but that they have no mailbox and prove nothing.
async fn over_bare(rate: &Rate, server: &BareServer) -> Run {
    let connect = || Link::connect(endpoint(), client_config(&server.key, HYBRID), server.address);
    let mut reader = connect().await;
    assert_eq!(reader.ask(RequestBody::Lineage).await, ResponseBody::Done, "it subscribes");
    over_quic(rate, &server.process, reader, connect().await, Keys::generate().id()).await
}

/// From one who may write to one who has subscribed.
async fn over_quic(rate: &Rate, server: &Process, mut reader: Link, writer: Link, mailbox: MailboxId) -> Run {
    let count = rate.count();
    let taken = tokio::spawn(async move {
        let mut taken = Vec::new();
        let mut notices = reader.notices().await;
        let mut answered = 0;
        let mut asked = 0;
        while taken.len() < count {
            let Notice::Window(Window { items, .. }) = notices.next().await;
            let now = Instant::now();
            taken.extend(items.iter().map(|item| (number(&item.envelope), now)));
            let upto = items.last().unwrap().place.seq;
            let (_, frame) = reader.encode(RequestBody::Ack(Ack { mailbox, upto, also: Vec::new() }));
            reader.requests.write_all(&frame).await.unwrap();
            asked += 1;
            while reader.answers.ready::<Response>().is_some() {
                answered += 1;
            }
            // Answers are read a few behind, so that the stream never fills.
            while asked - answered > 64 {
                reader.answers.next::<Response>().await;
                answered += 1;
            }
        }
        taken
    });
    let Link { connection: _open, requests, mut answers, .. } = writer;
    let mut answered = JoinSet::new();
    answered.spawn(async move {
        for _ in 0..count {
            let answer: Response = answers.next().await;
            assert!(matches!(answer.body, ResponseBody::Stored(_)), "it is stored");
        }
    });
    steadily(rate, server, taken, &mut RelayWriter { requests, mailbox, next: 1000, answered }).await
}

struct RelayWriter {
    requests: quinn::SendStream,
    mailbox: MailboxId,
    next: u64,
    answered: JoinSet<()>,
}

impl Sends for RelayWriter {
    async fn send(&mut self, bytes: Vec<u8>) {
        self.next += 1;
        self.requests.write_all(&encode(self.next, append(self.mailbox, bytes))).await.unwrap();
    }

    async fn finish(&mut self) {
        all_of(&mut self.answered).await;
    }
}

async fn all_of(answered: &mut JoinSet<()>) {
    while let Some(answered) = answered.join_next().await {
        answered.unwrap();
    }
}

/// One command a message, with the message as its last argument.
struct RedisWriter {
    connection: redis::aio::MultiplexedConnection,
    command: redis::Cmd,
    answered: JoinSet<()>,
}

impl Sends for RedisWriter {
    async fn send(&mut self, bytes: Vec<u8>) {
        let (mut connection, mut command) = (self.connection.clone(), self.command.clone());
        self.answered.spawn(async move {
            command.arg(bytes);
            command.query_async::<redis::Value>(&mut connection).await.unwrap();
        });
    }

    async fn finish(&mut self) {
        all_of(&mut self.answered).await;
    }
}

async fn over_redis_streams(server: &Server, rate: &Rate) -> Run {
    let (mut reader, deleter) = (redis_connection(server.port).await, redis_connection(server.port).await);
    let count = rate.count();
    let taken = tokio::spawn(async move {
        let (mut taken, mut deleting) = (Vec::new(), JoinSet::new());
        let mut last = "0".to_owned();
        while taken.len() < count {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(128).arg("BLOCK").arg(0).arg("STREAMS").arg("mailbox").arg(&last);
            let reply: redis::streams::StreamReadReply = read.query_async(&mut reader).await.unwrap();
            let now = Instant::now();
            let mut delete = redis::cmd("XDEL");
            delete.arg("mailbox");
            for item in reply.keys.into_iter().flat_map(|key| key.ids) {
                taken.push((number(&item.get::<Vec<u8>>("e").unwrap()), now));
                delete.arg(&item.id);
                last = item.id;
            }
            let mut deleter = deleter.clone();
            deleting.spawn(async move { delete.query_async::<u64>(&mut deleter).await.unwrap() });
        }
        let deleted: u64 = deleting.join_all().await.into_iter().sum();
        assert_eq!(deleted, taken.len() as u64, "what was taken is deleted");
        taken
    });
    let mut command = redis::cmd("XADD");
    command.arg("mailbox").arg("*").arg("e");
    let mut sender =
        RedisWriter { connection: redis_connection(server.port).await, command, answered: JoinSet::new() };
    steadily(rate, &server.process, taken, &mut sender).await
}

async fn over_redis_channel(server: &Server, rate: &Rate) -> Run {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).unwrap();
    let mut reader = client.get_async_pubsub().await.unwrap();
    reader.subscribe("mailbox").await.unwrap();
    let count = rate.count();
    let taken = tokio::spawn(async move {
        let mut messages = reader.into_on_message();
        let mut taken = Vec::new();
        while taken.len() < count {
            let message = messages.next().await.unwrap();
            taken.push((number(message.get_payload_bytes()), Instant::now()));
        }
        taken
    });
    let mut command = redis::cmd("PUBLISH");
    command.arg("mailbox");
    let mut sender =
        RedisWriter { connection: redis_connection(server.port).await, command, answered: JoinSet::new() };
    steadily(rate, &server.process, taken, &mut sender).await
}

struct NatsWriter {
    context: async_nats::jetstream::Context,
    answered: JoinSet<()>,
}

impl Sends for NatsWriter {
    async fn send(&mut self, bytes: Vec<u8>) {
        let published = self.context.publish("mailbox", bytes.into()).await.unwrap();
        self.answered.spawn(async move {
            published.await.unwrap();
        });
    }

    async fn finish(&mut self) {
        all_of(&mut self.answered).await;
    }
}

async fn over_nats(server: &Server, rate: &Rate) -> Run {
    let connect = async || {
        async_nats::jetstream::new(async_nats::connect(format!("127.0.0.1:{}", server.port)).await.unwrap())
    };
    let config = stream::Config {
        name: "MAILBOX".to_owned(),
        subjects: vec!["mailbox".to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let queue = connect().await.create_stream(config).await.unwrap();
    let reader = pull::Config { durable_name: Some("reader".to_owned()), ..Default::default() };
    let mut messages = queue.create_consumer(reader).await.unwrap().messages().await.unwrap();
    let count = rate.count();
    let taken = tokio::spawn(async move {
        let mut taken = Vec::new();
        while taken.len() < count {
            let message = messages.next().await.unwrap().unwrap();
            taken.push((number(&message.payload), Instant::now()));
            message.ack().await.unwrap();
        }
        taken
    });
    let mut sender = NatsWriter { context: connect().await, answered: JoinSet::new() };
    steadily(rate, &server.process, taken, &mut sender).await
}

struct MosquittoWriter(AsyncClient);

impl Sends for MosquittoWriter {
    async fn send(&mut self, bytes: Vec<u8>) {
        self.0.publish("mailbox", QoS::AtLeastOnce, false, bytes).await.unwrap();
    }

    /// The reader has them all, so the server had.
    async fn finish(&mut self) {}
}

async fn over_mosquitto(server: &Server, rate: &Rate) -> Run {
    let (reader, mut events) = mosquitto_client(server.port, "reader", true).await;
    reader.subscribe("mailbox", QoS::AtLeastOnce).await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    let count = rate.count();
    let taken = tokio::spawn(async move {
        let _reader = reader;
        let mut taken = Vec::new();
        while taken.len() < count {
            if let Event::Incoming(Packet::Publish(message)) = events.poll().await.unwrap() {
                taken.push((number(&message.payload), Instant::now()));
            }
        }
        taken
    });
    let (writer, mut events) = mosquitto_client(server.port, "writer", false).await;
    let polling = tokio::spawn(async move {
        loop {
            events.poll().await.unwrap();
        }
    });
    let run = steadily(rate, &server.process, taken, &mut MosquittoWriter(writer)).await;
    polling.abort();
    // Ended, before the server is.
    assert!(polling.await.is_err_and(|ended| ended.is_cancelled()), "it polled to the end");
    run
}
