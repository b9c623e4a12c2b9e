//! Servers that keep nothing and check nothing: what the way to a server costs, whatever the server is. On request, the first
//! writes what it takes to a file and flushes it: what the way and a disk cost together.
//!
//! [`serve`] takes our clients' own frames over the same QUIC as the relay (`relay/src/server`), and answers each with as
//! many bytes as the relay does. Nothing is made up for that: an answer is the relay's own encoding, with the number copied
//! out of the request. With a message of 1 KiB an append has 1,103 bytes, its answer 71, and the notice to a subscriber 1,162,
//! as soon as numbers have three bytes.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use lapwing_relay::{key::RelaySecret, server::ServerOptions};
use lapwing_wire::{
    address::RelayKey,
    frame::*,
    ids::{MailboxId, RunningHash},
    limits::FRAME_PREFIX,
};
use quinn::{
    Connection, Endpoint, EndpointConfig, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    congestion::CubicConfig, crypto::rustls::QuicServerConfig,
};
use serde_bytes::ByteBuf;
use tokio::net::UdpSocket;

use crate::{
    appends::LENGTH,
    link::Frames,
    process::{Disk, Process, free_port, local},
};

/// What this arm is called in every table.
pub const NAME: &str = "bare QUIC";
/// What it does not do.
pub const NOTE: &str = "the relay's QUIC and frames; keeps, checks, syncs nothing";
/// What it is called where it flushes, and what it does not do.
pub const FLUSHED: [&str; 2] = ["bare QUIC that flushes", "a file and a flush more; nothing is deleted"];
/// Bytes of a datagram that asks: as many as the packet of an append has, some more or less.
pub const ASKED: usize = 1100;
/// Bytes of a datagram that answers.
pub const ANSWERED: usize = 80;
/// Envelopes have numbers of three bytes, as nearly all of a round have.
const TYPICAL: Seq = Seq::new(1000);

/// A server of this program's own, in a process of its own, that has a key.
pub struct BareServer {
    /// What runs.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it shows.
    pub key: RelayKey,
}

impl BareServer {
    /// Starts [`serve`].
    pub fn quic(disk: &Disk) -> Self {
        Self::start("bare", &[], disk)
    }

    /// Starts [`serve`], so that it flushes.
    pub fn that_flushes(disk: &Disk) -> Self {
        Self::start("bare", &["--file-in", disk.folder.to_str().unwrap()], disk)
    }

    /// Starts a hidden command that says its key when it listens.
    pub fn start(command: &str, arguments: &[&str], disk: &Disk) -> Self {
        let (process, address, line) = start(command, arguments, disk);
        let key: Vec<u8> = line.split_whitespace().map(|byte| byte.parse().unwrap()).collect();
        Self { process, address, key: RelayKey::from_bytes(key.try_into().unwrap()) }
    }
}

/// Starts [`serve_datagrams`].
pub fn datagrams(disk: &Disk) -> (Process, SocketAddr) {
    let (process, address, _) = start("datagrams", &[], disk);
    (process, address)
}

fn start(command: &str, arguments: &[&str], disk: &Disk) -> (Process, SocketAddr, String) {
    let port = free_port();
    let text = port.to_string();
    let (process, line) = Process::own(&[&[command, "--port", &text], arguments].concat(), disk);
    (process, local(port), line)
}

/// Says that a server listens, and its key.
pub fn announce(secret: &RelaySecret) {
    let key: Vec<String> = secret.public().unwrap().as_bytes().iter().map(u8::to_string).collect();
    say(&key.join(" "));
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The relay's settings for one who has proved something (`transport` in `relay/src/server/mod.rs`).
fn transport(options: &ServerOptions) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(options.idle_timeout.try_into().unwrap()))
        .keep_alive_interval(Some(options.keep_alive))
        .max_concurrent_bidi_streams(VarInt::from_u32(16))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(512 << 10))
        .receive_window(VarInt::from_u32(2 << 20))
        .send_window(1 << 20)
        .datagram_receive_buffer_size(None);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(64 << 10);
    transport.congestion_controller_factory(Arc::new(congestion));
    transport
}

