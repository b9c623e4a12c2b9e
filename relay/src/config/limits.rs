//! What clients may use, as the operator writes it.

use serde::{Deserialize, Serialize};

use super::{Size, Span};
use crate::limits::Limits;

/// `[limits]`; see [`Limits`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsConfig {
    /// See [`Limits::mailbox_bytes`].
    pub mailbox_size: Size,
    /// See [`Limits::admin_reserve_bytes`].
    pub admin_reserve: Size,
    /// See [`Limits::retention`].
    pub retention: Span,
    /// See [`Limits::blob_retention`].
    pub blob_retention: Span,
    /// See [`Limits::unfinished_blob_retention`].
    pub unfinished_blobs: Span,
    /// See [`Limits::blob_bytes`].
    pub blob_size: Size,
    /// See [`Limits::ticket_blob_bytes`].
    pub blobs_per_ticket: Size,
    /// See [`Limits::open_creation`].
    pub open: bool,
    /// See [`Limits::proofs_per_connection`].
    pub proofs_per_connection: usize,
    /// See [`Limits::subscriptions_per_connection`].
    pub subscriptions_per_connection: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let Limits {
            mailbox_bytes,
            admin_reserve_bytes,
            retention,
            blob_retention,
            unfinished_blob_retention,
            blob_bytes,
            ticket_blob_bytes,
            open_creation,
            proofs_per_connection,
            subscriptions_per_connection,
        } = Limits::default();
        Self {
            mailbox_size: Size(mailbox_bytes),
            admin_reserve: Size(admin_reserve_bytes),
            retention: Span(retention),
            blob_retention: Span(blob_retention),
            unfinished_blobs: Span(unfinished_blob_retention),
            blob_size: Size(blob_bytes),
            blobs_per_ticket: Size(ticket_blob_bytes),
            open: open_creation,
            proofs_per_connection,
            subscriptions_per_connection,
        }
    }
}

impl LimitsConfig {
    /// The service's bounds.
    pub(super) fn bounds(&self) -> Limits {
        let LimitsConfig {
            mailbox_size,
            admin_reserve,
            retention,
            blob_retention,
            unfinished_blobs,
            blob_size,
            blobs_per_ticket,
            open,
            proofs_per_connection,
            subscriptions_per_connection,
        } = self;
        Limits {
            mailbox_bytes: mailbox_size.0,
            admin_reserve_bytes: admin_reserve.0,
            retention: retention.0,
            blob_retention: blob_retention.0,
            unfinished_blob_retention: unfinished_blobs.0,
            blob_bytes: blob_size.0,
            ticket_blob_bytes: blobs_per_ticket.0,
            open_creation: *open,
            proofs_per_connection: *proofs_per_connection,
            subscriptions_per_connection: *subscriptions_per_connection,
        }
    }
}
