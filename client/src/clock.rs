//! The only place that reads the system's clock and time zone, and the words for times and spans.
//!
//! Everything else takes a [`Timestamp`] as an argument. Times in `--json` are RFC 3339 in UTC; people see the time of
//! their own zone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use lapwing_wire::time::Timestamp;

/// Longest span that [`parse_span`] takes: nobody plans a check-in further ahead, and sums stay far from the end of
/// time.
pub const MAX_SPAN: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Now, by the system's clock. A clock before 1970 counts as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the client's clock module")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0).plus(since)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-21T22:28:00.250Z`. A point after the year 9999, which that format does
/// not have, is shown as its last moment: a peer may claim any time.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{:.3}", calendar(time))
}

fn calendar(time: Timestamp) -> jiff::Timestamp {
    i64::try_from(time.as_millis())
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

/// The time zone in which a person reads times.
#[derive(Debug, Clone)]
pub struct Zone {
    zone: TimeZone,
    /// Said with each time where it is not the person's own.
    mark: &'static str,
}

impl Zone {
    /// The system's zone; UTC, and marked as such, where the system does not say.
    pub fn of_system() -> Self {
        TimeZone::try_system().map_or_else(|_| Self::utc(), |zone| Self { zone, mark: "" })
    }

    /// UTC, marked by a `Z` behind each time.
    pub const fn utc() -> Self {
        Self { zone: TimeZone::UTC, mark: "Z" }
    }

    /// `22:28`.
    pub fn hour_minute(&self, time: Timestamp) -> String {
        let there = calendar(time).to_zoned(self.zone.clone());
        format!("{}{}", there.strftime("%H:%M"), self.mark)
    }

    /// `2026-11-21`.
    pub fn day(&self, time: Timestamp) -> String {
        calendar(time).to_zoned(self.zone.clone()).strftime("%Y-%m-%d").to_string()
    }

    /// `22:28` if it is the same day there as at `now`, else `2026-11-20 22:28`.
    pub fn short(&self, time: Timestamp, now: Timestamp) -> String {
        if self.day(time) == self.day(now) {
            self.hour_minute(time)
        } else {
            format!("{} {}", self.day(time), self.hour_minute(time))
        }
    }
}

/// Text that is no span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// Not numbers with units.
    #[error("not a span of time such as 30m, 12h, 3d or \"1d 12h\"")]
    Form,
    /// Nothing, or less than a second.
    #[error("the span of time is shorter than a second")]
    TooShort,
    /// Above [`MAX_SPAN`].
    #[error("the span of time is longer than ten years")]
    TooLong,
}

/// Reads `90s`, `30m`, `12h`, `3d`, `2w` and sums of them, such as `1d 12h`.
///
/// # Errors
/// See [`SpanError`].
pub fn parse_span(text: &str) -> Result<Duration, SpanError> {
    let span = humantime::parse_duration(text.trim()).map_err(|error| match error {
        humantime::DurationError::NumberOverflow => SpanError::TooLong,
        _ => SpanError::Form,
    })?;
    if span < Duration::from_secs(1) {
        Err(SpanError::TooShort)
    } else if span > MAX_SPAN {
        Err(SpanError::TooLong)
    } else {
        Ok(span)
    }
}

/// A span as people say it, with its two largest units: `3 days 4 hours`, `59 minutes 1 second`, `0 seconds`. What is
/// smaller is cut off.
pub fn span_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [
        (seconds / 86_400, "day"),
        (seconds / 3600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let mut words = Vec::new();
    for (index, (count, unit)) in units.iter().enumerate().skip(first).take(2) {
        if *count > 0 || index == units.len() - 1 && words.is_empty() {
            words.push(format!("{count} {unit}{}", if *count == 1 { "" } else { "s" }));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(rfc3339(Timestamp::from_millis(0)), "1970-01-01T00:00:00.000Z");
        // The example of RFC 3339 section 5.8, in milliseconds.
        assert_eq!(rfc3339(Timestamp::from_millis(482_196_050_520)), "1985-04-12T23:20:50.520Z");
        assert_eq!(rfc3339(Timestamp::from_millis(u64::MAX)), "9999-12-30T22:00:00.999Z");
    }

    #[test]
    fn the_clock_is_not_before_this_was_written() {
        assert!(now() > Timestamp::from_millis(1_700_000_000_000));
    }

    #[test]
    fn people_see_their_own_zone() {
        let zone = Zone { zone: TimeZone::fixed(jiff::tz::offset(2)), mark: "" };
        let evening = Timestamp::from_millis(482_196_050_520);
        assert_eq!(zone.hour_minute(evening), "01:20");
        assert_eq!(zone.day(evening), "1985-04-13");
        assert_eq!(Zone::utc().hour_minute(evening), "23:20Z");
        assert_eq!(zone.short(evening, evening.plus(Duration::from_secs(3600))), "01:20");
        let next_day = evening.plus(Duration::from_secs(24 * 3600));
        assert_eq!(zone.short(evening, next_day), "1985-04-13 01:20");
    }

    #[test]
    fn a_zone_is_found_or_utc_is_marked() {
        let shown = Zone::of_system().hour_minute(Timestamp::from_millis(0));
        assert!(shown.len() == 5 || shown.len() == 6 && shown.ends_with('Z'), "{shown}");
    }

    #[test]
    fn any_claimed_time_can_be_shown_in_any_zone() {
        for hours in [-25, 0, 25] {
            let zone = Zone { zone: TimeZone::fixed(jiff::tz::offset(hours)), mark: "" };
            let shown = zone.short(Timestamp::from_millis(u64::MAX), Timestamp::from_millis(0));
            assert!(shown.starts_with("9999-12-"), "{shown}");
        }
    }

    #[test]
    fn spans_are_read_and_bounded() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        for (text, want) in [
            ("3d", hours(72)),
            ("12h", hours(12)),
            (" 1d 12h ", hours(36)),
            ("2w", hours(24 * 14)),
            ("90s", Duration::from_secs(90)),
            ("30m", hours(1) / 2),
        ] {
            assert_eq!(parse_span(text), Ok(want), "{text}");
        }
        for (text, want) in [
            ("", SpanError::Form),
            ("soon", SpanError::Form),
            ("3", SpanError::Form),
            ("-3d", SpanError::Form),
            ("3 fortnights", SpanError::Form),
            ("0", SpanError::TooShort),
            ("10ms", SpanError::TooShort),
            ("11y", SpanError::TooLong),
            ("99999999999999999999999d", SpanError::TooLong),
        ] {
            assert_eq!(parse_span(text), Err(want), "{text}");
        }
    }

    #[test]
    fn spans_are_said_in_two_units() {
        for (seconds, want) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (61, "1 minute 1 second"),
            (3600, "1 hour"),
            (3601, "1 hour"),
            (90_000, "1 day 1 hour"),
            (3 * 86_400, "3 days"),
        ] {
            assert_eq!(span_words(Duration::from_secs(seconds)), want);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            if let Ok(span) = parse_span(&text) {
                prop_assert!(span <= MAX_SPAN);
                prop_assert!(!span_words(span).is_empty());
            }
        }

        #[test]
        fn no_time_panics(ms in any::<u64>()) {
            prop_assert_eq!(rfc3339(Timestamp::from_millis(ms)).len(), 24);
        }
    }
}
