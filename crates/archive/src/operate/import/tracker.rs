//! Which frames of which file are acknowledged, and what is to be told of each file.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::inputs::Input;
use super::ledger::Entry;

/// Reasons that are kept of one file.
const MAX_REASONS: usize = 3;

/// Entries to be written to the ledger, the last of each file.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashMap<String, Entry>>);

impl Pending {
    /// Takes all of them.
    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *lock(&self.0)).into_values().collect()
    }

    fn put(&self, entry: Entry) {
        lock(&self.0).insert(entry.key.clone(), entry);
    }
}

/// What is to be told of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileReport {
    pub accepted_spans: u64,
    pub rejected_spans: u64,
    /// Why spans were rejected.
    pub reject_reasons: Vec<String>,
    /// Why some of the file could not be imported; empty when all was.
    pub faults: Vec<String>,
    pub more_faults: usize,
    /// All frames are acknowledged.
    pub complete: bool,
}

impl FileReport {
    fn fault(&mut self, reason: String) {
        if self.faults.len() < MAX_REASONS {
            self.faults.push(reason);
        } else {
            self.more_faults += 1;
        }
    }

    fn reject(&mut self, spans: usize, reason: String) {
        self.rejected_spans += spans as u64;
        if !reason.is_empty() && self.reject_reasons.len() < MAX_REASONS {
            self.reject_reasons.push(reason);
        }
    }
}

/// One file on its way.
#[derive(Debug)]
pub(super) struct FileRun {
    pub input: Input,
    key: Option<String>,
    pending: Arc<Pending>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    report: FileReport,
    frames: VecDeque<OpenFrame>,
    /// Number of the first of `frames`.
    first: u64,
    /// Where all before is acknowledged.
    offset: u64,
    crc: u32,
    /// A frame failed: the place stays before it, so that the next import tries it again.
    stuck: bool,
    ended: bool,
    grows: bool,
}

#[derive(Debug)]
struct OpenFrame {
    end: u64,
    crc: u32,
    pieces_left: usize,
    failed: bool,
}

impl FileRun {
    pub(super) fn new(input: Input, key: Option<String>, pending: Arc<Pending>) -> Self {
        let state = State {
            report: FileReport::default(),
            frames: VecDeque::new(),
            first: 0,
            offset: 0,
            crc: 0,
            stuck: false,
            ended: false,
            grows: true,
        };
        Self { input, key, pending, state: Mutex::new(state) }
    }

    /// All before `offset` was acknowledged by an earlier import.
    pub(super) fn resume_at(&self, offset: u64, crc: u32) {
        let mut state = lock(&self.state);
        (state.offset, state.crc) = (offset, crc);
    }

    /// A frame was read that ends at `end` and becomes so many requests. Gives its number.
    pub(super) fn begin_frame(&self, end: u64, crc: u32, pieces: usize, failed: bool) -> u64 {
        let mut state = lock(&self.state);
        state.frames.push_back(OpenFrame { end, crc, pieces_left: pieces, failed });
        let number = state.first + state.frames.len() as u64 - 1;
        self.advance(&mut state);
        number
    }

    /// A request of a frame is durable, or refused with a reason.
    pub(super) fn piece_done(
        &self,
        frame: u64,
        spans: usize,
        outcome: Result<(usize, String), String>,
    ) {
        let mut state = lock(&self.state);
        let mut failed = false;
        match outcome {
            Ok((rejected, message)) => {
                state.report.accepted_spans += spans.saturating_sub(rejected) as u64;
                state.report.reject(rejected, message);
            }
            Err(reason) => {
                failed = true;
                state.report.fault(reason);
            }
        }
        let index = usize::try_from(frame.saturating_sub(state.first)).unwrap_or(usize::MAX);
        if let Some(frame) = state.frames.get_mut(index) {
            frame.pieces_left = frame.pieces_left.saturating_sub(1);
            frame.failed |= failed;
        }
        self.advance(&mut state);
    }

    /// Spans that cannot be sent at all.
    pub(super) fn rejected(&self, spans: usize, reason: String) {
        lock(&self.state).report.reject(spans, reason);
    }

    /// Something of the file that cannot be read.
    pub(super) fn fault(&self, reason: String) {
        lock(&self.state).report.fault(reason);
    }

