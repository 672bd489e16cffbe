//! A report as rows: for every output format, and for Python's data frames.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use super::report::{HourLine, TraceLine, VerifyReport};

/// One row, of whichever kind.
#[derive(Clone, Debug, Default)]
struct Row<'a> {
    kind: &'static str,
    hour: Option<&'a str>,
    way_in: Option<&'a str>,
    trace_id: Option<&'a str>,
    result: Option<&'a str>,
    numbers: [Option<u64>; NUMBERS.len()],
    hashes: [Option<String>; 2],
    text: Option<&'a str>,
}

const NUMBERS: [&str; 12] = [
    "traces",
    "archived_traces",
    "spans",
    "archived_spans",
    "copies",
    "deleted",
    "replaced",
    "open",
    "elsewhere",
    "rows",
    "deleted_by_others",
    "changes",
];

/// The report as one batch: rows of `kind` `hour`, then `trace`, `fault` and `note`.
///
/// # Errors
/// Never for what a verification makes; Arrow cannot say so.
pub fn rows_of(report: &VerifyReport) -> Result<RecordBatch, ArrowError> {
    let mut rows: Vec<Row<'_>> = report.hours.iter().map(hour_row).collect();
    rows.extend(report.traces.iter().map(trace_row));
    let texts = |kind: &'static str, texts: &'_ [String]| -> Vec<(&'static str, String)> {
        texts.iter().map(|text| (kind, text.clone())).collect()
    };
    let texts = [texts("fault", &report.faults), texts("note", &report.notes)].concat();
    rows.extend(texts.iter().map(|(kind, text)| Row { kind, text: Some(text), ..Row::default() }));
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut text = |name: &str, values: Vec<Option<&str>>| {
        fields.push(Field::new(name, DataType::Utf8, name != "kind"));
        columns.push(Arc::new(StringArray::from(values)));
    };
    text("kind", rows.iter().map(|row| Some(row.kind)).collect());
    text("hour", rows.iter().map(|row| row.hour).collect());
    text("way_in", rows.iter().map(|row| row.way_in).collect());
    text("trace_id", rows.iter().map(|row| row.trace_id).collect());
    text("result", rows.iter().map(|row| row.result).collect());
    for (place, name) in NUMBERS.iter().enumerate() {
        fields.push(Field::new(*name, DataType::UInt64, true));
        let values = rows.iter().map(|row| row.numbers.get(place).copied().flatten());
        columns.push(Arc::new(values.collect::<UInt64Array>()));
    }
    let mut text = |name: &str, values: Vec<Option<&str>>| {
        fields.push(Field::new(name, DataType::Utf8, true));
        columns.push(Arc::new(StringArray::from(values)));
    };
    let [hash, archived] =
        [0, 1].map(|place| rows.iter().map(|row| row.hashes[place].as_deref()).collect());
    text("hash", hash);
    text("archived_hash", archived);
    text("text", rows.iter().map(|row| row.text).collect());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn hour_row(line: &HourLine) -> Row<'_> {
    let HourLine { acknowledged, archived, .. } = line;
    Row {
        kind: "hour",
        hour: Some(&line.hour),
        way_in: Some(&line.way_in),
        result: Some(&line.result),
        numbers: [
            Some(acknowledged.traces),
            Some(archived.traces),
            Some(acknowledged.spans),
            Some(archived.spans),
            Some(line.copies),
            Some(line.deleted),
            Some(line.replaced),
            Some(line.open),
            Some(line.elsewhere),
            None,
            Some(line.deleted_by_others),
            None,
        ],
        hashes: [Some(acknowledged.hash_text()), Some(archived.hash_text())],
        ..Row::default()
    }
}

fn trace_row(line: &TraceLine) -> Row<'_> {
    let mut numbers = [None; NUMBERS.len()];
    numbers[2] = Some(line.spans);
    numbers[9] = Some(line.rows);
    numbers[11] = Some(line.changes);
    Row {
        kind: "trace",
        hour: Some(&line.hour).filter(|hour| !hour.is_empty()).map(String::as_str),
        way_in: Some(&line.way_in).filter(|way| !way.is_empty()).map(String::as_str),
        trace_id: Some(&line.trace_id),
        result: Some(&line.result),
        numbers,
        ..Row::default()
    }
}
