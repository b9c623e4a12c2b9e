//! Where and how to send to somebody.
//!
//! CBOR map: `{ "r": relay address, "m": mailbox id 32, "w": seed of the write capability 32, "k": envelope key 32 }`,
//! at most [`MAX_ROUTE`] bytes. It travels inside sessions and lies inside the vault; a ticket packs it closer.

use std::fmt;

use lapwing_wire::{
    address::RelayAddress,
    capability::{SecretKey, Write},
    codec::{self, DecodeError},
    ids::MailboxId,
};
use serde::{Deserialize, Serialize};

use crate::{
    envelope::{self, EnvelopeKey, TooLong},
    seal::RawSecret,
    secret::SecretBytes,
};
use rand_core::CryptoRng;

/// Longest encoded route in bytes: three keys, and a host name of 253.
pub const MAX_ROUTE: usize = 512;

/// Where and how to send to somebody: a relay, a mailbox there, the right to append to it and the key that seals
/// what is appended.
///
/// # Security
/// Secret: whoever holds it may fill the mailbox. It reads nothing.
pub struct Route {
    /// The relay that holds the mailbox.
    pub relay: RelayAddress,
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The right to append.
    pub write: SecretKey<Write>,
    /// Seals the envelopes.
    pub key: EnvelopeKey,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawRoute {
    r: RelayAddress,
    m: MailboxId,
    w: RawSecret,
    k: RawSecret,
}

impl Route {
    /// A second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let Self { relay, mailbox, write, key } = self;
        Self {
            relay: relay.clone(),
            mailbox: *mailbox,
            write: SecretKey::from_seed(*write.expose_seed()),
            key: key.duplicate(),
        }
    }

    /// Seals `content` for the mailbox of this route.
    ///
    /// # Errors
    /// [`TooLong`] above [`MAX_CONTENT`](crate::envelope::MAX_CONTENT) bytes.
    pub fn seal(&self, content: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Result<Vec<u8>, TooLong> {
        envelope::seal(&self.key, &self.mailbox, content, rng)
    }

    /// The route's bytes, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> SecretBytes {
        SecretBytes::new(codec::encode(&self.raw()))
    }

    /// Reads what [`Route::export`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, MAX_ROUTE).map(Self::from_raw)
    }

    pub(crate) fn raw(&self) -> RawRoute {
        let Self { relay, mailbox, write, key } = self;
        RawRoute { r: relay.clone(), m: *mailbox, w: RawSecret::new(*write.expose_seed()), k: key.raw() }
    }

    pub(crate) fn from_raw(raw: RawRoute) -> Self {
        let RawRoute { r, m, w, k } = raw;
        Self {
            relay: r,
            mailbox: m,
            write: SecretKey::from_seed(*w.expose()),
            key: EnvelopeKey::from_raw(&k),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relay: _, mailbox: _, write: _, key: _ } = self;
        f.write_str("Route(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn routes_round_trip_and_fit_with_the_longest_host() {
        let relay = RelayAddress::new(*testing::relay().key(), &"h".repeat(253), 65_535).unwrap();
        for route in [testing::route(1), Route { relay, ..testing::route(2) }] {
            let bytes = route.export();
            assert!(bytes.expose().len() <= MAX_ROUTE);
            let back = Route::import(bytes.expose()).unwrap();
            assert_eq!(back.export().expose(), bytes.expose());
            assert_eq!(back.duplicate().export().expose(), bytes.expose());
        }
    }

    #[test]
    fn a_route_with_a_host_that_is_none_is_refused() {
        let bytes = testing::route(1).export().expose().to_vec();
        let at = bytes.windows(7).position(|part| part == b"example").unwrap();
        for byte in [0x1b, b' ', b'@'] {
            let mut changed = bytes.clone();
            changed[at] = byte;
            assert!(Route::import(&changed).is_err());
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", testing::route(1)), "Route(..)");
    }
}
