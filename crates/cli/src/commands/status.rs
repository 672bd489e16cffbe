//! `tracelake status`: how the archive stands, on one page.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array as _, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema};
use tracelake_archive::operate::check::units;
use tracelake_archive::operate::status::{Overview, ServiceOverview, TableOverview, overview};
use tracelake_archive::settings::{Overrides, Settings};
use tracelake_model::names::{printable, printable_lines};
use tracelake_model::{Clock as _, SystemClock, TableName};
use tracelake_pipeline::maintenance::{MaintenanceStatus, TableMaintenance};
use tracelake_present::{OutputFormat, RenderOptions, render};

use crate::output::{Format, OutputArgs, print, print_text};

/// Shows how the archive stands: service, journal, disk, tables, bindings, what waits.
///
/// Only looks. With --format json one object with everything; with jsonl, csv, arrow and parquet
/// one row per table.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake status\n  tracelake status production.monitoring.agent_traces\n  tracelake status --format json | jq '.tables[] | {table, rows, lag_ms, blocked}'\n  tracelake status --format csv --output tables.csv\n\nExit codes:\n  0    shown, whatever it shows; `tracelake check` judges\n  1    there is no data folder or no such table, or it cannot be read\n  2    wrong arguments"
)]
pub(crate) struct StatusArgs {
    /// Only this table, its bindings and moves [default: all]
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(data_dir: &Path, args: &StatusArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let settings = Settings::load(args.config.as_deref(), Overrides::default())?;
    let mut seen = overview(data_dir, &settings).await?;
    if let Some(table) = &args.table {
        keep_only(&mut seen, table)?;
    }
    match args.output.format {
        Format::Table => print_text(&args.output, &mut |out, options| page(&seen, out, options)),
        Format::Json => print_text(&args.output, &mut |out, _| {
            writeln!(out, "{}", serde_json::to_string_pretty(&seen)?)?;
            Ok(())
        }),
        Format::Jsonl | Format::Csv | Format::Arrow | Format::Parquet => {
            let batch = rows_of(&seen.tables)?;
            print(&batch.schema(), std::slice::from_ref(&batch), &args.output)
        }
    }
}

/// Leaves what is about one table.
fn keep_only(seen: &mut Overview, table: &TableName) -> anyhow::Result<()> {
    let name = table.to_string();
    seen.tables.retain(|row| row.table == name);
    seen.bindings.retain(|row| row.table == *table);
    seen.moves.retain(|row| row.source == *table || row.target == *table);
    anyhow::ensure!(
        !seen.tables.is_empty(),
        "no table `{name}`\nhint: `tracelake status` lists those that are there"
    );
    Ok(())
}

/// The page for people.
fn page(seen: &Overview, out: &mut dyn Write, options: &RenderOptions) -> anyhow::Result<()> {
    let service = match (&seen.service, &seen.service_fault) {
        (Some(service), _) => format!(
            "process {} at http://{}, gRPC {}, up {}",
            service.pid,
            service.http,
            service.grpc,
            units::duration(Duration::from_secs(service.uptime_seconds))
        ),
        (None, Some(fault)) => format!("does not answer: {}", printable_lines(fault)),
        (None, None) => "none runs on this data folder".to_owned(),
    };
    let journal = &seen.journal;
    let parked = match journal.parked.len() {
        0 => String::new(),
        many => format!(", {} set aside", units::count(many, "record")),
    };
    let free = seen.disk.free_bytes.map_or("unknown".to_owned(), units::bytes);
    writeln!(out, "Data folder  {}", printable_lines(&seen.data_dir))?;
    if !Path::new(&seen.tables_dir).starts_with(&seen.data_dir) {
        writeln!(out, "Tables in    {}", printable_lines(&seen.tables_dir))?;
    }
    writeln!(out, "Service      {service}")?;
    for note in seen.service.iter().flat_map(notes) {
        writeln!(out, "             {note}")?;
    }
    if !seen.moved_aside.is_empty() {
        let names = printable_lines(&seen.moved_aside.join(", "));
        writeln!(out, "Damaged      {names}: moved aside, others took their place")?;
    }
    writeln!(
        out,
        "Journal      {} of {}{parked}",
        units::bytes(journal.bytes),
        units::bytes(journal.budget_bytes)
    )?;
    writeln!(
        out,
        "Disk         {} used, {} of it tables; {free} free",
        units::bytes(seen.disk.total_bytes),
        units::bytes(seen.disk.tables_bytes)
    )?;
    if let Some(maintenance) = &seen.maintenance {
        writeln!(out, "Maintenance  {}", maintenance_line(maintenance))?;
    }
    writeln!(out, "Default      {}", seen.default_table)?;
    section("Tables", &tables_of(&seen.tables)?, out, options)?;
    section("Experiments with a table of their own", &bindings_of(seen)?, out, options)?;
    if !seen.moves.is_empty() {
        section("Earlier traces on their way", &moves_of(seen)?, out, options)?;
    }
    for entry in &journal.parked {
        let reason = entry.reason.as_deref().unwrap_or("reason not known");
        let (name, reason) = (printable(&entry.name), printable_lines(reason));
        writeln!(out, "\nSet aside: {name}: {reason}")?;
    }
    for (table, done) in seen.maintenance.iter().flat_map(|maintenance| &maintenance.tables) {
        if let Some(reason) = &done.fault {
            writeln!(out, "\n{table} is not maintained: {}", printable_lines(reason))?;
        }
    }
    for table in &seen.tables {
        for (word, reason) in [("blocked", &table.blocked), ("unreadable", &table.fault)] {
            if let Some(reason) = reason {
                writeln!(out, "\n{} is {word}: {}", table.table, printable_lines(reason))?;
            }
        }
    }
    Ok(())
}

/// What an operator should know of a service that works.
fn notes(service: &ServiceOverview) -> Vec<String> {
    let mut notes = Vec::new();
    if service.has_copy {
        notes.push(
            "another data folder is a copy of this one, or this one of it: it commits under a name of \
             its own"
                .to_owned(),
        );
    }
    let apart = units::duration(Duration::from_secs(service.clock_ahead_seconds.unsigned_abs()));
    match service.clock_ahead_seconds {
        0 => {}
        ahead if 0 < ahead => notes.push(format!(
            "the system's clock has stepped: it is {apart} ahead of the time that is written down, which \
             follows when a sender confirms it"
        )),
        _ => notes.push(format!(
            "the system's clock has stepped: it is {apart} behind the time that is written down"
        )),
    }
    notes
}

fn section(
    title: &str,
    batch: &RecordBatch,
    out: &mut dyn Write,
    options: &RenderOptions,
) -> anyhow::Result<()> {
    writeln!(out, "\n{title}")?;
    if batch.num_rows() == 0 {
        writeln!(out, "none")?;
        return Ok(());
    }
    render(&batch.schema(), std::slice::from_ref(batch), OutputFormat::Table, out, options)?;
    Ok(())
}

/// Columns under their names.
fn batch(columns: Vec<(&str, ArrayRef)>) -> anyhow::Result<RecordBatch> {
    let field =
        |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), arrays)?)
}

