//! `tracelake maintain`: compaction and vacuum of tables, once or again and again.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use tokio_util::sync::CancellationToken;
use tracelake_archive::folder::data_folder;
use tracelake_archive::operate::check::units;
use tracelake_archive::settings::{Overrides, Settings, Span};
use tracelake_archive::{Fault, FaultKind};
use tracelake_lake::Lake;
use tracelake_lake::maintain::compact::{CompactionReport, CompactionRules};
use tracelake_lake::maintain::vacuum::{VacuumReport, VacuumRules};
use tracelake_lake::table::DeletionVector;
use tracelake_model::TableName;
use tracelake_pipeline::clock_of;
use tracelake_pipeline::maintenance::{Ground, TableRound};

use super::import::wait_for_interrupt;
use crate::output::{OutputArgs, print};

const REDRAW_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_CELLS: u64 = 24;

/// Compacts tables: many small files become few, a fraction as large, without deleted rows.
///
/// The rows stay as they are, and readers and writers go on meanwhile. A running service does this
/// by itself (settings maintain_every, compact_after and vacuum_after); the command is for a table that should be
/// small at once, for data folders without a service, and for other hours. Replaced files stay on
/// disk for readers of older versions, and are deleted when no version of the last vacuum_after
/// refers to them, with what crashes left. What is broken off leaves the tables as they are.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake maintain --once\n  tracelake maintain production.monitoring.agent_traces --once --dry-run\n  tracelake maintain production.monitoring.agent_traces --once --full\n  tracelake maintain --once --older-than 1h --vacuum-after 30d --format jsonl\n\nExit codes:\n  0    done, also when there was nothing to do\n  1    a table could not be maintained; the others were\n  2    wrong arguments\n  130  broken off with Ctrl-C; files that were compacted stay so"
)]
pub(crate) struct MaintainArgs {
    /// The tables [default: all of the data folder]
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    tables: Vec<TableName>,
    /// One round, then end; without it a round every maintain_every until Ctrl-C
    #[arg(long)]
    once: bool,
    /// List what would be rewritten and deleted, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave files that were written since this time alone [default: 0s with --once, else
    /// compact_after]
    #[arg(long, value_name = "TIME")]
    older_than: Option<Span>,
    /// Rewrite compacted files for a single deleted row too
    #[arg(long)]
    full: bool,
    /// Age from which files are deleted that no version refers to since; at least 1h. A table's
    /// delta.deletedFileRetentionDuration wins; 0s deletes nothing [default: 7d]
    #[arg(long, env = "TRACELAKE_VACUUM_AFTER", value_name = "TIME")]
    vacuum_after: Option<Span>,
    /// Take a vacuum_after down to 1m. Unsafe: readers of older versions find their files gone
    #[arg(
        long,
        env = "TRACELAKE_FORCE_SHORT_HORIZON",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    force_short_horizon: Option<bool>,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(data_dir: &Path, args: MaintainArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let flags = Overrides {
        vacuum_after: args.vacuum_after,
        force_short_horizon: args.force_short_horizon,
        ..Overrides::default()
    };
    let settings = Settings::load(args.config.as_deref(), flags)?;
    let folder = data_folder(data_dir)?;
    anyhow::ensure!(
        folder.root().try_exists()?,
        "no data folder at `{}`\nhint: name it with --data-dir",
        folder.root().display()
    );
    let clock = clock_of(&folder);
    let ground = Ground { folder, lake: Lake::new()?, clock };
    if args.dry_run {
        let batch = tokio::task::block_in_place(|| planned(&ground, &settings, &args))?;
        return print(&batch.schema(), std::slice::from_ref(&batch), &args.output);
    }
    let cancel = CancellationToken::new();
    let interrupt = tracelake_archive::spawn(wait_for_interrupt(cancel.clone()));
    let every = settings.maintain_every.max(Duration::from_secs(1));
    let ended = loop {
        let round = {
            let (ground, cancel) = (ground.clone(), cancel.clone());
            let jobs = Jobs {
                tables: args.tables.clone(),
                rules: rules(&ground, &settings, &args),
                vacuum: settings.vacuum,
            };
            let quiet = args.quiet;
            let worker = std::thread::Builder::new()
                .name("maintenance".to_owned())
                .spawn(move || work(&ground, &jobs, quiet, &cancel))
                .context("start the work")?;
            let joined = tokio::task::spawn_blocking(move || worker.join()).await?;
            joined.map_err(|_| anyhow::anyhow!("maintenance panicked"))??
        };
        let batch = report(&round)?;
        print(&batch.schema(), std::slice::from_ref(&batch), &args.output)?;
        let outcome = judge(&round);
        if args.once || cancel.is_cancelled() || outcome.is_err() {
            break outcome;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = cancel.cancelled() => break Ok(()),
        }
    };
    interrupt.abort();
    ended?;
    if cancel.is_cancelled() && args.once {
        let fault = Fault::new(FaultKind::Interrupted, "broken off; what was compacted stays so");
        return Err(fault.with_hint("give the same command again to go on").into());
    }
    Ok(())
}

fn rules(ground: &Ground, settings: &Settings, args: &MaintainArgs) -> CompactionRules {
    let age = match args.older_than {
        Some(age) => age.0,
        None if args.once || args.dry_run => Duration::ZERO,
        None => settings.compact_after,
    };
    let before = ground.older_than(age);
    let rules = if args.once || args.dry_run {
        CompactionRules::eager(before)
    } else {
        CompactionRules::patient(before)
    };
    CompactionRules { purge_percent: if args.full { 0 } else { rules.purge_percent }, ..rules }
}

/// The tables that are named, or all; a name without a table is a fault.
fn tables(ground: &Ground, named: &[TableName]) -> anyhow::Result<Vec<TableName>> {
    if named.is_empty() {
        return ground.folder.tables().context("list the tables");
    }
    let known = ground.folder.tables().context("list the tables")?;
    for name in named {
        anyhow::ensure!(
            known.contains(name),
            "no table `{name}`\nhint: `tracelake status` lists those that are there"
        );
    }
    Ok(named.to_vec())
}

/// What is to be done.
struct Jobs {
    /// Empty for all.
    tables: Vec<TableName>,
    rules: CompactionRules,
    vacuum: Option<VacuumRules>,
}

/// A table and what came of its round.
type Round = Vec<(TableName, TableRound)>;

fn work(
    ground: &Ground,
    jobs: &Jobs,
    quiet: bool,
    cancel: &CancellationToken,
) -> anyhow::Result<Round> {
    let (tables, rules) = (tables(ground, &jobs.tables)?, &jobs.rules);
    let mut total = 0;
    for table in &tables {
        // What cannot be planned is told when it is worked on.
        let groups = ground.plan(table, rules).ok().flatten().unwrap_or_default();
        total += groups.iter().map(|group| group.input_bytes).sum::<u64>();
    }
    let mut progress = Progress::new(total, quiet);
    let mut done = Vec::new();
    for table in tables {
        if cancel.is_cancelled() {
            break;
        }
        let outcome = ground.maintain(&table, rules, jobs.vacuum.as_ref(), &mut |bytes| {
            progress.add(bytes);
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        done.push((table, outcome));
    }
    progress.end();
    Ok(done)
}

fn judge(round: &Round) -> anyhow::Result<()> {
    let faults: Vec<String> = round
        .iter()
        .filter_map(|(table, done)| Some(format!("table `{table}`: {}", done.fault()?)))
        .collect();
    anyhow::ensure!(
        faults.is_empty(),
        "{}\nhint: `tracelake check TABLE` says what is wrong with a table; the others are done",
        faults.join("; ")
    );
    Ok(())
}

fn report(round: &Round) -> anyhow::Result<RecordBatch> {
    let number = |of: &dyn Fn(&CompactionReport) -> u64| {
        let numbers = round.iter().map(|(_, done)| done.compaction.as_ref().ok().map(of));
        Arc::new(numbers.collect::<UInt64Array>()) as ArrayRef
    };
    let vacuumed = |of: &dyn Fn(&VacuumReport) -> u64| {
        let reports = round.iter().map(|(_, done)| done.vacuum.as_ref()?.as_ref().ok().map(of));
        Arc::new(reports.collect::<UInt64Array>()) as ArrayRef
    };
    let names = StringArray::from_iter_values(round.iter().map(|(table, _)| table.to_string()));
    let faults: StringArray = round.iter().map(|(_, done)| done.fault()).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table", Arc::new(names)),
        ("files_before", number(&|report| report.files_before)),
        ("files_after", number(&|report| report.files_after)),
        ("bytes_before", number(&|report| report.bytes_before)),
        ("bytes_after", number(&|report| report.bytes_after)),
        ("rows", number(&|report| report.rows)),
        ("purged_rows", number(&|report| report.purged_rows)),
        ("deleted_files", vacuumed(&|report| report.files)),
        ("deleted_bytes", vacuumed(&|report| report.bytes)),
        ("given_up", number(&|report| report.given_up)),
        ("version", number(&|report| report.version)),
        ("fault", Arc::new(faults)),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )?)
}

/// A row of what a dry run lists.
struct Planned {
    table: TableName,
    /// What would be done with the files.
    action: &'static str,
    files: u64,
    bytes: u64,
    /// Rows that deletion vectors hide in them; none for files that no version has.
    deleted_rows: Option<u64>,
}

fn planned(
    ground: &Ground,
    settings: &Settings,
    args: &MaintainArgs,
) -> anyhow::Result<RecordBatch> {
    let rules = rules(ground, settings, args);
    let mut plans = Vec::new();
    for table in tables(ground, &args.tables)? {
        for group in ground.plan(&table, &rules)?.unwrap_or_default() {
            let vectors = group.files.iter().filter_map(|file| file.deletion_vector.as_ref());
            let deleted = |vector: &DeletionVector| u64::try_from(vector.cardinality).unwrap_or(0);
            plans.push(Planned {
                table: table.clone(),
                action: "compact",
                files: group.files.len() as u64,
                bytes: group.input_bytes,
                deleted_rows: Some(vectors.map(deleted).sum()),
            });
        }
        let Some(vacuum) = &settings.vacuum else { continue };
        let files = ground.expired(&table, vacuum)?;
        if !files.is_empty() {
            plans.push(Planned {
                table,
                action: "delete",
                files: files.len() as u64,
                bytes: files.iter().map(|file| file.size_bytes).sum(),
                deleted_rows: None,
            });
        }
    }
    let number = |of: &dyn Fn(&Planned) -> Option<u64>| {
        Arc::new(plans.iter().map(of).collect::<UInt64Array>()) as ArrayRef
    };
    let names = StringArray::from_iter_values(plans.iter().map(|plan| plan.table.to_string()));
    let actions = StringArray::from_iter_values(plans.iter().map(|plan| plan.action));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("table", Arc::new(names) as ArrayRef, false),
        ("action", Arc::new(actions), false),
        ("files", number(&|plan| Some(plan.files)), false),
        ("bytes", number(&|plan| Some(plan.bytes)), false),
        ("deleted_rows", number(&|plan| plan.deleted_rows), true),
    ])?)
}

