//! What people and programs get to see, with ordinary and with hostile values.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use serde_json::{Value, json};

use super::*;

fn schema() -> SchemaRef {
    let entry = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    let entries = Field::new("key_value", DataType::Struct(entry), false);
    let span = Fields::from(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("status", DataType::Utf8, true),
    ]);
    let element = Field::new("element", DataType::Struct(span), true);
    // The JSON decoder of the test knows offsets only.
    let zone = Some("+00:00".into());
    Arc::new(Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("number", DataType::Int64, true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, zone), true),
        Field::new("spans", DataType::List(Arc::new(element)), true),
        Field::new("tags", DataType::Map(Arc::new(entries), false), true),
    ]))
}

fn rendered(rows: &[Value], format: OutputFormat, options: &RenderOptions) -> String {
    let schema = schema();
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    let batches: Vec<RecordBatch> = decoder.flush().unwrap().into_iter().collect();
    let mut out = Vec::new();
    render(&schema, &batches, format, &mut out, options).unwrap();
    String::from_utf8(out).unwrap()
}

fn row() -> Value {
    json!({
        "text": "hello",
        "number": 9_223_372_036_854_775_807_i64,
        "ratio": 0.1,
        "time": 1_795_305_600_000_001_i64,
        "spans": [{"name": "a", "status": "ERROR"}, null],
        "tags": {"b": "1", "a": null},
    })
}

/// Scenario: one row of every kind of value, and one of nulls.
/// Guarantees: integers exact, times RFC 3339 with microseconds, maps objects, nulls explicit,
/// columns and fields in their order.
#[test]
fn json_is_exact() {
    let expected = concat!(
        r#"{"text":"hello","number":9223372036854775807,"ratio":0.1,"#,
        r#""time":"2026-11-22T00:00:00.000001Z","#,
        r#""spans":[{"name":"a","status":"ERROR"},null],"tags":{"b":"1","a":null}}"#,
    );
    let nulls = r#"{"text":null,"number":null,"ratio":null,"time":null,"spans":null,"tags":null}"#;
    let options = RenderOptions::default();
    let lines = rendered(&[row(), json!({})], OutputFormat::Jsonl, &options);
    assert_eq!(lines, format!("{expected}\n{nulls}\n"));
    let array = rendered(&[row(), json!({})], OutputFormat::Json, &options);
    assert_eq!(array, format!("[\n{expected},\n{nulls}\n]\n"));
}

