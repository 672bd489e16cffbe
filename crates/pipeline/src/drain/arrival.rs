//! What arrives up to the end of a segment, and what records say of time.

use tracelake_decode::{DecodedRecord, RecordContent};
use tracelake_journal::{JournalError, SegmentNumber};
use tracelake_model::Clock;

use super::Pipeline;

impl Pipeline {
    /// Takes every event up to the end of `sealed`.
    pub(super) fn drain_to(&mut self, sealed: SegmentNumber) -> Result<(), JournalError> {
        loop {
            let event = {
                let Self { handle, events, .. } = self;
                handle.block_on(events.recv())
            };
            match event {
                Some(event) => {
                    if self.take(event) == Some(sealed) {
                        return Ok(());
                    }
                }
                None => return Err(JournalError::Closed),
            }
        }
    }
}

/// Tells the clock of the newest time that a record speaks of: its sender had a clock too.
pub(super) fn bear_witness(clock: &dyn Clock, record: &DecodedRecord) {
    let newest = match &record.content {
        RecordContent::Spans(decoded) => {
            decoded.spans.iter().map(|span| span.end_time_unix_nano).max()
        }
        RecordContent::TraceInfo(info) => info
            .request_time_micros
            .and_then(|micros| u64::try_from(micros).ok()?.checked_mul(1_000)),
        RecordContent::Changes(_) | RecordContent::Words(_) => None,
    };
    if let Some(newest) = newest {
        clock.witness(newest);
    }
}

/// Longer than any silence that is waited for.
const LONGEST_GAP_NANO: u64 = 86_400_000_000_000;

/// Time as it passed between the records of a replay. It never goes back, and a step of the clock
/// that they were received by counts as [`LONGEST_GAP_NANO`] at the most: whatever the dates are, silence
/// is counted, and traces settle.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// Since the first of them, nanoseconds.
    pub(super) passed_nano: u64,
    /// When the record before was received.
    last_unix_nano: Option<u64>,
}

impl Arrival {
    /// Another record, received at this time.
    pub(super) fn next(&mut self, received_at_unix_nano: u64) {
        let last = self.last_unix_nano.replace(received_at_unix_nano);
        let gap = last.map_or(0, |last| received_at_unix_nano.saturating_sub(last));
        self.passed_nano = self.passed_nano.saturating_add(gap.min(LONGEST_GAP_NANO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Scenario: records a second apart; the clock is set back an hour, ahead to the end of time, and
    /// back to before 1970.
    /// Guarantees: time between records passes as it did, never goes back, and a step ahead counts
    /// for a day.
    #[test]
    fn replayed_time_passes_whatever_the_dates_are() {
        let mut arrival = Arrival::default();
        let mut passed = Vec::new();
        let noon = 20_000 * LONGEST_GAP_NANO;
        let back = noon - 3_600 * SECOND;
        for received in [noon, noon + SECOND, back, back + SECOND, u64::MAX, 0, SECOND] {
            arrival.next(received);
            passed.push(arrival.passed_nano / SECOND);
        }
        assert_eq!(passed, [0, 1, 1, 2, 86_402, 86_402, 86_403]);
    }
}
