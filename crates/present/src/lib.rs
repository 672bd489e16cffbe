//! The present room: renders query results for people and programs.
//!
//! Comes in: Arrow batches with their schema. Goes out: text or bytes in one of the
//! [`OutputFormat`]s, or one trace as a tree of its spans ([`render_trace`]).
//! What is in the cells was written by whoever sent the traces, so it is hostile: a terminal gets
//! no control codes and a spreadsheet no formulas. This room knows no SQL, no table and no file.

mod binary;
mod csv;
mod error;
mod hostile;
mod html;
mod json;
mod options;
mod records;
mod render;
mod shown_row;
mod style;
mod table;
mod trace;
mod value;
mod width;

pub use error::PresentError;
pub use html::render_html;
pub use options::RenderOptions;
pub use render::{OutputFormat, render};
pub use trace::{TraceContext, needed_span_fields, needed_trace_columns, render_trace};
