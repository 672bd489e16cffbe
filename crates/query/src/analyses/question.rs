//! Every ready-made question by name, and its statement for this engine and for Spark.

use std::fmt;
use std::str::FromStr;

use tracelake_model::TableName;
use tracelake_model::names::printable;

use super::{
    Analysis, Grouping, TimeRange, archived_traces, error_groups, errors, performance,
    performance_by, traces,
};
use crate::error::QueryError;
use crate::session::QueryOptions;

/// A ready-made question.
///
/// Has a name as text, such as `error_groups`: what [`fmt::Display`] writes, [`FromStr`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Whole rows, newest first by `created_at`.
    ArchivedTraces {
        /// With the texts that clients sent; without them the heavy leaves of
        /// [`crate::payload_leaves`] are not read and are not in the answer.
        payloads: bool,
    },
    /// One line for each trace, newest first by `created_at`.
    Traces,
    /// The traces that failed or have a failed span, newest first by request time.
    Errors,
    /// The failed spans by message and exception type, most traces first.
    ErrorGroups,
    /// How long each trace took, newest first by request time.
    Performance,
    /// How long groups of spans or traces took.
    PerformanceBy(Grouping),
}

impl Question {
    /// Every question there is.
    pub const ALL: [Self; 11] = [
        Self::ArchivedTraces { payloads: true },
        Self::ArchivedTraces { payloads: false },
        Self::Traces,
        Self::Errors,
        Self::ErrorGroups,
        Self::Performance,
        Self::PerformanceBy(Grouping::SpanName),
        Self::PerformanceBy(Grouping::SpanType),
        Self::PerformanceBy(Grouping::Model),
        Self::PerformanceBy(Grouping::Experiment),
        Self::PerformanceBy(Grouping::Hour),
    ];

    /// The question's statement for this engine, to be run with [`Self::options`].
    #[must_use]
    pub fn analysis(self, table: &TableName, range: TimeRange, limit: Option<u64>) -> Analysis {
        match self {
            Self::ArchivedTraces { .. } => archived_traces(table, range, limit),
            Self::Traces => traces(table, range, limit),
            Self::Errors => errors(table, range, limit),
            Self::ErrorGroups => error_groups(table, range, limit),
            Self::Performance => performance(table, range, limit),
            Self::PerformanceBy(grouping) => performance_by(table, grouping, range, limit),
        }
    }

    /// How this engine has to run [`Self::analysis`].
    #[must_use]
    pub fn options(self) -> QueryOptions {
        let without_payloads = matches!(self, Self::ArchivedTraces { payloads: false });
        QueryOptions { without_payloads, ..QueryOptions::default() }
    }

    /// The question's name, in lower case with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArchivedTraces { payloads: true } => "archived_traces",
            Self::ArchivedTraces { payloads: false } => "archived_traces_without_payloads",
            Self::Traces => "traces",
            Self::Errors => "errors",
            Self::ErrorGroups => "error_groups",
            Self::Performance => "performance",
            Self::PerformanceBy(Grouping::SpanName) => "performance_by_span_name",
            Self::PerformanceBy(Grouping::SpanType) => "performance_by_span_type",
            Self::PerformanceBy(Grouping::Model) => "performance_by_model",
            Self::PerformanceBy(Grouping::Experiment) => "performance_by_experiment",
            Self::PerformanceBy(Grouping::Hour) => "performance_by_hour",
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Question {
    type Err = QueryError;

    /// # Errors
    /// [`QueryError::UnknownQuestion`] for any other text.
    fn from_str(name: &str) -> Result<Self, QueryError> {
        let known = Self::ALL.into_iter().find(|question| question.name() == name);
        known.ok_or_else(|| QueryError::UnknownQuestion {
            name: printable(name),
            known: Self::ALL.map(Self::name).to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixture::{
        START_MICROS, TestTable, contract_schema, engine, rows, schema, table_name, trace, traces,
    };
    use crate::leaves::without_payloads;
    use crate::session::{QueryEngine, QueryOutput};

    async fn whole_rows(engine: &QueryEngine, payloads: bool, limit: Option<u64>) -> QueryOutput {
        let question = Question::ArchivedTraces { payloads };
        let range = TimeRange {
            since_micros: Some(START_MICROS + 10_000_000),
            until_micros: Some(START_MICROS + 549_000_000),
        };
        let sql = question.analysis(&table_name(), range, limit).sql;
        engine.query(&sql, &question.options()).await.unwrap()
    }

    fn ids(output: &QueryOutput) -> Vec<String> {
        let columns = output.batches.iter().map(|batch| batch.column_by_name("trace_id").unwrap());
        columns
            .flat_map(|column| {
                let texts = column.as_any().downcast_ref::<arrow::array::StringArray>().unwrap();
                texts.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Scenario: rows with 2 KB of payload per span and side, rows of another writer, and rows
    /// that are not committed yet; with and without payloads, with and without a limit.
    /// Guarantees: the same traces, newest first; without payloads the columns are the rest of the
    /// table's, and a small share of the bytes is read.
    #[tokio::test(flavor = "multi_thread")]
    async fn whole_rows_come_with_and_without_payloads() {
        let foreign: Vec<Value> = (0..20).map(|number| trace(number, 50, false)).collect();
        let table = TestTable::new()
            .with_file_of(&contract_schema(), &foreign, 8)
            .with_file(&traces(20..500, 2_000), 100)
            .with_pending_of(&schema(), &traces(500..600, 2_000));
        let size = table.size_bytes();
        let engine = engine(table);
        let expected: Vec<String> =
            (10..550).rev().map(|number| format!("tr-{number:032x}")).collect();

        let full = whole_rows(&engine, true, None).await;
        assert_eq!(full.schema.fields(), schema().fields());
        assert_eq!(ids(&full), expected);
        let narrow = whole_rows(&engine, false, None).await;
        assert_eq!(narrow.schema.fields(), without_payloads(&schema()).fields());
        assert_eq!(ids(&narrow), expected);
        assert!(narrow.metrics.bytes_scanned * 20 < size, "{:?} of {size}", narrow.metrics);
        assert!(size < full.metrics.bytes_scanned * 2, "{:?} of {size}", full.metrics);

        let newest = whole_rows(&engine, false, Some(60)).await;
        assert_eq!((rows(&newest), ids(&newest)), (60, expected.into_iter().take(60).collect()));
    }

    /// Scenario: a table that has the contract's columns alone.
    /// Guarantees: without payloads it answers as well, with what is left of them.
    #[tokio::test]
    async fn a_table_of_another_writer_has_rows_without_payloads() {
        let foreign: Vec<Value> = (0..20).map(|number| trace(number, 50, false)).collect();
        let engine = engine(TestTable::of(contract_schema()).with_file(&foreign, 8));
        let narrow = whole_rows(&engine, false, None).await;
        assert_eq!(narrow.schema.fields(), without_payloads(&contract_schema()).fields());
        assert_eq!(rows(&narrow), 10);
    }

    /// Scenario: the name of every question; names of no question.
    /// Guarantees: a name is read as the question that wrote it; another is refused with a hint.
    #[test]
    fn names_are_read_as_they_are_written() {
        for question in Question::ALL {
            assert_eq!(question.to_string().parse::<Question>().unwrap(), question);
        }
        for name in ["", "Errors", "errors ", "performance_by_", "performance_by_name"] {
            let error = name.parse::<Question>().unwrap_err();
            assert!(matches!(error, QueryError::UnknownQuestion { .. }), "{name:?}");
            assert!(error.hint().unwrap().contains("performance_by_span_name"), "{name:?}");
        }
    }
}
