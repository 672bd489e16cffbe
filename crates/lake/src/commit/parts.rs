//! Late pieces of large traces: what came is written, what is there is not written anew.
//!
//! Of a large trace the head is read, and its last part as long as that one is small; of the other parts
//! the digests of their spans, which tell copies. What is new goes into the head when it decides something,
//! or else into the last part, or into further ones ([`crate::rows::parts`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tracelake_decode::{Fingerprinter, SpanDigest};
use tracelake_model::TraceId;

use super::merge::Age;
use super::old_rows::Deletions;
use super::{Found, TableWriter};
use crate::data_file::read_large_rows;
use crate::error::LakeError;
use crate::rows::parts::{cut, fits_a_row, read_digests, spans_bytes, take_rest};
use crate::rows::{Beyond, ExperimentBy, LARGE_ROW_BYTES, TraceDraft, rebuild_traces};
use crate::table::{LiveFile, RowAddress};

/// A last part of fewer bytes takes in whatever comes; a larger one what is half of it at the least, so that
/// little is written again and again.
const SMALL_PART_BYTES: usize = 1 << 20;

/// A row of a large trace.
#[derive(Clone, Debug)]
struct Row {
    address: RowAddress,
    part: Option<i32>,
    spans_bytes: usize,
}

/// A large trace as it lies in its table.
#[derive(Debug, Default)]
pub(super) struct LargeTrace {
    /// Its large rows, the head first, parts by their number.
    rows: Vec<Row>,
    /// Its other rows: another writer's, or those of an earlier version.
    others: Vec<RowAddress>,
    /// Spans of the piece, by their place, that are in it.
    known: HashSet<usize>,
}

impl LargeTrace {
    /// The rows that an amendment by `piece` has to read.
    pub(super) fn to_read(&self, piece: &TraceDraft) -> Vec<RowAddress> {
        let heads = self.rows.iter().filter(|row| row.part.is_none());
        let mut read: Vec<RowAddress> = heads.map(|row| row.address.clone()).collect();
        read.extend(self.others.iter().cloned());
        let came = self.rest_of(piece).spans_bytes();
        let last = self.rows.last().filter(|row| row.part.is_some());
        let takes_more = |row: &&Row| {
            row.spans_bytes < SMALL_PART_BYTES
                || (row.spans_bytes <= came.saturating_mul(2)
                    && row.spans_bytes.saturating_add(came) < LARGE_ROW_BYTES)
        };
        if let Some(last) = last.filter(takes_more)
            && self.known.len() < piece.spans.len()
        {
            read.push(last.address.clone());
        }
        read
    }

    /// True when the row of the trace is too large to be read for a look at what is open.
    pub(super) fn has_large_head(&self) -> bool {
        let heads = self.rows.iter().filter(|row| row.part.is_none());
        LARGE_ROW_BYTES <= heads.map(|row| row.spans_bytes).sum()
    }

    /// The live files that it lies in.
    pub(super) fn files(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().map(|row| row.address.file)
    }

    /// True when spans of the piece are in it.
    pub(super) fn knows_some(&self) -> bool {
        !self.known.is_empty()
    }

    /// True when its row is gone, and parts are left.
    pub(super) fn is_headless(&self) -> bool {
        self.others.is_empty() && self.rows.iter().all(|row| row.part.is_some())
    }

    /// True when it has rows beside its head.
    pub(super) fn has_parts(&self) -> bool {
        self.rows.iter().any(|row| row.part.is_some())
    }

    /// The rows that need not be read to change or delete the trace.
    pub(super) fn unread(&self, piece: &TraceDraft) -> Vec<RowAddress> {
        let read = self.to_read(piece);
        let rows = self.rows.iter().map(|row| &row.address);
        rows.filter(|address| !read.contains(address)).cloned().collect()
    }

    /// The head and the first parts that have no more than `bytes` together.
    pub(super) fn within(&self, bytes: usize) -> Vec<RowAddress> {
        let mut read = self.others.clone();
        let mut sum = 0_usize;
        for row in &self.rows {
            sum = sum.saturating_add(row.spans_bytes);
            if row.part.is_none() || sum <= bytes {
                read.push(row.address.clone());
            }
        }
        read
    }

