//! Latencies by count: fixed memory, an error of less than one in sixty-four.

use std::time::Duration;

/// Buckets of one power of two, in bits.
const PRECISION: u32 = 6;

/// Microseconds by magnitude. Two of them add up.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_micros: u64,
}

impl Histogram {
    /// Without a value.
    pub(crate) fn new() -> Self {
        let buckets = bucket(u64::MAX) + 1;
        Self { counts: vec![0; buckets], total: 0, max_micros: 0 }
    }

    /// Counts one value.
    pub(crate) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.max_micros = self.max_micros.max(micros);
    }

    /// Counts what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_micros = self.max_micros.max(other.max_micros);
    }

    /// Microseconds that a share of the values, in thousandths, does not exceed. Zero without values.
    pub(crate) fn permille_micros(&self, permille: u64) -> u64 {
        let wanted = (self.total * permille).div_ceil(1000);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return upper(index).min(self.max_micros);
            }
        }
        self.max_micros
    }

    /// The largest value, exactly.
    pub(crate) const fn max_micros(&self) -> u64 {
        self.max_micros
    }
}

/// Values below 64 have a bucket each; above, each power of two has 64.
#[expect(clippy::cast_possible_truncation, reason = "a bucket's number is below 4,096")]
const fn bucket(micros: u64) -> usize {
    let magnitude = (u64::BITS - micros.leading_zeros()).saturating_sub(PRECISION + 1);
    ((magnitude as usize) << PRECISION) + (micros >> magnitude) as usize
}

/// Largest value of a bucket.
const fn upper(index: usize) -> u64 {
    let per_power = 1 << PRECISION;
    let magnitude = if index < 2 * per_power { 0 } else { index / per_power - 1 };
    let low = (index - magnitude * per_power) as u64;
    (low << magnitude) + ((1 << magnitude) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_ends_near_it() {
        for micros in (0..5000).chain([65_535, 65_536, 1_000_000, 123_456_789, u64::MAX / 3]) {
            let end = upper(bucket(micros));
            assert!(end >= micros && end - micros <= micros / 64, "{micros} ends at {end}");
        }
    }

    #[test]
    fn percentiles_of_a_thousand_values() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|value| histogram.record(Duration::from_micros(value * 100)));
        let near = |permille, expected: u64| {
            let found = histogram.permille_micros(permille);
            assert!(found.abs_diff(expected) <= expected / 50, "{permille}: {found}");
        };
        near(500, 50_000);
        near(990, 99_000);
        near(999, 99_900);
        assert_eq!(histogram.max_micros(), 100_000);
    }
}
