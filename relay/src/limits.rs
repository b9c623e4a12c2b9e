//! What the operator allows. Each bound has a unit, a default and what happens at it.

use std::time::Duration;

use lapwing_wire::limits::{DEFAULT_MAILBOX_BYTES, DEFAULT_RETENTION, MAX_BLOB};

/// Bounds that the service enforces; may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of envelopes in one mailbox; above, `append` is answered `full`.
    pub mailbox_bytes: u64,
    /// Bytes of each mailbox beyond `mailbox_bytes` and beyond its access ticket's quota for whoever proved the admin
    /// right: members cannot fill a log against their removal.
    pub admin_reserve_bytes: u64,
    /// How long envelopes are kept, in whole days, rounded up.
    pub retention: Duration,
    /// How long complete blobs are kept, in whole days, rounded up.
    pub blob_retention: Duration,
    /// How long a blob may stay unfinished, in whole days, rounded up.
    pub unfinished_blob_retention: Duration,
    /// Largest blob in bytes, at most [`MAX_BLOB`]; above, `too_large`.
    pub blob_bytes: u64,
    /// Bytes of blobs that one access ticket may hold, within its quota; above, `no_access`. The default leaves half of a default
    /// ticket to envelopes: attachments alone keep nobody from writing.
    pub ticket_blob_bytes: u64,
    /// Whether everybody may create mailboxes, blobs and tripwires without an access ticket. Nothing then bounds
    /// what strangers store but the disk's reserve.
    pub open_creation: bool,
    /// Proofs that one connection may hold (about 100 bytes each); above, `busy`.
    pub proofs_per_connection: usize,
    /// Mailboxes that one connection may subscribe to (about 200 bytes each); above, `busy`.
    pub subscriptions_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox_bytes: DEFAULT_MAILBOX_BYTES,
            admin_reserve_bytes: 4 << 20,
            retention: DEFAULT_RETENTION,
            blob_retention: DEFAULT_RETENTION,
            unfinished_blob_retention: Duration::from_secs(24 * 3600),
            blob_bytes: MAX_BLOB,
            ticket_blob_bytes: 512 << 20,
            open_creation: false,
            proofs_per_connection: 4096,
            subscriptions_per_connection: 2048,
        }
    }
}
