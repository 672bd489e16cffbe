//! Protobuf's JSON forms of time: `2026-11-22T13:25:50.663Z` and `0.093s`.
//!
//! Source: `google/protobuf/{timestamp,duration}.proto`. Years 1 to 9999.

/// Microseconds since the Unix epoch of an RFC 3339 time; digits beyond microseconds are cut.
pub(super) fn parse_rfc3339_micros(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    let (time, offset_minutes) = split_offset(time)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.split(':');
    let hour = digits(clock.next()?, 2)?;
    let minute = digits(clock.next()?, 2)?;
    let second = digits(clock.next()?, 2)?;
    let is_date = parts.next().is_none()
        && 1 <= year
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day);
    // Second 60 is a leap second, which Unix time counts as the next second.
    if !is_date || clock.next().is_some() || 23 < hour || 59 < minute || 60 < second {
        return None;
    }
    let minutes = days_since_epoch(year, month, day) * 1_440 + hour * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1_000_000 + scaled_fraction(fraction, 6)?)
}

/// The RFC 3339 text in UTC: with milliseconds, or with microseconds where they are needed.
/// `None` outside of the years 1 to 9999.
pub(super) fn rfc3339_of_micros(micros: i64) -> Option<String> {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_date(days);
    if !(1..=9_999).contains(&year) {
        return None;
    }
    let (hour, minute, second) =
        (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let clock = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    Some(if fraction % 1_000 == 0 {
        format!("{clock}.{:03}Z", fraction / 1_000)
    } else {
        format!("{clock}.{fraction:06}Z")
    })
}

/// Milliseconds of a duration in seconds; digits beyond milliseconds are cut.
pub(super) fn parse_duration_ms(text: &str) -> Option<i64> {
    let seconds = text.strip_suffix('s')?;
    let (sign, unsigned) = match seconds.strip_prefix('-') {
        Some(unsigned) => (-1, unsigned),
        None => (1, seconds),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    if whole.is_empty() || 18 < whole.len() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis = whole.parse::<i128>().ok()? * 1_000 + i128::from(scaled_fraction(fraction, 3)?);
    i64::try_from(sign * millis).ok()
}

/// The duration's text in seconds, with milliseconds where they are needed.
pub(super) fn duration_of_ms(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let (whole, fraction) = (millis.unsigned_abs() / 1_000, millis.unsigned_abs() % 1_000);
    if fraction == 0 { format!("{sign}{whole}s") } else { format!("{sign}{whole}.{fraction:03}s") }
}

/// The time without its offset, and the offset from UTC in minutes.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let position = time.rfind(['+', '-'])?;
    let (time, offset) = time.split_at(position);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours < 24 && minutes < 60 { Some((time, sign * (hours * 60 + minutes))) } else { None }
}

/// A number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let all_digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { text.parse().ok() } else { None }
}

/// The first `places` digits of a decimal fraction, as a whole number.
fn scaled_fraction(fraction: &str, places: usize) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<places$}").get(..places)?.parse().ok()
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01, by the proleptic Gregorian calendar. Years are taken to begin in March,
/// so that the leap day is the last one; an era is 400 years.
/// Source: <https://howardhinnant.github.io/date_algorithms.html>
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day since 1970-01-01: the inverse of [`days_since_epoch`].
const fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: times at the borders of days, years, leap years and the epoch, and other offsets.
    /// Guarantees: each is the right instant to the microsecond, and reads back.
    #[test]
    fn reads_and_writes_rfc3339() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2026-11-22T13:25:50.663Z", 1_795_353_950_663_000),
            ("2024-02-29T23:59:59.999999Z", 1_709_251_199_999_999),
            ("1969-12-31T23:59:59.999Z", -1_000),
            ("0001-01-01T00:00:00.000Z", -62_135_596_800_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ] {
            assert_eq!(parse_rfc3339_micros(text), Some(micros), "{text}");
            assert_eq!(rfc3339_of_micros(micros).as_deref(), Some(text));
        }
        for (text, same) in [
            ("2026-11-22T13:25:50Z", "2026-11-22T13:25:50.000Z"),
            ("2026-11-22t13:25:50.6634567z", "2026-11-22T13:25:50.663456Z"),
            ("2026-11-22T15:25:50.663+02:00", "2026-11-22T13:25:50.663Z"),
            ("2026-11-21T23:55:50-13:30", "2026-11-22T13:25:50.000Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(parse_rfc3339_micros(text), parse_rfc3339_micros(same), "{text}");
        }
        assert_eq!(rfc3339_of_micros(i64::MAX), None);
        assert_eq!(rfc3339_of_micros(i64::MIN), None);
    }

    /// Scenario: texts that are almost a time or a duration.
    /// Guarantees: refused.
    #[test]
    fn refuses_what_is_not_a_time() {
        for text in [
            "",
            "T",
            "2026-11-22",
            "2026-11-22T13:25Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T13:25:50",
            "now",
            "2026-11-22T13:25:50.Z",
            "2026-11-22T13:25:50.1e3Z",
            "2026-11-22T13:25:50+2:00",
            "+026-11-22T13:25:50Z",
            "2026-11-22T13:25:50Z ",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339_micros(text), None, "{text}");
        }
        for text in ["", "s", "1", "1.s", ".5s", "1e3s", "--1s", "99999999999999999999s"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }

    /// Scenario: durations as protobuf writes them.
    /// Guarantees: milliseconds, exactly, and back.
    #[test]
    fn reads_and_writes_durations() {
        for (text, millis) in [
            ("0.093s", 93),
            ("1s", 1_000),
            ("-0.500s", -500),
            ("0s", 0),
            ("9223372036854775.807s", i64::MAX),
            ("-9223372036854775.808s", i64::MIN),
        ] {
            assert_eq!(parse_duration_ms(text), Some(millis), "{text}");
            assert_eq!(duration_of_ms(millis), text);
        }
        assert_eq!(parse_duration_ms("0.093999s"), Some(93));
        assert_eq!(parse_duration_ms("2.5s"), Some(2_500));
    }
}
