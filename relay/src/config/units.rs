//! Durations and sizes as people write them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A duration, in text as `30s` or `30days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is no duration like 30s, 12h, 30days"))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds > 0 && seconds.is_multiple_of(24 * 3600) && self.0.subsec_nanos() == 0 {
            let days = seconds / (24 * 3600);
            write!(f, "{days}{}", if days == 1 { "day" } else { "days" })
        } else {
            humantime::format_duration(self.0).fmt(f)
        }
    }
}

/// A number of bytes, in text as `64 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// For people: three digits at most.
    pub fn rounded(self) -> String {
        let unit = UNITS.iter().find(|(_, factor)| self.0 >= *factor);
        match unit {
            Some((name, factor)) if *factor > 1 && self.0 / factor < 10 => {
                let tenths = u128::from(self.0) * 10 / u128::from(*factor);
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            }
            Some((name, factor)) => format!("{} {name}", self.0 / factor),
            None => "0 B".to_owned(),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size like 512 KiB, 64 MiB, 1 GiB");
        let trimmed = text.trim();
        let (digits, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| trimmed.strip_suffix(unit).map(|digits| (digits.trim(), *factor)))
            .ok_or_else(wrong)?;
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match fits {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_round_trip() {
        for bytes in [0, 1, 1023, 1024, 64 << 20, 1 << 40, u64::MAX] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for (bytes, text) in
            [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (3_300_000_000, "3.0 GiB")]
        {
            assert_eq!(Size(bytes).rounded(), text);
        }
        assert!("99999999999 TiB".parse::<Size>().is_err());
        for seconds in [1, 90, 3600, 24 * 3600, 30 * 24 * 3600 + 1] {
            let span = Span(Duration::from_secs(seconds));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for (days, text) in [(1, "1day"), (2, "2days"), (30, "30days")] {
            assert_eq!(Span(Duration::from_secs(days * 24 * 3600)).to_string(), text);
        }
    }
}
