//! SUC-02: relays that have changed their keys are dialled under the keys that they have now, and under no earlier one.
//!
//! A vault knows a relay by the key that it had when it was added. What is followed is written into each compartment that
//! uses the relay and into the payload, which is read before tokens leave. A link that was made before a compartment told of
//! a newer key is given up unless the relay had shown that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapwing_wire::address::{RelayAddress, RelayKey};

use super::Compartment;
use crate::{
    engine,
    net::{ConnectError, Link, Transport},
    store::Unit,
};

/// Who relays are now.
#[derive(Default)]
pub(super) struct Heirs(Mutex<State>);

#[derive(Default)]
struct State {
    /// The keys that relays have now, by the keys under which they are known.
    now: BTreeMap<RelayKey, RelayKey>,
    /// The keys that relays showed when they were last connected to.
    shown: BTreeMap<RelayKey, RelayKey>,
    /// Relays that were followed in this session.
    followed: BTreeSet<RelayKey>,
}

impl Heirs {
    /// Takes what a payload or compartments have recorded: they are read before and after anything was sent. What was
    /// followed in this session is newer.
    pub(super) fn learn(&self, recorded: &[(RelayKey, RelayKey)]) {
        let mut state = self.locked();
        for (relay, heir) in recorded {
            if !state.followed.contains(relay) {
                state.now.insert(*relay, *heir);
            }
        }
    }

    /// Takes what compartments have recorded. One that cannot be read is told of by whoever reads it for its own sake.
    pub(super) fn learn_from(&self, compartments: &[Compartment]) {
        for compartment in compartments {
            let Ok(recorded) = engine::heirs(&Unit::new(&*compartment.base)) else { continue };
            let recorded: Vec<_> =
                recorded.into_iter().map(|(relay, heir)| (RelayKey::from_bytes(relay), heir)).collect();
            self.learn(&recorded);
        }
    }

    /// Relays that showed another key than they have when they were last connected to.
    pub(super) fn stale(&self) -> Vec<RelayKey> {
        let state = self.locked();
        let is_stale =
            |(relay, shown): &(&RelayKey, &RelayKey)| *shown != state.now.get(*relay).unwrap_or(relay);
        state.shown.iter().filter(is_stale).map(|(relay, _)| *relay).collect()
    }

    /// Connects to a relay under the key that it has, and remembers which that is.
    pub(super) async fn connect(
        &self,
        transport: &Arc<dyn Transport>,
        relay: &RelayAddress,
    ) -> Result<Arc<dyn Link>, ConnectError> {
        let heir = self.locked().now.get(relay.key()).copied();
        let dialled = heir.and_then(|heir| RelayAddress::new(heir, relay.host(), relay.port()).ok());
        let dialled = dialled.as_ref().unwrap_or(relay);
        let link = transport.connect(dialled).await?;
        let mut state = self.locked();
        state.shown.insert(*relay.key(), link.heir().unwrap_or(*dialled.key()));
        if let Some(heir) = link.heir() {
            state.now.insert(*relay.key(), heir);
            state.followed.insert(*relay.key());
        }
        drop(state);
        Ok(link)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(RelayKey, RelayKey)> {
        self.locked().now.iter().map(|(relay, heir)| (*relay, *heir)).collect()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
