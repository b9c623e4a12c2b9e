//! The only place that looks at the system's clock.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use lapwing_wire::time::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;

    /// How long it has been running, by a clock that nobody sets; counts from any moment of this process.
    fn steady(&self) -> Duration;
}

/// The system's clock. Before 1970 it says 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn steady(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
        let now = Instant::now();
        now.saturating_duration_since(*START.get_or_init(|| now))
    }
}
