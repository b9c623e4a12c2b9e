//! What every unlock of every vault tells the relays of its payload: one opaque token each (design 5.2).

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    codec,
    tripwire::Token,
};
use serde::{Deserialize, Serialize};

use super::{Client, TOKEN_WAIT, fault, generator};
use crate::{engine::Command, error::Error, store::PendingToken};

/// Longest encoded field: the vault's bound for what a payload may carry for us.
const MAX_FIELD: usize = lapwing_vault::APPLICATION_MAX;

/// The relays of a payload and the token for each. The same shape in every payload; nothing tells what a token means,
/// least of all to who holds it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PayloadRelays {
    #[serde(rename = "r")]
    relays: Vec<(RelayAddress, Token)>,
}

impl PayloadRelays {
    /// Reads a payload's field; an empty one has no relays.
    ///
    /// # Errors
    /// The vault was written by a newer version.
    pub fn decode(field: &[u8]) -> Result<Self, Error> {
        if field.is_empty() {
            return Ok(Self::default());
        }
        codec::decode(field, MAX_FIELD).map_err(|_| {
            Error::refused("this vault was written by a newer version of lapwing", "update lapwing")
        })
    }

    /// The field.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The token for a relay.
    #[must_use]
    pub fn token(&self, relay: &RelayKey) -> Option<&Token> {
        self.relays.iter().find(|(known, _)| known.key() == relay).map(|(_, token)| token)
    }

    /// Adds a relay with this token, unless it is there.
    pub fn add(&mut self, relay: RelayAddress, token: Token) {
        if self.token(relay.key()).is_none() {
            self.relays.push((relay, token));
        }
    }

    fn pairs(&self) -> &[(RelayAddress, Token)] {
        &self.relays
    }
}

impl Client {
    /// Records that every relay has to be told, tells them, and waits a bounded time for their answers. Before this
    /// returns nothing has been shown.
    pub(super) async fn present_tokens(&mut self) -> Result<(), Error> {
        let relays: Vec<RelayKey> = self.relays.pairs().iter().map(|(relay, _)| *relay.key()).collect();
        if relays.is_empty() {
            return Ok(());
        }
        self.command(0, Command::TokensDue { relays })?;
        self.tell(self.relays.pairs().to_vec()).await
    }

    /// Tells the relays that have not answered yet.
    pub(super) async fn retry_tokens(&mut self) {
        let due = self.read(0, |unit| Ok(unit.scan::<PendingToken>(&[])?)).unwrap_or_default();
        let pairs: Vec<_> = self
            .relays
            .pairs()
            .iter()
            .filter(|(relay, _)| due.iter().any(|(key, _)| key == relay.key().as_bytes()))
            .cloned()
            .collect();
        if !pairs.is_empty() {
            // It stays due where it fails.
            let _ = self.tell(pairs).await;
        }
    }

    async fn tell(&mut self, pairs: Vec<(RelayAddress, Token)>) -> Result<(), Error> {
        for (relay, status) in self.driver.present(&pairs, TOKEN_WAIT).await {
            for number in 0..self.compartments.len() {
                self.command(number, Command::TokenAnswered { relay, status: status.clone() })?;
            }
        }
        Ok(())
    }

    /// A relay that any compartment uses and the payload does not name gets a token: a random one, which means nothing.
    pub(super) fn adopt_relays(&mut self) -> Result<(), Error> {
        let mut missing = Vec::new();
        for number in 0..self.compartments.len() {
            for row in self.relay_rows(number)? {
                if self.relays.token(row.address.key()).is_none() {
                    missing.push(row.address);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        for relay in missing {
            let token = Token::generate(&mut generator());
            self.relays.add(relay, token);
        }
        let field = self.relays.encode();
        self.session.set_application(&field, &mut generator()).map_err(|error| fault::change(&error))
    }

    /// The relays of the payload.
    #[must_use]
    pub const fn payload_relays(&self) -> &PayloadRelays {
        &self.relays
    }
}
