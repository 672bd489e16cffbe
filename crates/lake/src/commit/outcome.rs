//! What a commit tells whoever hands traces over.

use std::collections::HashSet;

use tracelake_model::TraceId;

use crate::error::LakeError;

/// Told before a version is written which of the traces it leaves out, when that changed: their
/// rows are more than fits into memory. The version is not written when this fails.
pub type Defer<'a> = dyn FnMut(&HashSet<TraceId>) -> Result<(), LakeError> + 'a;

/// What an epoch did to a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochOutcome {
    /// Traces that got a row.
    pub appended: usize,
    /// Traces whose row was replaced.
    pub amended: usize,
    /// Traces whose row is gone: a client deleted them.
    pub deleted: usize,
    /// Late pieces that were in already.
    pub unchanged: usize,
    /// Version of the table afterwards.
    pub version: u64,
    /// True when an earlier attempt had committed this epoch.
    pub already_committed: bool,
    /// Late pieces that were left out because the table takes new rows alone; not those that memory had no
    /// room for.
    pub kept: Vec<TraceId>,
    /// Late pieces that were left out because a row of their trace cannot be read, so that one damaged row
    /// keeps nothing else out of the table.
    pub unreadable: Vec<TraceId>,
    /// What is wrong with one of these rows.
    pub fault: Option<String>,
    /// True when the table takes new rows alone.
    pub is_append_only: bool,
}

impl EpochOutcome {
    /// True when the table does not take pieces that it was given.
    #[must_use]
    pub const fn refuses(&self) -> bool {
        !(self.kept.is_empty() && self.unreadable.is_empty())
    }
}
