//! Sizes, counts and times as people read them.

use std::time::Duration;

/// A size with three digits and a binary unit: `512 B`, `1.46 MiB`.
#[must_use]
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut divisor = 1024_u64;
    let mut unit = "KiB";
    for name in UNITS {
        unit = name;
        if size / divisor < 1024 {
            break;
        }
        divisor = divisor.saturating_mul(1024);
    }
    let whole = size / divisor;
    let hundredths = u128::from(size % divisor) * 100 / u128::from(divisor);
    match whole {
        0..10 => format!("{whole}.{hundredths:02} {unit}"),
        10..100 => format!("{whole}.{} {unit}", hundredths / 10),
        _ => format!("{whole} {unit}"),
    }
}

/// A count and its noun, which takes an `s` in the plural.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A length of time in its two largest units: `350 ms`, `12 s`, `3 m 20 s`, `2 d 4 h`.
#[must_use]
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: sizes below, at and above each unit, up to the largest there is.
    /// Guarantees: three digits at the most, never rounded up.
    #[test]
    fn sizes_have_fitting_units() {
        let cases: [(u64, &str); 7] = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_536, "1.50 KiB"),
            (15 << 20, "15.0 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
    }

    /// Scenario: one, none and several; times of every size.
    /// Guarantees: the noun agrees, two units at the most.
    #[test]
    fn counts_and_times_read_well() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        let cases = [
            (0, "0 ms"),
            (59, "59 s"),
            (200, "3 m 20 s"),
            (3_700, "1 h 1 m"),
            (187_200, "2 d 4 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
