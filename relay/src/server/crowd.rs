//! Who is connected: from where, and who is sent away when it gets crowded.
//!
//! Nothing here is logged or stored; addresses live in memory for as long as their connections.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Connection, VarInt};
use tokio::time::Instant;

use super::pool::{Pool, Share};
use crate::service::ConnectionState;

/// The relay is crowded and the client has proved nothing.
const CROWDED: VarInt = VarInt::from_u32(3);

/// Bytes and streams of one connection, which the transport holds for it.
pub(super) struct Room {
    /// Unread bytes that a client may send ahead.
    pub(super) receive: u32,
    /// Bytes that it has not acknowledged; a slow reader stops at it.
    pub(super) send: u32,
    /// Streams that it may have open.
    pub(super) streams: u32,
}

/// Who has proved nothing: proofs, tokens, voices, guesses, all of them small. Some hundred proofs fit. What comes in pieces with holes
/// costs the transport many times its length.
pub(super) const STRANGER: Room = Room { receive: 16 << 10, send: 16 << 10, streams: 4 };
/// Who has proved something: half of one of the largest frames at a time, and two windows of envelopes.
const KNOWN: Room = Room { receive: 128 << 10, send: 256 << 10, streams: 16 };
/// Who moves a file, as long as there is room for it: bytes in a round trip.
const WIDE_RECEIVE: u32 = 2 << 20;
const WIDE_SEND: u32 = 1 << 20;
/// Networks that are remembered between two looks because somebody from there was refused.
const MAX_WANTED: usize = 64;

/// Whether one more may come from a network who has proved nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    /// Half of what this network may have is taken, or of all: for whoever proves that he receives at his address.
    Scarce,
    Taken,
}

/// The network that an address belongs to: a home or a customer of a provider gets all addresses of a /56, or one of IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Prefix([u8; 16]);

impl Prefix {
    /// What shares of memory are counted by: somebody who has a /48 of IPv6 has 256 of the others.
    fn site(self) -> Self {
        let Self(mut octets) = self;
        if Ipv6Addr::from(octets).to_ipv4_mapped().is_none() {
            octets[6..].fill(0);
        }
        Self(octets)
    }

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
    seats: HashMap<Prefix, Seats>,
    strangers: usize,
    /// Networks from which somebody was refused who has proved nothing yet.
    wanted: HashSet<Prefix>,
    /// In the order in which they came.
    visits: BTreeMap<u64, Arc<Visit>>,
    next: u64,
}

/// Seats that a network has taken.
#[derive(Clone, Copy, Default)]
struct Seats {
    all: usize,
    strangers: usize,
}

