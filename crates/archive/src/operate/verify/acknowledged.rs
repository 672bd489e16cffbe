//! What was acknowledged for a table, from the ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

use anyhow::{Context as _, ensure};
use tracelake_model::TraceId;
use tracelake_pipeline::ledger::{
    Block, Cell, ChainCheck, ChainFindings, Link, Mark, Said, Seen, Subject, read_blocks,
    read_ledger,
};
use uuid::Uuid;

/// Spans that are held in memory at the most, about 17 bytes each.
const MAX_SPANS: usize = 100_000_000;

/// In [`AcknowledgedSpan::cell`]: a client deleted the trace since.
const VOID: u32 = 1 << 31;

/// A span that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AcknowledgedSpan {
    pub(super) fingerprint: u64,
    trace: u32,
    cell: u32,
}

impl AcknowledgedSpan {
    /// The cell in which it came first.
    pub(super) const fn cell(self) -> usize {
        (self.cell & !VOID) as usize
    }

    /// Whether a client deleted it.
    pub(super) const fn is_deleted(self) -> bool {
        self.cell & VOID != 0
    }
}

/// A cell, and whether it is of the table and time that are looked at.
#[derive(Clone, Debug)]
pub(super) struct KnownCell {
    pub(super) cell: Cell,
    pub(super) in_scope: bool,
    /// Spans sent, copies counted.
    pub(super) sent: u64,
}

/// All that was acknowledged of the traces in scope: also what came of them for other tables and
/// in other hours.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    pub(super) cells: Vec<KnownCell>,
    cell_numbers: HashMap<Cell, u32>,
    numbers: HashMap<TraceId, u32>,
    pub(super) ids: Vec<TraceId>,
    /// By trace and fingerprint, each once.
    pub(super) spans: Vec<AcknowledgedSpan>,
    /// Where the spans of each trace begin in `spans`, and where the last end.
    begins: Vec<usize>,
    /// The cell of each trace's `start_trace`.
    pub(super) started: Vec<Option<u32>>,
    /// Hours in which clients deleted traces, one for each deletion.
    pub(super) deletion_hours: Vec<u64>,
    /// How far the ledger was read.
    pub(super) mark: Mark,
    /// What is damaged or missing in the ledger.
    pub(super) chain: ChainFindings,
    /// What clients changed beside spans and not again, by trace.
    pub(super) changes: HashMap<u32, BTreeMap<Subject, KnownChange>>,
}

/// The last word of a client on something beside spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownChange {
    /// The hash of its value; `None` when it is not to be there.
    pub(super) value: Option<u64>,
    /// The cell in which it came.
    pub(super) cell: u32,
}

