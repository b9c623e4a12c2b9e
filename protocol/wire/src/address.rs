//! Where a relay is and which key it must show; access tickets, which add the right to create mailboxes.
//!
//! Text of an address: `relay://KEY@HOST:PORT`, KEY being base32 of the hash of the relay's public key.
//! Text of an access ticket: `lapwing-access:` and armoured CBOR of address and seed.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    armor::{self, ArmorError},
    capability::{Access, SecretKey},
    codec,
    ids::labelled_hash,
    labels,
};

const SCHEME: &str = "relay://";
const ACCESS_PREFIX: &str = "lapwing-access";
const MAX_HOST: usize = 253;
const MAX_ACCESS_BYTES: usize = 512;

/// Hash of a relay's public key (its RFC 7250 SubjectPublicKeyInfo); the relay is this key, wherever it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelayKey(#[serde(with = "serde_bytes")] [u8; 32]);

impl RelayKey {
    /// The name of the relay that shows this SubjectPublicKeyInfo.
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(labelled_hash(labels::RELAY_KEY, &[spki]))
    }

    /// The key with this hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayKey(..)")
    }
}

/// A host name or address and a port, as an operator gives it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawAddress", into = "RawAddress")]
pub struct RelayAddress {
    key: RelayKey,
    host: String,
    port: u16,
}

#[derive(Clone, Serialize, Deserialize)]
struct RawAddress {
    key: RelayKey,
    host: String,
    port: u16,
}

/// Text that is no relay address or access ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not of the form `relay://KEY@HOST:PORT`.
    #[error("not a relay address of the form relay://KEY@HOST:PORT")]
    Form,
    /// The key part is not 32 bytes of base32.
    #[error("the key in the relay address is damaged")]
    Key,
    /// The host is empty, too long or holds characters that no host has.
    #[error("the host in the relay address is not a host name or address")]
    Host,
    /// The port is missing, zero or too large.
    #[error("the port in the relay address is missing or not between 1 and 65535")]
    Port,
    /// The access ticket's text is damaged or another kind of text.
    #[error(transparent)]
    Ticket(#[from] ArmorError),
}

impl RelayAddress {
    /// An address.
    ///
    /// # Errors
    /// [`AddressError::Host`] and [`AddressError::Port`].
    pub fn new(key: RelayKey, host: &str, port: u16) -> Result<Self, AddressError> {
        if port == 0 {
            return Err(AddressError::Port);
        }
        let named = !host.is_empty()
            && host.len() <= MAX_HOST
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_');
        if !named && host.parse::<IpAddr>().is_err() {
            return Err(AddressError::Host);
        }
        Ok(Self { key, host: host.to_ascii_lowercase(), port })
    }

    /// The key that the relay must show.
    pub const fn key(&self) -> &RelayKey {
        &self.key
    }

    /// Host name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// UDP port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl TryFrom<RawAddress> for RelayAddress {
    type Error = AddressError;
    fn try_from(raw: RawAddress) -> Result<Self, AddressError> {
        Self::new(raw.key, &raw.host, raw.port)
    }
}

impl From<RelayAddress> for RawAddress {
    fn from(RelayAddress { key, host, port }: RelayAddress) -> Self {
        Self { key, host, port }
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = data_encoding::BASE32_NOPAD.encode(&self.key.0).to_ascii_lowercase();
        if self.host.contains(':') {
            write!(f, "{SCHEME}{key}@[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{SCHEME}{key}@{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayAddress(..)")
    }
}

impl FromStr for RelayAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(AddressError::Form)?;
        let (key, place) = rest.split_once('@').ok_or(AddressError::Form)?;
        let key = data_encoding::BASE32_NOPAD
            .decode(key.to_ascii_uppercase().as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(AddressError::Key)?;
        let (host, port) = place.rsplit_once(':').ok_or(AddressError::Port)?;
        let host = match (host.strip_prefix('['), host.contains(':')) {
            (Some(inner), _) => inner.strip_suffix(']').ok_or(AddressError::Host)?,
            (None, true) => return Err(AddressError::Host),
            (None, false) => host,
        };
        let port = port.parse().map_err(|_| AddressError::Port)?;
        Self::new(RelayKey(key), host, port)
    }
}

/// The operator's permission to create mailboxes on a relay: its address and a signing seed.
///
/// # Security
/// Whoever holds the text may use the quota that the operator gave it; it opens nothing else.
#[derive(Debug)]
pub struct AccessTicket {
    relay: RelayAddress,
    secret: SecretKey<Access>,
}

#[derive(Serialize, Deserialize)]
struct RawAccessTicket {
    relay: RelayAddress,
    #[serde(with = "serde_bytes")]
    seed: [u8; 32],
}

impl AccessTicket {
    /// A ticket for `relay`.
    pub const fn new(relay: RelayAddress, secret: SecretKey<Access>) -> Self {
        Self { relay, secret }
    }

    /// The relay that issued it.
    pub const fn relay(&self) -> &RelayAddress {
        &self.relay
    }

    /// The key that proves it.
    pub const fn secret(&self) -> &SecretKey<Access> {
        &self.secret
    }

    /// The text that an operator hands out.
    pub fn to_text(&self) -> String {
        let raw = RawAccessTicket { relay: self.relay.clone(), seed: *self.secret.expose_seed() };
        armor::encode(ACCESS_PREFIX, &codec::encode(&raw))
    }

    /// Reads the text of an access ticket.
    ///
    /// # Errors
    /// [`AddressError::Ticket`] for damaged or foreign text.
    pub fn from_text(text: &str) -> Result<Self, AddressError> {
        let bytes = armor::decode(ACCESS_PREFIX, text)?;
        let raw: RawAccessTicket =
            codec::decode(&bytes, MAX_ACCESS_BYTES).map_err(|_| AddressError::Ticket(ArmorError::Damaged))?;
        Ok(Self { relay: raw.relay, secret: SecretKey::from_seed(raw.seed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RelayKey {
        RelayKey::of_spki(b"a key")
    }

    #[test]
    fn addresses_round_trip() {
        for host in ["example.org", "127.0.0.1", "::1", "2001:db8::7"] {
            let address = RelayAddress::new(key(), host, 4433).unwrap();
            assert_eq!(address.to_string().parse::<RelayAddress>().unwrap(), address);
        }
    }

    #[test]
    fn broken_addresses_say_what_is_wrong() {
        let good = RelayAddress::new(key(), "h", 1).unwrap().to_string();
        let cases = [
            ("http://x".to_owned(), AddressError::Form),
            (good.replace('@', ""), AddressError::Form),
            (good.replace("relay://", "relay://1"), AddressError::Key),
            (good.replace("h:1", "h"), AddressError::Port),
            (good.replace("h:1", "h:0"), AddressError::Port),
            (good.replace("h:1", "h:70000"), AddressError::Port),
            (good.replace("h:1", "h i:1"), AddressError::Host),
            (good.replace("h:1", "::1:1"), AddressError::Host),
            (good.replace("h:1", "\u{1b}[2J:1"), AddressError::Host),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<RelayAddress>().unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn access_tickets_round_trip_and_hide_their_seed() {
        let ticket = AccessTicket::new(
            RelayAddress::new(key(), "example.org", 443).unwrap(),
            SecretKey::from_seed([9; 32]),
        );
        let back = AccessTicket::from_text(&ticket.to_text()).unwrap();
        assert_eq!(back.relay(), ticket.relay());
        assert_eq!(back.secret().public(), ticket.secret().public());
        assert!(!format!("{ticket:?}").contains('9'));
    }
}
