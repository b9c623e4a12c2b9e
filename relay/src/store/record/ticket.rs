//! Access tickets as they are kept.

use lapwing_wire::{
    capability::{Access, PublicKey},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// An access ticket as the relay knows it: its public half, what it may use and what it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Proved by whoever uses it.
    pub key: PublicKey<Access>,
    /// Most bytes of envelopes, blobs and tripwires at one time.
    pub quota_bytes: u64,
    /// Most mailboxes at one time.
    pub quota_mailboxes: u64,
    /// Not valid from here on.
    pub expires: Option<Timestamp>,
    /// Ended by the operator.
    pub revoked: bool,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Mailboxes in use.
    pub used_mailboxes: u64,
    /// Bytes of blobs among those in use. Blobs of programs that did not count them are none.
    #[serde(default)]
    pub used_blob_bytes: u64,
}

impl Ticket {
    /// An unused ticket.
    pub const fn new(
        key: PublicKey<Access>,
        quota_bytes: u64,
        quota_mailboxes: u64,
        expires: Option<Timestamp>,
    ) -> Self {
        Self {
            key,
            quota_bytes,
            quota_mailboxes,
            expires,
            revoked: false,
            used_bytes: 0,
            used_mailboxes: 0,
            used_blob_bytes: 0,
        }
    }

    /// Whether it may be used for something new.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use lapwing_wire::codec;

    use super::*;

    /// As programs wrote it that did not count blobs apart.
    #[derive(Serialize, Deserialize)]
    struct Before {
        key: PublicKey<Access>,
        quota_bytes: u64,
        quota_mailboxes: u64,
        expires: Option<Timestamp>,
        revoked: bool,
        used_bytes: u64,
        used_mailboxes: u64,
    }

    #[test]
    fn a_ticket_of_before_has_no_blobs_counted_and_one_of_now_is_read_by_what_was_before() {
        let key = PublicKey::from_bytes([1; 32]);
        let before = Before {
            key,
            quota_bytes: 9,
            quota_mailboxes: 8,
            expires: None,
            revoked: true,
            used_bytes: 7,
            used_mailboxes: 6,
        };
        let read: Ticket = codec::decode(&codec::encode(&before), 1024).unwrap();
        let ticket =
            Ticket { revoked: true, used_bytes: 7, used_mailboxes: 6, ..Ticket::new(key, 9, 8, None) };
        assert_eq!(read, ticket);
        let now = Ticket { used_blob_bytes: 5, ..ticket };
        let bytes = codec::encode(&now);
        assert_eq!(codec::decode::<Ticket>(&bytes, 1024).unwrap(), now);
        assert_eq!(codec::decode::<Before>(&bytes, 1024).unwrap().used_bytes, 7);
    }
}
