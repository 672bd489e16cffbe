//! Reads the files one after the other and hands their requests to the lanes. Runs on a thread of
//! its own; the lanes' queues hold it back.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracelake_model::{ExperimentId, Limits, TraceId};

use super::content::{Content, Piece, Target, decode_units};
use super::frames::{Frame, FrameReader};
use super::inputs::Input;
use super::ledger::{Entry, Ledger, key};
use super::progress::Counters;
use super::stream::{NOT_TRACES, Stream};
use super::tracker::{FileRun, Pending};

/// Trace ids that are told apart for the summary.
const MAX_COUNTED_TRACES: usize = 2_000_000;

/// One request on its way to its lane.
#[derive(Debug)]
pub(super) struct Job {
    pub piece: Piece,
    pub file: Arc<FileRun>,
    pub frame: u64,
}

/// What reading needs.
#[derive(Debug)]
pub(super) struct Reading {
    pub ledger: Arc<Mutex<Ledger>>,
    pub pending: Arc<Pending>,
    pub counters: Arc<Counters>,
    pub lanes: Vec<mpsc::Sender<Job>>,
    pub cancel: CancellationToken,
    pub experiment: Option<ExperimentId>,
    pub default_experiment: ExperimentId,
    pub limits: Limits,
    /// Read files again that the ledger says are imported.
    pub again: bool,
}

/// What became of the files.
#[derive(Debug, Default)]
pub(super) struct ReadOutcome {
    pub runs: Vec<Arc<FileRun>>,
    /// Imported by an earlier command.
    pub already: u64,
    /// Found in a folder, but of another kind: (what, why).
    pub skipped: Vec<(String, String)>,
    pub traces: HashSet<TraceId>,
    /// There were more traces than are counted.
    pub more_traces: bool,
}

/// The rest of a file is not read, as all ends.
struct Ended;

/// What a look at the ledger says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing of it is imported.
    Nothing,
    /// All of it.
    All,
    /// Up to the entry's place; `checked` when the file is known to be the same.
    Part { entry: Entry, unchanged: bool },
}

/// Compares a file with its entry.
pub(super) fn known(input: &Input, entry: Option<&Entry>) -> Known {
    let Some(entry) = entry else { return Known::Nothing };
    let unchanged = entry.size_bytes == input.size_bytes
        && entry.modified_unix_nano == input.modified_unix_nano;
    match (unchanged, entry.done) {
        (true, true) => Known::All,
        (false, _) if !entry.grows || input.size_bytes < entry.size_bytes => Known::Nothing,
        _ if entry.offset == 0 => Known::Nothing,
        _ => Known::Part { entry: entry.clone(), unchanged },
    }
}

impl Reading {
    /// Reads all; ends early when cancelled or when the lanes are gone.
    pub(super) fn run(&self, inputs: Vec<Input>) -> ReadOutcome {
        let mut outcome = ReadOutcome::default();
        for input in inputs {
            if self.cancel.is_cancelled() {
                break;
            }
            let key = input
                .path
                .as_ref()
                .map(|path| key(path, self.experiment.as_ref().map(ExperimentId::as_str)));
            let known = match &key {
                Some(key) if !self.again => {
                    let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    known(&input, ledger.entry(key))
                }
                _ => Known::Nothing,
            };
            if known == Known::All {
                outcome.already += 1;
                self.counters.raw_bytes.fetch_add(input.size_bytes, Ordering::Relaxed);
                self.counters.skipped_bytes.fetch_add(input.size_bytes, Ordering::Relaxed);
                continue;
            }
            let run = Arc::new(FileRun::new(input, key, Arc::clone(&self.pending)));
            if self.file(&run, known, &mut outcome).is_err() {
                outcome.runs.push(run);
                break;
            }
        }
        outcome
    }

