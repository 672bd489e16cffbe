//! A map from fingerprints to file ids in little more than the twelve bytes of an entry.
//!
//! A hash map of four million such entries takes 71 or 142 MB, depending on when it doubled last, and half as
//! much again while it doubles. Here entries lie sorted in shards that grow by an eighth, so that memory
//! follows the number of entries. An insert moves half a shard: some KB.

/// Bits of a fingerprint that choose its shard: fingerprints are hashes, so shards are alike.
const SHARD_BITS: u32 = 10;

/// Entries that a shard makes room for at once, at the least.
const LEAST_ROOM: usize = 4;

/// File ids by fingerprint.
#[derive(Debug)]
pub(super) struct Fingerprints {
    shards: Box<[Shard]>,
    len: usize,
}

/// Entries in ascending order, as two columns: together they would be padded by a third.
#[derive(Clone, Debug, Default)]
struct Shard {
    keys: Vec<u64>,
    files: Vec<u32>,
}

impl Fingerprints {
    pub(super) fn new() -> Self {
        Self { shards: vec![Shard::default(); 1 << SHARD_BITS].into_boxed_slice(), len: 0 }
    }

    /// Number of entries.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: u64) -> Option<u32> {
        let shard = self.shards.get(shard_of(key))?;
        let place = shard.keys.binary_search(&key).ok()?;
        shard.files.get(place).copied()
    }

    /// Notes the file of a fingerprint, in place of the one that it had.
    pub(super) fn insert(&mut self, key: u64, file: u32) {
        let Some(shard) = self.shards.get_mut(shard_of(key)) else { return };
        match shard.keys.binary_search(&key) {
            Ok(place) => {
                if let Some(known) = shard.files.get_mut(place) {
                    *known = file;
                }
            }
            Err(place) => {
                if shard.keys.len() == shard.keys.capacity() {
                    let room = (shard.keys.len() / 8).max(LEAST_ROOM);
                    shard.keys.reserve_exact(room);
                    shard.files.reserve_exact(room);
                }
                shard.keys.insert(place, key);
                shard.files.insert(place, file);
                self.len += 1;
            }
        }
    }

    /// Keeps the entries that `keep` says yes to.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64, u32) -> bool) {
        self.len = 0;
        for shard in &mut self.shards {
            let Shard { keys, files } = std::mem::take(shard);
            let entries = keys.into_iter().zip(files);
            (shard.keys, shard.files) = entries.filter(|(key, file)| keep(*key, *file)).unzip();
            shard.keys.shrink_to_fit();
            shard.files.shrink_to_fit();
            self.len += shard.keys.len();
        }
    }
}

fn shard_of(key: u64) -> usize {
    usize::try_from(key >> (u64::BITS - SHARD_BITS)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn key(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Scenario: a million entries, some of them twice; a third is kept.
    /// Guarantees: what a map would hold, in no more than 16 bytes for each.
    #[test]
    fn it_is_a_map_of_little_memory() {
        let mut map = Fingerprints::new();
        let mut expected = HashMap::new();
        for number in 0..1_000_000 {
            let (key, file) = (key(number % 900_000), u32::try_from(number % 77).unwrap());
            map.insert(key, file);
            expected.insert(key, file);
        }
        assert_eq!(map.len(), expected.len());
        assert!(expected.iter().all(|(key, file)| map.get(*key) == Some(*file)));
        assert_eq!(map.get(key(900_001)), None);
        let room: usize = map.shards.iter().map(|shard| shard.keys.capacity()).sum();
        assert!(12 * room <= 16 * map.len(), "{room} for {}", map.len());
        map.retain(|key, file| key % 3 == 0 && file < 70);
        expected.retain(|key, file| key % 3 == 0 && *file < 70);
        assert_eq!(map.len(), expected.len());
        assert!(expected.iter().all(|(key, file)| map.get(*key) == Some(*file)));
    }

    /// Scenario: the lowest and the highest fingerprint.
    /// Guarantees: both are held, each in its shard.
    #[test]
    fn the_ends_have_their_place() {
        let mut map = Fingerprints::new();
        map.insert(0, 1);
        map.insert(u64::MAX, 2);
        assert_eq!((map.get(0), map.get(u64::MAX), map.get(1)), (Some(1), Some(2), None));
        assert_eq!(map.len(), 2);
    }
}
