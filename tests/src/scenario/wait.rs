//! Bounded waiting: something is polled until it holds or its time is over.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest that anything may take which works at all: a derivation on a computer that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls until `holds` answers true or `limit` is over; answers which.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = now();
    loop {
        if holds() {
            return true;
        }
        if begun.elapsed() >= limit {
            return false;
        }
        sleep(PAUSE);
    }
}

/// How long `work` took, and what it came to.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = now();
    let done = work();
    (begun.elapsed(), done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time; this is where a scenario measures it"
)]
fn now() -> Instant {
    Instant::now()
}
