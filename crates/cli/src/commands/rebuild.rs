//! `tracelake rebuild`: archived traces as the OTLP that they came as.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracelake_archive::ask::engine::default_table;
use tracelake_archive::folder::data_folder;
use tracelake_decode::request::encode_request;
use tracelake_lake::{Lake, Table, TraceDraft};
use tracelake_model::{TableName, TraceId};

/// Writes archived traces as OTLP protobuf, span for span as they were sent.
///
/// With --trace-id one `ExportTraceServiceRequest`; without it one per row, each after its
/// length as a varint. A large trace has several rows.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake rebuild --trace-id tr-0123456789abcdef0123456789abcdef --output trace.pb\n  tracelake rebuild production.monitoring.agent_traces --output all.pb"
)]
pub(crate) struct RebuildArgs {
    /// The table [default: tracelake.default.traces, or the setting]
    #[arg(env = "TRACELAKE_DEFAULT_TABLE", value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
    /// Only this trace
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
    /// Where to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) async fn run(data_dir: &Path, args: &RebuildArgs) -> anyhow::Result<()> {
    let name = default_table(args.table.as_ref())?;
    let wanted = match &args.trace_id {
        None => None,
        Some(text) => Some(TraceId::parse(text).with_context(|| {
            format!(
                "`{}` is not a trace id\nhint: write tr- and 32 hex digits",
                tracelake_model::names::printable(text)
            )
        })?),
    };
    let folder = data_folder(data_dir)?;
    let table = Table::at(&Lake::new()?, folder.table(&name))?;
    anyhow::ensure!(
        table.exists()?,
        "no table `{name}`\nhint: `tracelake sql \"SHOW TABLES\"` lists them"
    );
    let file =
        File::create(&args.output).with_context(|| format!("write `{}`", args.output.display()))?;
    let mut out = BufWriter::new(file);
    let mut count = 0_usize;
    let traces = tokio::task::block_in_place(|| -> anyhow::Result<usize> {
        let snapshot = table.snapshot(None)?;
        snapshot.for_each_trace(wanted, &mut |trace: TraceDraft| {
            let body = encode_request(&trace.spans);
            count += usize::from(trace.part.is_none());
            if wanted.is_none() {
                write_length(&mut out, body.len())?;
            }
            out.write_all(&body)
        })?;
        Ok(count)
    })?;
    out.flush()?;
    if let Some(id) = wanted
        && traces == 0
    {
        std::fs::remove_file(&args.output).ok();
        anyhow::bail!("no trace `{}` in table `{name}`", id.to_mlflow());
    }
    writeln!(std::io::stderr().lock(), "{traces} traces written to {}", args.output.display())?;
    Ok(())
}

/// The length of a message as a varint, as protobuf's `writeDelimitedTo` has it.
fn write_length(out: &mut impl Write, length: usize) -> std::io::Result<()> {
    let mut rest = length;
    while 0x80 <= rest {
        out.write_all(&[u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80])?;
        rest >>= 7;
    }
    out.write_all(&[u8::try_from(rest).unwrap_or_default()])
}