/// Serves until it is killed. Every stream is one task, as in the relay. Says its key when it listens.
pub async fn serve(port: u16, file_in: Option<PathBuf>) {
    let (secret, options) = (RelaySecret::generate(&mut rand::rng()), ServerOptions::default());
    let crypto = QuicServerConfig::try_from(secret.tls(ALPN).unwrap()).unwrap();
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(&options)));
    let socket = std::net::UdpSocket::bind(local(port)).unwrap();
    let wide = socket2::SockRef::from(&socket);
    wide.set_recv_buffer_size(options.socket_buffer).unwrap();
    wide.set_send_buffer_size(options.socket_buffer).unwrap();
    let endpoint =
        Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime)).unwrap();
    announce(&secret);
    let file = file_in.map(|folder| tempfile::tempfile_in(folder).unwrap());
    let frames = Arc::new(Outgoing::new(file));
    // On the runtime's threads, where the relay's is.
    let accepting = tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let frames = Arc::clone(&frames);
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((answers, requests)) = connection.accept_bi().await {
                    tokio::spawn(exchange(
                        connection.clone(),
                        answers,
                        Frames::new(requests),
                        Arc::clone(&frames),
                    ));
                }
            });
        }
    });
    accepting.await.unwrap();
}

/// What is sent, and to whom messages go.
struct Outgoing {
    /// The answer to an append.
    stored: Answer,
    /// The answer to anything else.
    done: Answer,
    /// A notice but for its envelope, which is its end.
    notice: Vec<u8>,
    /// The stream of notices of the first who sent anything but an append.
    subscriber: OnceLock<tokio::sync::Mutex<SendStream>>,
    /// What is taken, flushed before it is answered or handed over.
    file: Option<Mutex<File>>,
}

impl Outgoing {
    fn new(file: Option<File>) -> Self {
        let place = Stored { seq: TYPICAL, hash: RunningHash::from_bytes([0; 32]) };
        let item = Item { place, envelope: ByteBuf::from(vec![0; LENGTH]) };
        let window = Window { mailbox: MailboxId::from_bytes([0; 32]), newest: TYPICAL, items: vec![item] };
        let mut notice = encode_frame(&Notice::Window(window)).unwrap();
        notice.truncate(notice.len() - LENGTH);
        Self {
            stored: Answer::new(ResponseBody::Stored(place)),
            done: Answer::new(ResponseBody::Done),
            notice,
            subscriber: OnceLock::new(),
            file: file.map(Mutex::new),
        }
    }
}

/// A response, encoded but for the request's number.
struct Answer {
    /// What precedes the number, without the frame's length.
    head: Vec<u8>,
    /// What follows it.
    tail: Vec<u8>,
}

impl Answer {
    /// Where the number is in a request and in its answer: the frame is a map whose first key is `id`.
    const NUMBER: usize = 4;

    fn new(body: ResponseBody) -> Self {
        let frame = encode_frame(&Response { id: 0, body }).unwrap();
        let (head, rest) = frame[FRAME_PREFIX..].split_at(Self::NUMBER);
        Self { head: head.to_vec(), tail: rest[1..].to_vec() }
    }

    /// Appends the answer to a request.
    fn to(&self, request: &[u8], out: &mut Vec<u8>) {
        // RFC 8949 section 3: small numbers are in the first byte, others in 1, 2, 4 or 8 more.
        let width = match request[Self::NUMBER] {
            code @ 0x18..=0x1b => 1 + (1 << (code - 0x18)),
            _ => 1,
        };
        let number = &request[Self::NUMBER..Self::NUMBER + width];
        let length = u32::try_from(self.head.len() + width + self.tail.len()).unwrap();
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(number);
        out.extend_from_slice(&self.tail);
    }
}

