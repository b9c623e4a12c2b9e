//! What every unlock of every vault tells the relays of its payload: one opaque token each (design 5.2).

use std::sync::Arc;

use lapwing_vault::{Entry, HeldField, Others, PayloadId, Spec, VolumeId};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    codec,
    tripwire::Token,
};
use serde::{Deserialize, Serialize};

use super::{Client, TOKEN_WAIT, World, fault, generator};
use crate::{driver::Driver, engine::Command, error::Error};

/// Longest encoded field: the vault's bound for what a payload may carry for us.
const MAX_FIELD: usize = lapwing_vault::APPLICATION_MAX;

/// The relays of a payload and the token for each. The same shape in every payload; nothing tells what a token means,
/// least of all to who holds it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PayloadRelays {
    #[serde(rename = "r")]
    relays: Vec<(RelayAddress, Token)>,
    /// SUC-02: the keys that relays have now, by the keys under which they are named above.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    heirs: Vec<(RelayKey, RelayKey)>,
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

    /// Takes what relays have changed their keys to. Answers whether that was new; what does not fit is left out, and followed again
    /// at each unlock.
    fn inherit(&mut self, heirs: &[(RelayKey, RelayKey)]) -> bool {
        let of_ours = heirs.iter().filter(|(relay, _)| self.token(relay).is_some());
        let mut next: Vec<_> = of_ours.copied().collect();
        next.sort_unstable();
        if next == self.heirs {
            return false;
        }
        let before = std::mem::replace(&mut self.heirs, next);
        let fits = self.encode().len() <= MAX_FIELD;
        if !fits {
            self.heirs = before;
        }
        fits
    }

    fn pairs(&self) -> &[(RelayAddress, Token)] {
        &self.relays
    }
}

/// Presents the tokens of a payload that could be opened but not held.
pub(super) async fn present_held(world: &World, field: &HeldField) {
    let Ok(relays) = PayloadRelays::decode(field.expose()) else { return };
    let mut driver =
        Driver::new(Arc::clone(&world.transport), Arc::clone(&world.clock), Box::new(generator()));
    driver.learn_heirs(&relays.heirs);
    let _ = driver.present(relays.pairs(), TOKEN_WAIT).await;
    driver.close().await;
}

impl Client {
    /// Tells every relay of the payload and waits a bounded time for their answers. Before this returns nothing has been
    /// shown, and nothing that this vault holds can keep it from happening.
    ///
    /// A token that no relay answered stays where every vault keeps its own: in the payload. This process presents it
    /// again while it runs, and so does every unlock.
    pub(super) async fn present_tokens(&mut self) {
        self.driver.learn_heirs(&self.relays.heirs);
        self.due = self.relays.pairs().to_vec();
        self.tell().await;
    }

    /// Before any volume is opened. How long that takes depends on how many there are, and with it, while a connection
    /// waits, what leaves on it: so it is ended, or kept and nothing is owed on it.
    pub(super) async fn end_telling(&mut self, offline: bool) {
        if offline {
            self.driver.close().await;
        } else {
            self.driver.rest().await;
        }
    }

    /// SUC-02: who was told under a key that a compartment knows to be an earlier one was somebody else: told again.
    pub(super) fn distrust_earlier_keys(&mut self) {
        let stale = self.driver.learn_heirs_from(&self.compartments);
        self.answers.retain(|(relay, _)| !stale.contains(relay));
        self.due.retain(|(relay, _)| !stale.contains(relay.key()));
        let again = self.relays.pairs().iter().filter(|(relay, _)| stale.contains(relay.key()));
        self.due.extend(again.cloned());
    }

    /// SUC-02: what was followed is in the payload before its tokens leave again.
    pub(super) fn adopt_heirs(&mut self) -> Result<(), Error> {
        if !self.relays.inherit(&self.driver.heirs()) {
            return Ok(());
        }
        let field = self.relays.encode();
        self.session.set_application(&field, &mut generator()).map_err(|error| fault::change(&error))?;
        self.adopt_for_entries()
    }

    /// Tells the relays that have not answered yet, where there is a connection by now.
    pub(super) async fn retry_tokens(&mut self) {
        let reachable = self.due.iter().any(|(relay, _)| self.driver.is_connected(relay.key()));
        if reachable {
            self.tell().await;
            self.take_answers();
        }
    }

    async fn tell(&mut self) {
        if self.due.is_empty() {
            return;
        }
        for (relay, status) in self.driver.present(&self.due, TOKEN_WAIT).await {
            if let Some(at) = self.due.iter().position(|(due, _)| *due.key() == relay) {
                self.due.swap_remove(at);
                self.answers.push((relay, status));
            }
        }
    }

    /// Shows the answers to the compartments: one of them may hold what they are about.
    pub(super) fn take_answers(&mut self) {
        for (relay, status) in std::mem::take(&mut self.answers) {
            let Some(token) = self.relays.token(&relay).cloned() else { continue };
            for number in 0..self.compartments.len() {
                let (token, status) = (token.clone(), status.clone());
                // A compartment that cannot be written to learns it at the next unlock.
                let _ = self.command(number, Command::TokenPresented { relay, token, status });
            }
        }
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
        self.session.set_application(&field, &mut generator()).map_err(|error| fault::change(&error))?;
        self.adopt_for_entries()
    }

    /// Payloads of other passphrases that this session made get a token for each relay of what they show, now: otherwise
    /// their next unlock would add it, with one header write more than others.
    fn adopt_for_entries(&mut self) -> Result<(), Error> {
        let heirs = self.driver.heirs();
        let mut rows = Vec::new();
        for (number, (id, _)) in self.volumes.iter().enumerate() {
            rows.push((*id, self.relay_rows(number)?));
        }
        self.reseal_entries(|entry| {
            let mut relays = PayloadRelays::decode(entry.application()).ok()?;
            let (volumes, before) = (entry.volumes(), relays.pairs().len());
            for row in rows.iter().filter(|(id, _)| volumes.contains(id)).flat_map(|(_, rows)| rows) {
                relays.add(row.address.clone(), Token::generate(&mut generator()));
            }
            let followed = relays.inherit(&heirs);
            (followed || relays.pairs().len() > before).then(|| (volumes, relays.encode()))
        })
    }

    /// Seals anew the known payloads of others for which `change` answers volumes and a field.
    pub(super) fn reseal_entries(
        &mut self,
        change: impl Fn(&Entry<'_>) -> Option<(Vec<VolumeId>, Vec<u8>)>,
    ) -> Result<(), Error> {
        struct Change {
            id: PayloadId,
            volumes: Vec<VolumeId>,
            others: Others,
            label: Vec<u8>,
            home: VolumeId,
            field: Vec<u8>,
        }
        let entries = self.session.entries();
        let changes: Vec<Change> = entries
            .iter()
            .filter_map(|entry| {
                let (volumes, field) = change(entry)?;
                let (id, others, label, home) =
                    (entry.id(), entry.others(), entry.label().to_vec(), entry.home());
                Some(Change { id, volumes, others, label, home, field })
            })
            .collect();
        drop(entries);
        for Change { id, volumes, others, label, home, field } in changes {
            let spec =
                Spec { volumes: &volumes, others, spare: &[], application: &field, label: &label, home };
            self.session.reseal(id, &spec, &mut generator()).map_err(|error| fault::change(&error))?;
        }
        Ok(())
    }

    /// The relays of the payload.
    #[must_use]
    pub const fn payload_relays(&self) -> &PayloadRelays {
        &self.relays
    }
}
