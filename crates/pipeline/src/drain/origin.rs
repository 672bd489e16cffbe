//! Where a record is from.

use serde::{Deserialize, Serialize};

/// A file of the journal, by the number in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// What was unsettled when an epoch ended.
    Carry(u64),
    /// What was acknowledged.
    Segment(u64),
}