/// Answers one stream until it ends or its connection goes.
async fn exchange(connection: Connection, mut answers: SendStream, mut requests: Frames, to: Arc<Outgoing>) {
    let mut out = Vec::new();
    loop {
        while let Some(request) = requests.ready_bytes() {
            if let Some(end) = request.len().checked_sub(LENGTH) {
                if let Some(file) = &to.file {
                    // On the thread that received it: no other way is shorter.
                    let mut file = file.lock().unwrap();
                    file.write_all(&request[end..]).unwrap();
                    file.sync_data().unwrap();
                }
                if let Some(subscriber) = to.subscriber.get() {
                    // An append ends with its envelope, too.
                    let notice = [to.notice.as_slice(), &request[end..]].concat();
                    subscriber.lock().await.write_all(&notice).await.ok();
                }
                to.stored.to(request, &mut out);
            } else {
                if to.subscriber.get().is_none() {
                    let Ok(notices) = connection.open_uni().await else { return };
                    // Only one subscribes.
                    to.subscriber.set(tokio::sync::Mutex::new(notices)).ok();
                }
                to.done.to(request, &mut out);
            }
        }
        if !out.is_empty() {
            if answers.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
        }
        if !requests.fill().await {
            return;
        }
    }
}

/// Answers datagrams with shorter ones until it is killed: what the kernel and the runtime alone take, without TLS, order or
/// repetition, and with a call of the system for each datagram.
pub async fn serve_datagrams(port: u16) {
    let socket = UdpSocket::bind(local(port)).await.unwrap();
    say("");
    let serving = tokio::spawn(async move {
        let mut bytes = [0; 2 * ASKED];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            assert_eq!(length, ASKED);
            socket.send_to(&bytes[..ANSWERED], from).await.unwrap();
        }
    });
    serving.await.unwrap();
}

#[cfg(test)]
mod tests {
    use lapwing_wire::frame::{Append, Request, decode_request};

    use super::*;

    const MAILBOX: MailboxId = MailboxId::from_bytes([7; 32]);

    fn append(id: u64) -> Vec<u8> {
        let append = Append { mailbox: MAILBOX, envelope: ByteBuf::from(vec![0x5a; LENGTH]) };
        encode_frame(&Request { id, body: RequestBody::Append(append) }).unwrap()
    }

    #[test]
    fn an_answer_is_the_relays_own() {
        let place = Stored { seq: TYPICAL, hash: RunningHash::from_bytes([0; 32]) };
        let frames = Outgoing::new(None);
        for id in [1, 0x17, 0x18, 0xff, 0x100, 0xffff, 0x1_0000, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            for (answer, body) in
                [(&frames.stored, ResponseBody::Stored(place)), (&frames.done, ResponseBody::Done)]
            {
                let mut out = Vec::new();
                answer.to(&append(id)[FRAME_PREFIX..], &mut out);
                assert_eq!(out, encode_frame(&Response { id, body }).unwrap());
            }
        }
    }

    #[test]
    fn frames_have_the_lengths_that_the_head_of_this_file_says() {
        let request = append(1000);
        let body = &request[FRAME_PREFIX..];
        assert!(decode_request(body).is_ok_and(|taken| taken.is_ok()));
        let (frames, mut answer) = (Outgoing::new(None), Vec::new());
        frames.stored.to(body, &mut answer);
        let notice = [frames.notice.as_slice(), &body[body.len() - LENGTH..]].concat();
        let Notice::Window(window) =
            lapwing_wire::codec::decode(&notice[FRAME_PREFIX..], lapwing_wire::limits::MAX_FRAME).unwrap();
        assert_eq!(window.items[0].envelope.as_slice(), [0x5a; LENGTH]);
        assert_eq!((request.len(), answer.len(), notice.len()), (1103, 71, 1162));
    }
}
