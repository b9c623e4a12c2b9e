//! Who is connected: from where, and who is sent away when it gets crowded.
//!
//! Nothing here is logged or stored; addresses live in memory for as long as their connections.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Connection, VarInt};
use tokio::time::Instant;

use super::CONNECTION_WINDOW;
use crate::service::ConnectionState;

/// The relay is crowded and the client has proved nothing.
const CROWDED: VarInt = VarInt::from_u32(3);

/// The network that an address belongs to: a home or a customer of a provider gets all addresses of a /56, or one of IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Prefix([u8; 16]);

impl Prefix {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => {
                let mut octets = v6.octets();
                octets[7..].fill(0);
                Self(octets)
            }
        }
    }
}

/// All connections of a server.
pub(super) struct Crowd {
    since: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seats: HashMap<Prefix, usize>,
    /// In the order in which they came.
    visits: BTreeMap<u64, Arc<Visit>>,
    next: u64,
}

impl Crowd {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), state: Mutex::default() })
    }

    /// Connections and handshakes from a network.
    pub(super) fn from(&self, prefix: Prefix) -> usize {
        self.lock().seats.get(&prefix).copied().unwrap_or(0)
    }

    /// Counts one more from a network until the seat is dropped.
    pub(super) fn seat(self: &Arc<Self>, prefix: Prefix) -> Seat {
        *self.lock().seats.entry(prefix).or_default() += 1;
        Seat { crowd: Arc::clone(self), prefix }
    }

    /// Lists a connection until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, connection: Connection) -> Entry {
        let visit = Arc::new(Visit {
            connection,
            since: self.since,
            asked: AtomicU64::new(millis(self.since)),
            is_known: AtomicBool::new(false),
        });
        let mut state = self.lock();
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.visits.insert(number, Arc::clone(&visit));
        Entry { crowd: Arc::clone(self), number, visit }
    }

    /// Closes the oldest connections that have proved nothing and asked nothing for `quiet`, at most `excess`.
    pub(super) fn make_room(&self, excess: usize, quiet: Duration) {
        if excess == 0 {
            return;
        }
        let now = millis(self.since);
        let quiet = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        let state = self.lock();
        for visit in state.visits.values().filter(|visit| visit.is_idle_stranger(now, quiet)).take(excess) {
            visit.connection.close(CROWDED, b"");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection or handshake that counts for its network.
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    prefix: Prefix,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.crowd.lock();
        if let Some(count) = state.seats.get_mut(&self.prefix) {
            *count -= 1;
            if *count == 0 {
                state.seats.remove(&self.prefix);
            }
        }
    }
}

/// A connection that is listed.
pub(super) struct Entry {
    crowd: Arc<Crowd>,
    number: u64,
    pub(super) visit: Arc<Visit>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.crowd.lock().visits.remove(&self.number);
    }
}

/// What is looked at when it is crowded.
pub(super) struct Visit {
    connection: Connection,
    since: Instant,
    /// Milliseconds after `since` of the latest request.
    asked: AtomicU64,
    is_known: AtomicBool,
}

impl Visit {
    /// A request came.
    pub(super) fn asks(&self) {
        self.asked.store(millis(self.since), Ordering::Relaxed);
    }

    /// A request was answered: who has proved something may send more ahead and is not sent away.
    pub(super) fn answered(&self, state: &ConnectionState) {
        if !self.is_known.load(Ordering::Relaxed) && state.is_known() {
            self.is_known.store(true, Ordering::Relaxed);
            self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
        }
    }

    fn is_idle_stranger(&self, now: u64, quiet: u64) -> bool {
        !self.is_known.load(Ordering::Relaxed)
            && now.saturating_sub(self.asked.load(Ordering::Relaxed)) >= quiet
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_address_of_ipv4_and_a_56_of_ipv6() {
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        assert!(prefix("203.0.113.7") == prefix("::ffff:203.0.113.7"));
        assert!(prefix("203.0.113.7") != prefix("203.0.113.8"));
        assert!(prefix("2001:db8:0:ff00::1") == prefix("2001:db8:0:ffff:1:2:3:4"));
        assert!(prefix("2001:db8:0:ff00::1") != prefix("2001:db8:0:fe00::1"));
    }
}
