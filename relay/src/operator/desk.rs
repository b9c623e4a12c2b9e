//! Who answers an operator, whether the relay runs or not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    capability::{Access, SecretKey},
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use super::{Ask, Reply, Status, TicketLine, ticket_name};
use crate::{
    place::Place,
    server::Server,
    service::Service,
    store::{KeptStore, Ticket},
};

/// A relay as its operator sees it.
pub struct Desk {
    service: Arc<Service>,
    store: Arc<dyn KeptStore>,
    place: Place,
    address: Mutex<Option<RelayAddress>>,
    running: Option<Running>,
}

/// What there is only of a relay that runs.
pub struct Running {
    /// Its network.
    pub server: Weak<Server>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk(..)")
    }
}

impl Desk {
    /// The desk of a relay: what it does, where it keeps, its folder, and what it hands out once its port is known.
    pub fn new(
        service: Arc<Service>,
        store: Arc<dyn KeptStore>,
        place: Place,
        address: Option<RelayAddress>,
        running: Option<Running>,
    ) -> Self {
        Self { service, store, place, address: Mutex::new(address), running }
    }

    /// What the relay does.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Where it keeps.
    pub fn store(&self) -> &Arc<dyn KeptStore> {
        &self.store
    }

    /// Answers one question.
    pub async fn answer(&self, ask: Ask, now: Timestamp) -> Reply {
        let answer = match ask {
            Ask::Status => self.status(now).await,
            Ask::AccessIssue { bytes, mailboxes, expires } => {
                self.issue(bytes, mailboxes, expires, now).await
            }
            Ask::AccessList => self.list(now).await,
            Ask::AccessRevoke { name } => self.revoke(&name, now).await,
            Ask::RotateKey => Ok(self.rotate()),
            Ask::Rows => Ok(Reply::Rows),
            Ask::Stop => {
                if let Some(running) = &self.running {
                    running.stop.cancel();
                }
                Ok(Reply::Done)
            }
        };
        answer.unwrap_or_else(|error| failed(&error, error.hint()))
    }

    async fn status(&self, now: Timestamp) -> Result<Reply, crate::store::StoreError> {
        let totals = self.service.totals(now).await?;
        let health = self.store.health();
        let server = self.running.as_ref().and_then(|running| running.server.upgrade());
        let network = server.map(|server| (server.connections(), server.socket_buffers().0));
        Ok(Reply::Status(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.address().as_ref().map(RelayAddress::to_string),
            connections: network.map(|(connections, _)| connections),
            mailboxes: totals.mailboxes,
            envelope_bytes: totals.envelope_bytes,
            blobs: totals.blobs,
            blob_bytes: totals.blob_bytes,
            tickets: totals.tickets,
            disk_bytes: self.store.disk_bytes()?,
            free_bytes: crate::store::free_bytes(&self.place.store())?,
            slow_commits: health.slow_commits,
            slowest_commit_ms: u64::try_from(health.slowest_commit.as_millis()).unwrap_or(u64::MAX),
            running_commit_ms: health
                .running_commit
                .map(|running| u64::try_from(running.as_millis()).unwrap_or(u64::MAX)),
            is_full: health.is_full,
            pressure: health.pressure,
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
        let Some(address) = self.address() else { return Ok(Reply::NoAddress) };
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

    /// A file that cannot be written leaves the old key, or a change that the next start finishes.
    fn rotate(&self) -> Reply {
        // To the end: of two changes at once the later one's key must be the one that is shown.
        let mut address = self.locked_address();
        let changed = self.place.rotate(&mut rand::rng()).and_then(|next| {
            let (lineage, key) = (self.place.lineage()?, next.public()?);
            Ok((next, lineage, key))
        });
        let (next, lineage, key) = match changed {
            Ok(changed) => changed,
            Err(error) => return failed(&error, error.hint()),
        };
        // First what leads to the new key, then the key itself.
        self.service.set_lineage(lineage);
        if let Some(server) = self.running.as_ref().and_then(|running| running.server.upgrade())
            && let Err(error) = server.set_key(&next)
        {
            return failed(&error, "start the relay again: the new key is in its folder");
        }
        *address = address.take().and_then(|old| RelayAddress::new(key, old.host(), old.port()).ok());
        Reply::Rotated { address: address.as_ref().map(RelayAddress::to_string) }
    }

    fn address(&self) -> Option<RelayAddress> {
        self.locked_address().clone()
    }

    fn locked_address(&self) -> MutexGuard<'_, Option<RelayAddress>> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: &impl std::error::Error, hint: &str) -> Reply {
    Reply::Failed { message: error.to_string(), hint: hint.to_owned() }
}