    /// `piece` without the spans that are in the trace.
    pub(super) fn rest_of(&self, piece: &TraceDraft) -> TraceDraft {
        let spans = piece.spans.iter().enumerate();
        let is_new = |(index, _): &(usize, _)| !self.known.contains(index);
        let spans: Vec<_> = spans.filter(is_new).map(|(_, span)| span.clone()).collect();
        let mut rest = TraceDraft { spans, ..piece.clone() };
        let are_copies = rest.spans.is_empty() && !piece.spans.is_empty();
        if are_copies && rest.experiment_by <= ExperimentBy::Spans {
            // Copies name nothing.
            (rest.experiment_id, rest.experiment_by) = (None, ExperimentBy::Nobody);
        }
        rest
    }

    /// What is new in `piece` as a part of its own.
    pub(super) fn as_part(&self, piece: &TraceDraft) -> TraceDraft {
        let part = Some(self.next_part());
        TraceDraft { part, info: None, ..self.rest_of(piece) }
    }

    /// The number of the next part.
    pub(super) fn next_part(&self) -> i32 {
        let highest = self.rows.iter().filter_map(|row| row.part).max();
        highest.unwrap_or_default().saturating_add(1)
    }

    /// True when the whole trace is in one row, and that is small beside `came`, or `came` is half of it: it is
    /// written anew as one.
    pub(super) fn is_worth_a_new_row(&self, came: &TraceDraft) -> bool {
        let bytes: usize = self.rows.iter().map(|row| row.spans_bytes).sum();
        self.rows.iter().all(|row| row.part.is_none())
            && bytes <= spans_bytes(&came.spans).saturating_mul(2)
    }
}

/// The rows that a trace becomes.
#[derive(Debug)]
pub(super) struct Rows {
    /// The row of the trace.
    pub(super) head: TraceDraft,
    /// What its last part becomes, when that changes.
    pub(super) last: Option<TraceDraft>,
    /// Further parts.
    pub(super) further: Vec<TraceDraft>,
}

/// Puts the spans of `head` into as many rows as they need. With `one_row` they are all of the trace and
/// stay together while a row holds them; otherwise those that decide nothing go to `last`, the last part,
/// and to parts from `next_part` on.
pub(super) fn arrange(
    mut head: TraceDraft,
    last: Option<TraceDraft>,
    next_part: i32,
    one_row: bool,
) -> Rows {
    if one_row && fits_a_row(&head.spans) {
        return Rows { head, last: None, further: Vec::new() };
    }
    let (rest, beyond) = take_rest(&mut head.spans);
    if rest.is_empty() {
        return Rows { head, last: None, further: Vec::new() };
    }
    head.beyond.get_or_insert_default().add(beyond);
    let template = TraceDraft {
        experiment_id: head.experiment_id.clone(),
        experiment_by: head.experiment_by,
        run_id: head.run_id.clone(),
        created_at_micros: head.created_at_micros,
        updated_at_micros: head.updated_at_micros,
        ..TraceDraft::new(head.trace_id)
    };
    let (spans, revision, first_part) = match last {
        Some(last) => {
            let part = last.part.unwrap_or(next_part);
            ([last.spans, rest].concat(), last.revision.saturating_add(1), Some(part))
        }
        None => (rest, 1, None),
    };
    let mut runs = cut(spans).into_iter();
    let last = first_part.and_then(|part| {
        Some(TraceDraft { spans: runs.next()?, part: Some(part), revision, ..template.clone() })
    });
    let further = (next_part..)
        .zip(runs)
        .map(|(part, spans)| TraceDraft { spans, part: Some(part), ..template.clone() })
        .collect();
    Rows { head, last, further }
}

/// What the parts of all heads add; one writer makes one head, several meet after a `RESTORE`.
pub(super) fn sum_beyond(heads: &[TraceDraft]) -> Option<Box<Beyond>> {
    let mut heads = heads.iter().filter_map(|head| head.beyond.as_deref().cloned());
    let mut sum = heads.next()?;
    heads.for_each(|other| sum.add(other));
    Some(Box::new(sum))
}

/// The spans of a piece by what tells them.
#[derive(Debug)]
struct Piece {
    trace_id: TraceId,
    digests: HashMap<u64, Vec<(usize, SpanDigest)>>,
}