impl Acknowledged {
    /// Reads the ledger up to `until`: all that it has of the traces of which something came in a
    /// cell that `in_scope` takes.
    pub(super) fn read(
        folder: &Path,
        until: Mark,
        mut chain: ChainCheck,
        in_scope: &mut dyn FnMut(&Cell) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Self> {
        let mut all = Self::default();
        let mut fault = None;
        let mut entries = Entries::default();
        let begin = Mark::default();
        let fail = || format!("read the ledger in `{}`", folder.display());
        read_ledger(folder, begin, Some(until), &mut |path, seen| {
            match seen {
                Seen::Block(offset, block) => {
                    chain.block(path, offset, &block);
                    entries.take(&block);
                    fault = fault.take().or(all.find_traces(&block, in_scope).err());
                }
                Seen::DamagedHeader => chain.damaged_header(path),
                Seen::Unreadable(seen) => chain.unreadable(path, &seen),
            }
            Ok(())
        })
        .with_context(fail)?;
        all.chain = chain.finish();
        if let Some(fault) = fault {
            return Err(fault);
        }
        let mut entry = 0;
        let mut void_until: Vec<usize> = vec![0; all.ids.len()];
        let outcome = read_blocks(folder, begin, Some(until), &mut |block| {
            entry += usize::from(block.is_first);
            let counts = !entries.superseded.contains(&entry);
            all.take(&block, counts, &mut void_until);
            if all.spans.len() <= MAX_SPANS {
                Ok(())
            } else {
                Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many spans to compare at once"))
            }
        });
        ensure!(
            all.spans.len() <= MAX_SPANS,
            "more than {MAX_SPANS} spans were acknowledged in this time\nhint: verify less at once, with --since and --until"
        );
        all.mark = outcome.with_context(fail)?;
        all.sort(&void_until);
        Ok(all)
    }

    /// The number of a trace that is known.
    pub(super) fn number(&self, trace: TraceId) -> Option<usize> {
        self.numbers.get(&trace).map(|number| *number as usize)
    }

    /// Where the spans of a trace lie.
    pub(super) fn range(&self, trace: usize) -> std::ops::Range<usize> {
        let at = |index: usize| self.begins.get(index).copied().unwrap_or(self.spans.len());
        at(trace)..at(trace + 1)
    }

    /// The same of these traces alone.
    pub(super) fn only(&self, traces: &HashSet<TraceId>) -> Self {
        let mut only = Self::default();
        for (number, id) in self.ids.iter().enumerate().filter(|(_, id)| traces.contains(id)) {
            let trace = u32::try_from(only.ids.len()).unwrap_or(u32::MAX);
            only.numbers.insert(*id, trace);
            only.ids.push(*id);
            only.begins.push(only.spans.len());
            let spans = self.spans.get(self.range(number)).unwrap_or_default();
            only.spans.extend(spans.iter().map(|span| AcknowledgedSpan { trace, ..*span }));
            let changes = u32::try_from(number).ok().and_then(|number| self.changes.get(&number));
            only.changes.extend(changes.map(|changes| (trace, changes.clone())));
        }
        only
    }

    /// The place that the span at `place` has in `other`.
    pub(super) fn place_in(&self, other: &Self, place: usize) -> Option<usize> {
        let span = self.spans.get(place)?;
        let trace = other.number(*self.ids.get(span.trace as usize)?)?;
        let range = other.range(trace);
        let spans = other.spans.get(range.clone())?;
        let found = spans.binary_search_by_key(&span.fingerprint, |span| span.fingerprint);
        found.ok().map(|found| range.start + found)
    }

    fn cell(&mut self, cell: &Cell) -> Option<u32> {
        if let Some(number) = self.cell_numbers.get(cell) {
            return Some(*number);
        }
        let number = u32::try_from(self.cells.len()).ok().filter(|number| *number < VOID)?;
        self.cells.push(KnownCell { cell: cell.clone(), in_scope: false, sent: 0 });
        self.cell_numbers.insert(cell.clone(), number);
        Some(number)
    }

    fn find_traces(
        &mut self,
        block: &Block,
        in_scope: &mut dyn FnMut(&Cell) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut scopes = Vec::with_capacity(block.cells.len());
        for cell in &block.cells {
            let is_known = self.cell_numbers.contains_key(cell);
            let number = self.cell(cell).context("too many hours, ways in and experiments")?;
            let Some(known) = self.cells.get_mut(number as usize) else { continue };
            if !is_known {
                known.in_scope = in_scope(cell)?;
            }
            scopes.push(known.in_scope);
        }
        for (trace, said) in &block.traces {
            let wanted = said.iter().any(|said| match said {
                Said::Spans { cell, .. } | Said::Started { cell } | Said::Changed { cell, .. } => {
                    scopes.get(*cell as usize).copied().unwrap_or_default()
                }
                Said::Deleted { .. } => false,
            });
            if wanted && !self.numbers.contains_key(trace) {
                self.numbers.insert(*trace, u32::try_from(self.ids.len())?);
                self.ids.push(*trace);
                self.started.push(None);
            }
        }
        Ok(())
    }

    fn take(&mut self, block: &Block, counts: bool, void_until: &mut [usize]) {
        let cells: Vec<Option<u32>> = block.cells.iter().map(|cell| self.cell(cell)).collect();
        let known_cell = |cell: u32| cells.get(cell as usize).copied().flatten();
        for (trace, said) in &block.traces {
            let Some(number) = self.numbers.get(trace).copied() else { continue };
            for said in said {
                match said {
                    Said::Spans { cell, sent, fingerprints } => {
                        let Some(cell) = known_cell(*cell) else { continue };
                        if counts && let Some(known) = self.cells.get_mut(cell as usize) {
                            known.sent += sent;
                        }
                        self.spans.extend(fingerprints.iter().map(|fingerprint| {
                            AcknowledgedSpan { fingerprint: *fingerprint, trace: number, cell }
                        }));
                    }
                    Said::Started { cell } => {
                        if let Some(started) = self.started.get_mut(number as usize) {
                            *started = started.or(known_cell(*cell));
                        }
                    }
                    Said::Deleted { cell } => {
                        if let Some(until) = void_until.get_mut(number as usize) {
                            *until = self.spans.len();
                        }
                        if let Some(started) = self.started.get_mut(number as usize) {
                            *started = None;
                        }
                        self.changes.remove(&number);
                        let hour = block.cells.get(*cell as usize).map(|cell| cell.hour);
                        self.deletion_hours.extend(hour);
                    }
                    Said::Changed { cell, subject, value } => {
                        let Some(cell) = known_cell(*cell) else { continue };
                        let change = KnownChange { value: *value, cell };
                        self.changes.entry(number).or_default().insert(*subject, change);
                    }
                }
            }
        }
    }

    /// Marks what was deleted, and leaves of each trace's copies the first one that stands.
    fn sort(&mut self, void_until: &[usize]) {
        for (place, span) in self.spans.iter_mut().enumerate() {
            if void_until.get(span.trace as usize).is_some_and(|until| place < *until) {
                span.cell |= VOID;
            }
        }
        // Stable: of equals the first that came stays first.
        self.spans.sort_by_key(|span| (span.trace, span.fingerprint, span.is_deleted()));
        self.spans.dedup_by_key(|span| (span.trace, span.fingerprint));
        self.spans.shrink_to_fit();
        let mut begins = Vec::with_capacity(self.ids.len() + 1);
        for (place, span) in self.spans.iter().enumerate() {
            while begins.len() <= span.trace as usize {
                begins.push(place);
            }
        }
        self.begins = begins;
    }
}

/// The entries of a ledger, in the order in which they were written.
#[derive(Debug, Default)]
struct Entries {
    /// Those that no later one repeats.
    standing: Vec<Standing>,
    count: usize,
    /// The others: a crash came between an entry and the end of its epoch, and the epoch was
    /// replayed.
    superseded: HashSet<usize>,
}

impl Entries {
    fn take(&mut self, block: &Block) {
        if !block.is_first {
            return;
        }
        self.count += 1;
        let before = block.linked.map(|linked| linked.before);
        let repeats = |known: &mut Standing| {
            let same_epochs = known.journal == block.journal && block.through <= known.through;
            same_epochs || (before.is_some() && before == known.before)
        };
        while let Some(Standing { entry, .. }) = self.standing.pop_if(repeats) {
            self.superseded.insert(entry);
        }
        let Block { journal, through, .. } = *block;
        self.standing.push(Standing { journal, through, before, entry: self.count });
    }
}

/// An entry that no later one repeats.
#[derive(Debug)]
struct Standing {
    journal: Uuid,
    through: u64,
    /// The link that it follows.
    before: Option<Link>,
    /// Its number, from 1.
    entry: usize,
}
