//! A table against the report of an earlier verification.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use tracelake_model::names::printable;

use super::acknowledged::Acknowledged;
use super::archived::CreatedHour;
use super::report::{ArchivedLine, VerifyReport};
use super::{MICROS_PER_HOUR, VerifyRequest};

/// Compares the rows by the hour in which they were first archived with what they were.
pub(super) fn compare(
    against: &VerifyReport,
    by_hour: &BTreeMap<String, CreatedHour>,
    acknowledged: &Acknowledged,
    request: &VerifyRequest,
    faults: &mut Vec<String>,
    notes: &mut Vec<String>,
) {
    let time = DateTime::from_timestamp_micros(against.made_at_unix_micro).unwrap_or_default();
    let time = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    if !request.is_whole() || against.archived.is_empty() {
        faults.push(format!(
            "the manifest of {time} cannot be compared: one of the two is not of the whole table"
        ));
        return;
    }
    let since = u64::try_from(against.made_at_unix_micro.div_euclid(MICROS_PER_HOUR)).unwrap_or(0);
    let deletions =
        acknowledged.deletion_hours.iter().filter(|hour| since <= **hour).count() as u64;
    let mut fewer = 0;
    let mut changed = 0;
    for ArchivedLine { hour, figures: before } in &against.archived {
        let now = by_hour.get(hour).copied().unwrap_or_default();
        let printed = printable(hour);
        let kept = now.all.traces.saturating_sub(now.later);
        if kept < before.traces {
            fewer += before.traces - kept;
            notes.push(format!(
                "archived in {printed}: {} traces at {time}, {kept} of them by now",
                before.traces
            ));
        } else if now.all != *before && now.changed == 0 {
            faults.push(format!(
                "archived in {printed}: {} traces, {} spans, hash {} at {time}; {} traces, {} spans, hash {} by now, and no row says that it was changed",
                before.traces,
                before.spans,
                before.hash_text(),
                now.all.traces,
                now.all.spans,
                now.all.hash_text()
            ));
        } else if now.all != *before {
            changed += now.changed;
        }
    }
    if deletions < fewer {
        faults.push(format!(
            "{fewer} traces that were there at {time} are gone; clients deleted {deletions} since"
        ));
    }
    if 0 < changed {
        notes.push(format!("{changed} traces got late spans or changes since {time}"));
    }
}
