//! The messages that both sides hold.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Chats.
pub const CHATS: u64 = 50;
/// Days over which the messages are spread: 40 days of 50 chats are 2,000 keys for bodies.
pub const DAYS: u64 = 40;
/// Bytes of a text, about.
pub const TEXT: usize = 300;
/// Bytes of a session record: what libsignal's has in a chat that goes back and forth.
pub const SESSION: usize = 6_000;
/// In [`RARE_IN`] messages.
pub const RARE: &str = "Zwiebelturm";
/// In every third message.
pub const FREQUENT: &str = "lanterns";
/// In no message.
pub const ABSENT: &str = "xylography";
/// How many messages hold the rare word.
pub const RARE_IN: u64 = 7;

/// When the first message was written.
pub const BEGIN_MS: u64 = 1_750_000_000_000 / DAY_MS * DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;

const WORDS: &[&str] = &[
    "bridge", "meet", "at", "the", "ford", "nine", "bring", "banner", "who", "comes", "from", "north",
    "side", "police", "near", "station", "wait", "behind", "bakery", "until", "music", "stops", "then",
    "walk", "slowly", "toward", "river", "phones", "off", "please", "confirm", "and", "tell", "Anna", "that",
    "her", "brother", "is", "safe", "lawyer", "number", "on", "your", "arm", "tomorrow", "morning",
    "leaflets", "are", "in", "cellar", "we", "need", "two", "more", "people", "for", "first", "aid",
    "nobody", "posts", "pictures", "today",
];

/// One message.
pub struct Message {
    /// Its place among all, from 1 on: also the order in which they came.
    pub order: u64,
    /// Which chat, from 0 on.
    pub chat: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// Written by the owner; else by the other side.
    pub own: bool,
    /// What it says.
    pub text: String,
}

/// The messages of one bench, always the same.
pub struct Corpus {
    count: u64,
}

impl Corpus {
    /// So many messages.
    pub const fn new(count: u64) -> Self {
        Self { count }
    }

    /// The message at this place. Places beyond the count are for what is written later.
    pub fn message(&self, order: u64) -> Message {
        let mut rng = ChaCha20Rng::seed_from_u64(order);
        let mut text = String::with_capacity(TEXT + 16);
        if order.is_multiple_of(3) {
            text.push_str(FREQUENT);
        }
        if self.count >= RARE_IN && order.is_multiple_of(self.count / RARE_IN) && order <= self.count {
            text.push_str(RARE);
        }
        while text.len() < TEXT {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(WORDS[rng.next_u32() as usize % WORDS.len()]);
        }
        let chat = u64::from(rng.next_u32()) % CHATS;
        let time = BEGIN_MS + order * (DAYS * DAY_MS) / (self.count + 1);
        Message { order, chat, time, own: rng.next_u32().is_multiple_of(2), text }
    }

    /// The messages at these places.
    pub fn messages(&self, orders: std::ops::Range<u64>) -> Vec<Message> {
        orders.map(|order| self.message(order)).collect()
    }

    /// How many of the messages hold the frequent word.
    pub const fn frequent_in(&self) -> u64 {
        self.count / 3
    }
}

/// A session record as it is after the message at this place.
pub fn session(order: u64) -> Vec<u8> {
    let mut bytes = vec![0; SESSION];
    ChaCha20Rng::seed_from_u64(order ^ u64::MAX).fill_bytes(&mut bytes);
    bytes
}
