//! Memory that all connections share, and how much of it one network may hold.
//!
//! Every connection has bounds of its own, and thousands of connections at their bounds are more than a machine has. So what may be
//! large comes out of a pool. A network may hold as much of it as is free besides (dynamic thresholds: Choudhury and Hahne, *Dynamic
//! queue length thresholds for shared-memory packet switches*, 1998): one that takes all it can get has half, the next that does so a
//! quarter, and whoever takes little finds room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::crowd::Prefix;

/// The pool.
pub(super) struct Pool {
    size: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: usize,
    of: HashMap<Prefix, usize>,
}

impl Pool {
    /// Of so many bytes.
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, state: Mutex::default() })
    }

    /// Takes bytes for a network, if it may have them now.
    pub(super) fn try_take(self: &Arc<Self>, network: Prefix, bytes: usize) -> Option<Share> {
        let mut state = self.lock();
        let wanted = state.of.get(&network).copied().unwrap_or(0).saturating_add(bytes);
        if wanted > self.size.saturating_sub(state.held) {
            return None;
        }
        state.held += bytes;
        state.of.insert(network, wanted);
        drop(state);
        Some(Share { pool: Arc::clone(self), network, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some bytes of a pool, for as long as it lives.
pub(super) struct Share {
    pool: Arc<Pool>,
    network: Prefix,
    bytes: usize,
}

impl Share {
    /// Gives back what is more than so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        let mut state = self.pool.lock();
        state.held -= back;
        if let Some(held) = state.of.get_mut(&self.network) {
            *held -= back;
            if *held == 0 {
                state.of.remove(&self.network);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u8) -> Prefix {
        Prefix::of(std::net::IpAddr::from([198, 51, 100, number]))
    }

    /// Takes pieces until there are none.
    fn greedy(pool: &Arc<Pool>, number: u8, piece: usize) -> Vec<Share> {
        std::iter::from_fn(|| pool.try_take(network(number), piece)).collect()
    }

    #[test]
    fn each_network_gets_half_of_what_the_others_leave_and_one_that_wants_little_finds_room() {
        let pool = Pool::new(1024);
        let held: Vec<Vec<Share>> = (0..6).map(|number| greedy(&pool, number, 1)).collect();
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [512, 256, 128, 64, 32, 16]);
        assert!(pool.try_take(network(0), 1).is_none(), "the first gets no more");
        assert!(pool.try_take(network(7), 8).is_some());
        assert!(pool.try_take(network(7), 17).is_none(), "more than there is");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_leaves_nothing() {
        let pool = Pool::new(100);
        let mut held = greedy(&pool, 1, 10);
        assert_eq!(held.len(), 5);
        assert_eq!(greedy(&pool, 2, 10).len(), 3);
        held.truncate(2);
        held[0].shrink(20);
        assert_eq!(greedy(&pool, 2, 10).len(), 4);
        drop(held);
        let state = pool.lock();
        assert!(state.held == 0 && state.of.is_empty());
    }
}