fn texts<T>(rows: &[T], text: impl Fn(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(text).collect::<StringArray>())
}

fn numbers<T>(rows: &[T], number: impl Fn(&T) -> Option<u64>) -> ArrayRef {
    let signed = |row: &T| number(row).map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    Arc::new(rows.iter().map(signed).collect::<Int64Array>())
}

/// When maintenance runs, and what came of it since the service began.
fn maintenance_line(status: &MaintenanceStatus) -> String {
    let every = match status.every_seconds {
        0 => return "switched off".to_owned(),
        seconds => units::duration(Duration::from_secs(seconds)),
    };
    let running = match (&status.running, status.last_round_unix_nano) {
        (Some(table), _) => format!("at work on {table}"),
        (None, Some(last)) => {
            let age = SystemClock.now_unix_nano().saturating_sub(last);
            format!("last round {} ago", units::duration(Duration::from_nanos(age)))
        }
        (None, None) => "no round yet".to_owned(),
    };
    let sum = |of: &dyn Fn(&TableMaintenance) -> u64| status.tables.values().map(of).sum::<u64>();
    let mut line = format!("every {every}; {running}");
    let files = sum(&|table| table.files_before);
    if files != 0 {
        line += &format!(
            "; {files} files into {}, {} into {}",
            sum(&|table| table.files_after),
            units::bytes(sum(&|table| table.bytes_before)),
            units::bytes(sum(&|table| table.bytes_after)),
        );
    }
    let files = sum(&|table| table.vacuumed_files);
    if files != 0 {
        let bytes = units::bytes(sum(&|table| table.vacuumed_bytes));
        line += &format!("; {files} files deleted, {bytes}");
    }
    line
}

