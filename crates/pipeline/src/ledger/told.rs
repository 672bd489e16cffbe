//! What the pipeline told since the last entry.

use std::collections::{BTreeMap, HashMap};

use tracelake_decode::{DecodedRecord, Fingerprinter, RecordContent, RecordHeader};
use tracelake_model::{TraceChange, TraceId};

use super::NANOS_PER_HOUR;
use super::format::{Cell, Said, Subject, Way};
use super::hashes::{assessment_hash, text_hash};

/// What was told, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Told {
    cells: Vec<Cell>,
    cell_numbers: HashMap<Cell, u32>,
    notes: Vec<Note>,
    fingerprints: Vec<u64>,
}

/// Something that was said of a trace.
#[derive(Clone, Copy, Debug)]
struct Note {
    trace_id: TraceId,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Neighbours in [`Told::fingerprints`].
    Spans {
        cell: u32,
        start: usize,
        end: usize,
    },
    Started {
        cell: u32,
    },
    Deleted {
        cell: u32,
    },
    Changed {
        cell: u32,
        subject: Subject,
        value: Option<u64>,
    },
}

/// What was said of a trace between two deletions: in the order of first words, but for changes,
/// of which the last word on each subject is left.
#[derive(Debug, Default)]
struct Stretch {
    spans: Vec<(u32, Vec<u64>)>,
    started: Vec<u32>,
    changed: BTreeMap<Subject, (u32, Option<u64>)>,
}

impl Told {
    /// Takes down what a record acknowledges.
    pub(crate) fn note(&mut self, record: &DecodedRecord) {
        let DecodedRecord { header, content } = record;
        let Some(way) = Way::of(header.kind) else { return };
        match content {
            RecordContent::Spans(decoded) => {
                let mut cells: Vec<Option<u32>> = vec![None; header.routes.len()];
                let mut fingerprinter = Fingerprinter::default();
                for span in &decoded.spans {
                    let route = header.route_place(span.group.experiment_id.as_ref());
                    let known = cells.get(route).copied().flatten();
                    let Some(cell) = known.or_else(|| self.cell(header, route, way)) else {
                        continue;
                    };
                    if let Some(known) = cells.get_mut(route) {
                        *known = Some(cell);
                    }
                    self.span(span.trace_id, cell, fingerprinter.span(span).0);
                }
            }
            RecordContent::TraceInfo(info) => {
                if let Some(cell) = self.cell(header, 0, way) {
                    let what = What::Started { cell };
                    self.notes.push(Note { trace_id: info.trace_id, what });
                }
            }
            RecordContent::Changes(changes) => {
                if let Some(cell) = self.cell(header, 0, way) {
                    for change in changes {
                        let what = change.changes.iter().map(|change| What::of(change, cell));
                        let trace_id = change.trace_id;
                        self.notes.extend(what.map(|what| Note { trace_id, what }));
                    }
                }
            }
            // It was acknowledged, and noted, as the requests that it is of.
            RecordContent::Words(_) => {}
        }
    }

    fn span(&mut self, trace_id: TraceId, cell: u32, fingerprint: u64) {
        let start = self.fingerprints.len();
        self.fingerprints.push(fingerprint);
        if let Some(Note { trace_id: last, what: What::Spans { cell: of, end, .. } }) =
            self.notes.last_mut()
            && *last == trace_id
            && *of == cell
            && *end == start
        {
            *end += 1;
            return;
        }
        self.notes.push(Note { trace_id, what: What::Spans { cell, start, end: start + 1 } });
    }

    fn cell(&mut self, header: &RecordHeader, route: usize, way: Way) -> Option<u32> {
        let route = header.routes.get(route)?;
        let cell = Cell {
            table: route.table.clone(),
            experiment_id: route.experiment_id.clone(),
            hour: header.received_at_unix_nano / NANOS_PER_HOUR,
            way,
        };
        if let Some(number) = self.cell_numbers.get(&cell) {
            return Some(*number);
        }
        let number = u32::try_from(self.cells.len()).ok()?;
        self.cells.push(cell.clone());
        self.cell_numbers.insert(cell, number);
        Some(number)
    }

    /// What was told, by trace: each trace once, what was said of it in order, the spans of one
    /// cell between two deletions together.
    pub(super) fn by_trace(&self) -> Vec<(TraceId, Vec<Said>)> {
        let mut notes = self.notes.clone();
        notes.sort_by_key(|note| note.trace_id);
        notes
            .chunk_by(|left, right| left.trace_id == right.trace_id)
            .filter_map(|notes| Some((notes.first()?.trace_id, self.said(notes))))
            .collect()
    }

    fn said(&self, notes: &[Note]) -> Vec<Said> {
        let mut said: Vec<Said> = Vec::with_capacity(1);
        let mut stretch = Stretch::default();
        for note in notes {
            match note.what {
                What::Deleted { cell } => {
                    // What was said before a deletion stays apart from what was said after it.
                    std::mem::take(&mut stretch).end(&mut said);
                    said.push(Said::Deleted { cell });
                }
                What::Started { cell } if stretch.started.contains(&cell) => {}
                What::Started { cell } => stretch.started.push(cell),
                What::Spans { cell, start, end } => {
                    let more = self.fingerprints.get(start..end).unwrap_or_default();
                    match stretch.spans.iter_mut().find(|(of, _)| *of == cell) {
                        Some((_, known)) => known.extend_from_slice(more),
                        None => stretch.spans.push((cell, more.to_vec())),
                    }
                }
                What::Changed { cell, subject, value } => {
                    stretch.changed.insert(subject, (cell, value));
                }
            }
        }
        stretch.end(&mut said);
        said
    }

    /// Whether nothing was told.
    pub(super) const fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Where and when it came in.
    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn clear(&mut self) {
        self.cells.clear();
        self.cell_numbers.clear();
        self.notes.clear();
        self.fingerprints.clear();
    }
}

impl Stretch {
    fn end(self, said: &mut Vec<Said>) {
        said.extend(self.spans.into_iter().map(|(cell, mut fingerprints)| {
            let sent = fingerprints.len() as u64;
            fingerprints.sort_unstable();
            fingerprints.dedup();
            Said::Spans { cell, sent, fingerprints }
        }));
        said.extend(self.started.into_iter().map(|cell| Said::Started { cell }));
        let changed = self.changed.into_iter();
        said.extend(changed.map(|(subject, (cell, value))| Said::Changed { cell, subject, value }));
    }
}

impl What {
    fn of(change: &TraceChange, cell: u32) -> Self {
        let (subject, value) = match change {
            TraceChange::Delete => return Self::Deleted { cell },
            TraceChange::SetTag { key, value } => {
                (Subject::Tag(text_hash(key)), Some(text_hash(value)))
            }
            TraceChange::DeleteTag { key } => (Subject::Tag(text_hash(key)), None),
            TraceChange::PutAssessment(assessment) => {
                let id = text_hash(&assessment.assessment_id);
                (Subject::Assessment(id), Some(assessment_hash(assessment)))
            }
            TraceChange::DeleteAssessment { assessment_id } => {
                (Subject::Assessment(text_hash(assessment_id)), None)
            }
            TraceChange::LinkRun { run_id } => (Subject::Run(text_hash(run_id)), Some(0)),
        };
        Self::Changed { cell, subject, value }
    }
}
