//! Records of a journal file, a few at a time.

use tracelake_journal::{Damage, JournalError, RecordBytes, RecordReader};

use super::origin::Origin;
use super::replay_mark::{Deaths, Records};

/// Records that are taken in together when an earlier start ended at one of them, at most.
const FEW_RECORDS: u64 = 32;

/// Bytes that they have together, unless one alone has more.
const FEW_BYTES: u64 = 128 << 10;

/// Into how many parts those are divided that a start ended at, why is not known.
const PARTS: u64 = 8;

/// How many records to take in together.
#[derive(Clone, Debug, Default)]
pub(super) struct Care {
    /// What a start that took few at a time ended at.
    pub(super) died_at: Option<Records>,
    /// Through which segment few are taken in at a time: the carry, and the segments up to there.
    pub(super) through: Option<u64>,
    /// Places in files that a part ends at, since an epoch brought what precedes them to a table. Up to
    /// there records are taken in together, but for those that a start ended at.
    pub(super) together: Vec<(Origin, u64)>,
}

/// A record and its place: its sequence number in a segment, its number in a carry.
pub(super) type Placed = (u64, RecordBytes);

/// Reads a file in batches.
pub(super) struct Batches {
    reader: RecordReader,
    origin: Origin,
    /// Records up to and with this place are passed over.
    done_through: Option<u64>,
    next: Option<Placed>,
    read: u64,
}

impl Care {
    /// How often a start ended at this record alone. One that ended by its own doing at several has ended at each of
    /// them: which one it was shows when they are taken in one by one.
    pub(super) fn deaths_at(&self, origin: Origin, place: u64) -> Deaths {
        let is_among =
            |died: &&Records| died.origin == origin && (died.first..=died.last).contains(&place);
        self.died_at.as_ref().filter(is_among).map_or_else(Deaths::default, |died| died.deaths)
    }

    /// The same where the records of `from` are now those of `to`, at places `by` higher; those that
    /// would lie before its begin are done with.
    pub(super) fn moved(&self, from: Origin, to: Origin, by: i64) -> Self {
        let moved = |place: u64| place.checked_add_signed(by);
        let died_at = match &self.died_at {
            Some(died) if died.origin == from => moved(died.last).map(|last| Records {
                origin: to,
                first: moved(died.first).unwrap_or(0),
                last,
                ..died.clone()
            }),
            died => died.clone(),
        };
        let together = self.together.iter().filter_map(|(origin, place)| match *origin == from {
            true => Some((to, moved(*place)?)),
            false => Some((*origin, *place)),
        });
        Self { died_at, through: self.through, together: together.collect() }
    }

    /// Behind which places of the file a part ends at the latest.
    fn ends(&self, origin: Origin) -> impl Iterator<Item = u64> + '_ {
        self.together.iter().filter(move |(of, _)| *of == origin).map(|(_, place)| *place)
    }

    /// How many records and bytes from this place on, and the last place that may be among them.
    fn limit(&self, origin: Origin, place: u64) -> (u64, u64, u64) {
        let end = self.ends(origin).filter(|end| place <= *end).min();
        let died = self.died_at.as_ref().filter(|died| died.origin == origin);
        if let Some(died) = died.filter(|died| (died.first..=died.last).contains(&place)) {
            let last = end.map_or(died.last, |end| end.min(died.last));
            let parts = if died.deaths.own == 0 { PARTS } else { died.count };
            return ((died.count / parts).max(1), u64::MAX, last);
        }
        // Those that a start ended at are not joined with others before them.
        let before = died.filter(|died| place < died.first);
        let last = before.map_or(u64::MAX, |died| died.first.saturating_sub(1));
        if let Some(end) = end {
            return (u64::MAX, u64::MAX, end.min(last));
        }
        let few = match origin {
            Origin::Carry(_) => self.through.is_some(),
            Origin::Segment(number) => self.through.is_some_and(|through| number <= through),
        };
        if few { (FEW_RECORDS, FEW_BYTES, last) } else { (u64::MAX, u64::MAX, last) }
    }
}

impl Batches {
    pub(super) fn new(reader: RecordReader, origin: Origin, done_through: Option<u64>) -> Self {
        Self { reader, origin, done_through, next: None, read: 0 }
    }

    /// The next records, none at the end of the file.
    pub(super) fn next(&mut self, care: &Care) -> Result<Vec<Placed>, JournalError> {
        let mut batch: Vec<Placed> = Vec::new();
        let mut bytes: u64 = 0;
        let Some(first) = self.peek()?.map(|(place, _)| *place) else { return Ok(batch) };
        let (most_records, most_bytes, last) = care.limit(self.origin, first);
        while let Some((place, record)) = self.peek()? {
            let (place, len) = (*place, record.body_len());
            let is_full = most_records <= batch.len() as u64
                || most_bytes < bytes.saturating_add(len)
                || last < place;
            if is_full && !batch.is_empty() {
                break;
            }
            bytes = bytes.saturating_add(len);
            batch.extend(self.next.take());
        }
        Ok(batch)
    }

    fn peek(&mut self) -> Result<Option<&Placed>, JournalError> {
        while self.next.is_none() {
            let Some(record) = self.reader.next().transpose()? else { return Ok(None) };
            let place = match self.origin {
                Origin::Carry(_) => self.read,
                Origin::Segment(_) => {
                    self.reader.last_sequence().map_or(0, |sequence| sequence.get())
                }
            };
            self.read += 1;
            if self.done_through.is_none_or(|done| done < place) {
                self.next = Some((place, record));
            }
        }
        Ok(self.next.as_ref())
    }

    /// What of the file is no record; whole at its end.
    pub(super) fn damage(&self) -> &[Damage] {
        self.reader.damage()
    }
}
