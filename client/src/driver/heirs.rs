//! SUC-02: relays that have changed their keys are dialled under the keys that they have now, and under no earlier one.
//!
//! A vault knows a relay by the key that it had when it was added. What is followed is written into each compartment that
//! uses the relay, and is read from there before anything is sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::address::{RelayAddress, RelayKey};

use super::Compartment;
use crate::{
    engine,
    net::{ConnectError, Link, Transport},
    store::Unit,
};

/// The keys that relays have now, by the keys under which they are known.
#[derive(Default)]
pub(super) struct Heirs(Mutex<BTreeMap<RelayKey, RelayKey>>);

impl Heirs {
    /// Takes what compartments have recorded. One that cannot be read is told of later, by whoever reads it for its own sake.
    pub(super) fn learn(&self, compartments: &[Compartment]) {
        for compartment in compartments {
            let Ok(recorded) = engine::heirs(&Unit::new(&*compartment.base)) else { continue };
            let mut known = self.locked();
            for (relay, heir) in recorded {
                let relay = RelayKey::from_bytes(relay);
                known.entry(relay).or_insert(heir);
            }
        }
    }

    /// Connects to a relay under the key that it has, and remembers which that is.
    pub(super) async fn connect(
        &self,
        transport: &Arc<dyn Transport>,
        relay: &RelayAddress,
    ) -> Result<Arc<dyn Link>, ConnectError> {
        let heir = self.locked().get(relay.key()).copied();
        let dialled = heir.and_then(|heir| RelayAddress::new(heir, relay.host(), relay.port()).ok());
        let link = transport.connect(dialled.as_ref().unwrap_or(relay)).await?;
        if let Some(heir) = link.heir() {
            self.locked().insert(*relay.key(), heir);
        }
        Ok(link)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(RelayKey, RelayKey)> {
        self.locked().iter().map(|(relay, heir)| (*relay, *heir)).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<RelayKey, RelayKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