/// What of the tables fits on a terminal.
fn tables_of(tables: &[TableOverview]) -> anyhow::Result<RecordBatch> {
    let state = |table: &TableOverview| {
        let word = match (&table.fault, &table.blocked, table.version) {
            (Some(_), _, _) => "ERROR",
            (_, Some(_), _) => "blocked",
            (None, None, None) => "not made yet",
            (None, None, Some(_)) => "OK",
        };
        Some(word.to_owned())
    };
    let lag = |table: &TableOverview| {
        let Some(waiting) = table.open_traces else { return Some("-".to_owned()) };
        let age =
            table.lag_ms.map(|lag| format!(", {}", units::duration(Duration::from_millis(lag))));
        Some(format!("{waiting}{}", age.unwrap_or_default()))
    };
    batch(vec![
        ("table", texts(tables, |table| Some(table.table.clone()))),
        ("state", texts(tables, state)),
        ("rows", numbers(tables, |table| table.rows)),
        ("files", numbers(tables, |table| table.files)),
        ("size", texts(tables, |table| table.bytes.map(units::bytes))),
        ("on disk", texts(tables, |table| Some(units::bytes(table.disk_bytes)))),
        ("version", numbers(tables, |table| table.version)),
        ("last commit", texts(tables, |table| table.last_commit_at.clone())),
        ("waiting", texts(tables, lag)),
    ])
}

fn bindings_of(seen: &Overview) -> anyhow::Result<RecordBatch> {
    let rows = &seen.bindings;
    batch(vec![
        ("experiment", texts(rows, |row| Some(printable(&row.experiment)))),
        ("id", texts(rows, |row| Some(row.experiment_id.to_string()))),
        ("stage", texts(rows, |row| Some(row.lifecycle_stage.to_owned()))),
        ("table", texts(rows, |row| Some(row.table.to_string()))),
        ("since", texts(rows, |row| row.since.clone())),
    ])
}

fn moves_of(seen: &Overview) -> anyhow::Result<RecordBatch> {
    let rows = &seen.moves;
    batch(vec![
        ("experiment id", texts(rows, |row| Some(row.experiment_id.to_string()))),
        ("from", texts(rows, |row| Some(row.source.to_string()))),
        ("to", texts(rows, |row| Some(row.target.to_string()))),
        ("moved traces", numbers(rows, |row| Some(row.moved_traces))),
    ])
}

/// One row per table, for programs.
fn rows_of(tables: &[TableOverview]) -> anyhow::Result<RecordBatch> {
    let is_default: BooleanArray = tables.iter().map(|table| Some(table.is_default)).collect();
    let times: TimestampMillisecondArray =
        tables.iter().map(|table| table.last_commit_unix_milli).collect();
    batch(vec![
        ("table", texts(tables, |table| Some(table.table.clone()))),
        ("is_default", Arc::new(is_default)),
        ("version", numbers(tables, |table| table.version)),
        ("last_commit_at", Arc::new(times.with_timezone("UTC"))),
        ("rows", numbers(tables, |table| table.rows)),
        ("files", numbers(tables, |table| table.files)),
        ("bytes", numbers(tables, |table| table.bytes)),
        ("deletion_vectors", numbers(tables, |table| table.deletion_vectors)),
        ("deleted_rows", numbers(tables, |table| table.deleted_rows)),
        ("disk_bytes", numbers(tables, |table| Some(table.disk_bytes))),
        ("open_traces", numbers(tables, |table| table.open_traces)),
        ("late_traces", numbers(tables, |table| table.late_traces)),
        ("open_bytes", numbers(tables, |table| table.open_bytes)),
        ("lag_ms", numbers(tables, |table| table.lag_ms)),
        ("blocked", texts(tables, |table| table.blocked.clone())),
        ("fault", texts(tables, |table| table.fault.clone())),
    ])
}
