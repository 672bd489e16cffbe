//! That nothing of a caller leaves its quotes, and that every statement is whole.

use super::*;

fn sql(question: Question, table: &SparkTable) -> String {
    let range = TimeRange { since_micros: Some(-1), until_micros: Some(2) };
    question.spark(table, range, Some(5)).sql
}

/// Scenario: a path and a view with backticks, quotes and a statement of their own; a name.
/// Guarantees: each stays one identifier.
#[test]
fn hostile_names_stay_one_identifier() {
    let hostile = "a`; DROP TABLE t; -- '\"\n";
    let quoted = "`a``; DROP TABLE t; -- '\"\n`";
    assert_eq!(SparkTable::Path(hostile.to_owned()).to_sql(), format!("delta.{quoted}"));
    assert_eq!(SparkTable::View(hostile.to_owned()).to_sql(), quoted);
    let name = TableName::new("c", "s-1", "t`").ok();
    let named = name.map(|name| SparkTable::Named(name).to_sql());
    assert!(named.is_none_or(|named| named == "`c`.`s-1`.`t```"));
    for question in Question::ALL {
        let sql = sql(question, &SparkTable::View(hostile.to_owned()));
        let scans = sql.matches(quoted).count();
        assert!(0 < scans, "{sql}");
        assert_eq!(sql.matches("DROP").count(), scans, "{sql}");
    }
}

/// Scenario: every question with a range and a limit; limits that Spark has no type for.
/// Guarantees: each scan is bounded by microseconds, once the outermost by the limit; parentheses
/// close; the columns are the analysis' own; a limit past 32 bits is none.
#[test]
fn every_statement_is_bounded_and_closed() {
    let (name, range) = (TableName::new("c", "s", "t").unwrap(), TimeRange::default());
    let table = SparkTable::Path("/data/t".to_owned());
    for question in Question::ALL {
        let sql = sql(question, &table);
        let scans = sql.matches("FROM delta.`/data/t`").count();
        assert!(0 < scans, "{sql}");
        assert_eq!(sql.matches("created_at >= timestamp_micros(-1)").count(), scans, "{sql}");
        assert_eq!(sql.matches("created_at <= timestamp_micros(2)").count(), scans, "{sql}");
        assert_eq!(sql.matches('(').count(), sql.matches(')').count(), "{sql}");
        assert!(sql.ends_with("\nLIMIT 5"), "{sql}");
        assert!(!sql.contains("->"), "a lambda: {sql}");
        let ours = question.analysis(&name, range, None).columns;
        assert_eq!(question.spark(&table, range, None).columns, ours);
        let unlimited = question.spark(&table, range, None).sql;
        assert!(!unlimited.contains("LIMIT"), "{unlimited}");
        assert_eq!(question.spark(&table, range, Some(1 << 31)).sql, unlimited);
    }
}

/// Scenario: whole rows without payloads.
/// Guarantees: the answer names every other column and span field, with its type, and no payload.
#[test]
fn rows_without_payloads_name_what_is_left() {
    let table = SparkTable::View("t".to_owned());
    let sql = sql(Question::ArchivedTraces { payloads: false }, &table);
    for payload in crate::payload_leaves() {
        let name = payload.strip_prefix("spans.").unwrap_or(&payload);
        for written in [format!("{payload},"), format!("{payload})"), format!(" {name}: ")] {
            assert!(!sql.contains(&written), "{written} in {sql}");
        }
        assert!(payload.starts_with("spans.") || !sql.contains(&format!("\n{name},")), "{sql}");
    }
    assert!(sql.contains("spans.start_time, spans.end_time, spans.status"), "{sql}");
    assert!(sql.contains("start_time: TIMESTAMP, end_time: TIMESTAMP, status: STRING"), "{sql}");
    assert!(sql.contains("flags: INT") && sql.contains("total_cost: DOUBLE"), "{sql}");
    assert!(sql.contains("start_time_unix_nano: BIGINT"), "{sql}");
    assert!(sql.contains("\ntags,\nassessments,\n"), "the trace's own tags are no payload: {sql}");
}

/// Scenario: every type of the table.
/// Guarantees: each has its own name in Spark.
#[test]
fn types_are_named_as_in_spark() {
    let schema = traces_schema();
    let of = |name: &str| spark_type(schema.field_with_name(name).unwrap().data_type());
    assert_eq!(
        of("trace_info"),
        "STRUCT<request_id: STRING, timestamp: TIMESTAMP, status: STRING>"
    );
    assert_eq!(of("tags"), "MAP<STRING, STRING>");
    assert_eq!(of("models"), "ARRAY<STRING>");
    assert_eq!(of("total_cost"), "DOUBLE");
    assert!(of("spans").ends_with(", source: STRING, otlp: BINARY>>"), "{}", of("spans"));
    assert!(of("assessments").ends_with(", valid: BOOLEAN>>"), "{}", of("assessments"));
}