    /// The file was read to its end, or to where it cannot be read further.
    pub(super) fn end(&self, grows: bool, whole: bool) {
        let mut state = lock(&self.state);
        state.grows = grows;
        state.ended = whole;
        self.advance(&mut state);
        if whole && state.frames.is_empty() && !state.stuck {
            self.note(&mut state);
        }
    }

    /// What is to be told.
    pub(super) fn report(&self) -> FileReport {
        let state = lock(&self.state);
        let mut report = state.report.clone();
        report.complete = state.ended && state.frames.is_empty() && !state.stuck;
        if report.complete && report.accepted_spans == 0 && 0 < report.rejected_spans {
            let reasons = report.reject_reasons.join("; ");
            report.fault(format!("every span was refused: {reasons}"));
        }
        report
    }

    fn advance(&self, state: &mut State) {
        let mut moved = false;
        while let Some(frame) = state.frames.front() {
            if 0 < frame.pieces_left {
                break;
            }
            state.stuck |= frame.failed;
            if !state.stuck {
                (state.offset, state.crc) = (frame.end, frame.crc);
                moved = true;
            }
            state.frames.pop_front();
            state.first += 1;
        }
        if moved {
            self.note(state);
        }
    }

    /// Puts how far the file is among what is to be written.
    fn note(&self, state: &mut State) {
        let Some(key) = &self.key else { return };
        let only_rejects = state.report.accepted_spans == 0 && 0 < state.report.rejected_spans;
        self.pending.put(Entry {
            key: key.clone(),
            size_bytes: self.input.size_bytes,
            modified_unix_nano: self.input.modified_unix_nano,
            offset: state.offset,
            crc: state.crc,
            done: state.ended && state.frames.is_empty() && !state.stuck && !only_rejects,
            grows: state.grows,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> (FileRun, Arc<Pending>) {
        let pending = Arc::new(Pending::default());
        let input = Input {
            path: Some("/a".into()),
            shown: "a".into(),
            named: true,
            size_bytes: 100,
            modified_unix_nano: 1,
            place: None,
        };
        (FileRun::new(input, Some("a".into()), Arc::clone(&pending)), pending)
    }

    fn noted(pending: &Pending) -> Option<(u64, bool)> {
        pending.take().pop().map(|entry| (entry.offset, entry.done))
    }

    /// Scenario: three frames whose requests are acknowledged out of order.
    /// Guarantees: the place moves only past frames before which all is acknowledged; the file is
    /// done only when it was read to its end and all of it is.
    #[test]
    fn the_place_follows_the_first_open_frame() {
        let (run, pending) = run();
        let ok = || Ok((0, String::new()));
        let frames: Vec<u64> = [10, 20, 30].map(|end| run.begin_frame(end, 0, 2, false)).into();
        run.piece_done(frames[1], 1, ok());
        run.piece_done(frames[1], 1, ok());
        run.piece_done(frames[0], 1, ok());
        assert_eq!(noted(&pending), None);
        run.piece_done(frames[0], 1, ok());
        assert_eq!(noted(&pending), Some((20, false)));
        run.end(true, true);
        assert_eq!(noted(&pending), None);
        run.piece_done(frames[2], 1, ok());
        run.piece_done(frames[2], 1, ok());
        assert_eq!(noted(&pending), Some((30, true)));
        assert!(run.report().complete);
    }

    /// Scenario: the second of three frames is refused.
    /// Guarantees: the place stays before it whatever follows, and the file is not done.
    #[test]
    fn the_place_stays_before_a_failure() {
        let (run, pending) = run();
        for (end, outcome) in [
            (10, Ok((0, String::new()))),
            (20, Err("no".to_owned())),
            (30, Ok((1, "bad".to_owned()))),
        ] {
            let frame = run.begin_frame(end, 0, 1, false);
            run.piece_done(frame, 2, outcome);
        }
        run.end(true, true);
        assert_eq!(noted(&pending), Some((10, false)));
        let report = run.report();
        assert_eq!((report.complete, report.accepted_spans, report.rejected_spans), (false, 3, 1));
        assert_eq!(report.faults, ["no"]);
    }
}
