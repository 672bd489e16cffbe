//! Points in time as people write them: `24h` ago, `now`, a date, an RFC 3339 instant.

use std::str::FromStr;

use tracelake_archive::settings::Span;

/// A point in time, absolute or counted back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instant {
    /// The present.
    Now,
    /// So many microseconds before the present.
    Ago(i64),
    /// Microseconds since the Unix epoch.
    At(i64),
}

impl Instant {
    /// Microseconds since the Unix epoch.
    pub(crate) const fn to_micros(self, now_micros: i64) -> i64 {
        match self {
            Self::Now => now_micros,
            Self::Ago(micros) => now_micros.saturating_sub(micros),
            Self::At(micros) => micros,
        }
    }
}

impl FromStr for Instant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "now" {
            return Ok(Self::Now);
        }
        if text.ends_with(|c: char| c.is_ascii_alphabetic() && c != 'Z')
            && let Ok(Span(span)) = text.parse()
        {
            return Ok(Self::Ago(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)));
        }
        let padded = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let zoned =
            if padded.ends_with('Z') || padded.get(19..).is_some_and(|t| t.contains(['+', '-'])) {
                padded
            } else {
                format!("{padded}Z")
            };
        chrono::DateTime::parse_from_rfc3339(&zoned.replacen(' ', "T", 1))
            .map(|instant| Self::At(instant.timestamp_micros()))
            .map_err(|_| {
                format!(
                    "`{text}` is not a time: write 24h, now, 2026-11-22 or 2026-11-22T10:00:00Z"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every way to write a time, and nonsense.
    /// Guarantees: UTC where no zone is given; nonsense is refused with examples.
    #[test]
    fn reads_times() {
        assert_eq!("now".parse(), Ok(Instant::Now));
        assert_eq!("24h".parse(), Ok(Instant::Ago(86_400_000_000)));
        let day = Instant::At(1_795_305_600_000_000);
        for text in [
            "2026-11-22",
            "2026-11-22T00:00:00Z",
            "2026-11-22 00:00:00",
            "2026-11-22T01:00:00+01:00",
        ] {
            assert_eq!(text.parse(), Ok(day), "{text}");
        }
        assert!("yesterday".parse::<Instant>().is_err());
    }
}
