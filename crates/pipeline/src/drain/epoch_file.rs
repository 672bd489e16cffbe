//! The last epoch that is done, which the journal may forget, and the time by then.
//!
//! `journal/EPOCH` is one line: `v2`, the epoch, the newest time that was given out and the newest
//! one that is proven ([`Times`]), nanoseconds since the Unix epoch. A line of a number alone is of a
//! version that knew no times; it cannot read ours, and so refuses a folder whose plans it would misread.

use std::sync::Arc;

use anyhow::Context as _;
use tracelake_journal::{JournalFs, RealFs, SegmentNumber};
use tracelake_lake::DataFolder;
use tracelake_model::{Clock, SteadyClock, SystemClock, Times};

use crate::durable_file::{read_if_there, write_durably};

/// What stands in the file first.
const VERSION: &str = "v2";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The last epoch that is done.
    pub(crate) epoch: SegmentNumber,
    /// The time when it was noted; none in a file of a version that knew no times.
    pub(crate) times: Option<Times>,
}

/// Notes `epoch` as done; durable when this returns.
pub(super) fn write_epoch(
    fs: &dyn JournalFs,
    folder: &DataFolder,
    epoch: SegmentNumber,
    times: Times,
) -> anyhow::Result<()> {
    let Times { given_unix_nano, proven_unix_nano } = times;
    let line = format!("{VERSION} {} {given_unix_nano} {proven_unix_nano}", epoch.get());
    write_durably(fs, &folder.epoch_file(), &line)
}

/// The last epoch noted, `None` when there never was one.
pub(crate) fn read_epoch(fs: &dyn JournalFs, folder: &DataFolder) -> anyhow::Result<Option<Done>> {
    let path = folder.epoch_file();
    let Some(text) = read_if_there(fs, &path)? else { return Ok(None) };
    parse(&text).map(Some).with_context(|| {
        format!("read `{}`: not understood\nhint: restore it from a backup", path.display())
    })
}

/// The clock of a data folder: it goes on from where the service before ended. Where that is not known,
/// or cannot be read, which the start of a service reports, the system's word stands.
#[must_use]
pub fn clock_of(folder: &DataFolder) -> Arc<dyn Clock> {
    let done = read_epoch(&RealFs, folder).ok().flatten();
    let floor = done.and_then(|done| done.times);
    Arc::new(SteadyClock::new(Arc::new(SystemClock), floor))
}

fn parse(text: &str) -> Option<Done> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.parse::<u64>().ok();
    let (epoch, times) = match words.as_slice() {
        [epoch] => (number(epoch)?, None),
        [VERSION, epoch, given, proven] => {
            let (given_unix_nano, proven_unix_nano) = (number(given)?, number(proven)?);
            (number(epoch)?, Some(Times { given_unix_nano, proven_unix_nano }))
        }
        _ => return None,
    };
    Some(Done { epoch: SegmentNumber::new(epoch), times })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a file of this version, one of the version before, and what is neither.
    /// Guarantees: both are read as they were written; the version before cannot take ours for a
    /// number; what is not understood is no epoch.
    #[test]
    fn both_formats_are_read_and_others_are_not() {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        std::fs::create_dir_all(folder.journal()).unwrap();
        assert_eq!(read_epoch(&RealFs, &folder).unwrap(), None);
        let times = Times { given_unix_nano: u64::MAX, proven_unix_nano: 5 };
        let epoch = SegmentNumber::new(7);
        write_epoch(&RealFs, &folder, epoch, times).unwrap();
        let done = Done { epoch, times: Some(times) };
        assert_eq!(read_epoch(&RealFs, &folder).unwrap(), Some(done));
        let text = std::fs::read_to_string(folder.epoch_file()).unwrap();
        assert!(text.trim().parse::<u64>().is_err());
        assert_eq!(parse("7\n"), Some(Done { epoch, times: None }));
        for wrong in ["", "x", "v2 7 1", "v3 7 1 1", "v2 7 1 1 1", "-7", "v2 7 x 1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
