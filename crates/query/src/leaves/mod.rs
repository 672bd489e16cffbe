//! Which leaves of a nested column a statement needs.
//!
//! `inputs` and `outputs` are nine tenths of a table's bytes, and they sit in the same column,
//! `spans`, as everything else. DataFusion reads only the leaves that the *declared* type of a
//! column names, so the statement is planned twice: once over the full schema to find the leaves
//! that the whole plan uses ([`dataflow`]), once over a schema narrowed to them ([`narrow`]).
//!
//! The rule of this module: what is not understood is used whole. A leaf too many costs bytes, a
//! leaf too few would be a wrong answer.

mod dataflow;
pub(crate) mod narrow;
mod payloads;

use std::collections::BTreeMap;

pub(crate) use dataflow::used_columns;
pub(crate) use narrow::narrow_schema;
pub use payloads::payload_leaves;
pub(crate) use payloads::without_payloads;

/// One step from a nested value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The elements of a list.
    Element,
    /// A field of a struct.
    Field(String),
}

/// What is used below one nested value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaves {
    /// Every leaf below is used.
    whole: bool,
    /// The parts that are used. A part that is itself empty is used for its presence alone:
    /// whether it is null, how long a list is.
    parts: BTreeMap<Step, Self>,
}

impl Leaves {
    /// Marks everything below `steps` as used.
    pub(crate) fn mark_whole(&mut self, steps: &[Step]) {
        self.descend(steps).whole = true;
    }

    /// Marks that the value at `steps` is used for its presence or length only.
    pub(crate) fn mark_presence(&mut self, steps: &[Step]) {
        self.descend(steps);
    }

    fn descend(&mut self, steps: &[Step]) -> &mut Self {
        let mut leaves = self;
        for step in steps {
            leaves = leaves.parts.entry(step.clone()).or_default();
        }
        leaves
    }
}

#[cfg(test)]
mod tests;
