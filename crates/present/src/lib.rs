//! The present room: renders query results for people and programs.
//!
//! Comes in: Arrow batches with their schema. Goes out: text in one of the [`OutputFormat`]s.
//! What is in the cells was written by whoever sent the traces, so it is hostile: a terminal gets
//! no control codes and a spreadsheet no formulas. This room knows no SQL, no table and no file.

mod csv;
mod error;
mod hostile;
mod json;
mod render;
mod table;
mod value;

pub use error::PresentError;
pub use render::{OutputFormat, RenderOptions, render};
