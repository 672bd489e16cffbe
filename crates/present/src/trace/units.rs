//! Numbers as people read them.

/// Nanoseconds with a unit that fits: `850 ns`, `12.3 us`, `1.50 s`, `2 m 05 s`, `1 h 02 m`.
pub(crate) fn duration(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (unit, name) = match nanos {
        0..1_000 => return format!("{sign}{nanos} ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => (1_000_000_000, "s"),
        _ => return format!("{sign}{}", long_duration(nanos / 1_000_000_000)),
    };
    let (whole, thousandths) = (nanos / unit, nanos % unit * 1000 / unit);
    let fraction = match whole {
        0..10 => format!(".{:02}", thousandths / 10),
        10..100 => format!(".{}", thousandths / 100),
        _ => String::new(),
    };
    format!("{sign}{whole}{fraction} {name}")
}

fn long_duration(seconds: u128) -> String {
    match seconds {
        0..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A count with spaces between thousands: `12 345`.
pub(crate) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// US dollars with as many digits as the amount needs, six at the most.
pub(crate) fn dollars(amount: f64) -> String {
    let text = format!("{amount:.6}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    format!("${whole}.{fraction:0<2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: durations of every size, none, negative, and the widest there are.
    /// Guarantees: three digits at the most before the unit changes; never rounded up.
    #[test]
    fn durations_have_fitting_units() {
        let cases: [(i128, &str); 12] = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (12_399, "12.3 us"),
            (300_000_000, "300 ms"),
            (1_500_000_000, "1.50 s"),
            (59_999_999_999, "59.9 s"),
            (125_000_000_000, "2 m 05 s"),
            (3_720_000_000_000, "1 h 02 m"),
            (90_000_000_000_000, "1 d 01 h"),
            (-1_500_000, "-1.50 ms"),
            (i128::from(i64::MAX) - i128::from(i64::MIN), "213503 d 23 h"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(nanos), text);
        }
    }

    /// Scenario: counts and amounts, the extremes included.
    /// Guarantees: thousands apart, cents always, no more than six digits.
    #[test]
    fn counts_and_dollars() {
        assert_eq!(count(0), "0");
        assert_eq!(count(-1234), "-1 234");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(i64::MIN), "-9 223 372 036 854 775 808");
        assert_eq!(dollars(0.0), "$0.00");
        assert_eq!(dollars(1.5), "$1.50");
        assert_eq!(dollars(0.000_42), "$0.00042");
    }
}
