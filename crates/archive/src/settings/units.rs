//! Values with a unit, as people write them.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A length of time: `500ms`, `2s`, `5m`, `24h`, `7d`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

/// A size: `1024`, `64KiB`, `64MiB`, `5GiB`; `KB`, `MB`, `GB` are powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub(crate) fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Splits digits (with a fraction) from the unit behind them.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is not a time, such as 500ms, 2s, 5m, 24h or 7d");
        let (number, unit) = split(text).ok_or_else(fault)?;
        let seconds = match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(fault()),
        };
        Duration::try_from_secs_f64(number * seconds).map(Self).map_err(|_| fault())
    }
}

impl FromStr for ByteSize {
    type Err = String;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked before"
    )]
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is not a size, such as 512KiB, 64MiB or 5GiB");
        let (number, unit) = split(text).ok_or_else(fault)?;
        let bytes = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024.0 * 1024.0,
            "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(fault()),
        };
        let bytes = number * bytes;
        if bytes < 9e15 { Ok(Self(bytes as u64)) } else { Err(fault()) }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: values with every unit, and nonsense.
    /// Guarantees: they mean what people mean by them.
    #[test]
    fn reads_times_and_sizes() {
        assert_eq!("500ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("2".parse(), Ok(Span(Duration::from_secs(2))));
        assert_eq!("7d".parse(), Ok(Span(Duration::from_secs(7 * 86_400))));
        assert_eq!("1.5KiB".parse(), Ok(ByteSize(1536)));
        assert_eq!("5 GiB".parse(), Ok(ByteSize(5 << 30)));
        for wrong in ["", "x", "-1s", "5y", "1e9h"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
        assert!("99999999999GiB".parse::<ByteSize>().is_err());
    }
}
