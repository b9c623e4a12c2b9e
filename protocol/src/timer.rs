//! How long two people, or a group, keep the messages of a chat once they were shown.
//!
//! ```text
//! body = CBOR map { "s": seconds, 0 for "for ever", "n": number }
//! ```
//!
//! Invariants: what is read is for ever, or at least [`Lifetime::MIN`] and at most [`Lifetime::MAX`] (CNT-04): no peer can
//! make messages vanish at once, or plan them for a time that nobody lives to see.
//! Known gap: it is a wish. A peer whose program does not keep it cannot be made to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::content::ContentError;

/// How long a message is kept once it was shown: whole seconds, from five minutes to a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(u32);

impl Lifetime {
    /// The shortest: long enough to read what has come, and to answer.
    pub const MIN: Self = Self(5 * 60);
    /// The longest: 365 days.
    pub const MAX: Self = Self(365 * 24 * 3600);

    /// A lifetime of so many seconds; `None` outside the bounds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Option<Self> {
        if seconds < Self::MIN.0 || seconds > Self::MAX.0 { None } else { Some(Self(seconds)) }
    }

    /// The lifetime of this span, cut to whole seconds; `None` outside the bounds.
    #[must_use]
    pub fn of(span: Duration) -> Option<Self> {
        u32::try_from(span.as_secs()).ok().and_then(Self::from_secs)
    }

    /// Seconds.
    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// As a span.
    #[must_use]
    pub fn span(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

/// What one side wants of a chat from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// How long; `None` for ever.
    pub lifetime: Option<Lifetime>,
    /// Higher than in every earlier wish of this sender: a wish that arrives late replaces no newer one (TMR-02).
    pub number: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawTimer {
    s: u32,
    n: u64,
}

impl Timer {
    pub(crate) fn raw(&self) -> RawTimer {
        RawTimer { s: self.lifetime.map_or(0, Lifetime::as_secs), n: self.number }
    }

    /// CNT-04.
    pub(crate) fn from_raw(raw: &RawTimer) -> Result<Self, ContentError> {
        let lifetime = match raw.s {
            0 => None,
            seconds => Some(Lifetime::from_secs(seconds).ok_or(ContentError::Malformed)?),
        };
        Ok(Self { lifetime, number: raw.n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cnt_04_a_lifetime_is_for_ever_or_within_its_bounds() {
        let read = |s: u32| Timer::from_raw(&RawTimer { s, n: 1 }).map(|timer| timer.lifetime);
        assert_eq!(read(0), Ok(None));
        assert_eq!(read(300), Ok(Some(Lifetime::MIN)));
        assert_eq!(read(31_536_000), Ok(Some(Lifetime::MAX)));
        for seconds in [1, 299, 31_536_001, u32::MAX] {
            assert_eq!(read(seconds), Err(ContentError::Malformed), "{seconds}");
        }
        assert_eq!(Lifetime::of(Duration::from_millis(300_999)), Some(Lifetime::MIN));
        assert_eq!(Lifetime::of(Duration::from_secs(u64::MAX)), None);
        assert_eq!(Lifetime::MIN.span(), Duration::from_secs(300));
    }
}