/// A line that redraws itself on a terminal, a line every 10 s elsewhere.
struct Progress {
    total: u64,
    done: u64,
    begun: Instant,
    next: Instant,
    quiet: bool,
    terminal: bool,
}

impl Progress {
    fn new(total: u64, quiet: bool) -> Self {
        let (begun, terminal) = (Instant::now(), std::io::stderr().is_terminal());
        let first = if terminal { REDRAW_EVERY } else { LINE_EVERY };
        Self { total, done: 0, begun, next: begun + first, quiet, terminal }
    }

    fn add(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        let now = Instant::now();
        if self.quiet || now < self.next {
            return;
        }
        self.next = now + if self.terminal { REDRAW_EVERY } else { LINE_EVERY };
        let line = line(self.done, self.total, now.duration_since(self.begun));
        let mut out = std::io::stderr().lock();
        // Nobody is told when standard error is gone.
        if self.terminal {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()).ok();
        } else {
            writeln!(out, "{line}").ok();
        }
    }

    fn end(&self) {
        if self.terminal && !self.quiet {
            write!(std::io::stderr().lock(), "\r\x1b[K").ok();
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let (done, total) = (done.min(total), total.max(1));
    let cells = usize::try_from(done.saturating_mul(BAR_CELLS) / total).unwrap_or_default();
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1_000) / millis;
    let left = Duration::from_secs((total - done) / rate.max(1));
    format!(
        "[{:<width$}] {}% of {}, {}/s, {} left",
        "#".repeat(cells),
        done.saturating_mul(100) / total,
        units::bytes(total),
        units::bytes(rate),
        units::duration(left),
        width = usize::try_from(BAR_CELLS).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a quarter of the bytes after two seconds; all of them; nothing to do.
    /// Guarantees: share, rate and time left agree.
    #[test]
    fn tells_rate_and_time_left() {
        let two = Duration::from_secs(2);
        assert_eq!(
            line(10 << 20, 40 << 20, two),
            "[######                  ] 25% of 40.0 MiB, 5.00 MiB/s, 6 s left"
        );
        assert_eq!(
            line(40 << 20, 40 << 20, two),
            "[########################] 100% of 40.0 MiB, 20.0 MiB/s, 0 ms left"
        );
        assert_eq!(line(0, 0, two), "[                        ] 0% of 1 B, 0 B/s, 1 s left");
    }
}