impl Crowd {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), state: Mutex::default() })
    }

    /// Connections and handshakes from a network.
    pub(super) fn from(&self, prefix: Prefix) -> usize {
        self.lock().seats.get(&prefix).map_or(0, |seats| seats.all)
    }

    /// Whether one more from a network may come who has proved nothing yet, where so many may be there: each network may have as many
    /// as are free besides, so that one that takes all it gets leaves half of them.
    pub(super) fn place(&self, prefix: Prefix, places: usize) -> Place {
        let state = self.lock();
        let near = state.seats.get(&prefix).map_or(0, |seats| seats.strangers);
        let free = places.saturating_sub(state.strangers);
        if near >= free {
            Place::Taken
        } else if 3 * near >= free || 2 * free <= places {
            // It may have half of what it and nobody have, and has half of that.
            Place::Scarce
        } else {
            Place::Free
        }
    }

    /// Somebody from a network was refused for want of a place.
    pub(super) fn want(&self, prefix: Prefix) {
        let mut state = self.lock();
        if state.wanted.len() < MAX_WANTED {
            state.wanted.insert(prefix);
        }
    }

    /// Counts one more from a network until the seat is dropped.
    pub(super) fn seat(self: &Arc<Self>, prefix: Prefix) -> Seat {
        let mut state = self.lock();
        state.strangers += 1;
        let seats = state.seats.entry(prefix).or_default();
        seats.all += 1;
        seats.strangers += 1;
        drop(state);
        Seat { crowd: Arc::clone(self), prefix, is_stranger: AtomicBool::new(true) }
    }

    /// Lists a connection until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, connection: Connection, seat: Arc<Seat>) -> Entry {
        let now = millis(self.since);
        let visit = Arc::new(Visit {
            connection,
            since: self.since,
            entered: now,
            asked: AtomicU64::new(now),
            is_known: AtomicBool::new(false),
            seat,
            wide: Mutex::default(),
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
        let state = self.lock();
        for visit in state.visits.values().filter(|visit| visit.is_idle_stranger(now, quiet)).take(excess) {
            visit.connection.close(CROWDED, b"");
        }
    }

    /// Where strangers take more than three quarters of their places, and in networks from which somebody was refused: closes the oldest
    /// who have proved nothing for `stay`, whatever they ask. Those of a network that was refused make a quarter of its places free.
    pub(super) fn make_place(&self, places: usize, stay: Duration) {
        let mut state = self.lock();
        let wanted = std::mem::take(&mut state.wanted);
        let most = places - places / 4;
        if state.strangers <= most && wanted.is_empty() {
            return;
        }
        let going = state.visits.values().filter(|visit| !visit.is_known() && visit.is_over()).count();
        let mut excess = state.strangers.saturating_sub(going).saturating_sub(most);
        let of = |prefix| state.seats.get(&prefix).map_or(0, |seats| seats.strangers.div_ceil(4));
        let mut wanted: HashMap<Prefix, usize> =
            wanted.into_iter().map(|prefix| (prefix, of(prefix))).collect();
        let now = millis(self.since);
        for visit in state.visits.values().filter(|visit| visit.is_old_stranger(now, stay)) {
            let own = wanted.get_mut(&visit.seat.prefix).filter(|own| **own > 0);
            match own {
                Some(own) => *own -= 1,
                None if excess > 0 => {}
                None => continue,
            }
            excess = excess.saturating_sub(1);
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
    is_stranger: AtomicBool,
}

impl Seat {
    /// Whoever sits there has proved something.
    fn know(&self) {
        if self.is_stranger.swap(false, Ordering::Relaxed) {
            let mut state = self.crowd.lock();
            state.strangers -= 1;
            if let Some(seats) = state.seats.get_mut(&self.prefix) {
                seats.strangers -= 1;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.know();
        let mut state = self.crowd.lock();
        if let Some(seats) = state.seats.get_mut(&self.prefix) {
            seats.all -= 1;
            if seats.all == 0 {
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
        // Its seat may go with it, which takes the same lock.
        let visit = self.crowd.lock().visits.remove(&self.number);
        drop(visit);
    }
}

/// What is looked at when it is crowded, and what the transport holds for it.
pub(super) struct Visit {
    connection: Connection,
    since: Instant,
    /// Milliseconds after `since`.
    entered: u64,
    /// Milliseconds after `since` of the latest request.
    asked: AtomicU64,
    is_known: AtomicBool,
    seat: Arc<Seat>,
    wide: Mutex<Wide>,
}

/// What a connection has of the pool for moving files, until it ends: what a client was told that it may send ahead cannot be taken back,
/// nor what it was sent and does not acknowledge.
#[derive(Default)]
struct Wide {
    receive: Option<Share>,
    send: Option<Share>,
}

impl Visit {
    /// Whose share of memory it takes.
    pub(super) fn site(&self) -> Prefix {
        self.seat.prefix.site()
    }

    /// Whether it has proved something.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Until it is gone.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Whether it is gone.
    pub(super) fn is_over(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// A request came.
    pub(super) fn asks(&self) {
        self.asked.store(millis(self.since), Ordering::Relaxed);
    }

    /// A request was answered. Whether it was the first by which the connection has proved something.
    pub(super) fn answered(&self, state: &ConnectionState) -> bool {
        !self.is_known() && state.is_known() && self.admit()
    }

    /// From here on it is no stranger: it may send more ahead and is not sent away. Whether it was one.
    pub(super) fn admit(&self) -> bool {
        let was_stranger = !self.is_known.swap(true, Ordering::Relaxed);
        if was_stranger {
            self.seat.know();
            self.make_room();
        }
        was_stranger
    }

    /// It may have what everybody has that is no stranger.
    pub(super) fn make_room(&self) {
        self.hold(&self.wide());
    }

    /// It sends a file, or takes one. Without room for that it goes on as it is, and slower.
    pub(super) fn moves_file(&self, windows: &Arc<Pool>, sends: bool) {
        let mut wide = self.wide();
        let (share, bytes) =
            if sends { (&mut wide.receive, WIDE_RECEIVE) } else { (&mut wide.send, WIDE_SEND) };
        if share.is_none() {
            *share = windows.try_take(self.site(), usize::try_from(bytes).unwrap_or(usize::MAX));
            self.hold(&wide);
        }
    }

    fn wide(&self) -> MutexGuard<'_, Wide> {
        self.wide.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, wide: &Wide) {
        let receive = if wide.receive.is_some() { WIDE_RECEIVE } else { KNOWN.receive };
        let send = if wide.send.is_some() { WIDE_SEND } else { KNOWN.send };
        self.connection.set_receive_window(VarInt::from_u32(receive));
        self.connection.set_send_window(u64::from(send));
        self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(KNOWN.streams));
    }

    fn is_idle_stranger(&self, now: u64, quiet: Duration) -> bool {
        !self.is_known() && !self.is_over() && passed(now, self.asked.load(Ordering::Relaxed)) >= quiet
    }

    fn is_old_stranger(&self, now: u64, stay: Duration) -> bool {
        !self.is_known() && !self.is_over() && passed(now, self.entered) >= stay
    }
}

fn passed(now: u64, then: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(then))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod windows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_network_leave_places_and_whoever_is_known_takes_none() {
        let (crowd, places) = (Crowd::new(), 8);
        let network = |number| Prefix::of(IpAddr::from([198, 51, 100, number]));
        let come = |number| {
            let mut seats = Vec::new();
            while crowd.place(network(number), places) != Place::Taken {
                seats.push(crowd.seat(network(number)));
            }
            seats
        };
        let first = come(1);
        assert_eq!(first.len(), 4);
        let second = come(2);
        assert_eq!(second.len(), 2);
        first[0].know();
        first[0].know();
        assert_eq!(crowd.from(network(1)), 4, "it has its seat still");
        assert_eq!(come(1).len(), 0, "three of its own, and three free: none for it");
        assert_eq!(come(3).len(), 2);
        drop((first, second));
        let state = crowd.lock();
        assert!(state.strangers == 0 && state.seats.is_empty());
    }

    #[test]
    fn places_are_scarce_from_a_quarter_of_a_network_on_and_for_everybody_from_a_half_of_all() {
        let (crowd, places) = (Crowd::new(), 64);
        let network = |number| Prefix::of(IpAddr::from([198, 51, 100, number]));
        let mut seats = Vec::new();
        for number in 0..32 {
            let wanted = if number < 16 { Place::Free } else { Place::Scarce };
            assert_eq!(crowd.place(network(1), places), wanted, "{number} are there");
            let wanted = if number < 32 { Place::Free } else { Place::Scarce };
            assert_eq!(crowd.place(network(2), places), wanted, "{number} are there, all of another network");
            seats.push(crowd.seat(network(1)));
        }
        assert_eq!(crowd.place(network(1), places), Place::Taken);
        assert_eq!(crowd.place(network(2), places), Place::Scarce);
        seats[0].know();
        assert_eq!(crowd.place(network(1), places), Place::Scarce, "who has proved something has no place");
        assert_eq!(crowd.place(network(2), places), Place::Free);
        drop(seats);
        assert_eq!(crowd.place(network(1), places), Place::Free);
    }

    #[test]
    fn a_network_is_one_address_of_ipv4_and_a_56_of_ipv6() {
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        assert!(prefix("203.0.113.7") == prefix("::ffff:203.0.113.7"));
        assert!(prefix("203.0.113.7") != prefix("203.0.113.8"));
        assert!(prefix("2001:db8:0:ff00::1") == prefix("2001:db8:0:ffff:1:2:3:4"));
        assert!(prefix("2001:db8:0:ff00::1") != prefix("2001:db8:0:fe00::1"));
        assert!(prefix("2001:db8:0:ff00::1").site() == prefix("2001:db8:0:fe00::1").site());
        assert!(prefix("2001:db8:0:ff00::1").site() != prefix("2001:db8:1:ff00::1").site());
        assert!(prefix("203.0.113.7").site() == prefix("203.0.113.7"));
    }
}
