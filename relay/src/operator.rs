//! What an operator may ask of a relay.
//!
//! A running relay answers on a Unix socket (mode 0600, same user only): one JSON line each way. A relay that does
//! not run is asked through its store. Both give the same answers.

use std::{path::Path, sync::Arc, time::Duration};

use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    capability::{Access, PublicKey, SecretKey},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    service::Service,
    store::{KeptStore, Ticket},
};

/// Longest line either way.
const MAX_LINE: u64 = 1 << 20;
/// How long an operator's program may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// Letters of a ticket's name: 64 bits, so that no two of one relay are alike.
const NAME_LETTERS: usize = 13;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How the relay does.
    Status,
    /// A new access ticket.
    AccessIssue {
        /// Its quota in bytes.
        bytes: u64,
        /// Its quota in mailboxes.
        mailboxes: u64,
        /// When it ends.
        expires: Option<Timestamp>,
    },
    /// All access tickets.
    AccessList,
    /// Ends an access ticket.
    AccessRevoke {
        /// Its name, as listed.
        name: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How the relay does.
    Status(Status),
    /// The text of a new access ticket. It is shown once; the relay keeps the public half.
    Issued {
        /// As listed.
        name: String,
        /// To be handed out.
        ticket: String,
    },
    /// All access tickets.
    Tickets(Vec<TicketLine>),
    /// It is done.
    Done,
    /// There is no such ticket, or more than one.
    NoSuchTicket,
    /// The relay's port is not fixed and it does not run: it has no address yet.
    NoAddress,
    /// The store refused.
    Failed(String),
}

/// How a relay does. Sums only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This program's version.
    pub version: String,
    /// What to hand out.
    pub address: Option<String>,
    /// Connections now; `None` if it does not run.
    pub connections: Option<usize>,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Bytes of waiting envelopes.
    pub envelope_bytes: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Bytes of blobs.
    pub blob_bytes: u64,
    /// Valid access tickets.
    pub tickets: u64,
    /// Bytes of the store on disk.
    pub disk_bytes: u64,
    /// Bytes that are free on its file system.
    pub free_bytes: u64,
    /// Commits slower than half a second since the start.
    pub slow_commits: u64,
    /// The slowest commit since the start, in milliseconds.
    pub slowest_commit_ms: u64,
    /// For how long the commit that runs now has been running, in milliseconds.
    pub running_commit_ms: Option<u64>,
    /// The disk is full and nothing new is taken.
    pub is_full: bool,
    /// Receive buffer that the system granted; `None` if it does not run.
    pub socket_buffer: Option<usize>,
}

/// One access ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketLine {
    /// Made from its public key.
    pub name: String,
    /// Quota and use.
    pub quota_bytes: u64,
    /// In use.
    pub used_bytes: u64,
    /// Quota.
    pub quota_mailboxes: u64,
    /// In use.
    pub used_mailboxes: u64,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Whether it may be used.
    pub is_valid: bool,
}

/// A relay as its operator sees it.
pub struct Desk {
    /// What it does.
    pub service: Arc<Service>,
    /// Where it keeps.
    pub store: Arc<dyn KeptStore>,
    /// What it hands out, once its port is known.
    pub address: Option<RelayAddress>,
    /// Folder of the store.
    pub store_path: std::path::PathBuf,
    /// Connections now and the receive buffer that was granted, if it runs.
    pub network: Option<Box<dyn Fn() -> (usize, usize) + Send + Sync>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk(..)")
    }
}

impl Desk {
    /// Answers one question.
    pub async fn answer(&self, ask: Ask, now: Timestamp) -> Reply {
        let answer = match ask {
            Ask::Status => self.status(now).await,
            Ask::AccessIssue { bytes, mailboxes, expires } => {
                self.issue(bytes, mailboxes, expires, now).await
            }
            Ask::AccessList => self.list(now).await,
            Ask::AccessRevoke { name } => self.revoke(&name, now).await,
        };
        answer.unwrap_or_else(|error| Reply::Failed(error.to_string()))
    }