    /// Reads one file. What is wrong with it is noted in its run.
    fn file(
        &self,
        run: &Arc<FileRun>,
        known: Known,
        outcome: &mut ReadOutcome,
    ) -> Result<(), Ended> {
        let mut reader = match self.open(run, known) {
            Ok(reader) => reader,
            Err(error) => {
                if is_not_traces(&error) && may_be_passed_over(&run.input) {
                    outcome.skipped.push((run.input.shown.clone(), NOT_TRACES.to_owned()));
                } else {
                    run.fault(error.to_string());
                    outcome.runs.push(Arc::clone(run));
                }
                return Ok(());
            }
        };
        let mut first = reader.stream.offset == 0;
        loop {
            let frame = match reader.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break run.end(reader.grows(), true),
                Err(fault) => {
                    run.fault(fault.to_string());
                    break run.end(reader.grows(), false);
                }
            };
            let content = decode_units(&frame.units, self.target(&run.input));
            if std::mem::take(&mut first) && self.passes_over(run, &frame, &content) {
                outcome.skipped.push((run.input.shown.clone(), NOT_TRACES.to_owned()));
                return Ok(());
            }
            self.frame(run, &frame, content, outcome)?;
        }
        outcome.runs.push(Arc::clone(run));
        Ok(())
    }

    fn target<'a>(&'a self, input: &'a Input) -> Target<'a> {
        Target {
            experiment: self.experiment.as_ref(),
            default_experiment: &self.default_experiment,
            input,
            limits: &self.limits,
        }
    }

    /// Opens a file where an earlier import broke off, or at its start.
    fn open(&self, run: &FileRun, known: Known) -> io::Result<FrameReader> {
        let raw_bytes = &self.counters.raw_bytes;
        let Some(path) = &run.input.path else {
            let (kind, stream) = Stream::new(io::stdin(), raw_bytes)?;
            return Ok(FrameReader::new(stream, kind, &self.limits));
        };
        let (kind, mut stream) = Stream::open(path, raw_bytes)?;
        if let Known::Part { entry, unchanged } = known {
            let before = raw_bytes.load(Ordering::Relaxed);
            let unread = unchanged.then_some((path.as_path(), raw_bytes));
            if stream.skip_to(entry.offset, entry.crc, unread)? {
                run.resume_at(entry.offset, entry.crc);
                let skipped = raw_bytes.load(Ordering::Relaxed).saturating_sub(before);
                self.counters.skipped_bytes.fetch_add(skipped, Ordering::Relaxed);
                return Ok(FrameReader::new(stream, kind, &self.limits));
            }
            let (kind, stream) = Stream::open(path, raw_bytes)?;
            return Ok(FrameReader::new(stream, kind, &self.limits));
        }
        Ok(FrameReader::new(stream, kind, &self.limits))
    }

    /// Whether a file found in a folder is of another kind, seen from its first frame.
    fn passes_over(&self, run: &FileRun, frame: &Frame, content: &Content) -> bool {
        if !content.pieces.is_empty() || !content.rejects.is_empty() || run.input.named {
            return false;
        }
        let others =
            0 < content.others && content.others + content.faults.len() == frame.units.len();
        others || !content.faults.is_empty() && may_be_passed_over(&run.input)
    }

    fn frame(
        &self,
        run: &Arc<FileRun>,
        frame: &Frame,
        content: Content,
        outcome: &mut ReadOutcome,
    ) -> Result<(), Ended> {
        let failed = !content.faults.is_empty() || 0 < content.others;
        if 0 < content.others {
            run.fault(format!("{} pieces of JSON are {NOT_TRACES}", content.others));
        }
        for (place, reason) in content.faults {
            run.fault(if place.is_empty() { reason } else { format!("{place}: {reason}") });
        }
        for reject in content.rejects {
            run.rejected(reject.spans, reject.reason);
        }
        for trace_id in content.traces {
            if outcome.traces.len() < MAX_COUNTED_TRACES {
                outcome.traces.insert(trace_id);
            } else {
                outcome.more_traces |= !outcome.traces.contains(&trace_id);
            }
        }
        let number = run.begin_frame(frame.end, frame.crc, content.pieces.len(), failed);
        for piece in content.pieces {
            let Some(lane) = self.lanes.get(piece.lane) else { continue };
            let job = Job { piece, file: Arc::clone(run), frame: number };
            // A lane that is gone means that all ends.
            lane.blocking_send(job).map_err(|_| Ended)?;
        }
        if self.cancel.is_cancelled() { Err(Ended) } else { Ok(()) }
    }
}

fn is_not_traces(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData && error.to_string() == NOT_TRACES
}

/// Found in a folder, and not named as files with traces are.
fn may_be_passed_over(input: &Input) -> bool {
    let Some(path) = &input.path else { return false };
    let stem = match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz" | "zst") => path.with_extension(""),
        _ => path.clone(),
    };
    let ending = stem.extension().and_then(|ending| ending.to_str());
    !input.named && !matches!(ending, Some("pb" | "json" | "jsonl" | "ndjson" | "otlp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a file against its entry: unchanged, touched, grown, shrunk, in part.
    /// Guarantees: only an unchanged and finished one is passed over unread.
    #[test]
    fn a_changed_file_is_looked_at_again() {
        let input = |size_bytes, modified_unix_nano| Input {
            path: Some("/a.jsonl".into()),
            shown: "a".into(),
            named: true,
            size_bytes,
            modified_unix_nano,
            place: None,
        };
        let entry = |done, grows| Entry {
            key: "a".into(),
            size_bytes: 10,
            modified_unix_nano: 1,
            offset: 8,
            crc: 0,
            done,
            grows,
        };
        let part = |entry: &Entry, unchanged| Known::Part { entry: entry.clone(), unchanged };
        let done = entry(true, true);
        assert_eq!(known(&input(10, 1), None), Known::Nothing);
        assert_eq!(known(&input(10, 1), Some(&done)), Known::All);
        assert_eq!(known(&input(10, 2), Some(&done)), part(&done, false));
        assert_eq!(known(&input(20, 2), Some(&done)), part(&done, false));
        assert_eq!(known(&input(5, 2), Some(&done)), Known::Nothing);
        assert_eq!(known(&input(20, 2), Some(&entry(true, false))), Known::Nothing);
        let half = entry(false, true);
        assert_eq!(known(&input(10, 1), Some(&half)), part(&half, true));
    }
}
