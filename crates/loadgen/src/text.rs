//! Text that compresses as prose does: words of a vocabulary, frequent ones far more often.
//!
//! A text is drawn word by word for every span, so no two spans carry the same one and no window of a
//! compressor finds more repetition in it than language has.

use crate::random::Random;

/// Bytes of one entry: a word with what follows it.
const ENTRY_BYTES: usize = 16;

/// Entries to draw from, a power of two: 12 bits name one.
const ENTRIES: usize = 4096;

/// The same as a double, to share out.
const ENTRIES_TO_FILL: f64 = 4096.0;

/// Most frequent first, as in any language.
const FUNCTION_WORDS: &str = "the to of and a in is for that it on with as be are this was by not or \
    from at you we an have has can will your all if more which one their but they our been would when \
    there also other were its any may no each only than these then some into such about out up new so \
    what should after time over use two do first because them most how must between through same both \
    under while where before does still here";

/// The rest of the vocabulary is these with each ending.
const STEMS: &str = "order ship refund agent tool answer custom account invoice payment deliver request \
    return product stock price discount ticket support connect report error retry service server query \
    table column record commit version update delete insert search index result document context message \
    model prompt token token latency budget limit region cluster deploy release monitor alert metric trace \
    window session user address email phone country market season weather travel flight hotel train ticket \
    book read write review summary translate explain compare calculate measure estimate predict plan \
    schedule remind check confirm cancel change improve reduce extend remove create build test debug fix \
    design describe suggest recommend select filter group sort merge split load store archive restore \
    transform validate parse format encode decode protect secure encrypt permit deny allow block accept \
    reject approve escalate resolve close open start stop pause resume wait finish fail succeed warn notify \
    school student teacher science history culture language music health doctor patient medicine energy \
    water garden kitchen recipe dinner coffee winter summer morning evening minute second hundred thousand";

const ENDINGS: [&str; 6] = ["", "s", "ed", "ing", "er", "ment"];

/// Entries that a text is drawn from, each as often as its word is frequent.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    text: [u8; ENTRY_BYTES],
    length: usize,
}

impl Vocabulary {
    /// The vocabulary, the same every time.
    pub(crate) fn new() -> Self {
        let mut random = Random::new(11);
        let frequent = FUNCTION_WORDS.split_whitespace().map(str::to_owned);
        let stems: Vec<&str> = STEMS.split_whitespace().collect();
        let rare = ENDINGS
            .iter()
            .flat_map(|ending| stems.iter().map(move |stem| format!("{stem}{ending}")));
        let words: Vec<String> = frequent.chain(rare).collect();
        // By Zipf's law the word of rank r is drawn in proportion to 1 / (r + 3).
        let weights: Vec<f64> =
            (3_u32..).zip(&words).map(|(rank, _)| 1.0 / f64::from(rank)).collect();
        let total: f64 = weights.iter().sum();
        let mut entries = Vec::with_capacity(ENTRIES);
        let (mut due, mut made) = (0.0, 0.0);
        for (word, weight) in words.iter().zip(weights) {
            due += weight / total * ENTRIES_TO_FILL;
            while made < due && entries.len() < ENTRIES {
                entries.push(Entry::new(word, random.below(100)));
                made += 1.0;
            }
        }
        entries.resize(ENTRIES, Entry::new("the", 99));
        Self { entries }
    }

    /// Fills all of `out` with words. What stands there is a part of a JSON string, without quotes.
    pub(crate) fn fill(&self, random: &mut Random, out: &mut [u8]) {
        let mut at = 0;
        let mut bits = 0;
        let mut drawn = 0_u32;
        while let Some(space) = out.get_mut(at..at + ENTRY_BYTES) {
            if drawn == 0 {
                bits = random.bits();
                drawn = 5;
            }
            let entry = self.entry(bits);
            bits >>= 12;
            drawn -= 1;
            space.copy_from_slice(&entry.text);
            at += entry.length;
        }
        let rest = out.get_mut(at..).unwrap_or_default();
        let entry = self.entry(random.bits());
        rest.fill(b'.');
        for (to, from) in rest.iter_mut().zip(entry.text.iter().take(entry.length)) {
            *to = *from;
        }
        // A backslash that lost its letter would break the JSON around.
        if let Some(last) = out.last_mut() {
            *last = b'.';
        }
    }

    fn entry(&self, bits: u64) -> &Entry {
        const MASK: u64 = ENTRIES as u64 - 1;
        let index = (bits & MASK) as usize;
        // The mask is below the length that `new` makes.
        self.entries.get(index).unwrap_or(&Entry::FULL_STOP)
    }
}

impl Entry {
    const FULL_STOP: Self = Self { text: [b'.'; ENTRY_BYTES], length: 1 };

    /// A word and what follows it: mostly a space, at times the end of a clause, sentence or line.
    fn new(word: &str, chance: u32) -> Self {
        let after = match chance {
            0 => ".\\n",
            1..=5 => ". ",
            6..=11 => ", ",
            _ => " ",
        };
        let mut text = [b' '; ENTRY_BYTES];
        let spelled = word.bytes().take(ENTRY_BYTES - after.len()).chain(after.bytes());
        let mut length = 0;
        for (to, from) in text.iter_mut().zip(spelled) {
            *to = from;
            length += 1;
        }
        Self { text, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_part_of_a_json_string_at_every_length() {
        let vocabulary = Vocabulary::new();
        let mut random = Random::new(3);
        for length in 1..2000 {
            let mut out = vec![0; length];
            vocabulary.fill(&mut random, &mut out);
            let quoted = format!("\"{}\"", String::from_utf8(out).unwrap());
            let read: Result<String, _> = serde_json::from_str(&quoted);
            assert!(read.is_ok(), "{quoted}");
        }
    }

    /// A constant text would make the bytes per span a lie, noise would as well.
    #[test]
    fn texts_differ_and_have_many_words() {
        let vocabulary = Vocabulary::new();
        let mut random = Random::new(3);
        let mut text = || {
            let mut out = vec![0; 20_000];
            vocabulary.fill(&mut random, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (one, other) = (text(), text());
        assert_ne!(one, other);
        let distinct: std::collections::HashSet<&str> = one.split([' ', '.', ',']).collect();
        assert!((400..2000).contains(&distinct.len()), "{}", distinct.len());
    }
}
