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

/// What the kernel knows of the program that keeps its clock, whichever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whether one keeps it.
    pub is_synchronised: bool,
    /// How far off it may be, in microseconds.
    pub error_us: u64,
}

/// Who keeps the clock; `None` where the system does not tell.
///
/// The kernel is asked and no file of some program: timesyncd, chrony and ntpd all tell it.
pub fn kept() -> Option<Kept> {
    #[cfg(target_os = "linux")]
    return asked_of_the_kernel();
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library has no safe way to ask the kernel about its clock")]
fn asked_of_the_kernel() -> Option<Kept> {
    use nix::libc;
    // SAFETY: zeros are a `timex`, one that asks for no change.
    let mut found: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads and writes one `timex`, which is there and nobody else's.
    let state = unsafe { libc::adjtimex(&raw mut found) };
    // The kernel's word for a clock that nobody has set for a while, or that does not work.
    let is_synchronised = state != libc::TIME_ERROR;
    (state >= 0).then_some(Kept { is_synchronised, error_us: u64::try_from(found.maxerror).unwrap_or(0) })
}
