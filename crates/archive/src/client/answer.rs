//! What a question is answered with.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tracelake_present::{OutputFormat, PresentError, RenderOptions, render, render_html};
use tracelake_query::QueryOutput;
use tracelake_query::analyses::TimeRange;

use super::place::TableRef;
use crate::fault::{Fault, FaultKind};
use crate::operate::verify::{VerifyReport, rows_of};

/// Rows, and what they are rows of.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Names and types of the columns, also when there are no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Table and range, of the answer to a ready-made question.
    pub scope: Option<Scope>,
}

/// What a ready-made question was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The table; without one it was the table of experiments that are archived nowhere else.
    pub table: Option<TableRef>,
    /// The range of `created_at`.
    pub range: TimeRange,
}

impl Answer {
    pub(crate) const fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches, scope: None }
    }

    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }
}

/// Longest cell that a person sees.
const MAX_CELL: usize = 60;

impl Answer {
    /// How many rows there are.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// All rows as a JSON array of objects.
    ///
    /// # Errors
    /// [`FaultKind::Internal`] for a value that has no text.
    pub fn to_json(&self) -> Result<String, Fault> {
        let mut json = Vec::new();
        let options = RenderOptions::default();
        render(&self.schema, &self.batches, OutputFormat::Json, &mut json, &options)
            .map_err(unshowable)?;
        Ok(String::from_utf8_lossy(&json).into_owned())
    }

    /// The first rows as an HTML table, safe to show whatever is in them.
    ///
    /// # Errors
    /// [`FaultKind::Internal`] for a value that has no text.
    pub fn to_html(&self, max_rows: usize) -> Result<String, Fault> {
        let options = RenderOptions { max_cell: MAX_CELL, ..RenderOptions::default() };
        render_html(&self.schema, &self.batches, max_rows, &options).map_err(unshowable)
    }

    /// The first rows as a table of text, at most `width` columns wide, safe to print.
    ///
    /// # Errors
    /// [`FaultKind::Internal`] for a value that has no text.
    pub fn to_text(&self, max_rows: usize, width: usize) -> Result<String, Fault> {
        let mut left = max_rows;
        let mut first = Vec::new();
        for batch in &self.batches {
            first.push(batch.slice(0, batch.num_rows().min(left)));
            left -= batch.num_rows().min(left);
        }
        let options = RenderOptions { width: Some(width), color: false, max_cell: MAX_CELL };
        let mut text = Vec::new();
        render(&self.schema, &first, OutputFormat::Table, &mut text, &options)
            .map_err(unshowable)?;
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if max_rows < self.num_rows() {
            text.push_str(&format!("of {}\n", self.num_rows()));
        }
        Ok(text)
    }
}

fn unshowable(error: PresentError) -> Fault {
    Fault::new(FaultKind::Internal, error.to_string())
}

impl TryFrom<&VerifyReport> for Answer {
    type Error = Fault;

    fn try_from(report: &VerifyReport) -> Result<Self, Fault> {
        let rows = rows_of(report);
        let rows = rows.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
        Ok(Self::new(rows.schema(), vec![rows]))
    }
}

impl From<QueryOutput> for Answer {
    fn from(output: QueryOutput) -> Self {
        Self::new(output.schema, output.batches)
    }
}
