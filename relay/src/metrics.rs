//! Numbers for a monitoring program, in the text format of Prometheus (version 0.0.4), over HTTP on this machine only.
//!
//! Sums of the whole relay: no label names a user, a mailbox or an address, and no request is counted by its
//! kind, refusals alone by theirs. Whoever records them sees when the relay is busy, so they are off unless the operator asks.

use std::{
    collections::VecDeque,
    fmt::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing_wire::frame::{Refusal, ResponseBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::store::{KeptStore, Pressure};

/// Longest head of a request; above, the connection ends.
const MAX_HEAD: usize = 8 << 10;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at a time. When one more comes, the oldest ends: whoever asks is answered in milliseconds, and whoever holds a place
/// and does not ask keeps nobody else waiting.
const AT_ONCE: usize = 16;
/// After a connection that the system could not hand over, because too many files are open: it would say so again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// What a server counts, without any label.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections now.
    pub(crate) connections: AtomicUsize,
    /// Handshakes under way now.
    pub(crate) handshakes: AtomicUsize,
    /// Connections that were made.
    pub(crate) accepted: AtomicU64,
    /// Connections that were refused, because there were too many.
    pub(crate) refused: AtomicU64,
    /// Addresses that were asked to prove that they receive.
    pub(crate) retried: AtomicU64,
    /// Envelopes that were answered `stored`.
    stored: AtomicU64,
    full: AtomicU64,
    pub(crate) busy: AtomicU64,
    no_access: AtomicU64,
}

impl Counters {
    /// Counts an answer.
    pub(crate) fn answered(&self, answer: &ResponseBody) {
        let counter = match answer {
            ResponseBody::Stored(_) => &self.stored,
            ResponseBody::Refused(Refusal::Full) => &self.full,
            ResponseBody::Refused(Refusal::Busy) => &self.busy,
            ResponseBody::Refused(Refusal::NoAccess) => &self.no_access,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is reported about one relay.
#[derive(Clone)]
pub struct Source {
    /// What its server counts.
    pub counters: Arc<Counters>,
    /// Where it keeps.
    pub store: Arc<dyn KeptStore>,
    /// Folder of the store.
    pub folder: std::path::PathBuf,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source(..)")
    }
}

impl Source {
    /// All numbers, in the format's text.
    pub fn render(&self) -> String {
        let Counters { connections, handshakes, accepted, refused, retried, stored, full, busy, no_access } =
            &*self.counters;
        let health = self.store.health();
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: f64| {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "# HELP lapwing_relay_{name} {help}\n# TYPE lapwing_relay_{name} {kind}\nlapwing_relay_{name} {value}\n"
            );
        };
        let now = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed) as f64;
        let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        add("connections", "gauge", "Connections now.", now(connections));
        add("handshakes", "gauge", "Handshakes under way now.", now(handshakes));
        add("connections_total", "counter", "Connections that were made.", sum(accepted));
        add(
            "connections_refused_total",
            "counter",
            "Connections refused because there were too many.",
            sum(refused),
        );
        add("address_checks_total", "counter", "Addresses asked to prove that they receive.", sum(retried));
        add(
            "envelopes_stored_total",
            "counter",
            "Envelopes answered as stored, retries included.",
            sum(stored),
        );
        add(
            "refused_full_total",
            "counter",
            "Requests refused because a mailbox or a ticket's quota is full.",
            sum(full),
        );
        add(
            "refused_busy_total",
            "counter",
            "Requests refused for now: nothing new is taken, there is no memory for the answer, or the disk cannot read.",
            sum(busy),
        );
        add(
            "refused_access_total",
            "counter",
            "Requests refused for want of an access ticket that is valid and has room.",
            sum(no_access),
        );
        add(
            "commits_slow_total",
            "counter",
            "Commits slower than half a second.",
            health.slow_commits as f64,
        );
        add(
            "commit_slowest_seconds",
            "gauge",
            "The slowest commit since the start.",
            health.slowest_commit.as_secs_f64(),
        );
        let running = health.running_commit.unwrap_or_default().as_secs_f64();
        add("commit_running_seconds", "gauge", "Age of the commit that runs now.", running);
        add(
            "disk_full",
            "gauge",
            "1 while the disk is full and nothing is taken.",
            f64::from(u8::from(health.is_full)),
        );
        add(
            "disk_pressure",
            "gauge",
            "0 with room, 1 while no new mailboxes and attachments are taken, 2 while nothing new is taken.",
            match health.pressure {
                Pressure::None => 0.0,
                Pressure::NothingBegins => 1.0,
                Pressure::NothingNew => 2.0,
            },
        );
        if let Ok(bytes) = self.store.disk_bytes() {
            add("disk_used_bytes", "gauge", "Bytes of the store on disk.", bytes as f64);
        }
        if let Ok(bytes) = crate::store::free_bytes(&self.folder) {
            add("disk_free_bytes", "gauge", "Bytes free on its file system.", bytes as f64);
        }
        text
    }
}

/// Listens for a monitoring program.
///
/// # Errors
/// What the system says.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until stopped.
pub async fn serve(listener: TcpListener, source: Source, stop: CancellationToken) {
    let mut calls = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            call = listener.accept() => {
                let Ok((stream, _)) = call else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                by_age.retain(|call| !call.is_finished());
                if by_age.len() >= AT_ONCE && let Some(oldest) = by_age.pop_front() {
                    oldest.abort();
                }
                by_age.push_back(calls.spawn(tokio::time::timeout(PATIENCE, answer(stream, source.clone()))));
            }
        }
    }
}

async fn answer(mut stream: TcpStream, source: Source) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await?;
        head.extend_from_slice(piece.get(..count).unwrap_or_default());
        if count == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
    }
    let (status, kind, body) = if head.starts_with(b"GET /metrics ") || head.starts_with(b"GET /metrics?") {
        ("200 OK", "text/plain; version=0.0.4; charset=utf-8", source.render())
    } else if head.starts_with(b"GET ") {
        ("404 Not Found", "text/plain", "see /metrics\n".to_owned())
    } else {
        ("405 Method Not Allowed", "text/plain", "GET /metrics\n".to_owned())
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
