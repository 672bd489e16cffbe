//! What an amendment round changes, trace by trace: from the rows that were read and a piece to the rows that
//! take their place.

use std::collections::{BTreeSet, HashMap};
use std::iter::once;

use tracelake_model::TraceId;

use super::batches::number;
use super::merge::{Age, Amended, amend};
use super::old_rows::Deletions;
use super::parts::{LargeTrace, Rows, arrange, sum_beyond};
use crate::rows::{Beyond, TraceDraft};
use crate::table::{LiveFile, RowAddress};

/// What a plan is put together from, trace by trace. Rows that were read go by their number.
#[derive(Default)]
pub(super) struct Changed<'a> {
    pub(super) files: &'a [LiveFile],
    pub(super) places: &'a [(usize, u64)],
    /// What the parts come to of traces that have no row but parts.
    pub(super) headless: HashMap<TraceId, Beyond>,
    pub(super) rows: Vec<TraceDraft>,
    pub(super) traces: Vec<TraceId>,
    pub(super) further: Vec<TraceDraft>,
    pub(super) staying: HashMap<TraceId, BTreeSet<String>>,
    pub(super) unread: Deletions,
    pub(super) deleted_traces: usize,
    pub(super) replaced: Vec<u32>,
    pub(super) successors: Vec<u32>,
    pub(super) removed: Vec<u32>,
    /// Of each new row the old one that has its other columns.
    pub(super) first_rows: Vec<u32>,
    pub(super) deletions: Deletions,
    pub(super) unchanged_in: BTreeSet<usize>,
    pub(super) changed: Vec<TraceId>,
}

impl Changed<'_> {
    /// Merges `piece` into the rows that were read of its trace.
    pub(super) fn amend(
        &mut self,
        rows: Vec<(usize, TraceDraft)>,
        piece: &TraceDraft,
        large: Option<&LargeTrace>,
        age: Age,
        now_micros: i64,
    ) {
        let anew = piece.replaces && age == Age::Younger;
        let came = large.filter(|_| !anew).map(|large| large.rest_of(piece));
        let came = came.as_ref().unwrap_or(piece);
        // Copies of spans are let go on the word of rows that were not read.
        let knowing = large.filter(|large| !anew && large.knows_some());
        self.unchanged_in.extend(knowing.into_iter().flat_map(LargeTrace::files));
        let (parts, heads): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(_, row)| row.part.is_some());
        let (indexes, heads): (Vec<usize>, Vec<TraceDraft>) = heads.into_iter().unzip();
        if heads.is_empty() && !anew {
            self.add_head(came, large);
            return;
        }
        let beyond = sum_beyond(&heads);
        let revision = heads.iter().map(|head| head.revision).max().unwrap_or_default();
        let row = match amend(heads, came, age, now_micros) {
            // The same spans as the head's own, and those of the parts go.
            Amended::Unchanged if anew && large.is_some_and(LargeTrace::has_parts) => {
                (!came.is_blank()).then(|| {
                    Box::new(TraceDraft {
                        replaces: false,
                        updated_at_micros: now_micros,
                        revision: revision.saturating_add(1),
                        ..came.clone()
                    })
                })
            }
            Amended::Unchanged => {
                self.rest_on(indexes.iter().chain(parts.iter().map(|(index, _)| index)));
                return;
            }
            Amended::Row(row) => Some(row),
            Amended::Deleted => None,
        };
        self.changed.push(piece.trace_id);
        if anew {
            for address in large.map(|large| large.unread(piece)).unwrap_or_default() {
                self.deletions.entry(address.file).or_default().insert(address.row);
                self.unread.entry(address.file).or_default().insert(address.row);
            }
            parts.iter().for_each(|(index, _)| self.remove(*index));
        }
        let Some(row) = row else {
            self.deleted_traces += 1;
            indexes.iter().for_each(|index| self.remove(*index));
            return;
        };
        let head = TraceDraft { part: None, beyond: beyond.filter(|_| !anew), ..*row };
        let one_row = anew || large.is_none_or(|large| large.is_worth_a_new_row(came));
        let next_part = large.filter(|_| !anew).map_or(1, LargeTrace::next_part);
        let (last_index, last) = parts.into_iter().next_back().filter(|_| !anew).unzip();
        let Rows { head, last, further } = arrange(head, last, next_part, one_row);
        self.traces.push(head.trace_id);
        if let Some(large) = large.filter(|_| !anew) {
            let mut rows = large.unread(piece);
            if let (Some(index), None) = (last_index, &last) {
                let place = self.places.get(index);
                rows.extend(place.map(|(file, row)| RowAddress { file: *file, row: *row }));
            }
            let paths = rows.iter().filter_map(|row| Some(self.files.get(row.file)?.path.clone()));
            self.staying.insert(head.trace_id, paths.collect());
        }
        match indexes.is_empty() {
            // Parts alone were left of the trace: there is no row that this one takes the place of.
            true => self.further.push(head),
            false => self.replace(&indexes, head),
        }
        if let (Some(index), Some(last)) = (last_index, last) {
            self.replace(&[index], last);
        }
        self.further.extend(further);
    }

    /// Notes that rows which were read say that a piece is in.
    fn rest_on<'a>(&mut self, rows: impl Iterator<Item = &'a usize>) {
        let places = rows.filter_map(|index| self.places.get(*index));
        self.unchanged_in.extend(places.map(|(file, _)| *file));
    }

    /// Gives a row to a trace of which another writer took that and left parts.
    fn add_head(&mut self, came: &TraceDraft, large: Option<&LargeTrace>) {
        if came.is_blank() {
            return;
        }
        let next_part = large.map_or(1, LargeTrace::next_part);
        let beyond = self.headless.remove(&came.trace_id).map(Box::new);
        let head = TraceDraft { beyond, ..came.clone() };
        let Rows { head, further, .. } = arrange(head, None, next_part, true);
        self.traces.push(head.trace_id);
        self.changed.push(head.trace_id);
        let parts = large.into_iter().flat_map(LargeTrace::files);
        let paths = parts.filter_map(|file| Some(self.files.get(file)?.path.clone()));
        self.staying.insert(head.trace_id, paths.collect());
        self.further.extend(once(head).chain(further));
    }

    /// Puts `row` in the place of old rows.
    fn replace(&mut self, indexes: &[usize], row: TraceDraft) {
        let successor = number(self.rows.len());
        for index in indexes {
            self.replaced.push(number(*index));
            self.successors.push(successor);
            self.delete(*index);
        }
        self.first_rows.extend(indexes.first().map(|index| number(*index)));
        self.rows.push(row);
    }

    /// Takes an old row away for good.
    fn remove(&mut self, index: usize) {
        self.removed.push(number(index));
        self.delete(index);
    }

    fn delete(&mut self, index: usize) {
        if let Some((file, row)) = self.places.get(index) {
            self.deletions.entry(*file).or_default().insert(*row);
        }
    }
}
