//! Groups that are durable and that the engine does not show yet.
//!
//! Who waits for a group is answered as soon as it is durable. That the engine shows it takes longer (for `fjall`, the
//! insertion into its index), and happens while the next group is on its way to the disk. Until then readers see the group over
//! what the engine shows.
//!
//! Invariant: a group is here from before anybody is answered until the engine shows it. There are two at most, one for each
//! writer, and they are settled in the order in which they were committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::super::{
    engine::Engine,
    layered::{Layer, Layered},
};

/// What readers see: the engine, and over it what it does not show yet.
pub(super) type Shown<V> = Layered<Layered<V>>;

/// The groups.
#[derive(Default)]
pub(super) struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    groups: VecDeque<Arc<Layer>>,
    /// The engine could not take the oldest; it has to be opened anew.
    is_stuck: bool,
}

impl State {
    fn is_first(&self, group: &Arc<Layer>) -> bool {
        self.groups.front().is_some_and(|first| Arc::ptr_eq(first, group))
    }
}

impl Pending {
    /// A group is durable.
    pub(super) fn add(&self, group: Arc<Layer>) {
        self.lock().groups.push_back(group);
    }

    /// Settles a group when those before it are; `false` if the engine could not, or was opened anew since and shows it.
    pub(super) fn settle(&self, group: &Arc<Layer>, settle: impl FnOnce() -> bool) -> bool {
        let mut state = self.lock();
        while !state.is_first(group) {
            if state.is_stuck || !state.groups.iter().any(|waiting| Arc::ptr_eq(waiting, group)) {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_stuck {
            return false;
        }
        drop(state);
        // Nobody opens the engine anew meanwhile: whoever would waits until this group is settled, or stuck.
        let is_done = settle();
        let mut state = self.lock();
        if is_done {
            state.groups.pop_front();
        } else {
            state.is_stuck = true;
        }
        drop(state);
        self.changed.notify_all();
        is_done
    }

    /// Waits until the engine shows everything, or has to be opened anew.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        while !state.is_stuck && !state.groups.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().groups.is_empty()
    }

    /// A writer ended by a defect: nothing is settled any more.
    pub(super) fn break_off(&self) {
        self.lock().is_stuck = true;
        self.changed.notify_all();
    }

    /// The engine was opened anew, and shows everything.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
        self.changed.notify_all();
    }

    /// No group is settled between the look at the groups and the engine's view, so that no older one lies over a newer one.
    pub(super) fn view<E: Engine>(&self, engine: &E) -> Shown<E::View> {
        let state = self.lock();
        let [older, newer] = [0, 1].map(|at| state.groups.get(at).map(Arc::clone));
        let base = engine.view();
        drop(state);
        Layered::new(Layered::new(base, older), newer)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