/// Scenario: the same row as a table without a terminal.
/// Guarantees: numbers to the right, nested values as JSON, no colour codes, a count below.
#[test]
fn a_table_is_readable_without_colour() {
    let text = rendered(&[row()], OutputFormat::Table, &RenderOptions::default());
    let expected = "\
+-------+---------------------+-------+-----------------------------+--------------------------------------+--------------------+
| text  | number              | ratio | time                        | spans                                | tags               |
+===============================================================================================================================+
| hello | 9223372036854775807 |   0.1 | 2026-11-22T00:00:00.000001Z | [{\"name\":\"a\",\"status\":\"ERROR\"},null] | {\"b\":\"1\",\"a\":null} |
+-------+---------------------+-------+-----------------------------+--------------------------------------+--------------------+
1 row
";
    assert_eq!(text, expected);
}

/// Scenario: no rows.
/// Guarantees: every format is still well-formed; a table shows its header.
#[test]
fn empty_results_are_well_formed() {
    let options = RenderOptions::default();
    let table = rendered(&[], OutputFormat::Table, &options);
    assert!(table.contains("| text | number |") && table.ends_with("\n0 rows\n"), "{table}");
    assert_eq!(rendered(&[], OutputFormat::Json, &options), "[]\n");
    assert_eq!(rendered(&[], OutputFormat::Jsonl, &options), "");
    assert_eq!(rendered(&[], OutputFormat::Csv, &options), "text,number,ratio,time,spans,tags\n");
}

/// Scenario: cells with escape sequences, C1 codes, reordering marks, newlines, nested too.
/// Guarantees: no format hands such a code to a terminal; JSON still reads back as sent.
#[test]
fn hostile_text_is_harmless() {
    let text = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\u{2066}\r\nx";
    let hostile = json!({"text": text, "spans": [{"name": text}], "tags": {text: text}});
    let colored = RenderOptions { color: true, width: Some(80), max_cell: 40 };
    for format in OutputFormat::ALL.into_iter().filter(|format| !format.is_binary()) {
        for options in [RenderOptions::default(), RenderOptions { color: false, ..colored }] {
            let shown = rendered(std::slice::from_ref(&hostile), format, &options);
            let acting = shown.chars().find(|character| {
                crate::hostile::is_dangerous(*character) && !matches!(character, '\n' | '\r')
            });
            assert_eq!(acting, None, "{format}: {shown:?}");
        }
    }
    let line = rendered(std::slice::from_ref(&hostile), OutputFormat::Jsonl, &colored);
    let back: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(back["text"], hostile["text"]);
    assert_eq!(back["tags"], hostile["tags"]);
}

/// Scenario: text that a spreadsheet would run, numbers below zero, commas and quotes.
/// Guarantees: formulas are defused, numbers are not touched, quoting is right.
#[test]
fn csv_defuses_formulas() {
    for start in ["=", "+", "-", "@", "\t", "\r"] {
        let rows = [json!({"text": format!("{start}1+cmd|' /C calc'!A0"), "number": -5})];
        let text = rendered(&rows, OutputFormat::Csv, &RenderOptions::default());
        let cell = text.split_once('\n').unwrap().1.trim_start_matches('"');
        assert!(cell.starts_with('\''), "{text:?}");
        assert!(text.contains(",-5,"), "{text:?}");
    }
    let rows = [json!({"text": "a,\"b\"\nc", "spans": [{"name": "x"}]}), json!({"text": ""})];
    let text = rendered(&rows, OutputFormat::Csv, &RenderOptions::default());
    assert_eq!(
        text,
        "text,number,ratio,time,spans,tags\n\
         \"a,\"\"b\"\"\nc\",,,,\"[{\"\"name\"\":\"\"x\"\",\"\"status\"\":null}]\",\n\
         \"\",,,,,\n"
    );
}

/// Scenario: long nested values on a narrow terminal.
/// Guarantees: no line is wider than the terminal.
#[test]
fn a_narrow_terminal_is_not_overrun() {
    let spans: Vec<Value> = (0..50).map(|index| json!({"name": format!("n{index}")})).collect();
    let rows = [json!({"text": "x".repeat(500), "number": 1, "spans": spans})];
    let options = RenderOptions { width: Some(100), color: false, max_cell: 60 };
    let text = rendered(&rows, OutputFormat::Table, &options);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("..."), "{text}");
}

/// Scenario: an id in the first column, and more text than the line has room for.
/// Guarantees: the id stays on one line, the rest is broken; no line is wider than the terminal.
#[test]
fn the_first_column_stays_whole() {
    let id = "tr-0123456789abcdef0123456789abcdef";
    let rows = [json!({"text": id, "number": 5, "spans": [{"name": "n".repeat(200)}]})];
    let options = RenderOptions { width: Some(90), color: false, max_cell: 120 };
    let text = rendered(&rows, OutputFormat::Table, &options);
    assert!(text.contains(&format!("| {id} |")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
}

/// Scenario: more columns than a terminal has room for; a null beside an empty text.
/// Guarantees: rows stand one below the other, each column on a line of its own; no line is wider
/// than the terminal; the null is told apart.
#[test]
fn too_many_columns_become_lines() {
    let rows = [row(), json!({"text": ""})];
    let options = RenderOptions { width: Some(40), color: false, max_cell: 120 };
    let text = rendered(&rows, OutputFormat::Table, &options);
    let expected = "\
--- row 1 ---
text    hello
number  9223372036854775807
ratio   0.1
time    2026-11-22T00:00:00.000001Z
spans   [{\"name\":\"a\",\"status\":\"ERROR\"...
tags    {\"b\":\"1\",\"a\":null}
--- row 2 ---
text
number  null
ratio   null
time    null
spans   null
tags    null
2 rows
";
    assert_eq!(text, expected);
}

/// Scenario: colour switched on.
/// Guarantees: it is there, and taking it away leaves the same table.
#[test]
fn colour_only_adds() {
    let rows = [json!({"text": "ERROR"})];
    let plain = rendered(&rows, OutputFormat::Table, &RenderOptions::default());
    let options = RenderOptions { color: true, ..RenderOptions::default() };
    let colored = rendered(&rows, OutputFormat::Table, &options);
    assert!(colored.contains("\u{1b}["));
    let mut stripped = String::new();
    let mut parts = colored.split("\u{1b}[");
    stripped.push_str(parts.next().unwrap());
    for part in parts {
        stripped.push_str(part.split_once('m').unwrap().1);
    }
    assert_eq!(stripped, plain);
}

/// Scenario: names of formats.
/// Guarantees: each reads back; another is refused by name.
#[test]
fn format_names_read_back() {
    for format in OutputFormat::ALL {
        assert_eq!(format.name().parse::<OutputFormat>().unwrap(), format);
    }
    let error = "xml".parse::<OutputFormat>().unwrap_err();
    assert!(error.to_string().contains("`xml`"));
}