impl Piece {
    fn new(draft: &TraceDraft) -> Self {
        let mut fingerprinter = Fingerprinter::default();
        let mut digests: HashMap<u64, Vec<(usize, SpanDigest)>> = HashMap::new();
        for (index, span) in draft.spans.iter().enumerate() {
            let digest = fingerprinter.digest(span);
            digests.entry(digest.span | 1).or_default().push((index, digest));
        }
        Self { trace_id: draft.trace_id, digests }
    }

    /// Notes which spans are in a row with these digests.
    fn compare(&self, row: &[u8], known: &mut HashSet<usize>) {
        for there in read_digests(row) {
            let same = self.digests.get(&(there.span | 1)).into_iter().flatten();
            known.extend(same.filter(|(_, own)| own.is_in(there)).map(|(index, _)| *index));
        }
    }
}

impl TableWriter {
    /// What the parts come to of those `large` traces that have no row but parts and get one by `late` pieces. One
    /// part is in memory at a time.
    pub(super) fn headless(
        &self,
        late: &[&TraceDraft],
        age: Age,
        large: &HashMap<TraceId, LargeTrace>,
        files: &[LiveFile],
    ) -> Result<HashMap<TraceId, Beyond>, LakeError> {
        let mut sums = HashMap::new();
        for piece in late {
            let Some(large) = large.get(&piece.trace_id).filter(|large| large.is_headless()) else {
                continue;
            };
            if (piece.replaces && age == Age::Younger) || large.rest_of(piece).is_blank() {
                continue;
            }
            let schema = self.snapshot.schema()?;
            let mut sum = Beyond::default();
            for Row { address, .. } in &large.rows {
                let one = Deletions::from([(address.file, BTreeSet::from([address.row]))]);
                let row = self.read_rows(&one, files, &schema, usize::MAX)?.rows;
                let parts = rebuild_traces(&row).map_err(|error| self.unreadable(&error))?;
                parts.iter().for_each(|part| sum.add(Beyond::of(&part.spans)));
            }
            sums.insert(piece.trace_id, sum);
        }
        Ok(sums)
    }

    /// The large traces among `pieces`, and what of the pieces is in them. No payload is read, and the
    /// digests of a few rows are in memory at a time.
    pub(super) fn large_traces(
        &self,
        pieces: &[&TraceDraft],
        found: &Found,
        files: &[LiveFile],
    ) -> Result<HashMap<TraceId, LargeTrace>, LakeError> {
        let mut wanted: BTreeMap<usize, BTreeMap<u64, usize>> = BTreeMap::new();
        for (index, piece) in pieces.iter().enumerate() {
            for address in found.get(&piece.trace_id).into_iter().flatten() {
                wanted.entry(address.file).or_default().insert(address.row, index);
            }
        }
        let mut digests: HashMap<usize, Piece> = HashMap::new();
        let mut large: HashMap<TraceId, LargeTrace> = HashMap::new();
        for (file_index, wanted) in wanted {
            let Some(file) = files.get(file_index) else { continue };
            let rows: Vec<u64> = wanted.keys().copied().collect();
            let opened = self.table.files.open(&file.path)?;
            read_large_rows(opened, &rows, &mut |row| {
                let Some(piece_index) = wanted.get(&row.row) else { return };
                let Some(draft) = pieces.get(*piece_index) else { return };
                let piece = digests.entry(*piece_index).or_insert_with(|| Piece::new(draft));
                let trace = large.entry(piece.trace_id).or_default();
                piece.compare(row.digests, &mut trace.known);
                trace.rows.push(Row {
                    address: RowAddress { file: file_index, row: row.row },
                    part: row.part,
                    spans_bytes: row.spans_bytes,
                });
            })
            .map_err(|source| LakeError::Parquet {
                action: "read sizes of rows of",
                path: file.path.clone(),
                source,
            })?;
        }
        for (trace_id, trace) in &mut large {
            trace.rows.sort_by_key(|row| row.part);
            let rows = found.get(trace_id).into_iter().flatten();
            let is_other =
                |address: &&RowAddress| !trace.rows.iter().any(|row| row.address == **address);
            trace.others = rows.filter(is_other).cloned().collect();
        }
        Ok(large)
    }
}