    async fn status(&self, now: Timestamp) -> Result<Reply, crate::store::StoreError> {
        let totals = self.service.totals(now).await?;
        let health = self.store.health();
        let network = self.network.as_ref().map(|ask| ask());
        Ok(Reply::Status(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.address.as_ref().map(RelayAddress::to_string),
            connections: network.map(|(connections, _)| connections),
            mailboxes: totals.mailboxes,
            envelope_bytes: totals.envelope_bytes,
            blobs: totals.blobs,
            blob_bytes: totals.blob_bytes,
            tickets: totals.tickets,
            disk_bytes: self.store.disk_bytes()?,
            free_bytes: crate::store::free_bytes(&self.store_path)?,
            slow_commits: health.slow_commits,
            slowest_commit_ms: u64::try_from(health.slowest_commit.as_millis()).unwrap_or(u64::MAX),
            running_commit_ms: health
                .running_commit
                .map(|running| u64::try_from(running.as_millis()).unwrap_or(u64::MAX)),
            is_full: health.is_full,
            socket_buffer: network.map(|(_, buffer)| buffer),
        }))
    }

    async fn issue(
        &self,
        bytes: u64,
        mailboxes: u64,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Reply, crate::store::StoreError> {
        let Some(address) = self.address.clone() else { return Ok(Reply::NoAddress) };
        let secret = SecretKey::<Access>::generate(&mut rand::rng());
        let key = secret.public();
        self.service.issue_access(Ticket::new(key, bytes, mailboxes, expires), now).await?;
        let ticket = AccessTicket::new(address, secret).to_text();
        Ok(Reply::Issued { name: ticket_name(&key), ticket })
    }

    async fn list(&self, now: Timestamp) -> Result<Reply, crate::store::StoreError> {
        let tickets = self.service.access_tickets().await?;
        let lines = tickets.into_iter().map(|ticket| TicketLine {
            name: ticket_name(&ticket.key),
            quota_bytes: ticket.quota_bytes,
            used_bytes: ticket.used_bytes,
            quota_mailboxes: ticket.quota_mailboxes,
            used_mailboxes: ticket.used_mailboxes,
            expires: ticket.expires,
            is_valid: ticket.is_valid(now),
        });
        Ok(Reply::Tickets(lines.collect()))
    }

    async fn revoke(&self, name: &str, now: Timestamp) -> Result<Reply, crate::store::StoreError> {
        let tickets = self.service.access_tickets().await?;
        let named: Vec<_> = tickets.iter().filter(|ticket| ticket_name(&ticket.key) == name).collect();
        let [ticket] = named.as_slice() else { return Ok(Reply::NoSuchTicket) };
        let is_done = self.service.revoke_access(ticket.key, now).await?;
        Ok(if is_done { Reply::Done } else { Reply::NoSuchTicket })
    }
}

/// The name under which a ticket is listed.
pub fn ticket_name(key: &PublicKey<Access>) -> String {
    let mut name = data_encoding::BASE32_NOPAD.encode(key.as_bytes());
    name.truncate(NAME_LETTERS);
    name.make_ascii_lowercase();
    name
}

/// Answers on the control socket until stopped. The socket's file is replaced and removed.
///
/// # Errors
/// What the system says about the socket's path.
pub fn listen(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder is 0700, so nobody connects before the mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves a control socket until stopped.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut calls = JoinSet::new();
    let own = nix::unistd::Uid::effective().as_raw();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            call = listener.accept() => {
                let Ok((stream, _)) = call else { continue };
                if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
                    let (desk, now) = (Arc::clone(&desk), clock.now());
                    calls.spawn(tokio::time::timeout(PATIENCE, reply(stream, desk, now)));
                }
            }
        }
    }
}

async fn reply(stream: UnixStream, desk: Arc<Desk>, now: Timestamp) -> std::io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut line = String::new();
    BufReader::new(from.take(MAX_LINE)).read_line(&mut line).await?;
    let reply = match serde_json::from_str::<Ask>(&line) {
        Ok(ask) => desk.answer(ask, now).await,
        Err(_) => Reply::Failed("the question was not understood".into()),
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    to.write_all(text.as_bytes()).await
}

/// Asks a running relay. `None` if none runs there.
///
/// # Errors
/// What the system says; a relay that does not answer in ten seconds is an error.
pub async fn ask(path: &Path, question: &Ask) -> std::io::Result<Option<Reply>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let exchange = async {
        let (from, mut to) = stream.into_split();
        let mut text = serde_json::to_string(question)?;
        text.push('\n');
        to.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(from.take(MAX_LINE)).read_line(&mut line).await?;
        Ok(Some(serde_json::from_str(&line)?))
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
}
