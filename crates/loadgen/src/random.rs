//! Numbers and ids drawn without locks: each connection owns its source.

/// Odd number whose multiples visit every 64-bit value.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Finalizer of SplitMix64: a bijection, so that different numbers stay different.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The id of the `counter`-th thing under a seed: no two counters share one.
pub(crate) const fn id(seed: u64, counter: u64) -> u64 {
    mix(seed.wrapping_add(counter.wrapping_mul(GOLDEN)))
}

/// A SplitMix64 sequence.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that a seed begins.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`, which is not zero. The bias is below `bound / 2^32`.
    pub(crate) const fn below(&mut self, bound: u32) -> u32 {
        let product = (self.bits() >> 32) * bound as u64;
        (product >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_one_seed_are_all_different() {
        let seen: HashSet<u64> = (0..100_000).map(|counter| id(7, counter)).collect();
        assert_eq!(seen.len(), 100_000);
    }

    #[test]
    fn numbers_below_a_bound_reach_every_value() {
        let mut random = Random::new(1);
        let seen: HashSet<u32> = (0..1000).map(|_| random.below(10)).collect();
        assert_eq!(seen, (0..10).collect());
    }
}
